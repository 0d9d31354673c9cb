"""Figures of the bridge from the noisy quadratic model to real networks."""

import matplotlib.pyplot as plt
import numpy as np

from batchscaling.figures.networks.axes import batch_size_axis, plain_numbers
from batchscaling.figures.style import FAMILY, GREY, finish, look
from batchscaling.registry import METHODS

_NAMES = {name: (name, method.label) for name, method in METHODS.items()}
_NAMES |= {
    "averaged": ("Averaged", "SGD, averaged"),
    "newton": ("Newton", "Newton, p = 1"),
    "root_newton": ("RootNewton", "p = ½"),
}


def spectra(problems):
    """Draw curvatures, and noise over curvature, against the index of the eigenvector.

    Parameters
    ----------
    problems : dict of str to NoisyQuadratic
        By label; at most four.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, (left, right) = plt.subplots(1, 2)
    for (label, problem), style in zip(problems.items(), FAMILY[::-1], strict=False):
        index = np.arange(1, len(problem.curvature) + 1)
        left.loglog(index, problem.curvature, **style, label=label)
        seen = problem.noise > 1e-6 * problem.curvature
        ratio = problem.noise[seen] / problem.curvature[seen]
        right.loglog(index[seen], ratio, **style, label=label)
    ends = np.array([2, index[-1] / 2])
    line = 2 * problem.curvature[1] / ends
    left.loglog(ends, line, color=GREY, linestyle=":", label="in proportion to 1/i")
    right.axhline(1, color=GREY, linestyle=":", label="noise = curvature")
    left.set(xlabel="index i of the eigenvector", ylabel="curvature")
    right.set(xlabel="index i of the eigenvector", ylabel="noise / curvature", ylim=(0.01, 10))
    left.legend(loc="lower left")
    right.legend(loc="lower left")
    return finish(figure)


def predicted_and_measured(sizes, model, cells):
    """Draw a model's steps to the target as lines, measured ones as marks with their intervals.

    Parameters
    ----------
    sizes : array_like, shape (k,)
        Batch sizes of the model.
    model : dict of str to array_like, each of shape (k,)
        Steps by the name of an optimizer of sweeps, or "averaged", "newton" or "root_newton".
    cells : dict of str to sequence of CellResult
        What was measured, by the same names.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, axes = plt.subplots(figsize=(7.2, 4.6))
    for name, steps in model.items():
        style, label = _NAMES[name]
        axes.plot(sizes, steps, **look(style, marker=False))
        at = [cell.batch_size for cell in cells[name]]
        low, median, high = np.reshape([cell.interval() for cell in cells[name]], (-1, 3)).T
        bars = [median - low, np.minimum(high, 4 * median) - median]
        marks = axes.errorbar(at, median, bars, **look(style), capsize=3, label=label)
        marks.lines[0].set_linestyle("")
    axes.set(yscale="log", ylabel="steps to the target")
    plain_numbers(axes.yaxis)
    batch_size_axis(axes, np.asarray(sizes)[::2])
    axes.legend(title="lines: predicted, marks: measured", loc="upper right")
    return finish(figure)


def on_the_way(steps, curvature, noise, excess, quadratic, labels):
    """Draw how curvature, noise and loss on the way differ from the quadratic at the minimum.

    Parameters
    ----------
    steps : array_like, shape (k,)
        Steps of gradient descent, the first 0.
    curvature, noise : array_like, shape (k, groups)
        Sums over each group of eigenvectors, divided by those at the minimum.
    excess, quadratic : array_like, shape (k,)
        The true loss and the quadratic's, above the minimum.
    labels : sequence of str
        Of the groups, at most four are drawn.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, (top, middle, bottom) = plt.subplots(3, 1, figsize=(7.2, 7.6), sharex=True)
    for axes, values, name in ((top, curvature, "curvature"), (middle, noise, "noise")):
        for column, label, style in zip(np.transpose(values), labels, FAMILY, strict=False):
            axes.plot(steps, column, **style, marker="o", label=label)
        axes.axhline(1, color=GREY, linewidth=1)
        axes.set(yscale="log", ylabel=f"{name}, relative")
        plain_numbers(axes.yaxis)
    bottom.plot(steps, excess, **look("SGD"), label="true loss")
    bottom.plot(
        steps, quadratic, **look("theory", marker=False), label="the quadratic at the same place"
    )
    bottom.set(yscale="log", ylabel="loss above the minimum")
    bottom.set_xscale("symlog", linthresh=1)
    ticks = [step for step in steps if step < 1 or np.log10(step) % 1 < 0.3] or list(steps)
    bottom.set_xticks(ticks, labels=[f"{step:g}" for step in ticks])
    bottom.set(xlim=(0, None), xlabel="steps of gradient descent")
    top.legend(title="eigenvectors", ncols=2)
    bottom.legend()
    return finish(figure)
