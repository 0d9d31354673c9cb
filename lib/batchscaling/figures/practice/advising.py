"""Figures of the chapter on advice."""

import matplotlib.pyplot as plt
import numpy as np

from batchscaling.figures.networks.axes import plain_numbers
from batchscaling.figures.style import FAMILY, GREY, LIMIT, finish, look
from batchscaling.registry import METHODS


def shares_lost(batch_sizes, shares, tolerance):
    """Draw what branches lose of a run's progress.

    Parameters
    ----------
    batch_sizes : sequence of int
    shares : ndarray, shape (k, 3)
        Share and its interval, of each batch size.
    tolerance : float
        The share that counts as nothing.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, axes = plt.subplots()
    values, low, high = np.transpose(shares)
    axes.errorbar(batch_sizes, values, [values - low, high - values], marker="o",
                  color=FAMILY[2]["color"], label="branches")  # fmt: skip
    axes.axhline(tolerance, color=LIMIT, linestyle="--", label="what counts as nothing")
    axes.set(xlabel="batch size (examples)", ylabel="share of the progress lost", xscale="log")
    plain_numbers(axes.xaxis)
    axes.legend()
    return finish(figure)


def times_and_advice(times, advised):
    """Draw time to the target against batch size, from sweeps, with the advice of several runs.

    Parameters
    ----------
    times : dict of str to tuple of array_like
        For each method of sweeps: batch sizes and seconds to the target.
    advised : dict of str to array_like
        For each of them the advised batch sizes.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, axes = plt.subplots()
    for number, (name, (sizes, seconds)) in enumerate(times.items()):
        own = look(name)
        axes.plot(sizes, seconds, **own, label=METHODS[name].label)
        places = np.interp(np.log(advised[name]), np.log(sizes), seconds)
        axes.plot(advised[name], places, "x", color=GREY, markersize=10,
                  label=None if number else "advice")  # fmt: skip
    axes.set(xlabel="batch size (examples)", ylabel="seconds to the target", xscale="log",
             yscale="log")  # fmt: skip
    plain_numbers(axes.xaxis)
    axes.legend()
    return finish(figure)


def limits_along(steps, noise, kept, lost):
    """Draw noise scale and the limits that branches find, over training.

    Parameters
    ----------
    steps : sequence of int, length k
    noise : ndarray, shape (k, 3)
        Noise scale and its interval; NaN where it cannot tell.
    kept, lost : sequence of float, length k
        The largest batch size that loses nothing, and the smallest that loses something; NaN where
        there is none.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, axes = plt.subplots()
    places, (values, low, high) = np.arange(len(steps)), np.transpose(noise)
    axes.errorbar(places - 0.1, values, [values - low, high - values], marker="o", linestyle="",
                  color=FAMILY[2]["color"], label="noise scale")  # fmt: skip
    axes.vlines(places + 0.1, kept, lost, color=LIMIT)
    axes.plot(places + 0.1, kept, "^", color=LIMIT, label="branches lose nothing up to")
    axes.plot(places + 0.1, lost, "v", color=GREY, label="branches lose something from")
    axes.set_xticks(places, labels=steps)
    axes.set(xlabel="step", ylabel="batch size (examples)", yscale="log")
    plain_numbers(axes.yaxis)
    axes.legend(loc="upper left")
    return finish(figure)


def advice_against_best(ratios):
    """Draw advised batch sizes over the best ones, a column of dots for each task.

    Parameters
    ----------
    ratios : dict of str to dict of str to array_like
        For each task, for each method of sweeps: advised over best batch size.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, axes = plt.subplots()
    axes.axhspan(0.5, 2, color=GREY, alpha=0.2, linewidth=0, label="within a factor of 2")
    axes.axhline(1, color=LIMIT, linestyle="--")
    for place, methods in enumerate(ratios.values()):
        for number, (name, values) in enumerate(methods.items()):
            own, middle = look(name), place + (number - (len(methods) - 1) / 2) / 4
            around = middle + np.linspace(-0.08, 0.08, len(values))
            axes.plot(around, values, linestyle="", markersize=4, alpha=0.7,
                      color=own["color"], marker=own["marker"],
                      label=None if place else METHODS[name].label)  # fmt: skip
    axes.set_xticks(range(len(ratios)), labels=ratios)
    axes.set(xlabel="task", ylabel="advised over best batch size", yscale="log")
    plain_numbers(axes.yaxis)
    axes.legend()
    return finish(figure)
