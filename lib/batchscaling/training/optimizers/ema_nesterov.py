"""Nesterov's look-ahead along the running average of updates."""

import torch

from batchscaling import _validation as check
from batchscaling.training.optimizers.base import Optimizer, zeros


def _query(params, mean, hyper, drawn):
    return {n: torch.addcmul(p, hyper["look_ahead"], mean[n]) for n, p in params.items()}


def _update(grads, mean, params, hyper):
    updates = {name: -hyper["lr"] * g for name, g in grads.items()}
    keep = hyper["update_decay"]
    return updates, {name: torch.lerp(u, mean[name], keep) for name, u in updates.items()}


ema_nesterov = Optimizer(
    zeros,
    _update,
    {"lr": check.positive, "look_ahead": check.nonnegative, "update_decay": check.below_one},
    query=_query,
)
"""SGD whose gradient is taken some average updates ahead.

The gradient g is taken at w + look_ahead m, where m is the running average of updates: u = -lr g,
m' = update_decay m + (1 - update_decay) u and w' = w + u. No momentum goes into w itself.
"""
