"""Powers of two taken out of numbers before they are squared, so that every scale is good.

Such a factor changes no digit. Numbers are kept as ``values * 2**exponent``.
"""

import numpy as np

from batchscaling import _validation as check

_NOTHING = -5000  # the exponent of zero: below those of all numbers and their products


def exponents(*arrays):
    """Return elementwise the exponent of the largest of some arrays of one shape."""
    largest = np.max(np.abs(arrays), axis=0)
    return np.where(largest > 0, np.frexp(largest)[1], _NOTHING)


def exponent(*arrays):
    """Return the exponent of the largest of all numbers, 0 if all are zero."""
    highest = int(max(exponents(array).max() for array in arrays))
    return 0 if highest == _NOTHING else highest


def restore(name, values, power):
    """Return ``values * 2**power``; `name` is the parameter to refuse if that is beyond floats."""
    with np.errstate(over="ignore"):
        numbers = np.ldexp(values, np.clip(power, -(2**30), 2**30).astype(np.int32))
    if np.any(np.isinf(numbers) & np.isfinite(values)):
        check.reject(name, "too large", "a size of which floats can hold the results")
    return numbers
