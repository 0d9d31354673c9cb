"""Medians and means over training seeds, their intervals, and what they say of a claim."""

import numpy as np
from scipy.stats import binom
from scipy.stats import t as student_t

from batchscaling import _validation as check


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
        If `values` is empty or holds what is no number, or `confidence` is outside its range.
    """
    ordered = np.sort(check.array("values", values, ndim=None, finite=False), axis=None)
    confidence = check.real("confidence", confidence, 0, 1, low_open=True, high_open=True)
    beyond = max(int(binom.ppf((1 - confidence) / 2, len(ordered), 0.5)) - 1, 0)
    return float(ordered[beyond]), float(np.median(ordered)), float(ordered[-1 - beyond])


def geometric_interval(values, confidence=0.95):
    """Return the geometric mean of a sample, and Student's interval for it.

    For few positive numbers, such as ratios, whose logarithms are taken as normal.

    Parameters
    ----------
    values : array_like, shape (n,)
        Positive; at least two.
    confidence : float
        Between 0 and 1.

    Returns
    -------
    numpy.ndarray, shape (3,)
        Lower end, mean, upper end.

    Raises
    ------
    ValueError
        If `values` holds fewer than two numbers or one that is not positive, or `confidence` is
        outside its range.
    """
    logs = np.log(check.array("values", values, positive=True))
    confidence = check.real("confidence", confidence, 0, 1, low_open=True, high_open=True)
    if len(logs) < 2:
        check.reject("values", values, "two numbers or more")
    error = logs.std(ddof=1) / len(logs) ** 0.5
    half = student_t.ppf(0.5 + confidence / 2, len(logs) - 1) * error
    return np.exp(logs.mean() + half * np.array([-1, 0, 1]))


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
        If `values` is empty or holds what is no number, or another argument is outside its range.

    References
    ----------
    .. [1] Efron (1979), Bootstrap methods: another look at the jackknife.
    """
    values = check.array("values", values, ndim=(1, 2, 3), finite=False)
    rng = np.random.default_rng(check.integer("seed", seed, 0))
    count = values.shape[-1]
    chosen = rng.integers(count, size=(check.integer("draws", draws, 1), count))
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
        If `numbers` is empty or holds what is no number, or `confidence` is outside its range.
    """
    numbers = check.array("numbers", numbers, ndim=(1, 2, 3), finite=False)
    confidence = check.real("confidence", confidence, 0, 1, low_open=True, high_open=True)
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
        Lower end, middle and upper end, such as `bootstrap_interval` gives. May hold ``inf``.

    Returns
    -------
    str
        ``"holds"``, ``"roughly"``, ``"open"`` (the data cannot tell) or ``"fails"``.

    Raises
    ------
    ValueError
        If `claim` is neither, or `interval` is not three positive numbers that do not fall.
    """
    ends = check.array("interval", interval, positive=True, finite=False).tolist()
    if len(ends) != 3 or ends != sorted(ends):
        check.reject("interval", interval, "three positive numbers that do not fall")
    low, middle, high = ends
    if check.one_of("claim", claim, ("more", "same")) == "more":
        return "holds" if low > 1 else "fails" if high < 1 else "open"
    if low > 0.8 and high < 1.25:
        return "holds"
    if low > 1.25 or high < 0.8:
        return "fails"
    return "roughly" if low < 1 < high and 0.8 < middle < 1.25 else "open"
