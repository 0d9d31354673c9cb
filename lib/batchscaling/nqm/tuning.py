"""Best constant hyperparameters for each batch size.

The search compares optimizers by bisection over steps in plain float64, many at a time: a grid
over all hyperparameters, then ever finer grids around the best one of each batch size. The last few
are compared by their exact first crossing, and that is what is reported.
"""

import dataclasses
from dataclasses import dataclass

import numpy as np

from batchscaling import _validation as check
from batchscaling.nqm.crossing import steps_to_target
from batchscaling.nqm.optimizers import Optimizer
from batchscaling.nqm.problem import NoisyQuadratic

# Coordinates of the search. The learning rate is a fraction of the largest stable one, and its
# logit is searched, so that both small rates and rates close to the limit are resolved. The
# momentum is searched as log(1 - momentum).
_LR_LOGIT = (-21.0, 14.0)
_LOG_ONE_MINUS_MOMENTUM = (np.log(1e-5), 0.0)
_GRID = {"lr": 120, "momentum": 20}
_ROUNDS = 5
_ZOOM_POINTS = 9
_FINALISTS = 16
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
        momentum 0 are no such edges: nothing lies beyond them.
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
    def effective_lr(self):
        """``lr / (1 - momentum)``, shape (k,)."""
        return self.lr / (1 - self.momentum)


