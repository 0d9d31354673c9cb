r"""The gradient noise scale: the batch size at which noise and signal of a gradient are equal.

With G the full gradient, H the Hessian and :math:`\Sigma` the covariance of one example's gradient,

.. math:: B_\text{simple} = \frac{\operatorname{tr}\Sigma}{|G|^2}, \qquad
          B_\text{noise} = \frac{\operatorname{tr}(H\Sigma)}{G^\top H G} .

Both are a ratio of a `trace` to a `signal`. Each of these has an unbiased estimate; their ratio has
none. So estimates are averaged first and divided last, and what bias is left is taken off.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from scipy.stats import t as student_t

from batchscaling import _validation as check
from batchscaling._scaling import exponent, exponents, restore
from batchscaling.nqm.problem import require_problem


@dataclass(frozen=True)
class NoiseEstimate:
    """An estimate of a gradient noise scale.

    Attributes
    ----------
    batch_size : float or ndarray
        The noise scale, in examples; ``inf`` where no signal was found.
    low, high : float or ndarray
        Confidence interval; `high` is ``inf`` where the signal is not clear of zero.
    trace, signal : float or ndarray
        Unbiased estimates of numerator and denominator; `signal` may be negative by chance.
    """

    batch_size: float
    low: float
    high: float
    trace: float
    signal: float


def ratio_estimate(trace, signal, *, confidence=0.95, blocks=None):
    r"""Return the noise scale from repeated estimates of its trace and its signal.

    The ratio of the means has a bias of the order of one over their number, because a quotient is
    not linear. Beale's estimator takes it off: with the means a, b and their variances,

    .. math:: \frac{a}{b}\cdot\frac{1 + s_{ab}/(ab)}{1 + s_{bb}/b^2} .

    The interval is Fieller's: all ratios r for which :math:`a - r b` does not differ from zero by
    more than chance. Unlike the delta method it knows that a weak signal has no upper bound.

    Parameters
    ----------
    trace, signal : array_like, shape (n,)
        Independent estimates, n at least 3, such as those of `two_batch_estimates` in n steps.
        Single signals may be negative.
    confidence : float
        Between 0 and 1.
    blocks : int, optional
        Group the estimates into so many blocks of neighbours, whose means count as independent;
        at least 3. For a series whose neighbours are correlated.

    Returns
    -------
    NoiseEstimate

    Raises
    ------
    ValueError
        If an argument is out of its range or shapes differ.

    References
    ----------
    McCandlish et al., "An empirical model of large-batch training", 2018, appendix A.1; Cochran,
    "Sampling techniques", chapter 6, on Beale's estimator; Fieller, "Some problems in interval
    estimation", 1954.
    """
    trace, signal = check.array("trace", trace), check.array("signal", signal)
    if signal.shape != trace.shape or len(trace) < 3:
        shape = f"an array of shape {signal.shape}"
        check.reject("signal", shape, f"three numbers or more, as many as trace ({len(trace)})")
    if blocks is not None:
        blocks = check.integer("blocks", blocks, 3, len(trace))
        trace, signal = (
            np.array([part.mean() for part in np.array_split(values, blocks)])
            for values in (trace, signal)
        )
    n, powers = len(trace), (exponent(trace), exponent(signal))
    trace, signal = np.ldexp(trace, -powers[0]), np.ldexp(signal, -powers[1])
    spread = np.cov(trace, signal) / n
    return _estimate(trace.mean(), signal.mean(), spread, n - 1, confidence, powers)


def two_batch_estimates(small_norm, large_norm, small, large):
    r"""Return unbiased estimates of trace and signal from gradients of two batch sizes.

    A batch gradient has :math:`E|G_B|^2 = |G|^2 + \operatorname{tr}\Sigma / B`. Two batch sizes
    give two equations. The batches may overlap: the large one may be the union of small ones.

    Parameters
    ----------
    small_norm, large_norm : array_like
        Squared norms :math:`|G_b|^2` and :math:`|G_B|^2`, of one shape; several small batches'
        norms may be averaged first. For :math:`B_\text{noise}` they are the products
        :math:`G_b^\top H G_b`.
    small, large : float
        b and B, positive, b below B.

    Returns
    -------
    trace, signal : float or ndarray
        :math:`\operatorname{tr}\Sigma` and :math:`|G|^2`. Average each over steps before you
        divide, as `ratio_estimate` and `RunningNoise` do.

    Raises
    ------
    ValueError
        If an argument is out of its range or shapes differ.

    References
    ----------
    McCandlish et al. (2018), appendix A.1, equations A.2.

    Examples
    --------
    >>> two_batch_estimates(3.0, 2.0, small=10, large=20)
    (20.0, 1.0)
    """
    small = check.positive("small", small)
    large = check.real("large", large, small, low_open=True)
    norms = []
    for name, value in (("small_norm", small_norm), ("large_norm", large_norm)):
        norms.append(check.array(name, value, ndim=None))
    check.same_shape("large_norm", norms[1], "small_norm", norms[0].shape)
    power = exponents(*norms)
    norms = [np.ldexp(norm, -power) for norm in norms]
    trace = (norms[0] - norms[1]) / (1 / small - 1 / large)
    signal = (large * norms[1] - small * norms[0]) / (large - small)
    return _plain(*(restore("small_norm", part, power) for part in (trace, signal)))


def per_example_estimate(norms, dots, *, confidence=0.95):
    r"""Return the noise scale from products of per-example gradients.

    With :math:`\bar g` the mean of n gradients and A the identity for :math:`B_\text{simple}`, or
    the Hessian for :math:`B_\text{noise}`, two numbers of each example are enough. The jackknife
    gives the variances: to leave one example out changes the sums in closed form.

    Parameters
    ----------
    norms : array_like, shape (n,)
        :math:`g_i^\top A g_i`, n at least 3.
    dots : array_like, shape (n,)
        :math:`g_i^\top A \bar g`.
    confidence : float
        Between 0 and 1.

    Returns
    -------
    NoiseEstimate

    Raises
    ------
    ValueError
        If an argument is out of its range or shapes differ.

    References
    ----------
    McCandlish et al. (2018), section 2.2 and appendix A.1; Efron and Tibshirani, "An introduction
    to the bootstrap", chapter 11; see `ratio_estimate` for the ratio.
    """
    norms, dots = check.array("norms", norms), check.array("dots", dots)
    n = len(norms)
    if dots.shape != norms.shape or n < 3:
        shape = f"an array of shape {dots.shape}"
        check.reject("dots", shape, f"three numbers or more, as many as norms ({n})")
    return _jackknife(norms, dots, 0, confidence)


def _jackknife(norms, dots, power, confidence):
    """Return the estimate of products times two to a power."""
    n, own = len(norms), exponent(norms, dots)
    norms, dots, power = np.ldexp(norms, -own), np.ldexp(dots, -own), power + own

    def parts(count, squares, square):
        """Trace and signal from the sum of squares and the square of the sum."""
        trace = (squares - square / count) / (count - 1)
        return trace, (square / count - trace) / count

    squares, square = norms.sum(), n * dots.sum()
    without = parts(n - 1, squares - norms, square - 2 * n * dots + norms)
    spread = np.cov(without) * (n - 1) ** 2 / n
    return _estimate(*parts(n, squares, square), spread, n - 1, confidence, (power, power))


def gradient_noise(gradients, hessian=None, *, confidence=0.95):
    r"""Return the noise scale from the gradients of single examples.

    Parameters
    ----------
    gradients : array_like, shape (n, d)
        One example's gradient a row; independent examples, n at least 3.
    hessian : array_like, shape (d,) or (d, d), or callable, optional
        Curvatures, or the Hessian, or a function that maps (n, d) to the Hessian's product with
        each row. With it the result is :math:`B_\text{noise}`, without it
        :math:`B_\text{simple}`.
    confidence : float
        Between 0 and 1.

    Returns
    -------
    NoiseEstimate

    Raises
    ------
    ValueError
        If an argument is out of its range or shapes differ.

    References
    ----------
    McCandlish et al. (2018), equations 2.8 and 2.9.
    """
    gradients = check.array("gradients", gradients, ndim=2)
    power = exponent(gradients)
    curved = gradients = np.ldexp(gradients, -power)
    if isinstance(hessian, Callable):
        curved = check.array("hessian", hessian(gradients.copy()), ndim=2)
    elif hessian is not None:
        hessian = check.array("hessian", hessian, ndim=(1, 2))
        if set(hessian.shape) != {gradients.shape[1]}:
            shape = f"an array of shape {hessian.shape}"
            check.reject("hessian", shape, f"one for {gradients.shape[1]} parameters")
        curved = gradients * hessian if hessian.ndim == 1 else gradients @ hessian
    if curved.shape != gradients.shape:
        shape = f"a function that returns shape {curved.shape}"
        check.reject("hessian", shape, f"the shape of gradients, {gradients.shape}")
    if len(gradients) < 3:
        shape = f"an array of shape {gradients.shape}"
        check.reject("gradients", shape, "three rows or more")
    own = exponent(curved)
    curved = np.ldexp(curved, -own)
    norms = np.einsum("nd,nd->n", gradients, curved)
    power = 2 * power + own
    restore("gradients", norms.sum(), power)
    return _jackknife(norms, curved @ gradients.mean(axis=0), power, confidence)


@dataclass(frozen=True, eq=False)
class RunningNoise:
    r"""The noise scale in a stream of estimates, by running averages free of their start.

    An average that starts at zero, :math:`m' = \gamma m + (1 - \gamma) x`, is too small at first;
    dividing by :math:`1 - \gamma^t` corrects it. Averages of squares and products are kept too, so
    that each moment has Beale's estimate and Fieller's interval, as in `ratio_estimate`.

    Start with ``RunningNoise(decay)`` and go on with ``running = running.update(trace, signal)``.

    Parameters
    ----------
    decay : float
        :math:`\gamma`, at least 0 and below 1. The average reaches back about
        :math:`1/(1 - \gamma)` updates.

    References
    ----------
    McCandlish et al. (2018), appendix A.1; Kingma and Ba, "Adam", 2015, section 3, on the
    correction.
    """

    decay: float
    count: int = 0
    sums: tuple = ()
    powers: tuple = ()

    def __post_init__(self):
        check.fields(self, decay=check.below_one, count=partial(check.integer, low=0))

    def update(self, trace, signal):
        """Return the averages after one more estimate.

        Parameters
        ----------
        trace, signal : float or array_like
            Of one shape, such as one number for each of several networks.

        Returns
        -------
        RunningNoise
        """
        trace = check.array("trace", trace, ndim=None)
        signal = check.array("signal", signal, ndim=None)
        if signal.shape != trace.shape or (self.count and trace.shape != self.sums[0].shape):
            shape = trace.shape if not self.count else self.sums[0].shape
            check.reject("signal", f"an array of shape {signal.shape}", f"the shape {shape}")
        powers = exponents(trace), exponents(signal)
        old = self.sums or (np.zeros_like(trace),) * 5
        if self.count:
            powers = tuple(map(np.maximum, powers, self.powers))
            shifts = _products(*(a - b for a, b in zip(self.powers, powers, strict=True)), np.add)
            old = tuple(map(np.ldexp, old, shifts))
        trace, signal = (np.ldexp(x, -power) for x, power in zip((trace, signal), powers))
        new = _products(trace, signal, np.multiply)
        sums = tuple(self.decay * a + (1 - self.decay) * b for a, b in zip(old, new, strict=True))
        return replace(self, count=self.count + 1, sums=sums, powers=powers)

    def estimate(self, confidence=0.95):
        """Return the present estimate.

        The interval assumes independent estimates of an unchanging quantity: drift within the
        average's reach widens it. It is the half-line from 0 on after one update.

        Parameters
        ----------
        confidence : float
            Between 0 and 1.

        Returns
        -------
        NoiseEstimate
            Of the shape of the updates.
        """
        if not self.count:
            check.reject("count", self.count, "one update or more")
        confidence = check.real("confidence", confidence, 0, 1, low_open=True, high_open=True)
        gamma = self.decay
        whole = 1 - gamma**self.count
        trace, signal, *squares = (total / whole for total in self.sums)
        # Sum of squared weights: one over the number of estimates that an average is worth.
        share = (1 - gamma) / (1 + gamma) * (1 + gamma**self.count) / whole
        if self.count < 2 or share > 1 - 1e-12:
            unknown = np.full(trace.shape, np.inf)
            value = np.where(signal > 0, trace / np.where(signal > 0, signal, 1), np.inf)
            return _with_powers(value, np.zeros(trace.shape), unknown, trace, signal, self.powers)
        products = (trace * trace, trace * signal, signal * signal)
        s_aa, s_ab, s_bb = (
            (square - product) * share / (1 - share)
            for square, product in zip(squares, products, strict=True)
        )
        spread = np.array([[s_aa, s_ab], [s_ab, s_bb]])
        return _estimate(trace, signal, spread, max(1 / share - 1, 1), confidence, self.powers)


def quadratic_noise_scales(problem, second_moment=None):
    r"""Return the exact noise scales of a noisy quadratic problem.

    At parameters with :math:`E\theta_i^2 = m_i` the gradient has :math:`E|G|^2 = \sum h_i^2 m_i`.
    So :math:`B_\text{simple} = \sum c_i / \sum h_i^2 m_i` and
    :math:`B_\text{noise} = \sum h_i c_i / \sum h_i^3 m_i`.

    Parameters
    ----------
    problem : NoisyQuadratic
    second_moment : array_like, shape (k,) or scalar, optional
        m, non-negative. The default is the problem's, before the first step. During training m is
        twice the risk of a direction over h.

    Returns
    -------
    simple, noise : float
        ``inf`` at the minimum.

    Raises
    ------
    ValueError
        If an argument is out of its range or shapes differ.

    References
    ----------
    McCandlish et al. (2018), equations 2.8 and 2.9.

    Examples
    --------
    >>> quadratic_noise_scales(NoisyQuadratic([1.0, 0.5]))
    (1.2, 1.1111111111111112)
    """
    require_problem(problem)
    if second_moment is not None:
        problem = replace(problem, second_moment=second_moment)
    columns = problem.curvature, problem.noise, problem.second_moment
    of_h, of_c, of_m = map(exponent, columns)
    h, c, m = (np.ldexp(x, -power) for x, power in zip(columns, (of_h, of_c, of_m)))
    scales = []
    for weight in (problem.counts, problem.counts * h):
        trace, signal = np.sum(weight * c), np.sum(weight * h**2 * m)
        scale = trace / signal if signal > 0 else np.inf
        scales.append(float(restore("noise", scale, of_c - 2 * of_h - of_m)))
    return tuple(scales)


def _estimate(a, b, spread, freedom, confidence, powers):
    """Return Beale's estimate of a / b and Fieller's interval, elementwise.

    `spread` is the covariance of (a, b), shape (2, 2, ...). Both are of about the size of 1, and
    are to be multiplied by two to the powers.
    """
    confidence = check.real("confidence", confidence, 0, 1, low_open=True, high_open=True)
    (s_aa, s_ab), (_, s_bb) = spread
    a, b, s_aa, s_ab, s_bb = np.broadcast_arrays(a, b, s_aa, s_ab, s_bb)
    s_aa, s_bb = np.maximum(s_aa, 0), np.maximum(s_bb, 0)
    found = b > 0
    # Both divided by the size of the signal, so that no square of a tiny one becomes zero.
    size = np.where(found, np.hypot(b, np.sqrt(s_bb)), 1.0)
    part = b / size
    with np.errstate(divide="ignore", invalid="ignore"):
        value = (a / size * part + s_ab / size / size) / (part**2 + s_bb / size / size)
    # r**2 (b**2 - t s_bb) - 2 r (a b - t s_ab) + (a**2 - t s_aa) <= 0, r at least 0
    t = student_t.ppf(0.5 + confidence / 2, freedom) ** 2
    square, middle, rest = b * b - t * s_bb, a * b - t * s_ab, a * a - t * s_aa
    root = np.sqrt(np.maximum(middle**2 - square * rest, 0))
    clear = found & (square > 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        ends = np.sort([(middle - root) / square, (middle + root) / square], axis=0)
    # Without a clear signal the ratios lie outside of the two roots: from the upper one on, or
    # from 0 on if the trace is not clear either.
    whole = ~clear & ((middle**2 <= square * rest) | (rest <= 0))
    low = np.where(clear, ends[0], ends[1])
    low = np.where(whole | ~np.isfinite(low) | ~(low > 0), 0.0, low)
    high = np.where(clear, np.maximum(ends[1], 0), np.inf)
    # Beale's series does not hold for a weak signal, and may leave the interval.
    value = np.where(found, np.clip(value, low, high), np.inf)
    return _with_powers(value, low, high, a, b, powers)


def _with_powers(value, low, high, trace, signal, powers):
    """Return the estimate for a trace and a signal that are times two to the powers."""
    ratio = np.subtract(*powers)
    ratios = (restore("trace", part, ratio) for part in (value, low, high))
    parts = (restore(*item) for item in zip(("trace", "signal"), (trace, signal), powers))
    return NoiseEstimate(*_plain(*ratios, *parts))


def _products(a, b, multiply):
    """Return a, b and their three products."""
    return a, b, multiply(a, a), multiply(a, b), multiply(b, b)


def _plain(*values):
    return tuple(float(v) if np.ndim(v) == 0 else np.array(v) for v in values)
