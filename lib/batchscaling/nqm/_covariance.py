"""Covariances of one example's gradient: their checks and their roots."""

import numpy as np

from batchscaling import _validation as check


def checked_covariance(covariance, *shapes):
    """Return a covariance, or variances of independent directions, of one of the shapes."""
    matrix = check.dimensions(covariance) == 2
    covariance = check.array(
        "covariance", covariance, ndim=2 if matrix else 1, nonnegative=not matrix
    )
    if covariance.shape not in shapes:
        allowed = " or ".join(str(shape) for shape in shapes)
        check.reject("covariance", f"an array of shape {covariance.shape}", f"the shape {allowed}")
    if matrix and not symmetric(covariance, -1e-9):
        allowed = "a symmetric matrix without negative eigenvalues"
        check.reject("covariance", "another matrix", allowed)
    return covariance


def factor(covariance):
    """Return a matrix whose product with its transpose is the covariance."""
    if covariance.ndim == 1:
        return np.diag(np.sqrt(covariance))
    values, vectors = np.linalg.eigh(covariance)
    return vectors * np.sqrt(np.maximum(values, 0))


def symmetric(matrix, least, *, strict=False):
    """Return whether it is symmetric with eigenvalues from `least` times the largest on."""
    largest = np.abs(matrix).max()
    if matrix.shape[0] != matrix.shape[1] or np.abs(matrix - matrix.T).max() > 1e-9 * largest:
        return False
    values = np.linalg.eigvalsh(matrix)
    bound = least * np.abs(values).max()
    return bool(values[0] > bound if strict else values[0] >= bound)
