r"""Curvature and gradient noise along the eigenvectors of Kronecker factors.

A layer's block of the Fisher matrix is about the product of two factors. If u is an eigenvector of
the inputs' factor and w one of the outputs', the layer's matrix :math:`u w^\top` is a direction
with the eigenvalue that both have together. There are as many of them as weights, steep and flat
ones, and none of them is ever kept: a gradient's numbers along all of them are
:math:`U^\top G W` [1]_. They are orthogonal, whether or not the factors are a good approximation;
what is measured along them is exact [2]_.

References
----------
.. [1] George et al. (2018), Fast approximate natural gradient descent in a Kronecker-factored
   eigenbasis.
.. [2] Zhang et al. (2019), Which algorithmic choices matter at which batch sizes?, appendix D.2.
"""

from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch.func import vmap

from batchscaling import _validation as check
from batchscaling.curvature._arguments import checked, counted, fisher_slopes
from batchscaling.curvature.factors import check_factors
from batchscaling.curvature.gradients import gradients_from_slopes
from batchscaling.training._process import kept_memory
from batchscaling.training._torch_state import undisturbed
from batchscaling.training.fisher import FISHERS
from batchscaling.training.losses import cross_entropy
from batchscaling.training.models.taps import Diagonal, as_matrix
from batchscaling.training.rows import column


class Directions(NamedTuple):
    r"""What was measured along the directions of one layer, or of one parameter.

    Arrays of shape (inputs, outputs): entry (i, j) belongs to the i-th eigenvector of the inputs'
    factor and the j-th of the outputs', both in the order of `torch.linalg.eigh`. Of a factor that
    is a diagonal, and of a `Diagonal` parameter, whose arrays have its shape, directions are the
    coordinates.

    Attributes
    ----------
    kronecker : ndarray
        What the factors say that the curvature is: the product of both eigenvalues.
    curvature : ndarray
        :math:`v^\top F v`, with the Fisher matrix of the mean loss.
    noise : ndarray
        Variance along v of the gradient of one example.
    gradient : ndarray
        The mean of these gradients along v.
    """

    kronecker: np.ndarray
    curvature: np.ndarray
    noise: np.ndarray
    gradient: np.ndarray


@undisturbed
@kept_memory()
def along_eigenbasis(
    model,
    params,
    inputs,
    labels,
    factors,
    *,
    fisher="sampled",
    samples=1,
    seed=0,
    chunk=256,
    loss=cross_entropy,
):
    r"""Return curvature and gradient noise along the eigenvectors of Kronecker factors.

    Examples go through in chunks. Memory is that of a chunk's gradients, however many examples
    there are; no eigenvector of the size of the parameters is ever made.

    Parameters
    ----------
    model, params, inputs, labels
        As for `per_example_gradients`. If labels were drawn from the model, noise and curvature
        would be equal. An example with several labels has the mean of their gradients, so that
        its noise would be the curvature over their number.
    factors : dict
        As `kronecker_factors` returns for this model; its examples may be others.
    fisher : {"sampled", "exact", "empirical"}
        Whose curvature, as `fisher_product` describes. Exact takes as many passes as an example
        has outputs. The sampled curvature has the exact one as its mean.
    samples : int
        Draws of labels for each example, at least 1, where they are sampled.
    seed : int
        Of the draws.
    chunk : int
        Examples at once, at least 1.
    loss : Loss

    Returns
    -------
    dict of str to Directions
        By the names of `factors`.

    Raises
    ------
    ValueError
        If an argument is outside its range, the model has ghost batch normalisation, inputs and
        labels do not fit each other or the model, or factors are not those of its parameters.
    """
    check.one_of("fisher", fisher, FISHERS)
    samples, chunk = check.integer("samples", samples, 1), check.integer("chunk", chunk, 1)
    rng = torch.Generator().manual_seed(check.integer("seed", seed, 0))
    params, inputs, labels = checked(model, params, inputs, labels, loss, single=True)
    check_factors(factors)
    bases = {name: _Basis(name, found, params) for name, found in factors.items()}
    missing = set(params) - {part for basis in bases.values() for part in basis.parts}
    if missing:
        check.reject("factors", sorted(factors), f"factors of {', '.join(sorted(missing))} too")
    sums = {name: basis.sums() for name, basis in bases.items()}
    for some, some_labels in zip(inputs.split(chunk), labels.split(chunk), strict=True):
        outputs = model.apply(params, some)
        pulled = partial(_projected, bases, model, params, some)
        own = loss.counts(some_labels).view(len(some), -1).sum(1).clamp(min=1)
        for name, along in pulled(loss.slope(outputs, some_labels) / column(own, outputs)):
            sums[name]["gradient"] += along.sum(0)
            sums[name]["squares"] += along.square().sum(0)
        for slope in fisher_slopes(loss, some_labels[None], fisher, samples, rng, outputs[None]):
            for name, along in pulled(slope[0]):
                sums[name]["curvature"] += along.square().sum(0)
    count = counted(loss, labels)
    return {name: basis.measured(sums[name], len(inputs), count) for name, basis in bases.items()}


