r"""Uniform averages of the last steps (Polyak and Ruppert).

The average of :math:`\theta_{s+1}, \dots, \theta_t` is a sum divided by t - s. The sum is one more
number in the state, so the second moments of `moments` serve here too: s steps of the optimizer,
then t - s steps of the optimizer with the sum.

References
----------
Polyak and Juditsky, "Acceleration of stochastic approximation by averaging", 1992.
"""

import numpy as np

from batchscaling import _validation as check
from batchscaling.nqm import moments
from batchscaling.nqm.risk import require_stable, whole_steps


def tail_average_risk(problem, optimizer, batch_size, start, steps):
    """Return the expected loss of the mean of all parameters after step `start`.

    Parameters
    ----------
    problem : NoisyQuadratic
    optimizer : Optimizer
    batch_size : float
        Positive.
    start : int
        Steps before the average begins, at least 0.
    steps : int or array_like of int
        Steps in all, each above `start`.

    Returns
    -------
    float or ndarray
        Of the shape of `steps`.

    Raises
    ------
    ValueError
        If an argument is out of its range or the method is unstable on `problem`.
    """
    require_stable(problem, optimizer)
    batch_size = check.positive("batch_size", batch_size)
    start = check.integer("start", start, 0)
    steps = whole_steps(steps)
    if steps.min() <= start:
        check.reject("steps", int(steps.min()), f"integers above start, {start}")
    method, h = optimizer.method(), problem.curvature
    noise = problem.noise / batch_size
    second = problem.second_moment * moments.outer(method.start, method.start)
    second = moments.Advance(method, h)(second, noise, start)
    size = len(method.b) + 1
    with_sum = np.zeros((size, size, len(h)))
    with_sum[:-1, :-1] = second
    advance = moments.Advance(method.with_sum(1.0, 1.0, 0.0), h)
    weight = 0.5 * problem.counts * h
    distinct, position = np.unique(steps.ravel(), return_inverse=True)
    risks = np.empty(len(distinct))
    for k, step in enumerate(distinct):
        total = advance(with_sum, noise, int(step) - start)[-1, -1]
        risks[k] = weight @ total / float(step - start) ** 2
    risks = risks[position].reshape(steps.shape)
    return float(risks) if risks.ndim == 0 else risks
