"""What bounds the number of steps: the batch size that stops helping, and the information."""

from dataclasses import dataclass

import numpy as np

from batchscaling import _validation as check
from batchscaling.nqm.problem import require_problem
from batchscaling.nqm.tuning import tune


@dataclass(frozen=True)
class CriticalBatchSize:
    """Where the two regimes of a batch-size curve meet, in the model or measured.

    Attributes
    ----------
    batch_size : float
        ``examples / steps``: where the two asymptotes cross.
    examples : float
        Batch size times steps in the limit of small batches; perfect scaling needs
        ``examples / B`` steps.
    steps : float
        Steps in the limit of large batches, the floor of the curve.
    """

    batch_size: float
    examples: float
    steps: float


def critical_batch_size(problem, optimizer, target, *, small=1, large=2**40, **fixed):
    """Return the batch size at which perfect scaling would reach the floor of the curve.

    Steps to target against batch size follow a line of perfect scaling, examples / B, when B is
    small, and are constant when B is large. The critical batch size is where these two lines
    cross. The curve itself lies above the crossing, usually by a factor between 1.5 and 2.

    Parameters
    ----------
    problem : NoisyQuadratic
    optimizer : type
        An optimizer class, tuned at both ends.
    target : float
        Risk to reach, positive and below the initial risk.
    small, large : float
        Batch sizes that stand for the two limits.
    **fixed : float
        Hyperparameters to hold fixed, such as ``momentum=0.9``.

    Returns
    -------
    CriticalBatchSize

    Raises
    ------
    ValueError
        If an argument is out of its range.

    See Also
    --------
    batchscaling.curves.fit_hyperbola : The same of measured steps at several batch sizes.

    References
    ----------
    McCandlish et al., "An empirical model of large-batch training", 2018, section 2.
    """
    small, large = check.positive("small", small), check.positive("large", large)
    if large <= small:
        check.reject("large", large, f"above small, {small}")
    tuned = tune(problem, optimizer, [small, large], target, **fixed)
    if np.isinf(tuned.steps).any():
        check.reject("target", target, "one that the optimizer reaches at both batch sizes")
    most, fewest = tuned.steps.tolist()
    return CriticalBatchSize(small * most / fewest, small * most, fewest)


def maximum_likelihood_risk(problem, examples):
    r"""Return the risk of the maximum-likelihood estimate from N examples.

    One example tells :math:`\theta_i` with variance :math:`c_i/h_i^2`, so the mean of N has risk
    :math:`\frac12\sum_i c_i/(h_i N)`, which is d/(2N) where c = h. The paper draws it as the lower
    bound of all optimizers; an optimizer that starts close to the minimum can be below it while N
    is small, see `bayes_risk`.

    Parameters
    ----------
    problem : NoisyQuadratic
    examples : float or array_like
        N, positive.

    Returns
    -------
    float or ndarray
        Of the shape of `examples`.

    References
    ----------
    Zhang et al. (2019), section 3.5.
    """
    examples = _examples(problem, examples)
    risk = 0.5 * np.sum(problem.counts * problem.noise / problem.curvature) / examples
    return float(risk) if risk.ndim == 0 else risk


def bayes_risk(problem, examples):
    r"""Return the lowest risk that any method can have after N examples.

    If :math:`\theta_i(0)` is Gaussian with the problem's second moment :math:`m_i`, then knowing
    :math:`m_i` and N examples leaves the variance :math:`1/(1/m_i + N h_i^2/c_i)`. No method does
    better on average, and this is below `maximum_likelihood_risk` and below the initial risk.

    Parameters
    ----------
    problem : NoisyQuadratic
    examples : float or array_like
        N, positive.

    Returns
    -------
    float or ndarray
        Of the shape of `examples`.
    """
    examples = _examples(problem, examples)[..., None]
    h, c, m = problem.curvature, problem.noise, problem.second_moment
    known = c + examples * h**2 * m
    left = np.divide(m * c, known, out=np.zeros_like(known), where=known > 0)
    risk = np.sum(0.5 * problem.counts * h * left, axis=-1)
    return float(risk) if risk.ndim == 0 else risk


def lower_bound_steps(problem, batch_size, target):
    r"""Return the steps in which batches carry the information of the maximum-likelihood bound.

    Parameters
    ----------
    problem : NoisyQuadratic
    batch_size : float or array_like
        B, positive.
    target : float
        Risk, positive.

    Returns
    -------
    float or ndarray
        :math:`d/(2 B\,\text{target})` where c = h, of the shape of `batch_size`.

    References
    ----------
    Zhang et al. (2019), section 3.5.
    """
    examples = maximum_likelihood_risk(problem, 1.0) / check.positive("target", target)
    steps = examples / check.positive_numbers("batch_size", batch_size)
    return float(steps) if steps.ndim == 0 else steps


def _examples(problem, examples):
    require_problem(problem)
    return check.positive_numbers("examples", examples)
