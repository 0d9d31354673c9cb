r"""Mean and variance of any linear method after any number of steps.

Along a direction of curvature h a method is :math:`s' = F s + b\,\xi`. Started from `start` times
:math:`\theta_0`, its parameter after t steps is :math:`\varphi_t \theta_0` plus noise, with

.. math:: \varphi_t = r^\top F^t s_0, \qquad
          \operatorname{var} = \frac{c}{B} \sum_{k<t} \psi_k^2, \quad \psi_k = r^\top F^k b .

Both come from powers of F by repeated squaring:

.. math:: P_{2t} = P_t^2, \qquad C_{2t} = C_t + P_t C_t P_t^\top, \qquad
          C_t = \sum_{k<t} F^k b b^\top F^{k\top} .

No eigenvectors are needed, so double and complex roots are ordinary cases. All is kept in pairs of
numbers (`_doubledouble`), so that the error does not grow with t.
"""

import itertools

import numpy as np

from batchscaling.nqm import _doubledouble as dd
from batchscaling.nqm.optimizers import LinearMethod

_CHUNK = 2**17  # numbers of one temporary array, so that it stays in the cache
FLATTEST = 1e-50
"""Rate times curvature of directions so flat that what they do is in proportion to it."""
_MOST_SQUARINGS = 256  # of a transition, enough for what is as flat as that


def stack(methods):
    """Return methods of one kind as one, whose arrays have the methods as their last axis."""
    return LinearMethod(*(np.stack(parts, axis=-1) for parts in zip(*methods, strict=True)))


def squarings(method, curvature):
    """Yield ``(P, C)`` after 1, 2, 4, 8, ... steps.

    Parameters
    ----------
    method : LinearMethod
        Its arrays may have a last axis of length k: a method of its own for each curvature.
    curvature : ndarray, shape (k,)

    Yields
    ------
    P : pair of ndarray, shape (n, n, k)
        Power of F.
    C : pair of ndarray, shape (n, n, k)
        Covariance of the state for noise of variance one from a fixed start.
    """
    product, rounding = dd.two_product(outer(method.b, method.query), curvature)
    A = method.A if method.A.ndim == 3 else method.A[..., None]
    high, low = dd.two_sum(A, product)
    power = dd.two_sum(high, low + rounding)
    covariance = _exact(outer(method.b, method.b) * np.ones_like(curvature))
    while True:
        yield power, covariance
        covariance = dd.add(covariance, dd.congruence(power, covariance))
        power = dd.matmul(power, power)


def response(method, curvature, steps):
    r"""Return :math:`\varphi_t` and :math:`\sum_{k<t}\psi_k^2` at the given steps.

    Parameters
    ----------
    method : LinearMethod
    curvature : ndarray, shape (k,)
    steps : ndarray of int64, shape (m,)

    Returns
    -------
    phi, psi : ndarray, shape (m, k)
        Response to the start, and to noise of variance one.
    """
    bits = int(np.max(steps)).bit_length()
    levels = list(itertools.islice(squarings(method, curvature), bits))
    distinct, position = np.unique(steps, return_inverse=True)
    rows = max(1, _CHUNK // len(curvature))
    parts = [
        _combine(method, levels, distinct[first : first + rows], len(curvature))
        for first in range(0, len(distinct), rows)
    ]
    phi, psi = (np.concatenate(part) for part in zip(*parts, strict=True))
    return phi[position], psi[position]


def _combine(method, levels, steps, size):
    """Put powers together by the binary digits of sorted steps; equal leading digits are shared."""
    prefix = np.zeros(1, dtype=np.int64)
    row = _exact(method.readout[None, :, None, None] * np.ones((1, size)))  # r^T F^t
    psi = _exact(np.zeros((1, 1, 1, size)))
    for bit in reversed(range(len(levels))):
        parent = prefix
        prefix = np.unique(steps >> bit)
        origin = np.searchsorted(parent, prefix >> 1)
        row, psi = ([part[:, :, origin] for part in pair] for pair in (row, psi))
        on = np.flatnonzero(prefix & 1)
        power, covariance = ([part[:, :, None] for part in pair] for pair in levels[bit])
        before = [part[:, :, on] for part in row]
        added = dd.add([part[:, :, on] for part in psi], dd.congruence(before, covariance))
        after = dd.matmul(before, power)
        for part, new in zip((*row, *psi), (*after, *added), strict=True):
            part[:, :, on] = new
    return np.einsum("itk,i->tk", row[0][0], method.start), psi[0][0, 0]


def limit(optimizer, curvature):
    r"""Return :math:`h \sum_{k}\psi_k^2` over all steps, shape (k,); not finite if it has no limit.

    A rate of s times as much at a curvature of 1/s as much gives s times the same. So rates are
    taken near 1, where nothing overflows. In the flattest directions the result no longer depends
    on the curvature.
    """
    scale = 2.0 ** (np.frexp(optimizer.lr)[1] - 1)
    method = optimizer.with_lr(optimizer.lr / scale).method()
    curvature = np.maximum(scale * curvature, FLATTEST)
    total = np.zeros_like(curvature)
    for power, covariance in itertools.islice(squarings(method, curvature), _MOST_SQUARINGS):
        before = total
        total = np.einsum("i,ijk,j->k", method.readout, covariance[0], method.readout)
        if np.array_equal(total, before) and np.abs(power[0]).max() < 1e-8:
            return scale * (curvature * total)
    return np.full_like(total, np.inf)


def outer(a, b):
    """Return the outer product of two vectors of shape (n,) or (n, k), with a last axis."""
    product = a[:, None] * b[None, :]
    return product if product.ndim == 3 else product[..., None]


def _exact(numbers):
    return numbers, np.zeros_like(numbers)


class Advance:
    r"""Move second moments of the state by any number of steps, :math:`M \to P M P^\top + c\,C`.

    Parameters
    ----------
    method : LinearMethod
    curvature : ndarray, shape (k,)
    """

    def __init__(self, method, curvature):
        self._squarings = squarings(method, curvature)
        self._levels = []

    def __call__(self, second, noise, steps):
        """Return the second moments, shape (n, n, k), after more steps with noise of shape (k,)."""
        while len(self._levels) < steps.bit_length():
            self._levels.append(next(self._squarings))
        second = _exact(second)
        for bit, (power, covariance) in enumerate(self._levels):
            if steps >> bit & 1:
                added = tuple(noise * part for part in covariance)
                second = dd.add(dd.congruence(power, second), added)
        return second[0]
