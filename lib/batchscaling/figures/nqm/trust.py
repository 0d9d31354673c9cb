"""Figures of the chapter on how far to trust the noisy quadratic model."""

import matplotlib.pyplot as plt
import numpy as np

from batchscaling.figures.style import FAMILY, GREY, finish, look

METHODS = {
    "momentum": look("HeavyBall"),
    "preconditioning": look("KFAC"),
    "averaging": {"color": "#007a5e", "linestyle": (0, (5, 1, 1, 1)), "marker": "D"},
    "schedule": {"color": FAMILY[3]["color"], "linestyle": "-", "marker": "o"},
}


def error_by_bins(bins, errors):
    """Draw the relative error in steps against the number of bins.

    Parameters
    ----------
    bins : ndarray, shape (k,)
    errors : dict of str to ndarray of shape (k,)
        Absolute relative errors by name of the rule, two of them.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, axes = plt.subplots()
    for (name, error), shade, marker in zip(
        errors.items(), (FAMILY[3], FAMILY[1]), "os", strict=True
    ):
        axes.plot(bins, error, color=shade["color"], marker=marker, label=name,
                  linestyle="-" if marker == "o" else "--")  # fmt: skip
    axes.set(xlabel="bins", ylabel="relative error in steps", xscale="log", yscale="log")
    axes.set_xticks(bins, [f"{n:,}" for n in bins])
    axes.minorticks_off()
    axes.legend()
    return finish(figure)


def gains(values, small, large, label, *, log=False):
    """Draw how many times fewer steps each method needs, in two panels.

    Parameters
    ----------
    values : ndarray, shape (k,)
        What is varied.
    small, large : dict of str to ndarray of shape (k,)
        Steps of SGD over steps of the method, at batch size 1 and without noise, by the names in
        `METHODS`.
    label : str
        Name of what is varied.
    log : bool
        Whether its axis is logarithmic.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, panels = plt.subplots(1, 2, sharey=True, figsize=(7.2, 3.8))
    titles = ("at batch size 1", "without noise")
    for axes, numbers, title in zip(panels, (small, large), titles, strict=True):
        for name, number in numbers.items():
            axes.plot(values, number, **METHODS[name], label=name)
        axes.axhline(1, color=GREY, linewidth=1)
        axes.set(title=title, xlabel=label, yscale="log")
        if log:
            axes.set_xscale("log")
    panels[0].set_ylabel("times fewer steps than SGD")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return finish(figure)


def loss_spread(steps, runs, exact):
    """Draw the middle 80 % of the losses of sampled runs, and the exact risk.

    Parameters
    ----------
    steps : ndarray, shape (k,)
    runs : dict of str to ndarray of shape (paths, k)
        Losses by name of the noise, two of them.
    exact : ndarray, shape (k,)

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, axes = plt.subplots()
    fills = ({"color": FAMILY[0]["color"], "alpha": 0.5}, {"color": FAMILY[3]["color"]})
    for (name, losses), fill in zip(reversed(runs.items()), fills, strict=True):
        low, high = np.quantile(losses, [0.1, 0.9], axis=0)
        if "alpha" in fill:
            axes.fill_between(steps, low, high, linewidth=0, label=name, **fill)
        else:
            axes.plot(steps, low, linestyle="--", linewidth=1.3, label=name, **fill)
            axes.plot(steps, high, linestyle="--", linewidth=1.3, **fill)
    axes.plot(steps, exact, color="#d55e00", label="exact risk, the same for both")
    axes.set(xlabel="step", ylabel="loss", xscale="log", yscale="log")
    axes.legend()
    return finish(figure)


def gains_by_angle(angles, small, large):
    """Draw what a turned preconditioner gains against the angle, in two panels.

    Parameters
    ----------
    angles : ndarray, shape (k,)
        In degrees.
    small, large : dict of str to ndarray of shape (k,)
        Steps of SGD over steps of the method, at batch size 1 and without noise, by name of the
        preconditioner, at most four.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, panels = plt.subplots(1, 2, sharey=True, figsize=(7.2, 3.8))
    titles = ("at batch size 1", "without noise")
    colors = (look("KFAC")["color"], look("Adam")["color"])
    for axes, numbers, title in zip(panels, (small, large), titles, strict=True):
        for k, (name, gain) in enumerate(numbers.items()):
            axes.plot(angles, gain, color=colors[k // 2], linestyle=("-", "--")[k % 2],
                      marker="vD"[k // 2], label=name)  # fmt: skip
        axes.axhline(1, color=GREY, linewidth=1)
        axes.set(title=title, xlabel="angle in degrees", xscale="log", yscale="log")
        axes.set_xticks([1, 10, 100], ["1", "10", "100"])
    panels[0].set_ylabel("times fewer steps than SGD")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return finish(figure)
