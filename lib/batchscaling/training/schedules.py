"""Learning rates and batch sizes that change during training.

A learning-rate schedule is a factor of each trial's own rate ``lr``. A batch-size schedule is one
sequence of batch sizes for all trials of a program.
"""

import math
from bisect import bisect_right
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate, pairwise

from batchscaling import _validation as check
from batchscaling.noise.schedules import steps_of_epochs
from batchscaling.training.optimizers.base import join_hyper

SCHEDULED = ("lr", "extrapolation")
"""The hyperparameters that a schedule multiplies: rates, and lengths along a gradient, which are
short or long beside a rate."""


@dataclass(frozen=True)
class Schedule:
    """A learning-rate schedule.

    Attributes
    ----------
    factor : callable
        ``factor(step, hyper)`` returns what multiplies ``lr`` in that step, counted from 0, and
        ``extrapolation`` where an optimizer has one: a float, or a tensor with one entry a trial.
        `hyper` is a dict of such tensors.
    hyper : mapping of str to callable
        The schedule's own hyperparameters: name, and the check ``check(name, value)``.
    """

    factor: Callable
    hyper: Mapping[str, Callable]


def _linear_decay(step, hyper):
    done = (step / hyper["decay_steps"]).clamp(max=1)
    return 1 - (1 - hyper["final_fraction"]) * done


constant = Schedule(lambda step, hyper: 1.0, {})
"""The same rate in every step."""

linear_decay = Schedule(
    _linear_decay,
    {"decay_steps": check.positive, "final_fraction": partial(check.real, low=0, high=1)},
)
"""The factor falls along a line from 1 at step 0 to final_fraction at step decay_steps, and stays.

Both are hyperparameters of each trial. Zhang et al. (2019), appendix E.3.
"""


def step_drops(steps, factor):
    """Return the schedule that multiplies the rate by `factor` at each of the given steps.

    For drops at given epochs, `BatchSizes.steps_for` says which steps these are.

    Parameters
    ----------
    steps : sequence of int
        The first step of each new rate; increasing, the first at least 1.
    factor : float
        Above 0 and at most 1.

    Returns
    -------
    Schedule

    Raises
    ------
    ValueError
        If an argument is outside its range.
    """
    drops = [
        check.integer(f"steps[{i}]", step, 1) for i, step in enumerate(_sequence("steps", steps))
    ]
    if any(later <= earlier for earlier, later in pairwise(drops)):
        check.reject("steps", steps, "increasing steps")
    factor = check.real("factor", factor, 0, 1, low_open=True)
    return Schedule(lambda step, hyper: factor ** bisect_right(drops, step), {})


def linear_scaling(batch_size, *, reference, warm_up=0):
    """Return the schedule that scales the rate with the batch size, after a warm-up.

    Each trial's ``lr`` is then its rate at batch size `reference`. The factor rises along a line
    from 1 at step 0 to ``batch_size / reference`` at step `warm_up`, and stays [1]_. A batch size
    below the reference has its smaller factor from the start.

    Parameters
    ----------
    batch_size, reference : int
        Positive.
    warm_up : int
        Steps of the warm-up. Goyal et al. take those of 5 epochs.

    Returns
    -------
    Schedule

    Raises
    ------
    ValueError
        If an argument is outside its range.

    References
    ----------
    .. [1] Goyal, Dollár, Girshick et al. (2017), Accurate, large minibatch SGD: training ImageNet
       in 1 hour, sections 2.1 and 2.2.
    """
    scale = check.integer("batch_size", batch_size, 1) / check.integer("reference", reference, 1)
    warm_up = check.integer("warm_up", warm_up, 0)

    def factor(step, hyper):
        return scale if step >= warm_up or scale < 1 else 1 + (scale - 1) * step / warm_up

    return Schedule(factor, {})


