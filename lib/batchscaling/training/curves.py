"""Fits to curves of steps against batch size, in log space, where errors are relative."""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import least_squares
from scipy.stats import binom

from batchscaling._validation import array, integer, one_of, positive, real, reject, store


def first_crossing(steps, loss, target):
    """Return for every trial the first step at which its loss is at or below `target`.

    Parameters
    ----------
    steps : array_like, shape (evaluations,)
        Steps of the evaluations, such as `TrialResults.steps`.
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
        If the shapes disagree, or `target` is not positive.
    """
    steps, loss = array("steps", steps), np.asarray(loss, dtype=float)
    if loss.ndim != 2 or loss.shape[1] != len(steps):
        reject("loss", f"an array of shape {loss.shape}", f"shape (trials, {len(steps)})")
    reached = loss <= positive("target", target)
    return np.where(reached.any(axis=1), steps[reached.argmax(axis=1)], np.inf)


def median_interval(values, confidence=0.95):
    """Return the median of a sample, and an interval that holds the true median.

    The interval runs between two of the sorted values. The true median is below the k-th of n
    only if fewer than k values fall below it, which is as likely as fewer than k heads in n
    throws of a coin. So nothing is assumed about the distribution.

    Parameters
    ----------
    values : array_like, shape (n,)
        May hold ``inf``.
    confidence : float
        Between 0 and 1. A sample that is too small for it gives its smallest and largest value.

    Returns
    -------
    low, median, high : float

    Raises
    ------
    ValueError
        If `values` is empty or holds NaN, or `confidence` is outside its range.
    """
    ordered = np.sort(np.asarray(values, dtype=float), axis=None)
    if not ordered.size or np.isnan(ordered).any():
        reject("values", values, "a non-empty array without NaN")
    confidence = real("confidence", confidence, 0, 1, low_open=True, high_open=True)
    beyond = max(int(binom.ppf((1 - confidence) / 2, len(ordered), 0.5)) - 1, 0)
    return float(ordered[beyond]), float(np.median(ordered)), float(ordered[-1 - beyond])


def bootstrap_medians(values, draws=200, *, seed=0):
    """Return medians over seeds that are drawn again with replacement.

    Row i of the result is what the medians would have been with another choice of the same number
    of seeds. All entries share the draw, and so do two calls with one `seed` and equally many
    seeds: a ratio of two results keeps what a training seed has in common with itself.

    Parameters
    ----------
    values : array_like, shape (..., seeds)
        May hold ``inf``.
    draws : int
        At least 1.
    seed : int
        Of the draws.

    Returns
    -------
    numpy.ndarray, shape (draws, ...)

    Raises
    ------
    ValueError
        If `values` is empty or holds NaN, or another argument is outside its range.

    References
    ----------
    .. [1] Efron (1979), Bootstrap methods: another look at the jackknife.
    """
    values = np.asarray(values, dtype=float)
    if not values.size or np.isnan(values).any():
        reject("values", values, "a non-empty array without NaN")
    rng = np.random.default_rng(integer("seed", seed, 0))
    count = values.shape[-1]
    chosen = rng.integers(count, size=(integer("draws", draws, 1), count))
    return np.stack([np.median(values[..., draw], axis=-1) for draw in chosen])


def bootstrap_interval(numbers, confidence=0.95):
    """Return the ends and the middle of numbers that came from draws.

    Parameters
    ----------
    numbers : array_like, shape (draws, ...)
        Such as a ratio of two results of `bootstrap_medians`. May hold ``inf``.
    confidence : float
        Between 0 and 1: this part of the numbers lies between the ends.

    Returns
    -------
    numpy.ndarray, shape (3, ...)
        Lower end, median and upper end; each is one of the numbers.

    Raises
    ------
    ValueError
        If `confidence` is outside its range.
    """
    confidence = real("confidence", confidence, 0, 1, low_open=True, high_open=True)
    points = [(1 - confidence) / 2, 0.5, (1 + confidence) / 2]
    return np.quantile(numbers, points, axis=0, method="nearest")


