"""Figures of the chapter on the best batch size."""

import matplotlib.pyplot as plt
import numpy as np

from batchscaling.figures.networks.axes import batch_size_axis, plain_numbers
from batchscaling.figures.style import FAMILY, GREY, LIMIT, MARKERS, finish, look


def _looks(curves):
    """Yield label, curve and keywords for up to four curves of one family."""
    for (label, curve), line, marker in zip(curves.items(), FAMILY, MARKERS, strict=False):
        yield label, curve, {**line, "marker": marker, "label": label}


def toy(batch_sizes, curves):
    """Draw the expected test cost of the toy against the batch size, a ring at each minimum.

    Parameters
    ----------
    batch_sizes : ndarray, shape (k,)
    curves : dict of str to ndarray of shape (k,)
        At most four.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, axes = plt.subplots()
    for _, cost, style in _looks(curves):
        axes.plot(batch_sizes, cost, **{**style, "marker": ""})
        best = np.argmin(cost)
        axes.plot(batch_sizes[best], cost[best], "o", markersize=9, markerfacecolor="none",
                  markeredgecolor=LIMIT, markeredgewidth=1.4)  # fmt: skip
    axes.set(xscale="log", xlabel="batch size B", ylabel="expected test cost")
    axes.set_ylim(0, 1.6 * max(cost[-1] for cost in curves.values()))
    plain_numbers(axes.xaxis)
    axes.legend()
    return finish(figure)


def accuracy_and_training_loss(curves):
    """Draw held-out accuracy and training loss against the batch size.

    Parameters
    ----------
    curves : dict of str to (ndarray, ndarray, ndarray, ndarray), each of shape (k,)
        For each label: batch sizes, mean accuracy in percent, its standard error, and training
        loss. At most four; the batch sizes are powers of 2.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, (top, bottom) = plt.subplots(2, 1, figsize=(7.2, 5.6), sharex=True)
    best = []
    for _, (sizes, accuracy, error, loss), style in _looks(curves):
        top.errorbar(sizes, accuracy, error, **style, capsize=2)
        bottom.plot(sizes, loss, **style)
        best.append(accuracy.max())
    every = np.unique(np.concatenate([curve[0] for curve in curves.values()]))
    for axes in (top, bottom):
        batch_size_axis(axes, every)
    top.set(ylabel="held-out accuracy (%)", ylim=(min(best) - 3, max(best) + 0.4), xlabel="")
    bottom.set(ylabel="training loss", yscale="log")
    top.legend(loc="lower right")
    return finish(figure)


def gain_against_noise(panels, xlabel):
    """Draw the accuracy above that of the largest batch, against the noise scale.

    Parameters
    ----------
    panels : dict of str to dict of str to (ndarray, ndarray, ndarray), each of shape (k,)
        For each panel's title, for each label: noise scales, mean gain in percentage points, and
        its standard error.
    xlabel : str

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, row = plt.subplots(1, len(panels), figsize=(7.2, 4.2), sharex=True, sharey=True)
    for axes, (title, curves) in zip(row, panels.items(), strict=True):
        axes.axhline(0, color=GREY, linewidth=1)
        for _, (scale, gain, error), style in _looks(curves):
            axes.errorbar(scale, gain, error, **style, capsize=2)
        axes.set(title=title, xscale="log", xlabel=xlabel, ylim=(-3, 2))
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.22))
    row[0].set_ylabel("accuracy above that of B = 128\n(percentage points)")
    return finish(figure)


def best_batch_sizes(panels):
    """Draw the best batch size against rate, memory and examples, with fits and the law.

    Parameters
    ----------
    panels : dict of str to (ndarray, dict of str to (ndarray, ndarray, ndarray, float))
        For each axis label its values, and for each measure, at most two: the best batch sizes,
        the ends of their intervals, and the fitted slope.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, row = plt.subplots(1, len(panels), figsize=(7.2, 4.4), sharey=True)
    for axes, (xlabel, (x, measures)) in zip(row, panels.items(), strict=True):
        middle = np.exp(np.log(x).mean())
        line = np.array([x.min() / 1.2, x.max() * 1.2])
        looks = zip(measures.items(), ("SGD", "HeavyBall"), (0.97, 1.03), strict=True)
        for (name, (best, low, high, slope)), style, shift in looks:
            height = np.exp(np.log(best).mean())
            colour = look(style)["color"]
            axes.plot(line, height * (line / middle) ** slope, color=colour, linewidth=1.2,
                      linestyle=look(style)["linestyle"])  # fmt: skip
            axes.errorbar(shift * x, best, [best - low, high - best], capsize=3, linestyle="",
                          color=colour, marker=look(style)["marker"],
                          label=f"{name}: slope {slope:.2f}")  # fmt: skip
        axes.plot(line, height * line / middle, **look("theory", marker=False), label="slope 1")
        axes.set(xscale="log", yscale="log", xlabel=xlabel, ylim=(2, 128))
        axes.set_xticks(x, labels=[f"{value:g}" for value in x])
        axes.minorticks_off()
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2))
    row[0].set_yticks(2 ** np.arange(1, 8), labels=[str(size) for size in 2 ** np.arange(1, 8)])
    row[0].set_ylabel("best batch size")
    return finish(figure)


def accuracy_of_seeds(accuracy):
    """Draw the accuracy of single runs and their mean against the batch size.

    Parameters
    ----------
    accuracy : dict of int to ndarray of shape (seeds,)
        In percent, for each batch size.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, axes = plt.subplots()
    sizes = np.array(list(accuracy))
    values = np.array(list(accuracy.values()))
    axes.plot(sizes, values, color=GREY, linewidth=0.6)
    axes.plot([], [], color=GREY, linewidth=0.8, label="single runs")
    axes.plot(sizes, values.mean(axis=1), **look("SGD"), label="mean")
    axes.set(ylabel="held-out accuracy (%)", ylim=(max(values.min(), 90) - 0.5, 98.5))
    axes.legend(loc="lower right")
    batch_size_axis(axes, sizes)
    return finish(figure)
