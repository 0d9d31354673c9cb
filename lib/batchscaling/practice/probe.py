"""Gradients of single examples of any module, in the geometry of a meter."""

import random
from collections import OrderedDict
from contextlib import contextmanager, nullcontext
from functools import partial

import numpy as np
import torch
from torch.func import functional_call, grad, vmap
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase
from torch.utils._pytree import tree_leaves, tree_map

from batchscaling import _validation as check
from batchscaling.practice.geometry import as_real
from batchscaling.practice.losses import named, value
from batchscaling.practice.states import (
    buffers_kept,
    modules_held,
    own_generators,
    random_states_kept,
    state_of,
)
from batchscaling.practice.taps import is_of_meter
from batchscaling.training.models.module import places
from batchscaling.training.models.module_checks import same

_COMPARED = 8  # chunks of examples whose losses are compared with that of all of them
_SAME = 1e-2  # relative difference that rounding may make, in half precision

GRADIENTS = 2
"""Gradients of each example that `example_products` takes."""


def example_products(module, groups, geometry, loss, batch, chunk):
    """Return the products of gradients that `per_example_estimate` takes.

    Gradients are made in chunks, twice, and never kept all. Where random numbers of Python or
    numpy are drawn, a chunk is one example. Where `torch.func` cannot take the gradients of a
    chunk together, they are taken one after the other.

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
    single = _single(module, every, loss)
    values = {name: param.detach() for name, param in every.items()}

    def gradients():
        """Yield those of each chunk; all random numbers are the same at each call."""
        with _start_kept(module, loss):
            for some in zip(*(part.split(chunk) for part in batch), strict=True):
                rows = each(values, *some)
                yield {name: _weighted(g, weights[name]) for name, g in rows.items()}

    with torch.no_grad(), _attributes_kept(module, loss):
        _freeze_batch_norm(module)
        with _start_kept(module, loss):
            if _check_alone(single, every, batch, (module, loss)):
                chunk = 1  # examples of one chunk would share the numbers
        with _start_kept(module, loss):
            _check_alike(module, loss, *(_spread(part, _COMPARED * chunk) for part in batch))
        with _start_kept(module, loss):
            _check_hooks(every)
        with _start_kept(module, loss):
            each = _each(single, values, batch, loss)
        sums = [{name: g.sum(0) for name, g in some.items()} for some in gradients()]
        mean = {name: sum(some[name] for some in sums) / len(batch[0]) for name in every}
        parts = [_products(groups, some, mean) for some in gradients()]
    return np.concatenate(parts, axis=-1)


def _single(module, params, loss):
    """Return the loss of one example as a function of the parameters."""
    call = _call(module)

    def single(changed, example, label, told=nullcontext):
        given = {id(param): changed[name] for name, param in params.items()}
        with told("model"):
            outputs = call(given, example[None])
        with told("loss"):
            return value(loss, outputs, label[None])

    return single


def _call(module):
    """Return the module as a function of parameters, by their identity, and inputs."""
    tensor_at = dict(places(module))

    def call(given, inputs):
        tensors = {
            place: given[id(tensor)] if id(tensor) in given else tensor.detach().clone()
            for place, tensor in tensor_at.items()
        }
        return functional_call(module, tensors, (inputs,), tie_weights=False)

    return call


def _each(single, values, batch, loss):
    """Return the function of parameters and examples that takes the gradient of each."""
    together = vmap(grad(single), in_dims=(None, 0, 0), randomness="different")
    try:
        together(values, *(part[:2] for part in batch))
    except Exception:  # torch has many kinds of them for what it cannot do; or memory is short
        return partial(_one_by_one, single, modules_held(loss))
    return together


def _one_by_one(single, of_loss, values, inputs, labels):
    """Return the gradient of each example, as if `torch.func` had taken all of them together."""
    rows = []
    for example, label in zip(inputs, labels, strict=True):
        with buffers_kept(of_loss):  # no example sees what another one left there
            rows.append(_gradient(single, values, example, label))
    return {name: torch.stack([row[name] for row in rows]) for name in values}


def _gradient(single, params, example, label):
    """Return the gradient of one example by name, zero where there is none."""
    with torch.inference_mode(False), torch.enable_grad():
        values = {n: param.detach().clone().requires_grad_() for n, param in params.items()}
        found = single(values, example.clone(), label.clone())
        slopes = torch.autograd.grad(found, list(values.values()), materialize_grads=True)
    return {name: slope.to_dense() for name, slope in zip(values, slopes, strict=True)}


def _check_alone(single, params, batch, holders):
    """Check that the loss sees parameters by the outputs only; a probe would miss all else.

    Returns
    -------
    bool
        Whether the loss of one example draws random numbers of Python or numpy.
    """
    before = _other_random_states(holders)
    with torch.inference_mode(False), torch.enable_grad():
        values = {n: param.detach().clone().requires_grad_() for n, param in params.items()}
        told = partial(named, allowed="one that works with an example alone")
        found = single(values, *(part[0].clone() for part in batch), told)
        slopes = torch.autograd.grad(found, list(params.values()), allow_unused=True)
        for name, slope in zip(params, slopes):
            if slope is not None:
                found = f"one that depends on {name!r} otherwise than by the outputs"
                check.reject("loss", found, "one that sees the network by its outputs only")
    return before != _other_random_states(holders)


def _check_alike(module, loss, inputs, labels):
    """Check that the loss of a batch is the mean of those of its examples, if they can be told."""
    outputs = _call(module)({}, inputs)
    leaves = tree_leaves(outputs)
    if not all(isinstance(x, torch.Tensor) and x.ndim and len(x) == len(labels) for x in leaves):
        return
    rows = [tree_map(lambda leaf, k=k: leaf[k : k + 1], outputs) for k in range(len(labels))]
    held = [buffer for part in modules_held(loss) for buffer in part.buffers()]
    before = [buffer.clone() for buffer in held]
    with named("loss", "one that works with an example alone"):
        alone = [float(value(loss, row, label[None])) for row, label in zip(rows, labels)]
        whole, mean = float(value(loss, outputs, labels)), float(np.mean(alone))
    if not all(map(same, held, before)):
        return  # what it has seen counts, so the mean may be another one
    alike = abs(whole - mean) <= _SAME * max(abs(whole), abs(mean))
    if np.isfinite(whole) and not alike:
        allowed = "a mean in which all examples weigh alike, for gradients of single ones"
        check.reject("loss", "one in which examples weigh differently", allowed)


def _spread(rows, count):
    """Return so many rows or fewer, from all over: the first ones may be of one class."""
    places = torch.linspace(0, len(rows) - 1, min(count, len(rows)))
    return rows[places.round().long()]


def _check_hooks(params):
    """Check that no hook changes a gradient: single ones would go without it."""
    for name, param in params.items():
        for hook in (param._backward_hooks or {}).values():
            if is_of_meter(hook):
                continue
            grad = torch.ones_like(param) + param
            given = grad.clone()
            with named("model", "one whose hooks take the gradient of an example"):
                changed = hook(given)
            if not same(given if changed is None else changed, grad):
                found = f"one with a hook that changes the gradient of {name!r}"
                check.reject("model", found, "one without, for the gradients of single examples")


def _other_random_states(holders):
    """Return the states of all generators but torch's."""
    numpys = np.random.get_state()
    own = [g for g in own_generators(*holders) if not isinstance(g, torch.Generator)]
    return random.getstate(), numpys[1].tolist(), numpys[2:], [str(state_of(g)) for g in own]


def _weighted(rows, weight):
    rows = as_real(rows)
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
def _start_kept(module, loss):
    """Put back random numbers and buffers of the loss, so that the next pass begins as this one."""
    with random_states_kept(module, loss), buffers_kept(modules_held(loss)):
        yield


@contextmanager
def _attributes_kept(module, loss):
    """Put back the attributes of modules, and what lists and dicts hold."""
    kept = []
    for layer in (layer for part in (module, *modules_held(loss)) for layer in part.modules()):
        for held in (vars(layer), *vars(layer).values()):
            if type(held) in (dict, OrderedDict, list):
                kept.append((held, held.copy()))
    try:
        yield
    finally:
        for held, before in kept:
            held.clear()
            (held.extend if isinstance(held, list) else held.update)(before)


def _freeze_batch_norm(module):
    """Let layers that gather statistics of a batch use those that they have."""
    for name, layer in module.named_modules():
        if isinstance(layer, _BatchNorm) and layer.running_mean is None:
            allowed = "one whose examples do not meet"
            check.reject("model", f"with batch statistics in the layer {name!r}", allowed)
        if isinstance(layer, _NormBase) and layer.running_mean is not None:
            layer.training = False
