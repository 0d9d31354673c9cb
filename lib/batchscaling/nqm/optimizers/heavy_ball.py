"""Stochastic gradient descent with heavy-ball momentum."""

from dataclasses import dataclass

import numpy as np

from batchscaling.nqm.optimizers.base import LinearMethod, MomentumOptimizer


@dataclass(frozen=True)
class HeavyBall(MomentumOptimizer):
    r"""Heavy-ball momentum, :math:`v' = \beta v + g`, :math:`\theta' = \theta - \alpha v'`.

    The state is :math:`(\theta, v)` and v starts at zero.

    Parameters
    ----------
    lr : float
        Learning rate :math:`\alpha`, positive.
    momentum : float
        :math:`\beta`, at least 0 and below 1.

    References
    ----------
    Zhang et al. (2019), equation 5.
    """

    def method(self):
        lr, momentum = self.lr, self.momentum
        parameter = np.array([1.0, 0.0])
        return LinearMethod(
            A=np.array([[1.0, -lr * momentum], [0.0, momentum]]),
            b=np.array([-lr, 1.0]),
            query=parameter,
            readout=parameter,
            start=parameter,
        )

    @property
    def curvature_limit(self):
        return 2 * (1 + self.momentum) / self.lr
