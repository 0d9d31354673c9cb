"""What a submission's process says arrives as plain data, or not at all."""

import array
import json
from collections import deque

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from batchscaling.classroom import expect
from tools.classroom import wire

simple = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
dtypes = st.sampled_from(["?", "i4", "i8", "u1", "f4", "f8", "c16"])
arrays = dtypes.flatmap(lambda d: hnp.arrays(d, hnp.array_shapes(min_dims=0, min_side=0)))
values = st.recursive(
    simple,
    lambda v: st.lists(v) | st.tuples(v, v) | st.dictionaries(st.text() | st.integers(), v),
    max_leaves=10,
)


def sent(value):
    return wire.decode(json.loads(json.dumps(wire.encode(value))))


@given(values)
def test_plain_values_arrive_as_they_are(value):
    assert sent(value) == value and type(sent(value)) is type(value)


@given(arrays)
def test_arrays_arrive_bit_by_bit(value):
    found = sent(value)
    assert found.dtype == value.dtype and found.shape == value.shape
    assert found.tobytes() == value.tobytes()


def test_numpy_scalars_tensors_and_generators_arrive():
    torch = pytest.importorskip("torch")
    assert sent(np.float32(0.5)) == np.float32(0.5)
    assert sent(np.int64(3)) == 3
    tensor = torch.ones(2, 3, requires_grad=True)
    assert np.array_equal(sent(tensor), np.ones((2, 3)))
    rng = np.random.default_rng(7)
    rng.standard_normal(3)
    assert sent(rng).standard_normal() == rng.standard_normal()
    assert sent(...) is ...


@pytest.mark.parametrize(
    "value",
    [
        range(3),
        deque([1.0, 2.0]),
        array.array("d", [1.0, 2.0]),
        memoryview(np.arange(3.0)),
        np.longdouble(0.1),
        np.arange(3, dtype=">f4"),
        np.arange(3, dtype=">i8"),
        np.ones(2, np.clongdouble),
        complex(1, 0),
        [np.longdouble(0.5), 1.0],
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_the_notebook_takes_for_numbers_arrives_as_numbers(value):
    expect("x", value, np.asarray(value))
    found = sent(value)
    np.testing.assert_array_equal(np.asarray(found, complex), np.asarray(value, complex))
    expect("x", found, np.asarray(value))


def test_series_and_tensors_of_every_kind_arrive():
    pandas, torch = pytest.importorskip("pandas"), pytest.importorskip("torch")
    values = [
        pandas.Series([1.0, 2.0], index=[7, 3]),
        torch.tensor([1.0, 2.0], dtype=torch.bfloat16),
        [torch.tensor(1.0, requires_grad=True), torch.tensor(2.0)],
    ]
    for value in values:
        expect("x", value, [1.0, 2.0])
        expect("x", sent(value), [1.0, 2.0])


def test_what_is_no_data_arrives_as_a_name():
    assert isinstance(sent(lambda: None), wire.Function)
    assert repr(sent(object.__new__(type("Odd", (), {})))) == "a Odd"
    assert isinstance(sent(np.array([object()])), wire.Opaque)
    deep = []
    for _ in range(1000):
        deep = [deep]
    assert "Opaque" in repr(type(flat(sent(deep))))


def flat(value):
    while isinstance(value, list):
        value = value[0]
    return value


@pytest.mark.parametrize(
    "data",
    [
        [1, 2],
        {"array": ["<f8", [2], "AAAAAAAAAAA="]},  # one number, said to be two
        {"array": ["<f8", [-1], ""]},
        {"array": ["<f8", [True], "AAAAAAAAAAA="]},
        {"array": ["|O", [1], "AAAAAAAAAAA="]},
        {"array": ["<f8", [1], "?"]},
        {"array": ["<f8"]},
        {"array": [[], [], ""]},
        {"array": None},
        {"dict": [[1]]},
        {"dict": [[{"list": []}, 1]]},
        {"dict": 3},
        {"list": "abc"},
        {"list": [], "more": 1},
        {"pickle": "gASVBQAAAAAAAABLAS4="},
        {},
    ],
)
def test_other_data_is_refused(data):
    with pytest.raises(wire.Broken):
        wire.decode(data)


def test_data_that_is_too_deep_is_refused():
    data = {"list": []}
    for _ in range(100):
        data = {"list": [data]}
    with pytest.raises(wire.Broken):
        wire.decode(data)
