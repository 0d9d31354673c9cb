"""Schedules of equal noise, as `batchscaling.noise` writes them, for the training of networks."""

from bisect import bisect_right
from itertools import accumulate

from batchscaling import _validation as check
from batchscaling.noise import Phase
from batchscaling.training.schedules import BatchSizes, Schedule


def from_phases(phases, examples):
    """Return the batch sizes and the learning-rate schedule that follow the given phases.

    They go to `train` as ``batch_size`` and ``schedule``, with the first phase's ``lr`` and the
    momentum as the trials' hyperparameters, and ``max_steps=batch_sizes.steps``.

    Parameters
    ----------
    phases : sequence of Phase
        With integer batch sizes, and one momentum: a trial has the same momentum in all steps.
    examples : int
        Training examples, at least 1.

    Returns
    -------
    batch_sizes : BatchSizes
        With the whole steps of `BatchSizes.of_epochs`.
    schedule : Schedule
        Its factor is each phase's rate over the first one's, changed at the phase's first step.

    Raises
    ------
    ValueError
        If an argument is out of its range.
    """
    phases = tuple(phases) if isinstance(phases, (tuple, list)) else ()
    if not phases or not all(isinstance(phase, Phase) for phase in phases):
        check.reject("phases", phases, "a non-empty sequence of Phase")
    if len({phase.momentum for phase in phases}) > 1:
        check.reject("phases", phases, "phases with one momentum")
    for i, phase in enumerate(phases):
        check.integer(f"phases[{i}].batch_size", phase.batch_size, 1)
    sizes = BatchSizes.of_epochs(examples, [(p.epochs, p.batch_size) for p in phases])
    ends = list(accumulate(steps for steps, _ in sizes.pieces))
    factors = [phase.lr / phases[0].lr for phase in phases]
    # Beyond the last step, where nothing is trained, the last rate stays.
    factors.append(factors[-1])
    return sizes, Schedule(lambda step, hyper: factors[bisect_right(ends, step)], {})
