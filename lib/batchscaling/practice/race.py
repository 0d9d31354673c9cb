"""A race of optimizers from the state of a run, each with its best rate."""

from functools import partial
from itertools import islice

import numpy as np

from batchscaling import _validation as check
from batchscaling._errors import InputError
from batchscaling.practice.contenders import beginnings, contenders, entered, is_own
from batchscaling.practice.contest import Race
from batchscaling.practice.examples import Examples
from batchscaling.practice.kept import check_network, copied, gradient, mean_loss
from batchscaling.practice.losses import check_loss, named
from batchscaling.practice.memory import fitting
from batchscaling.practice.options import OF_RUNS, checked
from batchscaling.practice.states import (
    buffers_kept,
    modules_held,
    random_states_kept,
    seed_all,
)
from batchscaling.practice.trial import tried
from batchscaling.training.data import batches

_POINTS = 16  # at which losses are taken, fewer in short races
_STRIDES = 4.0, 2.0  # factors that the search goes on with, one after the other
_POWERS = {"lr": 1, "damping": 2, "kl_clip": 2}  # of these factors; a clip is of squares
_CALMER = {"lr": -1, "damping": 2, "kl_clip": -2}  # powers that go where nothing diverges
_TRIED = 16  # that the search tries at most, for each hyperparameter
_TUNED = 2  # repetitions that rates are chosen by


def race(
    model,
    loss,
    data,
    optimizer,
    *,
    batch_size,
    steps=256,
    repeats=8,
    evaluated=1024,
    tolerance=0.1,
    confidence=0.95,
    seed=0,
):
    r"""Let other optimizers race with that of a run, from its present state.

    Contenders are SGD with and without momentum, Adam, and K-FAC with momentum; in a run of Adam,
    Adam with and without momentum, SGD with it, and K-FAC. K-FAC is left out where a parameter that
    is used is none of a linear layer, a convolution of images, an embedding or a normalisation, and
    so is any other kind that cannot train the network, or diverges at all rates.

    Each begins without a past: no averages, no momentum. Its learning rate, and K-FAC's damping and
    clip, are searched in repetitions of their own, by factors of four and then of two. In other
    repetitions, which the search has not seen, contenders are compared: by the steps to the same
    loss, as `contest.steps_saved` describes. The interval does not know of the luck of the search.

    A race tells about its own length. Rates that are best over few steps may be too small for many,
    and momentum needs time. So let a race be as long as what is left of the run, if that can be
    had.

    All optimizers have the same examples in the same order, and are compared on the same ones. All
    runs are of copies, as those of `branch`.

    Parameters
    ----------
    model, loss, data, optimizer
        As for `branch`.
    batch_size : int
    steps : int
        Of the race, at most 100,000.
    repeats : int
        That optimizers are compared by, from 3 to 100,000. Two more choose the rates.
    evaluated : int
        Examples that losses are compared on; they come after those of the race where the data has
        as many.
    tolerance : float
        An optimizer is worth it if it divides the steps by more than one plus this.
    confidence : float
        Of the intervals.
    seed : int
        Of the order of examples.

    Returns
    -------
    Race

    Raises
    ------
    ValueError
        If an argument is out of its range, the model cannot be copied, a batch fails or does not
        fit into memory, or the loss at the start is not finite.

    References
    ----------
    Wu et al., "Understanding short-horizon bias in stochastic meta-optimization", 2018.
    """
    check_network(model, optimizer)
    check_loss(loss)
    options = check_race(
        steps=steps,
        repeats=repeats,
        evaluated=evaluated,
        tolerance=tolerance,
        confidence=confidence,
        seed=seed,
    )
    examples = Examples(data, next(model.parameters()).device)
    batch_size = check.integer("batch_size", batch_size, 1, examples.count)
    with tried(model, optimizer, loss, examples, batch_size):
        course = _Course((model, optimizer, loss), examples, batch_size, options)
        begin, hyper, losses, left_out = course.beginnings(), {}, {}, {}
        for name in contenders(optimizer):
            try:
                hyper[name], end = _best(partial(course.end, name), begin[name])
                losses[name] = course.compared(name, hyper[name])
            except InputError as error:
                if is_own(name, optimizer):
                    raise
                end, left_out[name] = np.nan, str(error)
            if not np.isfinite(end):
                left_out.setdefault(name, "it diverges at all rates that were tried")
                hyper.pop(name, None), losses.pop(name, None)
    more = {"tolerance": options["tolerance"], "confidence": options["confidence"]}
    more |= {"left_out": left_out, "examples": course.taken}
    return Race(batch_size, course.points, losses, hyper, **more)


