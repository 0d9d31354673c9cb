"""The diagonal of the Fisher matrix, as a preconditioner."""

import torch

from batchscaling import _validation as check
from batchscaling.training.models.taps import Diagonal, from_matrix
from batchscaling.training.optimizers.base import Look, Optimizer, zeros

EVERY = 10
"""Steps from one look at the layers to the next."""


def _init(params):
    weight = next(iter(params.values())).new_zeros(())
    return {"fisher": zeros(params), "weight": weight}


def _fold(moments, state, hyper):
    rest, found = 1 - hyper["fisher_decay"], {}
    for name, part in moments.items():
        if isinstance(part, Diagonal):
            found[name] = part.squares
        else:
            found |= _of_layer(name, part, state["fisher"])
    fisher = {name: torch.lerp(old, found[name], rest) for name, old in state["fisher"].items()}
    return {"fisher": fisher, "weight": torch.lerp(state["weight"], torch.ones_like(rest), rest)}


def _of_layer(name, factors, params):
    """Return the diagonal of the Kronecker product of both factors, as weight and bias."""
    inputs, outputs = (f if f.ndim == 1 else f.diagonal() for f in factors)
    weight, bias = params[f"{name}.weight"], params.get(f"{name}.bias")
    weight, bias = from_matrix(factors, torch.outer(inputs, outputs), weight, bias)
    return {f"{name}.weight": weight} | ({} if bias is None else {f"{name}.bias": bias})


def _update(grads, state, params, hyper):
    damping, weight = hyper["damping"], state["weight"]
    scaled = {name: g / (state["fisher"][name] / weight + damping) for name, g in grads.items()}
    return scaled, state


diagonal_fisher = Optimizer(
    _init,
    _update,
    {"damping": check.positive, "fisher_decay": check.below_one},
    looks=(Look(EVERY, _fold),),
)
"""A part before an optimizer: g' = g / (f + damping), f the Fisher matrix's diagonal.

It is the diagonal of each layer's Kronecker product, averaged over looks every `EVERY` steps with
the decay fisher_decay, and divided by the weights so far. So it is a diagonal form of K-FAC, and
the smallest method with a look.

Martens and Grosse (2015), Optimizing neural networks with Kronecker-factored approximate
curvature, sections 3 and 5.
"""
