"""Steps to target against a search through every step."""

import itertools

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from reference import diagonal_recursion, recursion

from batchscaling.nqm import (
    SGD,
    Averaged,
    ExtrapSGD,
    HeavyBall,
    Nesterov,
    NoisyQuadratic,
    risk,
    steady_state_risk,
    steps_to_target,
)

FULL = NoisyQuadratic.harmonic(10_000)


def first_at_or_below(risks, target):
    """Return the index of the first risk at or below the target."""
    for step, value in enumerate(risks):
        if value <= target:
            return step
    return None


def test_rates_too_small_to_tell_end_with_an_error_and_not_never():
    quiet = NoisyQuadratic([1.0], noise=[0.0])
    found = steps_to_target(quiet, SGD(1e-32), 1, 0.1)
    assert found == pytest.approx(np.log(5) / 2e-32, rel=1e-9)
    for lr in (1e-33, 1e-34, 1e-38):
        with pytest.raises(ValueError, match=r"^target is 0.1; allowed: .* within 2\*\*108 steps"):
            steps_to_target(quiet, SGD(lr), 1, 0.1)


@pytest.mark.parametrize(
    ("optimizer", "batch_size", "expected"),
    [(SGD(0.1), 32, 125_470), (HeavyBall(0.02, 0.95), 512, 27_742)],
)
def test_reference_values(optimizer, batch_size, expected):
    # The full step-by-step recursion over all 10,000 curvatures gives these numbers; it takes a
    # minute, so here it runs over the risk just before and at the crossing (see the next test for
    # the recursion itself).
    steps = steps_to_target(FULL, optimizer, batch_size, 0.02)
    assert steps == expected
    before, at = risk(FULL, optimizer, batch_size, [steps - 1, steps])
    assert before > 0.02 >= at


@pytest.mark.parametrize(
    ("optimizer", "batch_size", "target"),
    [(SGD(1.5), 4096, 0.05), (HeavyBall(0.1, 0.95), 2048, 0.05), (HeavyBall(0.9, 0.99), 8192, 0.1)],
)
def test_all_eigenvalues_against_the_recursion(optimizer, batch_size, target):
    expected = first_at_or_below(diagonal_recursion(FULL, optimizer, batch_size, 10_000), target)
    assert expected is not None
    assert steps_to_target(FULL, optimizer, batch_size, target) == expected


@settings(max_examples=250, deadline=None)
@given(data=st.data())
def test_random_cases_against_every_step(data):
    draw = data.draw
    size = draw(st.integers(1, 8))
    curvature = draw(st.lists(st.floats(1e-3, 1), min_size=size, max_size=size))
    noise = draw(st.lists(st.floats(0, 5), min_size=size, max_size=size))
    problem = NoisyQuadratic(curvature, noise, draw(st.floats(0.01, 10)))
    momentum = draw(st.sampled_from([0.0, 0.3, 0.9, 0.99, 0.999]))
    fraction = draw(st.one_of(st.floats(1e-3, 1 - 1e-6), st.just("defective")))
    highest = max(curvature)
    lr = fraction * 2 * (1 + momentum) / highest if fraction != "defective" else None
    if lr is None:
        lr = max((1 - np.sqrt(momentum)) ** 2, 1e-3) / highest
    optimizer = HeavyBall(lr, momentum)
    batch_size = draw(st.floats(0.1, 1e5))
    last = 1200
    risks = np.array(list(recursion(problem, optimizer, batch_size, last)))
    target = risks[draw(st.integers(0, last))] * draw(st.sampled_from([0.99, 1 + 1e-6, 1.1]))
    assume(target > 1e-24 * problem.initial_risk)  # below are rounding errors of a perfect step
    expected = first_at_or_below(risks, target)
    found = steps_to_target(problem, optimizer, batch_size, target)
    if expected is None:
        assert found is None or found > last
    else:
        assert found == expected


def usual(kind, situation, rng):
    """Return an optimizer in one of the situations, on a problem with the highest curvature 1."""
    oscillating, edge = situation == "oscillating", situation == "near-unstable"
    momentum = 0.97 if oscillating else rng.uniform(0.2, 0.9)
    fraction = 1 - 1e-6 if edge else rng.uniform(0.01, 0.9)
    if kind is SGD:
        unit, fraction = SGD(1.0), 0.97 if oscillating else fraction
    else:
        unit = ExtrapSGD(1.0, momentum, 0.4) if kind is ExtrapSGD else kind(1.0, momentum)
    return unit.with_lr(fraction * unit.curvature_limit), rng.choice([0.5, 0.95])


def defective(kind, rng):
    """Return an optimizer with a double root at curvature 1 (not SGD), and that root."""
    if kind is SGD:
        return SGD(0.6), 0.4
    momentum = rng.uniform(0.2, 0.9)
    if kind is HeavyBall:
        return HeavyBall((1 - np.sqrt(momentum)) ** 2, momentum), np.sqrt(momentum)
    lr, root = ((1 - momentum) / (1 + momentum)) ** 2, 2 * momentum / (1 + momentum)
    return (Nesterov(lr, momentum) if kind is Nesterov else ExtrapSGD(lr, momentum, 0.0)), root