def check_race(**options):
    """Return options of `race`, some or all, once they are checked.

    Raises
    ------
    ValueError
        If one is out of its range, or there is none of this name.
    """
    return checked("a race", OF_RUNS, options)


def _best(loss_at, start):
    """Return the hyperparameters of the lowest loss, one factor up or down at a time, and it."""
    tried = {}

    def loss(hyper):
        key = tuple(hyper.values())
        if key not in tried and len(tried) < _TRIED * len(hyper):
            tried[key] = loss_at(hyper)
        return tried.get(key, np.inf)

    best = start
    while not np.isfinite(loss(best)) and len(tried) < _TRIED:
        best = {name: value * _STRIDES[0] ** _CALMER[name] for name, value in best.items()}
    for stride in _STRIDES:
        while True:
            factors = {name: stride ** _POWERS[name] for name in best}
            near = [
                best | {name: best[name] * k}
                for name, factor in factors.items()
                for k in (factor, 1 / factor)
            ]
            there = min((best, *near), key=loss)
            if there == best:
                break
            best = there
    return best, loss(best)


class _Course:
    """What all contenders run on; `taken` counts the examples that they took."""

    def __init__(self, run, examples, size, options):
        self._run, self._examples, self._size = run, examples, size
        self._steps = options["steps"]
        self._held = max(1, min(options["evaluated"], examples.count) // size)
        count, first = options["repeats"] + _TUNED, options["seed"]
        seeds = [count * first + number for number in range(count)]
        self._tuned, self._compared = seeds[:_TUNED], seeds[_TUNED:]
        marks = np.geomspace(1, self._steps, _POINTS).round().astype(int)
        self.points = (0, *(int(mark) for mark in np.unique(marks)))
        self.taken = 0

    def beginnings(self):
        """Return what the search of each contender begins with."""
        model, optimizer, loss = copied(*self._run)
        seed_all(self._tuned[0])
        with fitting(self._size):
            self._gradient(model, optimizer, loss, next(self._order(self._tuned[0])))
        return beginnings(optimizer)

    def end(self, name, hyper):
        """Return the mean loss at the end, over the repetitions that choose hyperparameters."""
        return np.mean([self._losses(name, hyper, seed, False)[-1] for seed in self._tuned])

    def compared(self, name, hyper):
        """Return losses at all points of the repetitions that compare."""
        return tuple(self._losses(name, hyper, seed, True) for seed in self._compared)

    def _losses(self, name, hyper, seed, everywhere):
        """Return the losses at all points, or the one at the end; infinite once it is not finite.

        Raises
        ------
        ValueError
            If memory is short.
        """
        marks = self.points if everywhere else self.points[-1:]
        with fitting(self._size), random_states_kept(*self._examples.holders):
            found = [*self._run_of(name, hyper, seed, marks)]
        return (*found, *[np.inf] * (len(marks) - len(found)))

    def _run_of(self, name, hyper, seed, marks):
        """Yield the losses at these numbers of steps, up to the first that is not finite."""
        model, own, loss = copied(*self._run)
        optimizer = entered(name, model, own, self._size, hyper)
        held = [*islice(self._order(seed), self._steps, self._steps + self._held)]
        order = self._order(seed)
        seed_all(seed)
        for step in range(self._steps + 1):
            if step in marks:
                value = self._evaluated(model, loss, held, seed)
                if step == 0 and not np.isfinite(value):
                    check.reject("loss", "not finite", "finite numbers at the start")
                yield value
                if not np.isfinite(value):
                    return
            if step < self._steps:
                self._gradient(model, optimizer, loss, next(order))
                with named("optimizer", "one that trains this network"):
                    optimizer.step()

    def _evaluated(self, model, loss, held, seed):
        holders = model, loss, *self._examples.holders
        with random_states_kept(*holders), buffers_kept([model, *modules_held(loss)]):
            seed_all(seed)
            self.taken += sum(map(len, held))
            return mean_loss(model, loss, (self._examples.batch(indices) for indices in held))

    def _gradient(self, model, optimizer, loss, indices):
        gradient(model, loss, self._examples.batch(indices), optimizer)
        self.taken += len(indices)

    def _order(self, seed):
        return batches(seed, self._examples.count, self._size)
