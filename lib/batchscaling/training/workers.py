"""Workers: several share a trial's batch, and exchange gradients or parameters.

They are simulated: a worker is a row beside those of the other workers and trials. So what is
measured is the method, not a network of machines.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from batchscaling import _validation as check

Tensors = Mapping[str, torch.Tensor]


def _keep(tensors):
    return tensors


def _same(params, step):
    return params


def _slices(tensor, workers):
    return tensor.unflatten(1, (workers, -1))


@dataclass(frozen=True)
class Exchange:
    """What workers exchange, and when. Each has parameters and an optimizer's state of its own.

    The tensors of `gradients`, `params` and `readout` have the axes (trials, workers, ...).

    Attributes
    ----------
    workers : int
        Of a trial, at least 1. Each takes its slice of the trial's batch.
    readout : callable
        ``readout(params)`` returns the parameters that are evaluated, without the axis of workers.
    gradients : callable
        ``gradients(grads)`` returns what each worker's optimizer gets.
    params : callable
        ``params(params, step)`` returns the workers' parameters after so many steps, from 1.
    split : callable
        ``split(numbers, workers)`` returns a tensor of shape (trials, workers, n / workers, ...)
        of one of shape (trials, n, ...): a batch, or changes of its examples. By default the
        first worker takes the first examples, and so on.
    """

    workers: int
    readout: Callable[[Tensors], Tensors]
    gradients: Callable[[Tensors], Tensors] = _keep
    params: Callable[[Tensors, int], Tensors] = _same
    split: Callable[[torch.Tensor, int], torch.Tensor] = _slices

    def __post_init__(self):
        object.__setattr__(self, "workers", check.integer("workers", self.workers, 1))


def first_worker(params):
    """Return the first worker's parameters, where all workers have the same."""
    return {name: p[:, 0] for name, p in params.items()}


def mean_worker(params):
    """Return the mean of all workers' parameters."""
    return {name: p.mean(1) for name, p in params.items()}


def shared_mean(tensors):
    """Return for each worker the mean over all of them."""
    return {name: t.mean(1, keepdim=True).expand_as(t) for name, t in tensors.items()}


def synchronous(workers):
    """Return the exchange in which each step takes the mean of all workers' gradients.

    It is training with the whole batch, up to rounding.

    Parameters
    ----------
    workers : int
        At least 1.

    Returns
    -------
    Exchange
    """
    return Exchange(workers, first_worker, gradients=shared_mean)


def local_steps(workers, every):
    """Return the exchange of local SGD: workers average their parameters now and then [1]_.

    Between averages each worker takes steps of its own, on its slices of the batches. Evaluated is
    the mean of the parameters. The states of optimizers stay each worker's own.

    Parameters
    ----------
    workers : int
        At least 1.
    every : int
        Steps from one average to the next, at least 1.

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
    """
    every = check.integer("every", every, 1)

    def params(params, step):
        return params if step % every else shared_mean(params)

    return Exchange(workers, mean_worker, params=params)
