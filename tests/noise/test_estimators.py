"""Gradient noise scales against exact values, plain formulas and simulation."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from batchscaling.noise import (
    RunningNoise,
    gradient_noise,
    per_example_estimate,
    quadratic_noise_scales,
    ratio_estimate,
    two_batch_estimates,
)
from batchscaling.nqm import SGD, NoisyQuadratic, risk_by_curvature

DIM = 20
NOISE = 1 / np.arange(1, DIM + 1)
CURVATURE = np.linspace(0.2, 1, DIM)
MEAN = np.full(DIM, DIM**-0.5)
SIMPLE = NOISE.sum()  # |G|**2 is 1
CURVED = (CURVATURE @ NOISE) / (CURVATURE @ MEAN**2)


def draw(rng, *shape, batch_size=1):
    return MEAN + np.sqrt(NOISE / batch_size) * rng.standard_normal((*shape, DIM))


def two_batches(rng, steps, small=4, parts=2):
    """Return estimates from `steps` batches, each cut into small ones."""
    gradients = draw(rng, steps, parts, batch_size=small)
    small_norm = np.sum(gradients**2, axis=-1).mean(axis=1)
    large_norm = np.sum(gradients.mean(axis=1) ** 2, axis=-1)
    return two_batch_estimates(small_norm, large_norm, small, small * parts)


def test_ten_thousand_simulated_gradients_have_a_bias_below_one_percent():
    """The mean over many groups of gradients, with its own error well below 1 %."""
    rng = np.random.default_rng(0)
    for hessian, exact in ((None, SIMPLE), (CURVATURE, CURVED)):
        whole = gradient_noise(draw(rng, 10_000), hessian)
        assert whole.batch_size == pytest.approx(exact, rel=0.05)
        groups = [gradient_noise(draw(rng, 100), hessian).batch_size for _ in range(1500)]
        assert np.std(groups) / exact / np.sqrt(len(groups)) < 0.003
        assert np.mean(groups) == pytest.approx(exact, rel=0.01)


def test_two_batch_sizes_have_a_bias_below_one_percent():
    rng = np.random.default_rng(1)
    trace, signal = two_batches(rng, 200_000)
    assert trace.mean() == pytest.approx(NOISE.sum(), rel=0.01)
    assert signal.mean() == pytest.approx(1, rel=0.01)
    estimates = [ratio_estimate(*two_batches(rng, 100)).batch_size for _ in range(2000)]
    assert np.std(estimates) / SIMPLE / np.sqrt(2000) < 0.003
    assert np.mean(estimates) == pytest.approx(SIMPLE, rel=0.01)


def test_the_bias_of_the_plain_ratio_is_taken_off():
    rng = np.random.default_rng(2)
    plain, clean = [], []
    for _ in range(3000):
        trace, signal = two_batches(rng, 12, small=2)
        plain.append(trace.mean() / signal.mean())
        clean.append(ratio_estimate(trace, signal).batch_size)
    assert np.mean(plain) / SIMPLE - 1 > 0.05
    assert abs(np.mean(clean) / SIMPLE - 1) < 0.02


@pytest.mark.parametrize("kind", ["examples", "curved", "batches", "weak signal", "running"])
def test_intervals_cover_the_exact_value(kind):
    """Nominal 95 %; 90 to 99 % is allowed."""
    rng, repetitions, covered = np.random.default_rng(3), 800, 0
    exact = CURVED if kind == "curved" else SIMPLE
    for _ in range(repetitions):
        if kind == "examples":
            estimate = gradient_noise(draw(rng, 50))
        elif kind == "curved":
            estimate = gradient_noise(draw(rng, 50), CURVATURE)
        elif kind == "batches":
            estimate = ratio_estimate(*two_batches(rng, 50))
        elif kind == "weak signal":
            trace, signal = two_batches(rng, 60, small=0.05)
            estimate = ratio_estimate(trace, signal)
        else:
            running = RunningNoise(0.95)
            for trace, signal in zip(*two_batches(rng, 60), strict=True):
                running = running.update(trace, signal)
            estimate = running.estimate()
        covered += estimate.low <= exact <= estimate.high
    assert 0.90 <= covered / repetitions <= 0.99


def test_without_a_signal_the_interval_has_no_upper_end():
    rng = np.random.default_rng(4)
    trace, signal = two_batches(rng, 40)
    weak = ratio_estimate(trace, signal - signal.mean() + signal.std() / 40**0.5)
    assert weak.high == np.inf and 0 < weak.low < weak.batch_size < np.inf
    none = ratio_estimate(trace, signal - signal.mean() - 0.01)
    assert none.batch_size == none.high == np.inf and none.low > 0


def test_neither_trace_nor_signal():
    """Where neither differs from zero, nothing is known."""
    rng = np.random.default_rng(5)
    none = ratio_estimate(rng.standard_normal(20) + 0.01, rng.standard_normal(20))
    assert (none.low, none.high) == (0, np.inf)


@pytest.mark.parametrize("confidence", [0.5, 0.9])
def test_fiellers_interval_holds_the_ratios_that_a_t_test_does_not_reject(confidence):
    from scipy.stats import ttest_1samp

    trace, signal = two_batches(np.random.default_rng(6), 30)
    estimate = ratio_estimate(trace, signal, confidence=confidence)
    for end in (estimate.low, estimate.high):
        assert ttest_1samp(trace - end * signal, 0).pvalue == pytest.approx(1 - confidence)


@given(arrays(float, (7, 3), elements=st.floats(-5, 5)))
def test_per_example_sums_are_the_sample_covariance_and_the_pairs(gradients):
    hessian = np.array([[2.0, 0.5, 0], [0.5, 1, 0], [0, 0, 3]])
    covariance = np.cov(gradients.T)
    pairs = gradients @ hessian @ gradients.T
    off = (pairs.sum() - np.trace(pairs)) / (7 * 6)
    estimate = gradient_noise(gradients, hessian)
    scale = 1 + np.abs(pairs).max()
    assert estimate.trace == pytest.approx(np.trace(hessian @ covariance), abs=1e-10 * scale)
    assert estimate.signal == pytest.approx(off, abs=1e-10 * scale)
    by_function = gradient_noise(gradients, lambda rows: rows @ hessian)
    assert by_function == estimate


def test_the_closed_form_jackknife_is_leaving_out():
    gradients = draw(np.random.default_rng(7), 12)
    n, parts = len(gradients), []
    for i in range(n):
        rest = np.delete(gradients, i, axis=0)
        trace = rest.var(axis=0, ddof=1).sum()
        parts.append((trace, rest.mean(axis=0) @ rest.mean(axis=0) - trace / (n - 1)))
    spread = np.cov(np.array(parts).T) * (n - 1) ** 2 / n
    estimate = gradient_noise(gradients)
    a, b = estimate.trace, estimate.signal
    beale = a / b * (1 + spread[0, 1] / (a * b)) / (1 + spread[1, 1] / b**2)
    assert estimate.batch_size == pytest.approx(beale)


@given(
    b=st.floats(1, 100),
    more=st.floats(1.5, 100),
    trace=st.floats(0.1, 100),
    signal=st.floats(0.1, 10),
)
def test_two_batch_equations_are_solved(b, more, trace, signal):
    large = b * more
    found = two_batch_estimates(signal + trace / b, signal + trace / large, b, large)
    assert found == pytest.approx((trace, signal), rel=1e-6, abs=1e-6)


def test_blocks_of_neighbours_widen_the_interval_of_a_correlated_series():
    rng = np.random.default_rng(8)
    trace, signal = two_batches(rng, 100)
    trace, signal = np.repeat(trace, 10), np.repeat(signal, 10)
    naive, blocked = ratio_estimate(trace, signal), ratio_estimate(trace, signal, blocks=100)
    assert blocked.trace == pytest.approx(naive.trace)
    assert 2.5 < (blocked.high - blocked.low) / (naive.high - naive.low) < 4


def test_running_averages_are_weighted_means_from_the_first_update_on():
    trace, signal = two_batches(np.random.default_rng(9), 30)
    running, gamma = RunningNoise(0.8), 0.8
    for count in range(1, 31):
        running = running.update(trace[count - 1], signal[count - 1])
        weights = gamma ** np.arange(count)[::-1]
        weights /= weights.sum()
        estimate = running.estimate()
        assert estimate.trace == pytest.approx(weights @ trace[:count])
        assert estimate.signal == pytest.approx(weights @ signal[:count])
        if count > 1:
            spread = np.cov(trace[:count], signal[:count], aweights=weights)
            s_ab, s_bb = spread[0, 1] * (weights @ weights), spread[1, 1] * (weights @ weights)
            a, b = estimate.trace, estimate.signal
            assert estimate.batch_size == pytest.approx((a / b + s_ab / b**2) / (1 + s_bb / b**2))


def test_running_rows_are_independent():
    rng = np.random.default_rng(10)
    trace, signal = two_batches(rng, 10)
    rows, single = RunningNoise(0.9), RunningNoise(0.9)
    for a, b in zip(trace, signal):
        rows, single = rows.update([a, 2 * a], [b, b]), single.update(a, b)
    both, one = rows.estimate(), single.estimate()
    assert both.batch_size.shape == (2,)
    assert both.batch_size[0] == pytest.approx(one.batch_size)
    assert both.batch_size[1] == pytest.approx(2 * one.batch_size)
    first = RunningNoise(0.9).update(3.0, 2.0).estimate()
    assert (first.batch_size, first.low, first.high) == (1.5, 0, np.inf)
    assert RunningNoise(0.9).update(3.0, -2.0).estimate().batch_size == np.inf


def test_exact_values_of_the_quadratic_model():
    """Against a simulation of its gradients at parameters in the middle of training."""
    problem = NoisyQuadratic([1.0, 0.5, 0.1], noise=[0.3, 1.0, 0.2], counts=[1, 2, 3])
    h, c, k = problem.curvature, problem.noise, problem.counts.astype(int)
    moment = 2 * risk_by_curvature(problem, SGD(0.5), 8, 20) / h
    simple, curved = quadratic_noise_scales(problem, moment)
    rng = np.random.default_rng(11)
    h, c, moment = (np.repeat(values, k) for values in (h, c, moment))
    theta = np.sqrt(moment) * rng.standard_normal((300_000, 6))
    noise = np.sqrt(c) * rng.standard_normal((300_000, 6))
    squares = lambda x, w: np.mean(x**2 @ w)  # noqa: E731
    assert simple == pytest.approx(squares(noise, h**0) / squares(h * theta, h**0), rel=0.02)
    assert curved == pytest.approx(squares(noise, h) / squares(h * theta, h), rel=0.02)


def test_noise_scale_of_the_quadratic_where_noise_is_curvature():
    """With c = h and equal moments, both scales have a closed form in powers of h."""
    problem = NoisyQuadratic.harmonic(50)
    h = problem.curvature
    simple, curved = quadratic_noise_scales(problem)
    assert simple == pytest.approx(h.sum() / (h**2).sum())
    assert curved == pytest.approx((h**2).sum() / (h**3).sum())
    assert quadratic_noise_scales(problem, 0) == (np.inf, np.inf)


ORDINARY = two_batches(np.random.default_rng(13), 30)
GRADIENTS = draw(np.random.default_rng(14), 25)
PRODUCTS = np.sum(GRADIENTS**2, axis=1), GRADIENTS @ GRADIENTS.mean(axis=0)
SIZES = [1e-300, 1e-150, 1e-100, 1e80, 1e150]


def run_through(trace, signal, decay=0.9):
    running = RunningNoise(decay)
    for one, other in zip(trace, signal, strict=True):
        running = running.update(one, other)
    return running.estimate()


ESTIMATES = {
    "ratio": lambda size: ratio_estimate(*np.multiply(ORDINARY, size)),
    "blocks": lambda size: ratio_estimate(*np.multiply(ORDINARY, size), blocks=10),
    "running": lambda size: run_through(*np.multiply(ORDINARY, size)),
    "first": lambda size: RunningNoise(0.9).update(3 * size, 2 * size).estimate(),
    "gradients": lambda size: gradient_noise(GRADIENTS * size),
    "curved": lambda size: gradient_noise(GRADIENTS * size, CURVATURE),
    "matrix": lambda size: gradient_noise(GRADIENTS, np.diag(CURVATURE) * size),
    "function": lambda size: gradient_noise(GRADIENTS, lambda g: g * CURVATURE * size),
    "products": lambda size: per_example_estimate(*np.multiply(PRODUCTS, size)),
}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", ESTIMATES)
def test_estimates_are_the_same_at_every_scale(kind, size):
    plain, other = ESTIMATES[kind](1.0), ESTIMATES[kind](size)
    for name in ("batch_size", "low", "high"):
        assert getattr(other, name) == pytest.approx(getattr(plain, name), rel=1e-7)


@pytest.mark.parametrize("size", [*SIZES, 1e300])
def test_a_ratio_follows_the_scales_of_its_parts(size):
    trace, signal = ORDINARY
    plain, other = ratio_estimate(trace, signal), ratio_estimate(trace * size, signal)
    rows = RunningNoise(0.5)
    for one, two in zip(trace, signal, strict=True):
        rows = rows.update([one, one * size, one * size], [two, two, two * size])
    alone = run_through(trace, signal, 0.5)
    for name in ("batch_size", "low", "high"):
        assert getattr(other, name) / size == pytest.approx(getattr(plain, name))
        expected = np.array([1, size, 1]) * getattr(alone, name)
        np.testing.assert_allclose(getattr(rows.estimate(), name), expected, rtol=1e-9)
    doubled = np.divide(two_batch_estimates(3 * size, 2 * size, 10, 20), size)
    assert doubled == pytest.approx((20, 1))


@pytest.mark.parametrize("size", [1e-100, 1e80, 1e150])
def test_the_quadratics_scales_follow_its_units(size):
    h, c, m = np.array([1.0, 0.5]), np.array([0.3, 0.7]), np.array([2.0, 1.0])
    scales = lambda *columns: quadratic_noise_scales(NoisyQuadratic(*columns))  # noqa: E731
    plain = np.array(scales(h, c, m))
    np.testing.assert_allclose(scales(h, c * size, m * size), plain)
    np.testing.assert_allclose(scales(h * size, c, m), plain / size / size)
    np.testing.assert_allclose(scales(h, c, m / size), plain * size)


def test_results_beyond_floats_are_refused():
    with pytest.raises(ValueError, match=r"^gradients is 'too large'; allowed: "):
        gradient_noise(GRADIENTS * 1e160)
    with pytest.raises(ValueError, match=r"^trace is 'too large'; allowed: "):
        ratio_estimate(ORDINARY[0] * 1e200, ORDINARY[1] * 1e-200)
    with pytest.raises(ValueError, match=r"^small_norm is 'too large'; allowed: "):
        two_batch_estimates(1e308, 0.5e308, 10, 20)


@given(
    arrays(float, (2, 6), elements=st.integers(-30, 30).map(lambda tenths: tenths / 10)),
    st.integers(-10, 10).map(lambda tenths: tenths / 10),
    st.sampled_from([0.5, 0.9, 0.99]),
)
def test_the_estimate_lies_in_its_interval(values, shift, confidence):
    """Also where the signal is weak and Beale's estimate would leave it."""
    trace, signal = values + np.array([[2.0], [shift]])
    running = RunningNoise(0.7)
    for one, other in zip(trace, signal, strict=True):
        running = running.update(one, other)
    for estimate in (
        ratio_estimate(trace, signal, confidence=confidence),
        running.estimate(confidence),
        per_example_estimate(np.abs(trace), signal, confidence=confidence),
    ):
        assert 0 <= estimate.low <= estimate.batch_size <= estimate.high


