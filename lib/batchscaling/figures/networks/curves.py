"""Figures of measured batch-size curves."""

import matplotlib.pyplot as plt
import numpy as np

from batchscaling import _validation as check
from batchscaling.figures.networks.axes import batch_size_axis, plain_numbers
from batchscaling.figures.style import GREY, LIMIT, finish, look
from batchscaling.registry import METHODS

_SHAPES = "osD^v<>PX"  # of tasks, where colours are of verdicts
_VERDICTS = {"holds": "#007a5e", "roughly": "#56a08c", "open": "#8f8f8f", "fails": "#b22222"}


def sweep_curves(cells, measure="validation"):
    """Draw steps to the target against the batch size, a panel for each task.

    Bars are 95 % intervals of the median over fresh seeds; thin lines are perfect scaling from
    each curve's smallest batch.

    Parameters
    ----------
    cells : iterable of CellResult
        At least one; their optimizers are methods of the registry.
    measure : str
        One of the cells' measures.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        If there is no cell, or one has another optimizer or no such measure.
    """
    cells = _some("cells", list(cells))
    tasks = list(dict.fromkeys(cell.task for cell in cells))
    for cell in cells:
        check.one_of("a cell's optimizer", cell.optimizer, METHODS)
    figure, row = _panels(len(tasks), 4.2)
    shown = {}
    for axes, task in zip(row, tasks, strict=True):
        chosen = [cell for cell in cells if cell.task == task]
        lowest = min(cell.interval(measure)[0] for cell in chosen)
        for name in [name for name in METHODS if any(cell.optimizer == name for cell in chosen)]:
            curve = [cell for cell in chosen if cell.optimizer == name]
            bars = _beside_perfect(axes, name, curve, measure, lowest)
            shown.setdefault(METHODS[name].label, bars)
        axes.set(title=task, yscale="log", ylabel=f"steps to the {measure} target")
        plain_numbers(axes.yaxis)
        _batch_sizes(axes, [cell.batch_size for cell in chosen])
    if len(row) == 3:  # one place of four is free
        figure.legend(shown.values(), shown.keys(), loc=(0.6, 0.15))
    else:
        row[0].legend(shown.values(), shown.keys(), loc="lower left")
    return finish(figure)


def _beside_perfect(axes, name, curve, measure, lowest):
    """Draw one curve, and perfect scaling from its smallest batch; return what a legend shows."""
    curve = sorted(curve, key=lambda cell: cell.batch_size)
    sizes = np.array([cell.batch_size for cell in curve])
    low, median, high = np.array([cell.interval(measure) for cell in curve]).T
    with np.errstate(invalid="ignore"):  # no bar where the target was not reached
        bars = [median - low, np.minimum(high, 4 * median) - median]
    drawn = axes.errorbar(sizes, median, bars, **look(name), capsize=3)
    perfect = median[0] * sizes[0] / sizes
    kept = perfect > lowest / 2
    axes.plot(sizes[kept], perfect[kept], color=look(name)["color"], linewidth=0.8)
    return drawn


def critical_batch_sizes(panels):
    """Draw critical batch sizes and their intervals, a panel for each task.

    Parameters
    ----------
    panels : dict of str to dict of str to (float, float, float)
        For each title, for each optimizer of a sweep: lower end, middle and upper end.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        If there is no panel, or an empty one.
    """
    counts = [len(_some("panels", rows)) for rows in _some("panels", panels).values()]
    figure, column = plt.subplots(
        len(panels), 1, figsize=(7.2, 0.36 * sum(counts) + 0.55 * len(counts) + 0.7), sharex=True,
        squeeze=False, height_ratios=counts,
    )  # fmt: skip
    for axes, (title, rows) in zip(column[:, 0], panels.items(), strict=True):
        for place, (name, (low, middle, high)) in enumerate(rows.items()):
            style = look(name)
            axes.errorbar(middle, place, xerr=[[middle - low], [high - middle]], capsize=4,
                          color=style["color"], marker=style["marker"], markersize=7)  # fmt: skip
        axes.set_yticks(range(len(rows)), labels=[METHODS[name].label for name in rows])
        axes.set(title=title, ylim=(len(rows) - 0.5, -0.5))
    axes.set(xlabel="critical batch size", xlim=(0, None))
    return finish(figure)


