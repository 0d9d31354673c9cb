"""Stochastic gradient descent."""

from dataclasses import dataclass

import numpy as np

from batchscaling import _validation as check
from batchscaling.nqm.optimizers.base import LinearMethod, Optimizer


@dataclass(frozen=True)
class SGD(Optimizer):
    r"""Stochastic gradient descent, :math:`\theta' = \theta - \alpha g`.

    Parameters
    ----------
    lr : float
        Learning rate :math:`\alpha`, positive.

    References
    ----------
    Zhang et al. (2019), equation 2.
    """

    lr: float

    def __post_init__(self):
        check.fields(self, lr=check.positive)

    def method(self):
        one = np.ones(1)
        return LinearMethod(
            A=np.ones((1, 1)), b=np.array([-self.lr]), query=one, readout=one, start=one
        )

    @property
    def curvature_limit(self):
        return 2 / self.lr
