"""The risk against step-by-step recursions, closed forms and exact rational arithmetic."""

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import diagonal_recursion, recursion

from batchscaling.nqm import (
    SGD,
    HeavyBall,
    NoisyQuadratic,
    convergence_rate,
    is_stable,
    risk,
    risk_by_curvature,
    risk_parts,
    steady_state_risk,
)

FULL = NoisyQuadratic.harmonic(10_000)


def stable_optimizer(problem, momentum, fraction):
    """Return the optimizer whose rate is this fraction of the largest stable one."""
    lr = fraction * 2 * (1 + momentum) / problem.curvature.max()
    return HeavyBall(lr, momentum) if momentum else SGD(lr)


@settings(max_examples=6, deadline=None, derandomize=True)
@given(
    momentum=st.sampled_from([0.0, 0.5, 0.9, 0.99]),
    fraction=st.floats(1e-3, 0.999),
    batch_size=st.integers(0, 20).map(lambda k: 2**k),
    power=st.sampled_from([0.0, 0.25, 0.5, 0.75]),
)
def test_every_eigenvalue_against_the_recursion(momentum, fraction, batch_size, power):
    problem = FULL.precondition(power)
    optimizer = stable_optimizer(problem, momentum, fraction)
    last = 10_000
    steps = np.unique(np.geomspace(1, last + 1, 30).astype(int)) - 1
    found = risk(problem, optimizer, batch_size, steps)
    expected = np.array(list(diagonal_recursion(problem, optimizer, batch_size, last)))[steps]
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=0)


@settings(max_examples=100, deadline=None)
@given(
    curvature=st.lists(st.floats(1e-4, 1.0), min_size=1, max_size=6),
    noise=st.one_of(st.just(0.0), st.floats(1e-6, 10)),
    second_moment=st.one_of(st.just(0.0), st.floats(1e-6, 10)),
    momentum=st.one_of(st.just(0.0), st.floats(0, 0.999)),
    fraction=st.floats(1e-4, 0.9999),
    batch_size=st.floats(0.1, 1e6),
    steps=st.lists(st.integers(0, 300), min_size=1, max_size=10),
)
def test_any_problem_against_the_recursion(
    curvature, noise, second_moment, momentum, fraction, batch_size, steps
):
    problem = NoisyQuadratic(curvature, [noise] * len(curvature), second_moment)
    optimizer = stable_optimizer(problem, momentum, fraction)
    found = risk(problem, optimizer, batch_size, steps)
    expected = np.array(list(recursion(problem, optimizer, batch_size, max(steps))))[steps]
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-14 * problem.initial_risk)


def exact_risk(optimizer, curvature, noise, second_moment, batch_size, t):
    """Return the risk along one direction in 60 digits, by the binary digits of t."""
    with mpmath.workdps(60):
        A, b, query, readout, start = optimizer.method()
        h = mpmath.mpf(float(curvature))
        b, start = mpmath.matrix(b.tolist()), mpmath.matrix(start.tolist())
        F = mpmath.matrix(A.tolist()) + h * b * mpmath.matrix(query.tolist()).T
        power, total = mpmath.eye(len(b)), mpmath.zeros(len(b))
        square, block = F, b * b.T
        for digit in reversed(bin(t)[2:]):
            if digit == "1":
                total += power * block * power.T
                power *= square
            block += square * block * square.T
            square *= square
        readout = mpmath.matrix(readout.tolist())
        phi = (readout.T * power * start)[0]
        variance = mpmath.mpf(noise) / batch_size * (readout.T * total * readout)[0]
        return float(h / 2 * (second_moment * phi**2 + variance))


def defective(momentum):
    """Return lr * h at the defective point, where both roots are sqrt(momentum)."""
    return (1 - np.sqrt(momentum)) ** 2


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9, 0.999, 1 - 1e-6])
@pytest.mark.parametrize("kind", [1e-9, 1e-5, 0.01, 1.0, 1.5, "defective", "near unstable"])
@pytest.mark.parametrize("curvature", [1.0, 3e-4])
def test_extremes_to_a_billion_steps(momentum, kind, curvature):
    product = {
        "defective": max(defective(momentum), 1e-14),
        "near unstable": 2 * (1 + momentum) * (1 - 1e-9),
    }.get(kind, kind)
    lr = product / curvature
    optimizer = HeavyBall(lr, momentum) if momentum else SGD(lr)
    problem = NoisyQuadratic([curvature], [2.0], 3.0)
    steps = [0, 1, 2, 7, 100, 10_000, 10**6, 10**9]
    found = risk(problem, optimizer, 5, steps)
    expected = [exact_risk(optimizer, curvature, 2.0, 3.0, 5, t) for t in steps]
    np.testing.assert_allclose(found, expected, rtol=1e-14)


def test_noiseless_decay_keeps_its_relative_accuracy():
    problem = NoisyQuadratic([1e-4], [0.0], 1.0)
    for lr, t in [(0.1, 10**7), (9.99, 10**6), (1e-5, 10**9)]:
        expected = exact_risk(SGD(lr), 1e-4, 0.0, 1.0, 1, t)
        assert risk(problem, SGD(lr), 1, t) == pytest.approx(expected, rel=1e-14)


