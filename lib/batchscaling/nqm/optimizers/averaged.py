"""Exponential moving average of the parameters of another optimizer."""

from dataclasses import dataclass

import numpy as np

from batchscaling import _validation as check
from batchscaling.nqm.optimizers.base import LinearMethod, Optimizer, require_optimizer


@dataclass(frozen=True)
class Averaged(Optimizer):
    r"""The running average :math:`\tilde\theta' = \gamma\tilde\theta + (1 - \gamma)\theta'`.

    The risk is that of the average, which starts at :math:`\tilde\theta(0) = \theta(0)`. The
    optimizer itself runs on without noticing.

    Parameters
    ----------
    base : Optimizer
        What is averaged.
    decay : float
        :math:`\gamma`, at least 0 (no average) and below 1.

    References
    ----------
    Zhang et al. (2019), final version, Theorem 2.
    """

    base: Optimizer
    decay: float

    def __post_init__(self):
        check.fields(self, base=require_optimizer, decay=check.below_one)

    def method(self):
        A, b, query, readout, start = self.base.method()
        fresh = 1 - self.decay
        with_average = np.zeros((len(b) + 1, len(b) + 1))
        with_average[:-1, :-1] = A
        with_average[-1, :-1] = fresh * readout @ A
        with_average[-1, -1] = self.decay
        return LinearMethod(
            A=with_average,
            b=np.append(b, fresh * readout @ b),
            query=np.append(query, 0.0),
            readout=np.append(np.zeros(len(b)), 1.0),
            start=np.append(start, readout @ start),
        )

    @property
    def curvature_limit(self):
        return self.base.curvature_limit

    @property
    def lr(self):
        """Learning rate of the base."""
        return self.base.lr

    @property
    def momentum(self):
        """Momentum of the base, 0 for SGD."""
        return getattr(self.base, "momentum", 0.0)

    def with_lr(self, lr):
        return Averaged(self.base.with_lr(lr), self.decay)