def tune(problem, optimizer, batch_sizes, target, **fixed):
    """Find the constant hyperparameters that reach the target in the fewest steps.

    Parameters
    ----------
    problem : NoisyQuadratic
        A quantized problem makes the search faster.
    optimizer : type
        An optimizer class: `SGD` or `HeavyBall`.
    batch_sizes : array_like, shape (k,)
        Positive.
    target : float
        Risk to reach, positive.
    **fixed : float
        Hyperparameters to hold fixed, such as ``momentum=0.9``.

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
    if not (isinstance(optimizer, type) and issubclass(optimizer, Optimizer)):
        check.reject("optimizer", optimizer, "an optimizer class such as SGD")
    batch_sizes = check.array("batch_sizes", batch_sizes, positive=True)
    target = check.positive("target", target)
    if target >= problem.initial_risk:
        check.reject("target", target, f"below the initial risk, {problem.initial_risk:.6g}")
    names = [field.name for field in dataclasses.fields(optimizer)]
    for name in fixed:
        check.one_of("fixed hyperparameter", name, names)
    space = _Space(problem, optimizer, fixed)
    coarse = space.grid()
    tables = _Tables(problem, [space.optimizer(point) for point in coarse])
    found = []
    for batch_size in batch_sizes:
        points, steps = coarse, tables.last_crossing(batch_size, target)
        for round_ in range(1, _ROUNDS + 1):
            near = space.around(points[np.argmin(steps)], round_)
            finer = _Tables(problem, [space.optimizer(point) for point in near])
            points = np.concatenate([points, near])
            steps = np.append(steps, finer.last_crossing(batch_size, target))
        finalists = points[np.argsort(steps)[:_FINALISTS]]
        found.append(min(_exact(space, finalists, batch_size, target)))
    best = [space.optimizer(point) for _, point in found]
    steps = np.array([None if np.isinf(s) else s for s, _ in found], dtype=object)
    borders = np.array([space.on_border(point) for _, point in found])
    return Tuning(batch_sizes, steps, tuple(best), borders)


def _exact(space, points, batch_size, target):
    """Yield the exact steps to target of each point, infinite if it is never reached."""
    for point in points:
        steps = steps_to_target(space.problem, space.optimizer(point), batch_size, target)
        yield (np.inf if steps is None else steps), tuple(point)


class _Space:
    """The searched hyperparameters: points are rows of search coordinates."""

    def __init__(self, problem, optimizer, fixed):
        self.problem = problem
        self.kind = optimizer
        self.fixed = fixed
        bounds = {"lr": _LR_LOGIT, "momentum": _LOG_ONE_MINUS_MOMENTUM}
        names = [field.name for field in dataclasses.fields(optimizer)]
        self.names = [name for name in names if name not in fixed]
        self.low = np.array([bounds[name][0] for name in self.names])
        self.high = np.array([bounds[name][1] for name in self.names])
        self.spacing = (self.high - self.low) / [_GRID[name] - 1 for name in self.names]

    def grid(self):
        axes = [
            np.linspace(low, high, _GRID[name])
            for name, low, high in zip(self.names, self.low, self.high, strict=True)
        ]
        return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(axes))

    def around(self, point, round_):
        reach = 1.5 * self.spacing / 2.5 ** (round_ - 1)
        axes = [np.linspace(x - r, x + r, _ZOOM_POINTS) for x, r in zip(point, reach, strict=True)]
        points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(axes))
        return np.unique(np.clip(points, self.low, self.high), axis=0)

    def optimizer(self, point):
        values = dict(self.fixed)
        for name, coordinate in zip(self.names, point, strict=True):
            values[name] = coordinate
        if "momentum" in self.names:
            values["momentum"] = float(-np.expm1(values["momentum"]))
        if "lr" in self.names:
            fraction = 1 / (1 + np.exp(-values["lr"]))
            unit = dataclasses.replace(self.kind(**{**values, "lr": 1.0}))
            values["lr"] = float(fraction * unit.curvature_limit / self.problem.curvature.max())
        return self.kind(**values)

    def on_border(self, point):
        """Only the low ends are borders: small rates, and momentum close to 1."""
        return bool(np.any(np.asarray(point) <= self.low))


class _Tables:
    """Powers of two steps of many optimizers, float64, axes (n, n, optimizer, curvature)."""

    def __init__(self, problem, optimizers):
        methods = [optimizer.method() for optimizer in optimizers]
        A, b, query = (np.stack([method[i] for method in methods], axis=-1) for i in range(3))
        self.readout, self.start = methods[0].readout, methods[0].start
        self.problem = problem
        gradient = (b[:, None] * query[None])[..., None] * problem.curvature
        covariance = (b[:, None] * b[None])[..., None] + np.zeros_like(gradient)
        self._levels = [(A[..., None] + gradient, covariance)]

    def level(self, level):
        while len(self._levels) <= level:
            P, C = self._levels[-1]
            self._levels.append((_matmul(P, P), C + _matmul(_matmul(P, C), P.swapaxes(0, 1))))
        return self._levels[level]

    def last_crossing(self, batch_size, target):
        """Return for each optimizer, by bisection, a step t with risk(t) <= target < risk(t - 1).

        Under momentum it need not be the first one. It is infinite where none was found.
        """
        size = self._levels[0][0].shape[2:]
        weight = 0.5 * self.problem.counts * self.problem.curvature
        start_weight = weight * self.problem.second_moment
        noise_weight = weight * self.problem.noise / batch_size
        row = self.readout[:, None, None] * np.ones(size)
        psi = np.zeros(size)

        def after(level):
            P, C = self.level(level)
            new_psi = psi + np.einsum("iok,ijok,jok->ok", row, C, row)
            new_row = np.einsum("iok,ijok->jok", row, P)
            phi = np.einsum("iok,i->ok", new_row, self.start)
            return new_row, new_psi, phi**2 @ start_weight + new_psi @ noise_weight

        # The search ends at the first power of two at which any optimizer is there: those that
        # are not cannot win.
        top = 0
        reached = np.zeros(size[0], dtype=bool)
        while not reached.any() and top < _MOST_LEVELS:
            reached = after(top)[2] <= target
            top += 1
        steps = np.zeros(size[0])
        for level in reversed(range(top)):
            new_row, new_psi, risk = after(level)
            go = risk > target
            steps += go * 2.0**level
            row = np.where(go[:, None], new_row, row)
            psi = np.where(go[:, None], new_psi, psi)
        return np.where(reached, steps + 1, np.inf)


def _matmul(a, b):
    return np.einsum("ij...,jk...->ik...", a, b)
