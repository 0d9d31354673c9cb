"""Figures of the chapter on momentum."""

import matplotlib.pyplot as plt
import numpy as np

from batchscaling.figures.style import FAMILY, GREY, LIMIT, finish, look


def paths(parameters):
    """Draw a parameter against steps, one curve a momentum.

    Parameters
    ----------
    parameters : dict of float to ndarray of shape (steps,)
        For each momentum the parameter after 0, 1, 2, ... steps without noise.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, axes = plt.subplots()
    for (momentum, parameter), shade in zip(parameters.items(), FAMILY, strict=False):
        axes.plot(parameter, **shade, label=rf"$\beta$ = {momentum:g}")
    axes.axhline(0, color=GREY, linewidth=0.8)
    axes.set(xlabel="step", ylabel=r"$\theta$")
    axes.legend()
    return finish(figure)


def roots(momentum, pairs, critical):
    """Draw the two roots as the momentum grows: in the complex plane, and their moduli.

    Parameters
    ----------
    momentum : ndarray, shape (k,)
    pairs : ndarray of complex, shape (2, k)
        The roots at each momentum, the larger first.
    critical : float
        Momentum at which the roots meet.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, (plane, moduli) = plt.subplots(1, 2)
    angle = np.linspace(0, 2 * np.pi, 200)
    plane.plot(np.cos(angle), np.sin(angle), color=LIMIT, linewidth=1)
    plane.annotate(
        "limit of stability", (0, -1.05), color=LIMIT, fontsize=10, ha="center", va="top"
    )
    for root, name, shade in zip(pairs, ("$r_1$", "$r_2$"), FAMILY[2:0:-1], strict=True):
        plane.plot(root.real, root.imag, **shade, label=name)
        plane.plot(root[0].real, root[0].imag, "o", color=shade["color"])
        moduli.plot(momentum, np.abs(root), **shade, label=f"|{name}|")
    plane.set(title="the roots", xlabel="real part", ylabel="imaginary part", aspect="equal")
    plane.set(xlim=(-1.25, 1.25), ylim=(-1.35, 1.15))
    plane.legend(title="dots: no momentum", loc="center", bbox_to_anchor=(0.42, 0.36))
    circle = look("theory", marker=False)
    moduli.plot(momentum, np.sqrt(momentum), **circle, label=r"$\sqrt{\beta}$")
    moduli.axvline(critical, color=GREY, linewidth=1)
    moduli.annotate("critical", (critical, 0.03), (4, 0), textcoords="offset points",
                    color="#5f5f5f", fontsize=10)  # fmt: skip
    moduli.set(title="their size", xlabel=r"momentum $\beta$", ylim=(0, 1.05))
    moduli.legend(loc="center right", bbox_to_anchor=(1, 0.35))
    return finish(figure)


