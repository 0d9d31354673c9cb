r"""SGD near a minimum, and the stochastic differential equation that stands for it.

All is per example: L is the mean loss, :math:`\Sigma` the covariance of one example's gradient.
SGD with heavy-ball momentum, rate :math:`\epsilon` and batch size B is compared with

.. math:: d\theta = -\nabla L\,dt + \sqrt{D}\,\Sigma^{1/2}\,dW, \qquad
          D = \frac{\epsilon}{B (1 - m)}, \qquad t = \frac{\epsilon}{1 - m}\cdot\text{steps}.

D is the noise scale g of `noise_scale` (with replacement) divided by N: the cost C of Smith and Le
is the sum N L, and their time runs N times as slowly.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.integrate import cumulative_trapezoid, trapezoid

from batchscaling import _validation as check


def diffusion_constant(lr, batch_size, momentum=0.0):
    r"""Return :math:`D = \epsilon / (B (1 - m))`, the noise scale over the number of examples.

    Parameters
    ----------
    lr, batch_size : float
        Positive.
    momentum : float
        At least 0 and below 1.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        If an argument is out of its range.

    References
    ----------
    Smith and Le (2018), section 5; Mandt, Hoffman and Blei, "Stochastic gradient descent as
    approximate Bayesian inference", 2017, section 3.
    """
    lr, batch_size = check.positive("lr", lr), check.positive("batch_size", batch_size)
    return lr / (batch_size * (1 - check.below_one("momentum", momentum)))


@dataclass(frozen=True, eq=False)
class OrnsteinUhlenbeck:
    r"""The process :math:`d\theta = -H\theta\,dt + \sqrt{D}\,\Sigma^{1/2}\,dW` of a quadratic loss.

    Parameters
    ----------
    hessian : array_like, shape (d,) or (d, d)
        Curvatures of independent directions, or a symmetric matrix H; positive (definite).
    covariance : array_like, of the shape of `hessian`
        Covariance :math:`\Sigma` of one example's gradient; need not commute with H.
    diffusion : float
        D, positive; see `diffusion_constant`.

    Raises
    ------
    ValueError
        If an argument is out of its range or shapes differ.

    References
    ----------
    Gardiner, "Handbook of stochastic methods", section 4.4; Mandt et al. (2017), section 3.
    """

    hessian: np.ndarray
    covariance: np.ndarray
    diffusion: float

    def __post_init__(self):
        hessian, covariance = _quadratic(self.hessian, self.covariance)
        check.store(self, hessian=hessian, covariance=covariance)
        check.fields(self, diffusion=check.positive)

    def mean(self, start, times):
        """Return the mean of the parameters, from a fixed start.

        Parameters
        ----------
        start : array_like, shape (d,)
        times : float or array_like
            At least 0.

        Returns
        -------
        ndarray
            The shape of `times`, then (d,).
        """
        h, vectors = _eigenbasis(self.hessian)
        start = check.array("start", start)
        if start.shape != h.shape:
            check.reject("start", f"an array of shape {start.shape}", f"the shape {h.shape}")
        shrink = np.exp(-_times(times)[..., None] * h)
        return (shrink * _to_basis(start, vectors)) @ _matrix(vectors, len(h)).T

    def variance(self, times):
        """Return the covariance of the parameters, from a fixed start.

        Parameters
        ----------
        times : float or array_like
            At least 0; ``inf`` gives the stationary covariance.

        Returns
        -------
        ndarray
            The shape of `times`, then the shape of `hessian`. It is the covariance matrix, or
            the variance of each direction.
        """
        h, vectors = _eigenbasis(self.hessian)
        times = _times(times)
        noise = _congruence(self.covariance, vectors)
        if vectors is None:
            pairs, times = 2 * h, times[..., None]
        else:
            pairs, times = h[:, None] + h, times[..., None, None]
        inside = self.diffusion * noise * -np.expm1(-times * pairs) / pairs
        return inside if vectors is None else vectors @ inside @ vectors.T

    def stationary(self):
        r"""Return the covariance in the long run.

        It solves :math:`H V + V H = D\,\Sigma`. Along one direction it is
        :math:`D c / (2 h)`.

        Returns
        -------
        ndarray, of the shape of `hessian`
        """
        return self.variance(np.inf)

    def temperature(self):
        r"""Return the temperature of each eigenvector of the Hessian.

        It is twice the mean energy, :math:`T_i = h_i V_{ii} = D c_i / 2`. All agree, and the
        stationary density is :math:`\propto e^{-L/T}`, only if all directions have the same
        noise.

        Returns
        -------
        ndarray, shape (d,)
            In the order of the curvatures, or of the rising eigenvalues of the matrix.
        """
        _, vectors = _eigenbasis(self.hessian)
        noise = _congruence(self.covariance, vectors)
        return 0.5 * self.diffusion * (noise if vectors is None else np.diag(noise).copy())

    def sample(self, start, times, *, paths, seed):
        """Return exact samples of the process; no time step is involved.

        Parameters
        ----------
        start : array_like, shape (d,)
        times : array_like, shape (m,)
            Increasing, the first at least 0.
        paths : int
            At least 1.
        seed : int or numpy.random.Generator

        Returns
        -------
        ndarray, shape (paths, m, d)
        """
        times = _increasing(times)
        paths = check.integer("paths", paths, 1)
        rng = check.generator(seed)
        h, _ = _eigenbasis(self.hessian)
        now = np.tile(self.mean(start, 0.0), (paths, 1))
        out = np.empty((paths, len(times), len(h)))
        for k, step in enumerate(np.diff(times, prepend=0.0)):
            shrink = self._mean_matrix(step)
            noise = rng.standard_normal(now.shape) @ _factor(self.variance(step)).T
            now = out[:, k] = now @ shrink.T + noise
        return out

    def _mean_matrix(self, time):
        """Return the matrix exp(-H time) by which the mean moves."""
        h, vectors = _eigenbasis(self.hessian)
        basis = _matrix(vectors, len(h))
        return (basis * np.exp(-time * h)) @ basis.T


def stationary_variance(hessian, covariance, lr, batch_size, momentum=0.0):
    r"""Return the exact covariance of SGD's parameters in the long run, with its finite steps.

    For heavy-ball momentum along one direction it is

    .. math:: \frac{\epsilon c}{B (1 - m)\,h}\cdot\frac{1}{2 - \epsilon h/(1 + m)},

    the variance of `OrnsteinUhlenbeck` divided by :math:`1 - \epsilon h / (2 (1 + m))`. That
    factor is all that the continuous limit leaves out here; 1/(1 - m) is exact.

    Parameters
    ----------
    hessian : array_like, shape (d,) or (d, d)
        Curvatures, or a symmetric positive-definite matrix.
    covariance : array_like, of the shape of `hessian`
        Covariance of one example's gradient.
    lr : float
        Positive, below ``2 (1 + momentum)`` over the largest curvature.
    batch_size : float
        Positive.
    momentum : float
        At least 0 and below 1.

    Returns
    -------
    ndarray, of the shape of `hessian`

    Raises
    ------
    ValueError
        If an argument is out of its range or the method is unstable.

    References
    ----------
    Zhang et al. (2019), theorem 1, whose constant is exact; for directions whose noise is
    correlated the same recursion is solved for each pair.
    """
    hessian, covariance = _quadratic(hessian, covariance)
    batch_size = check.positive("batch_size", batch_size)
    momentum = check.below_one("momentum", momentum)
    h, vectors = _eigenbasis(hessian)
    bound = 2 * (1 + momentum) / h.max()
    lr = check.real("lr", lr, 0, bound, low_open=True, high_open=True)
    noise = _congruence(covariance, vectors) / batch_size
    left, right = (h, h) if vectors is None else (h[:, None], h[None, :])
    inside = lr * noise * (lr * _response(momentum, lr * left, lr * right))
    return inside if vectors is None else vectors @ inside @ vectors.T


def _response(momentum, x, y):
    """Return E[u v] of two directions driven by one noise of variance 1, for each pair.

    x and y are rate times curvature, and the rate is 1. It is what solves M = F M G^T + b b^T.
    """
    fresh, other = 1 - momentum, 1 + momentum
    steady = x * (other - y / 2) + y * (other - x / 2)
    return fresh * other / (fresh**2 * steady + momentum * (x - y) ** 2)


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
        velocity = momentum * velocity + gradient(theta) + noise
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
    return walk.run(lambda theta: theta - dt * gradient(theta) - scale * walk.noise(theta))


def stationary_density(gradient, variance, grid, diffusion):
    r"""Return the stationary density in one dimension, for any loss and any noise.

    It is :math:`p(\theta) \propto \frac{1}{c(\theta)}\exp\left(-\frac{2}{D}
    \int \frac{L'(\theta)}{c(\theta)}\,d\theta\right)`: for constant noise
    :math:`e^{-L/T}` with :math:`T = D c/2`. Where the noise changes with :math:`\theta`, it also
    pushes parameters to quiet places.

    Parameters
    ----------
    gradient, variance : array_like, shape (n,)
        L' and c on the grid; c is positive.
    grid : array_like, shape (n,)
        Increasing; its ends should lie where the density is negligible.
    diffusion : float
        D, positive.

    Returns
    -------
    ndarray, shape (n,)
        With integral 1 over the grid.

    Raises
    ------
    ValueError
        If an argument is out of its range or shapes differ.

    References
    ----------
    Gardiner, "Handbook of stochastic methods", chapter 5.
    """
    grid = _increasing(grid, "grid")
    gradient = check.array("gradient", gradient)
    variance = check.array("variance", variance, positive=True)
    for name, values in (("gradient", gradient), ("variance", variance)):
        if values.shape != grid.shape:
            check.reject(name, f"an array of shape {values.shape}", f"the shape {grid.shape}")
    slope = -2 / check.positive("diffusion", diffusion) * gradient / variance
    exponent = cumulative_trapezoid(slope, x=grid, initial=0) - np.log(variance)
    density = np.exp(exponent - exponent.max())
    return density / trapezoid(density, grid)


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
        slope = np.shape(gradient(self.start))
        if slope != self.start.shape:
            shape = f"a function that returns shape {slope}"
            check.reject("gradient", shape, f"the shape of theta, {self.start.shape}")
        self.rng, self.covariance, self.factor = check.generator(seed), covariance, None
        if not isinstance(covariance, Callable):
            dim = self.start.shape[1]
            self.factor = _factor(_covariance(covariance, (dim,), (dim, dim)))

    def noise(self, theta):
        """Return noise with one example's covariance, shape (paths, d)."""
        normal = self.rng.standard_normal(theta.shape)
        if self.factor is None:
            return np.sqrt(self.covariance(theta)) * normal
        return normal @ self.factor.T

    def run(self, step):
        theta, out = self.start, [self.start]
        for k in range(1, self.steps + 1):
            theta = step(theta)
            if k % self.every == 0:
                out.append(theta)
        return np.stack(out, axis=1)


