"""Figures of the chapter on several processes."""

import matplotlib.pyplot as plt
import numpy as np

from batchscaling.curves import median_interval
from batchscaling.figures.networks.axes import batch_size_axis, plain_numbers
from batchscaling.figures.style import FAMILY, LIMIT, MARKERS, finish, look


def processes_and_rows(steps, processes, rows, meetings):
    """Draw the loss of workers that are processes over that of simulated ones.

    Parameters
    ----------
    steps, processes, rows : ndarray, shape (k,)
    meetings : ndarray
        Steps after which workers meet.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, axes = plt.subplots()
    for step in meetings:
        axes.axvline(step, color=FAMILY[0]["color"], linewidth=0.8, alpha=0.6)
    axes.plot(steps, rows, **look("theory", marker=False), label="simulated workers")
    axes.plot(steps, processes, linestyle="", marker="o", color=FAMILY[2]["color"],
              label="two processes")  # fmt: skip
    axes.set(xlabel="step", ylabel="validation loss", yscale="log")
    plain_numbers(axes.yaxis)
    axes.legend()
    return finish(figure)


def by_examples_and_rounds(steps, losses, batch_size, target):
    """Draw losses against the examples that were used, and against the means that were taken.

    Parameters
    ----------
    steps : ndarray, shape (k,)
        The first is 0.
    losses : dict of int to ndarray of shape (seeds, k)
        For each number of local steps, at most four.
    batch_size : int
    target : float
        Drawn as a line.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, panels = plt.subplots(1, 2, sharey=True)
    for (every, rows), line, marker in zip(losses.items(), FAMILY, MARKERS, strict=False):
        for axes, places in zip(panels, (steps * batch_size, steps // every), strict=True):
            last = np.append(np.diff(places) > 0, True)  # of a round
            shown = last & (places > 0)
            middle = np.median(rows, axis=0)[shown]
            axes.plot(places[shown], middle, **line, marker=marker, markevery=4,
                      label=f"H = {every}")  # fmt: skip
            axes.fill_between(places[shown], rows.min(0)[shown], rows.max(0)[shown],
                              color=line["color"], alpha=0.2, linewidth=0)  # fmt: skip
    for axes, label in zip(panels, ("examples", "means over the workers"), strict=True):
        axes.axhline(target, color=LIMIT, linewidth=1)
        axes.set(xlabel=label, xscale="log", yscale="log")
    panels[0].set_ylabel("validation loss")
    plain_numbers(panels[0].yaxis)
    panels[0].legend()
    return finish(figure)


def curves_of_local_steps(panels):
    """Draw steps to target against the batch size, for each number of workers and local steps.

    Parameters
    ----------
    panels : dict of int to dict of int to BatchSizeCurve
        For each number of workers, and of local steps, at most four.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, all_axes = plt.subplots(1, len(panels), sharey=True, squeeze=False)
    for axes, (workers, curves) in zip(all_axes[0], panels.items(), strict=True):
        styles = zip(curves.items(), FAMILY, MARKERS, strict=False)
        for shift, ((every, curve), line, marker) in enumerate(styles):
            low, middle, high = np.array([median_interval(row) for row in curve.steps]).T
            beside = curve.batch_sizes * 1.05 ** (shift - 1)  # so that bars do not hide each other
            axes.errorbar(beside, middle, [middle - low, high - middle], **line, marker=marker,
                          capsize=2, label=f"H = {every}")  # fmt: skip
        batch_size_axis(axes, curve.batch_sizes)
        axes.set(title=f"{workers} workers", yscale="log")
        plain_numbers(axes.yaxis)
    all_axes[0, 0].set_ylabel("steps to the target")
    all_axes[0, 0].legend()
    return finish(figure)
