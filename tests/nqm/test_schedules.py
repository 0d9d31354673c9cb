"""Risk under schedules against the recursion, and optimal schedules against other optimizers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import approx_fprime, minimize

from batchscaling.nqm import (
    SGD,
    HeavyBall,
    NoisyQuadratic,
    Piece,
    fewest_steps_schedule,
    optimal_batch_sizes,
    optimal_lr_schedule,
    risk,
    schedule_risk,
    steps_to_target,
    tail_average_risk,
    tune,
)
from batchscaling.nqm.schedules import _risk_and_gradient

PROBLEM = NoisyQuadratic.harmonic(200).quantize(40)


def test_what_is_beyond_all_floats_is_infinite():
    wild = [Piece(SGD(5.0), 4, 300)]
    found = schedule_risk(NoisyQuadratic([1.0]), wild, [200, 280, 300])
    assert 1e200 < found[0] < np.inf and np.isinf(found[1:]).all()


@pytest.mark.parametrize("schedule", [None, Piece(SGD(0.1), 1, 1), [], [3]])
def test_a_schedule_is_a_sequence_of_pieces(schedule):
    with pytest.raises(
        ValueError, match=r"^schedule is .*; allowed: a non-empty sequence of Piece"
    ):
        schedule_risk(PROBLEM, schedule, 0)


def step_by_step(problem, schedule):
    """Return the risk after 0, 1, 2, ... steps."""
    h = problem.curvature
    start = schedule[0].optimizer.method().start
    second = problem.second_moment[:, None, None] * np.outer(start, start)
    risks = [0.5 * problem.counts * h @ second[:, 0, 0]]
    for piece in schedule:
        method = piece.optimizer.method()
        F = method.A + h[:, None, None] * np.outer(method.b, method.query)
        noise = (problem.noise / piece.batch_size)[:, None, None] * np.outer(method.b, method.b)
        for _ in range(piece.steps):
            second = F @ second @ F.transpose(0, 2, 1) + noise
            risks.append(0.5 * problem.counts * h @ second[:, 0, 0])
    return np.array(risks)


@settings(deadline=None, max_examples=40)
@given(
    pieces=st.lists(
        st.tuples(st.floats(0.01, 1.9), st.floats(0.5, 1e4), st.integers(1, 60)),
        min_size=1,
        max_size=5,
    ),
    momentum=st.sampled_from([0.0, 0.9]),
)
def test_any_schedule_against_the_recursion(pieces, momentum):
    schedule = [
        Piece(HeavyBall(lr, momentum), batch_size, steps) for lr, batch_size, steps in pieces
    ]
    expected = step_by_step(PROBLEM, schedule)
    steps = np.arange(len(expected))
    np.testing.assert_allclose(schedule_risk(PROBLEM, schedule, steps), expected, rtol=1e-10)
    assert schedule_risk(PROBLEM, schedule, int(steps[-1])) == pytest.approx(expected[-1])


def test_one_piece_is_a_constant_rate():
    schedule, steps = [Piece(SGD(0.5), 8, 1000)], [0, 1, 999, 1000, 3]
    np.testing.assert_allclose(
        schedule_risk(PROBLEM, schedule, steps), risk(PROBLEM, SGD(0.5), 8, steps), rtol=1e-12
    )


def test_a_piece_may_be_unstable():
    schedule = [Piece(SGD(2.5), 64, 3), Piece(SGD(0.5), 64, 50)]
    assert schedule_risk(PROBLEM, schedule, 3) > schedule_risk(PROBLEM, schedule, 53)


@settings(deadline=None, max_examples=30)
@given(lr=st.lists(st.floats(1e-3, 1.99), min_size=3, max_size=3), n=st.integers(1, 300))
def test_gradient_in_the_rates(lr, n):
    lr, lengths = np.array(lr), np.array([n, 1, 2 * n])

    def value(rates):
        return _risk_and_gradient(PROBLEM, rates, 5.0, lengths)[0]

    found, gradient = _risk_and_gradient(PROBLEM, lr, 5.0, lengths)
    schedule = [Piece(SGD(float(x)), 5.0, int(k)) for x, k in zip(lr, lengths, strict=True)]
    assert found == pytest.approx(schedule_risk(PROBLEM, schedule, int(lengths.sum())), rel=1e-9)
    numerical = approx_fprime(lr, value, 1e-7)
    np.testing.assert_allclose(gradient, numerical, rtol=1e-3, atol=1e-4 * found)


@pytest.mark.parametrize("batch_size", [1, 64, 4096])
def test_optimal_rates_beat_other_schedules(batch_size):
    steps = 400
    best = schedule_risk(PROBLEM, optimal_lr_schedule(PROBLEM, batch_size, steps), steps)
    rng = np.random.default_rng(0)
    for _ in range(50):
        high, low = np.sort(np.exp(rng.uniform(np.log(1e-3), np.log(1.999), 2)))[::-1]
        rates = np.geomspace(high, low, 50)
        schedule = [Piece(SGD(float(lr)), batch_size, 8) for lr in rates]
        assert best <= schedule_risk(PROBLEM, schedule, steps) * (1 + 1e-9)
    for lr in np.geomspace(1e-3, 1.999, 60):
        assert best <= risk(PROBLEM, SGD(lr), batch_size, steps) * (1 + 1e-9)


def test_one_direction_has_the_greedy_schedule():
    # One step at a time: lr = h m / (h^2 m + c/B), and 1/m grows by h^2 B/c.
    one = NoisyQuadratic([1.0], [1.0], 9.0)
    schedule = optimal_lr_schedule(one, 2, 30, pieces=30)
    assert schedule_risk(one, schedule, 30) == pytest.approx(0.5 / (1 / 9 + 30 * 2), rel=1e-6)


@pytest.mark.parametrize("batch_size", [8, 1024])
def test_fewest_steps(batch_size):
    target = 0.05
    schedule = fewest_steps_schedule(PROBLEM, batch_size, target)
    length = sum(piece.steps for piece in schedule)
    assert schedule_risk(PROBLEM, schedule, length) <= target * (1 + 1e-9)
    shorter = max(1, int(length * 0.99) - 1)
    too_short = optimal_lr_schedule(PROBLEM, batch_size, shorter)
    assert schedule_risk(PROBLEM, too_short, shorter) > target
    assert length <= tune(PROBLEM, SGD, [batch_size], target).steps[0]


def test_optimal_batch_sizes_against_a_numerical_optimum():
    lr, steps, examples = 0.8, 60, 60 * 16.0
    schedule = optimal_batch_sizes(PROBLEM, lr, steps, examples, pieces=6)
    batch_sizes = np.array([piece.batch_size for piece in schedule])
    lengths = np.array([piece.steps for piece in schedule])
    assert lengths @ batch_sizes == pytest.approx(examples)
    assert np.all(np.diff(batch_sizes) > 0)

    def final(log_shares):
        shares = np.exp(log_shares)
        sizes = examples * shares / (lengths @ shares)
        pieces = [Piece(SGD(lr), float(b), int(n)) for b, n in zip(sizes, lengths, strict=True)]
        return schedule_risk(PROBLEM, pieces, steps)

    numerical = minimize(final, np.zeros(6), method="Nelder-Mead", options={"maxiter": 2000})
    best = schedule_risk(PROBLEM, schedule, steps)
    assert best <= numerical.fun
    assert best == pytest.approx(numerical.fun, rel=1e-4)
    assert best < risk(PROBLEM, SGD(lr), examples / steps, steps)


def test_optimal_batch_sizes_of_a_long_run_at_a_high_rate():
    # The first steps hardly matter: their weights are far below the rounding of the later ones.
    schedule = optimal_batch_sizes(NoisyQuadratic([1.0, 0.5]), 1.0, 5000, 5000.0)
    assert all(piece.batch_size > 0 for piece in schedule)
    assert sum(piece.batch_size * piece.steps for piece in schedule) == pytest.approx(5000)


@settings(deadline=None, max_examples=25)
@given(
    start=st.integers(0, 40),
    length=st.integers(1, 80),
    momentum=st.sampled_from([0.0, 0.8]),
    lr=st.floats(0.01, 1.5),
)
def test_tail_average_against_the_sum_of_responses(start, length, momentum, lr):
    h, c, m, batch_size = 0.6, 2.0, 3.0, 4
    F = HeavyBall(lr, momentum).transition(h)
    b = HeavyBall(lr, momentum).method().b
    powers = [np.linalg.matrix_power(F, k) for k in range(start + length + 1)]
    window = range(start + 1, start + length + 1)
    phi = np.mean([powers[t][0, 0] for t in window])
    variance = sum(
        np.sum([(powers[t - 1 - k] @ b)[0] for t in window if t > k]) ** 2 / length**2
        for k in range(start + length)
    )
    expected = h / 2 * (m * phi**2 + c / batch_size * variance)
    problem = NoisyQuadratic([h], [c], m)
    found = tail_average_risk(problem, HeavyBall(lr, momentum), batch_size, start, start + length)
    assert found == pytest.approx(expected, rel=1e-9)


def test_tail_average_of_one_parameter_is_that_parameter():
    steps = steps_to_target(PROBLEM, SGD(0.1), 512, 0.1)
    found = tail_average_risk(PROBLEM, SGD(0.1), 512, steps - 1, steps)
    assert found == pytest.approx(risk(PROBLEM, SGD(0.1), 512, steps))
    many = tail_average_risk(PROBLEM, SGD(0.1), 512, 5, [[6, 9], [9, 7]])
    assert many.shape == (2, 2)
    assert many[0, 1] == many[1, 0]
