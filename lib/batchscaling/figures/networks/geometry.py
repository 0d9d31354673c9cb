"""Figures of the chapter on the geometry of real networks."""

from itertools import cycle

import matplotlib.pyplot as plt
import numpy as np

from batchscaling.figures.networks.axes import means, plain_numbers
from batchscaling.figures.style import FAMILY, GREY, LIMIT, MARKERS, finish

_NETWORKS = [{**FAMILY[k], "marker": MARKERS[k]} for k in (3, 1, 0, 2)]
_SIGNS = ("o", "s", "^", "D", "v", "P", "X", "*")


def temperatures(sharpness, lines):
    """Draw noise over curvature against how sharp a model's probabilities are.

    Parameters
    ----------
    sharpness : array_like, shape (k,)
    lines : dict of str to array_like, each of shape (k,)
        The ratio, by label.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, axes = plt.subplots()
    for (label, ratio), style in zip(lines.items(), FAMILY[::-2], strict=False):
        axes.plot(sharpness, ratio, **style, label=label)
    axes.axhline(1, color=GREY, linewidth=1)
    axes.axvline(1, color=GREY, linewidth=1)
    axes.set(xscale="log", yscale="log", xlabel="sharpness k", ylabel="noise / curvature")
    plain_numbers(axes.xaxis)
    axes.legend()
    return finish(figure)


def scatter(panels):
    """Draw noise against curvature, a sign for each direction, with the line where both are equal.

    Parameters
    ----------
    panels : dict of str to dict of str to tuple of array_like
        For each title, for each layer, curvatures and noise of the same shape.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, row = plt.subplots(1, len(panels), squeeze=False, figsize=(7.2, 3.9))
    for axes, (title, layers) in zip(row[0], panels.items(), strict=True):
        shades = plt.get_cmap("viridis")(np.linspace(0, 0.85, len(layers)))
        for (layer, pair), shade, sign in zip(layers.items(), shades, cycle(_SIGNS), strict=False):
            h, c = _shown(*pair)
            label = layer.removeprefix("layer")
            axes.loglog(h, c, sign, color=shade, markersize=3, alpha=0.8, label=label)
        ends = axes.get_xlim()
        axes.plot(ends, ends, color=LIMIT, linewidth=1)
        axes.set(xlim=ends, title=title, xlabel="curvature h")
        axes.legend(title="layer", ncols=2, markerscale=1.5, handletextpad=0, columnspacing=0.5)
    row[0, 0].set_ylabel("noise c")
    return finish(figure)


def _shown(h, c):
    h, c = np.ravel(h), np.ravel(c)
    seen = (h > 1e-6 * h.max()) & (c > 0)
    return h[seen], c[seen]


def over_training(panels):
    """Draw numbers of several networks against the step, means over seeds with their range.

    Parameters
    ----------
    panels : dict of str to dict of str to tuple
        For each quantity, for each network, the steps, of shape (k,), and the numbers, of shape
        (seeds, k). A quantity whose name holds "/" has a logarithmic axis.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, row = plt.subplots(1, len(panels), squeeze=False)
    for axes, (quantity, networks) in zip(row[0], panels.items(), strict=True):
        for (name, (steps, rows)), style in zip(networks.items(), _NETWORKS, strict=False):
            means(axes, steps, rows, **style, label=name)
        axes.axhline(1, color=LIMIT, linewidth=1)
        axes.set(title=quantity, xlabel="step")
        axes.set_xscale("symlog", linthresh=3)
        axes.set_xticks([0, 10, 100, 1000], labels=["0", "10", "", "1000"])
        axes.minorticks_off()
        axes.set_xlim(-1, 6000)
        if "/" in quantity:
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter(plt.FuncFormatter(lambda value, _: f"{value:g}"))
    labels = row[0, 0].get_legend_handles_labels()
    figure.legend(*labels, loc="outside lower center", ncols=len(labels[1]))
    return finish(figure)


def spectra(panels):
    """Draw curvatures against their ranks, beside lines in proportion to 1/i.

    Parameters
    ----------
    panels : dict of str to dict of str to tuple of array_like
        For each title, at most four lines by label: ranks and curvatures. The dotted line goes
        through the last one's curvature at rank 10.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, row = plt.subplots(1, len(panels), squeeze=False, figsize=(7.2, 4))
    for axes, (title, lines) in zip(row[0], panels.items(), strict=True):
        for (label, (rank, values)), style in zip(lines.items(), FAMILY, strict=False):
            rank, values = np.asarray(rank), np.asarray(values)
            seen = values > 1e-7 * values.max()
            axes.loglog(rank[seen], values[seen], **style, label=label)
        at_ten = np.exp(np.interp(np.log(10), np.log(rank[seen]), np.log(values[seen])))
        ends = np.array([1, rank.max()])
        axes.loglog(
            ends, 10 * at_ten / ends, color=LIMIT, linewidth=1, label="in proportion to 1/i"
        )
        axes.set(title=title, xlabel="rank i")
    row[0, 0].set_ylabel("curvature")
    labels = row[0, 0].get_legend_handles_labels()
    figure.legend(*labels, loc="outside lower center", ncols=3)
    return finish(figure)


def outputs(networks):
    """Draw noise over curvature of all weights against the same ratio of the outputs alone.

    Parameters
    ----------
    networks : dict of str to tuple of array_like
        Ratios at the outputs, and along the weights, of one shape, by the name of the network.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, axes = plt.subplots(figsize=(4.6, 4.2))
    for (name, pair), style in zip(networks.items(), _NETWORKS, strict=False):
        pair = map(np.ravel, pair)
        axes.loglog(*pair, linestyle="", color=style["color"], marker=style["marker"], label=name)
    ends = axes.get_xlim()
    axes.plot(ends, ends, color=LIMIT, linewidth=1)
    axes.set(xlim=ends, xlabel="noise / curvature, outputs", ylabel="noise / curvature, weights")
    axes.legend()
    return finish(figure)


def layers(networks):
    """Draw a number of each layer of several networks, and name the layers at both ends.

    Parameters
    ----------
    networks : dict of str to dict of str to float
        For each network, the mean curvature of a weight in each layer.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, axes = plt.subplots(figsize=(7.2, 0.55 * len(networks) + 1))
    for place, (found, style) in enumerate(zip(networks.values(), cycle(FAMILY[::-1]))):
        axes.plot(list(found.values()), [place] * len(found), "o", color=style["color"], alpha=0.7)
        for pick, align in ((min, "right"), (max, "left")):
            name = pick(found, key=found.get)
            beside = {"xytext": (-7 if align == "right" else 7, 0), "textcoords": "offset points"}
            axes.annotate(name, (found[name], place), ha=align, va="center", fontsize=9, **beside)
    axes.set_yticks(range(len(networks)), labels=networks)
    axes.set(xscale="log", xlabel="mean curvature of a weight", ylim=(len(networks) - 0.5, -0.5))
    low, high = (end([v for n in networks.values() for v in n.values()]) for end in (min, max))
    axes.set_xlim(low / 8, high * 8)
    return finish(figure)