def _quadratic(hessian, covariance):
    """Return both as arrays of one shape, (d,) or (d, d), checked."""
    matrix = check.dimensions(hessian) == 2
    hessian = check.array("hessian", hessian, ndim=2 if matrix else 1, positive=not matrix)
    if matrix and not _symmetric(hessian, 0, strict=True):
        check.reject("hessian", "another matrix", "a symmetric positive-definite matrix")
    return hessian, _covariance(covariance, hessian.shape)


def _covariance(covariance, *shapes):
    matrix = check.dimensions(covariance) == 2
    covariance = check.array(
        "covariance", covariance, ndim=2 if matrix else 1, nonnegative=not matrix
    )
    if covariance.shape not in shapes:
        allowed = " or ".join(str(shape) for shape in shapes)
        check.reject("covariance", f"an array of shape {covariance.shape}", f"the shape {allowed}")
    if matrix and not _symmetric(covariance, -1e-9):
        allowed = "a symmetric matrix without negative eigenvalues"
        check.reject("covariance", "another matrix", allowed)
    return covariance


def _symmetric(matrix, least, *, strict=False):
    """Return whether it is symmetric with eigenvalues from `least` times the largest on."""
    largest = np.abs(matrix).max()
    if matrix.shape[0] != matrix.shape[1] or np.abs(matrix - matrix.T).max() > 1e-9 * largest:
        return False
    values = np.linalg.eigvalsh(matrix)
    bound = least * np.abs(values).max()
    return bool(values[0] > bound if strict else values[0] >= bound)


def _eigenbasis(hessian):
    return (hessian, None) if hessian.ndim == 1 else np.linalg.eigh(hessian)


def _matrix(vectors, dim):
    return np.eye(dim) if vectors is None else vectors


def _to_basis(vector, vectors):
    return vector if vectors is None else vector @ vectors


def _congruence(covariance, vectors):
    return covariance if vectors is None else vectors.T @ covariance @ vectors


def _factor(covariance):
    """Return a matrix whose product with its transpose is the covariance."""
    if covariance.ndim == 1:
        return np.diag(np.sqrt(covariance))
    values, vectors = np.linalg.eigh(covariance)
    return vectors * np.sqrt(np.maximum(values, 0))


def _times(times):
    return check.array("times", times, ndim=None, nonnegative=True, finite=False)


def _increasing(values, name="times"):
    numbers = check.array(name, values, nonnegative=name == "times")
    if np.any(np.diff(numbers) <= 0):
        check.reject(name, numbers.tolist(), "strictly increasing numbers")
    return numbers
