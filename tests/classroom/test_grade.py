"""Grading a class: the table, the pages, going on after an interruption."""

import csv
import json
import re
import shutil
import subprocess
import sys
import time

import nbformat
import pytest

from tests.classroom.test_hostile import needs_bubblewrap
from tools.classroom import grade, report, sandbox

HOSTILE_ANSWER = "<script>alert('x')</script> because $\\alpha < 2/h$"


def rows(out):
    with (out / "grades.csv").open(encoding="utf-8") as file:
        return {row["student"]: row for row in csv.DictReader(file)}


@pytest.fixture(scope="module")
def graded(built, tmp_path_factory):
    """A small class, graded once."""
    folder, out = tmp_path_factory.mktemp("class"), tmp_path_factory.mktemp("out")
    solved = nbformat.read(built / "noise" / "solution" / "noise.ipynb", as_version=4)
    for cell in solved.cells:
        if "**Rubric**" in cell.source:
            cell.source = HOSTILE_ANSWER
    (folder / "ann").mkdir()
    nbformat.write(solved, folder / "ann" / "noise.ipynb")
    shutil.copy(built / "noise" / "student" / "noise.ipynb", folder / "=1+1.ipynb")
    (folder / "none.ipynb").write_bytes(b"")
    status = grade.main([str(folder), "--built", str(built), "--out", str(out)])
    return folder, out, status


@needs_bubblewrap
def test_a_class_gets_its_points(graded):
    _, out, status = graded
    found = rows(out)
    assert status == 0 and list(found) == ["'=1+1", "ann", "none"]
    assert found["ann"]["automatic (of 18)"] == "18"
    assert [found["ann"][f"q{i} (of 3)"] for i in range(1, 7)] == ["3"] * 6
    assert found["ann"]["q7 (written, of 2)"] == ""
    assert found["'=1+1"]["automatic (of 18)"] == found["none"]["automatic (of 18)"] == "0"
    assert found["none"]["notes"] == "the file is empty"


@needs_bubblewrap
@pytest.mark.classroom
@pytest.mark.timeout(900)
def test_thirty_submissions_take_less_than_ten_minutes(built, tmp_path, capsys):
    """On two cores; of the assignment whose tests call most."""
    folder, out, start = tmp_path / "class", tmp_path / "out", time.monotonic()
    folder.mkdir()
    given = [(i, ("solution", "student")[i % 2]) for i in range(30)]
    for i, kind in given:
        path = built / "extrapolation" / kind / "extrapolation.ipynb"
        shutil.copy(path, folder / f"{kind}{i}.ipynb")
    words = [str(folder), "--built", str(built), "--out", str(out), "--jobs", "2"]
    assert grade.main(words) == 0
    seconds, said = time.monotonic() - start, capsys.readouterr().out
    with capsys.disabled():
        print(f"\n{said}{seconds:.0f} seconds.")
    assert seconds < 600
    assert int(re.search(r"Most memory: (\d+) MiB", said)[1]) < 1024
    points = {name: row["automatic (of 18)"] for name, row in rows(out).items()}
    assert points == {f"{kind}{i}": "18" if kind == "solution" else "0" for i, kind in given}


def test_what_grades_one_submission_starts_quickly():
    """So it imports nothing that takes long, as nbformat does."""
    code = "import sys, tools.classroom.one; print({'nbformat', 'otter', 'scipy'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


@needs_bubblewrap
def test_a_page_shows_the_answer_beside_the_rubric(graded):
    _, out, _ = graded
    (page,) = (path.read_text() for path in (out / "reports").glob("ann-*.html"))
    assert "&lt;script&gt;" in page and "<script" not in page
    assert "same examples, five times fewer updates" in page  # the rubric
    assert "data:image/png;base64," in page
    assert "Replace each" not in page  # a text of the notebook itself


@needs_bubblewrap
def test_what_is_graded_is_not_graded_again(graded, built, monkeypatch, capsys):
    folder, out, _ = graded
    before = rows(out)
    started = []
    run = grade.subprocess.run
    monkeypatch.setattr(grade.subprocess, "run", lambda *a, **k: started.append(a) or run(*a, **k))
    (result,) = (out / "results").glob("none-*.json")
    result.unlink()
    shutil.copy(built / "noise" / "student" / "noise.ipynb", folder / "late.ipynb")
    grade.main([str(folder), "--built", str(built), "--out", str(out), "--assignment", "noise"])
    assert sum("tools.classroom.one" in call[0] for call in started) == 2
    found = rows(out)
    assert {name: found[name] for name in before} == before and "late" in found


@needs_bubblewrap
def test_ctrl_c_is_told_in_a_line_and_the_table_stays(graded, built, monkeypatch, capsys):
    folder, out, _ = graded
    before = (out / "grades.csv").read_bytes()

    def stopped(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(grade, "grade_one", stopped)
    assert grade.main([str(folder), "--built", str(built), "--out", str(out)]) == 130
    assert capsys.readouterr().err.splitlines()[-1].startswith("interrupted; ")
    assert (out / "grades.csv").read_bytes() == before


@needs_bubblewrap
def test_a_grader_that_fails_is_no_zero_and_stops_nobody(built, tmp_path, monkeypatch):
    for name in ("ann", "bob"):
        shutil.copy(built / "noise" / "student" / "noise.ipynb", tmp_path / f"{name}.ipynb")
    monkeypatch.setattr(grade, "PATIENCE", 0.05)
    status = grade.main([str(tmp_path), "--built", str(built), "--out", str(tmp_path / "out")])
    assert "ann: not graded in" in status and "bob: not graded in" in status
    assert rows(tmp_path / "out")["ann"]["automatic (of 18)"] == "not graded"


def test_without_a_known_assignment_it_asks(tmp_path, monkeypatch):
    monkeypatch.setattr(sandbox, "isolation_available", lambda: True)
    (tmp_path / "a.ipynb").write_text("{}")
    assert "--assignment" in grade.main([str(tmp_path)])
    assert "is no folder" in grade.main([str(tmp_path / "absent")])


@pytest.mark.parametrize("value", ["=1", "+1", "-1", "@x", "\t=1"])
def test_no_cell_of_the_table_is_a_formula(value):
    assert report.harmless(value) == f"'{value}"


def test_only_png_is_shown_as_a_figure():
    assert report.is_png("iVBORw0KGgoAAAA=")
    for text in ("", "AAAA", "iVBORw0KGgo='><script>", "PHN2Zz4="):
        assert not report.is_png(text)


def test_a_key_changes_with_tests_and_isolation(built, tmp_path):
    shutil.copytree(built / "noise", tmp_path / "noise")
    one = grade.state(tmp_path / "noise", True)
    assert one == grade.state(tmp_path / "noise", True) != grade.state(tmp_path / "noise", False)
    test = tmp_path / "noise" / "grading" / "tests" / "q1.py"
    test.write_text(test.read_text() + "\n")
    assert grade.state(tmp_path / "noise", True) != one
    assert grade.stored(tmp_path / "absent.json", one) is None
    (tmp_path / "x.json").write_text(json.dumps({"key": "other"}))
    assert grade.stored(tmp_path / "x.json", one) is None
