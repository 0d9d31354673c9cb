"""Stochastic gradient descent with heavy-ball momentum."""

from batchscaling._validation import positive
from batchscaling.training.optimizers.base import Optimizer, below_one, zeros


def _update(grads, state, params, hyper):
    velocity = {name: hyper["momentum"] * state[name] + grad for name, grad in grads.items()}
    return {name: -hyper["lr"] * v for name, v in velocity.items()}, velocity


heavy_ball = Optimizer(zeros, _update, {"lr": positive, "momentum": below_one})
"""Heavy-ball momentum: v' = momentum v + g; w' = w - lr v'. With momentum 0 it is `sgd`."""
