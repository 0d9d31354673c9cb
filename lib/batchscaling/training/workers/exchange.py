"""What several workers that share a trial's batch exchange, gradients or parameters, and when.

All of it is means. So one `Exchange` serves simulated workers, each a row beside those of the other
workers and trials, and workers that are processes of their own.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch

from batchscaling import _validation as check
from batchscaling.training.rows import column

Tensors = Mapping[str, torch.Tensor]
Mean = Callable[[Tensors], Tensors]


def _keep(grads, step, mean):
    return grads


def _no_state(params):
    return {}


def _same(params, state, hyper, step, mean):
    return params, state


def _slices(tensor, workers):
    return tensor.unflatten(1, (workers, -1))


@dataclass(frozen=True)
class Exchange:
    """What workers exchange, and when. Each has parameters and an optimizer's state of its own.

    All tensors have the axes (trials, workers, ...), also those of states and hyperparameters.
    Workers that run elsewhere are not on them: only ``mean(tensors)`` knows these. It takes a dict
    of tensors, and returns for each worker here the mean over all workers. Steps count from 1.

    Attributes
    ----------
    workers : int
        Of a trial, at least 1. Each takes its slice of the trial's batch.
    readout : callable
        ``readout(params, mean)`` returns the parameters that are evaluated, without the axis of
        workers.
    gradients : callable
        ``gradients(grads, step, mean)`` returns what each worker's optimizer gets.
    params : callable
        ``params(params, state, hyper, step, mean)`` returns the workers' parameters after a step,
        and the new state. `state` is the exchange's own, not the optimizer's.
    init : callable
        ``init(params)`` returns the first state: any nesting of dicts and tuples of tensors.
    hyper : mapping of str to callable
        The hyperparameters that a trial has beside the optimizer's, as in `Optimizer`.
    split : callable
        ``split(numbers, workers)`` returns a tensor of shape (trials, workers, n / workers, ...)
        of one of shape (trials, n, ...): a batch, or changes of its examples. By default the
        first worker takes the first examples, and so on.
    name : str
        What it is, with its settings: processes compare theirs.
    """

    workers: int
    readout: Callable[[Tensors, Mean], Tensors]
    gradients: Callable[[Tensors, int, Mean], Tensors] = _keep
    params: Callable[[Tensors, Any, Tensors, int, Mean], tuple[Tensors, Any]] = _same
    init: Callable[[Tensors], Any] = _no_state
    hyper: Mapping[str, Callable[[str, float], float]] = field(default_factory=dict)
    split: Callable[[torch.Tensor, int], torch.Tensor] = _slices
    name: str = ""

    def __post_init__(self):
        object.__setattr__(self, "workers", check.integer("workers", self.workers, 1))


def first_worker(params, mean):
    """Return a worker's parameters, where all workers have the same."""
    return {name: p[:, 0] for name, p in params.items()}


def mean_worker(params, mean):
    """Return the mean of all workers' parameters."""
    return first_worker(mean(params), mean)


def shared_mean(tensors):
    """Return for each worker the mean over all of them, where all are here."""
    return {name: t.mean(1, keepdim=True).expand_as(t) for name, t in tensors.items()}


class Held(NamedTuple):
    """Which of a trial's workers are here, and the mean over all, as an `Exchange` wants it.

    Attributes
    ----------
    workers : slice
    mean : callable
        The default is `shared_mean`, for all workers.
    """

    workers: slice = slice(None)
    mean: Mean = shared_mean


ALL_HELD = Held()
"""All workers are here."""


def synchronous(workers):
    """Return the exchange in which each step takes the mean of all workers' gradients.

    It is training with the whole batch, up to rounding, where all slices have as many labels that
    count. A slice with fewer weighs as much as the others, as in data-parallel training.

    Parameters
    ----------
    workers : int
        At least 1.

    Returns
    -------
    Exchange
    """
    return Exchange(
        workers, first_worker, gradients=lambda grads, step, mean: mean(grads), name="synchronous"
    )


def local_steps(workers, every, *, after=0):
    """Return the exchange of local SGD: workers average their parameters now and then [1]_.

    Between averages each worker takes steps of its own, on its slices of the batches. Evaluated is
    the mean of the parameters. The states of optimizers stay each worker's own: after an average
    all have the same parameters, but velocities that differ.

    With `after`, it is post-local SGD [2]_: `synchronous` at first, local steps later.

    Parameters
    ----------
    workers : int
        At least 1.
    every : int
        Steps from one average to the next, at least 1.
    after : int
        Steps that are synchronous, 0 or more.

    Returns
    -------
    Exchange

    Raises
    ------
    ValueError
        If an argument is outside its range.

    References
    ----------
    .. [1] Stich (2019), Local SGD converges fast and communicates little.
    .. [2] Lin, Stich, Patel and Jaggi (2020), Don't use large mini-batches, use local SGD.
    """
    every, after = check.integer("every", every, 1), check.integer("after", after, 0)

    def gradients(grads, step, mean):
        return grads if step > after else mean(grads)

    def params(params, state, hyper, step, mean):
        meet = step > after and (step - after) % every == 0
        return (mean(params) if meet else params), state

    name = f"local_steps(every={every}, after={after})"
    return Exchange(workers, mean_worker, gradients=gradients, params=params, name=name)


def outer_steps(workers, every):
    """Return the exchange in which an outer optimizer moves to where local steps have led.

    Every so many steps, the way from the last meeting to the mean of the workers is taken as if it
    were a gradient, by Nesterov momentum as in ``torch.optim.SGD``; all workers go on from there.
    The states of their own optimizers stay each worker's own. Evaluated is the mean of the
    parameters, also between two meetings.

    Trials have the hyperparameters ``outer_lr`` and ``outer_momentum``. With Adam and weight decay
    inside, it is DiLoCo [1]_; with one worker and no outer momentum, Lookahead [2]_; with the outer
    rate 1 and no outer momentum, `local_steps`.

    Parameters
    ----------
    workers : int
        At least 1.
    every : int
        Steps from one meeting to the next, at least 1.

    Returns
    -------
    Exchange

    Raises
    ------
    ValueError
        If an argument is outside its range.

    References
    ----------
    .. [1] Douillard et al. (2023), DiLoCo: distributed low-communication training of language
       models.
    .. [2] Zhang, Lucas, Hinton and Ba (2019), Lookahead optimizer: k steps forward, 1 step back.
    """
    every = check.integer("every", every, 1)

    def init(params):
        return {
            "start": {name: p.clone() for name, p in params.items()},
            "velocity": {name: torch.zeros_like(p) for name, p in params.items()},
        }

    def params(params, state, hyper, step, mean):
        if step % every:
            return params, state
        led, velocity, start = mean(params), {}, {}
        for name, old in state["start"].items():
            momentum, rate = (column(hyper[f"outer_{n}"], old) for n in ("momentum", "lr"))
            way = old - led[name]
            velocity[name] = momentum * state["velocity"][name] + way
            start[name] = old - rate * (way + momentum * velocity[name])
        # The workers change their parameters in place.
        own = {name: p.clone() for name, p in start.items()}
        return own, {"start": start, "velocity": velocity}

    rules = {"outer_lr": check.positive, "outer_momentum": check.below_one}
    name = f"outer_steps(every={every})"
    return Exchange(workers, mean_worker, params=params, init=init, hyper=rules, name=name)
