"""Best constant hyperparameters for each batch size.

The search compares many optimizers at a time in plain float64: a grid over all hyperparameters on
a coarse spectrum, then ever finer grids around the best one of each batch size. Short runs are
followed step by step, because there the risk oscillates; long ones are bisected. The last few are
compared by their exact first crossing, and that is what is reported.
"""

import dataclasses
import itertools
from dataclasses import dataclass

import numpy as np

from batchscaling import _validation as check
from batchscaling.nqm import moments
from batchscaling.nqm.crossing import first_crossings
from batchscaling.nqm.optimizers import Averaged, Optimizer
from batchscaling.nqm.problem import NoisyQuadratic

# Search coordinates. The learning rate is a fraction of the largest stable one, and its logit is
# searched, so that small rates and rates close to the limit are both resolved. To the logit
# log(1 - momentum) is added: small rates with the same effective rate then share a coordinate, and
# a grid compares momenta fairly. Momentum and decay are searched as log(1 - value), an
# extrapolation as the logarithm of its ratio to the rate.
_BOUNDS = {
    "lr": (-16.0, 22.0),
    "momentum": (np.log(1e-5), 0.0),
    "decay": (np.log(1e-8), 0.0),
    "extrapolation": (np.log(1e-3), np.log(10.0)),
}
_HIGHEST_LOGIT = 14.0
_COARSE_BINS = 32
_COARSE_POINTS = {1: (120,), 2: (76, 14), 3: (40, 8, 8)}  # on each axis, the rate first
_POINTS = {1: 9, 2: 7, 3: 5}
_COARSE_ROUNDS = (1.0, 0.5, 0.25)  # reach of each finer grid, in cells of the first one
_FINE_ROUNDS = (0.5, 0.15, 0.05)
_FINALISTS = 2
_DENSE_LEVELS = 9  # runs of at most 512 steps are followed step by step,
_CHUNK = 32  # so many steps at a time,
_SLOWER = 1.3  # until the fastest would have reached the target so many times
_MOST_LEVELS = 45


@dataclass(frozen=True)
class Tuning:
    """The best optimizer found for each batch size.

    Attributes
    ----------
    batch_sizes : ndarray, shape (k,)
    steps : ndarray of int or None, shape (k,)
        First step with risk at or below the target.
    optimizers : tuple of Optimizer
        The best one of each batch size.
    at_border : ndarray of bool, shape (k,)
        Whether the best one lies on the edge of the searched space. The limit of stability and
        momentum or decay 0 are no such edges: nothing lies beyond them.
    """

    batch_sizes: np.ndarray
    steps: np.ndarray
    optimizers: tuple
    at_border: np.ndarray

    @property
    def lr(self):
        """Best learning rate of each batch size, shape (k,)."""
        return np.array([optimizer.lr for optimizer in self.optimizers])

    @property
    def momentum(self):
        """Best momentum of each batch size, shape (k,); 0 for SGD."""
        return np.array([getattr(optimizer, "momentum", 0.0) for optimizer in self.optimizers])

    @property
    def decay(self):
        """Best decay of the average of each batch size, shape (k,); 0 where nothing is averaged."""
        return np.array([getattr(optimizer, "decay", 0.0) for optimizer in self.optimizers])

    @property
    def effective_lr(self):
        """``lr / (1 - momentum)``, shape (k,)."""
        return self.lr / (1 - self.momentum)


