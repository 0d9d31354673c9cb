"""Axes that the figures on the noisy quadratic model share."""

import numpy as np


def batch_size_axis(axes, batch_sizes):
    """Give `axes` a horizontal axis of batch sizes from 1 on, with a label every four octaves."""
    axes.set_xscale("log", base=2)
    axes.set_xlabel("batch size")
    axes.set_xticks(2.0 ** np.arange(0, np.log2(batch_sizes[-1]) + 1, 4))
