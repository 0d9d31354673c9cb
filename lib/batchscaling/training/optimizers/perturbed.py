"""Gradients at random points near the parameters."""

import torch

from batchscaling import _validation as check
from batchscaling.training.optimizers.base import Optimizer, no_state


def _draw(rng, params, batch_size):
    return {name: torch.randn(p.shape, generator=rng) for name, p in params.items()}


def _query(params, state, hyper, drawn):
    radius = hyper["radius"]
    return {name: torch.addcmul(p, radius, drawn[name]) for name, p in params.items()}


def _update(grads, state, params, hyper):
    return grads, state


perturbed = Optimizer(no_state, _update, {"radius": check.nonnegative}, query=_query, draw=_draw)
"""A part before an optimizer: gradients are taken at w + radius z, z standard normal.

``chain(perturbed, sgd)`` descends on the loss smoothed by normal noise [1]_.

.. [1] Lin et al. (2020), Extrapolation for large-batch training in deep learning, section 3.
"""
