"""Local steps, fresh extragradients and random smoothing: problems that are equivalent to them."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchscaling.nqm import SGD, HeavyBall, Nesterov, NoisyQuadratic, convergence_rate, risk

PROBLEM = NoisyQuadratic([1.3, 0.3, 0.01], [0.5, 2.0, 0.1], [1.0, 2.0, 3.0])
H, C = PROBLEM.curvature, PROBLEM.noise
rates = st.floats(1e-3, 1.53)  # below 2 / 1.3
RUNS = 20_000


def nesterov_rounds(momentum, outer_lr, gradient, rounds, rng):
    """Return the mean loss of many runs and its standard error; the update is written out."""
    theta = np.sqrt(PROBLEM.second_moment) * rng.standard_normal((RUNS, H.size))
    velocity = np.zeros_like(theta)
    for _ in range(rounds):
        found = gradient(theta + momentum * velocity)
        velocity = momentum * velocity - outer_lr * found
        theta = theta + velocity
    losses = 0.5 * theta**2 @ H
    return losses.mean(), losses.std() / np.sqrt(RUNS)


def workers(count, batch_size, rng):
    """Return a function that gives the gradient of each worker, at its own point or a common one.

    Points have the shape (count, runs, directions) or (runs, directions).
    """

    def gradients(theta):
        noise = rng.standard_normal((count, RUNS, H.size))
        return H * theta + np.sqrt(C / batch_size) * noise

    return gradients


def test_local_steps_are_those_of_workers_that_meet():
    rng = np.random.default_rng(0)
    lr, steps, count, batch_size = 0.7, 3, 4, 2
    gradients = workers(count, batch_size, rng)

    def way_back(theta):
        local = theta
        for _ in range(steps):
            local = local - lr * gradients(local)
        return theta - local.mean(axis=0)

    mean, error = nesterov_rounds(0.6, 0.9, way_back, 4, rng)
    rounds = PROBLEM.local_steps(lr, steps)
    assert abs(risk(rounds, Nesterov(0.9, 0.6), count * batch_size, 4) - mean) < 4 * error


def test_extragradient_is_that_of_workers_with_two_batches_each():
    rng = np.random.default_rng(1)
    count, batch_size, extrapolation = 4, 2, 0.4
    gradients = workers(count, batch_size, rng)

    def extragradient(theta):
        return gradients(theta - extrapolation * gradients(theta)).mean(axis=0)

    mean, error = nesterov_rounds(0.6, 0.5, extragradient, 5, rng)
    changed = PROBLEM.extragradient(extrapolation)
    assert abs(risk(changed, Nesterov(0.5, 0.6), count * batch_size, 5) - mean) < 4 * error


@pytest.mark.parametrize("shared", [False, True])
def test_smoothing_is_that_of_workers_with_perturbed_queries(shared):
    rng = np.random.default_rng(2)
    count, batch_size, std = 4, 2, 0.9
    gradients = workers(count, batch_size, rng)

    def smoothed(theta):
        perturbed = std * rng.standard_normal((1 if shared else count, RUNS, H.size))
        return gradients(theta + perturbed).mean(axis=0)

    mean, error = nesterov_rounds(0.6, 0.5, smoothed, 5, rng)
    changed = PROBLEM.smooth(std, count * batch_size if shared else batch_size)
    assert abs(risk(changed, Nesterov(0.5, 0.6), count * batch_size, 5) - mean) < 4 * error


def second_moments(factor, noise, rounds):
    """Return the risk of theta' = factor theta + noise of that variance, step after step."""
    moment = PROBLEM.second_moment
    for _ in range(rounds):
        moment = factor**2 * moment + noise
    return 0.5 * H @ moment


@settings(deadline=None)
@given(rates, st.integers(1, 9), st.floats(0.01, 0.99), st.integers(1, 64), st.integers(0, 12))
def test_lookahead_by_the_plain_recursion(lr, steps, outer_lr, batch_size, rounds):
    factor, noise = np.ones_like(H), np.zeros_like(H)
    for _ in range(steps):  # of the local run, from a given start
        factor, noise = (1 - lr * H) * factor, (1 - lr * H) ** 2 * noise + lr**2 * C / batch_size
    expected = second_moments(1 - outer_lr * (1 - factor), outer_lr**2 * noise, rounds)
    found = risk(PROBLEM.local_steps(lr, steps), SGD(outer_lr), batch_size, rounds)
    assert found == pytest.approx(expected, rel=1e-10)


