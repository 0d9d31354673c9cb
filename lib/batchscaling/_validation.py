"""Checks of arguments, shared by the whole package.

Each check returns the clean value, or raises a ``ValueError`` that names the parameter, the
value it was given and the values that are allowed.

A number may be of any type that holds a real one: Python's, numpy's of every width, fractions,
decimals, arrays and tensors without dimensions. The clean value is a plain ``float`` or ``int``,
so that equal numbers give equal results. Bools, strings, complex numbers, times and masked entries
are no numbers.
"""

import math
from decimal import Decimal
from numbers import Integral, Real

import numpy as np

from batchscaling._errors import InputError

_TIMES = ("m", "M")  # numpy's kinds of times and dates, which count as integers elsewhere


def reject(name, value, allowed):
    """Raise the package's one kind of ``ValueError``."""
    raise InputError(f"{name} is {_shown(value)}; allowed: {allowed}")


def real(name, value, low=-math.inf, high=math.inf, *, low_open=False, high_open=False):
    """Return `value` as a finite float between `low` and `high`."""
    number = _float(value)
    too_low = number <= low if low_open else number < low
    too_high = number >= high if high_open else number > high
    if not math.isfinite(number) or too_low or too_high:
        reject(
            name,
            value,
            _interval("a finite number", low, high, low_open=low_open, high_open=high_open),
        )
    return number


def positive(name, value):
    """Return `value` as a finite float above zero."""
    return real(name, value, 0, low_open=True)


def nonnegative(name, value):
    """Return `value` as a finite float of at least zero."""
    return real(name, value, 0)


def below_one(name, value):
    """Return `value` as a float from 0 to below 1, such as a momentum."""
    return real(name, value, 0, 1, high_open=True)


def positive_amount(name, value):
    """Return a positive number as an int if it is of an integer type, else as a float."""
    number = positive(name, value)
    value = _item(value)
    return int(value) if isinstance(value, Integral) else number


def positive_numbers(name, value):
    """Return a number, or an array of any shape, of finite numbers above zero."""
    if dimensions(value) == 0:
        return np.float64(positive(name, value))
    return array(name, value, ndim=None, positive=True)


def integer(name, value, low=None, high=None):
    """Return `value` as an int between `low` and `high`; whole floats such as 64.0 are refused."""
    allowed = _interval(
        "an integer", -math.inf if low is None else low, math.inf if high is None else high
    )
    number = _item(value)
    if isinstance(number, bool) or not isinstance(number, Integral):
        reject(name, value, allowed)
    number = int(number)
    if (low is not None and number < low) or (high is not None and number > high):
        reject(name, value, allowed)
    if not math.isfinite(_float(number)):
        reject(name, value, f"{allowed} that fits into a float")
    return number


def flag(name, value):
    """Return `value` as a bool; other things that Python takes for true or false are refused."""
    value = _item(value)
    return value if isinstance(value, bool) else reject(name, value, "True or False")


def one_of(name, value, choices):
    """Return the one of `choices` that `value` is equal to."""
    for choice in choices:
        if np.ndim(value) == 0 and choice == value:
            return choice
    reject(name, value, "one of " + ", ".join(repr(choice) for choice in choices))


def array(name, value, *, ndim=1, positive=False, nonnegative=False, finite=True, missing=False):
    """Return `value` as a float64 array, not empty, without NaN unless some may be `missing`.

    `ndim` is the number of dimensions, or several that are allowed, or None for any number.
    """
    shapes = (ndim,) if isinstance(ndim, int) else ndim
    sign = "positive " if positive else "non-negative " if nonnegative else ""
    shape = f" of {' or '.join(map(str, shapes))} dimension(s)" if shapes else ""
    allowed = f"a non-empty array{shape} of {'finite ' if finite else ''}{sign}numbers"
    numbers = _floats(value)
    if numbers is None:
        reject(name, value, allowed)
    if numbers.size == 0 or (shapes and numbers.ndim not in shapes):
        reject(name, f"an array of shape {numbers.shape}", allowed)
    bad = ~np.isfinite(numbers) if finite else np.isnan(numbers) & (not missing)
    if positive:
        bad |= numbers <= 0
    if nonnegative:
        bad |= numbers < 0
    if bad.any():
        reject(name, f"an array that holds {numbers[bad][0]}", allowed)
    return numbers


def broadcast(**arrays):
    """Return arrays in one common shape, given by the names of their parameters."""
    shape = ()
    for name, value in arrays.items():
        try:
            shape = np.broadcast_shapes(shape, np.shape(value))
        except ValueError:
            reject(name, f"an array of shape {np.shape(value)}", f"one that fits shape {shape}")
    return [np.broadcast_to(value, shape) for value in arrays.values()]


