"""Time the noisy quadratic model's searches, and two plain ways of doing the same, in one run.

    python -m tools.bench_engine

The plain ways search a grid of 100 rates and 20 momenta or decays for one batch size at a time;
for SGD alone, 100 rates, which count as a twentieth. One recurs step by step as often as the best
setting needs steps; the other bisects the steps of each setting with the eigenvectors of its
matrices. A schedule is optimised with finite differences, of a recursion over all steps or of the
closed form of each piece (SGD's matrices are diagonal). All are too slow to run in full: each is
timed on a part, and the time of the whole is the product.
"""

import itertools
import resource
import time
from unittest import mock

import numpy as np

from batchscaling.nqm import (
    SGD,
    Averaged,
    HeavyBall,
    NoisyQuadratic,
    fewest_steps_schedule,
    optimal_lr_schedule,
    risk,
    schedules,
    tune,
)
from batchscaling.nqm._lanes import Lanes
from batchscaling.nqm.moments import stack

TARGET = 0.01
BATCH_SIZES = 2.0 ** np.arange(2, 21, 2)
POWERS = (0.0, 0.25, 0.5, 0.75)
RATES, MOMENTA = 100, 20
FULL = NoisyQuadratic.harmonic(10_000)
PROBLEM = FULL.quantize(100)
PIECES, LENGTH = 50, 16_000  # of the schedule


def seconds(function, *arguments, repeats=1, **keywords):
    """Return the shortest wall time of some calls, and the last result."""
    best = np.inf
    for _ in range(repeats):
        start = time.perf_counter()
        result = function(*arguments, **keywords)
        best = min(best, time.perf_counter() - start)
    return best, result


def figure_3a():
    """Tune SGD and momentum at every power and batch size."""
    return [
        tune(PROBLEM.precondition(power), optimizer, BATCH_SIZES, TARGET)
        for power in POWERS
        for optimizer in (SGD, HeavyBall)
    ]


def figure_ema():
    """Tune SGD with an average of its parameters at every power and batch size."""
    return [
        tune(PROBLEM.precondition(power), Averaged, BATCH_SIZES, TARGET, base=SGD)
        for power in POWERS
    ]


def grid(kind):
    """Return the transition and noise of a stable grid of heavy ball or of averaged SGD.

    The transition has the shape (2, 2, 100, 20, k), the noise (2, 2, 100, 20, 1) for variance 1.
    """
    rest = np.geomspace(1e-5, 1, MOMENTA)[:, None]
    fractions = np.geomspace(1e-8, 0.999, RATES)[:, None, None]
    h = PROBLEM.curvature
    if kind is HeavyBall:
        beta = 1 - rest
        lr = fractions * 2 * (1 + beta) / h.max()
        rows = [[1 - lr * h, -lr * beta], [h, beta]]
        push = [-lr, 1.0]
    else:
        lr = fractions * 2 / h.max()
        rows = [[1 - lr * h, 0.0], [rest * (1 - lr * h), 1 - rest]]
        push = [-lr, -rest * lr]
    shape = (RATES, MOMENTA, h.size)
    F = np.array([[np.broadcast_to(entry, shape) for entry in row] for row in rows])
    push = np.array([np.broadcast_to(entry, shape) for entry in push])
    return F, push[:, None] * push[None]


def recursion_step_seconds(kind, steps=20):
    """Return the time of one step of the three second moments of the whole grid."""
    F, push = grid(kind)
    (a, b), (c, d) = F
    noise = push * PROBLEM.noise / 64
    xx, xy, yy = (np.full(a.shape, start) for start in (1.0, float(kind is Averaged), 1.0))

    def run():
        nonlocal xx, xy, yy
        for _ in range(steps):
            xx, xy, yy = (
                a * a * xx + 2 * a * b * xy + b * b * yy + noise[0, 0],
                a * c * xx + (a * d + b * c) * xy + b * d * yy + noise[0, 1],
                c * c * xx + 2 * c * d * xy + d * d * yy + noise[1, 1],
            )

    return seconds(run)[0] / steps


def eigendecomposition_cell(kind, batch_size=64.0, levels=24):
    """Bisect the steps of every grid point with eigenvectors of the 3x3 moment matrices."""
    F, push = grid(kind)
    (a, b), (c, d) = F
    rows = [[a * a, 2 * a * b, b * b], [a * c, a * d + b * c, b * d], [c * c, 2 * c * d, d * d]]
    matrix = np.moveaxis(np.array(rows), (0, 1), (-2, -1))
    noise = np.stack([push[0, 0], push[0, 1], push[1, 1]], axis=-1)
    noise = noise * (PROBLEM.noise / batch_size)[:, None]
    values, vectors = np.linalg.eig(matrix)
    inverse = np.linalg.inv(vectors)
    is_average = kind is Averaged
    start = inverse @ np.array([1.0, 1.0, 1.0] if is_average else [1.0, 0.0, 0.0])
    drive = np.einsum("...ij,...j->...i", inverse, noise)
    readout = vectors[..., 2 if is_average else 0, :]
    weight = 0.5 * PROBLEM.counts * PROBLEM.curvature

    def risk_at(t):
        power = values ** t[..., None, None]
        terms = (power - 1) / (values - 1)
        return np.sum(readout * (power * start + terms * drive), axis=-1).real @ weight

    steps = np.zeros((RATES, MOMENTA))
    for level in reversed(range(levels)):
        steps += 2.0**level * (risk_at(steps + 2.0**level) > TARGET)
    return steps.min() + 1


