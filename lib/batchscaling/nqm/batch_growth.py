"""Growing batches of SGD at the best constant rate: most for given examples, fewest to a target.

Pieces get shorter towards the end, where the best batch size changes most.
"""

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import expit

from batchscaling import _validation as check
from batchscaling.nqm.optimizers import SGD
from batchscaling.nqm.problem import require_problem
from batchscaling.nqm.risk import MOST_STEPS
from batchscaling.nqm.schedules import Piece, batch_shares

_PIECES = 200
_NEVER = 1e30  # outcome of a rate at which no batch is large enough


def tuned_batch_sizes(problem, steps, examples):
    """Return the batch sizes and the constant rate with the lowest risk for given examples.

    Parameters
    ----------
    problem : NoisyQuadratic
    steps : int
        Length of the schedule, at least 1.
    examples : float
        Sum of the batch sizes over all steps, positive.

    Returns
    -------
    tuple of Piece
        With real batch sizes, at one rate.

    Raises
    ------
    ValueError
        If an argument is out of its range.
    """
    edges = _edges(problem, steps)
    examples = check.positive("examples", examples)

    def risk_at_end(lr):
        return _left(problem, lr, edges) + _noise(problem, lr, edges) / examples

    return _schedule(problem, _best_rate(problem, risk_at_end), edges, examples)


def fewest_examples_schedule(problem, steps, target):
    """Return the batch sizes and the constant rate that meet a target with the fewest examples.

    Parameters
    ----------
    problem : NoisyQuadratic
    steps : int
        Length of the schedule, at least 1.
    target : float
        Risk to reach, positive and below the initial risk.

    Returns
    -------
    tuple of Piece
        With real batch sizes, at one rate.

    Raises
    ------
    ValueError
        If an argument is out of its range, or if even without noise no constant rate meets the
        target in so few steps.
    """
    edges = _edges(problem, steps)
    target = check.positive("target", target)
    if target >= problem.initial_risk:
        check.reject("target", target, f"below the initial risk, {problem.initial_risk:.6g}")

    def examples(lr):
        left = _left(problem, lr, edges)
        if left >= target:
            return _NEVER * left / target
        return _noise(problem, lr, edges) / (target - left)

    lr = _best_rate(problem, examples)
    if examples(lr) >= _NEVER:
        check.reject("steps", int(edges[-1]), f"enough steps to reach {target:g} without noise")
    return _schedule(problem, lr, edges, examples(lr))


def _edges(problem, steps):
    """Return the edges of the pieces, from 0 to the number of steps."""
    require_problem(problem)
    steps = check.integer("steps", steps, 1, MOST_STEPS)
    left = np.unique(np.geomspace(1, steps, _PIECES).astype(int))[::-1]  # steps to go
    return steps - np.append(left, 0)


def _left(problem, lr, edges):
    """Return the risk without noise after the last step."""
    quiet = problem.counts * problem.curvature * problem.second_moment / 2
    return (1 - lr * problem.curvature) ** (2 * int(edges[-1])) @ quiet


def _noise(problem, lr, edges):
    """Return examples times the risk that noise adds, at the best batch sizes."""
    return (np.diff(edges) @ batch_shares(problem, SGD(lr), edges)) ** 2


def _best_rate(problem, outcome):
    """Return the stable constant rate with the lowest outcome."""
    limit = 2 / problem.curvature.max()
    grid = np.arange(-16, 13)  # of the logit of the part of the limit
    x = grid[np.argmin([outcome(limit * expit(x)) for x in grid])]
    while x > -80 and outcome(limit * expit(x - 1)) < outcome(limit * expit(x)):
        x -= 1
    found = minimize_scalar(lambda x: outcome(limit * expit(x)), bounds=(x - 1, x + 1))
    return float(limit * expit(found.x))


def _schedule(problem, lr, edges, examples):
    """Return the pieces of the best batch sizes at a rate."""
    lengths, shares = np.diff(edges), batch_shares(problem, SGD(lr), edges)
    return tuple(
        Piece(SGD(lr), float(batch_size), int(length))
        for batch_size, length in zip(examples * shares / (lengths @ shares), lengths, strict=True)
    )