class _Basis:
    """The eigenvectors of one entry of `factors`."""

    def __init__(self, name, factors, params):
        self.factors, self.parts = factors, (name,)
        if not isinstance(factors, Diagonal):
            ends = [f"{name}.{end}" for end in ("weight", "bias")]
            self.parts = tuple(part for part in ends if part in params)
        if not self.parts or self.parts[0] not in params:
            check.reject("factors", name, f"layers and parameters of the model: {list(params)}")
        self._like = params[self.parts[0]]
        pairs = [_eigen(side) for side in factors]
        self._values = [values for values, _ in pairs]
        self._vectors = [None if v is None else v.to(self._like) for _, v in pairs]
        matrix = self._matrix(*(params[part] for part in self.parts))
        sides = tuple(matrix.shape) if len(factors) == 2 else (matrix.numel(),)
        if sides != tuple(values.numel() for values in self._values):
            found = f"factors of {name} of sizes {[len(side) for side in factors]}"
            check.reject("factors", found, f"of the layer's {tuple(matrix.shape)}")

    def sums(self):
        """Return zeros for what is summed up."""
        names = ("gradient", "squares", "curvature")
        shape = self._kronecker().shape
        return {n: torch.zeros(shape, dtype=torch.float64, device=self._like.device) for n in names}

    def along(self, grads):
        """Return gradients of examples, shape (n, ...), along all directions."""
        along = vmap(self._matrix)(*(grads[part] for part in self.parts))
        if len(self._vectors) == 2:
            left, right = self._vectors
            along = along if left is None else left.mT @ along
            along = along if right is None else along @ right
        return along.double()

    def measured(self, sums, examples, count):
        """Return the `Directions` of sums over examples."""
        mean = sums["gradient"] / examples
        noise = (sums["squares"] / examples - mean.square()).clamp(min=0)
        found = self._kronecker(), sums["curvature"] / count, noise, mean
        return Directions(*(tensor.cpu().numpy() for tensor in found))

    def _matrix(self, *parts):
        return parts[0] if isinstance(self.factors, Diagonal) else as_matrix(self.factors, *parts)

    def _kronecker(self):
        return torch.outer(*self._values) if len(self._values) == 2 else self._values[0]


def _eigen(side):
    """Return eigenvalues and eigenvectors of a factor, None for coordinates."""
    side = side.double()
    return torch.linalg.eigh(side) if side.ndim == 2 else (side, None)


def _projected(bases, model, params, inputs, slopes):
    """Yield each name, and the examples' gradients along its directions."""
    grads = gradients_from_slopes(model, params, inputs, slopes)
    for name, basis in bases.items():
        yield name, basis.along(grads)