def schedule_evaluations():
    """Return how often the schedule's search asks for the risk and its gradient."""
    function = schedules._risk_and_gradient
    with mock.patch.object(schedules, "_risk_and_gradient", wraps=function) as calls:
        optimal_lr_schedule(PROBLEM, 64, LENGTH, pieces=PIECES)
    return calls.call_count


def schedule_by_finite_differences(by_step):
    """Return the time of one risk and gradient; by steps it is extrapolated from one piece."""
    length, h, noise = LENGTH // PIECES, PROBLEM.curvature, PROBLEM.noise / 64
    lr = np.full((PIECES + 1, PIECES), 0.1)
    lr[1:] += 1e-7 * np.eye(PIECES)

    def recur():
        second = np.ones((PIECES + 1, h.size))
        for _ in range(length):
            second = (1 - lr[:, :1] * h) ** 2 * second + lr[:, :1] ** 2 * noise

    def close():
        second = np.ones((PIECES + 1, h.size))
        for rate in lr.T[:, :, None]:
            factor = (1 - rate * h) ** 2
            power = factor**length
            second = power * second + rate**2 * noise * (1 - power) / (1 - factor)

    return PIECES * seconds(recur)[0] if by_step else seconds(close, repeats=3)[0]


def table_seconds(bins, lanes, levels=20):
    """Return the time of the risk of many heavy balls at powers of two."""
    problem, methods = FULL.quantize(bins), stack([HeavyBall(1.0, 0.9).method()])
    rates = np.geomspace(1e-4, 1.0, lanes)

    def run():
        made = Lanes(problem, methods, np.zeros(lanes, dtype=int), rates)
        return list(itertools.islice(made.at_powers_of_two(), levels))

    return seconds(run, repeats=3)[0]


def peak_memory():
    """Return the largest memory of this process until now, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def line(name, limit, ours, recursion, second):
    """Print one row of the first table."""
    ratios = "".join(f"{plain:>12.3g} s{plain / ours:>8.2g} x" for plain in (recursion, second))
    print(f"{name:<28}{ours:>7.3f} s{limit:>7g} s{ratios}")


def figure_line(name, figure, kind):
    """Time one figure and the plain ways of it."""
    ours, tunings = seconds(figure, repeats=3)
    of_sgd = [isinstance(tuning.optimizers[0], SGD) for tuning in tunings]
    shares = np.where(of_sgd, 1 / MOMENTA, 1.0)
    steps = shares @ [float(tuning.steps.sum()) for tuning in tunings]
    recursion = recursion_step_seconds(kind) * steps
    cell, fewest = seconds(eigendecomposition_cell, kind)
    line(name, 2, ours, recursion, cell * shares.sum() * len(BATCH_SIZES))
    best = tunings[of_sgd.index(False)].steps[2]
    return f"{name}, p = 0, B = 64: {best} steps; on the plain grid {fewest:.0f}"


def main():
    """Print the tables."""
    figure_3a()
    memory = peak_memory()
    print(f"{'':28}{'ours':>9}{'limit':>9}{'step by step':>24}{'eigenvectors':>24}")
    notes = [
        figure_line("figure 3a, 80 cells", figure_3a, HeavyBall),
        figure_line("averages (EMA), 40 cells", figure_ema, Averaged),
    ]
    ours, _ = seconds(optimal_lr_schedule, PROBLEM, 64, LENGTH, pieces=PIECES, repeats=3)
    calls = schedule_evaluations()
    plain = [calls * schedule_by_finite_differences(by_step) for by_step in (True, False)]
    line(f"optimal schedule, {PIECES} pieces", 0.3, ours, *plain)
    shortest, _ = seconds(fewest_steps_schedule, PROBLEM, 64, TARGET)
    print("\n" + "\n".join(notes))
    print(f"the shortest schedule to {TARGET}, batch size 64: {shortest:.2f} s")
    print(f"peak memory of figure 3a, with the interpreter: {memory:.0f} MiB (limit 1024)")
    print("\nbins   2,000 heavy balls at 20 times (s)")
    for bins in (50, 100, 200, 400):
        print(f"{bins:4}   {table_seconds(bins, 2000):.3f}")
    print("\ngrid   100 bins, 20 times (s)")
    for lanes in (1000, 2000, 4000, 8000):
        print(f"{lanes:4}   {table_seconds(100, lanes):.3f}")
    print("\nsteps  risk of heavy ball, 10,000 curvatures (s)")
    for power in (1, 3, 5, 7, 9):
        time_ = seconds(risk, FULL, HeavyBall(0.5, 0.9), 64, 10**power, repeats=3)[0]
        print(f"1e{power}    {time_:.3f}")


if __name__ == "__main__":
    main()
