r"""The noisy quadratic model of softmax regression: everything it needs, exactly.

An example x of class k has the loss :math:`-\log p_k`, where :math:`p` is the softmax of
:math:`W^\top x` and x ends in a one, for the biases. With e = p - onehot(k), its gradient is
:math:`x \otimes e` and its Hessian :math:`x x^\top \otimes (\operatorname{diag} p - p p^\top)`.
Parameters are one vector: the row of W of the first input, then that of the second, and so on.
"""

from dataclasses import dataclass
from math import prod

import numpy as np
from scipy.linalg import LinAlgError, cho_factor, cho_solve, cholesky, eigh
from scipy.special import log_softmax

from batchscaling import _validation as check
from batchscaling.nqm import NoisyQuadratic

_CHUNK = 4096  # examples at once
_NEWTON_STEPS = 100
_CLOSE = 1e-10  # half the squared Newton decrement at which the minimum is found


@dataclass(frozen=True, eq=False)
class LocalQuadratic:
    """The quadratic that a loss is near its minimum, and the noise of its gradient there.

    Attributes
    ----------
    minimum : float
        Smallest value of the objective.
    point : ndarray, shape (P,)
        Where it is.
    hessian, covariance : ndarray, shape (P, P)
        The objective's Hessian at the minimum, and the covariance of one example's gradient.
    """

    minimum: float
    point: np.ndarray
    hessian: np.ndarray
    covariance: np.ndarray

    def problem(self, start, scales=None):
        r"""Return the noisy quadratic problem in the eigenbasis of the Hessian.

        With a preconditioner :math:`D = R R^\top` the update
        :math:`\theta' = \theta - \alpha D g` is plain SGD in the coordinates
        :math:`R^{-1}\theta`. Their Hessian is :math:`R^\top H R`, and so is their covariance.
        The loss is the same number.

        Parameters
        ----------
        start : array_like, shape (P,)
            Parameters before the first step.
        scales : array_like, shape (P,) or (P, P), optional
            D, or its diagonal if that is all. The default is ones.

        Returns
        -------
        NoisyQuadratic
            Curvatures in decreasing order. Of the covariance it keeps the variances along the
            eigenvectors.

        Raises
        ------
        ValueError
            If a shape is another one, D is not positive definite or not symmetric, or the Hessian
            has an eigenvalue that is not positive.
        """
        start = check.array("start", start)
        scales = check.array("scales", np.ones_like(start) if scales is None else scales, ndim=None)
        shapes = {"start": [self.point.shape], "scales": [self.point.shape, self.hessian.shape]}
        for name, values in {"start": start, "scales": scales}.items():
            if values.shape not in shapes[name]:
                allowed = f"shape {' or '.join(map(str, shapes[name]))}"
                check.reject(name, f"an array of shape {values.shape}", allowed)
        root = _root(scales)
        curvature, vectors = eigh(root.T @ self.hessian @ root)
        noise = np.einsum("ij,ij->j", vectors, root.T @ self.covariance @ root @ vectors)
        along = np.linalg.solve(root, start - self.point) @ vectors
        down = slice(None, None, -1)
        return NoisyQuadratic(curvature[down], noise.clip(min=0)[down], along[down] ** 2)


def _root(scales):
    """Return R with R Rᵀ equal to a matrix, or to the diagonal one of a vector."""
    if scales.ndim == 1:
        return np.diag(np.sqrt(check.array("scales", scales, positive=True)))
    if not np.allclose(scales, scales.T, rtol=1e-6, atol=0):
        check.reject("scales", "a matrix that is not symmetric", "a symmetric one")
    try:
        return cholesky(scales, lower=True)
    except LinAlgError:
        check.reject("scales", "a matrix that is not positive definite", "a positive definite one")


