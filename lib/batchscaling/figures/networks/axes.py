"""Axes that the figures on networks share."""

import matplotlib.pyplot as plt
import numpy as np


def batch_size_axis(axes, batch_sizes):
    """Give `axes` a horizontal axis of batch sizes; of more than four, every second has a label."""
    axes.set_xscale("log", base=2)
    axes.set_xlabel("batch size B")
    every = 1 if len(batch_sizes) <= 4 else 2
    shown = np.append(batch_sizes[:-1:every], batch_sizes[-1])
    axes.set_xticks(shown, labels=[f"{size:g}" for size in shown])
    axes.minorticks_off()


def plain_numbers(axis):
    """Label a logarithmic axis with 1, 2, 5, 10, ... in plain digits."""
    axis.set_major_locator(plt.LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(plt.FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(plt.NullLocator())


def means(axes, places, rows, **style):
    """Draw the mean of rows, with bars from the smallest to the largest."""
    middle = rows.mean(0)
    axes.errorbar(places, middle, [middle - rows.min(0), rows.max(0) - middle], capsize=3, **style)
