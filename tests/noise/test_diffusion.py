"""SGD and its diffusion against closed forms, scipy's solvers and each other."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad, quad_vec
from scipy.linalg import expm, solve_continuous_lyapunov, solve_discrete_lyapunov

from batchscaling.noise import (
    OrnsteinUhlenbeck,
    diffusion_constant,
    noise_scale,
    sde_paths,
    sgd_paths,
    stationary_density,
    stationary_variance,
)
from batchscaling.nqm import HeavyBall, NoisyQuadratic, steady_state_risk

RNG = np.random.default_rng(5)


def positive_definite(dim, rng):
    root = rng.standard_normal((dim, dim + 2))
    return root @ root.T / dim


HESSIAN, COVARIANCE = positive_definite(3, RNG), positive_definite(3, RNG)


@pytest.mark.parametrize("size", [1e-300, 1e-100, 1e80, 1e150])
def test_stationary_covariances_follow_the_units(size):
    plain = stationary_variance(HESSIAN, COVARIANCE, 0.1, 8, 0.7)
    other = stationary_variance(HESSIAN * size, COVARIANCE * size, 0.1 / size, 8, 0.7)
    np.testing.assert_allclose(other * size, plain, rtol=1e-9, atol=1e-12)
    still = OrnsteinUhlenbeck(HESSIAN, COVARIANCE, 0.1).stationary()
    scaled = OrnsteinUhlenbeck(HESSIAN * size, COVARIANCE * size, 0.1).stationary()
    np.testing.assert_allclose(scaled, still, rtol=1e-9, atol=1e-12)


def test_a_flat_direction_has_its_variance_too():
    """There one minus the square of the transition is zero in floats."""
    flat = stationary_variance([1.0, 1e-20], [1.0, 1.0], 0.1, 8, 0.5)[1]
    assert flat == pytest.approx(0.1 / (8 * 0.5 * 1e-20 * 2))


def test_diffusion_is_the_noise_scale_over_the_examples():
    g = noise_scale(0.1, 1000, 8, momentum=0.9, replacement=True)
    assert diffusion_constant(0.1, 8, 0.9) == pytest.approx(g / 1000)


def test_transition_of_a_matrix_against_expm_and_quadrature():
    process = OrnsteinUhlenbeck(HESSIAN, COVARIANCE, 0.3)
    start, time = np.array([1.0, -2.0, 0.5]), 0.7
    np.testing.assert_allclose(process.mean(start, time), expm(-HESSIAN * time) @ start)

    def rate(s):
        shrink = expm(-HESSIAN * s)
        return 0.3 * shrink @ COVARIANCE @ shrink

    expected, _ = quad_vec(rate, 0, time, epsabs=1e-12)
    np.testing.assert_allclose(process.variance(time), expected, rtol=1e-8)
    assert process.variance([0.1, 0.7]).shape == (2, 3, 3)
    assert process.mean(start, [[0.1], [0.7]]).shape == (2, 1, 3)


def test_stationary_covariance_solves_lyapunovs_equation():
    process = OrnsteinUhlenbeck(HESSIAN, COVARIANCE, 0.3)
    expected = solve_continuous_lyapunov(HESSIAN, 0.3 * COVARIANCE)
    np.testing.assert_allclose(process.stationary(), expected, rtol=1e-9)
    _, vectors = np.linalg.eigh(HESSIAN)
    along = np.diag(vectors.T @ HESSIAN @ expected @ vectors)
    np.testing.assert_allclose(process.temperature(), along, rtol=1e-9)


def test_a_diagonal_process_is_the_matrix_one():
    h, c = np.array([0.5, 2.0]), np.array([1.0, 3.0])
    plain = OrnsteinUhlenbeck(h, c, 0.2)
    full = OrnsteinUhlenbeck(np.diag(h), np.diag(c), 0.2)
    for time in (0.0, 0.4, np.inf):
        np.testing.assert_allclose(np.diag(plain.variance(time)), full.variance(time))
    np.testing.assert_allclose(plain.stationary(), 0.2 * c / (2 * h))
    np.testing.assert_allclose(plain.temperature(), 0.1 * c)
    np.testing.assert_allclose(plain.mean([1, 1], 0.4), full.mean([1, 1], 0.4))


def test_samples_have_the_moments_of_the_transition():
    process = OrnsteinUhlenbeck(HESSIAN, COVARIANCE, 0.3)
    start, times, paths = [1.0, -2.0, 0.5], np.array([0.3, 1.0]), 40_000
    samples = process.sample(start, times, paths=paths, seed=1)
    assert samples.shape == (paths, 2, 3)
    for k, time in enumerate(times):
        error = np.sqrt(np.diag(process.variance(time)) / paths)
        assert np.all(np.abs(samples[:, k].mean(axis=0) - process.mean(start, time)) < 4 * error)
        np.testing.assert_allclose(
            np.cov(samples[:, k].T), process.variance(time), atol=0.03 * error.max() * paths**0.5
        )
    # Two times of one path are correlated by the mean's own shrinkage.
    lag = np.cov(samples[:, 0].T, samples[:, 1].T)[3:, :3]
    expected = expm(-HESSIAN * 0.7) @ process.variance(0.3)
    np.testing.assert_allclose(lag, expected, atol=0.01)
    np.testing.assert_array_equal(
        samples[:5], process.sample(start, times, paths=paths, seed=1)[:5]
    )


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.95])
def test_stationary_variance_of_sgd_against_scipys_lyapunov_solver(momentum):
    lr, batch_size, eye = 0.2, 4.0, np.eye(3)
    F = np.block([[eye - lr * HESSIAN, -lr * momentum * eye], [HESSIAN, momentum * eye]])
    b = np.vstack([-lr * eye, eye])
    full = solve_discrete_lyapunov(F, b @ COVARIANCE @ b.T / batch_size)
    found = stationary_variance(HESSIAN, COVARIANCE, lr, batch_size, momentum)
    np.testing.assert_allclose(found, full[:3, :3], rtol=1e-8)


@settings(max_examples=50)
@given(
    h=st.floats(1e-3, 10),
    stable=st.floats(0.001, 0.999),
    momentum=st.floats(0, 0.99),
    batch_size=st.floats(1, 1000),
)
def test_stationary_variance_is_theorem_1_and_the_quadratic_models(h, stable, momentum, batch_size):
    lr = stable * 2 * (1 + momentum) / h
    found = stationary_variance([h], [1.7], lr, batch_size, momentum)[0]
    theorem = (1 + momentum) * lr * 1.7 / batch_size
    theorem /= h * (2 * (1 + momentum) - lr * h) * (1 - momentum)
    assert found == pytest.approx(theorem, rel=1e-6)
    risk = steady_state_risk(NoisyQuadratic([h], [1.7]), HeavyBall(lr, momentum), batch_size)
    assert 0.5 * h * found == pytest.approx(risk, rel=1e-6)
    limit = OrnsteinUhlenbeck([h], [1.7], diffusion_constant(lr, batch_size, momentum))
    left_out = 1 - lr * h / (2 * (1 + momentum))
    assert limit.stationary()[0] / found == pytest.approx(left_out, rel=1e-6)


def linear(hessian):
    return lambda theta: theta @ hessian


@pytest.mark.parametrize("momentum", [0.0, 0.8])
def test_sgd_paths_settle_at_the_stationary_variance(momentum):
    settings = dict(lr=0.3, batch_size=2, momentum=momentum)
    paths = sgd_paths(
        linear(HESSIAN),
        COVARIANCE,
        np.zeros(3),
        **settings,
        steps=400,
        paths=20_000,
        seed=0,
        every=400,
    )
    assert paths.shape == (20_000, 2, 3) and not paths[:, 0].any()
    expected = stationary_variance(HESSIAN, COVARIANCE, **settings)
    np.testing.assert_allclose(np.cov(paths[:, 1].T), expected, atol=0.03 * expected.max())


def test_without_noise_sgd_is_heavy_ball():
    theta, velocity, h = 1.0, 0.0, 0.7
    for _ in range(5):
        velocity = 0.6 * velocity + h * theta
        theta -= 0.2 * velocity
    paths = sgd_paths(
        lambda t: h * t, [0.0], [1.0], lr=0.2, batch_size=1, momentum=0.6, steps=5, paths=2, seed=0
    )
    np.testing.assert_allclose(paths[:, -1, 0], theta)


def test_a_step_of_the_equation_as_long_as_the_rate_is_sgd():
    common = dict(steps=20, paths=3, seed=4, every=5)
    start = np.arange(9.0).reshape(3, 3)
    sgd = sgd_paths(linear(HESSIAN), COVARIANCE, start, lr=0.1, batch_size=4, **common)
    sde = sde_paths(
        linear(HESSIAN), COVARIANCE, start, diffusion=diffusion_constant(0.1, 4), dt=0.1, **common
    )
    np.testing.assert_allclose(sgd, sde, rtol=1e-12)
    np.testing.assert_array_equal(sgd[:, 0], start)


def test_small_steps_of_the_equation_reach_the_exact_process():
    h, c, D = np.array([1.0]), np.array([2.0]), 0.5
    process = OrnsteinUhlenbeck(h, c, D)
    paths = sde_paths(
        lambda t: t, c, [1.0], diffusion=D, dt=0.01, steps=100, paths=20_000, seed=2, every=100
    )[:, -1, 0]
    assert paths.mean() == pytest.approx(process.mean([1.0], 1.0)[0], abs=0.02)
    assert paths.var() == pytest.approx(process.variance(1.0)[0], rel=0.03)


def test_noise_that_depends_on_the_place():
    """Paths in a double well whose noise grows to the right against the stationary density."""
    slope = lambda t: t**3 - t  # noqa: E731
    variance = lambda t: 1 + 0.5 * np.tanh(t)  # noqa: E731
    grid, D = np.linspace(-3, 3, 2001), 0.8
    density = stationary_density(slope(grid), variance(grid), grid, D)
    paths = sde_paths(
        slope, variance, [0.0], diffusion=D, dt=0.01, steps=2000, paths=8000, seed=3, every=2000
    )[:, -1, 0]
    step = grid[1] - grid[0]
    for edge in (-1.0, 0.0, 1.0):
        expected = density[grid < edge].sum() * step
        assert np.mean(paths < edge) == pytest.approx(expected, abs=0.025)
    assert density[grid < 0].sum() * step > 0.6  # the quiet side holds more


def test_stationary_density_of_constant_noise_is_boltzmanns():
    grid, D, c = np.linspace(-4, 4, 4001), 0.6, 1.5
    loss = lambda t: t**4 / 4 - t**2 / 2 + 0.1 * t  # noqa: E731
    density = stationary_density(grid**3 - grid + 0.1, np.full(grid.shape, c), grid, D)
    temperature = D * c / 2
    mass = quad(lambda t: np.exp(-loss(t) / temperature), -4, 4)[0]
    np.testing.assert_allclose(density, np.exp(-loss(grid) / temperature) / mass, atol=1e-5)


OU = OrnsteinUhlenbeck([1.0], [1.0], 1.0)


def test_a_run_that_diverges_is_no_error():
    with np.errstate(all="ignore"):
        ends = walk(lr=1e5, covariance=lambda t: t * t, start=[1.0], steps=80)[:, -1]
    assert not np.isfinite(ends).all()


@pytest.mark.parametrize("kind", [sgd_paths, sde_paths])
def test_functions_may_compute_in_place(kind):
    def doubled(theta, out):
        return np.multiply(theta, 2.0, out=out)

    def squared(theta, out):
        return np.multiply(theta, theta, out=out)

    paths = [
        walk(
            kind,
            gradient=lambda t, own=own: doubled(t, t if own else None),
            covariance=lambda t, own=own: squared(t, t if own else None),
            start=[1.0, 3.0],
        )
        for own in (True, False)
    ]
    assert np.array_equal(*paths) and paths[0][0, 0].tolist() == [1.0, 3.0]


@pytest.mark.parametrize("kind", [sgd_paths, sde_paths])
def test_gradients_may_be_tensors(kind):
    torch = pytest.importorskip("torch")
    assert np.array_equal(walk(kind, gradient=torch.from_numpy), walk(kind))


def walk(kind=sgd_paths, **changed):
    settings = dict(lr=0.1, batch_size=1) if kind is sgd_paths else dict(diffusion=1, dt=0.1)
    arguments = dict(gradient=lambda t: t, covariance=[1.0], start=[0.0], steps=4, paths=2, seed=0)
    return kind(**(arguments | settings | changed))


NAN = float("nan")
BAD = [
    ("lr", lambda: diffusion_constant(0, 1), "0"),
    ("momentum", lambda: diffusion_constant(1, 1, 1), "1"),
    ("hessian", lambda: OrnsteinUhlenbeck([0.0], [1.0], 1), "0.0"),
    ("hessian", lambda: OrnsteinUhlenbeck([[1.0, 2.0], [2.0, 1.0]], np.eye(2), 1), "positive"),
    ("hessian", lambda: OrnsteinUhlenbeck([[1.0, 0.5], [0.0, 1.0]], np.eye(2), 1), "symmetric"),
    ("hessian", lambda: OrnsteinUhlenbeck([[1.0, 0.5]], np.eye(2), 1), "symmetric"),
    ("covariance", lambda: OrnsteinUhlenbeck([1.0], [-1.0], 1), "-1.0"),
    ("covariance", lambda: OrnsteinUhlenbeck([1.0], [1.0, 1.0], 1), "(2,)"),
    ("covariance", lambda: OrnsteinUhlenbeck(np.eye(2), [[1.0, 2.0], [2.0, 1.0]], 1), "negative"),
    ("diffusion", lambda: OrnsteinUhlenbeck([1.0], [1.0], NAN), "nan"),
    ("start", lambda: OU.mean([1.0, 2.0], 1.0), "(2,)"),
    ("times", lambda: OU.variance(-1.0), "-1.0"),
    ("times", lambda: OU.variance([]), "(0,)"),
    ("times", lambda: OU.sample([0.0], [1.0, 1.0], paths=1, seed=0), "1.0"),
    ("paths", lambda: OU.sample([0.0], [1.0], paths=0, seed=0), "0"),
    ("seed", lambda: OU.sample([0.0], [1.0], paths=1, seed=-1), "-1"),
    ("lr", lambda: stationary_variance([1.0], [1.0], 2.0, 1), "2.0"),
    ("batch_size", lambda: stationary_variance([1.0], [1.0], 1.0, 0), "0"),
    ("gradient", lambda: walk(gradient=1.0), "1.0"),
    ("gradient", lambda: walk(gradient=lambda t: t[0]), "(1,)"),
    ("start", lambda: walk(start=[[0.0]]), "(1, 1)"),
    ("covariance", lambda: walk(covariance=lambda t: np.ones(3)), "(3,)"),
    ("covariance", lambda: walk(covariance=lambda t: np.ones(1)), "(1,)"),
    ("covariance", lambda: walk(covariance=lambda t: t - 1), "-1"),
    ("every", lambda: walk(every=3), "3"),
    ("steps", lambda: walk(steps=0), "0"),
    ("lr", lambda: walk(lr=-1), "-1"),
    ("covariance", lambda: walk(covariance=[1.0, 1.0]), "(2,)"),
    ("dt", lambda: walk(sde_paths, dt=0), "0"),
    ("diffusion", lambda: walk(sde_paths, diffusion=-1), "-1"),
    ("gradient", lambda: walk(gradient=lambda t: None), "None"),
    ("grid", lambda: stationary_density([1, 1], [1, 1], [0, 0], 1), "0"),
    ("grid", lambda: stationary_density([1], [1], [0], 1), "[0.0]"),
    ("variance", lambda: stationary_density([1, 1], [1, 0], [0, 1], 1), "0.0"),
    ("gradient", lambda: stationary_density([1], [1, 1], [0, 1], 1), "(1,)"),
]


@pytest.mark.parametrize("name, call, value", BAD)
def test_bad_input(name, call, value):
    with pytest.raises(ValueError, match=name) as error:
        call()
    assert value in str(error.value) and "allowed" in str(error.value)
