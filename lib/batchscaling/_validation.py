"""Checks of arguments, shared by the whole package.

Each check returns the clean value, or raises a ``ValueError`` that names the parameter, the
value it was given and the values that are allowed.
"""

import math
from numbers import Integral, Real

import numpy as np


def reject(name, value, allowed):
    """Raise the package's one kind of ``ValueError``."""
    raise ValueError(f"{name} is {value!r}; allowed: {allowed}")


def real(name, value, low=-math.inf, high=math.inf, *, low_open=False, high_open=False):
    """Return `value` as a finite float between `low` and `high`."""
    is_number = isinstance(value, (Real, np.number)) and not isinstance(value, (bool, np.bool_))
    number = float(value) if is_number else math.nan
    too_low = number <= low if low_open else number < low
    too_high = number >= high if high_open else number > high
    if not math.isfinite(number) or too_low or too_high:
        reject(name, value, _interval("a finite number", low, high, low_open, high_open))
    return number


def positive(name, value):
    """Return `value` as a finite float above zero."""
    return real(name, value, 0, low_open=True)


def positive_numbers(name, value):
    """Return a number, or an array of any shape, of finite numbers above zero."""
    if np.ndim(value) == 0:
        return np.float64(positive(name, value))
    return array(name, value, ndim=np.ndim(value), positive=True)


def integer(name, value, low=None, high=None):
    """Return `value` as an int between `low` and `high`; whole floats such as 64.0 are refused."""
    allowed = _interval(
        "an integer", -math.inf if low is None else low, math.inf if high is None else high
    )
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, Integral):
        reject(name, value, allowed)
    number = int(value)
    if (low is not None and number < low) or (high is not None and number > high):
        reject(name, value, allowed)
    return number


def one_of(name, value, choices):
    """Return `value` if it is one of `choices`."""
    if value not in tuple(choices):
        reject(name, value, "one of " + ", ".join(repr(choice) for choice in choices))
    return value


def array(name, value, *, ndim=1, positive=False, nonnegative=False):
    """Return `value` as a finite float64 array of `ndim` dimensions, not empty."""
    sign = "positive " if positive else "non-negative " if nonnegative else ""
    allowed = f"a non-empty array of {ndim} dimension(s) of finite {sign}numbers"
    try:
        numbers = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        reject(name, value, allowed)
    if numbers.ndim != ndim or numbers.size == 0:
        reject(name, f"an array of shape {numbers.shape}", allowed)
    bad = ~np.isfinite(numbers)
    if positive:
        bad |= numbers <= 0
    if nonnegative:
        bad |= numbers < 0
    if bad.any():
        reject(name, f"an array that holds {numbers[bad][0]}", allowed)
    return numbers


def _interval(kind, low, high, low_open=False, high_open=False):
    left = "(" if low_open or low == -math.inf else "["
    right = ")" if high_open or high == math.inf else "]"
    return f"{kind} in {left}{low:g}, {high:g}{right}"