def multiply_schedules(*schedules):
    """Return the schedule whose factor is the product of the factors of the given ones.

    For example, `linear_scaling` with a warm-up times `step_drops` first warms up and later drops.

    Parameters
    ----------
    *schedules : Schedule
        One or more, with hyperparameters of different names.

    Returns
    -------
    Schedule

    Raises
    ------
    ValueError
        If there is none, one is not a `Schedule`, or two share the name of a hyperparameter.
    """
    if not schedules:
        check.reject("schedules", schedules, "one or more")
    for i, schedule in enumerate(schedules):
        if not isinstance(schedule, Schedule):
            check.reject(f"schedules[{i}]", schedule, "a Schedule such as linear_decay")

    def factor(step, hyper):
        return math.prod(schedule.factor(step, hyper) for schedule in schedules)

    return Schedule(factor, join_hyper("schedules", schedules))


@dataclass(frozen=True)
class BatchSizes:
    """A batch-size schedule: so many steps of one batch size, then of the next, and so on.

    Parameters
    ----------
    pieces : sequence of (int, int)
        Number of steps and batch size of each piece, each at least 1.

    Attributes
    ----------
    pieces : tuple of (int, int)
    steps : int
        Steps of the whole schedule.

    Raises
    ------
    ValueError
        If there is no piece, or a number is outside its range.
    """

    pieces: tuple
    steps: int = field(init=False, repr=False)

    def __post_init__(self):
        pieces = []
        for i, (steps, batch_size) in enumerate(_pairs("pieces", self.pieces)):
            steps = check.integer(f"pieces[{i}][0]", steps, 1)
            pieces.append((steps, check.integer(f"pieces[{i}][1]", batch_size, 1)))
        object.__setattr__(self, "pieces", tuple(pieces))
        object.__setattr__(self, "steps", sum(steps for steps, _ in pieces))

    @classmethod
    def of_epochs(cls, examples, pieces):
        """Return the schedule whose pieces are given in epochs.

        A piece ends with the step that uses up its last epoch. What this step takes too much is
        the next piece's.

        Parameters
        ----------
        examples : int
            Training examples, at least 1.
        pieces : sequence of (float, int)
            Number of epochs and batch size of each piece; positive. A part of an epoch is
            rounded to whole examples.

        Returns
        -------
        BatchSizes

        Raises
        ------
        ValueError
            If a number is outside its range, or a piece is so short that no step is left to it.
        """
        examples = check.integer("examples", examples, 1)
        pairs = [
            (
                check.positive(f"pieces[{i}][0]", epochs),
                check.integer(f"pieces[{i}][1]", batch_size, 1),
            )
            for i, (epochs, batch_size) in enumerate(_pairs("pieces", pieces))
        ]
        steps = steps_of_epochs(pairs, examples, "pieces[{}][0]")
        return cls([(count, size) for count, (_, size) in zip(steps, pairs, strict=True)])

    def __iter__(self):
        """Yield the batch size of each step."""
        return (size for steps, size in self.pieces for _ in range(steps))

    def at(self, step):
        """Return the batch size of a step, counted from 0 and below `steps`."""
        step = check.integer("step", step, 0, self.steps - 1)
        ends = list(accumulate(steps for steps, _ in self.pieces))
        return self.pieces[bisect_right(ends, step)][1]

    def examples(self, step):
        """Return the examples that the first `step` steps use; `step` is at most `steps`."""
        left, used = check.integer("step", step, 0, self.steps), 0
        for steps, batch_size in self.pieces:
            used += min(left, steps) * batch_size
            left -= min(left, steps)
        return used

    def steps_for(self, examples):
        """Return the fewest steps that use at least so many examples.

        Raises
        ------
        ValueError
            If `examples` is not an integer from 1 to what all steps use.
        """
        left, taken = check.integer("examples", examples, 1, self.examples(self.steps)), 0
        for steps, batch_size in self.pieces:
            more = min(steps, -(-left // batch_size))
            taken += more
            left = max(left - more * batch_size, 0)
        return taken


def _sequence(name, value):
    """Return a non-empty sequence as a list."""
    try:
        items = list(value)
    except TypeError:
        items = []
    if not items:
        check.reject(name, value, "a non-empty sequence")
    return items


def _pairs(name, value):
    """Return a non-empty sequence of pairs as a list."""
    pairs = [_sequence(f"{name}[{i}]", pair) for i, pair in enumerate(_sequence(name, value))]
    for i, pair in enumerate(pairs):
        if len(pair) != 2:
            check.reject(f"{name}[{i}]", pair, "two numbers")
    return pairs
