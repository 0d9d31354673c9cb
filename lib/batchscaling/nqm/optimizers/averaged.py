"""Exponential moving average of the parameters of another optimizer."""

from dataclasses import dataclass

from batchscaling import _validation as check
from batchscaling.nqm.optimizers.base import Optimizer, require_optimizer


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
        method = self.base.method()
        return method.with_sum(self.decay, 1 - self.decay, method.readout @ method.start)

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
