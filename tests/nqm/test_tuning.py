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
    Optimizer,
    is_stable,
    risk,
    steps_to_target,
    tune,
)

PROBLEM = NoisyQuadratic.harmonic(1000).quantize(60)


def steps_or_infinity(optimizer, batch_size, target):
    return steps_to_target(PROBLEM, optimizer, [batch_size], target)[0]


@pytest.mark.parametrize("batch_size", [1, 64, 65536])
def test_sgd_is_not_beaten_by_a_grid(batch_size):
    found = tune(PROBLEM, SGD, [batch_size], 0.05)
    grid = np.append(np.geomspace(1e-4, 1.9, 150), np.linspace(1.9, 1.9999, 50))
    best = min(steps_or_infinity(SGD(lr), batch_size, 0.05) for lr in grid)
    assert found.steps[0] <= best
    assert found.steps[0] >= 0.99 * best
    assert found.steps[0] == steps_or_infinity(found.optimizers[0], batch_size, 0.05)


@pytest.mark.parametrize(
    ("kind", "lr"), [(HeavyBall, 5.0), (HeavyBall, 3.9), (Averaged, 2.5), (ExtrapSGD, 2.5)]
)
def test_a_rate_that_is_held_is_held_where_it_reaches_nothing(kind, lr):
    problem = NoisyQuadratic.harmonic(5)
    base = {"base": SGD} if kind is Averaged else {}
    found = tune(problem, kind, [1000], 0.1, lr=lr, **base)
    assert found.steps.tolist() == [np.inf] and found.lr.tolist() == [lr]
    for momentum in (0.0, 0.9, 0.96, 0.99) if kind is HeavyBall else ():
        optimizer = HeavyBall(lr, momentum)
        if is_stable(problem, optimizer):
            assert steps_to_target(problem, optimizer, 1000, 0.1) is None


@pytest.mark.parametrize(
    ("name", "kind", "fixed"),
    [("base", Averaged, {"base": Averaged}), ("optimizer", Optimizer, {})],
)
def test_only_methods_are_tuned(name, kind, fixed):
    with pytest.raises(ValueError, match=f"^{name} is .*; allowed: an optimizer class"):
        tune(PROBLEM, kind, [1], 0.05, **fixed)


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
    # A grid of 400 rates over all 10,000 curvatures needs these steps. The recursion confirms that
    # a rate closer to the limit 2 needs 2 % fewer at B = 2**20.
    reference = np.array([1_507_667, 95_960, 10_366, 6_881])
    full = NoisyQuadratic.harmonic(10_000)
    found = tune(full, SGD, [4, 64, 1024, 2**20], 0.01)
    assert np.all(found.steps <= reference)
    assert np.all(found.steps[:3] >= 0.99 * reference[:3]) and found.steps[3] >= 0.97 * reference[3]
    for k in (2, 3):
        path = diagonal_recursion(
            full, found.optimizers[k], found.batch_sizes[k], int(found.steps[k])
        )
        *_, before, at = path
        assert before > 0.01 >= at


def test_many_targets_are_tuned_as_each_alone():
    targets, sizes = [0.2, 0.05, 0.02], [1, 64, 4096]
    together = tune(PROBLEM, HeavyBall, sizes, targets)
    assert together.steps.shape == together.lr.shape == together.at_border.shape == (3, 3)
    for k, target in enumerate(targets):
        alone = tune(PROBLEM, HeavyBall, sizes, target)
        np.testing.assert_allclose(together.steps[k], alone.steps, rtol=0.002, atol=1)
        for optimizer, size, steps in zip(together.optimizers[k], sizes, together.steps[k]):
            assert steps_or_infinity(optimizer, size, target) == steps


def test_a_target_out_of_reach_has_infinitely_many_steps():
    found = tune(PROBLEM, HeavyBall, [1, 4096], [1.0, 0.02], lr=0.5)
    assert np.isinf(found.steps).tolist() == [[False, False], [True, False]]
    assert found.steps.dtype == float
    assert risk(PROBLEM, found.optimizers[1][1], 4096, found.steps[1, 1]) <= 0.02


