"""Steps to a target at the best of some learning rates, by the exact engine."""

import numpy as np

from batchscaling.nqm import HeavyBall, NoisyQuadratic, is_stable, steps_to_target


def fewest_steps(curvature, lrs, momentum, batch_sizes, target, limit):
    """Return the fewest steps to the target over the rates, for each batch size.

    The gradient variance of one example is the curvature, and every second moment starts at one.

    Parameters
    ----------
    curvature : numpy.ndarray, shape (d,)
    lrs : sequence of float
        Rates at which the risk diverges are left out.
    momentum : float
        Of heavy ball; SGD at zero.
    batch_sizes : array_like, shape (k,)
    target : float
        Risk, summed over directions.
    limit : int
        Steps beyond it do not count.

    Returns
    -------
    numpy.ndarray, shape (k,)
        ``inf`` where no rate reaches the target.
    """
    problem = NoisyQuadratic(curvature)
    best = np.full(len(batch_sizes), np.inf)
    for lr in lrs:
        optimizer = HeavyBall(lr, momentum)
        if is_stable(problem, optimizer):
            steps = steps_to_target(problem, optimizer, batch_sizes, target)
            best = np.minimum(best, np.where(steps <= limit, steps, np.inf))
    return best
