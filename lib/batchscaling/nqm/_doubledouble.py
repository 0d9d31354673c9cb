"""Matrix products with about 32 significant digits.

A number is kept as an unevaluated sum ``high + low`` of two float64. Powers of a matrix need it:
one rounding of ``1 - lr * curvature`` to float64 moves its billionth power by 1e-7.

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


def matmul(a, b):
    """Multiply two pairs ``(high, low)`` of shapes ``(n, k, ...)`` and ``(k, m, ...)``."""
    (a_high, a_low), (b_high, b_low) = a, b
    high = low = 0.0
    for k in range(b_high.shape[0]):
        left, right = a_high[:, k, None], b_high[None, k]
        p, e = two_product(left, right)
        e = e + (left * b_low[None, k] + a_low[:, k, None] * right)
        high, rounding = two_sum(high, p)
        low = low + (rounding + e)
    return two_sum(high, low)


def _split(a):
    scaled = _SPLITTER * a
    high = scaled - (scaled - a)
    return high, a - high
