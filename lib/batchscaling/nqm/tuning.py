"""Best constant hyperparameters for each batch size.

The search compares many optimizers at a time in plain float64 (`_lanes`): a grid over all
hyperparameters on a coarse spectrum, which serves all batch sizes and targets, then ever finer
grids around the best points of each. The last few are compared by their exact first crossing, and
that is what is reported.
"""

import dataclasses
import itertools
from dataclasses import dataclass

import numpy as np

from batchscaling import _validation as check
from batchscaling.nqm import moments
from batchscaling.nqm._lanes import Lanes
from batchscaling.nqm.crossing import first_crossings, or_infinity
from batchscaling.nqm.optimizers import Averaged, Optimizer
from batchscaling.nqm.problem import NoisyQuadratic, require_problem
from batchscaling.nqm.risk import is_stable

# Search coordinates. The learning rate is a fraction of the largest stable one, and its logit is
# searched, so that small rates and rates close to the limit are both resolved. To the logit
# log(1 - momentum) is added, and the logarithm of what extrapolation takes away from the limit:
# small rates with the same effective rate then share a coordinate, and a grid compares momenta and
# extrapolations fairly. Momentum and decay are searched as log(1 - value), an extrapolation as the
# logarithm of its ratio to the rate. The smaller the rate, the larger the best ratio.
_BOUNDS = {
    "lr": (-16.0, 22.0),
    "momentum": (np.log(1e-8), 0.0),
    "decay": (np.log(1e-8), 0.0),
    "extrapolation": (np.log(1e-3), np.log(1e6)),
}
_HIGHEST_LOGIT = 14.0
_NO_RATE = 1e-30  # stands for an unstable rate in a search: it reaches no target in time
_COARSE_BINS = 32
_FINE_BINS = 128
# On each axis of the first grid, the rate's first, and of a finer one.
_COARSE_POINTS = {1: (128,), 2: (128, 32), 3: (64, 24, 24), 4: (48, 12, 12, 12)}
_POINTS = {1: (11,), 2: (13, 9), 3: (9, 7, 7), 4: (7, 5, 5, 5)}
# The finer grids: whether on the coarse spectrum; their reach, of the rate and of other axes, in
# cells of the first grid; by what fraction the steps may fall; and how many best points to keep.
_ROUNDS = (
    (True, (1.0, 0.0), 0.25, 6),
    (True, (0.4, 1.0), 0.12, 3),
    (False, (0.3, 0.4), 0.08, 2),
    (False, (0.1, 0.15), 0.03, 1),
    (False, (0.04, 0.05), 0.015, 1),
)
_MOVES = 2  # so often a grid is laid again around a best point on its edge
_ABLE = 256  # so many points of the first grid, with the lowest risk, are followed
_ROWS = 8  # so many rows of the first grid, with the fewest steps, are refined
_FINALISTS = 8  # compared exactly, where the search ran on fewer bins than the problem has
_FIRST_TIMES, _TIMES = 32, 16  # looked at for a crossing, at least
_MOST_LEVELS = 45


@dataclass(frozen=True)
class Tuning:
    """The best optimizer found for each batch size.

    With m targets instead of one, each field but `batch_sizes` has a first axis of length m.

    Attributes
    ----------
    batch_sizes : ndarray, shape (k,)
    steps : ndarray, shape (k,) or (m, k)
        First step with risk at or below the target: a whole number, ``inf`` where none is found.
    optimizers : tuple of Optimizer, or m such tuples
        The best one of each batch size.
    at_border : ndarray of bool, shape (k,) or (m, k)
        Whether the best one lies on the edge of the searched space. The limit of stability and
        momentum or decay 0 are no such edges: nothing lies beyond them.
    """

    batch_sizes: np.ndarray
    steps: np.ndarray
    optimizers: tuple
    at_border: np.ndarray

    @property
    def lr(self):
        """Best learning rates, of the shape of `steps`."""
        return self._each("lr")

    @property
    def momentum(self):
        """Best momenta, of the shape of `steps`; 0 for SGD."""
        return self._each("momentum")

    @property
    def decay(self):
        """Best decays of the average, of the shape of `steps`; 0 where nothing is averaged."""
        return self._each("decay")

    @property
    def effective_lr(self):
        """``lr / (1 - momentum)``, of the shape of `steps`."""
        return self.lr / (1 - self.momentum)

    def _each(self, name):
        optimizers = np.array(self.optimizers, dtype=object)
        numbers = [getattr(optimizer, name, 0.0) for optimizer in optimizers.flat]
        return np.reshape(numbers, optimizers.shape)


