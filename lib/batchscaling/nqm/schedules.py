r"""Exact risk under schedules, and schedules that are optimal for it.

A schedule is a list of pieces. Within a piece the optimizer and the batch size are constant, so
the second moments M of the state move by :math:`M \to P M P^\top + (c/B)\,C` with the P and C of
`moments`, whatever the length of the piece.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from itertools import pairwise

import numpy as np
from scipy.optimize import minimize

from batchscaling import _validation as check
from batchscaling.nqm import moments
from batchscaling.nqm.optimizers import SGD, Optimizer
from batchscaling.nqm.optimizers.base import require_optimizer
from batchscaling.nqm.problem import require_problem
from batchscaling.nqm.risk import MOST_STEPS, whole_steps


@dataclass(frozen=True)
class Piece:
    """Some steps of one optimizer at one batch size.

    Parameters
    ----------
    optimizer : Optimizer
        Need not be stable.
    batch_size : float
        Positive.
    steps : int
        At least 1.
    """

    optimizer: Optimizer
    batch_size: float
    steps: int

    def __post_init__(self):
        steps = partial(check.integer, low=1)
        check.fields(
            self, optimizer=require_optimizer, batch_size=check.positive_amount, steps=steps
        )


def schedule_risk(problem, schedule, steps):
    """Return the expected loss after the given numbers of steps of a schedule.

    Parameters
    ----------
    problem : NoisyQuadratic
    schedule : sequence of Piece
        All with optimizers of one kind, whose state goes on from piece to piece.
    steps : int or array_like of int
        From 0 to the length of the schedule.

    Returns
    -------
    float or ndarray
        Of the shape of `steps`. Pieces need not be stable; what is above about 1e300 is ``inf``.

    Raises
    ------
    ValueError
        If an argument is out of its range.

    References
    ----------
    Zhang et al. (2019), section 3.6.2 and equation 3.
    """
    require_problem(problem)
    given, schedule = schedule, tuple(schedule) if isinstance(schedule, Iterable) else ()
    if not schedule or not all(isinstance(piece, Piece) for piece in schedule):
        check.reject("schedule", given, "a non-empty sequence of Piece")
    kinds = {len(piece.optimizer.method().b) for piece in schedule}
    if len({type(piece.optimizer) for piece in schedule}) > 1 or len(kinds) > 1:
        check.reject("schedule", schedule, "pieces with optimizers of one kind")
    steps = whole_steps(steps)
    last = sum(piece.steps for piece in schedule)
    if steps.max() > last:
        check.reject("steps", int(steps.max()), f"at most {last}, the length of the schedule")
    wanted, position = np.unique(steps.ravel(), return_inverse=True)
    risks = np.array(list(_risks(problem, schedule, wanted)))[position].reshape(steps.shape)
    return float(risks) if risks.ndim == 0 else risks


def _risks(problem, schedule, wanted):
    """Yield the risk at each of the sorted steps `wanted`."""
    h = problem.curvature
    weight = 0.5 * problem.counts * h
    start = schedule[0].optimizer.method().start
    second = problem.second_moment * moments.outer(start, start)
    wanted, now = wanted.tolist(), 0
    for piece in schedule:
        method = piece.optimizer.method()
        noise = problem.noise / piece.batch_size
        end = now + piece.steps
        advance = moments.Advance(method, h)
        while wanted and wanted[0] <= end:
            stop = wanted.pop(0)
            second, now = advance(second, noise, stop - now), stop
            found = weight @ np.einsum("i,ijk,j->k", method.readout, second, method.readout)
            yield np.inf if np.isnan(found) else found  # differences of what is beyond all floats
        second, now = advance(second, noise, end - now), end


def optimal_lr_schedule(problem, batch_size, steps, *, pieces=50, start=None):
    """Return piecewise-constant rates of SGD with a low risk after given steps.

    It is the lowest that one descent from falling rates finds. On spectra of many directions other
    starts find none lower; with two to five directions and little noise some do, by up to several
    times, as rates near the limit can cancel single directions.
    Each rate is bounded by the largest stable one. The risk and its exact gradient in the
    logarithms of the rates go to L-BFGS-B.

    Parameters
    ----------
    problem : NoisyQuadratic
    batch_size : float
        Positive.
    steps : int
        Length of the schedule, from 1 to 2**62.
    pieces : int
        Number of pieces of nearly equal length, at least 1; at most `steps` are used.
    start : array_like, optional
        Rates to start from, one a piece. By default a high rate that falls at the end.

    Returns
    -------
    tuple of Piece

    References
    ----------
    Zhang et al. (2019), section 3.6.2.
    """
    require_problem(problem)
    batch_size = check.positive("batch_size", batch_size)
    steps = check.integer("steps", steps, 1, MOST_STEPS)
    pieces = min(check.integer("pieces", pieces, 1), steps)
    lengths = _lengths(steps, pieces)
    highest = 2 / problem.curvature.max() * (1 - 1e-9)
    if start is None:
        start = highest * np.geomspace(0.5, 0.05, pieces)
    start = check.array("start", start, positive=True)
    if start.shape != (pieces,):
        check.reject("start", f"an array of shape {start.shape}", f"the shape ({pieces},)")

    def objective(log_lr):
        risk, gradient = _risk_and_gradient(problem, np.exp(log_lr), batch_size, lengths)
        return np.log(risk), gradient * np.exp(log_lr) / risk

    found = minimize(
        objective,
        np.log(np.minimum(start, highest)),
        jac=True,
        method="L-BFGS-B",
        bounds=[(None, np.log(highest))] * pieces,
        options={"maxiter": 500, "ftol": 1e-10, "gtol": 1e-6},
    )
    rates = np.maximum(np.exp(found.x), np.finfo(float).tiny)  # above zero
    return tuple(
        Piece(SGD(lr), batch_size, length) for lr, length in zip(rates, lengths, strict=True)
    )


def fewest_steps_schedule(problem, batch_size, target, *, pieces=50):
    """Return the shortest optimal learning-rate schedule of SGD that ends at or below a target.

    Parameters
    ----------
    problem : NoisyQuadratic
    batch_size : float
        Positive.
    target : float
        Risk to reach, positive and below the initial risk.
    pieces : int
        Number of pieces, at least 1.

    Returns
    -------
    tuple of Piece
        Its length is within 0.1 %, or one step, of the shortest whose rates `optimal_lr_schedule`
        finds; with few directions and little noise a shorter one may exist.

    Raises
    ------
    ValueError
        If an argument is out of its range or 2**62 steps do not reach the target.
    """
    require_problem(problem)
    batch_size, target = check.positive("batch_size", batch_size), check.positive("target", target)
    pieces = check.integer("pieces", pieces, 1)
    if target >= problem.initial_risk:
        check.reject("target", target, f"below the initial risk, {problem.initial_risk:.6g}")
    too_short, long_enough, best = 0, 1, None
    rates = None
    while best is None or long_enough - too_short > max(1, too_short // 1000):
        # Double until long enough; then bisect.
        if too_short == MOST_STEPS:
            check.reject("target", target, f"a risk that {MOST_STEPS} steps reach")
        steps = long_enough if best is None else (too_short + long_enough) // 2
        usable = rates is not None and len(rates) == min(pieces, steps)
        schedule = optimal_lr_schedule(
            problem, batch_size, steps, pieces=pieces, start=rates if usable else None
        )
        rates = np.array([piece.optimizer.lr for piece in schedule])
        lengths = [piece.steps for piece in schedule]
        if _risk_and_gradient(problem, rates, batch_size, lengths)[0] <= target:
            long_enough, best = steps, schedule
        else:
            too_short = steps
            long_enough = min(2 * steps, MOST_STEPS) if best is None else long_enough
    return best


def optimal_batch_sizes(problem, lr, steps, examples, *, pieces=50):
    r"""Return the batch sizes of SGD at a constant rate with the lowest risk for given examples.

    The noise of step t adds :math:`w_t / B_t` to the final risk, with
    :math:`w_t = \frac12\sum_i h_i c_i \alpha^2 (1 - \alpha h_i)^{2(T-t)}`. Under a fixed sum of
    the :math:`B_t` the best ones are proportional to :math:`\sqrt{w_t}` (Lagrange), here averaged
    within each piece. They are real numbers.

    Parameters
    ----------
    problem : NoisyQuadratic
    lr : float
        Constant learning rate, stable.
    steps : int
        Length T of the schedule, from 1 to 2**62.
    examples : float
        Sum of the batch sizes over all steps, positive.
    pieces : int
        Number of pieces of nearly equal length, at least 1; at most `steps` are used.

    Returns
    -------
    tuple of Piece
    """
    require_problem(problem)
    optimizer = SGD(lr)
    check.real("lr", lr, 0, 2 / problem.curvature.max(), low_open=True, high_open=True)
    steps = check.integer("steps", steps, 1, MOST_STEPS)
    examples = check.positive("examples", examples)
    pieces = min(check.integer("pieces", pieces, 1), steps)
    edges = np.cumsum([0, *_lengths(steps, pieces)])
    lengths, shares = np.diff(edges), batch_shares(problem, optimizer, edges)
    batch_sizes = examples * shares / (lengths @ shares)
    return tuple(
        Piece(optimizer, batch_size, length)
        for batch_size, length in zip(batch_sizes, lengths, strict=True)
    )


def batch_shares(problem, optimizer, edges):
    """Return the root of the mean weight of a step's noise, in each piece between two edges."""
    lengths, h = np.diff(edges), problem.curvature
    _, psi = moments.response(optimizer.method(), h, lengths)
    left, _ = moments.response(optimizer.method(), h, edges[-1] - edges[1:])
    weight = (psi * left**2) @ (0.5 * problem.counts * h * problem.noise)  # of each piece's noise
    shares = np.sqrt(weight / lengths)
    # Noise of long ago may underflow. Without any, all batch sizes do as well.
    return np.maximum(shares, 1e-12 * shares.max()) if shares.any() else np.ones(len(lengths))


