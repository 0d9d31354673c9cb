"""Values as plain data, on their way between a submission's process and the grader.

Numbers, texts, lists and arrays pass; nothing that could run code does. This file is read inside
the sandbox too, so it imports nothing from `tools`.
"""

import base64
import math

import numpy as np

from batchscaling.classroom.expect import detached

ARRAYS = {np.dtype(code).str for code in ("?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8")}
ARRAYS |= {np.dtype(code).str for code in ("f2", "f4", "f8", "c8", "c16")}
DEEPEST = 20  # lists in lists


class Broken(ValueError):
    """Data that this module did not write."""


class Opaque:
    """What stands for a value that cannot pass: its type's name only."""

    def __init__(self, kind):
        self.kind = kind

    def __repr__(self):
        return f"a {self.kind}"


class Function:
    """What stands for a function until it is called."""


def encode(value, depth=0):
    """Return `value` as what the json module can write."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return plain(value)
    if value is ...:
        return {"ellipsis": True}
    if isinstance(value, np.random.Generator):
        return {"generator": value.bit_generator.state}
    if isinstance(value, (list, tuple, dict)):
        return container(value, depth + 1) if depth < DEEPEST else opaque(value)
    if (array := numeric(value)) is not None:
        text = base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()
        return {"array": [array.dtype.str, list(array.shape), text]}
    return {"function": True} if callable(value) else opaque(value)


def plain(value):
    """Return a simple value as one of Python's own types."""
    for kind in (bool, int, float, str):
        if isinstance(value, kind):
            return kind(value)
    return None


def opaque(value):
    """Return what stands for a value that cannot pass."""
    return {"opaque": type(value).__name__[:80]}


def numeric(value):
    """Return numbers of whatever kind as an array of a type that passes; None if they are none."""
    try:
        array = np.asarray(detached(value))
    except Exception:  # it may be the student's own
        return None
    if array.dtype.kind not in "biufc":
        return None
    kind = array.dtype.newbyteorder("=")
    if kind.str not in ARRAYS:  # longer than a double
        kind = np.dtype({"f": "f8", "c": "c16"}[kind.kind])
    return array.astype(kind, copy=False)


def container(value, depth):
    """Return a list, tuple or dict as what the json module can write."""
    if isinstance(value, dict):
        return {"dict": [[encode(k, depth), encode(v, depth)] for k, v in value.items()]}
    kind = "tuple" if isinstance(value, tuple) else "list"
    return {kind: [encode(item, depth) for item in value]}


def decode(data, depth=0):
    """Return the value that `encode` wrote.

    Raises
    ------
    Broken
        If `encode` cannot have written this.
    """
    if data is None or isinstance(data, (bool, int, float, str)):
        return data
    if not isinstance(data, dict) or len(data) != 1 or depth > DEEPEST:
        raise Broken("unknown form of data")
    ((kind, content),) = data.items()
    if kind in READERS:
        return READERS[kind](content)
    if kind in ("list", "tuple") and isinstance(content, list):
        return (list if kind == "list" else tuple)(decode(item, depth + 1) for item in content)
    if kind == "dict" and isinstance(content, list):
        return dict(pair(item, depth + 1) for item in content)
    raise Broken("unknown form of data")


def pair(item, depth):
    """Return key and value of an entry of a dict."""
    if not isinstance(item, list) or len(item) != 2:
        raise Broken("an entry of a dict is no pair")
    key, value = (decode(each, depth) for each in item)
    try:
        hash(key)
    except TypeError:
        raise Broken("a key of a dict is no simple value") from None
    return key, value


def array(content):
    """Return an array from its type, shape and bytes."""
    try:
        kind, shape, text = content
        if kind not in ARRAYS or not all(type(n) is int and n >= 0 for n in shape):
            raise Broken("an array of unknown type or shape")
        raw = base64.b64decode(text, validate=True)
        if len(raw) != math.prod(shape) * np.dtype(kind).itemsize:
            raise Broken("an array of another size than its shape says")
        return np.frombuffer(raw, kind).reshape(shape).copy()
    except (TypeError, ValueError) as error:
        raise Broken(str(error)) from None


def generator(content):
    """Return a random generator in a known state."""
    random = np.random.PCG64()
    random.state = content
    return np.random.Generator(random)


READERS = {
    "array": array,
    "ellipsis": lambda _: ...,
    "function": lambda _: Function(),
    "generator": generator,
    "opaque": lambda kind: Opaque(str(kind)[:80]),
}
