r"""Mean and variance of any linear method after any number of steps.

Along a direction of curvature h a method is :math:`s' = F s + b\,\xi`. Started from `start` times
:math:`\theta_0`, its parameter after t steps is :math:`\varphi_t \theta_0` plus noise, with

.. math:: \varphi_t = r^\top F^t s_0, \qquad
          \operatorname{var} = \frac{c}{B} \sum_{k<t} \psi_k^2, \quad \psi_k = r^\top F^k b .

Both come from powers of F by repeated squaring:

.. math:: P_{2t} = P_t^2, \qquad C_{2t} = C_t + P_t C_t P_t^\top, \qquad
          C_t = \sum_{k<t} F^k b b^\top F^{k\top} .

No eigenvectors are needed, so double and complex roots are ordinary cases. The powers are kept in
double-double numbers (`_doubledouble`), so their error does not grow with t; the sums C have terms
of one sign only.
"""

import itertools

import numpy as np

from batchscaling.nqm import _doubledouble as dd

_CHUNK = 2**17  # numbers of one temporary array, so that it stays in the cache


def squarings(method, curvature):
    """Yield ``(P, C)`` after 1, 2, 4, 8, ... steps.

    Parameters
    ----------
    method : LinearMethod
    curvature : ndarray, shape (k,)

    Yields
    ------
    P : pair of ndarray, shape (n, n, k)
        High and low part of the power of F.
    C : ndarray, shape (n, n, k)
        Covariance of the state for noise of variance one from a fixed start.
    """
    gradient = np.outer(method.b, method.query)[..., None] * curvature
    power = dd.two_sum(method.A[..., None] + np.zeros_like(gradient), gradient)
    covariance = np.outer(method.b, method.b)[..., None] + np.zeros_like(gradient)
    while True:
        yield power, covariance
        P = power[0]
        covariance = covariance + congruence(P, covariance)
        power = dd.matmul(power, power)


def congruence(P, C):
    """Return ``P C P^T`` for stacks of shape (n, n, k)."""
    return np.einsum("ilk,mlk->imk", np.einsum("ijk,jlk->ilk", P, C), P)


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
    phi = np.empty((len(steps), len(curvature)))
    psi = np.empty_like(phi)
    bits = max(1, int(np.max(steps)).bit_length())
    levels = list(itertools.islice(squarings(method, curvature), bits))
    rows = max(1, _CHUNK // len(curvature))
    for first in range(0, len(steps), rows):
        part = slice(first, first + rows)
        phi[part], psi[part] = _combine(method, levels, steps[part])
    return phi, psi


def _combine(method, levels, steps):
    """Put the powers together by the binary digits of each step."""
    shape = (1, len(method.readout), len(steps), levels[0][1].shape[-1])
    high = np.broadcast_to(method.readout[None, :, None, None], shape).copy()
    low = np.zeros(shape)  # together the row r^T F^t
    psi = np.zeros(shape[2:])
    for bit, (power, covariance) in enumerate(levels):
        on = np.flatnonzero((steps >> bit) & 1)
        if on.size == 0:
            continue
        row = high[0][:, on]
        psi[on] += np.einsum("itk,ijk,jtk->tk", row, covariance, row)
        step = tuple(part[:, :, None, :] for part in power)
        high[:, :, on], low[:, :, on] = dd.matmul((high[:, :, on], low[:, :, on]), step)
    phi = np.einsum("itk,i->tk", high[0], method.start)
    return phi, psi


def limit(method, curvature):
    r"""Return :math:`\sum_{k}\psi_k^2` over all steps, shape (k,), for a stable method."""
    total = np.zeros_like(curvature)
    for (P, _), covariance in squarings(method, curvature):
        before = total
        total = np.einsum("i,ijk,j->k", method.readout, covariance, method.readout)
        if np.array_equal(total, before) and np.abs(P).max() < 1e-8:
            return total
