"""Figures of the chapter on other optimizers."""

import matplotlib.pyplot as plt
import numpy as np

from batchscaling.figures.networks.axes import plain_numbers
from batchscaling.figures.style import FAMILY, GREY, LIMIT, MARKERS, finish, look
from batchscaling.registry import METHODS


def losses_in_race(race):
    """Draw the mean loss of each contender of a race.

    Parameters
    ----------
    race : batchscaling.practice.Race

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, axes = plt.subplots()
    for name, losses in race.losses.items():
        method = {"momentum": "heavy_ball"}.get(name, name)
        mean = np.mean(losses, axis=0)
        axes.plot(race.steps, mean, **look(method), label=METHODS[method].label)
    axes.set(xlabel="steps of the race", ylabel="loss", yscale="log")
    plain_numbers(axes.yaxis)
    axes.legend()
    return finish(figure)


def saved_against_length(lengths, saved):
    """Draw how many times fewer steps one method takes than another, in races of several lengths.

    Parameters
    ----------
    lengths : array_like, shape (k,)
    saved : dict of int to array_like of shape (k,)
        For each batch size, of which there are up to four.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, axes = plt.subplots()
    axes.axhline(1, color=LIMIT, linestyle="--", label="nothing saved")
    looks = zip(saved.items(), FAMILY, MARKERS, strict=False)
    for (size, values), own, marker in looks:
        axes.plot(lengths, values, **own, marker=marker, label=f"batch size {size:,}")
    axes.set(xlabel="steps of the race", ylabel="steps divided by", xscale="log", yscale="log")
    plain_numbers(axes.xaxis)
    plain_numbers(axes.yaxis)
    axes.legend()
    return finish(figure)


def races_against_sweeps(found):
    """Draw what races say against what sweeps say, a dot with its interval for each race.

    Parameters
    ----------
    found : dict of str to tuple of array_like
        For each question what sweeps say, shape (k,), and what races say with their intervals,
        shape (k, 3): how many times fewer steps.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, axes = plt.subplots()
    every = np.concatenate(
        [np.concatenate([swept, raced[:, 0]]) for swept, raced in found.values()]
    )
    ends = np.array([every.min() / 1.2, every.max() * 1.2])
    axes.fill_between(ends, ends / 1.5, ends * 1.5, color=GREY, alpha=0.2, linewidth=0,
                      label="within a factor of 1.5")  # fmt: skip
    axes.plot(ends, ends, color=LIMIT, linestyle="--")
    methods = dict(zip(found, ("heavy_ball", "adam", "kfac"), strict=False))
    for question, (swept, raced) in found.items():
        own = {key: look(methods[question])[key] for key in ("color", "marker")}
        values, low, high = np.transpose(raced)
        axes.errorbar(swept, values, [values - low, high - values], **own, linestyle="",
                      markersize=5, alpha=0.6, label=question)  # fmt: skip
    axes.set(xlabel="steps divided by, in the sweeps", ylabel="in the race", xscale="log",
             yscale="log")  # fmt: skip
    plain_numbers(axes.xaxis)
    plain_numbers(axes.yaxis)
    axes.legend()
    return finish(figure)
