"""The problem: spectra, bins, preconditioning."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchscaling.noise import lanczos_spectrum
from batchscaling.nqm import SGD, HeavyBall, NoisyQuadratic, risk


def test_harmonic_is_the_problem_of_the_paper():
    problem = NoisyQuadratic.harmonic(10_000)
    np.testing.assert_array_equal(problem.curvature, 1 / np.arange(1, 10_001))
    np.testing.assert_array_equal(problem.noise, problem.curvature)
    assert problem.dim == 10_000
    assert round(problem.initial_risk, 4) == 4.8938  # published


@settings(deadline=None)
@given(
    curvature=st.lists(st.floats(1e-6, 1e3), min_size=1, max_size=60),
    bins=st.integers(1, 40),
    ratio=st.floats(0.1, 10),
    data=st.data(),
)
def test_bins_keep_the_totals(curvature, bins, ratio, data):
    counts = data.draw(
        st.lists(st.integers(1, 9), min_size=len(curvature), max_size=len(curvature))
    )
    moments = data.draw(st.lists(st.floats(0, 9), min_size=len(curvature), max_size=len(curvature)))
    problem = NoisyQuadratic(curvature, ratio * np.array(curvature), moments, counts)
    binned = problem.quantize(bins)
    assert binned.curvature.size <= bins
    assert binned.dim == problem.dim
    trace, noise = problem.counts @ problem.curvature, problem.counts @ problem.noise
    assert binned.counts @ binned.curvature == pytest.approx(trace, rel=1e-12)
    assert binned.counts @ binned.noise == pytest.approx(noise, rel=1e-12)
    assert binned.initial_risk == pytest.approx(problem.initial_risk, rel=1e-12)
    low, high = min(curvature), max(curvature)
    assert np.all(binned.curvature >= low * (1 - 1e-12))
    assert np.all(binned.curvature <= high * (1 + 1e-12))


def test_many_bins_change_the_risk_little():
    problem = NoisyQuadratic.harmonic(10_000)
    steps = [0, 10, 1000, 100_000]
    exact = risk(problem, SGD(0.5), 64, steps)
    error_100, error_400 = (
        np.abs(risk(problem.quantize(bins), SGD(0.5), 64, steps) / exact - 1).max()
        for bins in (100, 400)
    )
    assert error_400 < error_100 < 5e-3


@settings(deadline=None)
@given(power=st.floats(0, 1), lr=st.floats(0.01, 1.9), batch_size=st.integers(1, 100))
def test_preconditioned_problem_against_the_preconditioned_update(power, lr, batch_size):
    # Equation 8: theta' = theta - lr h^-p g, in the original coordinates.
    problem = NoisyQuadratic([1.0, 0.3, 0.01], [0.5, 2.0, 0.1], [1.0, 2.0, 3.0])
    h, mean, variance = problem.curvature, np.sqrt(problem.second_moment), 0.0
    for _ in range(20):
        mean = (1 - lr * h ** (1 - power)) * mean
        shrink = (1 - lr * h ** (1 - power)) ** 2
        variance = shrink * variance + lr**2 * h ** (-2 * power) * problem.noise / batch_size
    expected = np.sum(h / 2 * (mean**2 + variance))
    found = risk(problem.precondition(power), SGD(lr), batch_size, 20)
    assert found == pytest.approx(expected, rel=1e-10)


def test_a_problem_does_not_change():
    curvature = np.array([1.0, 0.5])
    problem = NoisyQuadratic(curvature)
    curvature[0] = 7.0
    assert problem.curvature[0] == 1.0
    with pytest.raises(ValueError, match="read-only"):
        problem.curvature[0] = 2.0


def test_repr_is_short_and_stable():
    assert repr(NoisyQuadratic.harmonic(10_000)) == (
        "NoisyQuadratic(dim=10000, 10000 curvatures from 0.0001 to 1)"
    )


def test_power_law_and_given_spectra():
    np.testing.assert_allclose(
        NoisyQuadratic.power_law(50, 1).curvature, NoisyQuadratic.harmonic(50).curvature
    )
    np.testing.assert_allclose(NoisyQuadratic.power_law(3, 2).curvature, [1, 1 / 4, 1 / 9])
    assert np.all(NoisyQuadratic.power_law(5, 0).curvature == 1)
    measured = NoisyQuadratic.from_spectrum([2.0, 0.1], counts=[1, 8])
    np.testing.assert_array_equal(measured.noise, measured.curvature)
    assert measured.dim == 9


def test_counts_may_be_weights():
    h, c, m, optimizer = [1.0, 0.25], [2.0, 0.5], [1.0, 3.0], HeavyBall(0.3, 0.8)
    parts = [NoisyQuadratic(h, c, m, counts) for counts in ([0.3, 2.5], [1.7, 0.5], [2, 3])]
    one, other, whole = (risk(problem, optimizer, 4, [0, 7, 100]) for problem in parts)
    np.testing.assert_allclose(one + other, whole, rtol=1e-14)
    assert [problem.dim for problem in parts] == [2.8, 2.2, 5]
    assert isinstance(parts[2].dim, int)
    assert parts[0].quantize(1).dim == pytest.approx(2.8)


def test_a_measured_spectrum_without_its_flat_directions():
    """Lanczos gives weights, some of them zero, and nodes at or below zero."""
    h = np.array([4.0, 1.0, 1.0, 0.0, -0.5])
    spectrum = lanczos_spectrum(lambda v: h * v, 5, steps=5, probes=1, seed=0)
    nodes, counts = spectrum.nodes[0], 5 * spectrum.weights[0]
    nodes[np.abs(nodes) < 1e-12] = 0
    assert np.sum(counts == 0) == 1 and np.sum(nodes <= 0) == 2
    with pytest.raises(ValueError, match="some positive ones with only_positive=True"):
        NoisyQuadratic.from_spectrum(nodes, counts=counts)
    problem = NoisyQuadratic.from_spectrum(nodes, 2 * nodes**2, counts, only_positive=True)
    np.testing.assert_allclose(problem.curvature, [1, 4])
    np.testing.assert_allclose(problem.noise, [2, 32])
    np.testing.assert_allclose(problem.counts, [2, 1])
