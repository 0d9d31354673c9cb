"""Stochastic gradient descent."""

from batchscaling import _validation as check
from batchscaling.training.optimizers.base import Optimizer, no_state


def _update(grads, state, params, hyper):
    rate = -hyper["lr"]
    return {name: rate * grad for name, grad in grads.items()}, state


sgd = Optimizer(no_state, _update, {"lr": check.positive})
"""Stochastic gradient descent: w' = w - lr g."""
