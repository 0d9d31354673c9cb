"""Ranges whose ends' quotient is beyond floats."""

import numpy as np
import pytest

from batchscaling.ranges import Range

WIDEST = Range(1e-300, 1e300)


def test_a_quotient_beyond_floats_is_spread_evenly_in_logarithms():
    values = WIDEST.values([0, 0.25, 0.5, 1])
    np.testing.assert_allclose(values, [1e-300, 1e-150, 1, 1e300], rtol=1e-12)
    assert [WIDEST.position(value) for value in values] == pytest.approx([0, 0.25, 0.5, 1])


def test_a_value_far_away_has_a_finite_position():
    narrow = Range(1e-300, 1e-299)
    assert narrow.position(1e300) == pytest.approx(600)
    assert Range(1e299, 1e300).position(1e-300) == pytest.approx(-599)


def test_what_lies_beyond_ends_where_floats_do():
    assert WIDEST.beyond("high").low == 1e300 and np.isfinite(WIDEST.beyond("high").high)
    assert WIDEST.beyond("low").high == 1e-300 and WIDEST.beyond("low").low > 0
