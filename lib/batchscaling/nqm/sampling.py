"""Sampled training runs: the update rule itself, with random gradients."""

import numpy as np

from batchscaling import _validation as check
from batchscaling.nqm._covariance import checked_covariance, factor
from batchscaling.nqm.risk import require_types, whole_steps


def sample_paths(problem, optimizer, batch_size, steps, *, paths, seed, covariance=None):
    """Run the optimizer many times with Gaussian gradient noise and return the losses.

    The parameters start at Gaussian values of the problem's second moment. The mean over the
    paths estimates `risk`. Unlike `risk`, this also runs unstable methods.

    Parameters
    ----------
    problem : NoisyQuadratic
        A problem whose entries have counts is run with all its directions; they must be whole.
    optimizer : Optimizer
    batch_size : float
        B, positive.
    steps : int or array_like of int
        Numbers of steps at which to record the loss, increasing.
    paths : int
        Number of independent runs, at least 1.
    seed : int or numpy.random.Generator
        Source of the random numbers.
    covariance : array_like, shape (dim, dim), optional
        Covariance of one example's gradient in the eigenbasis of the Hessian, for noise that is
        correlated between eigenvectors. The default is the diagonal matrix of the problem's noise.

    Returns
    -------
    ndarray, shape (paths, ...)
        Loss of each path, then the shape of `steps`.

    Raises
    ------
    ValueError
        If an argument is out of its range.
    """
    require_types(problem, optimizer)
    batch_size = check.positive("batch_size", batch_size)
    paths = check.integer("paths", paths, 1)
    steps = whole_steps(steps)
    times = steps.ravel()
    if np.any(np.diff(times) <= 0):
        check.reject("steps", steps.tolist(), "strictly increasing integers")
    rng = check.generator(seed)
    counts = problem.counts.astype(int)
    if np.any(counts != problem.counts):
        check.reject("problem", problem, "one whose counts are whole numbers")
    h, c, m = (
        np.repeat(values, counts)
        for values in (problem.curvature, problem.noise, problem.second_moment)
    )
    root = None
    if covariance is not None:
        root = factor(checked_covariance(covariance, (len(h), len(h))))
    A, b, query, readout, start = optimizer.method()
    theta = np.sqrt(m) * rng.standard_normal((paths, len(h)))
    state = start[:, None, None] * theta
    losses = np.empty((paths, len(times)))
    now = 0
    for column, time in enumerate(times):
        for _ in range(time - now):
            normal = rng.standard_normal(theta.shape)
            example = np.sqrt(c) * normal if root is None else normal @ root.T
            noise = example / np.sqrt(batch_size)
            gradient = h * np.tensordot(query, state, 1) + noise
            state = np.tensordot(A, state, 1) + b[:, None, None] * gradient
        now = time
        losses[:, column] = 0.5 * np.tensordot(readout, state, 1) ** 2 @ h
    return losses.reshape((paths, *steps.shape))
