"""Figures of the chapter on schedules of equal noise."""

import matplotlib.pyplot as plt
import numpy as np

from batchscaling.figures.networks.axes import plain_numbers
from batchscaling.figures.style import FAMILY, GREY, LIMIT, finish, look

_SCHEDULES = (
    FAMILY[0] | {"linewidth": 5},
    FAMILY[2] | {"linewidth": 2.6},
    {"color": "#d55e00", "linestyle": (0, (1, 1)), "linewidth": 2},
    {"color": GREY, "linestyle": "-.", "linewidth": 1.6},
    {"color": "#06375c", "linestyle": "-", "linewidth": 1.2},
)
"""From wide to thin, so that curves which fall together can all be seen."""


def settings_over_epochs(schedules, noise_scales):
    """Draw rate, batch size and noise scale of schedules against epochs, a panel each.

    Parameters
    ----------
    schedules : dict of str to sequence of Phase
        At most five.
    noise_scales : dict of str to sequence of float
        Noise scale of every phase.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, row = plt.subplots(1, 3, figsize=(7.2, 3.2), sharex=True)
    for (name, schedule), line in zip(schedules.items(), _SCHEDULES, strict=False):
        edges = np.cumsum([0, *(phase.epochs for phase in schedule)])
        columns = (
            [phase.lr for phase in schedule],
            [phase.batch_size for phase in schedule],
            noise_scales[name],
        )
        for axes, values in zip(row, columns, strict=True):
            axes.plot(edges.repeat(2)[1:-1], np.repeat(values, 2), **line, label=name)
    for axes, title in zip(row, ("learning rate ε", "batch size B", "noise scale g"), strict=True):
        axes.set(title=title, xlabel="epoch", yscale="log")
        plain_numbers(axes.yaxis)
    figure.legend(*row[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return finish(figure)


def against_epochs_and_updates(curves, ylabel, *, ratios=None):
    """Draw curves of training against epochs and, beside it, against updates.

    Parameters
    ----------
    curves : dict of str to tuple (epochs, updates, low, middle, high) of ndarray
        At most five. `low` and `high` bound a band, and may be `middle`.
    ylabel : str
    ratios : dict of str to tuple (epochs, ratio) of ndarray, optional
        Curves over one of them, for a panel of their own: there they can be told apart.

    Returns
    -------
    matplotlib.figure.Figure
    """
    mosaic = "eu" if ratios is None else "eu;ru"
    heights = None if ratios is None else (2, 1)
    figure, axes = plt.subplot_mosaic(mosaic, figsize=(7.2, 3.9), height_ratios=heights)
    left, right = axes["e"], axes["u"]
    for (name, curve), line in zip(curves.items(), _SCHEDULES, strict=False):
        epochs, updates, low, middle, high = curve
        for panel, time in ((left, epochs), (right, updates)):
            panel.plot(time, middle, **line, label=name)
            panel.fill_between(time, low, high, color=line["color"], alpha=0.15, linewidth=0)
    left.set(title="against epochs", xlabel="epoch", ylabel=ylabel, yscale="log")
    right.set(title="against updates", xlabel="updates", yscale="log", ylim=left.get_ylim())
    right.xaxis.set_major_locator(plt.MaxNLocator(4))
    for panel in (left, right):
        plain_numbers(panel.yaxis)
    if ratios is None:  # the same axis as beside it
        right.yaxis.set_tick_params(labelleft=False)
    else:
        left.set(xlabel="")
        for (epochs, ratio), line in zip(ratios.values(), _SCHEDULES, strict=False):
            axes["r"].plot(epochs, ratio, **line)
        axes["r"].set(xlabel="epoch", ylabel="ratio to\nthe first")
    columns = len(curves) if len(curves) < 4 else 2
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=columns)
    return finish(figure)


def gap_against_rate(steepness, gaps, estimate, allowed):
    """Draw the largest relative difference of two schedules' risks against the rate.

    Parameters
    ----------
    steepness : ndarray, shape (k,)
        Learning rate times the largest curvature.
    gaps : dict of str to ndarray of shape (k,)
        At most two.
    estimate : ndarray, shape (k,)
    allowed : float
        Drawn as a line.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, axes = plt.subplots()
    for (name, gap), line, marker in zip(gaps.items(), _SCHEDULES[1:], "os", strict=False):
        axes.plot(steepness, gap, **line, marker=marker, label=name)
    axes.plot(steepness, estimate, **look("theory"), label="estimate for small rates")
    axes.axhline(allowed, color=LIMIT, linewidth=1)
    axes.annotate(f"{allowed:.0%} of the risk", (steepness[0], allowed), (0, 4),
                  textcoords="offset points", color=LIMIT, fontsize=10)  # fmt: skip
    axes.axvline(2, color=GREY, linewidth=1)
    axes.annotate("unstable", (2, gap[0]), (-4, 0), textcoords="offset points", ha="right",
                  color="#4d4d4d", fontsize=10)  # fmt: skip
    axes.set(xlabel="learning rate times largest curvature", xscale="log", yscale="log",
             ylabel="largest relative gap\nto the decaying rate")  # fmt: skip
    plain_numbers(axes.xaxis)
    axes.legend(loc="upper left", bbox_to_anchor=(0, 0.97))
    return finish(figure)


def ratios_against_epochs(panels, ylabel):
    """Draw losses over that of one schedule against epochs, a panel for each optimizer.

    Parameters
    ----------
    panels : dict of str to dict of str to tuple (epochs, low, middle, high) of ndarray
        For each title, the ratios of schedules with their bands. Four panels.
    ylabel : str

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, grid = plt.subplots(2, 2, sharex=True, sharey=True, figsize=(7.2, 5.2))
    for axes, (title, curves) in zip(grid.flat, panels.items(), strict=True):
        axes.axhline(1, color=GREY, linewidth=1)
        for (name, (epochs, low, middle, high)), line in zip(
            curves.items(), _SCHEDULES[1:], strict=False
        ):
            axes.plot(epochs, middle, **line, label=name)
            axes.fill_between(epochs, low, high, color=line["color"], alpha=0.2, linewidth=0)
        axes.set(title=title, yscale="log", ylim=(0.2, 8))
        axes.set_yticks([0.25, 0.5, 1, 2, 4], ["1/4", "1/2", "1", "2", "4"])
        axes.minorticks_off()
    for axes in grid[:, 0]:
        axes.set_ylabel(ylabel)
    for axes in grid[1]:
        axes.set_xlabel("epoch")
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return finish(figure)


def ever_fewer_updates(panels):
    """Draw losses at the end of training against the number of updates, a panel for each loss.

    Parameters
    ----------
    panels : dict of str to dict of str to tuple (updates, low, middle, high) of ndarray
        For each title, for each way to save updates, at most two.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, row = plt.subplots(1, len(panels), sharex=True)
    looks = (FAMILY[2] | {"marker": "o"}, look("HeavyBall"))
    for axes, (title, routes) in zip(row, panels.items(), strict=True):
        for (name, (updates, low, middle, high)), line in zip(routes.items(), looks, strict=False):
            axes.errorbar(updates, middle, [middle - low, high - middle], **line, capsize=3,
                          label=name)  # fmt: skip
        axes.set(title=title, xscale="log", yscale="log", xlabel="updates")
        plain_numbers(axes.xaxis)
        plain_numbers(axes.yaxis)
    row[0].invert_xaxis()  # of both: they share it
    row[0].legend(loc="upper left")
    return finish(figure)
