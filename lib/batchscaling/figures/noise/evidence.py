"""Figures of the chapter on the evidence of a minimum."""

import matplotlib.pyplot as plt
import numpy as np

from batchscaling.figures.networks.axes import plain_numbers
from batchscaling.figures.style import GREY, LIMIT, finish, look

_TRUE = {"color": "#0072b2", "linestyle": "-", "marker": "o"}
_RANDOM = {"color": "#d55e00", "linestyle": "--", "marker": "s"}
LABELS = {"true": _TRUE, "random": _RANDOM}
_FILL = 0.18  # opacity of bands and areas


def coin_ratio(heads, exact, laplace):
    """Draw the log evidence ratio of a bent coin and a fair one against the number of heads.

    Parameters
    ----------
    heads, exact, laplace : ndarray, shape (k,)

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, axes = plt.subplots()
    axes.axhline(0, color=LIMIT, linewidth=1)
    axes.plot(heads, exact, **look("SGD"), label="by quadrature")
    axes.plot(heads, laplace, "x", color="black", markersize=7, label="Laplace's approximation")
    for word, side in (("bent", (0, 4)), ("fair", (0, -14))):
        axes.annotate(f"{word} coin more probable", (heads[0] - 0.7, 0), side, color=LIMIT,
                      textcoords="offset points", fontsize=10)  # fmt: skip
    axes.set(xlabel="heads in 20 flips", ylabel="log evidence ratio")
    axes.set_xticks(heads[::2])
    axes.legend(loc="upper center")
    return finish(figure)


def two_minima(omega, cost, prior_precision, minima):
    """Draw a cost with two minima beside the integrand whose area is the evidence.

    Parameters
    ----------
    omega, cost : ndarray, shape (k,)
    prior_precision : float
    minima : sequence of dict
        For each minimum its ``place``, ``cost``, ``curvature``, ``evidence``, and ``inside``,
        a bool ndarray of shape (k,) that tells which part of `omega` belongs to it.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, (left, right) = plt.subplots(1, 2)
    left.plot(omega, cost, **look("SGD", marker=False), label="C")
    density = np.sqrt(prior_precision / (2 * np.pi)) * np.exp(-cost)
    right.plot(omega, density, **look("SGD", marker=False))
    for i, minimum in enumerate(minima):
        near = np.abs(omega - minimum["place"]) * np.sqrt(minimum["curvature"]) < 3.5
        parabola = minimum["cost"] + 0.5 * minimum["curvature"] * (omega - minimum["place"]) ** 2
        label = "" if i else "quadratics at its minima"
        left.plot(omega[near], parabola[near], **look("HeavyBall", marker=False), label=label)
        right.fill_between(omega, density, where=minimum["inside"], alpha=_FILL,
                           color=look("SGD")["color"])  # fmt: skip
        height = density[minimum["inside"]].max()
        right.annotate(f"area {minimum['evidence']:.3f}", (minimum["place"], height), (0, 4),
                       ha="center", textcoords="offset points", fontsize=10)  # fmt: skip
    lowest = min(minimum["cost"] for minimum in minima)
    left.set(title="cost", xlabel="ω", ylim=(lowest - 0.5, lowest + 7))
    right.set(title="what the evidence adds up", xlabel="ω", ylim=(0, 1.2 * density.max()))
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return finish(figure)


def laplace_error(examples, errors):
    """Draw the error of Laplace's log evidence against the number of examples.

    Parameters
    ----------
    examples : ndarray, shape (k,)
    errors : dict of str to ndarray of shape (k,)
        Absolute errors: first those of a regular minimum, then those of a flat one.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, axes = plt.subplots()
    for (label, error), name in zip(errors.items(), ("SGD", "HeavyBall"), strict=True):
        axes.plot(examples, error, **look(name), label=label)
    regular = next(iter(errors.values()))
    axes.plot(examples, regular[-1] * examples[-1] / examples, color=GREY, linewidth=0.9,
              label="1 / N")  # fmt: skip
    axes.set(xscale="log", yscale="log", xlabel="examples N", ylabel="error of the log evidence")
    axes.legend()
    return finish(figure)


def coordinates(panels):
    """Draw one cost in several coordinates, each with its quadratic at the minimum.

    Parameters
    ----------
    panels : dict of str to (ndarray, ndarray, float, float, float)
        For each coordinate's name: its values, the cost there, the minimum's place, its cost and
        the curvature.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, row = plt.subplots(1, len(panels), sharey=True)
    for axes, (name, (u, cost, place, lowest, curvature)) in zip(row, panels.items(), strict=True):
        axes.plot(u, cost, **look("SGD", marker=False), label="C")
        quadratic = lowest + 0.5 * curvature * (u - place) ** 2
        axes.plot(u, quadratic, **look("HeavyBall", marker=False), label="quadratic")
        axes.set(title=f"curvature {curvature:.3g}", xlabel=name)
        axes.set_ylim(lowest - 1, lowest + 15)
    row[0].set_ylabel("cost C")
    row[0].legend(loc="upper center")
    return finish(figure)


