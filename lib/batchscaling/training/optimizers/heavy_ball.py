"""Stochastic gradient descent with heavy-ball momentum."""

import torch

from batchscaling import _validation as check
from batchscaling.training.optimizers.base import Optimizer, zeros


def _update(grads, state, params, hyper):
    rate, momentum = -hyper["lr"], hyper["momentum"]
    velocity = {name: torch.addcmul(g, momentum, state[name]) for name, g in grads.items()}
    return {name: rate * v for name, v in velocity.items()}, velocity


heavy_ball = Optimizer(zeros, _update, {"lr": check.positive, "momentum": check.below_one})
"""Heavy-ball momentum: v' = momentum v + g; w' = w - lr v'. With momentum 0 it is `sgd`."""
