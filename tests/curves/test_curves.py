from dataclasses import astuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import gmean, sem
from scipy.stats import t as student

from batchscaling.curves import (
    BatchSizeCurve,
    bootstrap_interval,
    bootstrap_medians,
    first_crossing,
    fit_hyperbola,
    fit_power,
    fit_shift,
    geometric_interval,
    median_interval,
    verdict,
)

SIZES = 2.0 ** np.arange(2, 11)


def test_first_crossing_is_the_first_of_several():
    loss = [[3, 2, 1, 2, 1], [3, 3, 3, 3, 3], [1, np.nan, np.nan, np.nan, np.nan]]
    assert first_crossing([0, 1, 2, 4, 8], loss, 1.5).tolist() == [2, np.inf, 0]


@settings(deadline=None)
@given(fewest=st.floats(1, 1e4), critical=st.floats(0.5, 5e3))
def test_hyperbola_is_found_again(fewest, critical):
    found = fit_hyperbola(SIZES, fewest * (1 + critical / SIZES))
    expected = critical, fewest * critical, fewest
    assert astuple(found) == pytest.approx(expected, rel=1e-4)


def test_hyperbola_doubles_steps_and_examples_at_the_critical_batch_size():
    found = fit_hyperbola(SIZES, 25 * (1 + 60 / SIZES) * np.exp(0.05 * (-1) ** SIZES))
    assert found.batch_size == pytest.approx(60, rel=0.05)
    assert found.steps == pytest.approx(25, rel=0.06)
    assert found.examples == pytest.approx(found.steps * found.batch_size)


@pytest.mark.parametrize("factor", [1, 3, 1000, 1e200])
@pytest.mark.parametrize(
    ("steps", "critical"),
    [
        (800 / SIZES, np.inf),
        (800 / SIZES**1.3, np.inf),
        (800 / SIZES * np.exp(0.05 * np.cos(SIZES)) * SIZES**-0.1, np.inf),
        (800 + 0 * SIZES, 0),
        (800 + SIZES, 0),
        (800 * SIZES**0.1 * np.exp(0.02 * np.cos(SIZES)), 0),
    ],
)
def test_steps_without_a_bend_have_an_end_as_critical_batch_size(steps, critical, factor):
    found = fit_hyperbola(SIZES, factor * steps)
    assert found.batch_size == critical
    limit = found.steps if critical == 0 else found.examples
    other = found.examples if critical == 0 else found.steps
    expected = steps if critical == 0 else steps * SIZES
    assert other == 0 and limit == pytest.approx(factor * gmean(expected))


@settings(deadline=None)
@given(horizontal=st.floats(0.1, 10), vertical=st.floats(0.01, 100))
def test_shift_is_found_again(horizontal, vertical):
    model_sizes = 2.0 ** np.arange(-2, 15)

    def model(size):
        steps = 30 + 4000 / model_sizes
        return np.exp(np.interp(np.log(size), np.log(model_sizes), np.log(steps)))

    found = fit_shift(
        SIZES, vertical * model(horizontal * SIZES), model_sizes, 30 + 4000 / model_sizes
    )
    assert found == pytest.approx((horizontal, vertical), rel=0.02)


def test_bootstrap_medians_vary_as_the_median_of_new_samples_does():
    rng = np.random.default_rng(0)
    new = np.median(rng.exponential(size=(20_000, 41)), axis=1).std()
    spread = [
        bootstrap_medians(rng.exponential(size=41), 400, seed=seed).std() for seed in range(30)
    ]
    assert np.mean(spread) == pytest.approx(new, rel=0.2)


def test_bootstrap_medians_share_the_draw():
    values = np.random.default_rng(1).exponential(size=(2, 3, 15))
    both = bootstrap_medians(values, 50)
    assert both.shape == (50, 2, 3)
    np.testing.assert_array_equal(both[:, 1], bootstrap_medians(values[1], 50))
    np.testing.assert_allclose(bootstrap_medians(2 * values, 50) / both, 2)
    assert not np.array_equal(both, bootstrap_medians(values, 50, seed=1))


def test_bootstrap_medians_keep_infinities():
    medians = bootstrap_medians([1.0] * 5 + [np.inf] * 5, 100)
    assert np.isinf(medians).any() and np.isfinite(medians).any()


def test_interval_holds_the_given_part_of_the_numbers():
    numbers = np.random.default_rng(2).normal(size=(2001, 2))
    low, middle, high = bootstrap_interval(numbers, 0.9)
    assert low.shape == (2,)
    np.testing.assert_allclose([low, middle, high], [[-1.645] * 2, [0] * 2, [1.645] * 2], atol=0.12)
    assert np.mean((numbers >= low) & (numbers <= high)) == pytest.approx(0.9, abs=0.002)


