"""Make student notebooks, solutions and autograders from the masters in chapters/assignments.

    python -m tools.classroom.generate [folder]

For each master the folder, `_build/assignments` by default, gets one folder:

    student/NAME.ipynb      without solutions and hidden tests; assignments/NAME.ipynb is the same
    solution/NAME.ipynb
    grading/                what `make grade` reads: tests/*.py and assignment.json
    NAME-gradescope.zip     the autograder of otter-grader, to upload to Gradescope

The same masters always give the same bytes.
"""

import json
import logging
import shutil
import sys
import tempfile
import zipfile
from pathlib import Path

import nbformat

from tools import book
from tools.classroom import master

BUILT = book.ROOT / "_build" / "assignments"
EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest date that a zip file can hold


def generate(path, folder):
    """Make the files of the master at `path` in `folder`; return where they are."""
    from otter.assign import main as assign  # takes seconds, and grading needs none of it

    target = folder / path.stem
    shutil.rmtree(target, ignore_errors=True)
    logging.getLogger("otter").setLevel(logging.WARNING)
    with tempfile.TemporaryDirectory() as made:
        assign(str(path), made, no_run_tests=True)
        made = Path(made)
        for kind, source in (("student", "student"), ("solution", "autograder")):
            notebook = nbformat.read(made / source / path.name, as_version=4)
            (target / kind).mkdir(parents=True)
            nbformat.write(normalised(notebook), target / kind / path.name)
        (archive,) = (made / "autograder").glob("*.zip")
        repack(archive, target / f"{path.stem}-gradescope.zip")
    write_grading(path, target)
    return target


def normalised(notebook):
    """Return `notebook` with cell ids that do not change from one generation to the next."""
    for i, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{i:03d}"
    notebook.metadata.pop("language_info", None)
    return notebook


def repack(archive, target):
    """Copy a zip file, with entries in order and without the time of its making."""
    with zipfile.ZipFile(archive) as old, zipfile.ZipFile(target, "w") as new:
        for name in sorted(old.namelist()):
            entry = zipfile.ZipInfo(name, EPOCH)
            entry.compress_type = zipfile.ZIP_DEFLATED
            new.writestr(entry, old.read(name))


def write_grading(path, target):
    """Write what grading needs: the tests of the autograder, and the questions."""
    tests = target / "grading" / "tests"
    tests.mkdir(parents=True)
    with zipfile.ZipFile(target / f"{path.stem}-gradescope.zip") as archive:
        for name in archive.namelist():
            if name.startswith("tests/"):
                (tests / Path(name).name).write_bytes(archive.read(name))
    student = nbformat.read(target / "student" / path.name, as_version=4)
    questions = master.questions(nbformat.read(path, as_version=4))
    given = [cell.source for cell in student.cells if cell.cell_type == "markdown"]
    record = {"name": path.stem, "questions": questions, "given": given}
    text = json.dumps(record, indent=1, ensure_ascii=False)
    (target / "grading" / "assignment.json").write_text(text + "\n")


def publish(targets):
    """Copy student notebooks to `assignments`, where Colab, Binder and students find them."""
    for target in targets:
        shutil.copy(target / "student" / f"{target.name}.ipynb", book.ROOT / "assignments")


def main(folder=BUILT):
    """Generate all assignments in `folder` and publish the student notebooks."""
    targets = [generate(path, folder) for path in book.assignments()]
    publish(targets)
    for target in targets:
        print(f"{target.relative_to(folder.parent)}: made")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
