"""What tells runs from others, in words and digests: processes and checkpoints compare it.

A method is known by what it makes of fixed numbers. These go through it in double precision and
are rounded to single, so that machines that round otherwise agree.
"""

import hashlib
import math

import torch
from torch.utils._pytree import tree_flatten, tree_map

from batchscaling.training.data import generator
from batchscaling.training.models.taps import Diagonal, Kronecker, as_matrix, layer_moments
from batchscaling.training.optimizers.base import AnotherBatch, Taken

STEPS = 2
"""Of an optimizer. In the second its state counts, which may be zero in the first."""

_GOLDEN = (5**0.5 - 1) / 2


def fingerprint(data, model, optimizer, trials, *, loss, schedule, exchange, hyper, max_steps):
    """Return what tells a run from others: hyperparameters, and digests of the rest.

    Parameters
    ----------
    data, model, optimizer, trials, loss, schedule, exchange, max_steps
        As for `train_distributed`.
    hyper : dict of torch.Tensor, each of shape (trials,)
        The same as in `trials`, on the device of the training.

    Returns
    -------
    dict of str to what JSON knows
    """
    start = model.init(generator(int(trials.seeds[0]), "init"))
    parts = [data.train_inputs, data.train_labels, data.validation_inputs, data.validation_labels]
    hyper = {name: values.double() for name, values in hyper.items()}
    device = hyper["lr"].device
    two = data.validation_inputs[[0, -1]].to(device), data.validation_labels[[0, -1]].to(device)
    params = {name: p.to(device) for name, p in start.items()}
    examples = data.validation_inputs[: model.ghost_size].to(device)
    return {
        "workers": exchange.workers,
        "exchange": exchange.name,
        "seeds": trials.seeds.tolist(),
        **{name: values.tolist() for name, values in sorted(trials.hyper.items())},
        "data (digest)": _digest(parts),
        "augmentation (digest)": augmentation_digest(data),
        "initial parameters (digest)": _digest(start.values()),
        "outputs (digest)": _of_outputs(model, params, examples),
        "ghost batch": model.ghost_size,
        "optimizer (digest)": _of_optimizer(optimizer, model, params, two[0]),
        "loss (digest)": _of_loss(loss, model, params, *two),
        "schedule (digest)": schedule_digest(schedule, hyper, range(max_steps)),
    }


def augmentation_digest(data):
    """Return the digest of what augmentation makes of the first images; empty without one."""
    if data.augment is None:
        return ""
    images = data.train_inputs[:64]
    drawn = data.augment.draw(generator(0, "augment"), len(images))
    return _digest([_rounded(_sum(data.augment.apply(images, drawn.to(images.device)))[None])])


def schedule_digest(schedule, hyper, steps):
    """Return the digest of a schedule's factors in some steps; `hyper` is in double precision."""
    count = max(map(len, hyper.values()), default=1)
    like = next(iter(hyper.values()), torch.empty(0, dtype=torch.double))
    factors = like.new_empty(len(steps), count)
    for place, step in enumerate(steps):
        factors[place] = schedule.factor(step, hyper)
    return _digest([_rounded(factors)])


def _of_optimizer(optimizer, model, params, inputs):
    """Return the digest of its first steps, with fixed gradients and hyperparameters."""
    moments = _moments(model, params, inputs) if optimizer.looks else None
    params = {name: p.double() for name, p in params.items()}
    names = sorted(optimizer.hyper)
    # Numbers that all methods take, and at which none is another: no momentum is zero.
    numbers = 0.3 + 0.4 * _numbers((len(names),), inputs)
    sums = _sums_of_steps(optimizer, params, dict(zip(names, numbers, strict=True)), moments)
    looks = [(look.every, look.fisher) for look in optimizer.looks]
    outcomes = [outcome.every for outcome in optimizer.outcomes]
    return _digest([_rounded(sums)], optimizer.shared_draw, looks, outcomes)


