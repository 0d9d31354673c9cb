r"""The spectrum of a large symmetric matrix from products with vectors.

Lanczos' method, started from a random vector v, gives nodes and weights of a Gauss quadrature with
:math:`v^\top f(A)\,v \approx \sum_j \tau_j f(\theta_j)`. The mean over random v of unit variance
is the trace of f(A). With f = ln it is the log-determinant.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.linalg import eigh_tridiagonal

from batchscaling import _validation as check
from batchscaling._scaling import exponent, restore


@dataclass(frozen=True, eq=False)
class Spectrum:
    """A quadrature of a matrix's spectral density, one for each random vector.

    Attributes
    ----------
    dim : int
        Size of the matrix.
    nodes : ndarray, shape (probes, steps)
        Ritz values, rising. The outermost are close to the extreme eigenvalues.
    weights : ndarray, shape (probes, steps)
        Parts of the spectrum, with sum 1 over the nodes.
    """

    dim: int
    nodes: np.ndarray
    weights: np.ndarray

    def trace(self, function):
        """Return the trace of a function of the matrix, and its standard error.

        Parameters
        ----------
        function : callable
            Maps an array of eigenvalues to their values, such as ``numpy.log``.

        Returns
        -------
        estimate, error : float
            The error is that of the random vectors; it is NaN for one of them. It does not hold
            that of too few Lanczos steps.

        Raises
        ------
        ValueError
            If the function has no finite value at a node, or returns another shape.
        """
        values = np.asarray(function(self.nodes), dtype=float)
        if values.shape not in ((), self.nodes.shape):
            shape = f"one that returns shape {values.shape}"
            check.reject("function", shape, f"the shape of the nodes, {self.nodes.shape}")
        values = np.broadcast_to(values, self.nodes.shape)
        if not np.isfinite(values).all():
            bad = float(self.nodes[~np.isfinite(values)][0])
            check.reject("function", f"not finite at {bad:.4g}", "finite at all nodes")
        power = exponent(values)
        each = self.dim * np.sum(self.weights * np.ldexp(values, -power), axis=1)
        error = np.std(each, ddof=1) / np.sqrt(len(each)) if len(each) > 1 else np.nan
        return tuple(float(restore("function", part, power)) for part in (each.mean(), error))

    def log_det(self, shift=0.0):
        """Return the log-determinant of the matrix plus `shift` times the identity, and its error.

        Parameters
        ----------
        shift : float
            Such as the precision of a prior, if the matrix is the Hessian of the data alone. It
            must lift all nodes above zero.

        Returns
        -------
        estimate, error : float
        """
        shift = check.real("shift", shift)
        least = self.nodes.min()
        if least + shift <= 0:
            check.reject("shift", shift, f"above {-least:.6g}, which makes the matrix positive")
        return self.trace(lambda nodes: np.log(nodes + shift))

    def ranks(self):
        """Return estimates of the ranks of eigenvalues, the largest first.

        Weights say how many eigenvalues a node stands for. The rank of the middle of them is a
        mean over random vectors; among the first few its relative error is of order 1.

        Returns
        -------
        rank, values : ndarray, shape (n,)
            Of the positive nodes of rank 1 or more.
        """
        order = np.argsort(self.nodes, axis=None)[::-1]
        values = self.nodes.ravel()[order]
        counts = self.dim * self.weights.ravel()[order] / len(self.nodes)
        rank = np.cumsum(counts) - counts / 2
        seen = (rank >= 1) & (values > 0)
        return rank[seen], values[seen]

    def density(self, grid, width):
        """Return the density of eigenvalues, smoothed by a Gaussian.

        Parameters
        ----------
        grid : array_like, shape (n,)
            Where to evaluate it.
        width : float
            Standard deviation of the Gaussian, positive.

        Returns
        -------
        ndarray, shape (n,)
            With integral 1.
        """
        grid, width = check.array("grid", grid), check.positive("width", width)
        bumps = np.exp(-0.5 * ((grid[:, None, None] - self.nodes) / width) ** 2)
        bumps /= width * np.sqrt(2 * np.pi)
        return np.einsum("gps,ps->g", bumps, self.weights) / len(self.nodes)


def lanczos_spectrum(matvec, dim, *, steps, probes, seed):
    """Return the spectrum of a symmetric matrix by stochastic Lanczos quadrature.

    Each random vector of signs gets `steps` products with the matrix. All Lanczos vectors are kept
    and made orthogonal again, so memory is ``steps * dim`` numbers.

    Parameters
    ----------
    matvec : callable
        Maps a vector of shape (dim,) to its product with the symmetric matrix.
    dim : int
        At least 1.
    steps : int
        Products for each random vector, at least 1; at most `dim` are taken. 30 to 100 as a rule.
    probes : int
        Random vectors, at least 1.
    seed : int or numpy.random.Generator

    Returns
    -------
    Spectrum

    Raises
    ------
    ValueError
        If an argument is out of its range.

    References
    ----------
    Ubaru, Chen and Saad, "Fast estimation of tr(f(A)) via stochastic Lanczos quadrature", 2017,
    algorithm 1; Ghorbani, Krishnan and Xiao, "An investigation into neural net optimization via
    Hessian eigenvalue density", 2019, for networks.
    """
    dim = check.integer("dim", dim, 1)
    steps = min(check.integer("steps", steps, 1), dim)
    probes = check.integer("probes", probes, 1)
    if not isinstance(matvec, Callable):
        check.reject("matvec", matvec, "a function of a vector")
    rng = check.generator(seed)
    nodes, weights = np.zeros((2, probes, steps))
    for probe in range(probes):
        start = rng.choice([-1.0, 1.0], dim) / np.sqrt(dim)
        diagonal, beside, power = _lanczos(matvec, start, steps)
        values, vectors = eigh_tridiagonal(diagonal, beside)
        values = restore("matvec", values, power)
        nodes[probe, : len(values)], weights[probe, : len(values)] = values, vectors[0] ** 2
        # A start inside a small invariant space needs fewer nodes: the rest weigh nothing.
        nodes[probe, len(values) :] = values[-1]
    return Spectrum(dim, nodes, weights)


def trace_estimate(matvec, dim, *, products, seed):
    """Return the trace of a symmetric matrix from products with vectors, and its standard error.

    A third of the products finds a space that holds the largest eigenvalues, a third takes the
    trace there, exactly, and the last third estimates what is left with random vectors of signs
    (Hutch++). Where a few eigenvalues hold most of the trace, as in networks, its error is far
    below that of random vectors alone, which ``lanczos_spectrum(..., steps=1)`` gives.

    Parameters
    ----------
    matvec : callable
        Maps a vector of shape (dim,) to its product with the symmetric matrix.
    dim : int
        At least 1.
    products : int
        Calls of `matvec`, at least 6; a third of them are the random vectors. If there are three
        times `dim` or more, the trace is exact.
    seed : int or numpy.random.Generator

    Returns
    -------
    estimate, error : float

    Raises
    ------
    ValueError
        If an argument is out of its range.

    References
    ----------
    Meyer, Musco, Musco and Woodruff, "Hutch++: optimal stochastic trace estimation", 2021,
    algorithm 1.
    """
    dim = check.integer("dim", dim, 1)
    third = check.integer("products", products, 6) // 3
    rng = check.generator(seed)
    if not isinstance(matvec, Callable):
        check.reject("matvec", matvec, "a function of a vector")
    if third >= dim:
        identity = np.eye(dim)
        return float(sum(row @ _product(matvec, row) for row in identity)), 0.0
    starts = rng.choice([-1.0, 1.0], (third, dim))
    space = np.linalg.qr(np.array([_product(matvec, start) for start in starts]).T)[0].T
    known = sum(vector @ _product(matvec, vector) for vector in space)
    rest = rng.choice([-1.0, 1.0], (third, dim))
    rest -= (rest @ space.T) @ space
    each = np.array([vector @ _product(matvec, vector) for vector in rest])
    return float(known + each.mean()), float(np.std(each, ddof=1) / np.sqrt(third))


def _product(matvec, vector):
    """Return the product with a vector, its shape and numbers checked."""
    product = np.asarray(matvec(vector.copy()), dtype=float)  # it may compute in place
    if product.shape != vector.shape:
        shape = f"a function that returns shape {product.shape}"
        check.reject("matvec", shape, f"the shape of its argument, {vector.shape}")
    if not np.isfinite(product).all():
        check.reject("matvec", "a function that returns NaN or infinity", "finite numbers")
    return product


def _lanczos(matvec, start, steps):
    """Return the diagonal and the off-diagonal of the matrix in the Lanczos basis.

    Both are to be multiplied by two to the power of the third result.
    """
    basis, diagonal, beside, largest, power = [start], [], [], 0.0, 0
    for step in range(steps):
        product = _product(matvec, basis[-1])
        if step == 0:
            power = exponent(product)
        product = np.ldexp(product, -power)
        diagonal.append(product @ basis[-1])
        known = np.array(basis)
        largest = max(largest, np.linalg.norm(product))
        for _ in range(2):  # twice is enough
            product = product - known.T @ (known @ product)
        rest = np.linalg.norm(product)
        if step == steps - 1 or rest <= 1e-10 * largest:
            break
        beside.append(rest)
        basis.append(product / rest)
    return np.array(diagonal), np.array(beside), power
