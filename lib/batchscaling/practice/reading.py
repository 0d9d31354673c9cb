"""What a measurement says: a noise scale with its interval, or why it cannot tell."""

import math
from dataclasses import dataclass, field


@dataclass(frozen=True)
class NoiseReading:
    r"""A noise scale, or the reason why there is none.

    Attributes
    ----------
    batch_size, low, high : float or None
        The noise scale :math:`\operatorname{tr}\Sigma / |G|^2` in examples, and its confidence
        interval. None where the measurement cannot tell.
    reason : str or None
        Why it cannot tell; None where it can.
    trace, signal : float or None
        Unbiased estimates of :math:`\operatorname{tr}\Sigma` and :math:`|G|^2`; either may be
        negative by chance. None where nothing was measured.
    measured, left_out : int
        Steps, or examples of a probe, that count, and steps that do not.
    groups : dict of str to NoiseReading
        The same for each group of parameters.
    taken : int
        Gradients of single examples that the measurement took, besides those of training.
    """

    batch_size: float | None
    low: float | None
    high: float | None
    reason: str | None
    trace: float | None
    signal: float | None
    measured: int
    left_out: int = 0
    groups: dict = field(default_factory=dict, repr=False)
    taken: int = 0

    def __str__(self):
        if self.reason is not None:
            return f"cannot tell: {self.reason}"
        return f"{self.batch_size:.3g} examples, between {self.low:.3g} and {self.high:.3g}"


def nothing(measured, left_out, reason, labels=()):
    """Return a reading without any numbers."""
    groups = {label: nothing(measured, left_out, reason) for label in labels}
    return NoiseReading(None, None, None, reason, None, None, measured, left_out, groups)


def read(estimate, measured, left_out=0, groups=None):
    """Return the reading of a `NoiseEstimate` of plain numbers."""
    reason = _doubt(estimate)
    scale = (None,) * 3 if reason else (estimate.batch_size, estimate.low, estimate.high)
    parts = (estimate.trace, estimate.signal, measured, left_out, groups or {})
    return NoiseReading(*scale, reason, *parts)


def _doubt(estimate):
    """Return why an estimate is no number to go by, or None."""
    if estimate.trace == 0 and estimate.signal == 0:
        return "no gradient was seen"
    if estimate.signal <= 0 or math.isinf(estimate.high):
        bound = f"; the noise scale is above {estimate.low:.3g}" if estimate.low > 0 else ""
        return f"the signal is not clear of the noise{bound}"
    if estimate.low <= 0:
        return f"the noise is not clear of zero; the noise scale is below {estimate.high:.3g}"
    return None