def claims(rows):
    """Draw the measured ratios behind claims, with their intervals and verdicts.

    Parameters
    ----------
    rows : dict of str to dict of str to (sequence of 3 float, str)
        For each claim, for each task: lower end, middle and upper end of the ratio that should be
        1 or more, and the verdict.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        If there is no claim, or a verdict is none of `verdict`.
    """
    figure, axes = plt.subplots(figsize=(7.2, 0.36 * len(_some("rows", rows)) + 1.1))
    tasks = list(dict.fromkeys(task for found in rows.values() for task in found))
    apart = 0.75 / max(len(tasks), 3)
    axes.axvline(1, color=LIMIT, linewidth=1)
    axes.axvspan(0.8, 1.25, color=GREY, alpha=0.15, linewidth=0)
    for place, found in enumerate(rows.values()):
        for task, ((low, middle, high), verdict) in found.items():
            rank = tasks.index(task)
            sign = _sign(verdict) | {"marker": _SHAPES[rank % len(_SHAPES)]}
            height = place + apart * (rank - 1) if len(found) > 1 else place
            axes.errorbar(middle, height, xerr=[[middle - low], [high - middle]], **sign)
    for rank, task in enumerate(tasks):
        axes.plot([], [], _SHAPES[rank % len(_SHAPES)], color=GREY, label=task)
    for verdict in _VERDICTS:
        axes.plot([], [], **_sign(verdict), marker="P", markersize=8, label=verdict)
    axes.set_yticks(range(len(rows)), labels=rows)
    axes.set(xscale="log", xlabel="measured ratio", ylim=(len(rows) - 0.5, -0.5))
    axes.set_xticks([0.25, 0.5, 1, 2, 4, 8, 16], ["1/4", "1/2", "1", "2", "4", "8", "16"])
    axes.minorticks_off()
    figure.legend(loc="outside lower center", ncols=4)
    return finish(figure)


def ratios(panels, ylabel):
    """Draw ratios and their intervals against the batch size, with a line at 1.

    Parameters
    ----------
    panels : dict of str to dict of str to (ndarray, ndarray)
        For each title, for each optimizer of a sweep: batch sizes, shape (k,), and lower ends,
        middles and upper ends, shape (3, k). Ends at zero or infinity are drawn to the edge; such
        middles are left out.
    ylabel : str

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        If no middle is finite and above zero.
    """
    middles = [ends[1] for lines in panels.values() for _, ends in lines.values()]
    middles = np.concatenate([*middles, []])
    middles = middles[np.isfinite(middles) & (middles > 0)]
    if not len(middles):
        check.reject("panels", panels, "some middle that is finite and above zero")
    figure, row = _panels(len(panels), 3.6, sharey=True)
    edges = middles.min() / 1.5, middles.max() * 1.5
    shown = {}
    for axes, (title, lines) in zip(row, panels.items(), strict=True):
        axes.axhline(1, color=GREY, linewidth=1)
        for place, (name, (sizes, ends)) in enumerate(lines.items()):
            low, _, high = np.clip(ends, *edges)
            middle = np.where((ends[1] >= edges[0]) & (ends[1] <= edges[1]), ends[1], np.nan)
            beside = sizes * 1.06 ** (place - (len(lines) - 1) / 2)
            label = METHODS[name].label
            bars = [middle - low, high - middle]
            shown[label] = axes.errorbar(beside, middle, bars, **look(name), capsize=2)
        axes.set(title=title, yscale="log")
        _batch_sizes(axes, [s for sizes, _ in lines.values() for s in sizes])
        _fine_numbers(axes.yaxis)
    for axes in row[::2]:
        axes.set_ylabel(ylabel)
    figure.legend(shown.values(), shown.keys(), loc="outside upper right", ncols=len(shown))
    return finish(figure)