def test_curve_finds_its_critical_batch_size():
    noise = np.exp(0.1 * np.random.default_rng(3).normal(size=(len(SIZES), 15)))
    curve = BatchSizeCurve(SIZES, 25 * (1 + 60 / SIZES[:, None]) * noise)
    low, middle, high = bootstrap_interval(curve.critical(100))
    assert low < 60 < high and high / low < 1.5
    assert middle == pytest.approx(fit_hyperbola(SIZES, curve.medians).batch_size, rel=0.1)


def test_curve_leaves_out_infinite_medians():
    steps = np.repeat(25 * (1 + 60 / SIZES[:, None]), 5, axis=1)
    steps[-1] = np.inf
    assert BatchSizeCurve(SIZES, steps).critical(3) == pytest.approx([60] * 3, rel=1e-4)


def test_draws_without_two_finite_medians_have_no_critical_size():
    steps = [[10, 10, np.inf], [5, np.inf, np.inf], [4, np.inf, 4]]
    found = BatchSizeCurve([1, 2, 4], steps).critical(50)
    assert found.shape == (50,) and np.isnan(found).any() and np.isfinite(found).any()


def test_equal_batch_sizes_alone_have_no_critical_size():
    steps = [[5, 6, 7], [5, 6, 7], [3, np.inf, np.inf]]
    found = BatchSizeCurve([4, 4, 8], steps).critical(50)
    assert np.isnan(found).any() and not np.isnan(found).all()


def test_curves_are_equal_only_to_themselves():
    one, other = (BatchSizeCurve([1, 2], np.ones((2, 3))) for _ in range(2))
    assert one == one and one != other and len({one, other}) == 2


BAD = [
    (lambda: BatchSizeCurve([1, 2], [[0] * 3, [1] * 3]).critical(), "steps is .*median of 0"),
    (lambda: first_crossing([10, 5], [[0.1, 0.1]], 0.5), "steps is"),
    (lambda: bootstrap_interval([1.0, 2.0], 1), "confidence is 1"),
    (lambda: first_crossing([0, 1], [[1.0, 2.0, 3.0]], 1), "loss is"),
    (lambda: first_crossing([0, 1], [1.0, 2.0], 1), "loss is"),
    (lambda: first_crossing([0, 1], [[1.0, 2.0]], 0), "target is 0"),
    (lambda: bootstrap_medians([]), "values is"),
    (lambda: bootstrap_medians([1.0, np.nan]), "values is"),
    (lambda: bootstrap_medians([1.0, 2.0], 0), "draws is 0"),
    (lambda: bootstrap_medians([1.0, 2.0], seed=-1), "seed is -1"),
    (lambda: fit_hyperbola([1, 2], [3, 0]), "steps is"),
    (lambda: fit_hyperbola([1, 2], [3, np.inf]), "steps is"),
    (lambda: fit_hyperbola([1, 2, 3], [3, 2]), "steps is"),
    (lambda: fit_hyperbola([2], [3]), "steps is"),
    (lambda: fit_shift([8, 8], [3, 2], [4, 16], [3, 2]), "batch_sizes is"),
    (lambda: fit_hyperbola([8, 8], [100, 100]), "batch_sizes is"),
    (lambda: fit_hyperbola([-1, 2], [3, 2]), "batch_sizes is"),
    (lambda: fit_shift([1, 2], [3, 2], [1, 2, 4], [3, 2]), "model_steps is"),
    (lambda: fit_shift([1, 2], [3, 2], [2, 1], [3, 2]), "model_batch_sizes is"),
    (lambda: fit_shift([1, 8], [3, 2], [1, 2], [3, 2]), "model_batch_sizes is"),
]


@pytest.mark.parametrize(("call", "message"), BAD)
def test_bad_input_names_parameter_value_and_what_is_allowed(call, message):
    with pytest.raises(ValueError, match=f"^{message}.*allowed: "):
        call()


NO_NUMBERS = [None, [], "a", [np.nan], [1j], [True], np.ma.array([1.0, 2.0], mask=[0, 1])]


@pytest.mark.parametrize("values", NO_NUMBERS, ids=repr)
@pytest.mark.parametrize(
    "function", [bootstrap_interval, bootstrap_medians, geometric_interval, median_interval]
)
def test_a_sample_that_holds_what_is_no_number_is_refused(function, values):
    with pytest.raises(ValueError, match=r"^(values|numbers) is (.|\n)*allowed: "):
        function(values)


