"""Ranges of hyperparameters, spread evenly in logarithms.

A search goes through logarithms, because hyperparameters act by their ratios. Momentum, beta1 and
decay are searched through their distance to 1.
"""

import sys
from dataclasses import dataclass, replace

import numpy as np

from batchscaling import _validation as check

_FLOATS = sys.float_info

EDGE = 0.1
"""An optimum within this part of a range, at either end, counts as on the border."""

GROWTH = 0.5
"""A range that is too short grows by this part of its length, in logarithms."""


@dataclass(frozen=True)
class Range:
    """Values between two numbers, spread evenly in logarithms.

    Parameters
    ----------
    low, high : float
        Positive, low below high. Of ``1 - value`` if `complement`.
    complement : bool
        For a value such as momentum, from 0 to below 1. Then `high` is at most 1, and at 1 it is
        no border: nothing lies beyond momentum 0.

    Raises
    ------
    ValueError
        If a number is outside its range.
    """

    low: float
    high: float
    complement: bool = False

    def __post_init__(self):
        check.fields(self, low=check.positive, high=check.positive, complement=check.flag)
        if self.high <= self.low:
            check.reject("high", self.high, f"above low, {self.low}")
        if self.complement and self.high > 1:
            check.reject("high", self.high, "at most 1 for a complement")

    def values(self, unit):
        """Return the values at positions from 0 (`low`) to 1 (`high`)."""
        numbers = self._at(check.array("unit", unit, ndim=None))
        numbers = np.clip(numbers, self.low, self.high)  # against rounding
        return 1 - numbers if self.complement else numbers

    def position(self, value):
        """Return where a value lies: 0 at `low`, 1 at `high`."""
        value = check.real("value", value)
        number = 1 - value if self.complement else value
        if number <= 0:
            check.reject("value", value, "below 1" if self.complement else "above 0")
        return float(_log_ratio(number, self.low) / _log_ratio(self.high, self.low))

    def border(self, value):
        """Return "low" or "high" if a value lies at that end of the range, else None.

        The end at which a complement is 1 is no border.
        """
        position = self.position(value)
        if position < EDGE:
            return "low"
        return "high" if position > 1 - EDGE and not (self.complement and self.high == 1) else None

    def beyond(self, side):
        """Return the range that a longer one adds at the side "low" or "high"."""
        if check.one_of("side", side, ("low", "high")) == "low":
            return replace(self, low=max(self.low / self._growth, _FLOATS.min), high=self.low)
        highest = 1.0 if self.complement else _FLOATS.max
        return replace(self, low=self.high, high=min(self.high * self._growth, highest))

    @property
    def _growth(self):
        ratio = self.high / self.low
        return ratio**GROWTH if ratio < np.inf else self.high**GROWTH / self.low**GROWTH

    def _at(self, unit):
        ratio = self.high / self.low
        is_finite = ratio < np.inf
        return self.low * ratio**unit if is_finite else self.low ** (1 - unit) * self.high**unit


def _log_ratio(number, base):
    """Return the logarithm of a quotient, which itself may be beyond floats."""
    quotient = number / base
    return np.log(quotient) if 0 < quotient < np.inf else np.log(number) - np.log(base)


def join(one, other):
    """Return the range from the lower low to the higher high of two ranges."""
    return replace(one, low=min(one.low, other.low), high=max(one.high, other.high))
