"""Figures of the chapter on SGD."""

import matplotlib.pyplot as plt

from batchscaling.figures.nqm.axes import batch_size_axis
from batchscaling.figures.style import FAMILY, GREY, LIMIT, finish, look


def sampled_paths(losses, exact=None, *, shown=30):
    """Draw losses of single runs, their mean and, if given, the exact risk.

    Parameters
    ----------
    losses : ndarray, shape (paths, steps)
        Loss of each run after 0, 1, 2, ... steps.
    exact : ndarray, shape (steps,), optional
    shown : int
        How many runs to draw.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, axes = plt.subplots()
    axes.plot(losses[:shown].T, color=GREY, linewidth=0.6, alpha=0.55)
    axes.plot([], [], color=GREY, linewidth=0.8, label="single runs")
    axes.plot(losses.mean(axis=0), **look("SGD", marker=False), label=f"mean of {len(losses)} runs")
    if exact is not None:
        axes.plot(exact, **look("theory", marker=False), label="exact risk")
    floor = losses[:, -1].mean()
    axes.set(xlabel="step", ylabel="loss", yscale="log", ylim=(floor / 100, losses.max() * 2))
    axes.legend()
    return finish(figure)


def factor_and_floor(lr, factor, floors, limit):
    """Draw the convergence factor and the floor against the learning rate, side by side.

    Parameters
    ----------
    lr : ndarray, shape (k,)
    factor : ndarray, shape (k,)
        Of one step.
    floors : dict of int to ndarray of shape (k,)
        Steady-state risk for each batch size.
    limit : float
        Largest stable learning rate.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, (left, right) = plt.subplots(1, 2)
    left.plot(lr, factor, **look("SGD", marker=False))
    left.set(title="how fast: factor of one step", xlabel="learning rate", ylim=(0, 1.05))
    for (batch_size, floor), shade in zip(floors.items(), FAMILY, strict=False):
        right.plot(lr, floor, **shade, label=f"B = {batch_size}")
    right.set(title="how low: risk at the end", xlabel="learning rate", yscale="log")
    right.legend()
    for axes in (left, right):
        axes.axvline(limit, color=LIMIT, linewidth=1)
    left.annotate(
        "unstable from here", (limit, 0.06), (-6, 0), textcoords="offset points", ha="right",
        color=LIMIT, fontsize=10,
    )  # fmt: skip
    return finish(figure)


def risk_by_batch_size(steps, risks, floors, target=None):
    """Draw the risk against steps, one curve a batch size, with the floors.

    Parameters
    ----------
    steps : ndarray, shape (k,)
        Step 0 is drawn at 1/2 of the first step after it.
    risks : dict of int to ndarray of shape (k,)
    floors : dict of int to float
    target : float, optional

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, axes = plt.subplots()
    for (batch_size, risk), shade in zip(risks.items(), FAMILY, strict=False):
        axes.plot(steps, risk, **shade, label=f"B = {batch_size:,}")
        axes.axhline(floors[batch_size], color=shade["color"], linewidth=0.8, alpha=0.7)
    if target is not None:
        axes.axhline(target, color=LIMIT, linewidth=1, linestyle="--")
        axes.annotate("target", (steps[1], target), (2, 4), textcoords="offset points",
                      color=LIMIT, fontsize=10)  # fmt: skip
    axes.set(xlabel="step", ylabel="risk", xscale="log", yscale="log")
    axes.legend(title="thin lines: floors", alignment="left", frameon=True, framealpha=1,
                edgecolor="white")  # fmt: skip
    return finish(figure)


def risk_by_coordinate(steps, constant, dropped, curvature, drop_at):
    """Draw the risk of each coordinate without and with a drop of the learning rate.

    Parameters
    ----------
    steps : ndarray, shape (k,)
    constant, dropped : ndarray, shape (k, d)
        Risk of each coordinate at a constant rate, and with a drop.
    curvature : ndarray, shape (d,)
    drop_at : int
        Step of the drop.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, panels = plt.subplots(1, 2, sharey=True)
    titles = ("constant rate", "rate drops")
    for axes, parts, title in zip(panels, (constant, dropped), titles, strict=True):
        for h, part, shade in zip(curvature, parts.T, FAMILY, strict=False):
            axes.plot(steps, part, **shade, label=f"curvature {h:g}")
        axes.plot(steps, parts.sum(axis=1), color="#d55e00", linewidth=2.6, label="all together")
        axes.set(title=title, xlabel="step", yscale="log")
    panels[1].axvline(drop_at, color=LIMIT, linewidth=1)
    panels[0].set_ylabel("risk")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return finish(figure)


def steps_against_batch_size(batch_sizes, steps, lr, lr_limit):
    """Draw the tuned steps to target and the best learning rate against the batch size.

    Parameters
    ----------
    batch_sizes, steps, lr : ndarray, shape (k,)
    lr_limit : float
        Largest stable learning rate.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, (left, right) = plt.subplots(1, 2)
    left.plot(batch_sizes, steps[0] * batch_sizes[0] / batch_sizes, **look("theory", marker=False),
              label="perfect scaling")  # fmt: skip
    left.plot(batch_sizes, steps, **look("SGD"), label="SGD, best rate")
    left.set(title="steps to the target", ylim=(steps.min() / 3, steps.max() * 3))
    right.plot(batch_sizes, lr, **look("SGD"), label="best rate")
    right.axhline(lr_limit, color=LIMIT, linewidth=1, label="largest stable rate")
    right.set(title="best learning rate")
    for axes in (left, right):
        batch_size_axis(axes, batch_sizes)
        axes.set_yscale("log")
        axes.legend()
    return finish(figure)
