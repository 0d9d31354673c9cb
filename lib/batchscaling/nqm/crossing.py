r"""The first step at which the risk is at or below a target.

Under momentum the risk oscillates, and even under SGD it can dip below its floor and come back.
So bisection over t is wrong. The search walks forward in blocks and skips a block only with a
proof that the risk stays above the target in it. With :math:`\varphi_t` and S(t) as in `moments`,
for all steps t + j with j < L,

.. math:: |\varphi_{t+j}| \ge |\varphi_t| - \sqrt{(L-1)\,\textstyle\sum_{i<L}
          (\varphi_{t+i+1}-\varphi_{t+i})^2}, \qquad S(t+j) \ge S(t),

by the inequality of Cauchy and Schwarz. The sum of squares is a quadratic form in the state, known
for L = 1, 2, 4, ... by doubling. At L = 1 the bound is the risk itself.
"""

import numpy as np

from batchscaling import _validation as check
from batchscaling.nqm import _doubledouble as dd
from batchscaling.nqm import moments
from batchscaling.nqm.risk import require_stable

_MARGIN = 1 + 1e-9  # keeps rounding from skipping a block whose bound touches the target


def steps_to_target(problem, optimizer, batch_size, target):
    """Return the first step at which the risk is at or below the target.

    Parameters
    ----------
    problem : NoisyQuadratic
    optimizer : Optimizer
    batch_size : float or array_like
        B, positive.
    target : float or array_like
        Risk to reach, positive. Broadcast against `batch_size`.

    Returns
    -------
    int or None, or ndarray of these
        The smallest t >= 0 with ``risk(t) <= target``; None if there is none.

    Raises
    ------
    ValueError
        If an argument is out of its range or the method is unstable on `problem`.
    """
    require_stable(problem, optimizer)
    walk = _Walk(problem, optimizer.method())
    if np.ndim(batch_size) == 0 and np.ndim(target) == 0:
        return walk.first_crossing(
            check.positive("batch_size", batch_size), check.positive("target", target)
        )
    batch_sizes, targets = np.broadcast_arrays(
        check.array("batch_size", batch_size, ndim=np.ndim(batch_size), positive=True),
        check.array("target", target, ndim=np.ndim(target), positive=True),
    )
    steps = np.empty(batch_sizes.shape, dtype=object)
    for index in np.ndindex(steps.shape):
        steps[index] = walk.first_crossing(batch_sizes[index], targets[index])
    return steps


class _Walk:
    """Blocks of 1, 2, 4, ... steps of one method on one problem, made when first needed."""

    def __init__(self, problem, method):
        self.problem = problem
        self.method = method
        rest = (method.A - np.eye(len(method.A)))[..., None]
        self.difference = rest + moments.outer(method.b, method.query) * problem.curvature  # F - I
        self._squarings = moments.squarings(method, problem.curvature)
        self._blocks = []

    def block(self, level):
        """Return P and C of 2**level steps and W, the squared sum of the outputs in them."""
        while len(self._blocks) <= level:
            power, covariance = next(self._squarings)
            if self._blocks:
                before, _, outputs = self._blocks[-1]
                outputs = dd.add(outputs, dd.congruence(dd.transpose(before), outputs))
            else:
                outputs = self._pair(moments.outer(self.method.readout, self.method.readout))
            self._blocks.append((power, covariance, outputs))
        return self._blocks[level]

    def first_crossing(self, batch_size, target):
        """Return the first t with risk at or below the target, or None."""
        problem, method = self.problem, self.method
        weight = 0.5 * problem.counts * problem.curvature
        start_weight = weight * problem.second_moment
        noise_weight = weight * problem.noise / batch_size
        column = self._pair(method.start[:, None, None])  # F^t s0
        row = self._pair(method.readout[None, :, None])  # r^T F^t
        psi = self._pair(np.zeros((1, 1, 1)))
        step, level = 0, 0
        while True:
            noise = noise_weight @ psi[0][0, 0]
            if noise > target:
                return None
            phi = np.abs(method.readout @ column[0][:, 0])
            if noise + start_weight @ phi**2 <= target:
                return step
            level = self._longest_safe(level, phi, column[0][:, 0], start_weight, target, noise)
            power, covariance, _ = self.block(level)
            psi = dd.add(psi, dd.congruence(row, covariance))
            column, row = dd.matmul(power, column), dd.matmul(row, power)
            step += 2**level
            level += 1

    def _longest_safe(self, level, phi, column, start_weight, target, noise):
        """Return the longest block, at most `level`, in which the risk stays above the target."""
        change = np.einsum("ijk,jk->ik", self.difference, column)
        while level > 0:
            outputs = self.block(level)[2][0]
            squares = np.maximum(np.einsum("ik,ijk,jk->k", change, outputs, change), 0)
            lowest = np.maximum(phi - np.sqrt((2**level - 1) * squares), 0)
            if noise + start_weight @ lowest**2 > target * _MARGIN:
                break
            level -= 1
        return level

    def _pair(self, numbers):
        numbers = numbers * np.ones_like(self.problem.curvature)
        return numbers, np.zeros_like(numbers)
