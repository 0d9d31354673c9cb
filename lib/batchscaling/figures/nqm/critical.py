"""Figures of the chapter on the critical batch size."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import ListedColormap

from batchscaling.figures.nqm.axes import batch_size_axis
from batchscaling.figures.style import FAMILY, GREY, LIMIT, MARKERS, finish, look

_POWERS = {0: "0", 0.25: "1/4", 0.5: "1/2", 0.75: "3/4"}


def two_lines(batch_sizes, steps, examples, least):
    """Draw steps to target against the batch size, between its two asymptotes and their sum.

    Parameters
    ----------
    batch_sizes, steps : ndarray, shape (k,)
    examples : float
        Batch size times steps in the limit of small batches.
    least : float
        Steps in the limit of large batches.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, axes = plt.subplots()
    line, critical = examples / batch_sizes, examples / least
    axes.fill_between(batch_sizes, np.maximum(line, least), line + least, color="#e6eef6",
                      label="between the higher line and the sum of both")  # fmt: skip
    axes.plot(
        batch_sizes,
        line,
        **look("theory", marker=False),
        label=r"perfect scaling, $E_\mathrm{min}/B$",
    )
    axes.axhline(
        least, color=GREY, linestyle="--", label=r"least number of steps, $S_\mathrm{min}$"
    )
    axes.plot(batch_sizes, steps, **look("SGD"), label="SGD, best rate")
    axes.axvline(critical, ymax=0.6, color=LIMIT, linewidth=1)  # ends below the legend
    _note(axes, "critical batch size", (critical, 12 * least))
    batch_size_axis(axes, batch_sizes)
    axes.set(ylabel="steps to the target", yscale="log", ylim=(least / 2.5, steps.max() * 2))
    axes.legend(loc="upper right")
    return finish(figure)


