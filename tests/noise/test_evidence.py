"""Evidence against exact integrals, its invariance, and Lanczos against dense matrices."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.integrate import quad
from scipy.linalg import logm
from scipy.optimize import minimize_scalar
from scipy.stats import multivariate_normal

from batchscaling.noise import (
    lanczos_spectrum,
    laplace_evidence,
    laplace_evidence_from_log_det,
)


def positive_definite(dim, seed, spread=1.0):
    rng = np.random.default_rng(seed)
    vectors, _ = np.linalg.qr(rng.standard_normal((dim, dim)))
    return (vectors * np.exp(spread * rng.standard_normal(dim))) @ vectors.T


def test_bayesian_linear_regression_is_exact():
    """There C is quadratic, and the evidence is a Gaussian density of the labels."""
    rng = np.random.default_rng(0)
    inputs, labels, prior = rng.standard_normal((12, 3)), rng.standard_normal(12), 0.7
    hessian = inputs.T @ inputs + prior * np.eye(3)
    weights = np.linalg.solve(hessian, inputs.T @ labels)
    cost = 0.5 * np.sum((labels - inputs @ weights) ** 2) + 0.5 * prior * weights @ weights
    cost += 6 * np.log(2 * np.pi)  # of the labels' density
    exact = multivariate_normal(cov=np.eye(12) + inputs @ inputs.T / prior).logpdf(labels)
    assert laplace_evidence(cost, hessian, prior).log_evidence == pytest.approx(exact)
    assert laplace_evidence(cost, np.linalg.eigvalsh(hessian), prior).log_evidence == (
        pytest.approx(exact)
    )
    log_det = np.linalg.slogdet(hessian)[1]
    assert laplace_evidence_from_log_det(cost, log_det, 3, prior).log_evidence == (
        pytest.approx(exact)
    )


def test_logistic_regression_with_one_weight_against_the_integral():
    rng = np.random.default_rng(1)
    inputs, prior = rng.standard_normal(200), 0.5
    signs = np.where(rng.random(200) < 1 / (1 + np.exp(-2 * inputs)), 1, -1)

    def cost(w):
        return np.logaddexp(0, -signs * inputs * w).sum() + 0.5 * prior * w**2

    best = minimize_scalar(cost, bounds=(-10, 10), method="bounded", options={"xatol": 1e-10})
    p = 1 / (1 + np.exp(-inputs * best.x))
    hessian = np.array([inputs**2 @ (p * (1 - p)) + prior])
    found = laplace_evidence(best.fun, hessian, prior)
    shape = quad(lambda w: np.exp(best.fun - cost(w)), best.x - 5, best.x + 5, points=[best.x])[0]
    exact = np.log(shape * np.sqrt(prior / (2 * np.pi))) - best.fun
    assert found.log_evidence == pytest.approx(exact, abs=0.02)
    assert found.depth == best.fun and found.occam > 0


@given(arrays(float, (3, 3), elements=st.floats(-2, 2)), st.floats(0.1, 10))
def test_a_linear_change_of_coordinates_changes_nothing(jacobian, prior):
    jacobian = jacobian + 7 * np.eye(3)  # invertible
    hessian = positive_definite(3, 2) + prior * np.eye(3)
    before = laplace_evidence(4.0, hessian, prior)
    after = laplace_evidence(4.0, jacobian.T @ hessian @ jacobian, prior * jacobian.T @ jacobian)
    assert after.log_evidence == pytest.approx(before.log_evidence, abs=1e-9)
    scaled = np.linalg.eigvalsh(jacobian.T @ hessian @ jacobian)
    assert scaled.sum() > np.trace(hessian)  # the same minimum is sharper


@given(st.floats(-0.5, 0.5), st.floats(-2, 2), st.floats(0.2, 5))
def test_a_curved_change_of_coordinates_changes_nothing(bend, at, width):
    """At a minimum the Hessian of C(phi(u)) is J^T H J, whatever the second derivative of phi."""

    def phi(u):
        return width * (u + bend * np.sin(u))

    def cost(w):
        return 1.5 * (w - phi(at)) ** 2 + 0.3 * (w - phi(at)) ** 4 + 2

    step = 1e-3
    curvature = sum(c * cost(phi(at + k * step)) for k, c in ((-1, 1), (0, -2), (1, 1))) / step**2
    slope = width * (1 + bend * np.cos(at))
    bent = laplace_evidence(2.0, [[curvature]], [[0.4 * slope**2]])
    plain = laplace_evidence(2.0, [[3.0]], 0.4)
    assert bent.log_evidence == pytest.approx(plain.log_evidence, abs=1e-4)


@given(st.floats(0.1, 100), st.floats(1.01, 100))
def test_the_occam_factor_prefers_the_wide_minimum(curvature, sharper):
    wide = laplace_evidence(1.0, [curvature, 1.0], 0.1)
    narrow = laplace_evidence(1.0, [curvature * sharper, 1.0], 0.1)
    assert wide.log_evidence - narrow.log_evidence == pytest.approx(0.5 * np.log(sharper))


def test_lanczos_with_all_steps_is_exact():
    matrix = positive_definite(12, 3)
    spectrum = lanczos_spectrum(lambda v: matrix @ v, 12, steps=50, probes=4, seed=0)
    assert spectrum.nodes.shape == (4, 12)
    for nodes in spectrum.nodes:
        np.testing.assert_allclose(nodes, np.linalg.eigvalsh(matrix), rtol=1e-8)
    np.testing.assert_allclose(spectrum.weights.sum(axis=1), 1)
    # Signs have v'v = dim exactly, so the trace of the identity has no error.
    assert spectrum.trace(np.ones_like) == pytest.approx((12, 0), abs=1e-9)


def test_lanczos_quadrature_of_each_probe_is_its_quadratic_form():
    matrix, rng = positive_definite(30, 4, spread=0.5), np.random.default_rng(9)
    spectrum = lanczos_spectrum(lambda v: matrix @ v, 30, steps=20, probes=1, seed=9)
    v = rng.choice([-1.0, 1.0], 30)
    estimate, error = spectrum.trace(np.log)
    assert estimate == pytest.approx(v @ logm(matrix) @ v, rel=1e-6)
    assert np.isnan(error)


def test_log_determinant_of_a_large_matrix_within_its_error():
    dim = 2000
    diagonal = 1 / np.arange(1, dim + 1)
    off = np.full(dim - 1, 0.2) * diagonal[1:]
    dense = np.diag(diagonal) + np.diag(off, 1) + np.diag(off, -1)

    def matvec(v):
        product = diagonal * v
        product[1:] += off * v[:-1]
        product[:-1] += off * v[1:]
        return product

    spectrum = lanczos_spectrum(matvec, dim, steps=60, probes=20, seed=1)
    estimate, error = spectrum.log_det(shift=0.01)
    exact = np.linalg.slogdet(dense + 0.01 * np.eye(dim))[1]
    assert abs(estimate - exact) < 4 * error
    assert error < 0.005 * abs(exact)
    largest = np.linalg.eigvalsh(dense)[-1]
    assert spectrum.nodes.max() == pytest.approx(largest, rel=1e-8)


def test_the_error_of_the_trace_is_that_of_repetitions():
    matrix = positive_definite(25, 5)
    runs = [
        lanczos_spectrum(lambda v: matrix @ v, 25, steps=25, probes=10, seed=seed).log_det()
        for seed in range(150)
    ]
    estimates, errors = np.array(runs).T
    assert estimates.mean() == pytest.approx(
        np.linalg.slogdet(matrix)[1], abs=4 * estimates.std() / np.sqrt(150)
    )
    assert np.sqrt(np.mean(errors**2)) == pytest.approx(estimates.std(), rel=0.2)


def test_density_has_the_moments_of_the_spectrum_and_of_its_smoothing():
    matrix = positive_definite(40, 6, spread=0.3)
    spectrum = lanczos_spectrum(lambda v: matrix @ v, 40, steps=10, probes=30, seed=2)
    grid = np.linspace(-1, 6, 4000)
    density = spectrum.density(grid, width=0.1) * (grid[1] - grid[0])
    second, error = spectrum.trace(np.square)
    assert density.sum() == pytest.approx(1)
    assert density @ grid == pytest.approx(spectrum.trace(np.array)[0] / 40)
    assert density @ grid**2 == pytest.approx(second / 40 + 0.1**2)
    assert abs(second - np.sum(matrix**2)) < 4 * error


def test_few_different_eigenvalues_end_lanczos_early():
    values = np.repeat([1.0, 3.0], 10)
    spectrum = lanczos_spectrum(lambda v: values * v, 20, steps=10, probes=2, seed=0)
    assert spectrum.log_det()[0] == pytest.approx(10 * np.log(3))
    zero = lanczos_spectrum(lambda v: 0 * v, 5, steps=3, probes=1, seed=0)
    assert zero.log_det(shift=2.0)[0] == pytest.approx(5 * np.log(2))


def test_lanczos_needs_each_vector_made_orthogonal_twice():
    """After once, rounding leaves enough for wrong digits, and for a node below zero."""
    values = np.geomspace(1e-6, 1, 60)
    spectrum = lanczos_spectrum(lambda v: values * v, 60, steps=60, probes=1, seed=0)
    np.testing.assert_allclose(spectrum.nodes[0], values, rtol=1e-11)
    values = np.geomspace(1e-10, 1, 100)
    spectrum = lanczos_spectrum(lambda v: values * v, 100, steps=100, probes=1, seed=0)
    assert spectrum.nodes.min() > 0
    assert spectrum.log_det()[0] == pytest.approx(np.log(values).sum(), rel=1e-8)


@pytest.mark.parametrize("size", [1e-300, 1e-150, 1e-100, 1e80, 1e150, 1e300])
def test_lanczos_is_the_same_at_every_scale(size):
    matrix = positive_definite(12, 3)
    plain, other = (
        lanczos_spectrum(lambda v, c=c: c * (matrix @ v), 12, steps=12, probes=4, seed=0)
        for c in (1.0, size)
    )
    np.testing.assert_allclose(other.nodes / size, plain.nodes, rtol=1e-9)
    np.testing.assert_allclose(other.weights, plain.weights, rtol=1e-6, atol=1e-12)
    for function in (np.array, np.negative):
        expected = np.array(plain.trace(function))
        np.testing.assert_allclose(np.array(other.trace(function)) / size, expected, rtol=1e-9)
    assert other.log_det()[0] == pytest.approx(plain.log_det()[0] + 12 * np.log(size), rel=1e-9)
    density = other.density([size, 2 * size], 0.1 * size)
    np.testing.assert_allclose(density * size, plain.density([1, 2], 0.1), rtol=1e-9)


@pytest.mark.parametrize("size", [1e-300, 1e-100, 1e80, 1e300])
def test_evidence_changes_with_the_scale_by_its_logarithm(size):
    matrix = positive_definite(4, 3)
    plain = laplace_evidence(3.0, matrix, np.eye(4)).log_evidence
    assert laplace_evidence(3.0, size * matrix, size * np.eye(4)).log_evidence == (
        pytest.approx(plain, abs=1e-9)
    )


FLAT = lanczos_spectrum(lambda v: -v, 4, steps=2, probes=1, seed=0)
NAN = float("nan")


def lanczos(matvec=lambda v: v, dim=3, **changed):
    return lanczos_spectrum(matvec, dim, **(dict(steps=2, probes=1, seed=0) | changed))


BAD = [
    ("cost", lambda: laplace_evidence(NAN, [1.0], 1), "nan"),
    ("hessian", lambda: laplace_evidence(1, [1.0, -1.0], 1), "-1.0"),
    ("hessian", lambda: laplace_evidence(1, [[1.0, 2.0], [2.0, 1.0]], 1), "-1"),
    ("hessian", lambda: laplace_evidence(1, [[1.0, 2.0], [0.0, 1.0]], 1), "symmetric"),
    ("hessian", lambda: laplace_evidence(1, [[1.0, 2.0]], 1), "(1, 2)"),
    ("prior_precision", lambda: laplace_evidence(1, [1.0], 0), "0"),
    ("prior_precision", lambda: laplace_evidence(1, np.eye(2), np.eye(3)), "(3, 3)"),
    ("prior_precision", lambda: laplace_evidence(1, np.eye(2), -np.eye(2)), "-1"),
    ("prior_precision", lambda: laplace_evidence(1, [1.0], [[1.0]]), "(1, 1)"),
    ("log_det", lambda: laplace_evidence_from_log_det(1, NAN, 1, 1), "nan"),
    ("dim", lambda: laplace_evidence_from_log_det(1, 1, 0, 1), "0"),
    ("matvec", lambda: lanczos(np.eye(3)), "1."),
    ("matvec", lambda: lanczos(lambda v: v[:2]), "(2,)"),
    ("matvec", lambda: lanczos(lambda v: NAN * v), "NaN"),
    ("dim", lambda: lanczos(dim=0), "0"),
    ("steps", lambda: lanczos(steps=0), "0"),
    ("probes", lambda: lanczos(probes=0), "0"),
    ("seed", lambda: lanczos(seed=-1), "-1"),
    ("shift", lambda: FLAT.log_det(shift=1.0), "1.0"),
    ("function", lambda: FLAT.trace(lambda x: np.where(x < 0, np.inf, x)), "-1"),
    ("function", lambda: FLAT.trace(lambda x: NAN), "-1"),
    ("function", lambda: FLAT.trace(lambda x: x.ravel()), "shape"),
    ("width", lambda: FLAT.density([0.0], 0), "0"),
]


@pytest.mark.parametrize("name, call, value", BAD)
def test_bad_input(name, call, value):
    with pytest.raises(ValueError, match=name) as error:
        call()
    assert value in str(error.value) and "allowed" in str(error.value)