def verdict(claim, interval):
    """Judge a claim on a ratio by the interval of the measured one.

    "More" says that the ratio is above 1: it holds if the whole interval is, and fails if the
    interval is below. "Same" says that it is 1: it holds if the interval lies within 0.8 and 1.25,
    fails if it lies outside, and holds roughly if the middle is inside and 1 is in the interval.

    Parameters
    ----------
    claim : str
        ``"more"`` or ``"same"``.
    interval : array_like, shape (3,)
        Lower end, middle and upper end, such as `bootstrap_interval` gives.

    Returns
    -------
    str
        ``"holds"``, ``"roughly"``, ``"open"`` (the data cannot tell) or ``"fails"``.

    Raises
    ------
    ValueError
        If `claim` is neither, or `interval` is not three positive numbers that do not fall.
    """
    ends = array("interval", interval, positive=True).tolist()
    if len(ends) != 3 or ends != sorted(ends):
        reject("interval", interval, "three positive numbers that do not fall")
    low, middle, high = ends
    if one_of("claim", claim, ("more", "same")) == "more":
        return "holds" if low > 1 else "fails" if high < 1 else "open"
    if low > 0.8 and high < 1.25:
        return "holds"
    if low > 1.25 or high < 0.8:
        return "fails"
    return "roughly" if low < 1 < high and 0.8 < middle < 1.25 else "open"


@dataclass(frozen=True)
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
        batch_sizes = array("batch_sizes", self.batch_sizes, positive=True)
        steps = array("steps", self.steps, ndim=2, nonnegative=True, finite=False)
        if len(steps) != len(batch_sizes):
            allowed = f"one row for each of {len(batch_sizes)} batch sizes"
            reject("steps", f"an array of shape {steps.shape}", allowed)
        store(self, batch_sizes=batch_sizes, steps=steps)

    @property
    def medians(self):
        """Medians over the seeds, shape (k,)."""
        return np.median(self.steps, axis=1)

    def draws(self, count=200):
        """Return medians for seeds drawn again, shape (count, k); see `bootstrap_medians`."""
        return bootstrap_medians(self.steps, count)

    def critical(self, count=200):
        """Return critical batch sizes by `fit_hyperbola` for seeds drawn again, shape (count,).

        A fit leaves out batch sizes at which the median is infinite.
        """
        fits = []
        for medians in self.draws(count):
            there = np.isfinite(medians)
            fits.append(fit_hyperbola(self.batch_sizes[there], medians[there])[1])
        return np.array(fits)


def fit_hyperbola(batch_sizes, steps):
    """Fit ``steps = fewest * (1 + critical / batch_size)``.

    Small batches scale perfectly there: ``steps * batch_size`` is the constant ``fewest *
    critical``. At the critical batch size it is twice as much, and steps are twice the fewest.

    Parameters
    ----------
    batch_sizes, steps : array_like, shape (k,)
        Positive; at least two different batch sizes.

    Returns
    -------
    fewest : float
        Steps of an unlimited batch.
    critical : float
        Critical batch size.

    Raises
    ------
    ValueError
        If the arguments are not positive numbers, their shapes differ, or all batch sizes are
        equal.

    References
    ----------
    .. [1] McCandlish, Kaplan, Amodei et al. (2018), An empirical model of large-batch training,
       equation 2.11.
    """
    batch_sizes, steps = _curve("steps", batch_sizes, steps)

    def residual(logs):
        return logs[0] + np.log1p(np.exp(logs[1]) / batch_sizes) - np.log(steps)

    start = np.log([steps.min(), np.sqrt(batch_sizes.min() * batch_sizes.max())])
    fewest, critical = np.exp(least_squares(residual, start).x)
    return float(fewest), float(critical)


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
        reject("model_batch_sizes", model_batch_sizes.tolist(), allowed)

    # A line of kinks has many small dips, so a fine grid is safer than a descent.
    shifts = np.linspace(shortest, longest, 4001)
    at = np.log(batch_sizes) + shifts[:, None]
    gaps = np.log(steps) - np.interp(at, np.log(model_batch_sizes), np.log(model_steps))
    best = np.argmin(gaps.var(axis=1))
    return float(np.exp(shifts[best])), float(np.exp(gaps[best].mean()))


def _curve(name, batch_sizes, steps):
    batch_sizes = array("batch_sizes", batch_sizes, positive=True)
    steps = array(name, steps, positive=True)
    if steps.shape != batch_sizes.shape or len(steps) < 2:
        allowed = f"two numbers or more, as many as batch sizes ({len(batch_sizes)})"
        reject(name, f"an array of shape {steps.shape}", allowed)
    if len(np.unique(batch_sizes)) < 2:
        reject("batch_sizes", batch_sizes.tolist(), "two different ones or more")
    return batch_sizes, steps