@torch.no_grad()
def _sums_of_steps(optimizer, params, hyper, moments):
    """Return weighted sums of all that an optimizer makes of fixed gradients."""
    rng, state, sums = generator(0, "optimizer"), optimizer.init(params), []
    for step in range(STEPS):
        slope, grads = (
            {name: _numbers(p.shape, p, first) - 0.5 for name, p in params.items()}
            for first in (2 * step, 2 * step + 1)
        )
        point = params
        if optimizer.query is not None:
            drawn = () if optimizer.draw is None else optimizer.draw(rng, params, 2)
            point = optimizer.query(params, state, hyper, _given(drawn, slope))
        for look in optimizer.looks:
            if step % look.every == 0:
                state = look.fold(moments, state, hyper)
        if optimizer.own is not None:
            state = optimizer.own(grads, state)
        if optimizer.query is not None and optimizer.penalty is not None:
            grads = optimizer.penalty(grads, point, hyper)
        updates, state = optimizer.update(grads, state, params, hyper)
        params = {name: p + updates[name] for name, p in params.items()}
        for outcome in optimizer.outcomes:
            if step % outcome.every == 0:
                state = outcome.fold(Taken(-hyper["lr"], grads, updates), state, hyper)
        sums += [_sum(leaf) for leaf in tree_flatten((point, params, state))[0]]
    return torch.stack(sums)


def _given(drawn, slope):
    """Return what a query gets for what was drawn; for another batch, its slope."""
    like = next(iter(slope.values()))

    def given(leaf):
        if isinstance(leaf, AnotherBatch):
            return slope
        return leaf.to(like) if leaf.is_floating_point() else leaf.to(like.device)

    return tree_map(given, drawn, is_leaf=lambda leaf: isinstance(leaf, AnotherBatch))


def _moments(model, params, inputs):
    """Return fixed moments of the model's layers."""

    def slopes(outputs):
        return [(_numbers(outputs.shape, outputs) - 0.5).to(outputs)]

    rows = {name: p[None] for name, p in params.items()}
    found = layer_moments(model, rows, inputs[None], slopes, verify=True)
    return {name: _like(moment, name, params) for name, moment in found.items()}


def _like(moment, name, params):
    """Return fixed, well-conditioned moments of the kinds of one layer's."""
    if isinstance(moment, Diagonal):
        return Diagonal(1 + _numbers(params[name].shape, params[name]))
    sides = Kronecker(*(side[0] for side in moment))
    layer = params[f"{name}.weight"], params.get(f"{name}.bias")
    numbers = [1 + _numbers((size,), layer[0]) for size in as_matrix(sides, *layer).shape]
    pairs = zip(sides, numbers, strict=True)
    return Kronecker(*(u if side.ndim == 1 else u.diag() for side, u in pairs))


@torch.no_grad()
def _of_outputs(model, params, inputs):
    """Return the digest of what the network makes of a ghost batch; empty if double is too much."""
    params = {name: p.double() for name, p in params.items()}
    try:
        outputs = model.apply(params, inputs.double() if inputs.is_floating_point() else inputs)
    except RuntimeError:
        return ""
    return _digest([_rounded(_sum(outputs)[None])])


def _of_loss(loss, model, params, inputs, labels):
    """Return the digest of the slope at fixed outputs."""
    with torch.no_grad():
        outputs = _numbers(model.apply(params, inputs).shape, inputs)
        return _digest([_rounded(_sum(loss.slope(outputs, labels))[None])])


def _numbers(shape, like, first=0):
    """Return fixed numbers between 0 and 1, in double precision, on the device of a tensor."""
    count = torch.arange(1, math.prod(shape) + 1, dtype=torch.double, device=like.device)
    return ((count + first / 3) * _GOLDEN).frac().reshape(shape)


def _sum(tensor):
    """Return a sum that changes where any number does, or two change places."""
    return (tensor.double() * _numbers(tensor.shape, tensor)).sum()


def _rounded(numbers):
    """Return numbers of double precision in single; what is zero but for rounding is zero."""
    return torch.where(numbers.abs() < 1e-12, 0.0, numbers).float()


def _digest(tensors, *words):
    digest = hashlib.sha256(repr(words).encode())
    for tensor in tensors:
        digest.update(str((tensor.dtype, tensor.shape)).encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy())
    return digest.hexdigest()[:16]