@settings(deadline=None)
@given(lr=st.floats(1e-3, 1.99), batch_size=st.integers(1, 1000), t=st.integers(0, 2000))
def test_sgd_closed_form(lr, batch_size, t):
    # Zhang et al. (2019), equation 4.
    problem = NoisyQuadratic.harmonic(20)
    h = problem.curvature
    decay = (1 - lr * h) ** (2 * t)
    floor = lr * h / (2 * batch_size * (2 - lr * h))
    expected = np.sum(decay * h / 2 + (1 - decay) * floor)
    assert risk(problem, SGD(lr), batch_size, t) == pytest.approx(expected, rel=1e-11)


@settings(deadline=None)
@given(momentum=st.floats(0, 0.99), fraction=st.floats(1e-3, 0.99))
def test_heavy_ball_floor_is_the_constant_of_theorem_1(momentum, fraction):
    problem = NoisyQuadratic.harmonic(50)
    h = problem.curvature
    lr = fraction * 2 * (1 + momentum)
    x = lr * h
    floor = (1 + momentum) * lr * h / (2 * 8 * (2 * momentum + 2 - x) * (1 - momentum))
    optimizer = HeavyBall(lr, momentum)
    assert steady_state_risk(problem, optimizer, 8) == pytest.approx(floor.sum(), rel=1e-10)


def test_steady_state_is_the_limit_of_the_risk():
    for optimizer in (SGD(1.3), HeavyBall(0.2, 0.95)):
        assert steady_state_risk(FULL, optimizer, 7) == pytest.approx(
            risk(FULL, optimizer, 7, 10**9), rel=1e-13
        )


@given(
    momentum=st.floats(0, 0.99),
    fraction=st.floats(1e-3, 0.99),
    first=st.integers(0, 12),
    second=st.integers(0, 12),
)
@settings(deadline=None, max_examples=40)
def test_risk_is_affine_in_one_over_the_batch_size(momentum, fraction, first, second):
    problem = NoisyQuadratic.harmonic(30)
    optimizer = stable_optimizer(problem, momentum, fraction)
    decay, noise = risk_parts(problem, optimizer, [0, 5, 500])
    for batch_size in (2**first, 2**second):
        np.testing.assert_allclose(
            risk(problem, optimizer, batch_size, [0, 5, 500]),
            (decay + noise / batch_size).sum(axis=-1),
            rtol=1e-13,
        )


def test_no_momentum_is_sgd():
    steps = [0, 1, 10, 1000, 10**6]
    np.testing.assert_array_equal(
        risk(FULL, HeavyBall(0.7, 0.0), 3, steps), risk(FULL, SGD(0.7), 3, steps)
    )


def test_counts_stand_for_equal_directions():
    grouped = NoisyQuadratic([1.0, 0.25], counts=[2, 3])
    spelled_out = NoisyQuadratic([1.0, 1.0, 0.25, 0.25, 0.25])
    optimizer = HeavyBall(0.3, 0.8)
    assert risk(grouped, optimizer, 4, 37) == pytest.approx(risk(spelled_out, optimizer, 4, 37))
    assert steady_state_risk(grouped, optimizer, 4) == pytest.approx(
        steady_state_risk(spelled_out, optimizer, 4)
    )


def test_shapes_follow_the_steps():
    problem = NoisyQuadratic.harmonic(7)
    assert isinstance(risk(problem, SGD(0.1), 1, 5), float)
    assert risk(problem, SGD(0.1), 1, [5]).shape == (1,)
    assert risk(problem, SGD(0.1), 1, [[5, 3], [2, 2]]).shape == (2, 2)
    assert risk_by_curvature(problem, SGD(0.1), 1, [5, 3]).shape == (2, 7)
    unordered = risk(problem, SGD(0.1), 1, [9, 0, 9, 4])
    one_by_one = [risk(problem, SGD(0.1), 1, t) for t in (9, 0, 9, 4)]
    np.testing.assert_allclose(unordered, one_by_one, rtol=1e-14)
    assert risk(problem, SGD(0.1), 1, 0) == problem.initial_risk


def test_convergence_rate():
    problem = NoisyQuadratic.harmonic(100)
    assert convergence_rate(problem, SGD(0.5)) == pytest.approx(1 - 0.5 / 100, rel=1e-14)
    assert convergence_rate(problem, SGD(1.999)) == pytest.approx(0.999, rel=1e-3)
    # All directions under-damped: |r| = sqrt(momentum).
    assert convergence_rate(problem, HeavyBall(1.0, 0.99)) == pytest.approx(0.99**0.5, rel=1e-12)
    one = NoisyQuadratic([1.0])
    assert convergence_rate(one, HeavyBall(defective(0.25), 0.25)) == pytest.approx(0.5, abs=1e-7)
    # Over-damped: close to SGD at lr / (1 - momentum).
    slow = NoisyQuadratic([1e-5])
    expected = 1 - convergence_rate(slow, SGD(0.1 / (1 - 0.9)))
    assert 1 - convergence_rate(slow, HeavyBall(0.1, 0.9)) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("momentum", [0.0, 0.3, 0.9, 0.999])
def test_stability_limit(momentum):
    problem = NoisyQuadratic([0.5, 0.01])
    limit = 2 * (1 + momentum) / 0.5
    assert is_stable(problem, HeavyBall(limit * (1 - 1e-9), momentum))
    assert not is_stable(problem, HeavyBall(limit * (1 + 1e-9), momentum))
    assert convergence_rate(problem, HeavyBall(limit * 1.001, momentum)) > 1
    assert convergence_rate(problem, HeavyBall(limit * 0.999, momentum)) < 1


def test_tiny_rate_is_stable_and_does_nothing():
    assert risk(FULL, SGD(1e-30), 1, 100) == pytest.approx(FULL.initial_risk, rel=1e-15)
