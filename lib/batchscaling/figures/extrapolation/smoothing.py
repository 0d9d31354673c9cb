"""Figures of the chapter on smoothing and looking ahead."""

import matplotlib.pyplot as plt
import numpy as np

from batchscaling.figures.style import FAMILY, GREY, finish, look

METHODS = {
    "gradient descent": {"color": "#0072b2", "linestyle": "-"},
    "Nesterov": {"color": "#d55e00", "linestyle": (0, (6, 2))},
    "extragradient": {"color": "#007a5e", "linestyle": (0, (2, 1.5))},
    "past gradient": {"color": "#9b3f86", "linestyle": "-."},
    "implicit step": look("theory", marker=False),
}


def rotation(paths):
    """Draw paths around a saddle and the distances from it.

    Parameters
    ----------
    paths : dict of str to ndarray of shape (steps + 1, 2)
        For each method.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, (left, right) = plt.subplots(1, 2, width_ratios=(1, 1.2))
    for name, points in paths.items():
        left.plot(*points.T, **METHODS[name])
        right.plot(np.hypot(*points.T), **METHODS[name], label=name)
    left.plot(0, 0, marker="+", color="black", markersize=9)
    left.set(title="paths", xlabel="x", ylabel="y", aspect="equal", xlim=(-2.5, 2.5),
             ylim=(-2.5, 2.5))  # fmt: skip
    right.set(title="distance from the saddle", xlabel="step", yscale="log")
    right.legend()
    return finish(figure)


def factors(x, values):
    """Draw the factor of one step against rate times curvature.

    Parameters
    ----------
    x : ndarray, shape (k,)
    values : dict of str to ndarray of shape (k,)
        For each method.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, axes = plt.subplots()
    axes.axhline(1, color=GREY, linewidth=1)
    for name, factor in values.items():
        axes.plot(x, factor, **METHODS[name], label=name)
    axes.set(xlabel="learning rate × curvature", ylabel="factor of a step", ylim=(0, 1.3))
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return finish(figure)


def gradients_to_converge(condition, gradients):
    """Draw gradients that divide the distance by a million, against the condition number.

    Parameters
    ----------
    condition : ndarray, shape (k,)
    gradients : dict of str to ndarray of shape (k,)
        For each method.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, axes = plt.subplots()
    for (name, values), marker in zip(gradients.items(), "o^sD", strict=True):
        axes.plot(condition, values, **METHODS[name], marker=marker, label=name)
    axes.set(xlabel="condition number", ylabel="gradients", xscale="log", yscale="log")
    axes.legend()
    return finish(figure)


def smoothed_kink(x, values, slopes):
    """Draw a kink, its smoothed versions and their slopes.

    Parameters
    ----------
    x : ndarray, shape (k,)
    values, slopes : dict of float to ndarray of shape (k,)
        For each standard deviation; 0 is the kink itself.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, (left, right) = plt.subplots(1, 2)
    for (std, value), line in zip(values.items(), FAMILY[::-1], strict=True):
        label = f"σ = {std:g}" if std else "|x|"
        left.plot(x, value, **line, label=label)
        right.plot(x, slopes[std], **line)
    left.set(title="smoothed loss", xlabel="x", ylim=(0, None))
    right.set(title="its slope", xlabel="x")
    left.legend()
    return finish(figure)


def kinked_valley(plain, smoothed):
    """Draw losses against steps in a valley with a kink.

    Parameters
    ----------
    plain : ndarray, shape (k,)
        Loss of gradient descent.
    smoothed : dict of int to ndarray of shape (k,)
        Mean loss for each number of workers that perturb their points.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, axes = plt.subplots()
    axes.plot(plain, **METHODS["gradient descent"], label="gradient descent")
    reds = ("#f2b48c", "#d55e00", "#7a3600")
    for (workers, values), color, dashes in zip(
        smoothed.items(), reds, ("-", (0, (6, 2)), (0, (2, 1.5))), strict=True
    ):
        label = f"smoothed, {workers} worker{'s' if workers > 1 else ''}"
        axes.plot(values, color=color, linestyle=dashes, label=label)
    axes.set(xlabel="step", ylabel="mean loss", yscale="log")
    axes.legend()
    return finish(figure)