def tune(problem, optimizer, batch_sizes, target, **fixed):
    """Find the constant hyperparameters that reach the target in the fewest steps.

    The reported steps are exact for the reported optimizer. Other hyperparameters may do slightly
    better: by 2 % or one step where the risk oscillates (momentum at large batches), by about
    0.2 % elsewhere. A run of more than 512 steps that only dips to the target, and then rises to a
    floor above it, is not looked for.

    Parameters
    ----------
    problem : NoisyQuadratic
        A quantized problem makes the search faster.
    optimizer : type
        An optimizer class, such as `HeavyBall`.
    batch_sizes : array_like, shape (k,)
        Positive.
    target : float
        Risk to reach, positive and below the initial risk.
    **fixed
        Hyperparameters to hold fixed, such as ``momentum=0.9``. For `Averaged`, ``base`` is the
        class of the optimizer that is averaged, and its hyperparameters are searched too.

    Returns
    -------
    Tuning

    Raises
    ------
    ValueError
        If an argument is out of its range, or the problem starts at or below the target.
    """
    if not isinstance(problem, NoisyQuadratic):
        check.reject("problem", problem, "a NoisyQuadratic")
    batch_sizes = check.array("batch_sizes", batch_sizes, positive=True)
    target = check.positive("target", target)
    if target >= problem.initial_risk:
        check.reject("target", target, f"below the initial risk, {problem.initial_risk:.6g}")
    space = _Space(problem.curvature.max(), optimizer, fixed)
    coarse_problem = _coarse(problem)
    grid = space.grid()
    tables = _Tables(coarse_problem, [space.optimizer(point) for point in grid])
    finalists = []
    for batch_size in batch_sizes:
        point = _best_row(
            space, coarse_problem, grid, tables.crossing(batch_size, target), target, batch_size
        )
        for reach in _COARSE_ROUNDS:
            near, steps = _look_around(space, coarse_problem, point, reach, batch_size, target)
            point = near[np.argmin(steps)]
        rounds = []
        for reach in _FINE_ROUNDS:
            rounds.append(_look_around(space, problem, point, reach, batch_size, target))
            point = rounds[-1][0][np.argmin(rounds[-1][1])]
        points, steps = (np.concatenate(part) for part in zip(*rounds, strict=True))
        finalists.append(points[np.argsort(steps)[: _FINALISTS if len(point) > 1 else 1]])
    return _choose(problem, space, finalists, batch_sizes, target)


def _coarse(problem):
    """Return the problem in few bins, with the steepest direction, which limits the rate, kept."""
    steepest = np.argmax(problem.curvature)
    rest = np.arange(problem.curvature.size) != steepest
    if not rest.any():
        return problem
    fields = ("curvature", "noise", "second_moment", "counts")
    bins = NoisyQuadratic(*(getattr(problem, name)[rest] for name in fields)).quantize(_COARSE_BINS)
    return NoisyQuadratic(
        *(np.append(getattr(problem, name)[steepest], getattr(bins, name)) for name in fields)
    )


def _look_around(space, problem, point, reach, batch_size, target):
    """Return the points of a small grid around a point, and their steps."""
    near = space.around(point, reach)
    tables = _Tables(problem, [space.optimizer(p) for p in near])
    return near, tables.crossing(batch_size, target)


def _best_row(space, problem, grid, steps, target, batch_size):
    """Return the best point of a grid after the rate has been refined in each row of it.

    Without this the best row would be the one whose best rate happens to lie on the grid.
    """
    rows = len(np.unique(grid[:, 1:], axis=0))
    best = np.argmin(steps.reshape(-1, rows), axis=0)
    points = grid.reshape(-1, rows, grid.shape[1])[best, np.arange(rows)]
    for scale in (1.0, 0.3):
        near = np.repeat(points[None], _POINTS[1], axis=0)
        near[..., 0] += np.linspace(-scale, scale, _POINTS[1])[:, None] * space.spacing[0]
        near[..., 0] = np.clip(near[..., 0], space.low[0], space.high[0])
        flat = near.reshape(-1, grid.shape[1])
        steps = _Tables(problem, [space.optimizer(p) for p in flat]).crossing(batch_size, target)
        points = near[np.argmin(steps.reshape(-1, rows), axis=0), np.arange(rows)]
    return flat[np.argmin(steps)]


def _choose(problem, space, finalists, batch_sizes, target):
    """Compare the finalists of all batch sizes by their exact first crossings."""
    counts = [len(points) for points in finalists]
    owner = np.repeat(np.arange(len(batch_sizes)), counts)
    points = np.concatenate(finalists)
    optimizers = [space.optimizer(point) for point in points]
    crossings = first_crossings(
        problem, optimizers, batch_sizes[owner], np.full(len(owner), target)
    )
    steps = np.array([np.inf if step is None else step for step in crossings])
    ends = np.cumsum([0, *counts])
    best = [first + np.argmin(steps[first:end]) for first, end in itertools.pairwise(ends)]
    return Tuning(
        batch_sizes,
        np.array([crossings[k] for k in best], dtype=object),
        tuple(optimizers[k] for k in best),
        np.array([space.on_border(points[k]) for k in best]),
    )


