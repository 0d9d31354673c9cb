"""Exact Fisher matrices and Gauss-Newton steps of small networks: what K-FAC approximates."""

import numpy as np
import torch
from scipy.linalg import LinAlgError, cho_factor, cho_solve

from batchscaling import _validation as check
from batchscaling.curvature._arguments import checked, counted, fisher_slopes, mean_loss
from batchscaling.curvature.gradients import gradients_from_slopes
from batchscaling.training._process import kept_memory
from batchscaling.training._torch_state import undisturbed
from batchscaling.training.fisher import FISHERS
from batchscaling.training.losses import cross_entropy

BLOCKS = ("all", "layers")


@undisturbed
@kept_memory()
def fisher_matrix(
    model,
    params,
    inputs,
    labels,
    *,
    fisher="exact",
    samples=1,
    seed=0,
    chunk=256,
    loss=cross_entropy,
):
    """Return a Fisher matrix of the mean loss, whole.

    It holds the square of the number of parameters: 180 MB for 5,000 of them.

    Parameters
    ----------
    model, params, inputs, labels
        As for `per_example_gradients`.
    fisher : {"exact", "sampled", "empirical"}
        As `fisher_product` describes. The exact one is the Gauss-Newton matrix.
    samples : int
        Draws of labels for each example, at least 1, where they are sampled.
    seed : int
        Of the draws.
    chunk : int
        Examples at once, at least 1.
    loss : Loss

    Returns
    -------
    numpy.ndarray, shape (P, P)
        Parameters in the order of `params`, each flattened.

    Raises
    ------
    ValueError
        If an argument is outside its range, or as `per_example_gradients`.
    """
    check.one_of("fisher", fisher, FISHERS)
    samples, chunk = check.integer("samples", samples, 1), check.integer("chunk", chunk, 1)
    rng = torch.Generator().manual_seed(check.integer("seed", seed, 0))
    params, inputs, labels = checked(model, params, inputs, labels, loss, single=True)
    dim = sum(p.numel() for p in params.values())
    total = np.zeros((dim, dim))
    for some, some_labels in zip(inputs.split(chunk), labels.split(chunk), strict=True):
        outputs = model.apply(params, some)[None]
        for slope in fisher_slopes(loss, some_labels[None], fisher, samples, rng, outputs):
            grads = gradients_from_slopes(model, params, some, slope[0])
            rows = torch.cat([g.flatten(1) for g in grads.values()], dim=1).double().cpu().numpy()
            total += rows.T @ rows
    return total / counted(loss, labels).item()


@undisturbed
@kept_memory()
def gauss_newton_step(
    model, params, inputs, labels, *, damping, blocks="all", chunk=256, loss=cross_entropy
):
    r"""Return the exact damped Gauss-Newton step :math:`(F + \lambda I)^{-1} g` of the mean loss.

    With blocks of layers it is what K-FAC would be if its Kronecker products were exact: the
    difference of both kinds is what K-FAC loses between layers, that to K-FAC what it loses in
    them.

    Parameters
    ----------
    model, params, inputs, labels
        As for `per_example_gradients`. Memory is that of `fisher_matrix`.
    damping : float
        :math:`\lambda`, positive.
    blocks : {"all", "layers"}
        Whether all parameters meet, or only those of a layer: of names that are equal up to the
        last dot.
    chunk : int
        Examples at once, at least 1.
    loss : Loss

    Returns
    -------
    dict of torch.Tensor
        A direction like the gradient, in the types of `params`. To descend, subtract it.

    Raises
    ------
    ValueError
        If an argument is outside its range, or as `per_example_gradients`.
    """
    damping = check.positive("damping", damping)
    check.one_of("blocks", blocks, BLOCKS)
    matrix = fisher_matrix(model, params, inputs, labels, chunk=chunk, loss=loss)
    params, inputs, labels = checked(model, params, inputs, labels, loss, single=True)
    leaves = {name: p.requires_grad_() for name, p in params.items()}
    value = mean_loss(loss, model.apply(leaves, inputs), labels)
    grads = torch.autograd.grad(value, list(leaves.values()), materialize_grads=True)
    flat = torch.cat([g.flatten() for g in grads]).double().cpu().numpy()
    matrix[np.diag_indices_from(matrix)] += damping
    step = np.empty_like(flat)
    for places in _places(params, blocks):
        try:
            step[places] = cho_solve(cho_factor(matrix[np.ix_(places, places)]), flat[places])
        except LinAlgError:
            allowed = "a larger one, with which the matrix is positive definite in floats"
            check.reject("damping", damping, allowed)
    pieces = torch.as_tensor(step).split([p.numel() for p in params.values()])
    return {
        name: piece.view(p.shape).to(p)
        for (name, p), piece in zip(params.items(), pieces, strict=True)
    }


def _places(params, blocks):
    """Return the places of each block's parameters in the flat vector."""
    found, first = {}, 0
    for name, p in params.items():
        block = name.rpartition(".")[0] if blocks == "layers" else ""
        found.setdefault(block, []).append(np.arange(first, first := first + p.numel()))
    return [np.concatenate(places) for places in found.values()]
