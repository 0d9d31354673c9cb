"""Gradients at points that the gradient of another batch leads to."""

import torch

from batchscaling import _validation as check
from batchscaling.training.optimizers.base import AnotherBatch, Optimizer, no_state


def _draw(rng, params, batch_size):
    return AnotherBatch(torch.rand(batch_size, generator=rng))


def _query(params, state, hyper, slope):
    back = -hyper["extrapolation"]
    return {name: torch.addcmul(p, back, slope[name]) for name, p in params.items()}


def _update(grads, state, params, hyper):
    return grads, state


gradient_perturbed = Optimizer(
    no_state, _update, {"extrapolation": check.nonnegative}, query=_query, draw=_draw
)
"""A part before an optimizer: gradients are taken at w - extrapolation g', g' of another batch.

``chain(gradient_perturbed, nesterov_lookahead)`` is extrapolated SGD with stochastic-gradient
noise: each worker draws another batch, as large as its own, and takes g' where the step begins. A
step costs two gradients, and no communication more. Examples are drawn with replacement, and not
changed at random. On a quadratic, without momentum, it is a fresh extragradient.

Lin et al. (2020), Extrapolation for large-batch training in deep learning, section 3.2.
"""
