r"""Kronecker-factored Fisher matrices: one small matrix for each side of a layer's weights [1]_.

References
----------
.. [1] Martens and Grosse (2015), Optimizing neural networks with Kronecker-factored approximate
   curvature.
"""

from functools import partial

import numpy as np
import torch

from batchscaling import _validation as check
from batchscaling.curvature._arguments import checked, counted, fisher_slopes
from batchscaling.training._process import kept_memory
from batchscaling.training._torch_state import undisturbed
from batchscaling.training.fisher import FISHERS
from batchscaling.training.losses import cross_entropy
from batchscaling.training.models.taps import Diagonal, Kronecker, layer_moments


@undisturbed
@kept_memory()
def kronecker_factors(
    model,
    params,
    inputs,
    labels,
    *,
    fisher="sampled",
    sharing="expand",
    samples=1,
    seed=0,
    chunk=256,
    loss=cross_entropy,
):
    r"""Return the Kronecker factors of the Fisher matrix of the mean loss.

    The block of a layer's weights is close to the Kronecker product of both factors, the inputs'
    first, where the layer's matrix, as `as_matrix` returns it, is flattened row by row.

    Parameters
    ----------
    model : Model
        Its linear maps are functions of `batchscaling.training.models.layers`. With ghost batch
        normalisation, where examples meet, labels can only be sampled.
    params : dict of torch.Tensor
        Of one trial.
    inputs, labels : torch.Tensor, shape (n, ...)
        Only an empirical Fisher matrix depends on what they are, but for rows that do not count.
    fisher : {"sampled", "exact", "empirical"}
        As `fisher_product` describes.
    sharing : {"expand", "reduce"}
        How positions of convolutions and sequences are treated, see `layer_moments`.
    samples : int
        Draws of labels for each example, at least 1, where they are sampled.
    seed : int
        Of the draws.
    chunk : int
        Examples at once, at least 1. Ghost batches are never torn.
    loss : Loss

    Returns
    -------
    dict
        A `Kronecker` for each layer, by its name, and a `Diagonal` for each other parameter, by
        the parameter's name.

    Raises
    ------
    ValueError
        If an argument is outside its range, inputs and labels do not fit each other or the model,
        or a parameter belongs to no layer. It names the parameter.
    """
    check.one_of("fisher", fisher, FISHERS)
    samples, chunk = check.integer("samples", samples, 1), check.integer("chunk", chunk, 1)
    rng = torch.Generator().manual_seed(check.integer("seed", seed, 0))
    params, inputs, labels = checked(
        model, params, inputs, labels, loss, single=fisher != "sampled"
    )
    rows = {name: p[None] for name, p in params.items()}
    chunk = max(chunk // model.ghost_size, 1) * model.ghost_size
    total = {}
    for some, some_labels in zip(inputs.split(chunk), labels.split(chunk), strict=True):
        chosen = partial(fisher_slopes, loss, some_labels[None], fisher, samples, rng)
        options = {"sharing": sharing, "verify": not total}
        total = _sum(total, layer_moments(model, rows, some[None], chosen, **options))
    return {name: _mean(found, len(inputs), counted(loss, labels)) for name, found in total.items()}


@undisturbed
def kronecker_eigenvalues(factors):
    """Return the eigenvalues of the matrix of all blocks.

    Parameters
    ----------
    factors : dict
        Such as `kronecker_factors` returns.

    Returns
    -------
    numpy.ndarray, shape (P,)
        Falling. Those of a Kronecker product are all products of the factors' eigenvalues.

    Raises
    ------
    ValueError
        If `factors` is not such a dict.
    """
    check_factors(factors)
    values = []
    for found in factors.values():
        sides = [_eigenvalues(side) for side in found]
        values.append(torch.outer(*sides).flatten() if len(sides) == 2 else sides[0])
    return np.sort(torch.cat(values).numpy())[::-1].copy()


def check_factors(factors):
    """Check that factors are such as `kronecker_factors` returns."""
    kinds = (Kronecker, Diagonal)
    are_factors = isinstance(factors, dict) and all(isinstance(f, kinds) for f in factors.values())
    if not are_factors or not factors:
        allowed = "a dict of Kronecker and Diagonal, as kronecker_factors returns"
        check.reject("factors", factors if are_factors else type(factors).__name__, allowed)


def _eigenvalues(side):
    side = side.detach().double().cpu()
    return torch.linalg.eigvalsh(side) if side.ndim == 2 else side


def _sum(total, moments):
    """Return sums of moments of the same layers."""
    if not total:
        return moments
    return {
        name: type(found)(*(a + b for a, b in zip(found, moments[name], strict=True)))
        for name, found in total.items()
    }


def _mean(found, examples, count):
    """Return the mean moments of one trial."""
    if isinstance(found, Diagonal):
        return Diagonal(found.squares[0] / count)
    return Kronecker(found.inputs[0] / examples, found.outputs[0] / count)