def integers(name, value, low, high, *, floats=False):
    """Return an integer or an array of them, of any shape but empty, as int64 from low to high.

    Whole floats such as 64.0 are refused unless `floats` is true.
    """
    allowed = f"integers from {low} to {high}"
    numbers = None if _hides_others(value) else _as_array(value)
    kinds = "iuOf" if floats else "iuO"
    if numbers is None or numbers.size == 0 or numbers.dtype.kind not in kinds:
        reject(name, value, allowed)
    if numbers.dtype.kind == "O":
        each = [_whole(number) for number in numbers.flat] if floats else numbers.flat
        each = [integer(name, number, low, high) for number in each]
        return np.array(each, dtype=np.int64).reshape(numbers.shape)
    if numbers.dtype.kind == "f":
        with np.errstate(over="ignore"):  # of long doubles
            numbers = numbers.astype(np.float64)
        bad = ~((numbers >= low) & (numbers <= high) & (numbers == np.floor(numbers)))
    else:
        bad = (numbers < low) | (numbers > high)
    if bad.any():
        reject(name, numbers[bad].flat[0], allowed)
    return numbers.astype(np.int64)


def same_shape(name, values, other, shape):
    """Raise a ``ValueError`` unless an array has the shape of the parameter called `other`."""
    if values.shape != shape:
        reject(name, f"an array of shape {values.shape}", f"the shape of {other}, {shape}")


def generator(seed):
    """Return a numpy generator: `seed` itself, or a new one of that non-negative integer."""
    if isinstance(seed, np.random.Generator):
        return seed
    return np.random.default_rng(integer("seed", seed, 0))


def fields(instance, **checks):
    """Store the clean values of a frozen dataclass; each check takes the field's name and value."""
    for name, check in checks.items():
        store(instance, **{name: check(name, getattr(instance, name))})


def store(instance, **values):
    """Store fields of a frozen dataclass; arrays as copies that nobody can write to."""
    for name, value in values.items():
        if isinstance(value, np.ndarray):
            value = value.copy()
            value.setflags(write=False)
        object.__setattr__(instance, name, value)


def dimensions(value):
    """Return the number of dimensions of anything; -1 if it is no array."""
    is_list = isinstance(value, (list, tuple))
    numbers = None if is_list and _hides_others(value) else _as_array(value)
    return -1 if numbers is None else numbers.ndim


def _item(value):
    """Return the plain number in a numpy scalar, or in an array or tensor without dimensions."""
    if np.ma.is_masked(value) or _kind(value) in _TIMES:
        return None
    return value.item() if getattr(value, "ndim", None) == 0 and hasattr(value, "item") else value


def _kind(value):
    """Return numpy's letter for the type of an array or of one of its numbers, else None."""
    return getattr(getattr(value, "dtype", None), "kind", None)


def _float(value):
    """Return the float next to a number of any type, and NaN for what is no number."""
    value = _item(value)
    if isinstance(value, bool) or not isinstance(value, (Real, Decimal)):
        return math.nan
    try:
        number = float(value)
    except (OverflowError, ValueError):  # an integer beyond floats, a signalling NaN
        return math.nan
    return math.nan if math.isinf(number) and abs(value) != math.inf else number


def _whole(value):
    """Return the int that a number of any type equals; what equals none as it is."""
    return int(_item(value)) if _float(value).is_integer() else value


def _floats(value):
    """Return numbers as an array of float64, or None where an entry is no number."""
    numbers = None if _hides_others(value) else _as_array(value)
    if numbers is None or numbers.dtype.kind not in "iufO":
        return None
    if numbers.dtype.kind == "O":
        each = [_float(number) for number in numbers.flat]
        return None if np.isnan(each).any() else np.reshape(each, numbers.shape)
    with np.errstate(over="ignore"):  # of long doubles
        floats = numbers.astype(np.float64, copy=False)
    is_beyond = np.isinf(floats) & np.isfinite(numbers)
    return None if is_beyond.any() else floats


def _hides_others(value):
    """Return whether bools or masked entries hide in `value`: numpy would read them as numbers."""
    if isinstance(value, (list, tuple)):
        return any(map(_hides_others, value))
    is_bool = isinstance(value, bool) or str(getattr(value, "dtype", "")).endswith("bool")
    return is_bool or np.ma.is_masked(value)


def _as_array(value):
    try:
        return np.asarray(_item(value))
    except (TypeError, ValueError, RuntimeError):  # rows of unequal length; a tensor elsewhere
        return None


def _shown(value):
    is_number = isinstance(value, np.number) and _kind(value) not in _TIMES
    try:
        return repr(value.item() if is_number else value)
    except ValueError:  # Python prints no integer of thousands of digits
        return f"a {type(value).__name__} too long to print"


def _interval(kind, low, high, *, low_open=False, high_open=False):
    left = "(" if low_open or low == -math.inf else "["
    right = ")" if high_open or high == math.inf else "]"
    return f"{kind} in {left}{low:g}, {high:g}{right}"
