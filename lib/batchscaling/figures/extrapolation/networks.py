"""Figures of the chapter on extrapolation on real networks."""

import matplotlib.pyplot as plt
import numpy as np

from batchscaling.figures.networks.axes import plain_numbers
from batchscaling.figures.style import GREY, finish, look
from batchscaling.registry import METHODS


def _bars(low, middle, high):
    """Return the lengths of error bars below and above."""
    return np.array([np.subtract(middle, low), np.subtract(high, middle)])


def relative_steps(panels):
    """Draw steps over those of a reference, a row for each method.

    Parameters
    ----------
    panels : dict of str to dict of str to (float, float, float)
        For each title, and for each method of the registry: low, middle and high.

    Returns
    -------
    matplotlib.figure.Figure
    """
    height = 1.2 + 0.36 * max(map(len, panels.values()))
    figure, all_axes = plt.subplots(1, len(panels), squeeze=False, figsize=(7.2, height))
    for axes, (title, rows) in zip(all_axes[0], panels.items(), strict=True):
        for row, (name, (low, middle, high)) in enumerate(rows.items()):
            line = look(name)
            axes.errorbar(middle, row, xerr=_bars([low], [middle], [high]), color=line["color"],
                          marker=line["marker"], capsize=3)  # fmt: skip
        axes.axvline(1, color=GREY, linewidth=1)
        labels = [METHODS[name].label for name in rows]
        axes.set_yticks(range(len(rows)), labels=labels)
        axes.invert_yaxis()
        axes.set(title=title, xlabel="relative steps")
    return finish(figure)


def by_momentum(curves):
    """Draw steps to the target against a fixed momentum.

    Parameters
    ----------
    curves : dict of str to dict of float to (float, float, float)
        For each method of the registry and each momentum: low, middle and high.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, axes = plt.subplots()
    for shift, (name, points) in enumerate(curves.items()):
        low, middle, high = np.array(list(points.values())).T
        places = np.arange(len(points)) + 0.06 * shift  # so that bars do not hide each other
        axes.errorbar(places, middle, _bars(low, middle, high), **look(name), capsize=3,
                      label=METHODS[name].label)  # fmt: skip
    axes.set_xticks(range(len(points)), labels=[f"{momentum:g}" for momentum in points])
    axes.set(xlabel="momentum, fixed", ylabel="steps to the target", yscale="log")
    plain_numbers(axes.yaxis)
    axes.legend()
    return finish(figure)


def smoothness_along_the_way(steps, losses, smoothness):
    """Draw the gradient's Lipschitz estimate against the step, and against the loss.

    Parameters
    ----------
    steps : ndarray, shape (k,)
    losses, smoothness : dict of str to ndarray of shape (seeds, k)
        For each method of the registry.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, panels = plt.subplots(1, 2, sharey=True)
    for name, rows in smoothness.items():
        middle, loss = np.median(rows, axis=0), np.median(losses[name], axis=0)
        panels[0].plot(steps, middle, **look(name), label=METHODS[name].label)
        band = rows.min(axis=0), rows.max(axis=0)
        panels[0].fill_between(steps, *band, color=look(name)["color"], alpha=0.15, linewidth=0)
        panels[1].plot(loss, middle, **look(name))
    panels[0].set(xlabel="step", ylabel="Lipschitz estimate", yscale="log")
    panels[1].set(xlabel="training loss", xscale="log")
    panels[1].invert_xaxis()
    panels[0].legend()
    return finish(figure)