def test_a_hessian_may_compute_in_place():
    rows = np.random.default_rng(3).normal(1, 1, (9, 4))
    in_place = gradient_noise(rows, lambda g: np.multiply(g, 2, out=g))
    assert in_place == gradient_noise(rows, lambda g: 2 * g)


def test_weak_signals_lie_in_their_intervals():
    """Without the clip, about one of eight of these would not."""
    rng = np.random.default_rng(15)
    for _ in range(300):
        estimate = ratio_estimate(*two_batches(rng, 10, small=0.05))
        assert estimate.low <= estimate.batch_size <= estimate.high


NAN = float("nan")
BAD = [
    ("signal", lambda: ratio_estimate([1, 2, 3], [1, 2]), "(2,)"),
    ("signal", lambda: ratio_estimate([1, 2], [1, 2]), "(2,)"),
    ("trace", lambda: ratio_estimate([1, NAN, 2], [1, 2, 3]), "nan"),
    ("confidence", lambda: ratio_estimate([1, 2, 4], [1, 2, 3], confidence=1), "1"),
    ("blocks", lambda: ratio_estimate([1, 2, 4], [1, 2, 3], blocks=2), "2"),
    ("small", lambda: two_batch_estimates(1, 1, 0, 1), "0"),
    ("large", lambda: two_batch_estimates(1, 1, 4, 4), "4"),
    ("small_norm", lambda: two_batch_estimates(NAN, 1, 4, 8), "nan"),
    ("large_norm", lambda: two_batch_estimates([1, 2], [1], 4, 8), "(1,)"),
    ("dots", lambda: per_example_estimate([1, 2, 3], [1, 2]), "(2,)"),
    ("gradients", lambda: gradient_noise([1, 2, 3]), "(3,)"),
    ("hessian", lambda: gradient_noise(np.eye(4), np.eye(3)), "(3, 3)"),
    ("hessian", lambda: gradient_noise(np.eye(4), lambda g: g[0]), "(4,)"),
    ("hessian", lambda: gradient_noise(np.eye(4), lambda g: g[:2]), "(2, 4)"),
    ("decay", lambda: RunningNoise(1), "1"),
    ("count", lambda: RunningNoise(0.9).estimate(), "0"),
    ("confidence", lambda: RunningNoise(0.9).update(1, 2).estimate("x"), "'x'"),
    ("signal", lambda: RunningNoise(0.9).update([1, 2], [1]), "(1,)"),
    ("signal", lambda: RunningNoise(0.9).update(1, 2).update([1, 2], [1, 2]), "(2,)"),
    ("trace", lambda: RunningNoise(0.9).update(NAN, 1), "nan"),
    ("problem", lambda: quadratic_noise_scales([1]), "[1]"),
    ("second_moment", lambda: quadratic_noise_scales(NoisyQuadratic([1]), [1, 2]), "(2,)"),
    ("second_moment", lambda: quadratic_noise_scales(NoisyQuadratic([1]), -1), "-1"),
]


@pytest.mark.parametrize("name, call, value", BAD)
def test_bad_input(name, call, value):
    with pytest.raises(ValueError, match=name) as error:
        call()
    assert value in str(error.value) and "allowed" in str(error.value)
