"""Adam, with and without momentum."""

import math

import torch

from batchscaling import _validation as check
from batchscaling.training.optimizers.base import Optimizer, zeros

_SCALE = 2.0**-12
"""Of the gradients before they are squared: in float32 the square of 1e20 would overflow.

A power of two changes no digit. With this one, squares overflow no earlier than in torch, which
multiplies them by 1 - beta2 first: in float32 that is at least 2^-24.
"""


def _init_without_momentum(params):
    # The count is made from a parameter, so that it is on its device and each trial's own.
    step = next(iter(params.values())).new_zeros(())
    return {"step": step, "square": zeros(params)}


def _update_without_momentum(grads, state, params, hyper):
    state = _advance(grads, state, hyper)
    return step(grads, hyper["lr"], state, hyper), state


def _init(params):
    return {**_init_without_momentum(params), "mean": zeros(params)}


def _update(grads, state, params, hyper):
    mean = _average(state["mean"], grads, hyper["beta1"])
    state = _advance(grads, state, hyper)
    lr = hyper["lr"] / _bias_correction(hyper["beta1"], state["step"])
    return step(mean, lr, state, hyper), {**state, "mean": mean}


def _advance(grads, state, hyper):
    """Return the count of steps and the running average of the squared gradients, times `_SCALE`².

    An average that overflows stays infinite, as in torch: its weights no longer move.
    """
    squares = {name: torch.addcmul(_zero(g), g, g, value=_SCALE**2) for name, g in grads.items()}
    square = _average(state["square"], squares, hyper["beta2"])
    square = {name: s.nan_to_num_(nan=math.inf, posinf=math.inf) for name, s in square.items()}
    return {"step": state["step"] + 1, "square": square}


def _zero(like):
    return like.new_zeros(())


def _average(average, values, beta):
    """Return ``beta * average + (1 - beta) * values``, in one pass over the numbers."""
    return {name: torch.lerp(average[name], value, 1 - beta) for name, value in values.items()}


def _bias_correction(beta, step):
    """Return ``1 - beta**step`` without cancellation where beta is close to 1."""
    return -torch.expm1(step * torch.log(beta))


def step(mean, lr, state, hyper):
    """Return ``-lr * mean / (sqrt(corrected square) + epsilon)``, zero where mean and square are.

    The correction, and the scale of the squares, are moved from the tensors to the scalars.
    """
    root = _SCALE * _bias_correction(hyper["beta2"], state["step"]).sqrt()
    # In float32 a small epsilon may become zero here, and a gradient of zero NaN.
    rate, epsilon = -lr * root, (hyper["epsilon"] * root).clamp(min=_least(root))
    # In place: new memory costs a CPU more than the arithmetic.
    return {
        name: (m / state["square"][name].sqrt().add_(epsilon)).mul_(rate)
        for name, m in mean.items()
    }


def _least(like):
    """Return the smallest number that no setting of the processor takes for zero."""
    return torch.finfo(like.dtype).tiny


_without_momentum = {"lr": check.positive, "beta2": check.below_one, "epsilon": check.positive}

adam = Optimizer(_init, _update, {**_without_momentum, "beta1": check.below_one})
"""Adam: m' = beta1 m + (1 - beta1) g; s' = beta2 s + (1 - beta2) g²; both are divided by their
weights so far, 1 - beta1^t and 1 - beta2^t; then w' = w - lr m' / (√s' + epsilon).

Kingma and Ba (2015), algorithm 1.
"""

adam_without_momentum = Optimizer(
    _init_without_momentum, _update_without_momentum, _without_momentum
)
"""Adam with beta1 = 0, so that m is the gradient. It keeps half the state of `adam`."""
