"""Exact risk of an optimizer on a noisy quadratic problem, and how it behaves in the long run."""

import numpy as np

from batchscaling import _validation as check
from batchscaling.nqm import moments
from batchscaling.nqm.optimizers.base import require_optimizer
from batchscaling.nqm.problem import require_problem

MOST_STEPS = 2**62
"""The longest run, so that numbers of steps fit into 64 bits."""


def risk(problem, optimizer, batch_size, steps):
    r"""Return the expected loss after the given numbers of steps.

    The result is exact: no sampling, no bound, no continuous-time limit. It is
    :math:`D(t) + S(t)/B`, where D is the loss of the noiseless method and S what the gradient
    noise adds.

    Parameters
    ----------
    problem : NoisyQuadratic
    optimizer : Optimizer
        Such as ``SGD(lr=0.1)``.
    batch_size : float
        B, positive.
    steps : int or array_like of int
        Numbers of steps, from 0 to 2**62, in any order.

    Returns
    -------
    float or ndarray
        Of the shape of `steps`.

    Raises
    ------
    ValueError
        If an argument is out of its range or the method is unstable on `problem`.

    References
    ----------
    Zhang et al. (2019), equations 3 and 4 for SGD, 16 to 19 for momentum.
    """
    by_curvature = risk_by_curvature(problem, optimizer, batch_size, steps)
    total = by_curvature @ problem.counts
    return float(total) if total.ndim == 0 else total


def risk_by_curvature(problem, optimizer, batch_size, steps):
    """Return the expected loss of one direction of each curvature.

    Parameters are those of `risk`.

    Returns
    -------
    ndarray, shape (..., k)
        The shape of `steps`, then one entry for each of the problem's curvatures.
    """
    decay, noise = risk_parts(problem, optimizer, steps)
    return decay + noise / check.positive("batch_size", batch_size)


def risk_parts(problem, optimizer, steps):
    """Return D and S of one direction of each curvature: its risk is D + S / batch_size.

    Parameters are those of `risk`.

    Returns
    -------
    decay, noise : ndarray, shape (..., k)
        The loss left of the start, and what gradients of single examples add.
    """
    require_stable(problem, optimizer)
    steps = whole_steps(steps)
    method = optimizer.method()
    phi, psi = moments.response(method, problem.curvature, steps.ravel())
    half = 0.5 * problem.curvature
    shape = steps.shape + half.shape
    decay = half * problem.second_moment * phi**2
    noise = half * problem.noise * psi
    return decay.reshape(shape), noise.reshape(shape)


def steady_state_risk(problem, optimizer, batch_size):
    """Return the expected loss after infinitely many steps, the floor of a constant rate.

    Parameters
    ----------
    problem : NoisyQuadratic
    optimizer : Optimizer
    batch_size : float
        B, positive.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        If an argument is out of its range or the method is unstable on `problem`.

    References
    ----------
    Zhang et al. (2019), second term of equations 4 and 6.
    """
    require_stable(problem, optimizer)
    batch_size = check.positive("batch_size", batch_size)
    with np.errstate(over="ignore", invalid="ignore"):  # of a rate that rounding calls stable
        energy = moments.limit(optimizer, problem.curvature)
    risk = float(0.5 * problem.counts * problem.noise @ energy) / batch_size
    if not np.isfinite(energy).all():
        _reject_rate(problem, optimizer)
    return risk


def convergence_rate(problem, optimizer):
    """Return the factor by which the slowest direction shrinks in one step, in the long run.

    It is the largest spectral radius of the transition matrices. The mean of the parameters goes
    to zero like ``rate**t``, and the risk to its steady state like ``rate**(2 * t)``. Smaller is
    faster; a method is stable if the rate is below 1.

    Parameters
    ----------
    problem : NoisyQuadratic
    optimizer : Optimizer

    Returns
    -------
    float
    """
    require_types(problem, optimizer)
    matrices = np.moveaxis(optimizer.transition(problem.curvature), -1, 0)
    return float(np.abs(np.linalg.eigvals(matrices)).max())


def is_stable(problem, optimizer):
    """Return whether the risk stays bounded for ever.

    Parameters
    ----------
    problem : NoisyQuadratic
    optimizer : Optimizer

    Returns
    -------
    bool
    """
    require_types(problem, optimizer)
    return bool(problem.curvature.max() < optimizer.curvature_limit)


def require_stable(problem, optimizer):
    """Raise a ``ValueError`` that states the stable learning rates if the method is unstable."""
    if not is_stable(problem, optimizer):
        _reject_rate(problem, optimizer)


def _reject_rate(problem, optimizer):
    highest = problem.curvature.max()
    bound = optimizer.lr * optimizer.curvature_limit / highest
    check.reject(
        "lr",
        optimizer.lr,
        f"below {bound:.6g}, where {type(optimizer).__name__} is stable "
        f"(largest curvature {highest:.6g})",
    )


def require_types(problem, optimizer):
    """Raise a ``ValueError`` unless the two are a problem and an optimizer."""
    require_problem(problem)
    require_optimizer("optimizer", optimizer)


def whole_steps(steps):
    """Return `steps` as an int64 array; whole floats will do, as in what `tune` returns."""
    return check.integers("steps", steps, 0, MOST_STEPS, floats=True)
