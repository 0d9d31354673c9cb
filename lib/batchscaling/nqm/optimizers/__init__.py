"""Optimizers on the noisy quadratic model, one a file."""

from batchscaling.nqm.optimizers.base import LinearMethod, Optimizer
from batchscaling.nqm.optimizers.heavy_ball import HeavyBall
from batchscaling.nqm.optimizers.sgd import SGD

__all__ = ["HeavyBall", "LinearMethod", "Optimizer", "SGD"]
