"""Figures of the chapter on digits."""

import matplotlib.pyplot as plt
import numpy as np

from batchscaling.figures.networks.axes import batch_size_axis, plain_numbers
from batchscaling.figures.style import FAMILY, GREY, LIMIT, MARKERS, finish, look
from batchscaling.registry import METHODS

_NAMES = {"SGD": "SGD", "HeavyBall": "heavy ball"}


def noise_against_batch_size(batch_sizes, measured, examples):
    """Draw the variance of the mini-batch gradient against the batch size.

    Parameters
    ----------
    batch_sizes, measured : ndarray, shape (k,)
        Variance as a multiple of that of one example.
    examples : int
        Size of the training set.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, axes = plt.subplots()
    sizes = np.geomspace(batch_sizes[0], examples - 1, 400)
    finite = (examples - sizes) / (examples - 1) / sizes
    axes.plot(sizes, 1 / sizes, color=GREY, linestyle="--", label="1 / B")
    axes.plot(sizes, finite, **look("theory", marker=False), label="drawn without replacement")
    axes.plot(batch_sizes, measured, "o", color=look("SGD")["color"], label="measured")
    axes.axvline(examples, color=LIMIT, linewidth=1)
    axes.annotate("all examples", (examples, 1 / batch_sizes[0]), (-5, -4), va="top", ha="right",
                  textcoords="offset points", color=LIMIT, fontsize=10)  # fmt: skip
    axes.set(yscale="log", ylabel="variance of the gradient\n(one example: 1)",
             ylim=(0.3 * measured.min(), None))  # fmt: skip
    axes.legend(loc="lower left")
    batch_size_axis(axes, batch_sizes)
    return finish(figure)


def loss_curves(results, target):
    """Draw the validation loss of all trials against steps, one look for each entry.

    Parameters
    ----------
    results : dict of str to TrialResults
        By label, at most four; methods of sweeps, such as "heavy_ball", have their own look.
    target : float
        Drawn as a line.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, axes = plt.subplots()
    for (label, result), style in zip(results.items(), FAMILY, strict=False):
        if label in METHODS:
            style, label = look(label, marker=False), METHODS[label].label
        axes.plot([], [], **style, label=label)
        axes.plot(result.steps, result.loss.T, **style, linewidth=1.2)
    axes.axhline(target, color=LIMIT, linewidth=1, linestyle="--")
    axes.annotate("target", (0, target), (2, 3), textcoords="offset points", color=LIMIT,
                  fontsize=10)  # fmt: skip
    axes.set(xlabel="step", ylabel="validation loss", yscale="log", ylim=(0.08, 6))
    axes.set_yticks([0.1, 0.2, 0.5, 1, 2, 5], labels=["0.1", "0.2", "0.5", "1", "2", "5"])
    axes.legend()
    return finish(figure)


def steps_against_lr(panels, xlabel):
    """Draw steps to the target against the learning rate; a ring marks each curve's best.

    Parameters
    ----------
    panels : dict of str to dict of str to (ndarray, ndarray)
        For each panel's title, for each curve's label: learning rates and steps. Infinite steps
        are left out.
    xlabel : str

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, row = plt.subplots(1, len(panels), sharex=True, sharey=True, squeeze=False)
    for axes, (title, curves) in zip(row[0], panels.items(), strict=True):
        looks = zip(curves.items(), FAMILY, MARKERS, strict=False)
        for (label, (lr, steps)), style, marker in looks:
            shown = np.isfinite(steps)
            axes.plot(lr[shown], steps[shown], **style, marker=marker, label=label)
            if shown.any():
                best = np.argmin(steps)
                axes.plot(lr[best], steps[best], "o", markersize=12, markerfacecolor="none",
                          markeredgecolor=LIMIT, markeredgewidth=1.2)  # fmt: skip
        axes.set_xscale("log", base=2)
        axes.set(title=title, xlabel=xlabel, yscale="log")
    row[0, 0].set_ylabel("steps to the target")
    plain_numbers(row[0, 0].yaxis)
    figure.legend(*row[0, 0].get_legend_handles_labels(), loc="outside right center")
    return finish(figure)


def steps_against_batch_size(batch_sizes, steps, critical=None, model=None):
    """Draw steps to the target against the batch size, with lines of perfect scaling or a model.

    Parameters
    ----------
    batch_sizes : ndarray, shape (k,)
    steps : dict of str to (ndarray, ndarray, ndarray), each of shape (k,)
        For each optimizer: lower end, median and upper end. An infinite upper end is drawn to
        the figure's top.
    critical : dict of str to float, optional
        Critical batch sizes; each is a vertical line.
    model : dict of str to (ndarray, ndarray), optional
        Batch sizes and steps that a model predicts for each optimizer; drawn instead of perfect
        scaling.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, axes = plt.subplots(figsize=(7.2, 4.2))
    highest = max(median.max() for _, median, _ in steps.values())
    handles = []
    for name, (low, median, high) in steps.items():
        style, bars = look(name), [median - low, np.minimum(high, 3 * highest) - median]
        if model is None:
            axes.plot(batch_sizes, median[0] * batch_sizes[0] / batch_sizes,
                      color=style["color"], linewidth=0.8)  # fmt: skip
        else:
            handles += axes.plot(*model[name], color=style["color"], linestyle=style["linestyle"],
                                 label=f"{_NAMES[name]}, noisy quadratic model")  # fmt: skip
            style["linestyle"] = ""
        handles.append(axes.errorbar(batch_sizes, median, bars, **style, capsize=3,
                                     label=_NAMES[name]))  # fmt: skip
        if critical is not None:
            label = f"its critical batch size: {critical[name]:.0f}"
            handles.append(axes.axvline(critical[name], color=style["color"], linewidth=1,
                                        linestyle=style["linestyle"], label=label))  # fmt: skip
    if model is None:
        handles += axes.plot([], [], color="#4d4d4d", linewidth=0.8, label="perfect scaling")
    lowest = min(low.min() for low, _, _ in steps.values())
    axes.set(yscale="log", ylabel="steps to the target", ylim=(lowest / 3, highest * 2))
    plain_numbers(axes.yaxis)
    axes.legend(handles=handles)
    batch_size_axis(axes, batch_sizes)
    return finish(figure)


def lr_against_batch_size(batch_sizes, lr, momentum):
    """Draw the best learning rate and the best effective one against the batch size.

    Parameters
    ----------
    batch_sizes : ndarray, shape (k,)
    lr : dict of str to (ndarray, ndarray, ndarray), each of shape (k,)
        For each optimizer: lowest good rate, best rate, highest good rate.
    momentum : dict of str to ndarray of shape (k,)
        Best momentum.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, panels = plt.subplots(1, 2, sharey=True)
    titles = ("learning rate", "effective learning rate")
    for axes, title, effective in zip(panels, titles, (False, True), strict=True):
        for shift, (name, rates) in zip((0.94, 1.06), lr.items(), strict=True):
            scale = 1 - momentum[name] if effective else 1
            low, best, high = (rate / scale for rate in rates)
            axes.errorbar(shift * batch_sizes, best, [best - low, high - best], **look(name),
                          capsize=3, label=_NAMES[name])  # fmt: skip
        axes.set_yscale("log", base=2)
        axes.set_title(title)
        batch_size_axis(axes, batch_sizes)
    panels[0].legend(loc="lower right")
    return finish(figure)
