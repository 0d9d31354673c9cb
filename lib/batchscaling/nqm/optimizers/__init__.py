"""Optimizers on the noisy quadratic model, one a file."""

from batchscaling.nqm.optimizers.averaged import Averaged
from batchscaling.nqm.optimizers.base import LinearMethod, Optimizer
from batchscaling.nqm.optimizers.extrap_sgd import ExtrapSGD
from batchscaling.nqm.optimizers.heavy_ball import HeavyBall
from batchscaling.nqm.optimizers.nesterov import Nesterov
from batchscaling.nqm.optimizers.sgd import SGD

__all__ = ["SGD", "Averaged", "ExtrapSGD", "HeavyBall", "LinearMethod", "Nesterov", "Optimizer"]
