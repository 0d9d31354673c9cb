"""Figures of the chapter on what momentum costs."""

import matplotlib.pyplot as plt
import numpy as np

from batchscaling.figures.networks.axes import plain_numbers
from batchscaling.figures.style import FAMILY, GREY, MARKERS, finish, look


def filling(steps, filled, weights):
    """Draw how an accumulator fills, and how old the gradients in a full one are.

    Parameters
    ----------
    steps : ndarray, shape (k,)
    filled : dict of float to ndarray of shape (k,)
        Filled part after each step, for each momentum.
    weights : dict of float to ndarray of shape (k,)
        Weight of the gradient of each age, from 0 on.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, (left, right) = plt.subplots(1, 2)
    for (momentum, part), line in zip(filled.items(), FAMILY[1:], strict=True):
        left.plot(steps, part, **line, label=f"m = {momentum}")
        right.plot(steps - 1, weights[momentum], **line)
        left.plot(1 / (1 - momentum), 1 - np.exp(-1), "o", color=line["color"])
    left.axhline(1 - np.exp(-1), color=GREY, linewidth=0.8)
    left.set(title="filled part", xlabel="steps", ylim=(0, 1.05))
    right.set(title="weight of a gradient", xlabel="its age in steps", yscale="log",
              ylim=(1e-4, 1))  # fmt: skip
    left.legend(loc="lower right", frameon=True, framealpha=1, edgecolor="white")
    return finish(figure)


def steps_lost(time, lost, targets, by_target):
    """Draw steps lost to SGD at the same effective rate, in units of m / (1 - m).

    Parameters
    ----------
    time : ndarray, shape (k,)
        Steps times effective rate times curvature.
    lost : dict of float to ndarray of shape (k,)
        Along one flat direction, for each momentum.
    targets : ndarray, shape (n,)
        Risks of the whole model.
    by_target : dict of float to ndarray of shape (n,)

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, (left, right) = plt.subplots(1, 2, sharey=True)
    left.plot(time, 1 - time, **look("theory", marker=False), label="formula")
    signs = list(zip(FAMILY[1:], MARKERS, strict=False))
    for (momentum, values), (line, marker), size in zip(lost.items(), signs, (9, 4), strict=False):
        left.plot(time, values, linestyle="", marker=marker, color=line["color"],
                  markersize=size, label=f"m = {momentum}")  # fmt: skip
    for (momentum, values), (line, marker) in zip(by_target.items(), signs, strict=True):
        right.plot(targets, values, **line, marker=marker, label=f"m = {momentum}")
    left.set(title="one flat direction", ylabel="steps lost × (1 − m) / m",
             xlabel="time, in 1 / (rate × curvature)")  # fmt: skip
    right.set(title="10,000 directions", xlabel="risk", xscale="log")
    right.invert_xaxis()
    for axes in (left, right):
        axes.axhline(0, color=GREY, linewidth=0.9)
        axes.legend()
    return finish(figure)


def moving_target(steps, target, paths):
    """Draw how momentum follows a minimum that moves and stops.

    Parameters
    ----------
    steps, target : ndarray, shape (k,)
    paths : dict of float to ndarray of shape (k,)
        The parameter, for each momentum.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, axes = plt.subplots()
    axes.plot(steps, target, color="black", linewidth=1.2, label="minimum")
    for (momentum, path), line in zip(paths.items(), FAMILY[1:], strict=True):
        axes.plot(steps, path, **line, label=f"m = {momentum}")
    axes.set(xlabel="steps", ylabel="parameter")
    axes.legend()
    return finish(figure)


def final_by_momentum(momenta, panels):
    """Draw what stands at the end of training against the memory of momentum.

    Parameters
    ----------
    momenta : ndarray, shape (k,)
    panels : dict of str to dict of str to (ndarray, ndarray)
        For each quantity and each method: mean and half width of its interval, shape (k,).

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, row = plt.subplots(1, len(panels), squeeze=False)
    names = ("HeavyBall", "Adam", "SGD", "KFAC")
    for axes, (title, lines) in zip(row[0], panels.items(), strict=True):
        for (label, (mean, half)), name in zip(lines.items(), names, strict=False):
            axes.errorbar(1 / (1 - momenta), mean, half, capsize=3, **look(name), label=label)
        axes.set(title=title, xlabel="1 / (1 − m)", xscale="log")
        if len(panels) < 3:
            plain_numbers(axes.xaxis)
        else:  # too narrow for more
            axes.set_xticks([1, 10, 100], ["1", "10", "100"])
            axes.minorticks_off()
        axes.margins(x=0.06)
    if len(lines) > 1:
        row[0, 0].legend(loc="upper left")
    return finish(figure)


def by_batch_size(batch_sizes, momenta, panels):
    """Draw what stands at the end of training where momentum grows with the batch.

    Parameters
    ----------
    batch_sizes, momenta : ndarray, shape (k,)
    panels : dict of str to dict of str to (ndarray, ndarray)
        As for `final_by_momentum`.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, row = plt.subplots(1, len(panels), squeeze=False)
    names = ("HeavyBall", "SGD", "KFAC")
    labels = [f"{B}\n{m:.3g}" for B, m in zip(batch_sizes, momenta, strict=True)]
    for axes, (title, lines) in zip(row[0], panels.items(), strict=True):
        for (label, (mean, half)), name in zip(lines.items(), names, strict=False):
            axes.errorbar(range(len(mean)), mean, half, capsize=3, **look(name), label=label)
        axes.set(title=title, xlabel="batch size; momentum below it")
        axes.set_xticks(range(len(labels)), labels)
    row[0, 0].legend(loc="upper left")
    return finish(figure)
