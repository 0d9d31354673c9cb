"""Axes that the figures on the noisy quadratic model share."""

import numpy as np


def batch_size_axis(axes, batch_sizes):
    """Give `axes` a horizontal axis of batch sizes, with a label every two or four octaves."""
    axes.set_xscale("log", base=2)
    axes.set_xlabel("batch size")
    first, last = np.log2(batch_sizes[0]), np.log2(batch_sizes[-1])
    axes.set_xticks(2.0 ** np.arange(first, last + 1, 4 if last - first > 12 else 2))
