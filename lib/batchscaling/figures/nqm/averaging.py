"""Figures of the chapter on averaging."""

import matplotlib.pyplot as plt

from batchscaling.figures.nqm.axes import batch_size_axis
from batchscaling.figures.style import FAMILY, GREY, LIMIT, finish, look

AVERAGE = {"color": "#00795c", "linestyle": (0, (5, 1.5)), "marker": "D"}
_TAILS = (
    {"color": "#9b3f86", "linestyle": (0, (3, 1, 1, 1)), "marker": "v"},
    {"color": "#d55e00", "linestyle": "-.", "marker": "^"},
)
_LINES = (
    {"color": "#8f8f8f", "linestyle": "-"},
    {"color": "#00795c", "linestyle": (0, (5, 1.5))},
    {"color": "#0072b2", "linestyle": (0, (1, 1))},
    {"color": "#d55e00", "linestyle": "-."},
)


def run_and_average(theta, average, risks, averaged_risks, exact):
    """Draw one run and its average, and beside them the mean losses of many with the exact risks.

    Parameters
    ----------
    theta, average : ndarray, shape (k,)
        Parameter of one run after 0, 1, 2, ... steps, and its running average.
    risks, averaged_risks : ndarray, shape (k,)
        Mean losses over many runs.
    exact : pair of ndarray, shape (k,)
        Exact risks of the run and of the average.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, (left, right) = plt.subplots(1, 2)
    left.plot(theta, color=GREY, linewidth=1, label="one run of SGD")
    left.plot(average, **_unmarked(AVERAGE), label="its average")
    left.axhline(0, color="black", linewidth=0.7)
    left.set(title="parameter", xlabel="step")
    right.plot(risks, color=GREY, label="mean loss, SGD")
    right.plot(averaged_risks, **_unmarked(AVERAGE), label="mean loss, average")
    for index, risk in enumerate(exact):
        right.plot(risk, **look("theory", marker=False), label="exact risk" if index == 0 else None)
    right.set(title="risk", xlabel="step", yscale="log")
    left.legend()
    right.legend()
    return finish(figure)


def exact_and_bound(steps, exact, bounds):
    """Draw the exact risk and its bound against steps, one colour a decay.

    Parameters
    ----------
    steps : ndarray, shape (k,)
    exact, bounds : dict of float to ndarray of shape (k,)
        For each decay.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, axes = plt.subplots()
    for decay, shade in zip(exact, FAMILY[::-1], strict=False):
        label = f"decay {decay:g}" if decay else "no average"
        axes.plot(steps, exact[decay], color=shade["color"], label=label)
        axes.plot(steps, bounds[decay], color=shade["color"], linestyle=":", linewidth=2.2)
    axes.plot([], [], color=GREY, linestyle=":", linewidth=2.2, label="bound of Theorem 2")
    axes.set(xlabel="step", ylabel="risk", yscale="log")
    axes.legend()
    return finish(figure)


def floor_by_curvature(curvature, factors, approximate):
    """Draw the factor by which averages lower the floor of each direction.

    Parameters
    ----------
    curvature : ndarray, shape (k,)
    factors, approximate : dict of float to ndarray of shape (k,)
        For each decay.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, axes = plt.subplots()
    for (decay, factor), shade in zip(factors.items(), FAMILY, strict=False):
        axes.plot(curvature, factor, **shade, label=f"decay {decay:g}")
        axes.plot(curvature, approximate[decay], **look("theory", marker=False))
    axes.plot([], [], **look("theory", marker=False), label="for small rates")
    axes.set(xlabel="curvature h", ylabel="floor, relative to no average", xscale="log",
             yscale="log")  # fmt: skip
    axes.legend()
    return finish(figure)


def ways_to_a_floor(steps, curves, floor):
    """Draw risks against steps of several ways, with one floor.

    Parameters
    ----------
    steps : ndarray, shape (k,)
    curves : dict of str to ndarray of shape (k,)
    floor : float

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, axes = plt.subplots()
    for (label, curve), line in zip(curves.items(), _LINES, strict=False):
        axes.plot(steps, curve, **line, label=label)
    axes.axhline(floor, color=LIMIT, linewidth=1)
    axes.annotate("floor", (steps[0], floor), (2, -4), textcoords="offset points", color=LIMIT,
                  fontsize=10, va="top")  # fmt: skip
    axes.set(xlabel="step", ylabel="risk", xscale="log", yscale="log", ylim=(floor / 2, None))
    axes.legend(loc="lower left", bbox_to_anchor=(0, 0.12))
    return finish(figure)


def tail_floor(steps, curves, floors, line):
    """Draw risks at one rate: levels of SGD and of running averages, and tail averages that fall.

    Parameters
    ----------
    steps : ndarray, shape (k,)
    curves : dict of str to ndarray of shape (k,)
        In the order: SGD, running average, tail averages.
    floors : sequence of float
        Of the first two.
    line : ndarray, shape (k,)
        The risk that falls like one over the number of averaged steps.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, axes = plt.subplots()
    looks = (look("SGD"), AVERAGE, *_TAILS)
    for (label, curve), shade in zip(curves.items(), looks, strict=False):
        axes.plot(steps, curve, **_unmarked(shade), label=label)
    for floor, shade in zip(floors, looks, strict=False):
        axes.axhline(floor, color=shade["color"], linewidth=0.8, alpha=0.7)
    axes.plot(steps, line, **look("theory", marker=False), label="d / (2 B n), last half")
    axes.set(xlabel="step", ylabel="risk", xscale="log", yscale="log", ylim=(line.min() / 3, 8))
    axes.legend(loc="lower left")
    return finish(figure)


def kinds_of_average(batch_sizes, curves, bound):
    """Draw tuned steps to target against the batch size for kinds of averages.

    Parameters
    ----------
    batch_sizes : ndarray, shape (k,)
    curves : dict of str to ndarray of shape (k,)
        In the order: SGD, running average, tail averages.
    bound : ndarray, shape (k,)
        Least number of steps by the information in the examples.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, (left, right) = plt.subplots(1, 2, width_ratios=(1.25, 1))
    looks = (look("SGD"), AVERAGE, *_TAILS)
    plain = next(iter(curves.values()))
    for (label, curve), shade in zip(curves.items(), looks, strict=False):
        left.plot(batch_sizes, curve, **shade, label=label)
        right.plot(batch_sizes, curve / plain, **shade)
    left.plot(batch_sizes, bound, **look("theory", marker=False), label="information bound")
    left.set(title="steps to the target", yscale="log", ylim=(plain.min() / 8, plain.max() * 3))
    right.set(title="relative to SGD", yscale="log")
    right.set_yticks([0.1, 0.2, 0.5, 1, 2], ["0.1", "0.2", "0.5", "1", "2"])
    for axes in (left, right):
        batch_size_axis(axes, batch_sizes)
    left.legend(loc="upper right", fontsize=9)
    return finish(figure)


def _unmarked(shade):
    return {key: value for key, value in shade.items() if key != "marker"}
