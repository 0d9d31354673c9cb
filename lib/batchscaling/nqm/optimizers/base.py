"""The one contract of all optimizers on the noisy quadratic model."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from batchscaling import _validation as check


class LinearMethod(NamedTuple):
    r"""The coefficients of a linear optimizer of n numbers a direction.

    With state s, one step draws a gradient at the query point :math:`q^\top s` and moves by
    :math:`s' = A s + b\,g`, where :math:`g = h\,q^\top s + \xi` and
    :math:`\operatorname{var}\xi = c/B`. So the transition matrix is
    :math:`F(h) = A + h\,b\,q^\top` and the noise enters along b.

    Attributes
    ----------
    A : ndarray, shape (n, n)
        What the step does without a gradient.
    b : ndarray, shape (n,)
        Where the gradient enters.
    query : ndarray, shape (n,)
        q: where the gradient is taken.
    readout : ndarray, shape (n,)
        The parameter whose risk is meant, as a combination of the state.
    start : ndarray, shape (n,)
        The state that belongs to the parameter value 1 before the first step.
    """

    A: np.ndarray
    b: np.ndarray
    query: np.ndarray
    readout: np.ndarray
    start: np.ndarray

    def with_sum(self, keep, add, start):
        """Return the method that also sums its read-outs, and reads out the sum.

        The sum is one more number of the state. A step keeps the part `keep` of it, and adds `add`
        times the new read-out; before the first step it is `start`.
        """
        A, b, query, readout, before = self
        column = np.zeros((len(b), 1))
        return LinearMethod(
            A=np.block([[A, column], [add * readout @ A, np.full(1, keep)]]),
            b=np.append(b, add * readout @ b),
            query=np.append(query, 0.0),
            readout=np.append(np.zeros(len(b)), 1.0),
            start=np.append(before, start),
        )


class Optimizer(ABC):
    """Base of all optimizers: frozen dataclasses of hyperparameters."""

    @abstractmethod
    def method(self):
        """Return the coefficients as a `LinearMethod`."""

    @property
    @abstractmethod
    def curvature_limit(self):
        """The method is stable along curvature h > 0 if and only if h is below this number."""

    def with_lr(self, lr):
        """Return the same method at another learning rate; steps in proportion to it go along."""
        return replace(self, lr=lr)

    def transition(self, curvature):
        r"""Return the matrices :math:`F(h) = A + h\,b\,q^\top`.

        Parameters
        ----------
        curvature : array_like, shape (...)

        Returns
        -------
        ndarray, shape (n, n, ...)
        """
        method = self.method()
        h = check.array("curvature", curvature, ndim=None)
        axes = (slice(None), slice(None)) + (None,) * h.ndim
        return method.A[axes] + h * np.outer(method.b, method.query)[axes]


@dataclass(frozen=True)
class MomentumOptimizer(Optimizer):
    """Base of optimizers with momentum: the two hyperparameters that they share."""

    lr: float
    momentum: float

    def __post_init__(self):
        check.fields(self, lr=check.positive, momentum=check.below_one)


def require_optimizer(name, value):
    """Return `value`, which is called `name`, or raise a ``ValueError`` if it is no optimizer."""
    if not isinstance(value, Optimizer):
        check.reject(name, value, "an optimizer such as SGD(lr=0.1)")
    return value
