"""Gradients of single examples of any module, in the geometry of a meter."""

from contextlib import contextmanager
from functools import partial

import numpy as np
import torch
from torch.func import functional_call, grad, vmap
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase

from batchscaling import _validation as check
from batchscaling.training.models.module import places

GRADIENTS = 2
"""Gradients of each example that `example_products` takes."""


def example_products(module, groups, geometry, loss, batch, chunk):
    """Return the products of gradients that `per_example_estimate` takes.

    Gradients are made in chunks, twice, and never kept all.

    Parameters
    ----------
    module : torch.nn.Module
    groups : list of dict of str to torch.nn.Parameter
    geometry : Euclidean
        Of order 2. Parameters whose weight it does not know are left out; it knows one or more.
    loss, batch, chunk
        As for `NoiseMeter.probe`; `batch` is inputs and labels.

    Returns
    -------
    norms, dots : numpy.ndarray, shape (groups + 1, n)
        The last row is the total.
    """
    groups = [{n: p for n, p in group.items() if geometry.knows(p)} for group in groups]
    every = {name: p for group in groups for name, p in group.items()}
    weights = {name: geometry.weight(p) for name, p in every.items()}
    chunks = list(zip(*(part.split(chunk) for part in batch), strict=True))
    each = _each_gradient(module, every, loss)

    def gradients():
        """Yield those of each chunk; all random numbers are the same at each call."""
        with _random_numbers_put_back(module):
            for some in chunks:
                rows = each(*some)
                yield {name: _weighted(g, weights[name]) for name, g in rows.items()}

    with _batch_norm_frozen(module):
        sums = [{name: g.sum(0) for name, g in some.items()} for some in gradients()]
        mean = {name: sum(some[name] for some in sums) / len(batch[0]) for name in every}
        parts = [_products(groups, some, mean) for some in gradients()]
    return np.concatenate(parts, axis=-1)


def _each_gradient(module, params, loss):
    """Return the function that gives each example's gradient, as a dict of rows."""
    tensor_at = dict(places(module))

    def single(changed, example, label):
        given = {id(param): changed[name] for name, param in params.items()}
        tensors = {
            place: given[id(tensor)] if id(tensor) in given else tensor.detach().clone()
            for place, tensor in tensor_at.items()
        }
        outputs = functional_call(module, tensors, (example[None],), tie_weights=False)
        return loss(outputs, label[None])

    each = vmap(grad(single), in_dims=(None, 0, 0), randomness="different")
    return partial(each, {name: param.detach() for name, param in params.items()})


def _weighted(rows, weight):
    return (rows if weight is None else rows * weight).flatten(1).double()


def _products(groups, rows, mean):
    """Return squared norms, and products with the mean, of the groups and of all."""
    found = np.zeros((2, len(groups) + 1, len(next(iter(rows.values())))))
    for number, group in enumerate(groups):
        for name in group:
            products = rows[name].square().sum(1), rows[name] @ mean[name]
            found[:, number] += torch.stack(products).cpu().numpy()
    found[:, -1] = found.sum(axis=1)
    return found


@contextmanager
def _random_numbers_put_back(module):
    cuda = {p.device.index for p in module.parameters() if p.device.type == "cuda"}
    with torch.random.fork_rng(devices=cuda):
        yield


@contextmanager
def _batch_norm_frozen(module):
    """Let layers that gather statistics of a batch use those that they have."""
    changed = []
    for name, layer in module.named_modules():
        if isinstance(layer, _BatchNorm) and layer.running_mean is None:
            allowed = "one whose examples do not meet"
            check.reject("model", f"with batch statistics in the layer {name!r}", allowed)
        if isinstance(layer, _NormBase) and layer.running_mean is not None and layer.training:
            changed.append(layer)
    for layer in changed:
        layer.training = False
    try:
        yield
    finally:
        for layer in changed:
            layer.training = True
