"""Extrapolated SGD."""

from dataclasses import dataclass, replace

import numpy as np

from batchscaling import _validation as check
from batchscaling.nqm.optimizers.base import LinearMethod, MomentumOptimizer


@dataclass(frozen=True)
class ExtrapSGD(MomentumOptimizer):
    r"""Nesterov momentum whose gradient is taken one extrapolation step ahead.

    The gradient g is taken at :math:`w + u v - \hat\gamma\,\bar g`, where :math:`\bar g` is the
    gradient of the step before (zero at first). Then :math:`v' = u v - \gamma g`,
    :math:`w' = w + v'` and :math:`\bar g' = g`. On a quadratic the mean over any number of workers
    obeys this same recursion.

    Parameters
    ----------
    lr : float
        Learning rate :math:`\gamma`, positive.
    momentum : float
        u, at least 0 and below 1.
    extrapolation : float
        :math:`\hat\gamma`, at least 0. With 0 the method is `Nesterov`.

    References
    ----------
    Lin et al., "Extrapolation for large-batch training in deep learning", 2020, algorithm 1.
    """

    extrapolation: float

    def __post_init__(self):
        super().__post_init__()
        check.fields(self, extrapolation=check.nonnegative)

    def method(self):
        lr, u = self.lr, self.momentum
        parameter = np.array([1.0, 0.0, 0.0])
        return LinearMethod(
            A=np.array([[1.0, u, 0.0], [0.0, u, 0.0], [0.0, 0.0, 0.0]]),
            b=np.array([-lr, -lr, 1.0]),
            query=np.array([1.0, u, -self.extrapolation]),
            readout=parameter,
            start=parameter,
        )

    @property
    def curvature_limit(self):
        # With x = lr h and y = extrapolation h the characteristic polynomial is
        # z^3 + [(1+u)(x-1) + y] z^2 + [u(1-x) - y(1+u)] z + u y, and Jury's conditions are
        # polynomials in h, positive at h = 0. The limit is the smallest h at which one fails.
        # Rates count in units of the larger one, so that no product of them overflows.
        unit = max(self.lr, self.extrapolation)
        x, y = (np.poly1d([rate / unit, 0]) for rate in (self.lr, self.extrapolation))
        u = self.momentum
        a2, a1, a0 = (1 + u) * (x - 1) + y, u * (1 - x) - (1 + u) * y, u * y
        conditions = [
            1 - a2 + a1 - a0,
            1 - a0,
            1 - a0 * a0 - (a1 - a0 * a2),
            1 - a0 * a0 + (a1 - a0 * a2),
        ]
        # Roots in 1/h: the first coefficient is then never zero.
        inverse = np.concatenate([np.roots(condition.coeffs[::-1]) for condition in conditions])
        real = np.abs(inverse.imag) <= 1e-12 * np.abs(inverse)
        return float(1 / inverse.real[real].max() / unit)

    def with_lr(self, lr):
        lr = check.positive("lr", lr)
        return replace(self, lr=lr, extrapolation=self.extrapolation * (lr / self.lr))
