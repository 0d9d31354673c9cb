"""Critical batch size and information bounds."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchscaling.nqm import (
    SGD,
    HeavyBall,
    NoisyQuadratic,
    bayes_risk,
    critical_batch_size,
    lower_bound_steps,
    maximum_likelihood_risk,
    risk,
    tune,
)

PROBLEM = NoisyQuadratic.harmonic(1000).quantize(60)


def test_critical_batch_size_is_the_crossing_of_the_asymptotes():
    critical = critical_batch_size(PROBLEM, SGD, 0.05)
    curve = tune(PROBLEM, SGD, [1, critical.batch_size, 2**40], 0.05)
    assert critical.examples == curve.steps[0]
    assert critical.steps == curve.steps[2]
    assert critical.batch_size == pytest.approx(critical.examples / critical.steps)
    assert 1.2 < curve.steps[1] / critical.steps < 2.5


def test_momentum_and_preconditioning_raise_it():
    plain = critical_batch_size(PROBLEM, SGD, 0.05)
    assert critical_batch_size(PROBLEM, HeavyBall, 0.05).batch_size > 3 * plain.batch_size
    assert critical_batch_size(PROBLEM.precondition(0.5), SGD, 0.05).batch_size > (
        3 * plain.batch_size
    )


def test_maximum_likelihood_bound_of_the_paper():
    problem = NoisyQuadratic.harmonic(10_000)
    assert maximum_likelihood_risk(problem, 1000) == pytest.approx(10_000 / (2 * 1000))
    steps = lower_bound_steps(problem, [1, 64], 0.01)
    np.testing.assert_allclose(steps, [500_000, 500_000 / 64])
    assert lower_bound_steps(problem, 1, 0.01) == pytest.approx(500_000)


def test_maximum_likelihood_risk_by_simulation():
    problem = NoisyQuadratic([1.0, 0.1], [2.0, 0.3])
    h, c = problem.curvature, problem.noise
    rng = np.random.default_rng(0)
    # A gradient at 0 of the loss centred at theta* is h (0 - theta*) + noise.
    estimates = rng.normal(0, np.sqrt(c) / h, (40_000, 50, 2)).mean(axis=1)
    losses = 0.5 * estimates**2 @ h
    error = losses.std() / np.sqrt(len(losses))
    assert abs(losses.mean() - maximum_likelihood_risk(problem, 50)) < 4 * error


@settings(deadline=None, max_examples=60)
@given(
    lr=st.floats(0.001, 1.9),
    momentum=st.floats(0, 0.95),
    batch_size=st.floats(0.1, 1000),
    steps=st.integers(1, 2000),
)
def test_nothing_beats_the_bayes_bound(lr, momentum, batch_size, steps):
    reached = risk(PROBLEM, HeavyBall(lr, momentum), batch_size, steps)
    assert reached >= bayes_risk(PROBLEM, batch_size * steps)


def test_bayes_bound_and_maximum_likelihood():
    examples = np.array([1e-9, 1.0, 1e6, 1e12])
    bayes, likelihood = bayes_risk(PROBLEM, examples), maximum_likelihood_risk(PROBLEM, examples)
    assert np.all(bayes < likelihood)
    assert bayes[0] == pytest.approx(PROBLEM.initial_risk)
    assert bayes[-1] == pytest.approx(likelihood[-1])
    # With few examples the maximum-likelihood "bound" is no bound: doing nothing is better.
    assert likelihood[1] > PROBLEM.initial_risk
    assert bayes_risk(NoisyQuadratic([1.0], [0.0], 0.0), 5) == 0