def _risk_and_gradient(problem, lr, batch_size, lengths):
    """Return the final risk of SGD and its derivative in each piece's rate."""
    h, n = problem.curvature, np.array(lengths, dtype=float)[:, None]
    noise = problem.noise / batch_size
    x = np.maximum(lr[:, None] * h, 1e-300)  # is divided by
    a, one_minus_q = 1 - x, x * (2 - x)  # q = a**2
    with np.errstate(divide="ignore"):
        log_q = np.where(x < 0.5, 2 * np.log1p(-np.minimum(x, 0.5)), 2 * np.log(np.abs(a)))
    shrink, lost = np.exp(n * log_q), -np.expm1(n * log_q)  # q**n and 1 - q**n
    terms = lost / one_minus_q  # 1 + q + ... + q**(n-1)
    shrink_slope = -2 * n * h * np.copysign(np.exp((n - 0.5) * log_q), a)
    terms_slope = (-shrink_slope - terms * 2 * h * a) / one_minus_q
    added = noise * lr[:, None] ** 2 * terms
    added_slope = noise * (2 * lr[:, None] * terms + lr[:, None] ** 2 * terms_slope)
    before = np.empty_like(shrink)
    second = problem.second_moment
    for k in range(len(lr)):
        before[k] = second
        second = shrink[k] * second + added[k]
    adjoint = 0.5 * problem.counts * h
    risk = adjoint @ second
    gradient = np.empty(len(lr))
    for k in reversed(range(len(lr))):
        gradient[k] = adjoint @ (shrink_slope[k] * before[k] + added_slope[k])
        adjoint = adjoint * shrink[k]
    return risk, gradient


def _lengths(steps, pieces):
    """Return the lengths of pieces of nearly equal length: integers whose sum is `steps`."""
    edges = [round(Fraction(piece * steps, pieces)) for piece in range(pieces + 1)]
    return [end - start for start, end in pairwise(edges)]
