"""Figures of the chapter on tuning."""

import matplotlib.pyplot as plt
import numpy as np

from batchscaling.figures.networks.axes import batch_size_axis, plain_numbers
from batchscaling.figures.style import GREY, LIMIT, finish, look
from batchscaling.registry import METHODS

_TUNED = {"color": "#0072b2", "linestyle": "-", "marker": "o"}
_POOR = [
    {"color": "#b22222", "linestyle": "--", "marker": "s"},
    {"color": "#9b3f86", "linestyle": "-.", "marker": "^"},
    {"color": "#4d4d4d", "linestyle": ":", "marker": "D"},
]


def point_sets(sets):
    """Draw sets of points in the unit square, a panel each, and their shadows on the first axis.

    Parameters
    ----------
    sets : dict of str to ndarray, each of shape (points, 2)

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, row = plt.subplots(1, len(sets), figsize=(7.2, 3.1), sharey=True)
    for axes, (title, points) in zip(row, sets.items(), strict=True):
        axes.plot(*points.T, "o", color=_TUNED["color"], clip_on=False)
        axes.plot(points[:, 0], np.full(len(points), -0.14), "|", color=LIMIT, markersize=11,
                  clip_on=False)  # fmt: skip
        axes.set(title=title, xlim=(0, 1), ylim=(-0.2, 1), xlabel="what matters", aspect="equal")
        axes.set_xticks([0, 0.5, 1], labels=["0", "0.5", "1"])
        axes.set_yticks([0, 0.5, 1], labels=["0", "0.5", "1"])
    row[0].set_ylabel("what does not")
    return finish(figure)


def valley(cells):
    """Draw steps against the learning rate for all settings of a search, a panel for each cell.

    Settings whose median seed did not arrive, or of which a seed diverged, stand at the top.

    Parameters
    ----------
    cells : dict of str to CellResult
        For each title; with validation steps.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, row = plt.subplots(1, len(cells), sharex=True, squeeze=False)
    for axes, (title, cell) in zip(row[0], cells.items(), strict=True):
        lr, steps = cell.hyper["lr"], np.median(cell.steps["validation"], axis=1)
        diverged = cell.diverged.any(axis=1)
        late = ~np.isfinite(steps) & ~diverged
        arrived = np.isfinite(steps) & ~diverged
        top = steps[arrived].max()
        axes.plot(lr[arrived], steps[arrived], **{**_TUNED, "linestyle": ""}, label="arrived")
        axes.plot(lr[late], np.full(late.sum(), 1.3 * top), "|", color=GREY, markersize=9,
                  label="not in time")  # fmt: skip
        axes.plot(lr[diverged], np.full(diverged.sum(), 1.7 * top), "x", color=LIMIT,
                  label="diverged")  # fmt: skip
        axes.set(title=title, xscale="log", yscale="log", xlabel="learning rate")
        plain_numbers(axes.yaxis)
    row[0, 0].set_ylabel("steps to the target")
    handles = row[0, 0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=3)
    return finish(figure)


