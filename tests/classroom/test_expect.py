"""The checks that tests are made of, and the student's own grader."""

import json
import sys
import types

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchscaling.classroom import Grader, expect, numbers, within
from batchscaling.classroom.grader import failure, read


@given(st.floats(1e-3, 1e3), st.sampled_from([np.float32, np.float64, np.float16]))
def test_right_numbers_pass_in_every_type(value, kind):
    expect("x", kind(value), float(kind(value)))
    expect("x", [kind(value)] * 2, [float(kind(value))] * 2)


@pytest.mark.parametrize(
    "found, right, message",
    [
        (2.0, 1.0, "x gives 2, which is not right"),
        ([1.0, 2.0], [1.0], r"x has shape \(2,\); expected: \(1,\)"),
        ([], [1.0], r"x has shape \(0,\)"),
        (np.ones((1, 2)), np.ones(2), r"shape \(1, 2\)"),
        (np.nan, 1.0, "x gives nan"),
        (None, 1.0, "x gives None"),
        (..., 1.0, "not filled in"),
        ("1.0", 1.0, "x is a str"),
        ([1, [2]], [1.0, 2.0], "x is no array of numbers"),
        (True, 1.0, "x is a bool"),
        (3.0, 1.0, "x: three times"),
    ],
)
def test_wrong_values_fail_with_a_reason(found, right, message):
    with pytest.raises(AssertionError, match=message):
        expect("x", found, right, mistakes={"three times": 3.0})


def test_a_message_does_not_hold_the_answer():
    with pytest.raises(AssertionError) as error:
        expect("x", 2.0, 1.2345)
    assert "1.2" not in str(error.value)


def test_tensors_are_numbers():
    torch = pytest.importorskip("torch")
    expect("x", torch.tensor([0.5], requires_grad=True), [0.5])
    expect("x", [torch.tensor(0.5, requires_grad=True), 1], [0.5, 1.0])
    expect("x", torch.tensor([0.5], dtype=torch.bfloat16), [0.5])


@pytest.mark.parametrize("found", [-1.0, 2.0, np.nan, np.inf, [0.5, 3.0], [], 0.5 + 100j])
def test_numbers_outside_fail(found):
    with pytest.raises(AssertionError):
        within("x", found, 0, 1)


def test_numbers_inside_pass_and_bounds_have_reasons():
    within("x", [0.0, 1.0], 0, [1, 1])
    with pytest.raises(AssertionError, match="too low"):
        within("x", -1, 0, 1, below="too low")
    with pytest.raises(AssertionError, match="too high"):
        within("x", 2, 0, 1, above="too high")
    with pytest.raises(AssertionError, match="shape"):
        within("x", [0.5], [0, 0], 1)
    assert numbers("x", [1, 2], (2,)).tolist() == [1, 2]


TEST = """from otter.test_files import test_case

@test_case(points=1, hidden=False)
def test_one(x):
    assert x == 1, "x is not one"

@test_case(points=2, hidden=True)
def test_two(x, y):
    assert x / y
"""
x = 2


@pytest.fixture
def notebook(tmp_path, monkeypatch):
    """A notebook with one question, in the current folder under another name."""
    monkeypatch.chdir(tmp_path)
    content = {"metadata": {"otter": {"assignment_name": "small", "tests": {"q1": TEST}}}}
    (tmp_path / "Copy of small (1).ipynb").write_text(json.dumps(content))
    (tmp_path / "broken.ipynb").write_text("{")
    (tmp_path / "other.ipynb").write_text('{"metadata": {}}')
    return content


def test_a_student_sees_what_fails_and_that_more_follows(notebook, capsys):
    Grader("small").check("q1")
    said = capsys.readouterr().out
    assert said.startswith("q1: 0 of 2 public tests passed.\n  x is not one\n  `y` is not defined")
    assert "only the public tests" in said
    Grader("small").check_all()
    assert capsys.readouterr().out == said


def test_functions_get_copies_as_in_grading():
    def test(double):
        number = np.ones(2)
        expect("twice", double(number), 2 * number)
        expect("twice", double(x=number), 2 * number)

    def double(x):
        x *= 2
        return x

    assert failure(test, {"double": double}) is None


def test_a_test_that_fails_without_words_is_counted_as_failed(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    test = TEST.replace('assert x == 1, "x is not one"', "assert x == 1")
    content = {"metadata": {"otter": {"assignment_name": "small", "tests": {"q1": test}}}}
    (tmp_path / "small.ipynb").write_text(json.dumps(content))
    (tmp_path / ".#small.ipynb").symlink_to("nowhere")  # as an editor leaves it
    Grader("small").check("q1")
    assert capsys.readouterr().out.startswith("q1: 0 of 2 public tests passed.\n  a check failed\n")


def test_a_notebook_that_is_not_found_is_said(notebook, capsys):
    Grader("absent").check("q1")
    assert "found no tests" in capsys.readouterr().out


def test_on_colab_the_tests_come_from_the_running_notebook(notebook, capsys, tmp_path, monkeypatch):
    for path in tmp_path.glob("*.ipynb"):
        path.unlink()
    message = types.SimpleNamespace(blocking_request=lambda *_, **__: {"ipynb": notebook})
    colab = types.ModuleType("google.colab")
    colab._message = message
    monkeypatch.setitem(sys.modules, "google", types.ModuleType("google"))
    monkeypatch.setitem(sys.modules, "google.colab", colab)
    Grader("small").check("q1")
    assert "x is not one" in capsys.readouterr().out


def test_tests_are_read_with_their_points():
    assert [(test.function.__name__, test.points, test.hidden) for test in read(TEST)] == [
        ("test_one", 1, False),
        ("test_two", 2, True),
    ]
