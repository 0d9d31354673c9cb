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

from typing import NamedTuple

import numpy as np

from batchscaling import _validation as check
from batchscaling.nqm import _doubledouble as dd
from batchscaling.nqm import moments
from batchscaling.nqm.risk import require_stable

_AT_ONCE = 2**15  # numbers of lanes times curvatures
_TABLE = 2**17  # numbers of lanes times curvatures times steps of a short block
# Logarithms of the longest short block, and of the longest walk: beyond it, numbers of twice the
# usual precision do not tell one step from the next.
_MOST_SHORT, _MOST_LEVEL = 10, 108
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
    int or None, or ndarray of float
        The smallest t >= 0 with ``risk(t) <= target``. If there is none, it is None for one batch
        size and one target, and ``inf`` in an array. Whole numbers up to 2**53 are exact there.

    Raises
    ------
    ValueError
        If an argument is out of its range, the method is unstable on `problem`, or it takes more
        than 2**108 steps to say.
    """
    require_stable(problem, optimizer)
    batch_sizes, targets = check.broadcast(
        batch_size=check.positive_numbers("batch_size", batch_size),
        target=check.positive_numbers("target", target),
    )
    optimizers = [optimizer] * batch_sizes.size
    found = first_crossings(problem, optimizers, batch_sizes.ravel(), targets.ravel())
    if batch_sizes.ndim == 0:
        return found[0]
    return or_infinity(found).reshape(batch_sizes.shape)


def or_infinity(found):
    """Return an array of steps, ``inf`` where there is None."""
    return np.array([np.inf if step is None else step for step in found], dtype=float)


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
        steps += _Walk(problem, optimizers[part], batch_sizes[part], targets[part]).run()
    return steps


class _Front(NamedTuple):
    """The lanes that still walk, and where they are.

    Attributes
    ----------
    lane : ndarray of int
        Which of all lanes they are.
    step : ndarray of object
        Steps done, integers of Python, which may outgrow 64 bits.
    level : ndarray of int
        Logarithm of each lane's next block.
    states : tuple of pairs of ndarray
        F^t s0, r^T F^t and psi after these steps, with their low parts.
    """

    lane: np.ndarray
    step: np.ndarray
    level: np.ndarray
    states: tuple

    def only(self, chosen):
        """Return the front of the chosen lanes."""
        states = tuple(tuple(part[:, :, chosen] for part in pair) for pair in self.states)
        return _Front(self.lane[chosen], self.step[chosen], self.level[chosen], states)

    def back(self, chosen, before):
        """Return the front with the chosen lanes back in `before`, with half the block there."""
        states = tuple(
            tuple(np.where(chosen[:, None], old, new) for old, new in zip(*pairs, strict=True))
            for pairs in zip(before.states, self.states, strict=True)
        )
        step = np.where(chosen, before.step, self.step)
        return _Front(self.lane, step, np.where(chosen, before.level - 1, self.level), states)


class _Walk:
    """Lanes that walk side by side, each in blocks of 1, 2, 4, ... steps.

    Arrays have the shape (n, m, lanes, curvatures). Lanes of the same optimizer share its blocks.
    """

    def __init__(self, problem, optimizers, batch_sizes, targets):
        distinct = list(dict.fromkeys(optimizers))
        self.targets = targets
        weight = 0.5 * problem.counts * problem.curvature
        self.start_weight = weight * problem.second_moment
        self.noise_weight = weight * problem.noise / batch_sizes[:, None]
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

    def run(self):
        """Return the first crossing of each lane, or None."""
        found = [None] * len(self.targets)
        front = before = self._start()
        unsure = np.zeros(len(found), dtype=bool)
        while True:
            phi, noise, reached = self._reach(front)
            if (back := reached & unsure).any():  # was it the block that went too far?
                front = front.back(back, before)
                phi, noise, reached = self._reach(front)
            for lane, step in zip(front.lane[reached], front.step[reached], strict=True):
                found[lane] = step
            on = ~reached & (noise <= self.targets[front.lane])  # the noise part never falls
            if not on.any():
                return found
            front = front.only(on)
            level, unsure = self._longest_safe(front, phi[on], noise[on])
            before = front._replace(level=level)
            front = self._after_block(before)

    def _start(self):
        method, lanes = self.method, len(self.targets)
        states = (
            self._pair(method.start[:, None, self.which, None]),
            self._pair(method.readout[None, :, self.which, None]),
            self._pair(np.zeros((1, 1, lanes, 1))),
        )
        step = np.array([0] * lanes, dtype=object)
        return _Front(np.arange(lanes), step, np.zeros(lanes, dtype=int), states)

    def _reach(self, front):
        """Return each lane's size of phi and noise part of the risk, and whether it has arrived."""
        column, _, psi = front.states
        noise = np.einsum("lk,lk->l", self.noise_weight[front.lane], psi[0][0, 0])
        readout = self.method.readout[:, self.which[front.lane], None]
        phi = np.abs(np.sum(readout * column[0][:, 0], axis=0))
        return phi, noise, noise + phi**2 @ self.start_weight <= self.targets[front.lane]

    def _after_block(self, front):
        """Return where the lanes are after a block of their level; the next may be twice as long.

        Raises
        ------
        ValueError
            If a lane has walked for too long.
        """
        column, row, psi = front.states
        power, covariance = (self._gather(front.lane, front.level, kind) for kind in (0, 1))
        psi = dd.add(psi, dd.congruence(row, covariance))
        states = dd.matmul(power, column), dd.matmul(row, power), psi
        done = np.array([1 << int(level) for level in front.level], dtype=object)
        if front.level.max() >= _MOST_LEVEL:
            allowed = f"a risk that is reached within 2**{_MOST_LEVEL} steps, or never"
            check.reject("target", self.targets[front.lane[np.argmax(front.level)]], allowed)
        return _Front(front.lane, front.step + done, front.level + 1, states)

    def _longest_safe(self, front, phi, noise):
        """Return each lane's longest block with the risk above the target, and which are unsure.

        It is at most the front's level, or a short one. In a long block that is unsure the risk may
        touch the target within rounding: if it has arrived after the block, it may have before.
        """
        target, column = self.targets[front.lane], front.states[0][0][:, 0]
        arguments = front.lane, front.level, phi, column
        needed = target * self.margin - noise
        safe = self._by_changes(*arguments, needed, self.short)
        near = np.flatnonzero(safe <= self.short)
        if near.size:
            safe[near] = self._longest_short(front.lane[near], column[:, near], needed[near])
        unsure = (safe < _MOST_SHORT) & (front.level > _MOST_SHORT)
        if unsure.any():
            longer = self._by_changes(*arguments, target / self.margin - noise, _MOST_SHORT)
            unsure &= longer > _MOST_SHORT
            safe = np.where(unsure, longer, safe)
        return safe, unsure

    def _by_changes(self, lane, level, phi, column, needed, least):
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
            unsafe = open_[bound**2 @ self.start_weight <= needed[open_]]
            level[unsafe] -= 1
            open_ = unsafe[level[unsafe] > least]
        return level

    def _longest_short(self, lane, column, needed):
        """Return each lane's longest safe block up to the longest short one."""
        alone = self.shape[0] == 1  # then nothing need be copied
        rows = self.table if alone else self.table[:, :, self.which[lane]]
        phi = sum(rows[:, i] * column[i] for i in range(len(column)))
        np.abs(phi, out=phi)
        phi -= 4 * _EPS * np.sum(self.largest[:, self.which[lane]] * np.abs(column), axis=0)
        np.maximum(phi, 0, out=phi)
        unsafe = np.square(phi, out=phi) @ self.start_weight <= needed
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
