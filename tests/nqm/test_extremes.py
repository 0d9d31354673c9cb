"""Extreme curvatures, rates and lengths: every search ends, quickly, with the right number."""

import numpy as np
import pytest

from batchscaling.nqm import (
    SGD,
    Averaged,
    ExtrapSGD,
    HeavyBall,
    Nesterov,
    NoisyQuadratic,
    crossing,
    fewest_steps_schedule,
    moments,
    optimal_batch_sizes,
    optimal_lr_schedule,
    risk,
    schedule_risk,
    steady_state_risk,
    steps_to_target,
    tune,
)

FLAT = [1e-20, 1e-60, 1e-150, 1e-305, 5e-324]
# Along a flat direction only the effective rate counts: the floor is lr / (1 - momentum) / 4.
KINDS = [
    (SGD(0.1), 0.1),
    (HeavyBall(0.1, 0.9), 1.0),
    (Nesterov(0.1, 0.9), 1.0),
    (ExtrapSGD(0.1, 0.9, 0.1), 1.0),
    (Averaged(SGD(0.1), 0.999), 0.1),
    (HeavyBall(2**-30, 1 - 2**-30), 1.0),
]


def walk_lengths(monkeypatch):
    """Return a list to which each walk adds an entry a block."""
    counted, original = [], crossing._Walk._longest_safe

    def count(self, *arguments):
        counted.append(1)
        return original(self, *arguments)

    monkeypatch.setattr(crossing._Walk, "_longest_safe", count)
    return counted


@pytest.mark.parametrize("curvature", FLAT)
@pytest.mark.parametrize(("optimizer", "effective"), KINDS)
def test_the_floor_of_a_flat_direction(optimizer, effective, curvature):
    alone = NoisyQuadratic([1.0, curvature], noise=[0.0, 1.0])
    assert steady_state_risk(alone, optimizer, 2) == pytest.approx(effective / 8, rel=1e-10)
    both = NoisyQuadratic([1.0, curvature])
    one = steady_state_risk(NoisyQuadratic([1.0]), optimizer, 1)
    floor = one + curvature * effective / 4
    assert steady_state_risk(both, optimizer, 1) == pytest.approx(floor, rel=1e-12)


@pytest.mark.parametrize("size", [1e-300, 1e-165, 1e-30, 1e200])
def test_the_floor_does_not_change_with_the_unit_of_the_rate(size):
    plain = steady_state_risk(NoisyQuadratic([1.0, 0.25]), HeavyBall(0.5, 0.75), 4)
    other = NoisyQuadratic([1 / size, 0.25 / size], noise=[1.0, 0.25])
    assert steady_state_risk(other, HeavyBall(0.5 * size, 0.75), 4) == pytest.approx(
        plain * size, rel=1e-12
    )


def test_a_limit_that_is_not_there_ends():
    with np.errstate(all="ignore"):
        limit = moments.limit(SGD(3.0), np.array([1.0]))
    assert not np.isfinite(limit).any()


@pytest.mark.parametrize("curvature", [1e-10, 1e-16, 1e-20, 1e-30])
def test_steps_along_a_flat_direction_are_those_of_an_exponential(curvature):
    problem = NoisyQuadratic([1.0, curvature], [0.0, 0.0], [1.0, 0.02 / curvature])
    expected = np.log(10) / 2 / -np.log1p(-0.1 * curvature)
    found = steps_to_target(problem, SGD(0.1), 1, 0.001)
    assert isinstance(found, int)
    assert found == pytest.approx(np.ceil(expected), rel=1e-12)


@pytest.mark.parametrize("curvature", [1e-150, 1e-305])
def test_a_walk_without_end_is_ended(curvature):
    problem = NoisyQuadratic([1.0, curvature], [0.0, 0.0], [1.0, 0.02 / curvature])
    with pytest.raises(ValueError, match=r"^target is 0.001; allowed: .*2\*\*108 steps"):
        steps_to_target(problem, SGD(0.1), 1, 0.001)


def test_targets_next_to_the_floor():
    problem = NoisyQuadratic.harmonic(100)
    for lr in (1e-12, 0.1):
        floor = steady_state_risk(problem, SGD(lr), 1)
        assert steps_to_target(problem, SGD(lr), 1, floor * (1 - 1e-14)) is None
        steps = steps_to_target(problem, SGD(lr), 1, floor * (1 + 1e-12))
        assert risk(problem, SGD(lr), 1, steps) == pytest.approx(floor, rel=2e-12)