class _Space:
    """The searched hyperparameters of a class of optimizers; points are their coordinates."""

    def __init__(self, highest, kind, fixed):
        if not (isinstance(kind, type) and issubclass(kind, Optimizer)):
            check.reject("optimizer", kind, "an optimizer class such as SGD")
        self.highest, self.kind, self.fixed = highest, kind, dict(fixed)
        self.base = None
        names = [field.name for field in dataclasses.fields(kind)]
        if kind is Averaged:
            self.base = self.fixed.pop("base", None)
            if not (isinstance(self.base, type) and issubclass(self.base, Optimizer)):
                check.reject("base", self.base, "an optimizer class such as SGD")
            names = [field.name for field in dataclasses.fields(self.base)] + ["decay"]
        for name in self.fixed:
            check.one_of("fixed hyperparameter", name, names)
        self.names = [name for name in names if name not in self.fixed]
        if not self.names:
            check.reject("fixed hyperparameters", fixed, "at least one left to search")
        self.low, self.high = np.array([_BOUNDS[name] for name in self.names]).T
        self.spacing = (self.high - self.low) / (np.array(_COARSE_POINTS[len(self.names)]) - 1)

    def grid(self):
        numbers = _COARSE_POINTS[len(self.names)]
        return _mesh(map(np.linspace, self.low, self.high, numbers))

    def around(self, point, scale):
        number = _POINTS[len(self.names)]
        reach = 1.5 * scale * self.spacing
        points = _mesh(np.linspace(point - reach, point + reach, number).T)
        return np.unique(np.clip(points, self.low, self.high), axis=0)

    def optimizer(self, point):
        """Return the optimizer at search coordinates `point`."""
        values = dict(self.fixed)
        for name, coordinate in zip(self.names, point, strict=True):
            if name in ("momentum", "decay"):
                values[name] = float(-np.expm1(coordinate))
            else:
                values[name] = float(np.exp(coordinate)) if name != "lr" else coordinate
        if "lr" not in self.names:
            return self._make(values)
        logit = values.pop("lr") + np.log1p(-values.get("momentum", 0.0))
        fraction = 1 / (1 + np.exp(-min(logit, _HIGHEST_LOGIT)))
        unit = self._make({"lr": 1.0, **values})
        return unit.with_lr(float(fraction * unit.curvature_limit / self.highest))

    def on_border(self, point):
        """Only low ends are borders: small rates, and momentum or decay close to 1."""
        return bool(np.any(point <= self.low))

    def _make(self, values):
        if self.base is None:
            return self.kind(**values)
        decay = values.pop("decay")
        return Averaged(self.base(**values), decay)


