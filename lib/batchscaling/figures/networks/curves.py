"""Figures of measured batch-size curves."""

import matplotlib.pyplot as plt
import numpy as np

from batchscaling.figures.networks.axes import batch_size_axis, plain_numbers
from batchscaling.figures.style import finish, look

NAMES = {
    "sgd": ("SGD", "SGD"),
    "heavy_ball": ("HeavyBall", "heavy ball"),
    "nesterov": ("Nesterov", "Nesterov"),
    "adam": ("Adam", "Adam"),
    "adam_without_momentum": ("AdamWithoutMomentum", "Adam without momentum"),
}
"""The look and the label of each optimizer of a sweep."""


def sweep_curves(cells, measure="validation"):
    """Draw steps to the target against the batch size, a panel for each task.

    Bars are 95 % intervals of the median over fresh seeds; thin lines are perfect scaling from
    each curve's smallest batch.

    Parameters
    ----------
    cells : sequence of CellResult
    measure : str
        One of the cells' measures.

    Returns
    -------
    matplotlib.figure.Figure
    """
    tasks = list(dict.fromkeys(cell.task for cell in cells))
    figure, row = plt.subplots(
        1, len(tasks), figsize=(max(7.2, 5 * len(tasks)), 4.2), squeeze=False
    )
    for axes, task in zip(row[0], tasks, strict=True):
        chosen = [cell for cell in cells if cell.task == task]
        for name in dict.fromkeys(cell.optimizer for cell in chosen):
            curve = [cell for cell in chosen if cell.optimizer == name]
            sizes = np.array([cell.batch_size for cell in curve])
            low, median, high = np.array([cell.interval(measure) for cell in curve]).T
            style, label = NAMES[name]
            bars = [median - low, np.minimum(high, 4 * median) - median]
            axes.errorbar(sizes, median, bars, **look(style), capsize=3, label=label)
            axes.plot(
                sizes, median[0] * sizes[0] / sizes, color=look(style)["color"], linewidth=0.8
            )
        axes.set(title=task, yscale="log", ylabel="steps to the target")
        plain_numbers(axes.yaxis)
        batch_size_axis(axes, np.unique([cell.batch_size for cell in chosen]))
    row[0, 0].legend()
    return finish(figure)