def bound_and_exact(steps, panels):
    """Draw the exact risk below its bound, one panel a setting.

    Parameters
    ----------
    steps : ndarray, shape (k,)
    panels : dict of str to (exact, bound, floor)
        Two arrays of shape (k,) and a number for each title.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, axes = plt.subplots(1, len(panels), sharey=True)
    for side, (title, (exact, bound, floor)) in zip(axes, panels.items(), strict=True):
        side.axhline(floor, color=GREY, linewidth=1)
        side.plot(steps, exact, **look("HeavyBall", marker=False), label="exact risk")
        side.plot(steps, bound, **look("theory", marker=False), label="bound")
        side.set(title=title, xlabel="step", yscale="log")
    axes[-1].annotate("floor", (steps[-1], floor), (0, -4), textcoords="offset points",
                      ha="right", va="top", color="#5f5f5f", fontsize=10)  # fmt: skip
    axes[0].set_ylabel("risk")
    axes[0].legend()
    return finish(figure)


def factor_and_floor(momentum, factors, floors, critical):
    """Draw convergence factor and floor against the momentum, beside SGD at the effective rate.

    Parameters
    ----------
    momentum : ndarray, shape (k,)
    factors, floors : dict of str to ndarray of shape (k,)
        Keys ``"HeavyBall"`` and ``"SGD"``.
    critical : float
        Momentum at which under-damping begins.

    Returns
    -------
    matplotlib.figure.Figure
    """
    names = {"SGD": "SGD at the effective rate", "HeavyBall": "momentum"}
    figure, (left, right) = plt.subplots(1, 2)
    for axes, values in ((left, factors), (right, floors)):
        for name, label in names.items():
            axes.plot(momentum, values[name], **look(name, marker=False), label=label)
        axes.axvline(critical, color=GREY, linewidth=1)
        axes.set(xlabel=r"momentum $\beta$")
    lowest = 1 - 1.6 * (1 - factors["HeavyBall"].min())
    left.annotate("under-damped\nfrom here", (critical, lowest), (-6, 4),
                  textcoords="offset points", ha="right", va="bottom", color="#5f5f5f",
                  fontsize=10)  # fmt: skip
    left.set(title="how fast: factor of one step", ylim=(lowest, 1 + 0.03 * (1 - lowest)))
    left.legend(loc="lower left", bbox_to_anchor=(0, 0.3))
    right.set(title="how low: risk at the end", yscale="log")
    return finish(figure)


def first_term(scale, heavy, plain):
    """Draw what is left of the start, with momentum and at the effective rate without.

    Parameters
    ----------
    scale : ndarray, shape (k,)
        Effective rate over rate, 1 / (1 - momentum).
    heavy, plain : dict of int to ndarray of shape (k,)
        Part of the first risk that is left, for each number of steps.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, axes = plt.subplots()
    middle = len(scale) // 3
    for steps, left in heavy.items():
        axes.plot(scale, plain[steps], **look("SGD", marker=False))
        axes.plot(scale, left, **look("HeavyBall", marker=False))
        axes.annotate(f"t = {steps}", (scale[middle], left[middle]), (3, 5),
                      textcoords="offset points", fontsize=10)  # fmt: skip
    axes.plot([], [], **look("HeavyBall", marker=False), label="momentum")
    axes.plot([], [], **look("SGD", marker=False), label="SGD at the effective rate")
    axes.set(xlabel=r"effective rate over rate, $1/(1-\beta)$", ylabel="part of the start left")
    axes.legend()
    return finish(figure)


def by_curvature(x, factors, floors, limits):
    """Draw convergence factor and floor of one direction against rate times curvature.

    Parameters
    ----------
    x : ndarray, shape (k,)
        Learning rate times curvature.
    factors, floors : dict of str to ndarray of shape (k,)
        For each optimizer's name; NaN where it is unstable.
    limits : dict of str to float
        Largest stable x.

    Returns
    -------
    matplotlib.figure.Figure
    """
    names = {"HeavyBall": "heavy ball", "Nesterov": "Nesterov"}
    figure, (left, right) = plt.subplots(1, 2)
    for name, label in names.items():
        left.plot(x, factors[name], **look(name, marker=False), label=label)
        right.plot(x, floors[name], **look(name, marker=False), label=label)
        for axes in (left, right):
            axes.axvline(limits[name], color=LIMIT, linewidth=0.8)
    left.set(title="how fast: factor of one step", ylim=(0, 1.05))
    top = 10 * np.nanmedian(floors["HeavyBall"][x > limits["Nesterov"]])
    right.set(title="how low: risk at the end", yscale="log", ylim=(None, top))
    for axes in (left, right):
        axes.set(xlabel=r"$x = \alpha h$", xscale="log")
    left.legend(title="thin lines: limits", loc="lower left", alignment="left")
    return finish(figure)


def tuned_risks(panels, target):
    """Draw the risk of tuned optimizers against steps, one panel a batch size.

    Parameters
    ----------
    panels : dict of str to dict of str to (steps, risks)
        For each title and optimizer two arrays of shape (k,).
    target : float

    Returns
    -------
    matplotlib.figure.Figure
    """
    names = {"SGD": "SGD", "HeavyBall": "momentum"}
    figure, axes = plt.subplots(1, len(panels), sharey=True)
    for side, (title, curves) in zip(axes, panels.items(), strict=True):
        for name, (steps, risks) in curves.items():
            side.plot(steps, risks, **look(name, marker=False), label=names[name])
        side.axhline(target, color=LIMIT, linewidth=1)
        side.set(title=title, xlabel="step", xscale="log", yscale="log")
    axes[0].annotate("target", (axes[0].get_xlim()[0], target), (6, 4),
                     textcoords="offset points", color=LIMIT, fontsize=10)  # fmt: skip
    axes[0].set_ylabel("risk")
    axes[0].legend()
    return finish(figure)
