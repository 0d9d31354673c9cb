"""Weight decay, coupled and decoupled, as parts of a chain."""

import torch

from batchscaling import _validation as check
from batchscaling.training.optimizers.base import Optimizer, no_state


def _decayed(grads, params, hyper):
    decay = hyper["weight_decay"]
    return {name: torch.addcmul(grad, decay, params[name]) for name, grad in grads.items()}


def _coupled(grads, state, params, hyper):
    return _decayed(grads, params, hyper), state


def _decoupled(updates, state, params, hyper):
    decay = -hyper["lr"] * hyper["weight_decay"]
    return {name: torch.addcmul(u, decay, params[name]) for name, u in updates.items()}, state


weight_decay = Optimizer(no_state, _coupled, {"weight_decay": check.nonnegative}, penalty=_decayed)
"""Coupled weight decay (L2): g' = g + weight_decay w, before an optimizer.

``chain(weight_decay, heavy_ball)`` follows the gradient of the loss plus weight_decay ‖w‖²/2. Where
an optimizer takes its gradient elsewhere than at w, it takes both there.
"""

decoupled_weight_decay = Optimizer(
    no_state, _decoupled, {"weight_decay": check.nonnegative}, of_updates=True
)
"""Decoupled weight decay: w' = w + update - lr weight_decay w, after an optimizer.

``chain(adam, decoupled_weight_decay)`` is AdamW. Loshchilov and Hutter (2019), algorithm 2.
"""
