"""Figures of the chapter on measuring gradient noise."""

import matplotlib.pyplot as plt
import numpy as np

from batchscaling.figures.networks.axes import plain_numbers
from batchscaling.figures.style import FAMILY, GREY, LIMIT, MARKERS, finish, look
from batchscaling.registry import METHODS


def progress_of_the_best_step(batch_sizes, progress, formula, noise_scale):
    """Draw the progress of the best step, as a part of that without noise, against batch size.

    Parameters
    ----------
    batch_sizes, progress, formula : ndarray, shape (k,)
    noise_scale : float
        Batch size at which half of the progress is left.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, axes = plt.subplots()
    axes.plot(batch_sizes, formula, **look("theory"), label="$1/(1 + B_\\mathrm{noise}/B)$")
    axes.plot(batch_sizes, progress, "o", color=FAMILY[2]["color"], label="best of many rates")
    axes.axvline(noise_scale, color=LIMIT, linewidth=1)
    axes.annotate("$B_\\mathrm{noise}$", (noise_scale, 0.02), (4, 0), textcoords="offset points",
                  color=LIMIT)  # fmt: skip
    axes.set(xlabel="batch size B", ylabel="progress of the best step\n(without noise: 1)")
    axes.set_xscale("log", base=2)
    axes.set_ylim(0, 1.05)
    axes.legend(loc="upper left")
    return finish(figure)


def quality_of_estimators(counts, biases, coverage, confidence):
    """Draw the bias of estimators, and how often intervals hold the truth, against their number.

    Parameters
    ----------
    counts : ndarray, shape (k,)
        Measurements that an estimate is made of.
    biases : dict of str to ndarray of shape (k,)
        Relative bias by name, at most four.
    coverage : ndarray, shape (k,)
    confidence : float

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, (left, right) = plt.subplots(1, 2)
    for (name, bias), line, marker in zip(biases.items(), FAMILY, MARKERS, strict=False):
        left.plot(counts, 100 * bias, **line, marker=marker, label=name)
    left.axhline(0, color=GREY, linewidth=1)
    left.set(title="bias", ylabel="percent of the truth")
    left.legend()
    right.plot(counts, 100 * coverage, color=FAMILY[2]["color"], marker="o")
    right.axhline(100 * confidence, color=LIMIT, linewidth=1)
    right.set(title="intervals that hold the truth", ylabel="percent", ylim=(88, 100))
    for axes in (left, right):
        axes.set_xscale("log", base=2)
        axes.set_xticks(counts, labels=[str(count) for count in counts])
        axes.set_xlabel("measurements")
    return finish(figure)


def noise_along_runs(runs, critical):
    """Draw the noise scales along runs on the noisy quadratic model, a panel for each scale.

    Parameters
    ----------
    runs : dict of str to tuple (done, simple, noise) of ndarray
        Part of the steps done and the two noise scales, at most four.
    critical : float
        Critical batch size.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, row = plt.subplots(1, 2, sharey=True, figsize=(7.2, 3.9))
    for (name, (done, *scales)), line in zip(runs.items(), FAMILY, strict=False):
        for axes, scale in zip(row, scales, strict=True):
            axes.plot(done, scale, **line, label=name)
    for axes, title in zip(row, ("$B_\\mathrm{simple}$", "$B_\\mathrm{noise}$"), strict=True):
        axes.axhline(critical, color=LIMIT, linewidth=1, label="critical batch size")
        axes.set(title=title, xlabel="part of the steps done", yscale="log")
    row[0].set_ylabel("batch size")
    figure.legend(*row[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return finish(figure)


def scales_against_critical(critical, scales):
    """Draw noise scales against critical batch sizes.

    Parameters
    ----------
    critical : ndarray, shape (k,)
    scales : dict of str to ndarray of shape (k,)
        At most four.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, axes = plt.subplots()
    ends = np.array([critical.min() / 1.5, critical.max() * 1.5])
    axes.plot(ends, ends, **look("theory", marker=False), label="equal")
    for (name, values), line, marker in zip(scales.items(), FAMILY[1:], MARKERS, strict=False):
        axes.plot(critical, values, **line, marker=marker, label=name)
    axes.set(xlabel="critical batch size", ylabel="mean along a run", xscale="log", yscale="log")
    plain_numbers(axes.xaxis)
    plain_numbers(axes.yaxis)
    axes.legend()
    return finish(figure)


