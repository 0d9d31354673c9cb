"""Figures of the chapter on SGD as a thermometer."""

import matplotlib.pyplot as plt
import numpy as np

from batchscaling.figures.style import FAMILY, GREY, LIMIT, finish, look


def _name_ticks(axis, values):
    """Put plain numbers as the only ticks on a logarithmic axis."""
    axis.set_ticks(values, [f"{value:.3g}" for value in values])
    axis.set_ticks([], minor=True)


def batch_noise(sizes, measured, expected):
    """Draw the variance of batch gradients against the batch size, for ways to draw a batch.

    Parameters
    ----------
    sizes : ndarray, shape (k,)
    measured, expected : dict of str to ndarray of shape (k,)
        Variance over that of one example, for each way; zeros are not drawn.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, axes = plt.subplots()
    signs = (("o", FAMILY[1]), ("s", look("HeavyBall", marker=False)))
    for name, (marker, line) in zip(measured, signs, strict=True):
        axes.plot(sizes, np.where(expected[name] > 0, expected[name], np.nan), **line)
        axes.plot(sizes, np.where(measured[name] > 1e-12, measured[name], np.nan),
                  linestyle="", marker=marker, color=line["color"], label=name)  # fmt: skip
    axes.set(xlabel="batch size", ylabel="variance / that of one example",
             xscale="log", yscale="log")  # fmt: skip
    _name_ticks(axes.xaxis, sizes)
    axes.legend(title="lines: formulas", alignment="left")
    return finish(figure)


def quadratic_histograms(samples, theta, densities):
    """Draw histograms of SGD's parameter in the long run, over the densities of the equation.

    Parameters
    ----------
    samples : dict of str to ndarray
        Parameters of each setting, one panel each.
    theta : ndarray, shape (k,)
    densities : dict of str to ndarray of shape (k,)

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, panels = plt.subplots(1, len(samples), sharex=True, sharey=True, squeeze=False)
    for axes, (name, values) in zip(panels[0], samples.items(), strict=True):
        edges = np.linspace(theta[0], theta[-1], 61)
        axes.hist(values, edges, density=True, color=FAMILY[0]["color"], label="SGD")
        axes.plot(theta, densities[name], **look("theory", marker=False), label="equation")
        axes.set(title=name, xlabel="parameter")
    panels[0, 0].set_ylabel("density")
    panels[0, -1].legend(handlelength=1.4)
    return finish(figure)


def two_valleys(theta, loss, samples, densities, *, barrier):
    """Draw a landscape and, below it, where SGD and the equation are in the long run.

    Parameters
    ----------
    theta, loss : ndarray, shape (k,)
    samples : dict of str to ndarray
        Parameters of SGD at each setting, one panel each.
    densities : dict of str to ndarray of shape (k,)
    barrier : float
        Between the valleys.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, panels = plt.subplots(
        2, len(samples), figsize=(7.6, 4.6), sharex=True, sharey="row", squeeze=False,
        height_ratios=(1, 1.5),
    )  # fmt: skip
    for (top, bottom), (name, values) in zip(panels.T, samples.items(), strict=True):
        top.plot(theta, loss, color="black", linewidth=1.4)
        edges = np.linspace(theta[0], theta[-1], 81)
        bottom.hist(values, edges, density=True, color=FAMILY[0]["color"], label="SGD")
        bottom.plot(theta, densities[name], **look("theory", marker=False), label="equation")
        top.set(title=name, xlim=(theta[0], theta[-1]))
        bottom.set_xlabel("parameter")
        for axes in (top, bottom):
            axes.axvline(barrier, color=GREY, linewidth=0.9, linestyle=":")
    panels[0, 0].set_ylabel("loss")
    panels[1, 0].set_ylabel("density")
    panels[1, -1].legend(handlelength=1.4)
    return finish(figure)


def variance_ratios(x, ratios, measured_x, measured):
    """Draw SGD's variance over the equation's against rate times curvature.

    Parameters
    ----------
    x : dict of float to ndarray of shape (k,)
        Rate times curvature, for each momentum.
    ratios : dict of float to ndarray of shape (k,)
    measured_x, measured : dict of float to ndarray
        Of simulations.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, axes = plt.subplots()
    for (momentum, values), line, marker in zip(ratios.items(), FAMILY[1:], "osD", strict=True):
        axes.plot(x[momentum], values, **line, label=f"m = {momentum}")
        axes.plot(measured_x[momentum], measured[momentum], linestyle="", marker=marker,
                  color=line["color"])  # fmt: skip
        axes.axvline(2 * (1 + momentum), color=LIMIT, linewidth=0.8, linestyle=":")
    axes.set(xlabel="learning rate × curvature", ylabel="variance, SGD / equation",
             yscale="log", ylim=(0.9, 30), xlim=(0, 4))  # fmt: skip
    axes.set_yticks([1, 2, 5, 10, 20], ["1", "2", "5", "10", "20"])
    axes.legend(title="points: simulated\nred: limits of stability", alignment="left",
                loc="upper left", frameon=True, framealpha=1, edgecolor="white")  # fmt: skip
    return finish(figure)


def share_by_rate(x, shares, errors, expected):
    """Draw the part of the time in the sharp valley against the rate, at one temperature.

    Parameters
    ----------
    x : ndarray, shape (k,)
        Rate times curvature of the sharp valley.
    shares, errors : dict of float to ndarray of shape (k,)
        Part and its standard error, for each momentum.
    expected : float
        Part by the equation.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, axes = plt.subplots()
    axes.axhline(expected, **look("theory", marker=False), label="equation")
    for (momentum, values), name in zip(shares.items(), ("SGD", "HeavyBall"), strict=True):
        axes.errorbar(x, values, 2 * errors[momentum], capsize=3, **look(name),
                      label=f"SGD, m = {momentum}")  # fmt: skip
    axes.set(xlabel="learning rate / (1 − m) × curvature of the sharp valley", xscale="log",
             ylabel="part of time in the sharp valley", ylim=(0, None))  # fmt: skip
    _name_ticks(axes.xaxis, x)
    axes.legend()
    return finish(figure)


def shuffled_epochs(lr, measured, expected):
    """Draw the variance of the parameter against the rate, for three ways to draw batches.

    Parameters
    ----------
    lr : ndarray, shape (k,)
    measured, expected : dict of str to ndarray of shape (k,)

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, axes = plt.subplots()
    signs = (("o", FAMILY[1]), ("s", look("HeavyBall", marker=False)), ("^", look("theory")))
    for (name, values), (marker, line) in zip(measured.items(), signs, strict=True):
        style = {key: line[key] for key in ("color", "linestyle")}
        axes.plot(lr, expected[name], **style)
        axes.plot(lr, values, linestyle="", marker=marker, color=style["color"], label=name)
    axes.set(xlabel="learning rate", ylabel="variance of the parameter",
             xscale="log", yscale="log")  # fmt: skip
    _name_ticks(axes.xaxis, lr)
    axes.legend(title="lines: formulas", alignment="left")
    return finish(figure)
