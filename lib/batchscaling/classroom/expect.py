"""Checks whose messages say what is wrong, and not what is right."""

import numpy as np


def expect(name, found, right, *, rtol=1e-6, atol=0.0, mistakes=None):
    """Check numbers against the right ones, and recognise known mistakes.

    Parameters
    ----------
    name : str
        What was computed, in the student's words, such as ``"risk(0.1, 10)"``.
    found : object
        The student's number, array or nested list. Torch tensors are accepted.
    right : array_like
        The right numbers. Shapes must agree.
    rtol, atol : float
        Tolerances, relative to `right` and absolute.
    mistakes : dict of str to array_like, optional
        What to say if `found` equals the numbers that a common mistake gives, within `rtol`.

    Raises
    ------
    AssertionError
        If the numbers differ. The message does not contain `right`.
    """
    right = np.asarray(right)
    found = numbers(name, found, right.shape)
    if close(found, right, rtol, atol):
        return
    for message, wrong in (mistakes or {}).items():
        if close(found, np.asarray(wrong), rtol, atol):
            raise AssertionError(f"{name}: {message}")
    raise AssertionError(f"{name} gives {shown(found)}, which is not right")


def within(name, found, low, high, *, below=None, above=None):
    """Check that every number is in an interval.

    Parameters
    ----------
    name : str
        What was computed, in the student's words.
    found : object
        The student's number, array or nested list.
    low, high : array_like
        Bounds that are allowed. Shapes must agree with that of `found`, or be ``()``.
    below, above : str, optional
        What to say if a number is below `low` or above `high`.

    Raises
    ------
    AssertionError
        If a number is outside, or not finite.
    """
    shape = np.broadcast_shapes(np.shape(low), np.shape(high))
    found = numbers(name, found, shape or None)
    if found.dtype.kind == "c":
        raise AssertionError(f"{name} gives complex numbers; expected: real ones")
    if found.size == 0:
        raise AssertionError(f"{name} is empty")
    for outside, reason in ((found < low, below), (found > high, above)):
        if np.any(outside):
            raise AssertionError(f"{name} gives {shown(found)}: {reason or 'out of range'}")
    if not np.all(np.isfinite(found)):
        raise AssertionError(f"{name} gives {shown(found)}: not a finite number")


def numbers(name, found, shape=None):
    """Return the student's numbers as an array, or say why they are none.

    Parameters
    ----------
    name : str
        What was computed, in the student's words.
    found : object
        Number, array, nested list or torch tensor.
    shape : tuple of int, optional
        The shape that they must have.

    Returns
    -------
    numpy.ndarray

    Raises
    ------
    AssertionError
        If they are no numbers, or of another shape.
    """
    if found is None:
        raise AssertionError(f"{name} gives None: is there a `return`?")
    if found is ...:
        raise AssertionError(f"{name} is not filled in yet")
    try:
        array = np.asarray(detached(found))
    except (RuntimeError, TypeError, ValueError):
        raise AssertionError(f"{name} is no array of numbers") from None
    if array.dtype.kind not in "iufc":
        raise AssertionError(f"{name} is a {type(found).__name__}; expected: numbers")
    if shape is not None and array.shape != tuple(shape):
        raise AssertionError(f"{name} has shape {array.shape}; expected: {tuple(shape)}")
    return array


def detached(value):
    """Return a torch tensor as an array, also in lists; anything else as it is."""
    if isinstance(value, (list, tuple)):
        return [detached(item) for item in value]
    if not hasattr(value, "detach"):
        return value
    value = value.detach().cpu()
    return (value.float() if str(value.dtype) == "torch.bfloat16" else value).numpy()


def close(found, right, rtol, atol):
    """Tell whether two arrays have one shape and agree; NaN agrees with nothing."""
    return found.shape == right.shape and np.allclose(found, right, rtol, atol)


def shown(found):
    """Return the first numbers of an array as a short text."""
    first = ", ".join(f"{x:.4g}" for x in found.ravel()[:3])
    return f"{first}, …" if found.size > 3 else first