class SoftmaxRegression:
    r"""Softmax regression with weight decay on a fixed set of examples.

    Its objective is the mean loss plus ``weight_decay / 2`` times the squared norm of all
    parameters, biases among them. It is convex and has one minimum.

    Parameters
    ----------
    inputs : array_like, shape (n, ...)
        Flattened for each example.
    labels : array_like of int, shape (n,)
        From 0 on.
    weight_decay : float
        Positive.

    Raises
    ------
    ValueError
        If an argument is outside its range, or numbers of inputs and labels differ.
    """

    def __init__(self, inputs, labels, *, weight_decay):
        inputs = check.array("inputs", inputs, ndim=None)
        if inputs.ndim < 1:
            check.reject("inputs", inputs, "an array of at least one dimension")
        inputs = inputs.reshape(len(inputs), prod(inputs.shape[1:]))
        self.inputs = np.column_stack([inputs, np.ones(len(inputs))])
        labels = check.integers("labels", labels, 0, np.iinfo(np.int64).max)
        check.same_shape("labels", labels, "the first axis of inputs", (len(inputs),))
        self.targets = np.eye(int(labels.max()) + 1)[labels]
        self.weight_decay = check.positive("weight_decay", weight_decay)

    @property
    def dim(self):
        """P, the number of parameters."""
        return self.inputs.shape[1] * self.targets.shape[1]

    def value(self, params):
        """Return the objective at parameters of shape (P,)."""
        params = self._checked(params)
        scores = log_softmax(self._outputs(params), axis=1)
        return -(scores * self.targets).sum(1).mean() + self.weight_decay / 2 * params @ params

    def slope(self, params):
        """Return the objective's gradient, shape (P,)."""
        params = self._checked(params)
        mean = (self.inputs.T @ self._errors(params)).ravel() / len(self.inputs)
        return mean + self.weight_decay * params

    def hessian(self, params):
        """Return the objective's Hessian, shape (P, P)."""
        p = np.exp(log_softmax(self._outputs(self._checked(params)), axis=1))
        features, classes = self.inputs.shape[1], p.shape[1]
        whole = np.empty((features, classes, features, classes))
        for j in range(classes):
            for k in range(j, classes):
                weights = p[:, j] * ((j == k) - p[:, k])
                block = (self.inputs.T * weights) @ self.inputs / len(self.inputs)
                whole[:, j, :, k] = whole[:, k, :, j] = block
        return whole.reshape(self.dim, self.dim) + self.weight_decay * np.eye(self.dim)

    def minimise(self):
        """Return the minimum, shape (P,), by Newton's method with halved steps from zero.

        Raises
        ------
        ValueError
            If the weight decay is so small that the Hessian is not positive definite in floats.
        """
        params = np.zeros(self.dim)
        for _ in range(_NEWTON_STEPS):
            slope = self.slope(params)
            step = self._newton_step(params, slope)
            decrement = slope @ step
            if decrement / 2 < _CLOSE:
                break
            value, length = self.value(params), 1.0
            while self.value(params - length * step) > value - 0.1 * length * decrement:
                length /= 2
            params = params - length * step
        return params - step

    def local_quadratic(self):
        """Return the `LocalQuadratic` at the minimum."""
        point = self.minimise()
        covariance = self.gradient_covariance(point)
        return LocalQuadratic(self.value(point), point, self.hessian(point), covariance)

    def gradient_covariance(self, params):
        """Return the covariance of one example's gradient, shape (P, P)."""
        errors = self._errors(self._checked(params))
        total = np.zeros((self.dim, self.dim))
        for first in range(0, len(errors), _CHUNK):
            part = slice(first, first + _CHUNK)
            each = self.inputs[part, :, None] * errors[part, None, :]
            each = each.reshape(-1, self.dim)
            total += each.T @ each
        mean = (self.inputs.T @ errors).ravel() / len(errors)
        return total / len(errors) - np.outer(mean, mean)

    def _newton_step(self, params, slope):
        try:
            return cho_solve(cho_factor(self.hessian(params)), slope)
        except LinAlgError:
            allowed = "a larger one, with which the Hessian is positive definite in floats"
            check.reject("weight_decay", self.weight_decay, allowed)

    def _checked(self, params):
        params = check.array("params", params)
        check.same_shape("params", params, "one vector of all parameters", (self.dim,))
        return params

    def _outputs(self, params):
        return self.inputs @ params.reshape(self.inputs.shape[1], -1)

    def _errors(self, params):
        return np.exp(log_softmax(self._outputs(params), axis=1)) - self.targets
