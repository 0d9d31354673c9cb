"""Matrix sums and products with about 32 significant digits.

A number is kept as an unevaluated sum ``high + low`` of two float64; an array is a pair of arrays.
Powers of a matrix need it: one rounding of ``1 - lr * curvature`` to float64 moves its billionth
power by 1e-7, and near the limit of stability sums over such powers lose many digits more.

Matrices have their two matrix axes first and any further axes behind, shape ``(n, m, ...)``, so
that numpy's inner loops run over eigenvalues.

References
----------
T. J. Dekker, "A floating-point technique for extending the available precision", 1971.
"""

_SPLITTER = 2.0**27 + 1


def two_sum(a, b):
    """Return ``(s, e)`` with ``s = fl(a + b)`` and ``s + e = a + b`` exactly."""
    s = a + b
    part = s - a
    return s, (a - (s - part)) + (b - part)


def two_product(a, b):
    """Return ``(p, e)`` with ``p = fl(a * b)`` and ``p + e = a * b`` exactly."""
    p = a * b
    a_high, a_low = _split(a)
    b_high, b_low = _split(b)
    e = ((a_high * b_high - p) + a_high * b_low + a_low * b_high) + a_low * b_low
    return p, e


def add(a, b):
    """Add two pairs ``(high, low)``."""
    high, rounding = two_sum(a[0], b[0])
    return two_sum(high, rounding + (a[1] + b[1]))


def matmul(a, b):
    """Multiply two pairs ``(high, low)`` of shapes ``(n, k, ...)`` and ``(k, m, ...)``."""
    total = None
    for k in range(b[0].shape[0]):
        left, left_low = a[0][:, k, None], a[1][:, k, None]
        right, right_low = b[0][None, k], b[1][None, k]
        product, rounding = two_product(left, right)
        term = two_sum(product, rounding + (left * right_low + left_low * right))
        total = term if total is None else add(total, term)
    return total


def transpose(a):
    """Swap the two matrix axes of a pair."""
    return a[0].swapaxes(0, 1), a[1].swapaxes(0, 1)


def congruence(a, b):
    """Return ``a b a^T`` for two pairs."""
    return matmul(matmul(a, b), transpose(a))


def _split(a):
    scaled = _SPLITTER * a
    high = scaled - (scaled - a)
    return high, a - high
