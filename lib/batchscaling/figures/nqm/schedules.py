"""Figures of the chapter on schedules."""

import matplotlib.pyplot as plt
import numpy as np

from batchscaling.figures.nqm.axes import batch_size_axis
from batchscaling.figures.style import FAMILY, GREY, LIMIT, MARKERS, finish, look

LINES = (
    {"color": GREY, "linestyle": "-"},
    {"color": "#3f8ac2", "linestyle": "--"},
    {"color": "#06375c", "linestyle": "-"},
)


def risk_and_rate(risks, rates, limit):
    """Draw risks against steps and, beside them, the rates that led there.

    Parameters
    ----------
    risks : dict of str to ndarray, shape (steps + 1,)
        By name of the schedule, at most three.
    rates : dict of str to ndarray, shape (steps,)
    limit : float
        Largest stable learning rate.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, (left, right) = plt.subplots(1, 2)
    for (name, risk), shade in zip(risks.items(), LINES, strict=False):
        left.plot(risk, **shade, label=name)
        right.step(np.arange(len(rates[name])), rates[name], where="post", **shade)
    left.set(title="risk", xlabel="step", yscale="log")
    right.set(title="learning rate", xlabel="step", yscale="log")
    right.axhline(limit, color=LIMIT, linewidth=1)
    right.annotate("largest stable rate", (1, limit), (0, -12), textcoords="offset points",
                   xycoords=("axes fraction", "data"), ha="right", color=LIMIT,
                   fontsize=10)  # fmt: skip
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return finish(figure)


def steps_with_schedules(batch_sizes, constant, scheduled, bound):
    """Draw steps to the target with the best constant rate and with the best schedule.

    Parameters
    ----------
    batch_sizes : ndarray, shape (k,)
    constant, scheduled : dict of str to ndarray of shape (k,)
        Steps by name of the preconditioner, at most four.
    bound : ndarray, shape (k,)
        Lower bound of the steps.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, axes = plt.subplots(figsize=(7.2, 4.2))
    for (name, steps), shade, marker in zip(scheduled.items(), FAMILY, MARKERS, strict=False):
        color = shade["color"]
        axes.plot(batch_sizes, steps, color=color, marker=marker, label=name)
        axes.plot(batch_sizes, constant[name], color=color, marker=marker, linestyle="--",
                  markerfacecolor="white", linewidth=1.2)  # fmt: skip
    axes.plot([], [], color=GREY, label="best schedule")
    axes.plot([], [], color=GREY, linestyle="--", linewidth=1.2, label="best constant rate")
    axes.plot(batch_sizes, bound, **look("theory"), label="lower bound")
    axes.set(yscale="log", ylabel="steps to the target", ylim=(5, None))
    batch_size_axis(axes, batch_sizes)
    axes.legend(ncols=2)
    return finish(figure)


def rates_over_training(schedules, limit):
    """Draw schedules against the part of training done, and against the part that is left.

    Parameters
    ----------
    schedules : dict of int to ndarray of shape (pieces,)
        Rates of pieces of equal length by batch size, at most four.
    limit : float
        Largest stable learning rate.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, (left, right) = plt.subplots(1, 2, sharey=True, figsize=(7.2, 4.0))
    for (batch_size, lr), shade in zip(schedules.items(), FAMILY, strict=False):
        done = np.arange(len(lr)) / len(lr)
        left.step(np.append(done, 1), np.append(lr, lr[-1]), where="post", **shade,
                  label=f"B = {batch_size:,}")  # fmt: skip
        right.plot(1 - done - 0.5 / len(lr), lr, **shade)
    left_over = np.array([0.01, 0.3])
    right.plot(left_over, 0.09 * left_over, **look("theory"), label="straight line to zero")
    left.set(xlabel="part of the steps done", ylabel="learning rate", yscale="log")
    right.set(xlabel="part of the steps left", xscale="log")
    right.invert_xaxis()
    for axes in (left, right):
        axes.axhline(limit, color=LIMIT, linewidth=1)
    right.legend(loc="lower left")
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return finish(figure)


def last_rates(batch_sizes, last, constant, limit):
    """Draw the last rate of the best schedule, and the best constant rate, against batch size.

    Parameters
    ----------
    batch_sizes, last, constant : ndarray, shape (k,)
    limit : float
        Largest stable learning rate.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, axes = plt.subplots()
    axes.plot(batch_sizes, constant, color=GREY, linestyle="--", marker="s",
              label="best constant rate")  # fmt: skip
    axes.plot(batch_sizes, last, color=FAMILY[2]["color"], marker="o",
              label="last rate of the best schedule")  # fmt: skip
    axes.plot(batch_sizes, last[0] * batch_sizes / batch_sizes[0], **look("theory"),
              label="proportional to B")  # fmt: skip
    axes.axhline(limit, color=LIMIT, linewidth=1, label="largest stable rate")
    axes.set(ylabel="learning rate", yscale="log", ylim=(last.min() / 2, limit * 5))
    batch_size_axis(axes, batch_sizes)
    axes.legend(loc="lower right")
    return finish(figure)


def noise_levels(rate, batch):
    """Draw the quotient of rate and batch size against steps and against the sum of rates.

    Parameters
    ----------
    rate, batch : tuple of ndarray (steps, lr, batch_size), each of shape (pieces,)
        A schedule of the rate and one of the batch size.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, (left, right) = plt.subplots(1, 2, sharey=True)
    for (steps, lr, batch_size), shade, name in (
        (rate, FAMILY[0], "rate schedule"),
        (batch, FAMILY[3], "batch-size schedule"),
    ):
        width = {"linewidth": 4} if shade is FAMILY[0] else {}
        for axes, amount in ((left, steps), (right, steps * lr)):
            middle = (np.cumsum(amount) - amount / 2) / amount.sum()
            axes.plot(middle, lr / batch_size, **shade | width, label=name)
    left.set(xlabel="part of the steps", ylabel="rate / batch size", yscale="log")
    right.set(xlabel="part of the sum of the rates")
    left.legend(loc="lower left")
    return finish(figure)


def frontier(curves, fewest_steps, fewest_examples):
    """Draw which pairs of examples and steps reach the target.

    Parameters
    ----------
    curves : dict of str to tuple (examples, steps) of ndarray
        By name of the schedule, at most three.
    fewest_steps : float
        Steps without noise.
    fewest_examples : float
        Lower bound of the examples.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, axes = plt.subplots(figsize=(7.2, 4.0))
    markers = ("s", "o", "")
    for (name, (examples, steps)), shade, marker in zip(
        curves.items(), FAMILY[1:], markers, strict=True
    ):
        axes.plot(examples, steps, **shade, marker=marker, label=name)
    axes.axvline(fewest_examples, color=LIMIT, linewidth=1, label="lower bound of examples")
    axes.axhline(fewest_steps, color=LIMIT, linewidth=1, linestyle=":", label="steps without noise")
    axes.set(xlabel="examples", ylabel="steps", xscale="log", yscale="log")
    axes.set(ylim=(fewest_steps / 1.6, 1e6), xlim=(fewest_examples / 1.6, 1e8))
    axes.legend()
    return finish(figure)
