"""What solutions get: right ones all points, wrong ones exactly what they are meant to lose."""

import re

import nbformat
import pytest

from tests.classroom.planted import RIGHT, WRONG
from tests.classroom.test_hostile import needs_bubblewrap, notebook
from tools import book
from tools.classroom.collect import Cell, Notebook
from tools.classroom.grading import Assignment, grade
from tools.classroom.sandbox import Limits

NAMES = [path.stem for path in book.assignments()]
CASES = [(name, wrong) for name in WRONG for wrong in WRONG[name]]
QUICK = [("momentum", "forgotten buffer"), ("noise", "population variance")]


def graded(built, name, cells):
    return grade(Notebook(cells), Assignment.read(built / name), Limits(), isolated=True)


def solution(built, name):
    return notebook(built / name / "solution" / f"{name}.ipynb").cells


def lost(result):
    """The points that are missing in each question that has tests."""
    automatic = [question for question in result["questions"] if "tests" in question]
    points = {q["name"]: q["points"] - q["score"] for q in automatic}
    return {name: missing for name, missing in points.items() if missing}


def messages(result):
    return "\n".join(t["message"] for q in result["questions"] for t in q.get("tests", []))


def check_wrong(built, name, case):
    wrong = WRONG[name][case]
    cells = solution(built, name)
    places = [i for i, cell in enumerate(cells) if wrong.old in cell.source]
    assert len(places) == 1 and cells[places[0]].source.count(wrong.old) == 1
    changed = cells[places[0]].source.replace(wrong.old, wrong.new)
    cells[places[0]] = Cell("code", changed)
    result = graded(built, name, cells)
    assert lost(result) == wrong.lost, messages(result)
    assert re.search(wrong.message, messages(result))


@needs_bubblewrap
@pytest.mark.parametrize("name, case", QUICK)
def test_a_wrong_solution_loses_what_it_should(built, name, case):
    check_wrong(built, name, case)


@needs_bubblewrap
@pytest.mark.classroom
@pytest.mark.parametrize("name, case", [case for case in CASES if case not in QUICK])
def test_every_wrong_solution_loses_what_it_should(built, name, case):
    check_wrong(built, name, case)


def test_there_are_enough_wrong_solutions():
    assert set(WRONG) == set(NAMES) and min(map(len, WRONG.values())) >= 5


@needs_bubblewrap
@pytest.mark.classroom
@pytest.mark.parametrize("name", NAMES)
def test_the_solution_gets_all_points_and_the_untouched_notebook_none(built, name):
    result = graded(built, name, solution(built, name))
    assert lost(result) == {}, messages(result)
    assert not any(cell["error"] for cell in result["cells"])
    written = result["questions"][-1]
    assert written["answer"] and written["rubric"]
    student = notebook(built / name / "student" / f"{name}.ipynb")
    result = graded(built, name, student.cells)
    assert sum(question["score"] or 0 for question in result["questions"]) == 0
    assert result["questions"][-1]["answer"] == ""


@needs_bubblewrap
@pytest.mark.classroom
@pytest.mark.parametrize("case", RIGHT)
def test_another_right_solution_gets_all_points(built, case):
    name, source = RIGHT[case]
    if "torch" in source:
        pytest.importorskip("torch")
    cells = solution(built, name)
    last = max(i for i, cell in enumerate(cells) if re.search(r'check\("q[345]"\)', cell.source))
    result = graded(built, name, [*cells[:last], Cell("code", source), *cells[last:]])
    assert lost(result) == {}, messages(result)


@pytest.mark.classroom
@pytest.mark.parametrize("name", NAMES)
def test_otter_grades_the_archive_as_we_do(built, name, tmp_path):
    """Gradescope runs this; here without a container."""
    from otter.api import grade_submission

    for kind, share in (("solution", 1), ("student", 0)):
        path = built / name / kind / f"{name}.ipynb"
        archive = built / name / f"{name}-gradescope.zip"
        found = grade_submission(str(path), str(archive), quiet=True)
        assert found.total == share * found.possible
        automatic = [q for q in Assignment.read(built / name).questions if not q["manual"]]
        assert found.possible == sum(q["points"] for q in automatic)


def test_the_measured_table_is_the_measured_one():
    import json

    stored = nbformat.read(book.ROOT / "chapters" / "assignments" / "measured.ipynb", as_version=4)
    text = "\n".join(cell.source for cell in stored.cells)
    for path in sorted((book.ROOT / "data" / "sweeps").glob("digits-mlp-sgd-0*.json")):
        record = json.loads(path.read_text())
        line = [record["cell"]["batch_size"], *record["fresh"]["validation"]]
        assert f"\n{' '.join(map(str, line))}\n" in text
