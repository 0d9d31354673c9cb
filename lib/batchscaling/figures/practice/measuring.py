"""Figures of the chapter on measuring your own network."""

import matplotlib.pyplot as plt
import numpy as np

from batchscaling.figures.networks.axes import plain_numbers
from batchscaling.figures.style import FAMILY, GREY, LIMIT, finish, look
from batchscaling.registry import METHODS


def readings_along(steps, streamed, exact):
    """Draw a meter's reading during training, and the noise scale of all examples.

    Parameters
    ----------
    steps : ndarray, shape (k,)
    streamed, exact : ndarray, shape (k, 3)
        Noise scale and its interval; NaN where a reading cannot tell.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, axes = plt.subplots()
    dark, light = FAMILY[2]["color"], FAMILY[0]["color"]
    axes.fill_between(steps, streamed[:, 1], streamed[:, 2], color=light, alpha=0.5, linewidth=0)
    axes.plot(steps, streamed[:, 0], color=dark, label="meter")
    _points(axes, steps, exact, color="#1a1a1a", label="all examples, now")
    axes.set(xlabel="step", ylabel="noise scale (examples)", yscale="log")
    plain_numbers(axes.yaxis)
    axes.legend(loc="upper left")
    return finish(figure)


def readings_by_layer(runs):
    """Draw readings of the layers of networks, a marker for each layer.

    Parameters
    ----------
    runs : dict of str to ndarray of shape (seeds, 3)
        For each layer: noise scale and its interval, of each network; at most four.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, axes = plt.subplots()
    for shift, ((label, rows), line) in enumerate(zip(runs.items(), FAMILY[::2], strict=False)):
        seeds = np.arange(len(rows)) + 0.2 * (shift - 0.5)
        _points(axes, seeds, rows, color=line["color"], marker="os"[shift], label=label)
    axes.set(xlabel="network (seed)", ylabel="noise scale (examples)", yscale="log")
    axes.set_xticks(np.arange(len(rows)))
    plain_numbers(axes.yaxis)
    axes.legend()
    return finish(figure)


def readings_and_critical(readings, critical):
    """Draw readings of several runs of each optimizer beside its critical batch size.

    Parameters
    ----------
    readings : dict of str to ndarray of shape (seeds,)
        For each method of sweeps; NaN where a reading cannot tell.
    critical : dict of str to tuple (low, middle, high) of float

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, axes = plt.subplots()
    for row, (name, values) in enumerate(readings.items()):
        low, middle, high = critical[name]
        own = look(name)
        axes.errorbar(middle, row, xerr=[[middle - low], [high - middle]], color=LIMIT, marker="|",
                      markersize=14, label=None if row else "critical batch size")  # fmt: skip
        places = row + np.linspace(-0.2, 0.2, len(values))
        axes.plot(values, places, own["marker"], color=own["color"], markersize=5)
        axes.plot(np.nanmedian(values), row, "x", color=GREY, markersize=11,
                  label=None if row else "median of the readings")  # fmt: skip
    axes.set_yticks(range(len(readings)), labels=[METHODS[name].label for name in readings])
    axes.set(xlabel="batch size (examples)", xscale="log", ylim=(len(readings) - 0.5, -0.5))
    plain_numbers(axes.xaxis)
    figure.legend(loc="outside lower center", ncols=2)
    return finish(figure)


def _points(axes, places, rows, **style):
    """Draw numbers with their intervals, shape (k, 3)."""
    values, low, high = np.transpose(rows)
    style = {"linestyle": "", "marker": "o", "markersize": 5, "elinewidth": 1} | style
    axes.errorbar(places, values, [values - low, high - values], **style)
