"""Tuned hyperparameters against plain grids."""

import numpy as np
import pytest
from reference import diagonal_recursion

from batchscaling.nqm import (
    SGD,
    Averaged,
    ExtrapSGD,
    HeavyBall,
    Nesterov,
    NoisyQuadratic,
    steps_to_target,
    tune,
)

PROBLEM = NoisyQuadratic.harmonic(1000).quantize(60)


def steps_or_infinity(optimizer, batch_size, target):
    steps = steps_to_target(PROBLEM, optimizer, batch_size, target)
    return np.inf if steps is None else steps


@pytest.mark.parametrize("batch_size", [1, 64, 65536])
def test_sgd_is_not_beaten_by_a_grid(batch_size):
    found = tune(PROBLEM, SGD, [batch_size], 0.05)
    grid = np.append(np.geomspace(1e-4, 1.9, 150), np.linspace(1.9, 1.9999, 50))
    best = min(steps_or_infinity(SGD(lr), batch_size, 0.05) for lr in grid)
    assert found.steps[0] <= best
    assert found.steps[0] >= 0.99 * best
    assert found.steps[0] == steps_or_infinity(found.optimizers[0], batch_size, 0.05)


@pytest.mark.parametrize("batch_size", [256, 65536])
def test_heavy_ball_is_not_beaten_by_a_grid(batch_size):
    found = tune(PROBLEM, HeavyBall, [batch_size], 0.05)
    best = min(
        steps_or_infinity(HeavyBall(fraction * 2 * (1 + momentum), momentum), batch_size, 0.05)
        for momentum in 1 - np.geomspace(1e-3, 1, 12)
        for fraction in np.append(np.geomspace(1e-4, 0.9, 15), 0.99)
    )
    assert found.steps[0] <= 1.01 * best
    assert not found.at_border[0]


def test_the_unbinned_optimum_of_sgd():
    # A grid of 400 rates over all 10,000 curvatures needs 10366 steps at B = 1024 and 6881 at
    # B = 2**20. The recursion confirms that a rate closer to the limit 2 needs 2 % fewer there.
    full = NoisyQuadratic.harmonic(10_000)
    found = tune(full, SGD, [1024, 2**20], 0.01)
    assert 0.99 * 10_366 <= found.steps[0] <= 10_366
    assert 0.97 * 6_881 <= found.steps[1] <= 6_881
    for optimizer, batch_size, steps in zip(
        found.optimizers, found.batch_sizes, found.steps, strict=True
    ):
        *_, before, at = diagonal_recursion(full, optimizer, batch_size, steps)
        assert before > 0.01 >= at


def test_fixed_momentum():
    found = tune(PROBLEM, HeavyBall, [16, 1024], 0.05, momentum=0.9)
    np.testing.assert_array_equal(found.momentum, [0.9, 0.9])
    np.testing.assert_allclose(found.effective_lr, found.lr / 0.1)
    free = tune(PROBLEM, HeavyBall, [16, 1024], 0.05)
    assert np.all(free.steps <= 1.02 * found.steps)


def test_border_is_reported():
    # With one direction and almost no noise left, ever more momentum is not what is wanted; but
    # for small batches the best momentum runs to the edge of the search.
    small = tune(NoisyQuadratic.harmonic(10_000).quantize(100), HeavyBall, [1], 0.01)
    assert small.at_border[0]
    assert small.momentum[0] == pytest.approx(1 - 1e-5, abs=1e-6)


def test_linear_scaling_at_small_batches():
    found = tune(PROBLEM, SGD, [1, 2, 4, 8], 0.05)
    np.testing.assert_allclose(found.lr[1:] / found.lr[:-1], 2, rtol=0.05)
    np.testing.assert_allclose(np.diff(np.log2(found.steps.astype(float))), -1, atol=0.02)


def test_average_is_not_beaten_by_a_grid():
    found = tune(PROBLEM, Averaged, [16], 0.05, base=SGD)
    best = min(
        steps_or_infinity(Averaged(SGD(lr), decay), 16, 0.05)
        for lr in np.geomspace(0.02, 1.99, 20)
        for decay in 1 - np.geomspace(1e-4, 1, 15)
    )
    assert found.steps[0] <= 1.002 * best
    assert 0.9 < found.decay[0] < 1
    assert found.steps[0] < 0.8 * tune(PROBLEM, SGD, [16], 0.05).steps[0]


@pytest.mark.parametrize("kind", [Nesterov, ExtrapSGD])
def test_other_optimizers_can_be_tuned(kind):
    plain = tune(PROBLEM, SGD, [16, 65536], 0.05)
    found = tune(PROBLEM, kind, [16, 65536], 0.05)
    assert np.all(found.steps <= 1.01 * plain.steps)
    for optimizer, batch_size, steps in zip(
        found.optimizers, found.batch_sizes, found.steps, strict=True
    ):
        assert steps_to_target(PROBLEM, optimizer, batch_size, 0.05) == steps