def best_rates(panels):
    """Draw the best (effective) learning rate against the batch size, with a line of slope 1.

    Parameters
    ----------
    panels : dict of str to dict of str to (ndarray, ndarray)
        For each title, for each optimizer of a sweep: batch sizes, shape (k,), and the lowest
        good rates, the best ones and the highest good ones, shape (3, k).

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, row = _panels(len(_some("panels", panels)), 3.6)
    shown = {}
    for axes, (title, lines) in zip(row, panels.items(), strict=True):
        for place, (name, (sizes, (low, best, high))) in enumerate(lines.items()):
            beside = sizes * 1.08 ** (place - (len(lines) - 1) / 2)
            label = METHODS[name].label
            bars = [best - low, high - best]
            shown[label] = axes.errorbar(beside, best, bars, **look(name), capsize=2)
        sizes, (_, best, _) = next(iter(lines.values()))
        line = best[0] * sizes / sizes[0]
        kept = line < 6 * best.max()
        (shown["in proportion to B"],) = axes.plot(sizes[kept], line[kept], color=LIMIT,
                                                   linewidth=1, linestyle=":")  # fmt: skip
        axes.set(title=title, yscale="log")
        plain_numbers(axes.yaxis)
        _batch_sizes(axes, [s for sizes, _ in lines.values() for s in sizes])
    for axes in row[::2]:
        axes.set_ylabel("best effective rate")
    columns = len(shown) if len(shown) < 5 else 3
    figure.legend(shown.values(), shown.keys(), loc="outside upper right", ncols=columns)
    return finish(figure)


def beside_model(cells, model):
    """Draw measured steps as points and a model's as lines, a panel for each task.

    Parameters
    ----------
    cells : sequence of CellResult
    model : dict of str to dict of str to (ndarray, ndarray)
        For each task, for each optimizer that is shown: batch sizes and steps.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, row = _panels(len(_some("model", model)), 4.2)
    shown = {}
    for axes, (task, lines) in zip(row, model.items(), strict=True):
        for name, (sizes, steps) in lines.items():
            curve = [c for c in cells if (c.task, c.optimizer) == (task, name)]
            measured = [cell.batch_size for cell in curve]
            low, median, high = np.array([cell.interval() for cell in curve]).T
            label = METHODS[name].label
            line = look(name, marker=False)
            inside = (sizes >= min(measured) / 1.5) & (sizes <= 1.5 * max(measured))
            axes.plot(sizes[inside], steps[inside], **line)
            bars = [median - low, np.minimum(high, 4 * median) - median]
            shown[label] = axes.errorbar(measured, median, bars, **look(name), capsize=3)
            shown[label].lines[0].set_linestyle("")
        axes.set(title=task, yscale="log")
        plain_numbers(axes.yaxis)
        _batch_sizes(axes, [c.batch_size for c in cells if c.task == task])
    for axes in row[::2]:
        axes.set_ylabel("steps to the target")
    figure.legend(shown.values(), shown.keys(), loc="outside upper right", ncols=len(shown))
    return finish(figure)


def settings(cell, measure="validation"):
    """Draw the steps of every setting that a cell's search tried, against the effective rate.

    Parameters
    ----------
    cell : CellResult
    measure : str
        One of the cell's measures.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        If the cell has no such measure.
    """
    check.one_of("measure", measure, cell.best)
    figure, axes = plt.subplots()
    momentum = cell.hyper.get("momentum", np.zeros(len(cell.hyper["lr"])))
    lr, steps = cell.hyper["lr"] / (1 - momentum), np.median(cell.steps[measure], axis=1)
    arrived = np.isfinite(steps)
    lost = 1.6 * steps[arrived].max(initial=1)
    axes.plot(
        lr[arrived], steps[arrived], "o", color=look(cell.optimizer)["color"], label="arrived"
    )
    axes.plot(
        lr[~arrived], np.full((~arrived).sum(), lost), "x", color=GREY, label="did not arrive"
    )
    best = cell.best[measure]
    if best is not None:
        axes.plot(lr[best], steps[best], "o", markersize=13, markerfacecolor="none",
                  markeredgecolor=LIMIT, label="chosen")  # fmt: skip
    title = f"{cell.task}, {METHODS[cell.optimizer].label}, B = {cell.batch_size}"
    axes.set(title=title, xscale="log", yscale="log",
             xlabel="effective learning rate", ylabel=f"steps to the {measure} target")  # fmt: skip
    plain_numbers(axes.xaxis)
    plain_numbers(axes.yaxis)
    axes.legend()
    return finish(figure)


def _some(name, values):
    """Return what is to be drawn, unless it is nothing."""
    return values if len(values) else check.reject(name, values, "at least one")


def _panels(count, height, **keywords):
    """Return a figure of `count` panels, two in a row, and their axes."""
    rows = -(-count // 2)
    figure, grid = plt.subplots(
        rows, min(count, 2), figsize=(7.2, height * rows), squeeze=False, **keywords
    )
    for spare in grid.flat[count:]:
        spare.set_axis_off()
    return figure, list(grid.flat[:count])


def _batch_sizes(axes, sizes):
    """Give `axes` a horizontal axis of batch sizes, without a label that would touch the last."""
    sizes = np.unique(sizes)
    batch_size_axis(axes, sizes[(sizes == sizes[-1]) | (sizes < sizes[-1] / 1.6)])


def _sign(verdict):
    """Return the look of a verdict: hollow where a claim does not hold."""
    color = _VERDICTS[check.one_of("verdict", verdict, _VERDICTS)]
    face = color if verdict in ("holds", "roughly") else "white"
    return {"color": color, "markerfacecolor": face, "markeredgewidth": 1.6, "linestyle": ""}


def _fine_numbers(axis):
    """Label a short logarithmic axis in plain digits."""
    axis.set_major_locator(plt.LogLocator(subs=(0.5, 0.7, 1, 1.5, 2, 3, 4)))
    axis.set_major_formatter(plt.FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(plt.NullLocator())