@settings(deadline=None)
@given(st.floats(0, 0.75), rates, st.integers(1, 64), st.integers(0, 12))
def test_extragradient_by_the_plain_recursion(extrapolation, lr, batch_size, steps):
    factor = 1 - lr * H * (1 - extrapolation * H)
    noise = lr**2 * (1 + (extrapolation * H) ** 2) * C / batch_size
    expected = second_moments(factor, noise, steps)
    found = risk(PROBLEM.extragradient(extrapolation), SGD(lr), batch_size, steps)
    assert found == pytest.approx(expected, rel=1e-10)


@settings(deadline=None)
@given(rates, st.integers(1, 9), st.integers(1, 64), st.integers(0, 9))
def test_without_an_outer_method_rounds_are_runs_of_sgd(lr, steps, batch_size, rounds):
    found = risk(PROBLEM.local_steps(lr, steps), SGD(1), batch_size, rounds)
    assert found == pytest.approx(risk(PROBLEM, SGD(lr), batch_size, steps * rounds), rel=1e-10)


@settings(deadline=None)
@given(
    st.floats(1e-3, 1.0),  # stable with Nesterov momentum at every outer rate below 1
    st.floats(0.05, 0.95),
    st.floats(0, 0.95),
    st.integers(1, 64),
    st.integers(0, 30),
)
def test_one_local_step_is_the_outer_method_at_the_product_rate(lr, outer_lr, momentum, size, t):
    for kind in (HeavyBall, Nesterov):
        found = risk(PROBLEM.local_steps(lr, 1), kind(outer_lr, momentum), size, t)
        expected = risk(PROBLEM, kind(outer_lr * lr, momentum), size, t)
        assert found == pytest.approx(expected, rel=1e-9)


def assert_equal_problems(found, expected, rel):
    for name in ("curvature", "noise", "second_moment", "counts"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=rel)


@settings(deadline=None)
@given(rates, st.integers(1, 9), st.integers(1, 9))
def test_rounds_of_rounds_are_longer_rounds(lr, inner, outer):
    found = PROBLEM.local_steps(lr, inner).local_steps(1, outer)
    assert_equal_problems(found, PROBLEM.local_steps(lr, inner * outer), 1e-9)


@settings(deadline=None)
@given(st.floats(0, 3), st.floats(0, 3), st.floats(0.5, 64))
def test_perturbations_add_their_variances(one, other, batch_size):
    found = PROBLEM.smooth(one, batch_size).smooth(other, batch_size)
    assert_equal_problems(found, PROBLEM.smooth(np.hypot(one, other), batch_size), 1e-12)


def test_nothing_changes_without_extrapolation_or_perturbation():
    assert_equal_problems(PROBLEM.extragradient(0), PROBLEM, 0)
    assert_equal_problems(PROBLEM.smooth(0, 8), PROBLEM, 0)


@settings(deadline=None)
@given(
    curvature=st.lists(st.floats(1e-8, 1.0), min_size=1, max_size=9),
    rate=st.floats(1e-8, 1.9),
    steps=st.integers(1, 10**6),
)
def test_the_initial_risk_and_the_counts_stay(curvature, rate, steps):
    counts = np.arange(1, len(curvature) + 1)
    problem = NoisyQuadratic(curvature, second_moment=2.5, counts=counts)
    for changed in (problem.local_steps(rate, steps), problem.extragradient(rate / 2)):
        assert changed.initial_risk == pytest.approx(problem.initial_risk, rel=1e-12)
        assert changed.dim == problem.dim


@pytest.mark.parametrize("steps", [1, 2, 7, 64, 65])
@pytest.mark.parametrize("x", [2**-60, 1e-9, 0.3, 0.5, 1.0, 1.25, 1.9, 2 - 2**-20, 2 - 2**-51])
def test_local_steps_are_accurate_at_every_rate(x, steps):
    """Against exact fractions; with rate 1 the product of rate and curvature is exact."""
    a = 1 - Fraction(x)
    felt = 1 - a**steps
    noise = sum(a ** (2 * j) for j in range(steps)) * Fraction(x) / felt
    found = NoisyQuadratic([x], [1.0], 1.0).local_steps(1, steps)
    assert found.curvature[0] == pytest.approx(float(felt), rel=1e-13)
    assert found.noise[0] == pytest.approx(float(noise), rel=1e-13)
    assert found.second_moment[0] == pytest.approx(float(Fraction(x) / felt), rel=1e-13)


def test_endless_rounds_forget_the_start():
    rounds = PROBLEM.local_steps(0.5, 10**18)
    np.testing.assert_array_equal(rounds.curvature, 1)
    np.testing.assert_allclose(rounds.noise, H * 0.5 * C / (H * (2 - 0.5 * H)), rtol=1e-14)
    assert convergence_rate(rounds, SGD(1)) == 0