@pytest.mark.parametrize(("count", "confidence"), [(3, 0.95), (8, 0.5)])
def test_a_geometric_interval_is_that_of_scipy_and_holds_the_mean(count, confidence):
    rng = np.random.default_rng(count)
    samples = np.exp(rng.normal(np.log(2), 0.3, (4000, count)))
    logs = np.log(samples[0])
    interval = student.interval(confidence, count - 1, logs.mean(), sem(logs))
    low, mean, high = geometric_interval(samples[0].tolist(), confidence)
    np.testing.assert_allclose([low, high], np.exp(interval))
    assert mean == pytest.approx(gmean(samples[0]))
    ends = np.array([geometric_interval(sample, confidence) for sample in samples])
    held = np.mean((ends[:, 0] < 2) & (ends[:, 2] > 2))
    assert abs(held - confidence) < 4 * np.sqrt(confidence * (1 - confidence) / len(samples))


@pytest.mark.parametrize(
    ("values", "confidence", "words"),
    [
        ([2.0], 0.95, "values is .*two numbers or more"),
        ([1.0, 0.0], 0.95, "values is .*positive"),
        ([1.0, np.inf], 0.95, "values is "),
        ([1.0, 2.0], 1.0, "confidence is 1"),
    ],
)
def test_what_has_no_geometric_interval_is_named(values, confidence, words):
    with pytest.raises(ValueError, match=f"^{words}"):
        geometric_interval(values, confidence)


def test_first_crossing_takes_nan_and_no_other_thing_that_is_no_number():
    assert first_crossing([1, 2], [[np.nan, 0.5], [2.0, np.nan]], 1).tolist() == [2, np.inf]
    for loss in ([[1j, 2]], [[True, False]], [["a", "b"]], None, []):
        with pytest.raises(ValueError, match=r"^loss is .*allowed: "):
            first_crossing([1, 2], loss, 1)


@pytest.mark.parametrize(
    ("claim", "interval", "expected"),
    [
        ("more", (1.01, 1.2, 3.0), "holds"),
        ("more", (0.99, 1.2, 3.0), "open"),
        ("more", (0.5, 0.7, 0.99), "fails"),
        ("same", (0.81, 1.0, 1.24), "holds"),
        ("same", (0.81, 0.9, 0.95), "holds"),  # the same to within a quarter, though not 1
        ("same", (0.79, 1.0, 1.24), "roughly"),
        ("same", (0.79, 0.9, 0.99), "open"),
        ("same", (0.9, 1.3, 1.6), "open"),
        ("same", (1.26, 1.3, 1.6), "fails"),
        ("same", (0.5, 0.6, 0.79), "fails"),
        ("more", (1.5, 2.0, np.inf), "holds"),
        ("same", (np.inf, np.inf, np.inf), "fails"),
    ],
)
def test_verdict(claim, interval, expected):
    assert verdict(claim, interval) == expected


@pytest.mark.parametrize(
    ("name", "claim", "interval"),
    [
        ("claim", "less", (1, 2, 3)),
        ("interval", "more", (3, 2, 1)),
        ("interval", "more", (1, 2)),
        ("interval", "same", (0, 1, 2)),
        ("interval", "same", (1, 2, np.nan)),
    ],
)
def test_verdict_refuses(name, claim, interval):
    with pytest.raises(ValueError, match=f"^{name} is"):
        verdict(claim, interval)


@given(st.floats(-3, 3), st.floats(1e-3, 1e3), st.integers(2, 30))
def test_a_power_law_is_found_again(exponent, factor, points):
    x = np.geomspace(0.01, 100, points)
    fit = fit_power(x, factor * x**exponent)
    assert fit.exponent == pytest.approx(exponent, abs=1e-9)
    assert fit.factor == pytest.approx(factor, rel=1e-9)


def test_a_power_law_through_scattered_points_is_that_of_numpy():
    rng = np.random.default_rng(0)
    x, y = np.exp(rng.standard_normal((2, 50)))
    fit = fit_power(x.astype(">f4"), y.astype(np.float32))
    slope, height = np.polyfit(np.log(x), np.log(y), 1)
    assert fit.exponent == pytest.approx(slope, abs=1e-5)
    assert fit.factor == pytest.approx(np.exp(height), rel=1e-5)
    assert fit.correlation == pytest.approx(np.corrcoef(np.log(x), np.log(y))[0, 1], abs=1e-5)
    assert np.isnan(fit_power([1, 2, 3], [2, 2, 2]).correlation)


@pytest.mark.parametrize(
    ("name", "x", "y"),
    [
        ("x", [0, 1], [1, 1]),
        ("y", [1, 2], [1, -1]),
        ("y", [1, 2], [1, 1, 1]),
        ("x", [2, 2], [1, 1]),
        ("x", [2], [1]),
        ("x", [1e300, np.nextafter(1e300, np.inf)], [1, 2]),
    ],
)
def test_bad_points_of_a_power_law_are_named(name, x, y):
    with pytest.raises(ValueError, match=f"^{name} is .*; allowed: "):
        fit_power(x, y)