def test_fixed_momentum():
    found = tune(PROBLEM, HeavyBall, [16, 1024], 0.05, momentum=0.9)
    np.testing.assert_array_equal(found.momentum, [0.9, 0.9])
    np.testing.assert_allclose(found.effective_lr, found.lr / 0.1)
    free = tune(PROBLEM, HeavyBall, [16, 1024], 0.05)
    assert np.all(free.steps <= 1.02 * found.steps)


def test_border_is_reported():
    # At small batches the best 1 - momentum is proportional to the batch size, until the search's
    # own border.
    problem = NoisyQuadratic.harmonic(10_000).quantize(100)
    found = tune(problem, HeavyBall, [1e-3, 1, 4], 0.01)
    np.testing.assert_array_equal(found.at_border, [True, False, False])
    rest = 1 - found.momentum
    assert rest[0] == pytest.approx(1e-8, rel=1e-3)
    assert rest[2] / rest[1] == pytest.approx(4, rel=0.05)


def test_linear_scaling_at_small_batches():
    found = tune(PROBLEM, SGD, [1, 2, 4, 8], 0.05)
    np.testing.assert_allclose(found.lr[1:] / found.lr[:-1], 2, rtol=0.05)
    np.testing.assert_allclose(np.diff(np.log2(found.steps)), -1, atol=0.02)


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


def test_more_hyperparameters_never_need_more_steps():
    problem, sizes = NoisyQuadratic.harmonic(10_000).quantize(100), [1, 2, 64, 1024, 16384]
    both = tune(problem, Averaged, sizes, 0.01, base=HeavyBall).steps
    for one in (
        tune(problem, Averaged, sizes, 0.01, base=SGD),
        tune(problem, HeavyBall, sizes, 0.01),
    ):
        assert np.all(both <= 1.002 * one.steps + 1)


@pytest.mark.parametrize("kind", [Nesterov, ExtrapSGD])
def test_other_optimizers_can_be_tuned(kind):
    plain = tune(PROBLEM, SGD, [16, 65536], 0.05)
    found = tune(PROBLEM, kind, [16, 65536], 0.05)
    assert np.all(found.steps <= 1.01 * plain.steps)
    for optimizer, batch_size, steps in zip(
        found.optimizers, found.batch_sizes, found.steps, strict=True
    ):
        assert steps_to_target(PROBLEM, optimizer, batch_size, 0.05) == steps


FEW = NoisyQuadratic.harmonic(100).quantize(12)


@pytest.mark.parametrize("momentum", [0, 0.9])
def test_extrapolation_is_not_beaten_by_a_grid_near_its_limit(momentum):
    # At small batches it is best close to its limit, and many times as long as the rate.
    found = tune(FEW, ExtrapSGD, [1], 0.02, momentum=momentum)
    best = found.optimizers[0]
    grid = [
        ExtrapSGD(best.lr * factor, momentum, ahead)
        for factor in np.geomspace(0.8, 1.25, 15)
        for ahead in (0.0, 0.3, 0.6, *np.linspace(0.8, 0.99, 10))
    ]
    stable = [method for method in grid if is_stable(FEW, method)]
    fewest = min(steps_to_target(FEW, method, [1], 0.02)[0] for method in stable)
    assert best.extrapolation > 20 * best.lr
    assert 0.99 * fewest <= found.steps[0] <= 1.002 * fewest


def test_no_extrapolation_is_no_border():
    found = tune(FEW, ExtrapSGD, [2.0**20], 0.05, momentum=0.9)
    assert found.optimizers[0].extrapolation < 0.01 * found.lr[0]  # as good as none
    assert not found.at_border[0]


def test_an_average_of_extrapolated_steps_is_tuned():
    found = tune(FEW, Averaged, [16], 0.05, base=ExtrapSGD)
    alone = tune(FEW, Averaged, [16], 0.05, base=Nesterov)
    assert found.steps[0] <= 1.002 * alone.steps[0]
    assert found.steps[0] == steps_to_target(FEW, found.optimizers[0], [16], 0.05)[0]