def steps_by_power(batch_sizes, plain, other, label, bound):
    """Draw steps to target of SGD and of another optimizer, one colour a power, with a bound.

    Parameters
    ----------
    batch_sizes : ndarray, shape (k,)
    plain, other : dict of float to ndarray of shape (k,)
        Steps by power, of SGD and of the other optimizer.
    label : str
        What the other optimizer has.
    bound : ndarray, shape (k,)

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, axes = plt.subplots(figsize=(7.2, 4.6))
    for power, shade, marker in zip(plain, FAMILY, MARKERS, strict=False):
        line = {"color": shade["color"], "marker": marker}
        axes.plot(batch_sizes, plain[power], linestyle="--", **line)
        axes.plot(batch_sizes, other[power], linestyle="-", label=f"p = {_POWERS[power]}", **line)
    axes.plot([], [], color=GREY, linestyle="-", label=label)
    axes.plot([], [], color=GREY, linestyle="--", label="plain SGD")
    axes.plot(batch_sizes, bound, color=LIMIT, linestyle=":", label="information bound")
    batch_size_axis(axes, batch_sizes)
    axes.set(ylabel="steps to the target", yscale="log", ylim=(1, None))
    axes.legend(loc="upper right", ncols=2)
    return finish(figure)


def information(examples, likelihood, bayes, measured):
    """Draw what N examples tell at most, and what optimizers reach.

    Parameters
    ----------
    examples : ndarray, shape (k,)
    likelihood, bayes : ndarray, shape (k,)
        Risk of the maximum-likelihood estimate and of the Bayes estimate.
    measured : dict of str to (ndarray, ndarray)
        For each optimizer the examples it needs, and the targets.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, axes = plt.subplots()
    axes.plot(examples, likelihood, color=LIMIT, linestyle=":", label="maximum likelihood")
    axes.plot(examples, bayes, **look("theory", marker=False) | {"linestyle": "-"}, label="Bayes")
    axes.fill_between(examples, bayes, bayes.min() / 2, color="#eeeeee")
    shades = (look("SGD"), look("HeavyBall"))
    for (label, (needed, target)), shade in zip(measured.items(), shades, strict=False):
        axes.plot(needed, target, **shade, label=label)
    axes.annotate("no method gets here", (examples[len(examples) // 5], bayes.min() * 1.5),
                  color="#4d4d4d", fontsize=10)  # fmt: skip
    axes.set(xlabel="examples seen, N", ylabel="risk", xscale="log", yscale="log",
             ylim=(bayes.min() / 2, 15))  # fmt: skip
    axes.legend(loc="upper right")
    return finish(figure)


def best_rates(batch_sizes, plain, fixed, tuned):
    """Draw the best effective rate against the batch size, in three panels.

    Parameters
    ----------
    batch_sizes : ndarray, shape (k,)
    plain, fixed, tuned : dict of float to ndarray of shape (k,)
        Best effective rate by power: of SGD, with momentum 0.9, with tuned momentum.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, panels = plt.subplots(1, 3, sharey=True, figsize=(7.2, 3.9))
    titles = ("(a) no momentum", "(b) momentum 0.9", "(c) tuned momentum")
    for axes, rates, title in zip(panels, (plain, fixed, tuned), titles, strict=True):
        for (power, rate), shade, marker in zip(rates.items(), FAMILY, MARKERS, strict=False):
            axes.plot(batch_sizes, rate, color=shade["color"], marker=marker, markersize=4,
                      label=f"p = {_POWERS[power]}")  # fmt: skip
            if rates is not plain:
                axes.plot(batch_sizes, plain[power], color=shade["color"], linestyle=":")
        batch_size_axis(axes, batch_sizes)
        axes.set(title=title, yscale="log")
    panels[0].set_ylabel("best effective rate")
    panels[1].plot([], [], color=GREY, linestyle=":", label="no momentum, as in (a)")
    figure.legend(*panels[1].get_legend_handles_labels(), loc="outside lower center", ncols=5,
                  columnspacing=1.2, handlelength=1.8)  # fmt: skip
    return finish(figure)


def saving_of_momentum(one_minus, ratios, border):
    """Draw steps with momentum over steps without, against the momentum.

    Parameters
    ----------
    one_minus : ndarray, shape (k,)
        1 - momentum.
    ratios : dict of int to ndarray of shape (k,)
        Steps over those of plain SGD for each batch size.
    border : float
        Smallest 1 - momentum of the published search.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, axes = plt.subplots()
    for (batch_size, ratio), shade, marker in zip(ratios.items(), FAMILY, MARKERS, strict=False):
        axes.plot(one_minus, ratio, **shade, marker=marker, label=f"B = {batch_size:,}")
    axes.axhline(1, color=GREY, linewidth=1)
    axes.axvline(border, color=LIMIT, linewidth=1)
    axes.annotate("border of the\npublished search", (border, 0.82), (-5, 0), ha="right", va="top",
                  textcoords="offset points", color=LIMIT, fontsize=10)  # fmt: skip
    axes.set(xlabel="1 − momentum (best rate at each)", ylabel="steps, relative to plain SGD",
             xscale="log", ylim=(0.75, 1.25))  # fmt: skip
    axes.legend(loc="upper right", framealpha=1, frameon=True, edgecolor="white")
    return finish(figure)


def steps_by_target(batch_sizes, steps, critical):
    """Draw steps against the batch size for several targets, with the critical batch sizes.

    Parameters
    ----------
    batch_sizes : ndarray, shape (k,)
    steps : dict of float to ndarray of shape (k,)
    critical : dict of float to CriticalBatchSize

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, axes = plt.subplots()
    for (target, curve), shade, marker in zip(steps.items(), FAMILY, MARKERS, strict=False):
        axes.plot(batch_sizes, curve, **shade, marker=marker, label=f"target {target:g}")
        at = critical[target]
        axes.plot(at.batch_size, at.steps, color=LIMIT, marker="x", markersize=9, linestyle="",
                  markeredgewidth=2)  # fmt: skip
    axes.plot([], [], color=LIMIT, marker="x", linestyle="", markersize=9, markeredgewidth=2,
              label="the two lines cross")  # fmt: skip
    batch_size_axis(axes, batch_sizes)
    axes.set(ylabel="steps to the target", yscale="log")
    axes.legend(loc="upper right")
    return finish(figure)


def map_of_choices(batch_sizes, targets, winner, factor, choices, title):
    """Draw which choice needs the fewest steps, and by what factor fewer than plain SGD.

    Parameters
    ----------
    batch_sizes : ndarray, shape (k,)
    targets : sequence of float, length m
        From easy to hard.
    winner : ndarray of int, shape (m, k)
        Position of the best choice in `choices`.
    factor : ndarray, shape (m, k)
        Steps of plain SGD over steps of the best choice.
    choices : dict of str to (str, str)
        For each choice its letter in the map and its colour.
    title : str

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, axes = plt.subplots(figsize=(7.2, 0.52 * len(targets) + 1.9))
    letters, colours = zip(*choices.values(), strict=True)
    axes.imshow(winner, cmap=ListedColormap(colours), vmin=-0.5, vmax=len(choices) - 0.5,
                aspect="auto")  # fmt: skip
    for (row, column), best in np.ndenumerate(winner):
        times = float(f"{factor[row, column]:.2g}")
        axes.text(column, row, f"{letters[best]}\n{times:,g}×", ha="center", va="center",
                  fontsize=9, linespacing=1.05)  # fmt: skip
    axes.grid(visible=False)
    axes.set_xticks(range(len(batch_sizes)), [_power_of_two(B) for B in batch_sizes])
    axes.set_yticks(range(len(targets)), [f"{target:g}" for target in targets])
    axes.set(title=title, xlabel="batch size", ylabel="target")
    axes.spines[:].set_visible(False)
    for index in np.unique(winner):
        label = f"{letters[index]}: {list(choices)[index]}"
        axes.plot([], [], color=colours[index], marker="s", linestyle="", markersize=11,
                  label=label)  # fmt: skip
    figure.legend(loc="outside lower center", ncols=2)
    return finish(figure)


def _power_of_two(number):
    return f"$2^{{{round(np.log2(number))}}}$"


def _note(axes, text, at):
    axes.annotate(text, at, (5, 0), textcoords="offset points", color=LIMIT, fontsize=10)
