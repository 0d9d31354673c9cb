"""Figures of the chapter on extrapolation and local steps on the noisy quadratic."""

import matplotlib.pyplot as plt
import numpy as np

from batchscaling.figures.nqm.axes import batch_size_axis
from batchscaling.figures.style import FAMILY, GREY, LIMIT, MARKERS, finish, look


def numbers_of_workers(steps, losses, exact):
    """Draw mean losses of different numbers of workers over the one exact risk.

    Parameters
    ----------
    steps : ndarray, shape (k,)
    losses : dict of int to ndarray of shape (k,)
        For each number of workers.
    exact : ndarray, shape (k,)

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, axes = plt.subplots()
    for order, (count, values) in enumerate(losses.items()):
        shown = slice(order, None, len(losses))  # in turn: they lie on each other
        shade = FAMILY[order]["color"]
        plural = "s" if count > 1 else ""
        axes.plot(steps[shown], values[shown], linestyle="", marker=MARKERS[order], color=shade,
                  label=f"{count} worker{plural}")  # fmt: skip
    axes.plot(steps, exact, **look("theory", marker=False), label="exact risk")
    axes.set(xlabel="step", ylabel="mean loss", yscale="log")
    axes.legend()
    return finish(figure)


def stability(extrapolation, limits):
    """Draw the region of stable rates under the line of each momentum.

    Parameters
    ----------
    extrapolation : ndarray, shape (k,)
        Extrapolation rate times curvature.
    limits : dict of float to ndarray of shape (k,)
        Largest stable rate times curvature, for each momentum.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, axes = plt.subplots()
    for (momentum, values), line in zip(limits.items(), FAMILY, strict=False):
        axes.plot(extrapolation, values, **line, label=f"momentum {momentum:g}")
    axes.fill_between(extrapolation, values, color=GREY, alpha=0.2, linewidth=0)
    axes.set(xlabel="extrapolation rate × curvature", ylabel="learning rate × curvature",
             xlim=(0, 1), ylim=(0, 2.1))  # fmt: skip
    axes.legend()
    return finish(figure)


def relative_steps(batch_sizes, curves):
    """Draw steps to target against the batch size, relative to one without extrapolation.

    Parameters
    ----------
    batch_sizes : ndarray, shape (k,)
    curves : dict of str to ndarray of shape (k,)
        Relative steps.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, axes = plt.subplots()
    axes.axhline(1, color=GREY, linewidth=1)
    for (label, values), name in zip(curves.items(), ("SGD", "Nesterov"), strict=True):
        axes.plot(batch_sizes, values, **look(name), label=label)
    batch_size_axis(axes, batch_sizes)
    axes.set(ylabel="steps, relative to no extrapolation", ylim=(0.85, 1.05))
    axes.legend()
    return finish(figure)


def extragradient(curvature, felt, batch_sizes, gradients):
    """Draw what curvature a fresh extragradient feels, and gradients to target.

    Parameters
    ----------
    curvature : ndarray, shape (k,)
    felt : dict of float to ndarray of shape (k,)
        For each extrapolation rate.
    batch_sizes : ndarray, shape (m,)
    gradients : dict of float to ndarray of shape (m,)
        Gradients one after the other until the target, for each extrapolation rate.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, (left, right) = plt.subplots(1, 2)
    for order, (rate, values) in enumerate(felt.items()):
        label = f"extrapolation {rate:g}" if rate else "none"
        left.plot(curvature, values, **FAMILY[order], label=label)
        right.plot(batch_sizes, gradients[rate], **FAMILY[order], marker=MARKERS[order])
    left.set(title="curvature felt", xlabel="curvature", xscale="log", yscale="log")
    right.set(title="gradients to the target", yscale="log")
    batch_size_axis(right, batch_sizes)
    left.legend()
    return finish(figure)


def outer_rates(batch_sizes, rates, own, local_rate):
    """Draw the best outer rate of local steps, over the rate that would be SGD's own.

    Parameters
    ----------
    batch_sizes : ndarray, shape (k,)
    rates : dict of int to ndarray of shape (k,)
        Best outer rate for each number of local steps.
    own : ndarray, shape (k,)
        Best rate of SGD itself.
    local_rate : float

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, axes = plt.subplots()
    axes.axhline(1, color=LIMIT, linewidth=1, label="plain local SGD")
    axes.plot(batch_sizes, own / local_rate, **look("theory", marker=False),
              label="SGD's best rate / local rate")  # fmt: skip
    for order, (steps, values) in enumerate(rates.items()):
        axes.plot(batch_sizes, values, **FAMILY[order], marker=MARKERS[order], label=f"H = {steps}")
    batch_size_axis(axes, batch_sizes)
    axes.set(ylabel="best outer rate", yscale="log")
    axes.legend(loc="lower right")
    return finish(figure)


def local_steps(batch_sizes, rounds, local_steps, critical):
    """Draw rounds to target of local steps under an outer momentum, and critical batch sizes.

    Parameters
    ----------
    batch_sizes : ndarray, shape (k,)
    rounds : dict of int to ndarray of shape (k,)
        For each number of local steps.
    local_steps : ndarray, shape (m,)
    critical : dict of str to ndarray of shape (m,)
        For "SGD" and "Nesterov" as the outer method.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, (left, right) = plt.subplots(1, 2)
    for order, (steps, values) in enumerate(rounds.items()):
        left.plot(batch_sizes, values, **FAMILY[order], marker=MARKERS[order], label=f"H = {steps}")
    left.set(title="rounds to the target", yscale="log")
    batch_size_axis(left, batch_sizes)
    left.legend()
    for name, values in critical.items():
        right.plot(local_steps, values, **look(name), label=f"outer {name}")
    guide = critical["Nesterov"][0] * np.sqrt(local_steps[0] / local_steps)
    right.plot(local_steps, guide, **look("theory", marker=False), label="like $1/\\sqrt{H}$")
    right.set(title="critical batch size", xlabel="local steps H", yscale="log")
    right.set_xscale("log", base=2)
    right.legend()
    return finish(figure)