class _Tables:
    """Many optimizers side by side in float64, axes (n, n, optimizer, curvature).

    What does not depend on the batch size is kept: powers of two steps, and the two parts D and S
    of the risk D + S / batch_size.
    """

    def __init__(self, problem, optimizers):
        method = moments.stack([optimizer.method() for optimizer in optimizers])
        h = problem.curvature
        self.size = (len(optimizers), h.size)
        self.readout, self.start, self.noise = (
            part[..., None] for part in (method.readout, method.start, method.b)
        )
        weight = 0.5 * problem.counts * h
        self.weights = weight * problem.second_moment, weight * problem.noise
        power = method.A[..., None] + moments.outer(method.b, method.query)[..., None] * h
        covariance = moments.outer(method.b, method.b)[..., None] * np.ones(self.size)
        self._levels = [(power, covariance)]
        self._powers_of_two = []
        nothing = np.empty((0, self.size[0]))
        row = (self.readout * np.ones(self.size))[None]
        self._every_step = nothing, nothing, row, np.zeros(self.size)

    def crossing(self, batch_size, target):
        """Return for each optimizer about the step at which its risk falls to the target.

        It is infinite for optimizers that need about twice the steps of another, or more. In short
        runs it is the first crossing, and ties are broken by the risk there.
        """
        top, reached = -1, np.zeros(self.size[0], dtype=bool)
        while not reached.any() and top < _MOST_LEVELS:
            top += 1
            decay, noise = self._at_power_of_two(top)
            reached = decay + noise / batch_size <= target
        found = np.full(self.size[0], np.inf)
        if top <= _DENSE_LEVELS:
            risk = self._until_reached(2**top, batch_size, target)
            lanes = np.flatnonzero((risk <= target).any(axis=0))
            first = np.argmax(risk[:, lanes] <= target, axis=0)
            found[lanes] = first + risk[first, lanes] / target
        elif reached.any():
            lanes = np.flatnonzero(reached)
            found[lanes] = self._bisect(top, lanes, batch_size, target)
        return found

    def _level(self, level):
        while len(self._levels) <= level:
            P, C = self._levels[-1]
            self._levels.append((_matmul(P, P), C + _matmul(_matmul(P, C), P.swapaxes(0, 1))))
        return self._levels[level]

    def _at_power_of_two(self, level):
        """Return D and S after 2**level steps."""
        while len(self._powers_of_two) <= level:
            P, C = self._level(len(self._powers_of_two))
            row = self.readout[None]
            psi = _matmul(_matmul(row, C), row.swapaxes(0, 1))[0, 0]
            phi = _matmul(_matmul(row, P), self.start[:, None])[0, 0]
            self._powers_of_two.append((phi**2 @ self.weights[0], psi @ self.weights[1]))
        return self._powers_of_two[level]

    def _until_reached(self, last, batch_size, target):
        """Return the risk after 1, 2, 3, ... steps, until soon after the first crossing of any."""
        risk = np.empty((0, self.size[0]))
        while len(risk) < last:
            self._follow(len(risk) + _CHUNK)
            decay, noise = self._every_step[0], self._every_step[1]
            risk = decay + noise / batch_size
            reached = np.flatnonzero((risk <= target).any(axis=1))
            if reached.size and len(risk) > _SLOWER * reached[0]:
                break
        return risk

    def _follow(self, last):
        """Extend D and S at every step to step `last`."""
        decay, noise, row, psi = self._every_step
        missing = last - len(decay)
        if missing <= 0:
            return
        F, start, gradient = self._level(0)[0], self.start[:, None], self.noise[:, None]
        new_decay, new_noise = np.empty((2, missing, self.size[0]))
        for step in range(missing):
            psi = psi + _matmul(row, gradient)[0, 0] ** 2
            row = _matmul(row, F)
            new_decay[step] = _matmul(row, start)[0, 0] ** 2 @ self.weights[0]
            new_noise[step] = psi @ self.weights[1]
        decay, noise = np.concatenate([decay, new_decay]), np.concatenate([noise, new_noise])
        self._every_step = decay, noise, row, psi

    def _bisect(self, top, lanes, batch_size, target):
        """Return a step t with risk(t) <= target < risk(t - 1), not always the first one."""
        row = (self.readout * np.ones(self.size))[None][:, :, lanes]
        psi = np.zeros((1, 1, *row.shape[2:]))
        start, steps = self.start[:, lanes], np.zeros(len(lanes))
        for level in reversed(range(top)):
            P, C = (part[:, :, lanes] for part in self._level(level))
            new_psi = psi + _matmul(_matmul(row, C), row.swapaxes(0, 1))
            new_row = _matmul(row, P)
            decay = np.sum(new_row[0] * start, axis=0) ** 2 @ self.weights[0]
            go = decay + new_psi[0, 0] @ self.weights[1] / batch_size > target
            steps += go * 2.0**level
            row = np.where(go[:, None], new_row, row)
            psi = np.where(go[:, None], new_psi, psi)
        return steps + 1


def _matmul(a, b):
    """Multiply stacks of small matrices, whose matrix axes come first."""
    product = a[:, 0, None] * b[None, 0]
    for k in range(1, b.shape[0]):
        product += a[:, k, None] * b[None, k]
    return product


def _mesh(axes):
    """Return all combinations of the axes' entries, one a row; the last axis runs fastest."""
    mesh = np.meshgrid(*axes, indexing="ij")
    return np.stack([axis.ravel() for axis in mesh], axis=-1)
