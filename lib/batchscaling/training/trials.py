"""Trials, what was measured on them, and the best setting among them.

A trial is one training run: a seed and a value of every hyperparameter.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product

import numpy as np

from batchscaling import _validation as check
from batchscaling.curves import first_crossing


@dataclass(frozen=True)
class Trials:
    """A list of trials, one entry of every array a trial.

    Attributes
    ----------
    seeds : numpy.ndarray of int, shape (trials,)
        Each seed fixes its trial's initial parameters and data order.
    hyper : mapping of str to numpy.ndarray, each of shape (trials,)
        The hyperparameters.
    """

    seeds: np.ndarray
    hyper: Mapping[str, np.ndarray]

    def __post_init__(self):
        # Ranges and lengths are for `train` to check: it knows whose the hyperparameters are.
        if not isinstance(self.hyper, Mapping):
            check.reject("hyper", self.hyper, "a mapping of names to arrays")
        if np.ma.is_masked(self.seeds) or check.dimensions(self.seeds) != 1:
            check.reject("seeds", self.seeds, "a sequence of integers")
        hyper = {name: _column(name, values).copy() for name, values in self.hyper.items()}
        check.store(self, seeds=np.asarray(self.seeds), hyper=hyper)


@dataclass(frozen=True)
class TrialResults:
    """What `train` measured.

    Attributes
    ----------
    batch_size : int or BatchSizes
    trials : Trials
    steps : numpy.ndarray of int, shape (evaluations,)
        Steps at which the trials were evaluated; the first is 0.
    losses : mapping of str to numpy.ndarray, each of shape (trials, evaluations)
        Mean loss of each measure, such as "validation"; NaN after a trial's end. Where `train` was
        told not to be exact, some that are above the target are infinite, and some NaN.
    accuracy : numpy.ndarray, shape (trials, evaluations)
        Part of the validation labels that are classified correctly; NaN after a trial's end, and
        for losses that know no right and wrong.
    diverged : numpy.ndarray of bool, shape (trials,)
        Whether a loss was not finite, or above `DIVERGED` times its value at step 0.
    targets : mapping of str to float
        Loss to reach for each measure that has a target.
    """

    batch_size: object
    trials: Trials
    steps: np.ndarray
    losses: Mapping[str, np.ndarray]
    accuracy: np.ndarray
    diverged: np.ndarray
    targets: Mapping[str, float]

    @property
    def loss(self):
        """Validation loss, shape (trials, evaluations)."""
        return self.losses["validation"]

    @property
    def steps_to_target(self):
        """Steps to the target of the validation loss, shape (trials,); see `crossing`."""
        return self.crossing("validation")

    def crossing(self, measure):
        """Return for every trial the first step at which a loss is at or below its target.

        Parameters
        ----------
        measure : str
            One of `losses`.

        Returns
        -------
        numpy.ndarray of float, shape (trials,)
            ``inf`` where the target was not reached, or there is none.

        Raises
        ------
        ValueError
            If `measure` was not measured.
        """
        loss = self.losses[check.one_of("measure", measure, self.losses)]
        if measure not in self.targets:
            return np.full(len(loss), np.inf)
        return first_crossing(self.steps, loss, self.targets[measure])


@dataclass(frozen=True)
class Summary:
    """Steps to the target for every setting of the hyperparameters, over the seeds.

    Attributes
    ----------
    batch_size : int or BatchSizes
    hyper : mapping of str to numpy.ndarray, each of shape (settings,)
    median, low, high : numpy.ndarray, shape (settings,)
        Median, fewest and most steps over the seeds; ``inf`` for a trial that never arrived.
    best : int or None
        The setting with the fewest median steps; None if no setting's median is finite. Among
        equals it is the one with the fewest mean steps, then the first.
    at_border : mapping of str to bool, or None
        For each hyperparameter with more than one value: whether the best setting's value is the
        smallest or largest that was tried. Then the true best may lie outside. None if `best` is.
    """

    batch_size: object
    hyper: Mapping[str, np.ndarray]
    median: np.ndarray
    low: np.ndarray
    high: np.ndarray
    best: int | None
    at_border: Mapping[str, bool] | None


def grid(seeds, **hyper):
    """Return the trials of a full grid: every seed with every combination of hyperparameters.

    Parameters
    ----------
    seeds : sequence of int
        Zero or larger, each once.
    **hyper : number or sequence of numbers
        Values of each hyperparameter, such as ``lr=[0.1, 0.2], momentum=0.9``.

    Returns
    -------
    Trials
        The seed changes fastest, the first hyperparameter slowest.

    Raises
    ------
    ValueError
        If `seeds` or a list of values is empty, or holds a value that is not allowed.
    """
    seeds = [seeds] if check.dimensions(seeds) == 0 else seeds
    seeds = [check.integer(f"seeds[{i}]", seed, 0) for i, seed in enumerate(seeds)]
    if not seeds or len(set(seeds)) < len(seeds):
        check.reject("seeds", seeds, "a non-empty sequence of different non-negative integers")
    values = [np.atleast_1d(check.array(name, value, ndim=(0, 1))) for name, value in hyper.items()]
    *columns, seeds = zip(*product(*values, seeds), strict=True)
    columns = {name: np.array(column) for name, column in zip(hyper, columns, strict=True)}
    return Trials(np.array(seeds), columns)


def summarise(results, measure="validation"):
    """Return the steps to the target of every setting over the seeds, and the best setting.

    Parameters
    ----------
    results : TrialResults
        Of `train` with a target for `measure`.
    measure : str
        One of the results' measures.

    Returns
    -------
    Summary

    Raises
    ------
    ValueError
        If `measure` was not measured.
    """
    hyper = results.trials.hyper
    columns = np.column_stack(list(hyper.values()))
    settings, setting = np.unique(columns, axis=0, return_inverse=True)
    crossing = results.crossing(measure)
    steps = [crossing[setting.ravel() == i] for i in range(len(settings))]
    median = np.array([np.median(s) for s in steps])
    best = int(np.lexsort(([np.mean(s) for s in steps], median))[0])
    found = np.isfinite(median[best])
    ends = zip(settings[best], settings.min(axis=0), settings.max(axis=0), strict=True)
    border = [bool(low < high and value in (low, high)) for value, low, high in ends]
    return Summary(
        batch_size=results.batch_size,
        hyper=dict(zip(hyper, settings.T, strict=True)),
        median=median,
        low=np.array([s.min() for s in steps]),
        high=np.array([s.max() for s in steps]),
        best=best if found else None,
        at_border=dict(zip(hyper, border, strict=True)) if found else None,
    )


def _column(name, values):
    """Return the values of a hyperparameter as float64; there may be none."""
    return check.array(name, values, finite=False) if np.size(values) else np.zeros(0)
