r"""The first step at which the risk is at or below a target.

Under momentum the risk oscillates, and even under SGD it can dip below its floor and come back.
So bisection over t is wrong. The search walks forward in blocks and skips a block only with a
proof that the risk stays above the target in it. With :math:`\varphi_t` and S(t) as in `moments`,
for all steps t + j with j < L,

.. math:: |\varphi_{t+j}| \ge |\varphi_t| - \sqrt{(L-1)\,\textstyle\sum_{i<L}
          (\varphi_{t+i+1}-\varphi_{t+i})^2}, \qquad S(t+j) \ge S(t),

by the inequality of Cauchy and Schwarz. The sum of squares is a quadratic form in the state, known
for L = 1, 2, 4, ... by doubling. Where a root is near -1 the sign changes in each step, and the
same bound in steps of two, from t and from t + 1, is better. Where the risk oscillates, every
:math:`\varphi` may pass zero within few steps, and no such bound holds for longer. So short blocks
take :math:`\varphi` of all their steps, from a table of :math:`r^\top F^j`.
"""

import numpy as np

from batchscaling import _validation as check
from batchscaling.nqm import _doubledouble as dd
from batchscaling.nqm import moments
from batchscaling.nqm.risk import require_stable

_AT_ONCE = 2**15  # numbers of lanes times curvatures
_TABLE = 2**17  # numbers of lanes times curvatures times steps of a short block
_MOST_SHORT, _MOST_LEVEL = 10, 128  # logarithms of the longest short block and of the longest walk
_EPS = np.finfo(float).eps
_SLACK = 1 + 1e-9  # for rounding in what a block may change


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
        If an argument is out of its range, the method is unstable on `problem`, or it takes more
        than 2**128 steps to say.
    """
    require_stable(problem, optimizer)
    batch_sizes, targets = np.broadcast_arrays(
        check.positive_numbers("batch_size", batch_size), check.positive_numbers("target", target)
    )
    optimizers = [optimizer] * batch_sizes.size
    found = first_crossings(problem, optimizers, batch_sizes.ravel(), targets.ravel())
    if batch_sizes.ndim == 0:
        return found[0]
    steps = np.empty(batch_sizes.shape, dtype=object)
    steps.flat = found
    return steps


def first_crossings(problem, optimizers, batch_sizes, targets):
    """Return the first crossing of each lane: an optimizer, its batch size and its target.

    Parameters
    ----------
    problem : NoisyQuadratic
    optimizers : sequence of Optimizer, length m
        Of one kind, each stable on `problem`.
    batch_sizes, targets : ndarray, shape (m,)

    Returns
    -------
    list of int or None
    """
    lanes = max(1, _AT_ONCE // problem.curvature.size)
    steps = []
    for first in range(0, len(optimizers), lanes):
        part = slice(first, first + lanes)
        steps += _Walk(problem, optimizers[part]).run(batch_sizes[part], targets[part])
    return steps


class _Walk:
    """Lanes that walk side by side, each in blocks of 1, 2, 4, ... steps.

    Arrays have the shape (n, m, lanes, curvatures). Lanes of the same optimizer share its blocks.
    """

    def __init__(self, problem, optimizers):
        distinct = list(dict.fromkeys(optimizers))
        self.problem = problem
        self.which = np.array([distinct.index(optimizer) for optimizer in optimizers])
        self.method = moments.stack([optimizer.method() for optimizer in distinct])
        h = problem.curvature
        self.shape = (len(distinct), h.size)
        each = moments.LinearMethod(*(np.repeat(part, h.size, axis=-1) for part in self.method))
        curvature = np.tile(h, len(distinct))
        gradient = moments.outer(each.b, each.query) * curvature
        rest = self.method.A - np.eye(len(self.method.b))[..., None]
        self.difference = rest[..., None] + self._unfold(gradient)  # F - I
        self._squarings = moments.squarings(each, curvature)
        self._blocks = []
        numbers = _TABLE // (len(optimizers) * h.size)
        self.short = min(max(numbers, 1).bit_length() - 1, _MOST_SHORT)
        self.table = self._rows(2**self.short)
        self.largest = np.abs(self.table).max(axis=0)
        self.margin = 1 + _EPS * (8 + np.sqrt(h.size))  # for rounding in a risk

    def run(self, batch_sizes, targets):
        """Return the first crossing of each lane, or None."""
        problem, method = self.problem, self.method
        weight = 0.5 * problem.counts * problem.curvature
        start_weight = weight * problem.second_moment
        noise_weight = weight * problem.noise / batch_sizes[:, None]
        lane = np.arange(len(batch_sizes))
        found, step = [None] * len(lane), [0] * len(lane)
        level = np.zeros(len(lane), dtype=int)
        column = self._pair(method.start[:, None, self.which, None])  # F^t s0
        row = self._pair(method.readout[None, :, self.which, None])  # r^T F^t
        psi = self._pair(np.zeros((1, 1, len(lane), 1)))
        before, unsure = (column, row, psi), np.zeros(len(lane), dtype=bool)

        def reach():
            noise = np.einsum("lk,lk->l", noise_weight[lane], psi[0][0, 0])
            readout = method.readout[:, self.which[lane], None]
            phi = np.abs(np.sum(readout * column[0][:, 0], axis=0))
            return phi, noise, noise + phi**2 @ start_weight <= targets[lane]

        while True:
            phi, noise, reached = reach()
            if (back := reached & unsure).any():
                for pair, old in zip((column, row, psi), before, strict=True):
                    for part, old_part in zip(pair, old, strict=True):
                        part[:, :, back] = old_part[:, :, back]
                for k in np.flatnonzero(back):
                    step[lane[k]] -= 1 << int(level[k] - 1)
                level = np.where(back, level - 2, level)
                phi, noise, reached = reach()
            for k in np.flatnonzero(reached):
                found[lane[k]] = step[lane[k]]
            on = ~reached & (noise <= targets[lane])  # the noise part never falls
            if not on.any():
                return found
            lane, level, phi, noise = lane[on], level[on], phi[on], noise[on]
            column, row, psi = ([part[:, :, on] for part in pair] for pair in (column, row, psi))
            state, before = column[0][:, 0], (column, row, psi)
            level, unsure = self._longest_safe(
                lane, level, phi, state, start_weight, targets[lane], noise
            )
            power, covariance = (self._gather(lane, level, kind) for kind in (0, 1))
            psi = dd.add(psi, dd.congruence(row, covariance))
            column, row = dd.matmul(power, column), dd.matmul(row, power)
            for k, one in enumerate(lane):
                step[one] += 1 << int(level[k])
            level = level + 1
            if level.max() > _MOST_LEVEL:
                allowed = f"a risk that is reached within 2**{_MOST_LEVEL} steps, or never"
                check.reject("target", targets[lane[np.argmax(level)]], allowed)

    def _longest_safe(self, lane, level, phi, column, start_weight, target, noise):
        """Return each lane's longest block with the risk above the target, and which are unsure.

        It is at most `level`, or a short one. In a long block that is unsure the risk may touch
        the target within rounding.
        """
        arguments = lane, level, phi, column, start_weight
        safe = self._by_changes(*arguments, target * self.margin - noise, self.short)
        near = np.flatnonzero(safe <= self.short)
        if near.size:
            needed = (target * self.margin - noise)[near]
            safe[near] = self._longest_short(lane[near], column[:, near], start_weight, needed)
        unsure = (safe < _MOST_SHORT) & (level > _MOST_SHORT)
        if unsure.any():
            longer = self._by_changes(*arguments, target / self.margin - noise, _MOST_SHORT)
            unsure &= longer > _MOST_SHORT
            safe = np.where(unsure, longer, safe)
        return safe, unsure

    def _by_changes(self, lane, level, phi, column, start_weight, needed, least):
        """Return how long blocks are that change too little to fall to what is needed.

        They are at most `level`; `least` is where the search ends without a proof.
        """
        difference, level = self.difference[:, :, self.which[lane]], level.copy()

        def change(state):
            return np.einsum("ijlk,jlk->ilk", difference, state)

        once = change(column)
        after = column + once
        twice = change(column + after)  # F^2 - I, from t
        twice_after = twice + change(twice)  # and from t + 1
        readout = self.method.readout[:, self.which[lane], None]
        phi_after = np.abs(np.sum(readout * after, axis=0))
        open_ = np.flatnonzero(level > least)
        while open_.size:
            outputs, _ = self._gather(lane[open_], level[open_], 2)
            length = 2.0 ** level[open_, None]

            def lowest(start, moved, changes, outputs=outputs, open_=open_):
                moved = moved[:, open_]
                squares = np.maximum(np.einsum("ilk,ijlk,jlk->lk", moved, outputs, moved), 0)
                return start[open_] - _SLACK * np.sqrt(changes * squares)

            pairs = np.floor((length - 1) / 2)
            in_pairs = np.minimum(lowest(phi, twice, pairs), lowest(phi_after, twice_after, pairs))
            in_pairs -= 16 * _EPS * pairs * phi[open_]  # two steps are a difference of near numbers
            bound = np.maximum(np.maximum(lowest(phi, once, length - 1), in_pairs), 0)
            unsafe = open_[bound**2 @ start_weight <= needed[open_]]
            level[unsafe] -= 1
            open_ = unsafe[level[unsafe] > least]
        return level

    def _longest_short(self, lane, column, start_weight, needed):
        """Return each lane's longest safe block up to the longest short one."""
        alone = self.shape[0] == 1  # then nothing need be copied
        rows = self.table if alone else self.table[:, :, self.which[lane]]
        phi = sum(rows[:, i] * column[i] for i in range(len(column)))
        np.abs(phi, out=phi)
        phi -= 4 * _EPS * np.sum(self.largest[:, self.which[lane]] * np.abs(column), axis=0)
        np.maximum(phi, 0, out=phi)
        unsafe = np.square(phi, out=phi) @ start_weight <= needed
        unsafe[0] = False  # the step where the block begins, which is known
        first = np.where(unsafe.any(axis=0), np.argmax(unsafe, axis=0), len(unsafe))
        return np.frexp(first)[1] - 1

    def _rows(self, count):
        """Return r^T F^j for all j below a power of two, shape (count, n, m, curvatures)."""
        rows = self.method.readout[None, :, :, None] * np.ones(self.shape[1])
        rows = rows, np.zeros_like(rows)
        for level in range(count.bit_length() - 1):
            more = dd.matmul(rows, tuple(map(self._unfold, self._block(level)[0])))
            rows = tuple(np.concatenate(both) for both in zip(rows, more, strict=True))
        return rows[0]

    def _gather(self, lane, level, kind):
        """Return P (kind 0), C (1) or the squared outputs W (2) of each lane at its level."""
        size = len(self.method.b)
        pair = tuple(np.empty((size, size, len(lane), self.shape[1])) for _ in range(2))
        for value in np.unique(level):
            at = np.flatnonzero(level == value)
            for part, source in zip(pair, self._block(value)[kind], strict=True):
                part[:, :, at] = self._unfold(source)[:, :, self.which[lane[at]]]
        return pair

    def _block(self, level):
        while len(self._blocks) <= level:
            power, covariance = next(self._squarings)
            if self._blocks:
                before, _, outputs = self._blocks[-1]
                outputs = dd.add(outputs, dd.congruence(dd.transpose(before), outputs))
            else:
                each = moments.outer(self.method.readout, self.method.readout)
                outputs = np.repeat(each, self.shape[1], axis=-1)
                outputs = outputs, np.zeros_like(outputs)
            self._blocks.append((power, covariance, outputs))
        return self._blocks[level]

    def _unfold(self, numbers):
        return numbers.reshape(numbers.shape[:-1] + self.shape)

    def _pair(self, numbers):
        numbers = numbers * np.ones(self.shape[1])
        return numbers, np.zeros_like(numbers)