def memorising(decay, accuracy, ratio, loss, null_loss):
    """Draw accuracy, evidence and test loss against the weight decay, for true and random labels.

    Parameters
    ----------
    decay : ndarray, shape (k,)
    accuracy : dict of str to dict of str to ndarray of shape (splits, k)
        For ``"true"`` and ``"random"`` labels: accuracy on ``"train"`` and ``"test"``.
    ratio : dict of str to ndarray of shape (splits, k)
        Log evidence ratio against the null model, an example.
    loss : ndarray, shape (splits, k)
        Test loss with true labels.
    null_loss : float
        Loss of the null model, which is also the largest log evidence ratio of an example.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, (first, second, third) = plt.subplots(3, 1, figsize=(7.2, 7.6), sharex=True)
    for kind, style in LABELS.items():
        train = {**style, "marker": ""}
        first.plot(decay, accuracy[kind]["train"].mean(axis=0), **train,
                   label=f"{kind} labels, training")  # fmt: skip
        first.plot(decay, accuracy[kind]["test"].mean(axis=0), **{**style, "linestyle": ""},
                   markerfacecolor="none", label=f"{kind} labels, test")  # fmt: skip
        _band(second, decay, ratio[kind], style, f"{kind} labels")
    _band(third, decay, loss, LABELS["true"], "true labels")
    second.axhline(0, color=LIMIT, linewidth=1)
    second.annotate("null model", (decay[-1], 0), (0, -4), ha="right", va="top",
                    textcoords="offset points", color=LIMIT, fontsize=10)  # fmt: skip
    for axes in (second, third):
        axes.axhline(null_loss, color=GREY, linewidth=1, linestyle=":")
        axes.annotate("ln 2", (decay[0], null_loss), (0, -3), va="top",
                      textcoords="offset points", color="#5c5c5c", fontsize=10)  # fmt: skip
    first.set(ylabel="accuracy", xscale="log", ylim=(0.4, 1.03))
    second.set(ylabel="log evidence ratio,\nan example")
    third.set(ylabel="test cross-entropy", xlabel="weight decay λ", ylim=(0, 0.8))
    first.legend(loc="center left", bbox_to_anchor=(0, 0.52))
    second.legend(loc="lower right", bbox_to_anchor=(1, 0.08))
    return finish(figure)


def laplace_and_exact(decay, laplace, exact):
    """Draw log evidence ratios against the weight decay, approximate and exact.

    Parameters
    ----------
    decay : ndarray, shape (k,)
    laplace, exact : dict of str to ndarray of shape (k,)
        For ``"true"`` and ``"random"`` labels.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, axes = plt.subplots()
    for kind, style in LABELS.items():
        axes.plot(decay, laplace[kind], **{**style, "marker": ""}, label=f"{kind} labels, Laplace")
        axes.plot(decay, exact[kind], **{**style, "linestyle": ""}, label=f"{kind} labels, exact")
    axes.axhline(0, color=LIMIT, linewidth=1)
    axes.annotate("null model", (decay.max(), 0), (0, -4), ha="right", va="top",
                  textcoords="offset points", color=LIMIT, fontsize=10)  # fmt: skip
    axes.set(xlabel="weight decay λ", xscale="log", ylabel="log evidence ratio")
    axes.legend(ncols=2, loc="lower right")
    return finish(figure)


def _band(axes, x, values, style, label):
    """Draw the mean of rows, and the band that holds all but the outermost tenths."""
    axes.plot(x, values.mean(axis=0), **style, label=label)
    low, high = np.quantile(values, [0.1, 0.9], axis=0)
    axes.fill_between(x, low, high, color=style["color"], alpha=_FILL, linewidth=0)


def lanczos_error(steps, errors, statistical):
    """Draw the error of a Lanczos log-determinant against the number of products.

    Parameters
    ----------
    steps : ndarray, shape (k,)
    errors : dict of str to ndarray of shape (k,)
        Absolute errors of half the log-determinant, for each weight decay's label.
    statistical : dict of str to float
        The standard error that the random vectors leave at the largest number of steps.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, axes = plt.subplots()
    for (label, error), name in zip(errors.items(), ("SGD", "HeavyBall"), strict=True):
        style = look(name)
        axes.plot(steps, error, **style, label=label)
        axes.axhline(statistical[label], color=style["color"], linestyle=style["linestyle"],
                     linewidth=0.9)  # fmt: skip
    axes.plot([], [], color=GREY, linewidth=0.9, label="standard error of the random vectors")
    axes.set(xlabel="products with the Hessian, for each random vector", xscale="log",
             ylabel="error of the Occam factor", yscale="log")  # fmt: skip
    axes.set_xticks(steps, labels=[str(step) for step in steps])
    axes.minorticks_off()
    plain_numbers(axes.yaxis)
    axes.legend()
    return finish(figure)
