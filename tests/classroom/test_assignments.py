"""The masters, and what is generated from them."""

import ast
import copy
import json
import re
import zipfile
from inspect import signature

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pytest

from batchscaling.classroom.grader import read
from tests import replay
from tools import anatomy, book, execute
from tools.classroom import generate, master

POINTS = 20
masters = pytest.mark.parametrize(
    "path", [pytest.param(path, id=path.stem) for path in book.assignments()]
)


def cells(path):
    return nbformat.read(path, as_version=4).cells


def files(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.*")}


@masters
def test_a_master_runs_and_its_solution_passes_its_tests(path, request):
    assert replay.differences(path, execute.run(path), request.session) == []


@masters
def test_a_master_has_its_parts(path):
    questions = master.questions(nbformat.read(path, as_version=4))
    assert sum(question["points"] for question in questions) == POINTS
    assert 5 <= len(questions) <= 8
    assert [question["name"] for question in questions] == [
        f"q{i}" for i in range(1, len(questions) + 1)
    ]
    assert sum(question["manual"] for question in questions) == 1
    opening = next(cell.source for cell in cells(path) if cell.cell_type == "markdown")
    assert re.search(r"^About (6\d|[7-9]\d|1[01]\d|120) minutes · 20 points", opening, re.M)
    linked = re.findall(r"/chapters/(\w+/\w+)\.html", opening)
    assert linked and {*linked} <= {book.name(chapter) for chapter in book.chapters()}
    text = "\n".join(cell.source for cell in cells(path))
    assert "axes" in text and "Derive" in text
    assert not book.needs_torch(path)  # so Binder's small image runs it, and no GPU is missed


@masters
def test_the_anatomy_of_a_master(path):
    assert anatomy.problems(path) == []


@masters
def test_a_marked_line_is_a_whole_statement(path):
    """Only marked lines are taken out: a statement of several lines needs a block."""
    for cell in cells(path):
        for line in cell.source.splitlines():
            if line.endswith("# SOLUTION"):
                ast.parse(line.strip())


@masters
def test_a_student_notebook_is_whole(path, built):
    for cell in cells(built / path.stem / "student" / path.name):
        if cell.cell_type == "code" and "%pip" not in cell.source:
            ast.parse(cell.source)


def secret_lines(path):
    """Lines of a master that no student may see, without those that it shows elsewhere."""
    secret, shown, hidden = set(), set(), False
    for cell in cells(path):
        if cell.cell_type == "raw":
            hidden = cell.source.startswith("# BEGIN SOLUTION")
        elif "# BEGIN TEST CONFIG" in cell.source:
            test = lines(ast.unparse(ast.parse(cell.source))) | lines(cell.source)
            (secret if "hidden: true" in cell.source else shown).update(test)
        elif cell.cell_type == "markdown" and hidden:
            secret |= lines(cell.source)
        else:
            inside = False
            for line in cell.source.splitlines():
                if "# BEGIN SOLUTION" in line or "# END SOLUTION" in line:
                    inside = not inside
                elif inside or line.endswith("# SOLUTION"):
                    secret |= lines(line)
                else:
                    shown |= lines(line)
    seen = "\n".join(shown)
    return {line for line in secret if line not in seen}


def lines(source):
    return {line.strip() for line in source.splitlines() if len(line.strip()) > 8}


def strings(value):
    """All strings in a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from strings(item)


@masters
def test_a_student_file_holds_no_secret(path, built):
    (student,) = (built / path.stem / "student").iterdir()
    text = "\n".join(strings(json.loads(student.read_text())))
    secrets, own = secret_lines(path), {line.strip() for line in text.splitlines()}
    assert len(secrets) > 50
    # a short line may be a part of something else
    assert [line for line in secrets if line in own or (len(line) > 30 and line in text)] == []
    assert "hidden=True" not in text and "SOLUTION" not in text and "Rubric" not in text
    assert all(not cell.get("outputs") for cell in cells(student))


@masters
def test_the_published_notebook_is_the_generated_one(path, built):
    """So two generations, on whatever machines, give one file."""
    student = built / path.stem / "student" / path.name
    assert student.read_bytes() == (book.ROOT / "assignments" / path.name).read_bytes()


def spoiling(value):
    """Return a function that writes into its arrays once it has its result."""
    if not callable(value):
        return value

    def function(*args):
        result = value(*copy.deepcopy(args))
        for array in args:
            if isinstance(array, np.ndarray):
                array[...] = 7.77
        return result

    return function


@pytest.mark.parametrize("name", ["extrapolation", "noise"])
def test_right_numbers_do_not_come_from_arrays_that_a_solution_has_changed(name, built):
    """Gradescope runs tests in the submission's own process."""
    solution, names = built / name / "solution" / f"{name}.ipynb", {}
    for cell in cells(solution):
        if cell.cell_type == "code" and not re.search(r"google\.colab|grader\.check", cell.source):
            exec(cell.source, names)
    names = {name: spoiling(value) for name, value in names.items()}
    for path in sorted((built / name / "grading" / "tests").glob("*.py")):
        for test in read(path.read_text()):
            test.function(**{key: names[key] for key in signature(test.function).parameters})
    plt.close("all")


def test_two_generations_give_identical_files(built, tmp_path):
    path = book.assignments()[0]
    assert files(generate.generate(path, tmp_path)) == files(built / path.stem)


@masters
def test_a_student_notebook_has_the_set_up_cell_and_public_tests_in_its_metadata(path, built):
    student = nbformat.read(built / path.stem / "student" / path.name, as_version=4)
    original = nbformat.read(path, as_version=4)
    setup = next(cell for cell in original.cells if cell.cell_type == "code")
    assert next(cell for cell in student.cells if cell.cell_type == "code") == {
        **setup,
        "id": "cell-001",
        "outputs": [],
        "execution_count": None,
    }
    automatic = [q["name"] for q in master.questions(original) if not q["manual"]]
    assert list(student.metadata.otter.tests) == automatic
    assert all(read(test) for test in student.metadata.otter.tests.values())


@masters
def test_the_archive_is_one_for_gradescope(path, built):
    with zipfile.ZipFile(built / path.stem / f"{path.stem}-gradescope.zip") as archive:
        names = set(archive.namelist())
        assert {"run_autograder", "run_otter.py", "setup.sh", "environment.yml"} <= names
        environment = archive.read("environment.yml").decode()
        assert "otter-grader" in environment and book.repository() in environment
        tests = b"".join(archive.read(name) for name in names if name.startswith("tests/"))
    assert tests.count(b"hidden=True") >= 5
