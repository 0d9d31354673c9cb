"""Ranges and quasi-random settings."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import qmc

from batchscaling.ranges import EDGE, join
from batchscaling.training import Range, draw, hyperparameters

nan, inf = float("nan"), float("inf")
RATES = Range(2**-6, 2**4)
MOMENTUM = Range(0.01, 1, complement=True)


@st.composite
def ranges(draw):
    low = draw(st.floats(1e-8, 0.5))
    complement = draw(st.booleans())
    longest = min(1 / low, 1e6) if complement else 1e6
    high = low * draw(st.floats(1.5, longest))
    return Range(low, min(high, 1) if complement else high, complement)


UNITS = st.floats(0, 1)


def test_values_are_spread_evenly_in_logarithms():
    np.testing.assert_allclose(Range(1, 16).values([0, 0.25, 0.5, 1]), [1, 2, 4, 16])
    beyond_nine = Range(0.001, 0.1, complement=True)
    np.testing.assert_allclose(beyond_nine.values([0, 0.5, 1]), [0.999, 0.99, 0.9])
    assert MOMENTUM.values(1) == 0


@given(range_=ranges(), unit=UNITS)
def test_values_lie_in_the_range_and_position_finds_them(range_, unit):
    value = range_.values(unit)
    number = 1 - value if range_.complement else value
    assert range_.low * (1 - 1e-7) <= number <= range_.high * (1 + 1e-7)
    assert not range_.complement or 0 <= value < 1
    assert range_.position(value) == pytest.approx(unit, abs=1e-6)


@pytest.mark.parametrize("range_", [RATES, Range(0.01, 0.5, complement=True)])
def test_borders_are_the_outer_tenths(range_):
    for unit in np.linspace(0, 1, 101):
        if min(abs(unit - EDGE), abs(unit - 1 + EDGE)) < 1e-9:
            continue
        side = "low" if unit < EDGE else "high" if unit > 1 - EDGE else None
        assert range_.border(range_.values(unit)) == side


def test_momentum_zero_is_no_border():
    assert MOMENTUM.border(0.0) is None
    assert MOMENTUM.border(0.989) == "low"
    assert Range(0.01, 0.5, complement=True).border(0.5) == "high"
    assert Range(0.01, 1).border(1.0) == "high"


@given(range_=ranges(), side=st.sampled_from(["low", "high"]))
def test_a_wider_range_is_the_range_and_the_strip_beyond_it(range_, side):
    if side == "high" and range_.complement and range_.high == 1:
        return  # no border: a search never asks
    strip = range_.beyond(side)
    wider = join(range_, strip)
    ends = (strip.low, range_.high) if side == "low" else (range_.low, strip.high)
    assert wider == Range(*ends, range_.complement)
    touching = (strip.high, range_.low) if side == "low" else (strip.low, range_.high)
    assert touching[0] == touching[1]
    grown = np.log(wider.high / wider.low) / np.log(range_.high / range_.low)
    assert grown == pytest.approx(1.5) or (range_.complement and wider.high == 1 and grown < 1.5)
    # What was the border lies well inside, unless the range is at its natural end.
    assert wider.border(range_.values(0 if side == "low" else 1)) is None


@pytest.mark.parametrize("seed", [0, 7])
def test_settings_are_scipys_halton_points(seed):
    values = draw({"lr": RATES, "momentum": MOMENTUM}, 20, seed=seed)
    points = qmc.scale(qmc.Halton(2, seed=seed).random(20), [-6, -2], [4, 0])
    np.testing.assert_allclose(values["lr"], 2.0 ** points[:, 0])
    np.testing.assert_allclose(1 - values["momentum"], 10.0 ** points[:, 1])


@given(
    first=st.integers(1, 40),
    rest=st.integers(1, 40),
    seed=st.integers(0, 2**32 - 1),
)
def test_a_search_goes_on_where_it_was(first, rest, seed):
    space = {"lr": RATES, "beta1": MOMENTUM, "decay": Range(2**-8, 1, complement=True)}
    whole = draw(space, first + rest, seed=seed)
    before = draw(space, first, seed=seed)
    after = draw(space, rest, seed=seed, skip=first)
    assert list(whole) == list(space)
    for name, values in whole.items():
        np.testing.assert_array_equal(np.concatenate([before[name], after[name]]), values)


def test_settings_fill_the_space_more_evenly_than_chance():
    count, bins = 64, 16
    for seed in range(5):
        values = draw({"lr": RATES, "momentum": MOMENTUM}, count, seed=seed)
        for name, range_ in (("lr", RATES), ("momentum", MOMENTUM)):
            units = np.array([range_.position(value) for value in values[name]])
            # Of independent points, 7 or more would share a bin in nine of ten searches.
            held = np.histogram(units, bins, (0, 1))[0]
            assert held.min() >= 2
            assert held.max() <= 6
    assert not np.array_equal(
        draw({"a": RATES}, 5, seed=0)["a"], draw({"a": RATES}, 5, seed=1)["a"]
    )


def test_hyperparameters_of_an_effective_rate():
    values = {"effective_lr": np.array([1.0, 2.0]), "momentum": np.array([0.9, 0.0])}
    hyper = hyperparameters(values)
    assert sorted(hyper) == ["lr", "momentum"]
    np.testing.assert_allclose(hyper["lr"], [0.1, 2.0])
    np.testing.assert_array_equal(hyper["momentum"], values["momentum"])
    assert sorted(values) == ["effective_lr", "momentum"]  # the argument is left as it was

    values["relative_extrapolation"] = np.array([3.0, 0.5])
    assert sorted(hyperparameters(values)) == ["extrapolation", "lr", "momentum"]
    np.testing.assert_allclose(hyperparameters(values)["extrapolation"], [0.3, 1.0])

    plain = {"lr": np.array([0.3]), "beta1": np.array([0.9]), "decay": np.array([0.5])}
    assert hyperparameters(plain) == plain


BAD = [
    (lambda: Range(0, 1), "low is 0"),
    (lambda: Range(-1, 1), "low is -1"),
    (lambda: Range(nan, 1), "low is nan"),
    (lambda: Range("0.1", 1), "low is '0.1'"),
    (lambda: Range(1, 1), "high is 1"),
    (lambda: Range(2, 1), "high is 1"),
    (lambda: Range(1, inf), "high is inf"),
    (lambda: Range(1, nan), "high is nan"),
    (lambda: Range(1, "2"), "high is '2'"),
    (lambda: Range(0.1, 1.5, complement=True), "high is 1.5"),
    (lambda: RATES.beyond("left"), "side is 'left'"),
    (lambda: draw({}, 5, seed=0), "space is {}"),
    (lambda: draw([RATES], 5, seed=0), "space is [Range"),
    (lambda: draw({"lr": (0.1, 1)}, 5, seed=0), "space is {'lr': (0.1, 1)}"),
    (lambda: draw({"lr": RATES}, 0, seed=0), "count is 0"),
    (lambda: draw({"lr": RATES}, 5.0, seed=0), "count is 5.0"),
    (lambda: draw({"lr": RATES}, 5, seed=-1), "seed is -1"),
    (lambda: draw({"lr": RATES}, 5, seed=0.5), "seed is 0.5"),
    (lambda: draw({"lr": RATES}, 5, seed=0, skip=-1), "skip is -1"),
]


@pytest.mark.parametrize(("call", "message"), BAD, ids=[message for _, message in BAD])
def test_bad_input_names_parameter_value_and_what_is_allowed(call, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}.*allowed: "):
        call()


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"effective_lr": [0.1]}, "'momentum' beside 'effective_lr'"),
        ({"relative_extrapolation": [0.1]}, "'lr' beside 'relative_extrapolation'"),
    ],
)
def test_a_hyperparameter_that_another_one_needs_is_named(values, words):
    with pytest.raises(ValueError, match=f"^values is .*; allowed: {words}"):
        hyperparameters(values)