def tune(problem, optimizer, batch_sizes, target, **fixed):
    """Find the constant hyperparameters that reach the target in the fewest steps.

    The reported steps are exact for the reported optimizer. Other hyperparameters may do slightly
    better: by 2 % or one step where the risk oscillates (momentum at large batches), by about
    0.2 % elsewhere.

    Parameters
    ----------
    problem : NoisyQuadratic
        A quantized problem makes the search faster.
    optimizer : type
        An optimizer class, such as `HeavyBall`.
    batch_sizes : array_like, shape (k,)
        Positive.
    target : float or array_like, shape (m,)
        Risk to reach, positive and below the initial risk. Many targets share one grid; every
        field of the result but `batch_sizes` then has a first axis for them.
    **fixed
        Hyperparameters to hold fixed, such as ``momentum=0.9``. For `Averaged`, ``base`` is the
        class of the optimizer that is averaged, and its hyperparameters are searched too.

    Returns
    -------
    Tuning

    Raises
    ------
    ValueError
        If an argument is out of its range, or the problem starts at or below a target.
    """
    require_problem(problem)
    batch_sizes = check.array("batch_sizes", batch_sizes, positive=True)
    target = check.positive_numbers("target", target)
    targets = np.atleast_1d(target)
    if targets.ndim > 1:
        check.reject("target", f"an array of shape {targets.shape}", "a number or one dimension")
    if targets.max() >= problem.initial_risk:
        check.reject("target", targets.max(), f"below the initial risk, {problem.initial_risk:.6g}")
    space = _Space(problem.curvature.max(), optimizer, fixed)
    coarse, fine = _in_bins(problem, _COARSE_BINS), _in_bins(problem, _FINE_BINS)
    goals = list(itertools.product(targets, batch_sizes))
    with np.errstate(over="ignore", invalid="ignore"):  # what grows without bound cannot win
        finalists = [
            _refine(space, coarse, fine, goal, starts, steps, binned=fine is not problem)
            for goal, (starts, steps) in zip(goals, _starts(space, coarse, goals), strict=True)
        ]
    steps, points = _choose(problem, space, finalists, goals)
    shape = np.shape(target) + batch_sizes.shape
    optimizers = np.empty(len(goals), dtype=object)
    optimizers[:] = [space.optimizer(point) for point in points]
    at_border = np.array([space.on_border(point) for point in points])
    rows = tuple(map(tuple, optimizers.reshape(-1, len(batch_sizes))))
    return Tuning(
        batch_sizes,
        steps.reshape(shape),
        rows if len(shape) == 2 else rows[0],
        at_border.reshape(shape),
    )


def _in_bins(problem, bins):
    """Return the problem in few bins, with the steepest direction, which limits the rate, kept."""
    if problem.curvature.size <= bins + 1:
        return problem
    steepest = np.argmax(problem.curvature)
    rest = np.arange(problem.curvature.size) != steepest
    fields = ("curvature", "noise", "second_moment", "counts")
    binned = NoisyQuadratic(*(getattr(problem, name)[rest] for name in fields)).quantize(bins)
    return NoisyQuadratic(
        *(np.append(getattr(problem, name)[steepest], getattr(binned, name)) for name in fields)
    )


def _starts(space, problem, goals):
    """Yield for each goal the best points of the best rows of the first grid, and the fewest steps.

    A goal is a target and a batch size.
    """
    points = space.grid()
    lanes = space.lanes(problem, points)
    targets, batch_sizes = np.array(goals).T
    last = np.zeros(len(goals), dtype=int)
    risk = np.empty((len(goals), points[..., 0].size))
    missed = np.ones(len(goals), dtype=bool)
    for level, (decay, noise) in enumerate(lanes.at_powers_of_two()):
        last[missed] = 2**level
        risk[missed] = decay + noise / batch_sizes[missed, None]
        missed = np.fmin.reduce(risk, axis=1) > targets
        if level == _MOST_LEVELS or not missed.any():
            break
    for k, (target, batch_size) in enumerate(goals):
        able = np.argsort(risk[k])[:_ABLE]
        window = _window(last[k] / 2, last[k], _FIRST_TIMES)
        steps = np.full(risk[k].size, np.inf)
        steps[able] = lanes.crossings(able, batch_size, target, *window)
        steps = steps.reshape(points.shape[:2])
        rows = np.argsort(steps.min(axis=1))[:_ROWS]
        yield points[rows, steps[rows].argmin(axis=1)], steps.min()


