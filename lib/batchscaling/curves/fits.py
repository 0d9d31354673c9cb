"""Fits to curves of steps against batch size, in log space, where errors are relative."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.optimize import least_squares

from batchscaling import _validation as check
from batchscaling.curves.intervals import bootstrap_medians
from batchscaling.nqm import CriticalBatchSize

_ROUNDING = 1e-12  # of the norm of errors in logarithms


def first_crossing(steps, loss, target):
    """Return for every trial the first step at which its loss is at or below `target`.

    Parameters
    ----------
    steps : array_like, shape (evaluations,)
        Steps of the evaluations, such as `TrialResults.steps`; they do not fall.
    loss : array_like, shape (trials, evaluations)
        May hold NaN, such as `TrialResults.loss` does after a trial's end.
    target : float
        Positive. If the trials ended at a target, it must not be below that one.

    Returns
    -------
    numpy.ndarray of float, shape (trials,)
        ``inf`` where the target is never reached.

    Raises
    ------
    ValueError
        If the shapes disagree, steps fall, or `target` is not positive.
    """
    steps = check.array("steps", steps)
    if (np.diff(steps) < 0).any():
        check.reject("steps", steps.tolist(), "numbers that do not fall")
    loss = check.array("loss", loss, ndim=2, finite=False, missing=True)
    if loss.shape[1] != len(steps):
        check.reject("loss", f"an array of shape {loss.shape}", f"shape (trials, {len(steps)})")
    reached = loss <= check.positive("target", target)
    return np.where(reached.any(axis=1), steps[reached.argmax(axis=1)], np.inf)


@dataclass(frozen=True, eq=False)
class BatchSizeCurve:
    """Steps to a target at several batch sizes, each with the same number of seeds.

    Attributes
    ----------
    batch_sizes : numpy.ndarray, shape (k,)
    steps : numpy.ndarray, shape (k, seeds)
        ``inf`` where the target was not reached.
    """

    batch_sizes: np.ndarray
    steps: np.ndarray

    def __post_init__(self):
        batch_sizes = check.array("batch_sizes", self.batch_sizes, positive=True)
        steps = check.array("steps", self.steps, ndim=2, nonnegative=True, finite=False)
        if len(steps) != len(batch_sizes):
            allowed = f"one row for each of {len(batch_sizes)} batch sizes"
            check.reject("steps", f"an array of shape {steps.shape}", allowed)
        check.store(self, batch_sizes=batch_sizes, steps=steps)

    @property
    def medians(self):
        """Medians over the seeds, shape (k,)."""
        return np.median(self.steps, axis=1)

    def draws(self, count=200):
        """Return medians for seeds drawn again, shape (count, k); see `bootstrap_medians`."""
        return bootstrap_medians(self.steps, count)

    def critical(self, count=200):
        """Return critical batch sizes by `fit_hyperbola` for seeds drawn again, shape (count,).

        They may be 0 or ``inf``, so take quantiles by `bootstrap_interval`. A fit leaves out batch
        sizes at which the median is infinite; NaN where fewer than two different ones are left.

        Raises
        ------
        ValueError
            If a median is zero: it has no logarithm.
        """
        draws, fits = self.draws(count), []
        if not draws.all():
            check.reject("steps", "an array with a median of 0", "medians above zero, for a fit")
        for medians in draws:
            there = np.isfinite(medians)
            if len(np.unique(self.batch_sizes[there])) < 2:
                fits.append(np.nan)
                continue
            fits.append(fit_hyperbola(self.batch_sizes[there], medians[there]).batch_size)
        return np.array(fits)


class PowerFit(NamedTuple):
    """A power law through points: y is about ``factor * x**exponent``.

    Attributes
    ----------
    exponent, factor : float
        Of the straight line of least squares in logarithms.
    correlation : float
        Of the logarithms.
    """

    exponent: float
    factor: float
    correlation: float


def fit_power(x, y):
    """Return the power law through points, by least squares in logarithms.

    Parameters
    ----------
    x, y : array_like, shape (k,)
        Positive; at least two `x` whose logarithms differ.

    Returns
    -------
    PowerFit
        Where all `y` are equal, the correlation is NaN.

    Raises
    ------
    ValueError
        If the shapes disagree, a number is not positive, or the logarithms of all `x` are equal.
    """
    x, y = check.array("x", x, positive=True), check.array("y", y, positive=True)
    check.same_shape("y", y, "x", x.shape)
    logs = np.log(x), np.log(y)
    if len(np.unique(logs[0])) < 2:
        check.reject("x", x, "at least two numbers whose logarithms differ")
    (dx, dy), (middle, height) = (v - v.mean() for v in logs), (v.mean() for v in logs)
    exponent = dx @ dy / (dx @ dx)
    size = np.sqrt((dx @ dx) * (dy @ dy))
    correlation = dx @ dy / size if size > 0 else np.nan
    return PowerFit(float(exponent), float(np.exp(height - exponent * middle)), float(correlation))


def fit_hyperbola(batch_sizes, steps):
    """Fit ``steps = limit.steps + limit.examples / batch_size``.

    Small batches scale perfectly there: ``steps * batch_size`` is `examples`. At the critical
    batch size it is twice as much, and steps are twice those of an unlimited batch. Where steps do
    not bend within the data, one of its ends fits best: perfect scaling, with the critical batch
    size ``inf`` and zero steps in the limit, or steps that are all equal, with 0 and zero examples.

    Parameters
    ----------
    batch_sizes, steps : array_like, shape (k,)
        Positive; at least two different batch sizes.

    Returns
    -------
    CriticalBatchSize
        With the critical batch size and the two limits.

    Raises
    ------
    ValueError
        If the arguments are not positive numbers, their shapes differ, or all batch sizes are
        equal.

    References
    ----------
    .. [1] McCandlish, Kaplan, Amodei et al. (2018), An empirical model of large-batch training,
       equation 2.11.

    See Also
    --------
    batchscaling.nqm.critical_batch_size : The same in the noisy quadratic model.
    """
    batch_sizes, steps = _curve("steps", batch_sizes, steps)

    def residual(logs):
        return logs[0] + np.log1p(np.exp(logs[1]) / batch_sizes) - np.log(steps)

    start = np.log([steps.min(), np.sqrt(batch_sizes.min() * batch_sizes.max())])
    solved = least_squares(residual, start)
    end = _end_of_hyperbolas(batch_sizes, steps, np.linalg.norm(solved.fun))
    if end is not None:
        return end
    fewest, critical = np.exp(solved.x).tolist()
    return CriticalBatchSize(critical, fewest * critical, fewest)


def _end_of_hyperbolas(batch_sizes, steps, error):
    """Return the end of the hyperbolas that fits no worse than `error`, or None.

    Towards such an end a solver goes on for ever: where it stops says nothing.
    """
    examples, flat = np.log(steps) + np.log(batch_sizes), np.log(steps)
    norms = [np.linalg.norm(logs - logs.mean()) for logs in (examples, flat)]
    if min(norms) > error + _ROUNDING:
        return None
    if norms[0] <= norms[1]:
        return CriticalBatchSize(np.inf, float(np.exp(examples.mean())), 0.0)
    return CriticalBatchSize(0.0, 0.0, float(np.exp(flat.mean())))


def fit_shift(batch_sizes, steps, model_batch_sizes, model_steps):
    """Shift a model's curve onto a measured one: one factor for each axis.

    Finds the factors for which ``vertical * model(horizontal * batch_size)`` is closest to
    `steps`, by the mean square of the difference of logarithms. Between its points the model's
    curve is a straight line in the logarithms.

    Parameters
    ----------
    batch_sizes, steps : array_like, shape (k,)
        The measured curve; positive, at least two different batch sizes.
    model_batch_sizes, model_steps : array_like, shape (m,)
        The model's curve; positive, batch sizes increasing. Only shifts that leave all measured
        points on it are tried.

    Returns
    -------
    horizontal, vertical : float

    Raises
    ------
    ValueError
        If the arguments are not positive numbers, their shapes differ, or the model's curve is
        shorter than the measured one.
    """
    batch_sizes, steps = _curve("steps", batch_sizes, steps)
    model_batch_sizes, model_steps = _curve("model_steps", model_batch_sizes, model_steps)
    shortest = np.log(model_batch_sizes[0] / batch_sizes.min())
    longest = np.log(model_batch_sizes[-1] / batch_sizes.max())
    if not (np.diff(model_batch_sizes) > 0).all() or shortest > longest:
        allowed = "increasing, and over a range at least as long as that of batch_sizes"
        check.reject("model_batch_sizes", model_batch_sizes.tolist(), allowed)

    # A line of kinks has many small dips, so a fine grid is safer than a descent.
    shifts = np.linspace(shortest, longest, 4001)
    at = np.log(batch_sizes) + shifts[:, None]
    gaps = np.log(steps) - np.interp(at, np.log(model_batch_sizes), np.log(model_steps))
    best = np.argmin(gaps.var(axis=1))
    return float(np.exp(shifts[best])), float(np.exp(gaps[best].mean()))


def _curve(name, batch_sizes, steps):
    batch_sizes = check.array("batch_sizes", batch_sizes, positive=True)
    steps = check.array(name, steps, positive=True)
    if steps.shape != batch_sizes.shape or len(steps) < 2:
        allowed = f"two numbers or more, as many as batch sizes ({len(batch_sizes)})"
        check.reject(name, f"an array of shape {steps.shape}", allowed)
    if len(np.unique(batch_sizes)) < 2:
        check.reject("batch_sizes", batch_sizes.tolist(), "two different ones or more")
    return batch_sizes, steps