def good_settings(cells, good):
    """Draw settings of heavy ball, by rate and by effective rate; the good ones are filled.

    Parameters
    ----------
    cells : dict of str to CellResult
        For each row's label.
    good : dict of str to ndarray of bool, each of shape (settings,)
        For each row's label.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, grid = plt.subplots(
        len(cells), 2, figsize=(7.2, 2.5 * len(cells) + 0.5), sharex=True, sharey=True
    )
    for row, (label, cell) in zip(np.atleast_2d(grid), cells.items(), strict=True):
        rest = 1 - cell.hyper["momentum"]
        lr = cell.hyper["lr"]
        for axes, rate in zip(row, (lr, lr / rest), strict=True):
            chosen = good[label]
            axes.plot(rate[~chosen], rest[~chosen], "o", color=GREY, markersize=4,
                      markerfacecolor="none", label="others")  # fmt: skip
            axes.plot(rate[chosen], rest[chosen], "o", color=look("HeavyBall")["color"],
                      markersize=6, label="good")  # fmt: skip
            axes.set_xscale("log")
            axes.set_yscale("log")
            plain_numbers(axes.yaxis)
        row[0].set_ylabel(f"{label}\n1 − momentum")
    bottom = np.atleast_2d(grid)[-1]
    bottom[0].set_xlabel("learning rate")
    bottom[1].set_xlabel("effective learning rate")
    figure.legend(*bottom[0].get_legend_handles_labels(), loc="outside upper right", ncols=2)
    return finish(figure)


def search_and_final(search, final):
    """Draw what a search says about its best settings, and what the seeds of the final say.

    Parameters
    ----------
    search : ndarray, shape (settings,)
        Steps in the search, increasing.
    final : ndarray, shape (3, settings)
        Lower end, median and upper end in the final. An infinite end is drawn to the top.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, axes = plt.subplots()
    rank = np.arange(1, len(search) + 1)
    low, median, high = final
    top = 1.08 * final[np.isfinite(final)].max()
    shown = np.minimum(median, top)
    axes.errorbar(rank + 0.1, shown, [shown - low, np.minimum(high, top) - shown], fmt="s",
                  color=look("HeavyBall")["color"], capsize=3, label="ten other seeds")  # fmt: skip
    axes.plot(rank - 0.1, search, "o", color=_TUNED["color"], label="the search's two seeds")
    axes.set(xlabel="rank in the search", ylabel="steps to the target", ylim=(0, top))
    axes.set_xticks(rank)
    axes.legend(loc="lower right")
    return finish(figure)


def best_of_draws(panels):
    """Draw the steps of the best of k settings against k, a panel for each batch size.

    Parameters
    ----------
    panels : dict of str to dict of str to ndarray of shape (3, settings)
        For each title, for each optimizer of a sweep: 10 %, 50 % and 90 % points of the best of
        1, 2, ... settings. Infinite numbers are left out.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, row = plt.subplots(1, len(panels), sharex=True, squeeze=False)
    for axes, (title, curves) in zip(row[0], panels.items(), strict=True):
        for name, (low, median, high) in curves.items():
            count = np.arange(1, len(median) + 1)
            style = look(name, marker=False) | {"label": METHODS[name].label}
            shown = np.isfinite(high)
            axes.fill_between(count[shown], low[shown], high[shown], color=style["color"],
                              alpha=0.15, linewidth=0)  # fmt: skip
            axes.plot(count, np.where(np.isfinite(median), median, np.nan), **style)
        axes.set(title=title, xscale="log", yscale="log", xlabel="settings tried")
        plain_numbers(axes.xaxis)
        plain_numbers(axes.yaxis)
    row[0, 0].set_ylabel("steps of the best one")
    row[0, -1].legend()
    return finish(figure)


def procedures(batch_sizes, tuned, others):
    """Draw steps against batch size for careful tuning and for other procedures.

    Parameters
    ----------
    batch_sizes : ndarray, shape (k,)
    tuned : (ndarray, ndarray, ndarray), each of shape (k,)
        Lower end, median and upper end.
    others : dict of str to ndarray of shape (k,)
        At most three. Infinite numbers are crosses at the top.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, axes = plt.subplots(figsize=(7.2, 4.2))
    low, median, high = tuned
    finite = np.concatenate([median, *others.values()])
    top = 1.6 * finite[np.isfinite(finite)].max()
    axes.plot(batch_sizes, median[0] * batch_sizes[0] / batch_sizes, color=GREY, linewidth=0.8,
              label="perfect scaling")  # fmt: skip
    for (label, steps), style in zip(others.items(), _POOR, strict=False):
        arrived = np.isfinite(steps)
        axes.plot(batch_sizes, np.where(arrived, steps, np.nan), **style, label=label)
        axes.plot(batch_sizes[~arrived], np.full(np.sum(~arrived), top), "x", markersize=8,
                  markeredgewidth=2, color=style["color"], clip_on=False)  # fmt: skip
    axes.errorbar(batch_sizes, median, [median - low, high - median], **_TUNED, capsize=3,
                  linewidth=2.4, label="tuned at every batch size")  # fmt: skip
    axes.set(yscale="log", ylabel="steps to the target", ylim=(0.6 * low.min(), top))
    plain_numbers(axes.yaxis)
    axes.legend()
    batch_size_axis(axes, batch_sizes)
    return finish(figure)
