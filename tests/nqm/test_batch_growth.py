"""Tuned batch-size schedules against other schedules of the same steps and examples."""

import numpy as np
import pytest

from batchscaling.nqm import (
    SGD,
    NoisyQuadratic,
    Piece,
    fewest_examples_schedule,
    optimal_batch_sizes,
    optimal_lr_schedule,
    schedule_risk,
    tune,
    tuned_batch_sizes,
)

PROBLEM = NoisyQuadratic.harmonic(200).quantize(40)


def examples_of(schedule):
    return sum(piece.batch_size * piece.steps for piece in schedule)


def test_the_rate_is_as_small_as_the_noise_wants():
    loud = NoisyQuadratic([1.0], noise=[1e10])
    schedule = tuned_batch_sizes(loud, 1000, 1000.0)
    expected = schedule_risk(loud, [Piece(SGD(1e-10), 1.0, 1000)], 1000)
    assert schedule_risk(loud, schedule, 1000) <= (1 + 1e-9) * expected < loud.initial_risk
    with pytest.raises(ValueError, match=r"^steps is 18446744073709551616; allowed: "):
        tuned_batch_sizes(loud, 2**64, 10.0)


@pytest.mark.parametrize(("steps", "batch_size"), [(1, 5.0), (40, 2.0), (1000, 16.0)])
def test_no_other_rate_and_no_other_batch_sizes_are_better(steps, batch_size):
    schedule = tuned_batch_sizes(PROBLEM, steps, batch_size * steps)
    assert sum(piece.steps for piece in schedule) == steps
    assert examples_of(schedule) == pytest.approx(batch_size * steps)
    assert len({piece.optimizer for piece in schedule}) == 1
    best = schedule_risk(PROBLEM, schedule, steps)
    for lr in np.geomspace(1e-3, 1.99, 60):
        other = optimal_batch_sizes(PROBLEM, lr, steps, batch_size * steps, pieces=steps)
        assert best <= schedule_risk(PROBLEM, other, steps) * (1 + 1e-3)


def test_random_batch_sizes_are_worse():
    schedule = tuned_batch_sizes(PROBLEM, 300, 4800)
    best, rng = schedule_risk(PROBLEM, schedule, 300), np.random.default_rng(0)
    for _ in range(50):
        factors = np.exp(0.3 * rng.standard_normal(len(schedule)))
        other = [
            Piece(piece.optimizer, piece.batch_size * factor, piece.steps)
            for piece, factor in zip(schedule, factors, strict=True)
        ]
        scale = 4800 / examples_of(other)
        other = [Piece(p.optimizer, p.batch_size * scale, p.steps) for p in other]
        assert best <= schedule_risk(PROBLEM, other, 300)


@pytest.mark.parametrize("steps", [200, 2000])
def test_fewest_examples_meet_the_target_and_fewer_do_not(steps):
    schedule = fewest_examples_schedule(PROBLEM, steps, 0.1)
    assert schedule_risk(PROBLEM, schedule, steps) == pytest.approx(0.1, rel=1e-9)
    fewer = tuned_batch_sizes(PROBLEM, steps, 0.999 * examples_of(schedule))
    assert schedule_risk(PROBLEM, fewer, steps) > 0.1


def test_fewer_examples_than_a_constant_batch():
    tuned = tune(PROBLEM, SGD, [64], 0.1)
    steps = int(tuned.steps[0])
    assert examples_of(fewest_examples_schedule(PROBLEM, steps, 0.1)) < 0.9 * 64 * steps


def test_too_few_steps_are_an_error():
    with pytest.raises(ValueError, match=r"steps.*5.*0\.001"):
        fewest_examples_schedule(PROBLEM, 5, 0.001)


@pytest.mark.parametrize("batch_size", [1, 256])
def test_optimal_rates_do_not_depend_on_the_start_of_the_search(batch_size):
    pieces = np.arange(20)
    starts = (0.01 + 0 * pieces, 1.9 + 0 * pieces, np.geomspace(0.001, 1.9, 20), 1.9 / (1 + pieces))
    found = [
        schedule_risk(
            PROBLEM, optimal_lr_schedule(PROBLEM, batch_size, 400, pieces=20, start=s), 400
        )
        for s in starts
    ]
    assert max(found) < min(found) * (1 + 1e-5)


def test_the_best_risk_falls_with_the_number_of_steps():
    lengths = [50, 100, 200, 400, 800]
    found = [schedule_risk(PROBLEM, optimal_lr_schedule(PROBLEM, 16, T), T) for T in lengths]
    assert np.all(np.diff(found) < 0)
