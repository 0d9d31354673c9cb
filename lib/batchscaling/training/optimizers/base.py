"""Optimizers as pure functions, in the style of optax, and how to combine them.

``init(params)`` returns the state. ``update(grads, state, params, hyper)`` returns what is added
to the parameters, and the new state. Parameters and gradients are dicts of tensors. A state is
any nesting of dicts and tuples of tensors. `hyper` is a dict of tensors: scalars for one trial,
one entry a trial under ``torch.func.vmap``. More functions are there for methods that need
more than a gradient: where it is taken, random numbers, statistics of the layers, and what a step
did to the loss.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch

from batchscaling import _validation as check
from batchscaling.training.fisher import FISHERS

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Look:
    """A look at the layers, every so many steps.

    In step 0 and each further `every` steps, before `update`, training takes the moments of all
    layers on the step's batch, where its gradient is taken.

    Attributes
    ----------
    every : int
        At least 1.
    fold : callable
        ``fold(moments, state, hyper)`` returns the new state. `moments` is what
        `batchscaling.training.models.taps.layer_moments` returns: a `Kronecker` pair for each
        layer, a `Diagonal` for each other parameter. Moments of inputs are divided by the number
        of examples, the others by that of labels that count, so that they make the Fisher matrix
        of the mean loss of a label.
    fisher : {"sampled", "exact", "empirical"}
        The labels: drawn from the model's own distribution, as the Fisher matrix asks, with numbers
        of the trial's seed; all that there are, each with its probability, for which there is one
        backward pass for each output; or those of the data, which make another matrix.
    """

    every: int
    fold: Callable[[Mapping, Any, Tensors], Any]
    fisher: str = "sampled"

    def __post_init__(self):
        object.__setattr__(self, "every", check.integer("every", self.every, 1))
        check.one_of("fisher", self.fisher, FISHERS)


class Taken(NamedTuple):
    """A step that was taken.

    Attributes
    ----------
    change : torch.Tensor, shape ()
        The mean loss of the step's batch after it, minus that before it.
    grads : dict of torch.Tensor
        The gradient of the batch's mean loss, where the step took it.
    updates : dict of torch.Tensor
        What was added to the parameters.
    """

    change: torch.Tensor
    grads: Tensors
    updates: Tensors


@dataclass(frozen=True)
class Outcome:
    """A look at what a step did to the loss of its own batch, every so many steps.

    In step 0 and each further `every` steps, after `update`. It costs two passes forward. A worker
    takes the loss and the gradient of its own part of the batch, before workers meet. Losses are
    as they are evaluated: without smoothed labels and weight decay.

    Attributes
    ----------
    every : int
        At least 1.
    fold : callable
        ``fold(taken, state, hyper)`` returns the new state, of a step `Taken`.
    """

    every: int
    fold: Callable[[Taken, Any, Tensors], Any]

    def __post_init__(self):
        object.__setattr__(self, "every", check.integer("every", self.every, 1))


class AnotherBatch(NamedTuple):
    """What `draw` returns for the gradient of another batch: `query` gets that in its place.

    The gradient is taken at the parameters where the step begins.

    Attributes
    ----------
    places : torch.Tensor, shape (n,)
        Random numbers from 0 to below 1: places of the examples in the training data.
    """

    places: torch.Tensor


@dataclass(frozen=True)
class Optimizer:
    """An optimizer, or a part of one for `chain`, as pure functions.

    Two are enough: `sgd` and `adam` have no others. All but `draw` work under ``torch.func.vmap``.
    They depend on their arguments alone: training may record the operations of `update` and
    `query` in one step, and repeat them in others.

    Attributes
    ----------
    init : callable
        ``init(params)`` returns the state.
    update : callable
        ``update(grads, state, params, hyper)`` returns ``(updates, state)``. The learning rate
        ``hyper["lr"]`` is that of the step: a schedule's factor is in it.
    hyper : mapping of str to callable
        The hyperparameters: name, and the check ``check(name, value)`` of its values. ``"lr"`` is
        among those of a complete optimizer, and not among those of a part.
    query : callable, optional
        ``query(params, state, hyper, drawn)`` returns the point at which the step's gradient is
        taken; without it, that is `params`. As the ``query`` of `nqm.LinearMethod`.
    draw : callable, optional
        ``draw(rng, params, batch_size)`` returns the random numbers of a step, which `query` gets
        as `drawn`: tensors on the CPU in any nesting of dicts and tuples. `rng` is of the trial's
        own seed; of `params`, only names, shapes and types count. For `AnotherBatch`, `query` gets
        its gradient.
    shared_draw : bool
        Whether the workers of a trial share one draw; otherwise each has its own.
    own : callable, optional
        ``own(grads, state)`` returns the state, with what a worker keeps of its own gradient. It
        comes before `update`, which gets what the workers made of all their gradients. Without
        workers both are the same.
    penalty : callable, optional
        Of a part that adds the gradient of a penalty on the parameters, and does nothing else:
        ``penalty(grads, point, hyper)`` returns the sum. A `chain` in which some part has a `query`
        calls it where the gradient was taken, in place of the part's `update`.
    of_updates : bool
        Whether it is a part that changes updates, not gradients: a `chain` has it after a rate.
    looks : tuple of Look
        When to look at the layers, and what to do then.
    outcomes : tuple of Outcome
        When to look at what a step did, and what to do then.
    """

    init: Callable[[Tensors], Any]
    update: Callable[[Tensors, Any, Tensors, Tensors], tuple[Tensors, Any]]
    hyper: Mapping[str, Callable[[str, float], float]]
    query: Callable[[Tensors, Any, Tensors, Any], Tensors] | None = None
    draw: Callable[[torch.Generator, Tensors, int], Any] | None = None
    shared_draw: bool = False
    own: Callable[[Tensors, Any], Any] | None = None
    penalty: Callable[[Tensors, Tensors, Tensors], Tensors] | None = None
    of_updates: bool = False
    looks: tuple[Look, ...] = ()
    outcomes: tuple[Outcome, ...] = ()


def check_single(name, value, rule):
    """Check a hyperparameter, and also what it is in float32: there 0.99999999 is 1.

    Parameters
    ----------
    name : str
    value : float
    rule : callable
        Of `Optimizer.hyper`.

    Returns
    -------
    float
        `value`, as `rule` returns it.

    Raises
    ------
    ValueError
        If one of both numbers is not allowed. It names `value`.
    """
    number = rule(name, value)
    with np.errstate(over="ignore"):
        single = float(np.float32(number))
    try:
        rule(name, single)
    except ValueError as error:
        allowed = str(error).partition("allowed: ")[2]
        check.reject(name, value, f"{allowed}, also in float32, where it is {single}")
    return number


def no_state(params):
    """Return the state of a method that keeps none."""
    return {}


def zeros(params):
    """Return a dict of zeros like the parameters."""
    return {name: torch.zeros_like(param) for name, param in params.items()}


def join_hyper(argument, parts):
    """Return the hyperparameters of all `parts`; `argument` names them in the error."""
    names = [name for part in parts for name in part.hyper]
    if len(set(names)) < len(names):
        check.reject(argument, f"parts with {names}", "hyperparameters of different names")
    return {name: rule for part in parts for name, rule in part.hyper.items()}


def chain(*optimizers):
    """Return the optimizer that applies the given ones in turn.

    Each takes the result of the one before as its gradients. So ``chain(weight_decay, adam)``
    changes the gradients that Adam gets, and ``chain(adam, decoupled_weight_decay)`` changes the
    updates that Adam makes.

    The gradient is taken where the last part's query leads from where the part before it led, and
    so on from the parameters. Each part gets the numbers that it drew, and looks when it wants to.
    What a part keeps of a worker's own gradient is that of the loss, whatever its place. A penalty
    is taken where the gradient is.

    Parameters
    ----------
    *optimizers : Optimizer
        One or more, with hyperparameters of different names.

    Returns
    -------
    Optimizer
        Its state is the tuple of their states.

    Raises
    ------
    ValueError
        If there is none, one is not an `Optimizer`, two share the name of a hyperparameter, a
        penalty comes after a rate, to whose updates it would be added as if they were gradients,
        or a part that changes updates comes before a rate, or workers share the draws of one part
        and not those of another.
    """
    _check_order(optimizers)
    hyper = join_hyper("optimizers", optimizers)
    shared = {optimizer.shared_draw for optimizer in optimizers if optimizer.draw is not None}
    if len(shared) > 1:
        check.reject("optimizers", optimizers, "parts whose draws are all shared, or none of them")

    def init(params):
        return tuple(optimizer.init(params) for optimizer in optimizers)

    asks = any(optimizer.query is not None for optimizer in optimizers)

    def query(params, state, hyper, drawn):
        for optimizer, own, numbers in zip(optimizers, state, drawn, strict=True):
            if optimizer.query is not None:
                params = optimizer.query(params, own, hyper, numbers)
        return params

    def draw(rng, params, batch_size):
        return tuple(
            () if optimizer.draw is None else optimizer.draw(rng, params, batch_size)
            for optimizer in optimizers
        )

    return Optimizer(
        init,
        _update_of_parts(optimizers, asks),
        hyper,
        query=query if asks else None,
        draw=draw if asks else None,  # without a query there is nobody to use what is drawn
        shared_draw=shared == {True},
        own=_own_of_parts(optimizers),
        penalty=_penalty_of_parts(optimizers, asks),
        looks=_of_parts(optimizers, "looks"),
        outcomes=_of_parts(optimizers, "outcomes"),
    )


def _check_order(optimizers):
    """Refuse parts that would take gradients for updates, or updates for gradients."""
    if not optimizers:
        check.reject("optimizers", optimizers, "one or more")
    has_rate = False
    for i, optimizer in enumerate(optimizers):
        _require_optimizer(f"optimizers[{i}]", optimizer)
        if has_rate and optimizer.penalty is not None:
            found = f"a penalty on the parameters, with {list(optimizer.hyper)}, after a rate"
            check.reject(f"optimizers[{i}]", found, "one before it, or decoupled_weight_decay")
        if optimizer.of_updates and not has_rate:
            found = f"a part that changes updates, with {list(optimizer.hyper)}, before a rate"
            check.reject(f"optimizers[{i}]", found, "one after it")
        has_rate = has_rate or "lr" in optimizer.hyper


def _update_of_parts(optimizers, asks):
    """Return the updates of a chain's parts in turn, without penalties if it asks for a point."""

    def update(grads, state, params, hyper):
        states = []
        for optimizer, own in zip(optimizers, state, strict=True):
            if not asks or optimizer.penalty is None:
                grads, own = optimizer.update(grads, own, params, hyper)
            states.append(own)
        return grads, tuple(states)

    return update


