"""Notebooks that attack the grader gain nothing and stop nothing."""

import contextlib
import shutil

import nbformat
import psutil
import pytest

from tests.classroom.hostile import CELLS, QUICK
from tools.classroom import report, sandbox
from tools.classroom.collect import Cell, Notebook, Submission
from tools.classroom.grading import Assignment, grade
from tools.classroom.sandbox import Limits
from tools.classroom.student import Failed, Student

needs_bubblewrap = pytest.mark.skipif(
    not sandbox.isolation_available(), reason="needs bubblewrap: apt install bubblewrap"
)
LIMITS = Limits(cell=3, call=3, total=60, memory=2**30, message=2**22)


def notebook(path, first=()):
    stored = nbformat.read(path, as_version=4)
    cells = [Cell(cell.cell_type, cell.source) for cell in stored.cells]
    return Notebook([*(Cell("code", source) for source in first), *cells])


def score(result):
    return sum(question["score"] or 0 for question in result["questions"])


def left_over():
    """Return what still runs of this process's sandboxes, or without a parent of anybody's."""
    found = []
    for process in psutil.process_iter(["cmdline", "ppid"]):
        words = process.info["cmdline"] or []
        if any("inside.py" in word or "4321" in word for word in words):
            with contextlib.suppress(psutil.NoSuchProcess):
                ours = psutil.Process() in process.parents()
                found += [words] if ours or process.info["ppid"] == 1 else []
    return found


def attack(built, name):
    student = built / "sgd" / "student" / "sgd.ipynb"
    assignment = Assignment.read(built / "sgd")
    result = grade(notebook(student, [CELLS[name]]), assignment, LIMITS, isolated=True)
    assert left_over() == []
    assert score(result) == 0
    # Forks share what they hold, and between two looks each of them is counted whole.
    forks = LIMITS.processes * 2**26 if "forks" in name else 0
    assert result["memory"] < max(1.5 * LIMITS.memory, forks)
    said = "".join(cell["text"] for cell in result["cells"])
    assert "FOUND" not in said or "FOUND []" in said
    assert ("FOUND" in CELLS[name]) == ("FOUND" in said)
    page = report.html(Submission("s", "f", b"", None), {**result, "wrong": ""}, assignment)
    assert "<script" not in page


@needs_bubblewrap
@pytest.mark.parametrize("name", QUICK)
def test_a_hostile_notebook_gains_nothing(built, name):
    attack(built, name)


@needs_bubblewrap
@pytest.mark.classroom
@pytest.mark.parametrize("name", [name for name in CELLS if name not in QUICK])
def test_every_hostile_notebook_gains_nothing(built, name):
    attack(built, name)


@needs_bubblewrap
def test_a_cell_that_ends_the_process_costs_only_itself(built):
    solution = built / "noise" / "solution" / "noise.ipynb"
    found = notebook(solution, ["import os; os._exit(1)"])
    result = grade(found, Assignment.read(built / "noise"), Limits(), isolated=True)
    assert score(result) == 18
    assert result["cells"][0]["error"].startswith("left out: its process ended")


def test_without_bubblewrap_it_asks_for_an_explicit_option(built, tmp_path, monkeypatch):
    from tools.classroom.grade import main

    monkeypatch.setattr(shutil, "which", lambda name: None)
    said = main([str(tmp_path), "--built", str(built)])
    assert "bwrap" in said and "network" in said and "--unsandboxed" in said


@needs_bubblewrap
def test_a_message_has_a_largest_size(built):
    limits = Limits(message=2**20)
    with Student(
        ["import numpy as np\nsmall, large = np.ones(10), np.ones(2**18)"], limits, True
    ) as s:
        s.run()
        assert s.fetch("small").sum() == 10
        with pytest.raises(Failed, match="it sent too much"):
            s.fetch("large")


@needs_bubblewrap
def test_a_sandbox_that_does_not_start_is_no_zero(built, monkeypatch):
    monkeypatch.setattr(sandbox, "HERE", built)  # where the program of the sandbox is not
    with pytest.raises(sandbox.Unusable, match="does not start"):
        grade(Notebook([]), Assignment.read(built / "sgd"), LIMITS, isolated=True)
