"""Stochastic gradient descent with Nesterov momentum."""

from dataclasses import dataclass

import numpy as np

from batchscaling.nqm.optimizers.base import LinearMethod, MomentumOptimizer


@dataclass(frozen=True)
class Nesterov(MomentumOptimizer):
    r"""Nesterov momentum: the gradient is taken where the velocity leads.

    :math:`v' = \beta v - \alpha g(\theta + \beta v)`, :math:`\theta' = \theta + v'`. The state is
    :math:`(\theta, v)` and v starts at zero.

    Parameters
    ----------
    lr : float
        Learning rate :math:`\alpha`, positive.
    momentum : float
        :math:`\beta`, at least 0 and below 1.

    References
    ----------
    Sutskever et al., "On the importance of initialization and momentum in deep learning", 2013.
    """

    def method(self):
        lr, momentum = self.lr, self.momentum
        parameter = np.array([1.0, 0.0])
        return LinearMethod(
            A=np.array([[1.0, momentum], [0.0, momentum]]),
            b=np.array([-lr, -lr]),
            query=np.array([1.0, momentum]),
            readout=parameter,
            start=parameter,
        )

    @property
    def curvature_limit(self):
        return 2 * (1 + self.momentum) / (self.lr * (1 + 2 * self.momentum))