def _own_of_parts(optimizers):
    """Return what a chain keeps of a worker's own gradient; None if no part keeps anything."""

    def own(grads, state):
        return tuple(
            mine if optimizer.own is None else optimizer.own(grads, mine)
            for optimizer, mine in zip(optimizers, state, strict=True)
        )

    return own if any(optimizer.own is not None for optimizer in optimizers) else None


def _penalty_of_parts(optimizers, asks):
    """Return the sum of penalties of a chain that asks for a point, or of penalties only."""
    found = [optimizer.penalty for optimizer in optimizers if optimizer.penalty is not None]

    def penalty(grads, point, hyper):
        for part in found:
            grads = part(grads, point, hyper)
        return grads

    return penalty if found and (asks or len(found) == len(optimizers)) else None


def _of_parts(optimizers, kind):
    """Return the looks, or outcomes, of all parts of a chain."""
    return tuple(
        _of_part(i, look) for i, part in enumerate(optimizers) for look in getattr(part, kind)
    )


def _of_part(i, look):
    """Return the look, or outcome, that changes the state of the i-th part of a chain only."""

    def fold(seen, state, hyper):
        return (*state[:i], look.fold(seen, state[i], hyper), *state[i + 1 :])

    return replace(look, fold=fold)


def fix(optimizer, **values):
    """Return the optimizer with some hyperparameters fixed, so that trials need not give them.

    ``fix(adam, beta2=0.999, epsilon=1e-8)`` leaves ``lr`` and ``beta1`` to the trials.

    Parameters
    ----------
    optimizer : Optimizer
    **values : float
        Hyperparameters of `optimizer`, the same in every step. Not ``lr``, which schedules change.

    Returns
    -------
    Optimizer

    Raises
    ------
    ValueError
        If a name is no hyperparameter of `optimizer`, or a value is not allowed.
    """
    _require_optimizer("optimizer", optimizer)
    free = set(optimizer.hyper) - {"lr"}
    if not values or not set(values) <= free:
        check.reject("values", sorted(values), f"one or more of {sorted(free)}")
    values = {name: check_single(name, v, optimizer.hyper[name]) for name, v in values.items()}

    def whole(hyper):
        # Filled on the device of the others: nothing is copied to it in every step.
        fixed = {name: torch.full_like(hyper["lr"], value) for name, value in values.items()}
        return {**hyper, **fixed}

    def update(grads, state, params, hyper):
        return optimizer.update(grads, state, params, whole(hyper))

    def query(params, state, hyper, drawn):
        return optimizer.query(params, state, whole(hyper), drawn)

    def penalty(grads, point, hyper):
        return optimizer.penalty(grads, point, whole(hyper))

    return replace(
        optimizer,
        update=update,
        hyper={name: rule for name, rule in optimizer.hyper.items() if name not in values},
        query=None if optimizer.query is None else query,
        penalty=None if optimizer.penalty is None else penalty,
        looks=tuple(_with_hyper(whole, look) for look in optimizer.looks),
        outcomes=tuple(_with_hyper(whole, outcome) for outcome in optimizer.outcomes),
    )


