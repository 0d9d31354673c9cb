"""Extrapolated Adam."""

from batchscaling import _validation as check
from batchscaling.training.optimizers.adam import adam, step
from batchscaling.training.optimizers.base import Optimizer, zeros


def _init(params):
    return {"adam": adam.init(params), "slope": zeros(params)}


def _query(params, state, hyper, drawn):
    inner = state["adam"]
    inner = {**inner, "step": inner["step"].clamp(min=1)}  # at first the slope is zero
    ahead = step(state["slope"], hyper["extrapolation"], inner, hyper)
    return {name: p + ahead[name] for name, p in params.items()}


def _own(grads, state):
    return {**state, "slope": grads}


def _update(grads, state, params, hyper):
    updates, inner = adam.update(grads, state["adam"], params, hyper)
    return updates, {**state, "adam": inner}


extrap_adam = Optimizer(
    _init, _update, {**adam.hyper, "extrapolation": check.nonnegative}, query=_query, own=_own
)
"""Adam whose gradient is taken one extrapolation step ahead.

The gradient is taken at w - extrapolation g_before / (√s + epsilon), with Adam's own mean square s,
corrected for its start; at first, at w. With extrapolation 0 it is `adam`. Each of several workers
extrapolates along the gradient of its own last batch, and Adam gets the mean of all.

Lin et al. (2020), Extrapolation for large-batch training in deep learning, algorithm 3.
"""
