"""Nesterov momentum in the book's form: the gradient is taken where the velocity leads."""

import torch

from batchscaling.training.optimizers.base import Optimizer, zeros
from batchscaling.training.optimizers.nesterov import nesterov


def _query(params, velocity, hyper, drawn):
    return {name: torch.addcmul(p, hyper["momentum"], velocity[name]) for name, p in params.items()}


def _update(grads, velocity, params, hyper):
    momentum, rate = hyper["momentum"], -hyper["lr"]
    velocity = {n: torch.addcmul(momentum * velocity[n], rate, g) for n, g in grads.items()}
    return velocity, velocity


nesterov_lookahead = Optimizer(zeros, _update, nesterov.hyper, query=_query)
"""Nesterov momentum: u' = momentum u - lr g(w + momentum u); w' = w + u'.

Evaluations are at w; those of `nesterov` are at w + momentum u, where gradients are taken. At a
constant rate both take the same gradients.
"""
