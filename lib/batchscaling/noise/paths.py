"""Sampled paths: SGD with Gaussian noise, and the equation that stands for it."""

from collections.abc import Callable

import numpy as np

from batchscaling import _validation as check
from batchscaling.nqm._covariance import checked_covariance, factor


def sgd_paths(
    gradient, covariance, start, *, lr, batch_size, momentum=0.0, steps, paths, seed, every=1
):
    r"""Run SGD with Gaussian gradient noise: the method that the equation stands for.

    The update is :math:`v' = m v + \nabla L(\theta) + \Sigma(\theta)^{1/2}\xi/\sqrt{B}`,
    :math:`\theta' = \theta - \epsilon v'`.

    Parameters
    ----------
    gradient : callable
        ``gradient(theta)`` maps an array of shape (paths, d) to the gradients of the mean loss.
    covariance : array_like, shape (d,) or (d, d), or callable
        Covariance of one example's gradient: variances of independent directions, or a matrix.
        A callable maps theta of shape (paths, d) to variances of that shape.
    start : array_like, shape (d,) or (paths, d)
    lr, batch_size : float
        Positive.
    momentum : float
        At least 0 and below 1.
    steps, paths : int
        At least 1.
    seed : int or numpy.random.Generator
    every : int
        Record every so many steps; it must divide `steps`.

    Returns
    -------
    ndarray, shape (paths, steps // every + 1, d)
        The first entry is the start.

    Raises
    ------
    ValueError
        If an argument is out of its range.
    """
    lr, batch_size = check.positive("lr", lr), check.positive("batch_size", batch_size)
    momentum = check.below_one("momentum", momentum)
    walk = _Walk(gradient, covariance, start, steps, paths, seed, every)
    velocity = np.zeros_like(walk.start)

    def step(theta):
        nonlocal velocity
        noise = walk.noise(theta) / np.sqrt(batch_size)
        velocity = momentum * velocity + walk.gradient(theta) + noise
        return theta - lr * velocity

    return walk.run(step)


def sde_paths(gradient, covariance, start, *, diffusion, dt, steps, paths, seed, every=1):
    r"""Integrate :math:`d\theta = -\nabla L\,dt + \sqrt{D}\,\Sigma(\theta)^{1/2}\,dW` (Itô).

    The Euler-Maruyama step is
    :math:`\theta' = \theta - \nabla L\,\Delta t - \sqrt{D\,\Delta t}\,\Sigma^{1/2}\xi`. With
    :math:`\Delta t = \epsilon` and :math:`D = \epsilon/B` it is SGD itself, path by path for one
    seed; the equation is its limit for small :math:`\Delta t` at a fixed D.

    Parameters
    ----------
    gradient, covariance, start, steps, paths, seed, every
        As for `sgd_paths`.
    diffusion : float
        D, positive; see `diffusion_constant`.
    dt : float
        Time step, positive; small against one over the largest curvature.

    Returns
    -------
    ndarray, shape (paths, steps // every + 1, d)
        The first entry is the start, the others lie ``every * dt`` apart.

    Raises
    ------
    ValueError
        If an argument is out of its range.

    References
    ----------
    Kloeden and Platen, "Numerical solution of stochastic differential equations", section 10.2.
    """
    dt = check.positive("dt", dt)
    scale = np.sqrt(check.positive("diffusion", diffusion) * dt)
    walk = _Walk(gradient, covariance, start, steps, paths, seed, every)
    return walk.run(lambda theta: theta - dt * walk.gradient(theta) - scale * walk.noise(theta))


class _Walk:
    """What paths of SGD and of the equation share: noise, and the record of a run."""

    def __init__(self, gradient, covariance, start, steps, paths, seed, every):
        self.steps = check.integer("steps", steps, 1)
        paths = check.integer("paths", paths, 1)
        self.every = check.integer("every", every, 1, self.steps)
        if self.steps % self.every:
            check.reject("every", every, f"a divisor of steps, {self.steps}")
        if not isinstance(gradient, Callable):
            check.reject("gradient", gradient, "a function of an array of shape (paths, d)")
        start = check.array("start", start, ndim=(1, 2))
        if start.ndim == 2 and len(start) != paths:
            check.reject("start", f"an array of shape {start.shape}", f"(d,) or ({paths}, d)")
        self.start = np.array(np.broadcast_to(start, (paths, start.shape[-1])))
        # A copy: it may compute in place.
        self.gradient = lambda theta: np.asarray(gradient(theta.copy()), dtype=float)
        first = gradient(self.start.copy())
        first = check.array("gradient", first, ndim=None, finite=False, missing=True)
        if first.shape != self.start.shape:
            shape = f"a function that returns shape {first.shape}"
            check.reject("gradient", shape, f"the shape of theta, {self.start.shape}")
        self.rng, self.covariance, self.factor = check.generator(seed), covariance, None
        if not isinstance(covariance, Callable):
            dim = self.start.shape[1]
            self.factor = factor(checked_covariance(covariance, (dim,), (dim, dim)))

    def noise(self, theta):
        """Return noise with one example's covariance, shape (paths, d)."""
        normal = self.rng.standard_normal(theta.shape)
        if self.factor is None:
            return np.sqrt(self._variances(theta)) * normal
        return normal @ self.factor.T

    def _variances(self, theta):
        found = np.asarray(self.covariance(theta.copy()))
        allowed = f"a function that returns variances, of shape {theta.shape}"
        if found.shape != theta.shape:
            check.reject("covariance", f"one that returns shape {found.shape}", allowed)
        if (found < 0).any():
            check.reject("covariance", f"one that returns {found.min():.3g}", allowed)
        return found

    def run(self, step):
        theta, out = self.start, [self.start]
        for k in range(1, self.steps + 1):
            theta = step(theta)
            if k % self.every == 0:
                out.append(theta)
        return np.stack(out, axis=1)