def steps_and_examples(curves):
    """Draw what training needs above the fewest steps against that above the fewest examples.

    Parameters
    ----------
    curves : dict of str to tuple (examples, steps) of ndarray
        Both as multiples of the fewest, minus one. At most four; points that are not positive in
        both are left out.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, axes = plt.subplots(figsize=(7.2, 4.2))
    line = np.array([1e-3, 1e3])
    axes.plot(line, 1 / line, **look("theory", marker=False), label="product 1")
    for (name, (examples, steps)), style, marker in zip(
        curves.items(), FAMILY, MARKERS, strict=False
    ):
        shown = (examples > 1e-3) & (steps > 1e-3)
        axes.plot(examples[shown], steps[shown], **style, marker=marker, label=name)
    _trade_off_axes(axes)
    axes.legend()
    return finish(figure)


def measured_steps_and_examples(panels):
    """Draw measured steps and examples above the fewest, a panel for each target.

    Parameters
    ----------
    panels : dict of str to dict of str to tuple (examples, steps, low, high) of ndarray
        For each title, for each optimizer of a sweep: examples and steps as multiples of the
        fewest, minus one, and the interval of the steps. An end that is not positive is drawn to
        the axis.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, row = plt.subplots(
        1, len(panels), figsize=(7.2, 4.2), sharex=True, sharey=True, squeeze=False
    )
    line = np.array([1e-3, 1e3])
    for axes, (title, curves) in zip(row[0], panels.items(), strict=True):
        axes.plot(line, 1 / line, **look("theory", marker=False), label="product 1")
        for name, (examples, steps, low, high) in curves.items():
            label = METHODS[name].label
            shown = (examples > 0) & (steps > 0)
            bars = np.array([steps - np.maximum(low, 1e-3), high - steps])[:, shown]
            axes.errorbar(examples[shown], steps[shown], np.maximum(bars, 0),
                          **look(name) | {"linestyle": ""}, elinewidth=1, label=label)  # fmt: skip
        _trade_off_axes(axes)
        axes.set_title(title)
    for axes in row[0, 1:]:
        axes.set_ylabel("")
    figure.legend(*row[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return finish(figure)


def noise_against_loss(runs, target, critical):
    """Draw the noise scale during training against the validation loss.

    Parameters
    ----------
    runs : dict of str to tuple (loss, scale) of ndarray, each of shape (evaluations, trials)
        At most four. Scales that are not positive are left out.
    target : float
        Loss that ends the count of steps.
    critical : tuple (low, middle, high) of float
        Critical batch size to this target.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, axes = plt.subplots(figsize=(7.2, 4))
    low, middle, high = critical
    axes.axhspan(low, high, color=LIMIT, alpha=0.2, linewidth=0)
    axes.axhline(middle, color=LIMIT, linewidth=1, label="critical batch size")
    for (name, (loss, scale)), style, marker in zip(runs.items(), FAMILY[::2], "os", strict=False):
        shown = np.isfinite(scale) & (scale > 0)
        axes.plot(loss[shown], scale[shown], marker, color=style["color"], markersize=4, label=name)
    axes.axvline(target, color=GREY, linewidth=1)
    axes.annotate("target", (target, 2.4), (4, 0), textcoords="offset points", ha="left",
                  color="#4d4d4d", fontsize=10)  # fmt: skip
    axes.set(xlabel="validation loss", ylabel="$B_\\mathrm{simple}$", xscale="log", yscale="log",
             ylim=(2, 5000))  # fmt: skip
    axes.invert_xaxis()
    plain_numbers(axes.xaxis)
    plain_numbers(axes.yaxis)
    axes.legend(loc="upper left")
    return finish(figure)


def _trade_off_axes(axes):
    axes.set(xlabel="examples / fewest examples − 1", ylabel="steps / fewest steps − 1")
    axes.set(xscale="log", yscale="log", xlim=(1e-2, 1e2), ylim=(1e-2, 1e2))
    for axis in (axes.xaxis, axes.yaxis):
        plain_numbers(axis)
        axis.set_major_locator(plt.LogLocator())
