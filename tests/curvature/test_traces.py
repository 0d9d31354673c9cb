"""Estimates of traces against matrices whose trace is known."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchscaling.curvature import trace_estimate
from batchscaling.noise import lanczos_spectrum


def matrix(values, seed=0):
    rng = np.random.default_rng(seed)
    q = np.linalg.qr(rng.standard_normal((len(values), len(values))))[0]
    return (q * values) @ q.T


HEAVY = matrix(1 / np.arange(1.0, 201) ** 2)


def test_errors_are_as_large_as_said():
    ratios = []
    for seed in range(200):
        estimate, error = trace_estimate(lambda v: HEAVY @ v, 200, products=60, seed=seed)
        ratios.append((estimate - np.trace(HEAVY)) / error)
    assert abs(np.mean(ratios)) < 0.4
    assert 0.8 < np.std(ratios) < 1.4


@pytest.mark.parametrize("products", [12, 30])
def test_a_product_may_be_computed_in_place(products):
    values = np.arange(1.0, 11)
    given = {"dim": 10, "seed": 0}
    for way in (
        lambda f: trace_estimate(f, products=products, **given),
        lambda f: lanczos_spectrum(f, steps=10, probes=3, **given).trace(lambda h: h),
    ):
        assert way(lambda v: np.multiply(v, values, out=v)) == way(lambda v: values * v)


def test_it_beats_random_vectors_where_few_eigenvalues_hold_the_trace():
    plain = lanczos_spectrum(lambda v: HEAVY @ v, 200, steps=1, probes=60, seed=0)
    ours = trace_estimate(lambda v: HEAVY @ v, 200, products=60, seed=0)
    assert ours[1] < 0.1 * plain.trace(lambda h: h)[1]
    assert ours[0] == pytest.approx(np.trace(HEAVY), abs=4 * ours[1])


def test_a_matrix_of_low_rank_is_exact():
    few = matrix(np.r_[5.0, 3.0, 1.0, np.zeros(57)])
    estimate, error = trace_estimate(lambda v: few @ v, 60, products=15, seed=1)
    assert estimate == pytest.approx(9)
    assert error < 1e-12


@settings(deadline=None)
@given(st.integers(1, 6), st.integers(0, 2**31))
def test_enough_products_are_exact_for_any_symmetric_matrix(dim, seed):
    any_sign = np.random.default_rng(seed).standard_normal((dim, dim))
    any_sign = any_sign + any_sign.T
    estimate, error = trace_estimate(lambda v: any_sign @ v, dim, products=18, seed=seed)
    assert error == 0
    assert estimate == pytest.approx(np.trace(any_sign))


def test_products_are_counted():
    calls = []

    def matvec(vector):
        calls.append(vector)
        return HEAVY @ vector

    trace_estimate(matvec, 200, products=np.int64(50), seed=np.random.default_rng(0))
    assert len(calls) == 48


BAD = {
    "dim": lambda: trace_estimate(lambda v: v, 0, products=6, seed=0),
    "products": lambda: trace_estimate(lambda v: v, 9, products=5, seed=0),
    "seed": lambda: trace_estimate(lambda v: v, 9, products=6, seed=-1),
    "matvec": lambda: trace_estimate("matrix", 9, products=6, seed=0),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_named(name):
    with pytest.raises(ValueError, match=f"^{name} is .*; allowed: "):
        BAD[name]()


@pytest.mark.parametrize("result", [np.ones(3), np.full(9, np.nan)])
def test_bad_products_are_named(result):
    with pytest.raises(ValueError, match=r"^matvec is .*; allowed: "):
        trace_estimate(lambda v: result, 9, products=6, seed=0)