@pytest.mark.parametrize("bins", [None, 4])
@pytest.mark.parametrize("situation", ["plain", "oscillating", "defective", "near-unstable"])
def test_every_optimizer_and_power_against_every_step(situation, bins):
    # With the parameters, 256 cases; each with a target that is reached, one that holds at the
    # start, and one below all risks. The decay of an average of a defective optimizer is its root.
    last, never = 500, 0
    kinds = (SGD, HeavyBall, Nesterov, ExtrapSGD)
    cases = itertools.product(kinds, (False, True), (0.0, 0.25, 0.5, 0.75))
    for seed, (kind, is_averaged, power) in enumerate(cases):
        rng = np.random.default_rng(seed)
        curvature, noise = 10 ** rng.uniform(-2, 0, 12), rng.uniform(0.1, 3, 12)
        problem = NoisyQuadratic(curvature, noise).precondition(power)
        problem = problem if bins is None else problem.quantize(bins)
        draw = defective(kind, rng) if situation == "defective" else usual(kind, situation, rng)
        optimizer, decay = draw
        optimizer = optimizer.with_lr(optimizer.lr / problem.curvature.max())
        optimizer = Averaged(optimizer, decay) if is_averaged else optimizer
        batch_size = 10 ** rng.uniform(0, 4)
        risks = np.array(list(recursion(problem, optimizer, batch_size, last)))
        above = risks[rng.integers(1, last)] * rng.choice([0.99, 1 + 1e-6, 1.1])
        targets = [above, 1.01 * risks[0], 0.9 * risks.min()]
        found = steps_to_target(problem, optimizer, batch_size, targets)
        expected = first_at_or_below(risks, above)
        if expected is None:
            assert found[0] > last
        else:
            assert found[0] == expected
        assert found[1] == 0
        assert found[2] > last
        never += np.isinf(found[2])
    assert never > 10


def test_an_oscillating_risk_is_crossed_for_the_first_time():
    problem = NoisyQuadratic([1.0], [0.0])
    optimizer = HeavyBall(0.01, 0.99)
    risks = risk(problem, optimizer, 1, np.arange(400))
    target = 0.05
    below = risks <= target
    assert np.count_nonzero(np.diff(below)) > 2  # it comes back above the target
    assert steps_to_target(problem, optimizer, 1, target) == np.flatnonzero(below)[0]


def test_a_dip_below_the_floor_counts():
    # The steep direction falls fast; then the noise of the flat one pushes the risk up again.
    problem = NoisyQuadratic([1.0, 1e-3], [0.0, 30.0], [1.0, 0.0])
    floor = steady_state_risk(problem, SGD(0.5), 1)
    target = 0.5 * floor
    steps = steps_to_target(problem, SGD(0.5), 1, target)
    assert steps is not None
    expected = first_at_or_below(recursion(problem, SGD(0.5), 1, 100), target)
    assert steps == expected


def test_already_there_and_never():
    assert steps_to_target(FULL, SGD(0.1), 1, FULL.initial_risk) == 0
    assert steps_to_target(FULL, SGD(0.1), 1, 1e-3) is None
    floor = steady_state_risk(FULL, SGD(0.1), 32)
    assert steps_to_target(FULL, SGD(0.1), 32, floor * 0.999999) is None
    target = floor * 1.000001
    steps = steps_to_target(FULL, SGD(0.1), 32, target)
    before, at = risk(FULL, SGD(0.1), 32, [steps - 1, steps])
    assert before > target >= at


def test_arrays_of_batch_sizes_and_targets():
    problem = NoisyQuadratic.harmonic(100)
    batch_sizes, targets = [[1], [64], [4096]], [1e-2, 1e-1]
    found = steps_to_target(problem, SGD(0.5), batch_sizes, targets)
    assert found.shape == (3, 2)
    for i, (batch_size,) in enumerate(batch_sizes):
        for j, target in enumerate(targets):
            alone = steps_to_target(problem, SGD(0.5), batch_size, target)
            assert found[i, j] == (np.inf if alone is None else alone)
    assert found.dtype == float and np.isinf(found[0, 0]) and isinstance(alone, int)


@given(k=st.integers(0, 12))
@settings(deadline=None, max_examples=13)
def test_a_larger_batch_never_needs_more_steps(k):
    problem = NoisyQuadratic.harmonic(200)
    small, large = (steps_to_target(problem, SGD(0.05), 2 ** (k + j), 0.05) for j in (0, 1))
    assert small is None or large <= small


@pytest.mark.parametrize("rate", [1e-18, 1e-20, 1e-22])
def test_a_crossing_in_a_block_that_rounding_hides(rate):
    """In a long block the risk falls by less than rounding can tell from the target."""
    problem, optimizer = NoisyQuadratic([1.0], noise=[0.0]), SGD(rate)
    targets = problem.initial_risk * (1 - np.array([1e-14, 1e-13, 1e-12, 1e-10]))
    steps = steps_to_target(problem, optimizer, 1, targets)
    expected = np.log(targets / problem.initial_risk) / (-2 * rate)  # log(1 - rate) = -rate
    np.testing.assert_allclose(steps, expected, rtol=0, atol=2e-16 / rate)
    for step, target in zip(steps, targets, strict=True):  # without noise the risk only falls
        before, at = risk(problem, optimizer, 1, [step - 1, step])
        assert before > target >= at
