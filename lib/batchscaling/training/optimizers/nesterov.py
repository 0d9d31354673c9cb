"""Stochastic gradient descent with Nesterov momentum."""

import torch

from batchscaling import _validation as check
from batchscaling.training.optimizers.base import Optimizer, zeros


def _update(grads, state, params, hyper):
    rate, momentum = -hyper["lr"], hyper["momentum"]
    velocity = {name: torch.addcmul(g, momentum, state[name]) for name, g in grads.items()}
    ahead = {name: torch.addcmul(g, momentum, velocity[name]) for name, g in grads.items()}
    return {name: rate * a for name, a in ahead.items()}, velocity


nesterov = Optimizer(zeros, _update, {"lr": check.positive, "momentum": check.below_one})
"""Nesterov momentum: v' = momentum v + g; w' = w - lr (g + momentum v').

This is the form of ``torch.optim.SGD``. The book's form takes the gradient where the velocity
leads: u' = momentum u - lr g(θ + momentum u); θ' = θ + u'. At a constant rate the two are one
method: u = -lr v, and w = θ + momentum u is the point at which the gradient is taken.
"""
