"""Calibrate the branched check on the noisy quadratic model: the data of chapter practice/04.

    python -m tools.measure_branch [file]

There the loss of each branch is known exactly, by `expected_losses`. Thousands of checks are
simulated, with common random numbers as `batchscaling.practice.branch` has them, and judged by the
same functions. What is stored for each setting of the model and the check: how often the interval
for the share lost holds the true share (of those that tell, and with refusals as holding it), how
often a verdict is wrong, how often the check cannot tell, and the bias of the share. It takes two
minutes of one core.
"""

import sys
import time
from itertools import product
from pathlib import Path

import numpy as np

from batchscaling.nqm import NoisyQuadratic
from batchscaling.practice.paired import KEPT, LOST, concluded, judge, lost_share
from batchscaling.training.files import write_record
from batchscaling.training.provenance import provenance

FILE = Path(__file__).parents[1] / "data" / "practice" / "branch.json"
FACTORS = (2, 4, 8, 16)
CHECKS = 100
TOLERANCE, EVALUATED = 0.2, 1024
PROBLEM = NoisyQuadratic.harmonic(dim=30)
# At the larger rate 16 times it is close to the largest stable one, 2.
RATES, SIZES, STARTS = (0.02, 0.11), (4, 32), (5, 100, 2000)  # starts: steps before the check
STEPS, REPEATS = (2, 8), (4, 8, 16)


def expected_losses(problem, theta, lr, batch_size, examples):
    """Return the expected loss of SGD after so many examples, from known parameters.

    Parameters
    ----------
    theta : array_like, shape (..., dim)

    Returns
    -------
    numpy.ndarray, shape (...)
    """
    h, c = problem.curvature, problem.noise
    shrink, steps = (1 - lr * h) ** 2, examples // batch_size
    left = shrink**steps
    variance = lr**2 * c / batch_size * (1 - left) / (1 - shrink)
    return (h * (left * np.square(theta) + variance)).sum(-1) / 2


def walked(problem, theta, lr, noise):
    """Return the parameters after one step for each row of gradient noise, shape (..., dim)."""
    for row in noise:
        theta = theta - lr * (problem.curvature * theta + row)
    return theta


def simulate(problem, lr, size, start, steps, repeats, rng):
    """Return the true and the found shares, and verdicts, of many checks.

    Parameters
    ----------
    problem : NoisyQuadratic
    lr : float
    size, start, steps, repeats : int
        Batch size, steps before the check, and its window and repetitions.
    rng : numpy.random.Generator

    Returns
    -------
    list of (list of float, BranchedCheck)
        For each check the true share of each factor.
    """
    h, c = problem.curvature, problem.noise
    root = np.sqrt(c / size)
    theta = rng.standard_normal((CHECKS, len(h))) * np.sqrt(problem.second_moment)
    theta = walked(
        problem, theta, lr, (root * rng.standard_normal(theta.shape) for _ in range(start))
    )
    window = steps * FACTORS[-1]
    noise = root * rng.standard_normal((window, repeats, CHECKS, len(h)))
    told = np.sqrt(c / EVALUATED) * rng.standard_normal((repeats, CHECKS, len(h)))

    def losses(at):
        return (h * at**2 / 2 + told * at).sum(-1)

    found, true = [losses(theta)], [expected_losses(problem, theta, lr, size, 0)]
    for k in (1, *FACTORS):
        merged = noise.reshape(window // k, k, *noise.shape[1:]).mean(1)
        found.append(losses(walked(problem, theta, k * lr, merged)))
        true.append(expected_losses(problem, theta, k * lr, k * size, window * size))
    true = np.array(true)
    shares = (true[2:] - true[1]) / (true[0] - true[1])
    return [(shares[:, i].tolist(), checked(size, [f[:, i] for f in found])) for i in range(CHECKS)]


def checked(size, losses):
    """Return the check of losses at the start, of the run and of its branches."""
    start, base, *branches = losses
    shares, verdicts = [(0.0, 0.0, 0.0)], [KEPT]
    for branch in branches:
        shares.append(lost_share(start, base, branch))
        verdicts.append(judge(shares[-1], TOLERANCE))
        if verdicts[-1] == LOST:
            break
    sizes = [size * k for k in (1, *FACTORS)][: len(verdicts)]
    return concluded(sizes, shares, verdicts, TOLERANCE)


def summary(pairs, size):
    """Return what the file keeps of the checks of one setting."""
    inside, errors, wrong, unknown, told, refused = [], [], [], 0, 0, 0
    for true, check in pairs:
        exact = dict(zip(size * np.array(FACTORS), true, strict=True))
        for b, share in zip(check.batch_sizes[1:], check.lost[1:], strict=True):
            if np.isfinite(share[0]):
                inside.append(share[1] <= exact[b] <= share[2])
                errors.append((exact[b], share[0] - exact[b]))
            else:
                refused += 1
        unknown += check.reason is not None
        too_high = check.low is not None and exact[check.low] > TOLERANCE
        too_low = check.high is not None and exact[check.high] <= TOLERANCE
        wrong.append(too_high or too_low)
        told += check.low is not None and check.high is not None
    near = [error for exact, error in errors if abs(exact) < 1]
    return {
        "covered": float(np.mean(inside)) if inside else None,
        "intervals": len(inside),
        # Where progress is not clear of zero, Fieller's interval holds every number.
        "covered_with_refusals": float((np.sum(inside) + refused) / (len(inside) + refused)),
        "wrong": float(np.mean(wrong)),
        "cannot_tell": unknown / len(pairs),
        "both_ends": told / len(pairs),
        "bias": float(np.mean(near)) if near else None,
        "spread": float(np.std(near)) if near else None,
        "true": np.median([true for true, _ in pairs], axis=0).tolist(),
    }


def main(file):
    """Simulate every setting, and write the file."""
    began, rows = time.perf_counter(), []
    settings = product(RATES, SIZES, STARTS, STEPS, REPEATS)
    for number, (lr, size, start, steps, repeats) in enumerate(settings):
        rng = np.random.default_rng([0, number])
        pairs = simulate(PROBLEM, lr, size, start, steps, repeats, rng)
        names = {"lr": lr, "batch_size": size, "start": start, "steps": steps, "repeats": repeats}
        rows.append({**names, **summary(pairs, size)})
        kept = ("covered_with_refusals", "wrong", "cannot_tell", "both_ends")
        print(*names.values(), *(f"{name} {rows[-1][name]:.3g}" for name in kept), flush=True)
    origin = provenance("python -m tools.measure_branch", "cpu", time.perf_counter() - began)
    how = {"factors": FACTORS, "checks": CHECKS, "tolerance": TOLERANCE, "evaluated": EVALUATED}
    file.parent.mkdir(parents=True, exist_ok=True)
    write_record(file, {"provenance": origin, "check": how, "rows": rows})


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else FILE)
