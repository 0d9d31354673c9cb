"""Figures of the chapter on K-FAC."""

import matplotlib.pyplot as plt
import numpy as np

from batchscaling.figures.networks.axes import means
from batchscaling.figures.style import FAMILY, GREY, MARKERS, finish, look

_DIRECTIONS = {
    "gradient": look("sgd"),
    "diagonal": {"color": GREY, "linestyle": "--", "marker": "s"},
    "K-FAC": look("kfac"),
    "exact blocks": {**look("theory"), "marker": "x"},
}


def blocks(matrices):
    """Draw square matrices beside each other, in one scale of colours.

    Parameters
    ----------
    matrices : dict of str to ndarray, shape (d, d)
        By title. Red is positive, blue negative; colours end at a thirtieth of the largest number,
        so that small ones show.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, row = plt.subplots(1, len(matrices), sharey=True, squeeze=False)
    limit = max(np.abs(matrix).max() for matrix in matrices.values()) / 30
    for axes, (title, matrix) in zip(row[0], matrices.items(), strict=True):
        axes.imshow(matrix, cmap="RdBu_r", vmin=-limit, vmax=limit)
        axes.set(title=title, xlabel="weight")
        axes.grid(False)
    row[0, 0].set_ylabel("weight")
    return finish(figure)


def distances(steps, found, nearest):
    """Draw how far Kronecker products are from blocks of the Fisher matrix, as it trains.

    Parameters
    ----------
    steps : sequence of int
        When it was measured.
    found, nearest : dict of str to ndarray, shape (seeds, steps)
        Distance of K-FAC's product, and of the nearest one, for each layer: as a part of the
        block's norm.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, axes = plt.subplots()
    for (layer, values), style, marker in zip(found.items(), FAMILY[1::2], MARKERS, strict=False):
        for rows, end, line in ((values, "K-FAC", "-"), (nearest[layer], "nearest product", ":")):
            look_of = {"color": style["color"], "linestyle": line, "marker": marker}
            means(axes, range(len(steps)), rows, **look_of, label=f"{layer}, {end}")
    axes.set_xticks(range(len(steps)), labels=steps)
    axes.set(xlabel="step of gradient descent", ylabel="distance / norm of the block", ylim=(0, 1))
    axes.legend(ncols=2)
    return finish(figure)


def shares(places, panels, xlabel="damping"):
    """Draw what directions keep of the best step on the local quadratic model.

    Parameters
    ----------
    places : ndarray, shape (k,)
        What the horizontal axis shows, positive.
    panels : dict of str to dict of str to ndarray, shape (seeds, k)
        For each title, for each of "gradient", "diagonal", "K-FAC" and "exact blocks", the part.
    xlabel : str

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, row = plt.subplots(1, len(panels), sharey=True, squeeze=False)
    top = max(rows.max() for lines in panels.values() for rows in lines.values())
    for axes, (title, lines) in zip(row[0], panels.items(), strict=True):
        for name, rows in lines.items():
            means(axes, places, rows, **_DIRECTIONS[name], label=name)
        axes.set(title=title, xscale="log", xlabel=xlabel)
        axes.set_ylim(0, 1 if top <= 1 else 1.05 * top)
    row[0, 0].set_ylabel("part of the best fall")
    figure.legend(*row[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return finish(figure)
