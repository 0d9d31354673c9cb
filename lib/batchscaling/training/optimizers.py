"""Optimizers as pairs of pure functions, in the style of optax.

``init(params)`` returns the state. ``update(grads, state, params, hyper)`` returns what is added
to the parameters, and the new state. Parameters, gradients and states are dicts of tensors.
`hyper` is a dict of tensors: scalars for one trial, one entry a trial under ``torch.func.vmap``.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch

from batchscaling._validation import positive, real


@dataclass(frozen=True)
class Optimizer:
    """An optimizer as two pure functions.

    Attributes
    ----------
    init : callable
        ``init(params)`` returns the state.
    update : callable
        ``update(grads, state, params, hyper)`` returns ``(updates, state)``.
    hyper : mapping of str to callable
        The hyperparameters: name, and the check ``check(name, value)`` of its values.
    """

    init: Callable
    update: Callable
    hyper: Mapping[str, Callable]


def _sgd_init(params):
    return {}


def _sgd_update(grads, state, params, hyper):
    return {name: -hyper["lr"] * grad for name, grad in grads.items()}, state


def _heavy_ball_init(params):
    return {name: torch.zeros_like(param) for name, param in params.items()}


def _heavy_ball_update(grads, state, params, hyper):
    velocity = {name: hyper["momentum"] * state[name] + grad for name, grad in grads.items()}
    return {name: -hyper["lr"] * v for name, v in velocity.items()}, velocity


sgd = Optimizer(_sgd_init, _sgd_update, {"lr": positive})
"""Stochastic gradient descent: w' = w - lr g."""

heavy_ball = Optimizer(
    _heavy_ball_init,
    _heavy_ball_update,
    {"lr": positive, "momentum": partial(real, low=0, high=1, high_open=True)},
)
"""Heavy-ball momentum: v' = momentum v + g; w' = w - lr v'. With momentum 0 it is `sgd`."""
