"""Sampled paths against the exact risk."""

import numpy as np
import pytest

from batchscaling.nqm import SGD, HeavyBall, NoisyQuadratic, risk, sample_paths


@pytest.mark.parametrize("optimizer", [SGD(0.5), HeavyBall(0.2, 0.9)])
def test_the_mean_of_many_paths_is_the_risk(optimizer):
    problem = NoisyQuadratic([1.0, 0.2, 0.05], [1.0, 0.4, 2.0], [1.0, 2.0, 4.0], [2, 1, 1])
    steps = [0, 1, 5, 20, 60]
    losses = sample_paths(problem, optimizer, 4, steps, paths=20_000, seed=0)
    error = losses.std(axis=0, ddof=1) / np.sqrt(len(losses))
    distance = np.abs(losses.mean(axis=0) - risk(problem, optimizer, 4, steps)) / error
    assert distance.max() < 4


def test_without_noise_a_path_is_gradient_descent():
    problem = NoisyQuadratic([1.0, 0.25], [0.0, 0.0], 1.0)
    losses = sample_paths(problem, SGD(1.0), 1, [0, 1, 2], paths=1, seed=3)
    flat = 0.125 * np.random.default_rng(3).standard_normal((1, 2))[0, 1] ** 2
    np.testing.assert_allclose(losses[0, 1:], [flat * 0.75**2, flat * 0.75**4])


def test_seeds_and_shapes():
    problem = NoisyQuadratic.harmonic(5)
    call = dict(batch_size=2, steps=[1, 4], paths=3)
    first = sample_paths(problem, SGD(0.1), seed=1, **call)
    assert first.shape == (3, 2)
    np.testing.assert_array_equal(first, sample_paths(problem, SGD(0.1), seed=1, **call))
    generator = np.random.default_rng(1)
    np.testing.assert_array_equal(first, sample_paths(problem, SGD(0.1), seed=generator, **call))
    assert np.any(first != sample_paths(problem, SGD(0.1), seed=2, **call))
    assert sample_paths(problem, SGD(0.1), 2, 4, paths=3, seed=1).shape == (3,)


def test_an_unstable_method_diverges():
    losses = sample_paths(NoisyQuadratic([1.0]), SGD(2.5), 1, [0, 50], paths=10, seed=0)
    assert np.all(losses[:, 1] > 1e6 * losses[:, 0])


def test_correlated_noise_changes_the_spread_and_not_the_mean():
    # The expected loss is a sum over eigen-directions, so it depends on the diagonal alone.
    dim, steps = 20, [5, 40]
    rng = np.random.default_rng(0)
    root = rng.standard_normal((dim, 3))
    covariance = root @ root.T + 0.05 * np.eye(dim)
    problem = NoisyQuadratic(1 / np.arange(1, dim + 1), np.diag(covariance), 0.0)
    call = dict(batch_size=2, steps=steps, paths=8000, seed=1)
    losses = sample_paths(problem, SGD(0.3), covariance=covariance, **call)
    plain = sample_paths(problem, SGD(0.3), **call)
    error = losses.std(axis=0) / np.sqrt(len(losses))
    assert np.all(np.abs(losses.mean(axis=0) - risk(problem, SGD(0.3), 2, steps)) < 4 * error)
    assert np.all(losses.std(axis=0) > 1.3 * plain.std(axis=0))
