"""Figures of the chapter on preconditioning."""

import matplotlib.pyplot as plt
import numpy as np

from batchscaling.figures.style import FAMILY, GREY, LIMIT, finish, look


def two_directions(curvature, paths, clouds):
    """Draw paths over the contours of a loss, and where noise leaves the parameters.

    Parameters
    ----------
    curvature : ndarray, shape (2,)
    paths : dict of float to ndarray of shape (steps, 2)
        For each power the parameters after 0, 1, 2, ... steps without noise.
    clouds : dict of float to ndarray of shape (runs, 2)
        For each power the parameters of many noisy runs, long after the start.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, (left, right) = plt.subplots(1, 2)
    flat, steep = np.meshgrid(np.linspace(-0.15, 1.15, 80), np.linspace(-1.15, 1.15, 80))
    loss = (curvature[0] * steep**2 + curvature[1] * flat**2) / 2
    left.contour(flat, steep, loss, levels=np.geomspace(1e-3, 0.7, 7), colors=GREY, linewidths=0.6)
    shades, markers = (FAMILY[0], FAMILY[1], FAMILY[3]), ("o", "s", "^")
    for order, (power, shade, marker) in enumerate(zip(paths, shades, markers, strict=True)):
        look_of_power = {"color": shade["color"], "marker": marker, "label": f"p = {power:g}"}
        path, cloud = paths[power], clouds[power]
        left.plot(path[:, 1], path[:, 0], **look_of_power, linestyle=shade["linestyle"])
        right.plot(cloud[:, 1], cloud[:, 0], **look_of_power, linestyle="", markersize=3,
                   zorder=3 - 0.1 * order)  # fmt: skip
    left.set(title="without noise", xlabel="flat direction", ylabel="steep direction")
    right.set(title="where the noise leaves it", xlabel="flat direction")
    left.legend()
    right.legend(loc="upper left", frameon=True, framealpha=1, edgecolor="white")
    return finish(figure)


def speed_and_floor(power, times, floors, special):
    """Draw how fast and how low against the power.

    Parameters
    ----------
    power : ndarray, shape (k,)
    times : dict of str to ndarray of shape (k,)
        Steps in which the slowest direction shrinks by 1/e, for each optimizer's name.
    floors : dict of str to ndarray of shape (k,)
        Floor at the same fractions of the largest stable rate, for each label.
    special : ndarray, shape (k,)
        Floor at the rate that is fastest without noise.

    Returns
    -------
    matplotlib.figure.Figure
    """
    names = {"SGD": "SGD", "HeavyBall": "momentum"}
    figure, (left, right) = plt.subplots(1, 2)
    for name, values in times.items():
        left.plot(power, values, **look(name, marker=False), label=names[name])
    for (label, values), shade in zip(floors.items(), FAMILY[1:], strict=False):
        right.plot(power, values, **shade, label=label)
    right.plot(power, special, **look("theory", marker=False), label="fastest rate")
    left.set(title="how fast: steps to shrink by 1/e")
    right.set(title="how low: floor at B = 1")
    for axes in (left, right):
        axes.set(xlabel="power p", yscale="log")
        axes.legend()
    return finish(figure)


def floor_by_direction(curvature, exact, approximate, errors):
    """Draw the floor of each direction, by formula and exactly, and the formula's error.

    Parameters
    ----------
    curvature : ndarray, shape (k,)
    exact, approximate, errors : dict of float to ndarray of shape (k,)
        For each power; the error is relative.

    Returns
    -------
    matplotlib.figure.Figure
    """
    thin = {"color": LIMIT, "linewidth": 0.9, "zorder": 1}
    figure, (left, right) = plt.subplots(1, 2)
    for power, shade in zip(exact, FAMILY, strict=True):
        left.plot(curvature, exact[power], **shade, label=f"p = {power:g}")
        left.plot(curvature, approximate[power], **thin)
        right.plot(curvature, errors[power], **shade)
    left.plot([], [], **thin, label="equation 10")
    left.set(title="floor of one direction")
    right.set(title="relative error of equation 10")
    for axes in (left, right):
        axes.set(xlabel=r"curvature $h / h_1$", xscale="log", yscale="log")
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=5)
    return finish(figure)


def equal_floor(power, speed, steps, risks, floor):
    """Draw speed and risk of several powers whose rates are set to give the same floor.

    Parameters
    ----------
    power : ndarray, shape (k,)
    speed : ndarray, shape (k,)
        One minus the convergence factor.
    steps : ndarray, shape (n,)
    risks : dict of float to ndarray of shape (n,)
    floor : float

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, (left, right) = plt.subplots(1, 2)
    left.plot(power, speed, **look("SGD", marker=False))
    left.set(title="speed of the flattest direction", xlabel="power p", yscale="log")
    left.set_ylim(_decades(speed))
    for (p, risk), shade in zip(risks.items(), FAMILY, strict=True):
        right.plot(steps, risk, **shade, label=f"p = {p:g}")
    right.axhline(floor, color=LIMIT, linewidth=1)
    right.annotate("same floor", (steps[0], floor), (2, 4), textcoords="offset points",
                   color=LIMIT, fontsize=10)  # fmt: skip
    right.set(title="risk", xlabel="step", xscale="log", yscale="log")
    right.legend()
    return finish(figure)


def steps_by_power(power, panels, bounds):
    """Draw tuned steps to a target against the power, one panel a batch size.

    Parameters
    ----------
    power : sequence of float, length k
    panels : dict of str to dict of str to sequence of length k
        For each title and optimizer's name the steps at each power.
    bounds : dict of str to float or None
        Lower bound of the steps for each title; None draws none.

    Returns
    -------
    matplotlib.figure.Figure
    """
    names = {"SGD": "SGD", "HeavyBall": "momentum"}
    figure, axes = plt.subplots(1, len(panels))
    for side, (title, curves) in zip(axes, panels.items(), strict=True):
        for name, steps in curves.items():
            side.plot(power, steps, **look(name), label=names[name])
        if bounds[title] is not None:
            side.axhline(bounds[title], **look("theory", marker=False), label="lower bound")
        side.set(title=title, xlabel="power p", yscale="log", xticks=power)
        side.set_ylim(_decades(np.concatenate(list(curves.values()))))
        side.legend()
    axes[0].set_ylabel("steps to the target")
    return finish(figure)


def _decades(values):
    """Return the powers of ten around `values`: between them ticks are labelled sparsely."""
    exponents = np.log10(values)
    return 10 ** np.floor(exponents.min()), 10 ** np.ceil(exponents.max())
