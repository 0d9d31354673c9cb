"""Figures of the bridge from the noisy quadratic model to real networks."""

import matplotlib.pyplot as plt
import numpy as np

from batchscaling.figures.style import FAMILY, GREY, finish, look


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
        axes.set(yscale="log", ylabel=f"{name} / {name} at the minimum")
    bottom.plot(steps, excess, **look("SGD"), label="true loss")
    bottom.plot(
        steps, quadratic, **look("theory", marker=False), label="the quadratic at the same place"
    )
    bottom.set(yscale="log", ylabel="loss above the minimum")
    bottom.set_xscale("symlog", linthresh=1)
    bottom.set_xlim(0, None)
    bottom.set_xlabel("steps of gradient descent")
    top.legend(title="eigenvectors", ncols=2)
    bottom.legend()
    return finish(figure)
