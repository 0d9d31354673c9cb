r"""SGD near a minimum, and the stochastic differential equation that stands for it.

All is per example: L is the mean loss, :math:`\Sigma` the covariance of one example's gradient.
SGD with heavy-ball momentum, rate :math:`\epsilon` and batch size B is compared with

.. math:: d\theta = -\nabla L\,dt + \sqrt{D}\,\Sigma^{1/2}\,dW, \qquad
          D = \frac{\epsilon}{B (1 - m)}, \qquad t = \frac{\epsilon}{1 - m}\cdot\text{steps}.

D is the noise scale g of `noise_scale` (with replacement) divided by N: the cost C of Smith and Le
is the sum N L, and their time runs N times as slowly.
"""

from dataclasses import dataclass

import numpy as np
from scipy.integrate import cumulative_trapezoid, trapezoid

from batchscaling import _validation as check
from batchscaling.noise._quadratic import basis, quadratic
from batchscaling.nqm._covariance import factor


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
        hessian, covariance = quadratic(self.hessian, self.covariance)
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
        eigen = basis(self.hessian)
        h, start = eigen.curvature, check.array("start", start)
        if start.shape != h.shape:
            check.reject("start", f"an array of shape {start.shape}", f"the shape {h.shape}")
        shrink = np.exp(-_times(times)[..., None] * h)
        return (shrink * eigen.inside(start)) @ eigen.vectors.T

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
        eigen, times = basis(self.hessian), _times(times)
        noise, pairs = eigen.covariance_inside(self.covariance), sum(eigen.pairs)
        times = times.reshape(times.shape + (1,) * noise.ndim)
        inside = self.diffusion * noise * -np.expm1(-times * pairs) / pairs
        return eigen.covariance_outside(inside)

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
        eigen = basis(self.hessian)
        noise = eigen.covariance_inside(self.covariance)
        return 0.5 * self.diffusion * eigen.variances(noise)

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
        now = np.tile(self.mean(start, 0.0), (paths, 1))
        out = np.empty((paths, len(times), now.shape[1]))
        for k, step in enumerate(np.diff(times, prepend=0.0)):
            shrink = self._mean_matrix(step)
            noise = rng.standard_normal(now.shape) @ factor(self.variance(step)).T
            now = out[:, k] = now @ shrink.T + noise
        return out

    def _mean_matrix(self, time):
        """Return the matrix exp(-H time) by which the mean moves."""
        eigen = basis(self.hessian)
        return (eigen.vectors * np.exp(-time * eigen.curvature)) @ eigen.vectors.T


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
    hessian, covariance = quadratic(hessian, covariance)
    batch_size = check.positive("batch_size", batch_size)
    momentum = check.below_one("momentum", momentum)
    eigen = basis(hessian)
    bound = 2 * (1 + momentum) / eigen.curvature.max()
    lr = check.real("lr", lr, 0, bound, low_open=True, high_open=True)
    noise = eigen.covariance_inside(covariance) / batch_size
    left, right = eigen.pairs
    inside = lr * noise * (lr * _response(momentum, lr * left, lr * right))
    return eigen.covariance_outside(inside)


def _response(momentum, x, y):
    """Return E[u v] of two directions driven by one noise of variance 1, for each pair.

    x and y are rate times curvature, and the rate is 1. It is what solves M = F M G^T + b b^T.
    """
    fresh, other = 1 - momentum, 1 + momentum
    steady = x * (other - y / 2) + y * (other - x / 2)
    return fresh * other / (fresh**2 * steady + momentum * (x - y) ** 2)


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
        Increasing, at least two; its ends should lie where the density is negligible.
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
    if len(grid) < 2:
        check.reject("grid", grid.tolist(), "at least two numbers")
    gradient = check.array("gradient", gradient)
    variance = check.array("variance", variance, positive=True)
    for name, values in (("gradient", gradient), ("variance", variance)):
        if values.shape != grid.shape:
            check.reject(name, f"an array of shape {values.shape}", f"the shape {grid.shape}")
    slope = -2 / check.positive("diffusion", diffusion) * gradient / variance
    exponent = cumulative_trapezoid(slope, x=grid, initial=0) - np.log(variance)
    density = np.exp(exponent - exponent.max())
    return density / trapezoid(density, grid)


def _times(times):
    return check.array("times", times, ndim=None, nonnegative=True, finite=False)


def _increasing(values, name="times"):
    numbers = check.array(name, values, nonnegative=name == "times")
    if np.any(np.diff(numbers) <= 0):
        check.reject(name, numbers.tolist(), "strictly increasing numbers")
    return numbers
