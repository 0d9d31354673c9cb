"""A quadratic loss with noise: its checks, and the basis in which its Hessian is diagonal."""

import numpy as np

from batchscaling import _validation as check
from batchscaling.nqm._covariance import checked_covariance, symmetric


class Directions:
    """Independent directions: vectors, variances and curvatures of each, shape (d,)."""

    def __init__(self, hessian):
        self.curvature = hessian
        self.vectors = np.eye(len(hessian))
        self.pairs = hessian, hessian

    def inside(self, vector):
        """Return a vector in this basis."""
        return vector

    def covariance_inside(self, covariance):
        """Return a covariance in this basis, of its own shape."""
        return covariance

    def covariance_outside(self, covariance):
        """Return a covariance of this basis in the coordinates."""
        return covariance

    def variances(self, covariance):
        """Return the variance along each direction of this basis."""
        return covariance


class Eigenvectors:
    """The eigenvectors of a symmetric matrix: covariances are matrices, shape (d, d)."""

    def __init__(self, hessian):
        self.curvature, self.vectors = np.linalg.eigh(hessian)
        self.pairs = self.curvature[:, None], self.curvature[None, :]

    def inside(self, vector):
        """Return a vector in this basis."""
        return vector @ self.vectors

    def covariance_inside(self, covariance):
        """Return a covariance in this basis."""
        return self.vectors.T @ covariance @ self.vectors

    def covariance_outside(self, covariance):
        """Return a covariance of this basis in the coordinates."""
        return self.vectors @ covariance @ self.vectors.T

    def variances(self, covariance):
        """Return the variance along each direction of this basis."""
        return np.diag(covariance).copy()


def basis(hessian):
    """Return the basis in which a Hessian, of shape (d,) or (d, d), is diagonal."""
    return (Directions if hessian.ndim == 1 else Eigenvectors)(hessian)


def quadratic(hessian, covariance):
    """Return Hessian and covariance as arrays of one shape, (d,) or (d, d), checked."""
    matrix = check.dimensions(hessian) == 2
    hessian = check.array("hessian", hessian, ndim=2 if matrix else 1, positive=not matrix)
    if matrix and not symmetric(hessian, 0, strict=True):
        check.reject("hessian", "another matrix", "a symmetric positive-definite matrix")
    return hessian, checked_covariance(covariance, hessian.shape)