def with_fisher(optimizer, fisher):
    """Return the optimizer with looks at another Fisher matrix.

    ``with_fisher(kfac, "empirical")`` is K-FAC with the data's labels.

    Parameters
    ----------
    optimizer : Optimizer
        One that looks at the layers.
    fisher : {"sampled", "exact", "empirical"}
        As `Look` describes.

    Returns
    -------
    Optimizer

    Raises
    ------
    ValueError
        If `optimizer` has no looks, or `fisher` is unknown.
    """
    _require_optimizer("optimizer", optimizer)
    check.one_of("fisher", fisher, FISHERS)
    if not optimizer.looks:
        check.reject("optimizer", optimizer, "one that looks at the layers, such as kfac")
    return replace(optimizer, looks=tuple(replace(look, fisher=fisher) for look in optimizer.looks))


def _with_hyper(whole, look):
    """Return the look, or outcome, whose fold gets ``whole(hyper)``."""

    def fold(seen, state, hyper):
        return look.fold(seen, state, whole(hyper))

    return replace(look, fold=fold)


def weights_only(part):
    """Return the part restricted to weights: tensors of two or more dimensions.

    Biases, and the gains of normalisation, pass as they are. So ``weights_only(weight_decay)``
    decays no coefficients of batch normalisation [1]_.

    Parameters
    ----------
    part : Optimizer
        Of a `chain`, such as ``weight_decay``; not a complete optimizer, one with ``lr``, because
        the other tensors would move along their gradients.

    Returns
    -------
    Optimizer

    Raises
    ------
    ValueError
        If `part` is not a part.

    References
    ----------
    .. [1] Lin, Kong, Stich and Jaggi (2020), Extrapolation for large-batch training in deep
       learning, appendix.
    """
    _require_optimizer("part", part)
    if "lr" in part.hyper:
        check.reject("part", part, "a part of a chain, without the hyperparameter 'lr'")

    def weights(tensors):
        return {name: tensor for name, tensor in tensors.items() if tensor.ndim >= 2}

    def init(params):
        return part.init(weights(params))

    def update(grads, state, params, hyper):
        updates, state = part.update(weights(grads), state, weights(params), hyper)
        return {**grads, **updates}, state

    def query(params, state, hyper, drawn):
        return {**params, **part.query(weights(params), state, hyper, drawn)}

    def draw(rng, params, batch_size):
        return part.draw(rng, weights(params), batch_size)

    def own(grads, state):
        return part.own(weights(grads), state)

    def penalty(grads, point, hyper):
        return {**grads, **part.penalty(weights(grads), weights(point), hyper)}

    return replace(
        part,
        init=init,
        update=update,
        query=None if part.query is None else query,
        draw=None if part.draw is None else draw,
        own=None if part.own is None else own,
        penalty=None if part.penalty is None else penalty,
    )


def _require_optimizer(name, value):
    if not isinstance(value, Optimizer):
        check.reject(name, value, "an Optimizer such as sgd")
