"""Time the noisy quadratic model's searches, and two plain ways of doing the same, in one run.

    python -m tools.bench_engine

The plain ways search a grid of 100 rates and 20 momenta for one batch size at a time. They are too
slow to run in full: each is timed on a part, and the time of the whole is the product.
"""

import resource
import time

import numpy as np

from batchscaling.nqm import (
    SGD,
    Averaged,
    HeavyBall,
    NoisyQuadratic,
    fewest_steps_schedule,
    optimal_lr_schedule,
    risk,
    tune,
)

TARGET = 0.01
BATCH_SIZES = 2.0 ** np.arange(2, 21, 2)
POWERS = (0.0, 0.25, 0.5, 0.75)
RATES, MOMENTA = 100, 20
PROBLEM = NoisyQuadratic.harmonic(10_000).quantize(100)


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


def grid():
    """Return rates, shape (100, 1, 1), and momenta, shape (20, 1), all stable."""
    momenta = 1 - np.geomspace(1e-5, 1, MOMENTA)[:, None]
    fractions = np.geomspace(1e-8, 0.999, RATES)[:, None, None]
    return fractions * 2 * (1 + momenta) / PROBLEM.curvature.max(), momenta


def recursion_step_seconds(steps=20):
    """Return the time of one step of the three second moments of the whole grid."""
    lr, beta = grid()
    h, c = PROBLEM.curvature, PROBLEM.noise / 64
    tt = np.ones((RATES, MOMENTA, h.size))
    tv, vv = np.zeros_like(tt), np.zeros_like(tt)

    def run():
        nonlocal tt, tv, vv
        for _ in range(steps):
            new_vv = beta**2 * vv + 2 * beta * h * tv + h**2 * tt + c
            mixed = beta * tv + h * tt
            tt, tv, vv = tt - 2 * lr * mixed + lr**2 * new_vv, mixed - lr * new_vv, new_vv

    return seconds(run)[0] / steps


def eigendecomposition_cell(batch_size=64.0, levels=24):
    """Bisect the steps of every grid point with eigenvectors of the 3x3 moment matrices."""
    lr, beta = (np.broadcast_to(part, (RATES, MOMENTA, 1)) for part in grid())
    h, c = PROBLEM.curvature, PROBLEM.noise / batch_size
    shape = np.broadcast_shapes(lr.shape, h.shape)
    a, zero = 1 - lr * h, np.zeros(shape)
    rows = [
        [a**2, -2 * a * lr * beta, (lr * beta) ** 2],
        [a * h, a * beta - lr * beta * h, -lr * beta**2],
        [h**2 + zero, 2 * h * beta, beta**2 + zero],
    ]
    matrix = np.stack([np.stack([r + zero for r in row], axis=-1) for row in rows], axis=-2)
    noise = np.stack([lr**2 * c, -lr * c, c + zero], axis=-1)
    values, vectors = np.linalg.eig(matrix)
    inverse = np.linalg.inv(vectors)
    start, push = inverse[..., 0], np.einsum("...ij,...j->...i", inverse, noise)
    weight = 0.5 * PROBLEM.counts * h

    def risk_at(t):
        power = values ** t[..., None, None]
        terms = (power - 1) / (values - 1)
        return np.sum(vectors[..., 0, :] * (power * start + terms * push), axis=-1).real @ weight

    steps = np.zeros((RATES, MOMENTA))
    for level in reversed(range(levels)):
        steps += 2.0**level * (risk_at(steps + 2.0**level) > TARGET)
    return steps.min() + 1


def main():
    """Print the tables."""
    curves, tuned = seconds(figure_3a)
    ema, _ = seconds(figure_ema)
    schedule, _ = seconds(optimal_lr_schedule, PROBLEM, 64, 16_000, repeats=3)
    shortest, _ = seconds(fewest_steps_schedule, PROBLEM, 64, TARGET)
    step = recursion_step_seconds()
    recursion = step * sum(float(steps) for tuning in tuned for steps in tuning.steps)
    cell, steps = seconds(eigendecomposition_cell)
    cells = len(POWERS) * 2 * len(BATCH_SIZES)
    print(f"figure 3a ({cells} cells): {curves:.2f} s")
    print(f"  step-by-step recursion over the grid: {recursion:.3g} s, {recursion / curves:.3g} x")
    print(
        f"  eigendecomposition, cell by cell: {cell * cells:.3g} s, {cell * cells / curves:.3g} x"
    )
    print(f"  (one cell {cell:.2f} s, {steps:.0f} steps; ours {tuned[1].steps[2]} steps)")
    print(f"averages ({cells // 2} cells): {ema:.2f} s")
    print(f"one optimal schedule of 50 pieces: {schedule:.3f} s; the shortest: {shortest:.2f} s")
    print("\nbins   one heavy-ball curve (s)")
    for bins in (50, 100, 200, 400):
        problem = NoisyQuadratic.harmonic(10_000).quantize(bins)
        print(f"{bins:4}   {seconds(tune, problem, HeavyBall, BATCH_SIZES, TARGET)[0]:.2f}")
    print("\nsteps  risk of heavy ball, 10,000 curvatures (s)")
    full = NoisyQuadratic.harmonic(10_000)
    for power in (1, 3, 5, 7, 9):
        time_ = seconds(risk, full, HeavyBall(0.5, 0.9), 64, 10**power, repeats=3)[0]
        print(f"1e{power}    {time_:.3f}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"\npeak memory of this process: {peak:.0f} MiB")


if __name__ == "__main__":
    main()
