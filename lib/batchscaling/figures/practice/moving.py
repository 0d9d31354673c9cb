"""Figures of the chapter on small batches and moving between sizes."""

import matplotlib.pyplot as plt

from batchscaling.figures.networks.axes import plain_numbers
from batchscaling.figures.style import finish


def loss_by_rule(batch_sizes, losses):
    """Draw loss against batch size, a line for each rule that moves the hyperparameters.

    Parameters
    ----------
    batch_sizes : sequence of int, length k
    losses : dict of str to array_like of shape (k,)
        At most four.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, axes = plt.subplots()
    for (name, values), marker in zip(losses.items(), "osD^", strict=False):
        axes.plot(batch_sizes, values, marker=marker, label=name)
    axes.set(xlabel="batch size (examples)", ylabel="validation loss", xscale="log", yscale="log")
    plain_numbers(axes.xaxis)
    plain_numbers(axes.yaxis)
    axes.legend()
    return finish(figure)