def _refine(space, coarse, fine, goal, starts, fewest, *, binned):
    """Return the finalists of a goal after ever finer grids around its starts."""
    target, batch_size = goal
    finalists = []
    for on_coarse, reach, fall, keep in _ROUNDS:
        problem = coarse if on_coarse else fine
        for _ in range(_MOVES):
            if not 0 < fewest < np.inf:  # as with a rate that is held and unstable
                return [starts[0]]
            points = np.concatenate([space.around(start, reach) for start in starts])
            window = _window((1 - fall) * fewest, (1 + fall / 2) * fewest, _TIMES)
            steps = space.lanes(problem, points).crossings(slice(None), batch_size, target, *window)
            points, fewest = points.reshape(len(steps), -1), steps.min()
            before, starts = starts, space.best(points, steps, keep)
            if not on_coarse:
                finalists += zip(steps, points, strict=True)
            if space.is_inside(starts[0], before, reach):
                break
    finalists.sort(key=lambda pair: pair[0])
    return [point for _, point in finalists[: _FINALISTS if binned else 1]]


def _window(first, last, times):
    """Return times from `first` to `last` as multiples of a spacing: first, spacing and count."""
    spacing = 2 ** max(0, int(np.log2((last - first) / times)))
    first = max(1, int(first // spacing))
    return first, spacing, int(np.ceil(last / spacing)) - first + 1


def _choose(problem, space, finalists, goals):
    """Return the exact first crossing and the point of the best finalist of each goal."""
    counts = [len(points) for points in finalists]
    targets, batch_sizes = np.repeat(goals, counts, axis=0).T
    points = list(itertools.chain(*finalists))
    optimizers = [space.optimizer(point) for point in points]
    steps = np.full(len(points), np.inf)
    stable = np.flatnonzero([is_stable(problem, optimizer) for optimizer in optimizers])
    lanes = [optimizers[k] for k in stable], batch_sizes[stable], targets[stable]
    steps[stable] = or_infinity(first_crossings(problem, *lanes))
    ends = np.cumsum([0, *counts])
    best = [first + np.argmin(steps[first:end]) for first, end in itertools.pairwise(ends)]
    return steps[best], [points[k] for k in best]


class _Space:
    """The searched hyperparameters of a class of optimizers.

    Points are their coordinates, the rate's first. Many points have the shape (r, l, d): each of
    the r rows shares all coordinates but the rate.
    """

    def __init__(self, highest, kind, fixed):
        if not _is_method(kind) and kind is not Averaged:
            check.reject("optimizer", kind, "an optimizer class such as SGD")
        self.highest, self.kind, self.fixed = highest, kind, dict(fixed)
        self.base = None
        names = [field.name for field in dataclasses.fields(kind)]
        if kind is Averaged:
            self.base = self.fixed.pop("base", None)
            if not _is_method(self.base):
                check.reject("base", self.base, "an optimizer class such as SGD")
            names = [field.name for field in dataclasses.fields(self.base)] + ["decay"]
        for name in self.fixed:
            # An extrapolation goes with the rate, so it cannot be held.
            check.one_of("fixed hyperparameter", name, [n for n in names if n != "extrapolation"])
        self.names = [name for name in names if name not in self.fixed]
        if not self.names:
            check.reject("fixed hyperparameters", fixed, "at least one left to search")
        self.free_rate = "lr" in self.names
        if not self.free_rate:
            self.fixed["lr"] = check.positive("lr", self.fixed["lr"])
        self.low, self.high = np.array([_BOUNDS[name] for name in self.names]).T
        self.spacing = (self.high - self.low) / (np.array(_COARSE_POINTS[len(self.names)]) - 1)

    def grid(self):
        numbers = _COARSE_POINTS[len(self.names)]
        return self._mesh(map(np.linspace, self.low, self.high, numbers))

    def around(self, point, reach):
        """Return a small grid; `reach` is that of the rate and of the other axes, in cells."""
        axes = [
            np.clip(np.linspace(middle - far, middle + far, number if far else 1), low, high)
            for middle, far, number, low, high in zip(
                point,
                self._distance(reach),
                _POINTS[len(self.names)],
                self.low,
                self.high,
                strict=True,
            )
        ]
        return self._mesh(axes)

    def is_inside(self, point, middles, reach):
        """Return whether a point is not on the edge of the small grid around one of `middles`."""
        return bool(np.any(np.all(np.abs(point - middles) <= 0.9 * self._distance(reach), axis=1)))

    def best(self, points, steps, most):
        """Return the points of fewest steps, no two of them neighbours on the first grid."""
        found = []
        for k in np.argsort(steps):
            if all(np.any(np.abs(points[k] - other) > 1.5 * self.spacing) for other in found):
                found.append(points[k])
            if len(found) == most:
                break
        return np.array(found)

    def lanes(self, problem, points):
        """Return the optimizers of all points of shape (r, l, d) on a problem."""
        units = [self._unit(row[0]) for row in points]
        methods = moments.stack([unit.method() for unit in units])
        which = np.repeat(np.arange(len(units)), points.shape[1])
        return Lanes(problem, methods, which, self._rates(points, units).ravel())

    def optimizer(self, point):
        """Return the optimizer at a point of shape (d,)."""
        unit = self._unit(point)
        if not self.free_rate:
            return unit.with_lr(self.fixed["lr"])
        return unit.with_lr(float(self._rates(point[None, None], [unit])[0, 0]))

    def on_border(self, point):
        """Low ends are borders: small rates, and momentum or decay close to 1.

        The least extrapolation is as good as none, so its border is the largest.
        """
        ahead = np.array([name == "extrapolation" for name in self.names])
        return bool(np.any(np.where(ahead, point >= self.high, point <= self.low)))

    def _distance(self, reach):
        return np.where([name == "lr" for name in self.names], *reach) * self.spacing

    def _mesh(self, axes):
        mesh = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
        rates = mesh.shape[0] if self.free_rate else 1
        return np.moveaxis(mesh, 0, -2).reshape(-1, rates, mesh.shape[-1])

    def _rates(self, points, units):
        limits = np.array([unit.curvature_limit for unit in units])[:, None] / self.highest
        if not self.free_rate:
            lr = self.fixed["lr"]
            return np.where(lr < limits, lr, _NO_RATE)
        momenta = np.array([getattr(unit, "momentum", 0.0) for unit in units])[:, None]
        plain = np.array([_not_ahead(unit).curvature_limit for unit in units])[:, None]
        logit = points[..., 0] + np.log1p(-momenta) + np.log(plain / self.highest / limits)
        # The best extrapolation is long and near the limit: there, too, a rate keeps its place.
        bend = 4.0 if "extrapolation" in self.names else 1.0
        logit = np.minimum(bend * logit, _HIGHEST_LOGIT)
        return limits / (1 + np.exp(-logit)) ** (1 / bend)

    def _unit(self, point):
        """Return the optimizer of learning rate 1 at a point."""
        values = dict(self.fixed)
        for name, coordinate in zip(self.names, point, strict=True):
            near_one = name in ("momentum", "decay")
            values[name] = float(-np.expm1(coordinate) if near_one else np.exp(coordinate))
        values["lr"] = 1.0
        if self.base is None:
            return self.kind(**values)
        decay = values.pop("decay")
        return Averaged(self.base(**values), decay)


def _is_method(kind):
    """Return whether it is a class of optimizers that have a rate of their own."""
    is_optimizer = isinstance(kind, type) and issubclass(kind, Optimizer)
    return is_optimizer and dataclasses.is_dataclass(kind) and kind is not Averaged


def _not_ahead(unit):
    """Return the same optimizer without an extrapolation."""
    if isinstance(unit, Averaged):
        return dataclasses.replace(unit, base=_not_ahead(unit.base))
    return dataclasses.replace(unit, extrapolation=0.0) if hasattr(unit, "extrapolation") else unit
