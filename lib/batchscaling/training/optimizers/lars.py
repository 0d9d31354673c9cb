"""Layer-wise adaptive rate scaling (LARS)."""

import torch

from batchscaling import _validation as check
from batchscaling.training.optimizers.base import Optimizer, chain, no_state
from batchscaling.training.optimizers.heavy_ball import heavy_ball

_SMALL = 2.0**-80
"""Times a number of float32, it has a square that is finite."""


def _update(grads, state, params, hyper):
    return {name: _scaled(grad, params[name], hyper) for name, grad in grads.items()}, state


def _scaled(grad, param, hyper):
    size = torch.linalg.vector_norm(param)
    slope = _norm(grad) + hyper["weight_decay"] * size
    defined = (size > 0) & (slope > 0)
    one = torch.ones_like(slope)
    # A tensor of zeros has no size to scale by, and would stay zero at rate 0.
    rate = torch.where(defined, hyper["trust"] * size / torch.where(defined, slope, one), one)
    return torch.addcmul(grad, hyper["weight_decay"], param).mul_(rate)


def _norm(tensor):
    """Return the norm, also where the squares of numbers in float32 are infinite."""
    norm = torch.linalg.vector_norm(tensor)
    large = torch.linalg.vector_norm(tensor * _SMALL) / _SMALL
    return torch.where(norm.isfinite(), norm, large)


layer_rate = Optimizer(
    no_state, _update, {"trust": check.positive, "weight_decay": check.nonnegative}
)
"""A rate for each tensor: g' = rate (g + weight_decay w), before an optimizer.

The rate is trust ‖w‖ / (‖g‖ + weight_decay ‖w‖), and 1 where w is zero, as biases are at first.
"""

lars = chain(layer_rate, heavy_ball)
"""LARS with heavy-ball momentum: lr, momentum, trust and weight_decay.

The rates do not depend on the scale of the gradients, while these are longer than 1e-18. Only the
product of lr and trust counts, but for tensors of zeros: fix one of them before a search.

You, Gitman and Ginsburg (2017), Large batch training of convolutional networks, section 5. There
lr is inside the velocity; that differs only while lr changes.
"""