@pytest.mark.parametrize(
    ("optimizer", "batch_size", "expected", "blocks"),
    [
        (SGD(1e-12), 1, 134_058_588_411_783, 200),
        (SGD(1e-16), 1, None, 500),
        (HeavyBall(0.1, 0.99999), 1e9, 421_411, 1000),
    ],
)
def test_a_slow_decay_and_an_endless_swing_take_few_blocks(
    optimizer, batch_size, expected, blocks, monkeypatch
):
    problem, counted = NoisyQuadratic.harmonic(100), walk_lengths(monkeypatch)
    steps = steps_to_target(problem, optimizer, batch_size, 0.01)
    assert len(counted) < blocks
    before, at = risk(problem, optimizer, batch_size, [steps - 1, steps])
    assert before >= 0.01 * (1 - 1e-15) and at <= 0.01 * (1 + 1e-15)
    if expected is not None:  # as a walk in single steps found it
        assert steps == expected and before > 0.01 >= at


def test_short_blocks_do_not_pass_over_a_dip():
    """Every local minimum is found, when the target is that minimum."""
    problem, optimizer = NoisyQuadratic([1.0, 0.7, 0.01]), HeavyBall(0.3, 0.999)
    risks = risk(problem, optimizer, 1e9, np.arange(3000))
    lowest = np.minimum.accumulate(risks)
    dips = np.flatnonzero((risks[1:-1] <= lowest[1:-1]) & (risks[2:] > risks[1:-1])) + 1
    assert len(dips) > 10
    found = steps_to_target(problem, optimizer, 1e9, risks[dips] * (1 + 1e-12))
    assert found.tolist() == dips.tolist()


@pytest.mark.parametrize("curvature", FLAT)
def test_tuning_beside_a_flat_direction(curvature):
    found = tune(NoisyQuadratic([1.0, curvature]), HeavyBall, [1, 100], 0.01)
    plain = tune(NoisyQuadratic([1.0]), HeavyBall, [1, 100], 0.01)
    assert found.steps.tolist() == plain.steps.tolist()


@pytest.mark.parametrize("steps", [2**53 + 1, 2**60 + 7, 2**62])
@pytest.mark.parametrize("pieces", [1, 7])
def test_no_step_of_a_long_schedule_is_lost(steps, pieces):
    problem = NoisyQuadratic([1.0, 1e-16])
    rates = optimal_lr_schedule(problem, 10, steps, pieces=pieces)
    sizes = optimal_batch_sizes(problem, 0.1, steps, 1e30, pieces=pieces)
    for schedule in (rates, sizes):
        assert sum(piece.steps for piece in schedule) == steps
        lengths = [piece.steps for piece in schedule]
        assert max(lengths) - min(lengths) <= 1


def test_the_longest_schedule_and_one_too_long():
    problem = NoisyQuadratic([1.0, 1e-17], [0.0, 0.0], [1.0, 2e15])
    schedule = fewest_steps_schedule(problem, 10, 0.001, pieces=2)
    steps = sum(piece.steps for piece in schedule)
    assert 2**53 < steps < 2**62
    assert schedule_risk(problem, schedule, steps) == pytest.approx(0.001, rel=0.01)
    flatter = NoisyQuadratic([1.0, 1e-20], [0.0, 0.0], [1.0, 2e18])
    with pytest.raises(ValueError, match=r"^target is 0.001; allowed: .* steps reach"):
        fewest_steps_schedule(flatter, 10, 0.001, pieces=2)
    for call in (optimal_lr_schedule, lambda *n: optimal_batch_sizes(n[0], 0.1, n[2], 1e30)):
        with pytest.raises(ValueError, match=r"^steps is 4611686018427387905; allowed: "):
            call(problem, 10, 2**62 + 1)


def test_without_noise_all_batches_are_equal():
    problem = NoisyQuadratic([1.0, 0.5], noise=[0.0, 0.0])
    schedule = optimal_batch_sizes(problem, 0.1, 10, 100, pieces=3)
    assert [piece.batch_size for piece in schedule] == [10, 10, 10]
    assert sum(piece.steps for piece in schedule) == 10
