"""Extrapolated SGD."""

import torch

from batchscaling import _validation as check
from batchscaling.training.optimizers.base import Optimizer, zeros


def _init(params):
    return {"velocity": zeros(params), "slope": zeros(params)}


def _query(params, state, hyper, drawn):
    ahead = {
        n: torch.addcmul(p, hyper["momentum"], state["velocity"][n]) for n, p in params.items()
    }
    back = -hyper["extrapolation"]
    return {name: torch.addcmul(p, back, state["slope"][name]) for name, p in ahead.items()}


def _own(grads, state):
    return {**state, "slope": grads}


def _update(grads, state, params, hyper):
    momentum, rate, before = hyper["momentum"], -hyper["lr"], state["velocity"]
    velocity = {n: torch.addcmul(momentum * before[n], rate, g) for n, g in grads.items()}
    return velocity, {**state, "velocity": velocity}


extrap_sgd = Optimizer(
    _init,
    _update,
    {"lr": check.positive, "momentum": check.below_one, "extrapolation": check.nonnegative},
    query=_query,
    own=_own,
)
"""Nesterov momentum whose gradient is taken one extrapolation step ahead.

The gradient g is taken at w + momentum v - extrapolation g_before, zero at first. Then v' =
momentum v - lr g and w' = w + v'. With extrapolation 0 it is `nesterov_lookahead`: at a constant
rate the steps of torch's SGD with Nesterov momentum, which stores w + momentum v and is read there.
The rate is in the velocity, so after a fall of the rate both differ. Each of several workers
extrapolates along the gradient of its own last batch, and g is the mean of all.

Lin et al. (2020), Extrapolation for large-batch training in deep learning, algorithm 1.
"""
