"""Search spaces and quasi-random search.

A space is searched in logarithms, because hyperparameters act by their ratios. Momentum, beta1
and decay are searched through their distance to 1.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from scipy.stats import qmc

from batchscaling._validation import (
    array,
    fields,
    flag,
    integer,
    one_of,
    positive,
    real,
    reject,
)

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
        fields(self, low=positive, high=positive, complement=flag)
        if self.high <= self.low:
            reject("high", self.high, f"above low, {self.low}")
        if self.complement and self.high > 1:
            reject("high", self.high, "at most 1 for a complement")

    def values(self, unit):
        """Return the values at positions from 0 (`low`) to 1 (`high`)."""
        numbers = self.low * (self.high / self.low) ** array("unit", unit, ndim=None)
        numbers = np.clip(numbers, self.low, self.high)  # against rounding
        return 1 - numbers if self.complement else numbers

    def position(self, value):
        """Return where a value lies: 0 at `low`, 1 at `high`."""
        value = real("value", value)
        number = 1 - value if self.complement else value
        if number <= 0:
            reject("value", value, "below 1" if self.complement else "above 0")
        return float(np.log(number / self.low) / np.log(self.high / self.low))

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
        factor = (self.high / self.low) ** GROWTH
        if one_of("side", side, ("low", "high")) == "low":
            return replace(self, low=self.low / factor, high=self.low)
        return replace(self, low=self.high, high=min(self.high * factor, self._highest))

    @property
    def _highest(self):
        return 1.0 if self.complement else np.inf


def join(one, other):
    """Return the range from the lower low to the higher high of two ranges."""
    return replace(one, low=min(one.low, other.low), high=max(one.high, other.high))


def draw(space, count, *, seed, skip=0):
    """Return quasi-random settings: points of a scrambled Halton sequence.

    Parameters
    ----------
    space : mapping of str to Range
    count : int
        Number of settings, at least 1.
    seed : int
        Of the scrambling.
    skip : int
        Points of the sequence to leave out first, so that a search can go on.

    Returns
    -------
    dict of str to numpy.ndarray, each of shape (count,)
        Values of the ranges by name.

    Raises
    ------
    ValueError
        If an argument is outside its range.

    References
    ----------
    .. [1] Bousquet, Gelly, Kurach, Teytaud and Vincent (2017), Critical hyper-parameters: no
       random, no cry.
    """
    ranges = space.values() if isinstance(space, Mapping) else ()
    if not ranges or not all(isinstance(each, Range) for each in ranges):
        reject("space", space, "a mapping of names to Range, not empty")
    sequence = qmc.Halton(len(space), seed=integer("seed", seed, 0))
    skip, count = integer("skip", skip, 0), integer("count", count, 1)
    points = sequence.random(skip + count)[skip:]
    return {name: space[name].values(column) for name, column in zip(space, points.T, strict=True)}


def hyperparameters(values):
    """Return the hyperparameters of searched values.

    ``effective_lr`` is ``lr / (1 - momentum)``, at which different momenta share their best rate
    while noise is the limit: so searching it needs fewer trials. All others go by their names.

    Parameters
    ----------
    values : mapping of str to numpy.ndarray

    Returns
    -------
    dict of str to numpy.ndarray
    """
    values = {name: array(name, column) for name, column in values.items()}
    if "effective_lr" in values:
        values["lr"] = values.pop("effective_lr") * (1 - values["momentum"])
    return values
