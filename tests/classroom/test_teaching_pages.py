"""The pages on teaching keep up with chapters and assignments."""

import re

import nbformat
import pytest

from tools import book

TEACHING = book.ROOT / "chapters" / "teaching"
SYLLABUS = (TEACHING / "syllabus.md").read_text("utf-8")
TABLES = {section.split("\n")[0]: section for section in SYLLABUS.split("\n## ")[1:]}


@pytest.mark.parametrize("path", book.chapters(), ids=book.name)
def test_a_course_of_twelve_weeks_reads_every_chapter(path):
    assert f"{{doc}}`../{book.name(path)}`" in TABLES["Twelve weeks"]


@pytest.mark.parametrize("weeks", [6, 12])
def test_a_course_hands_in_every_assignment_once(weeks):
    lines = re.findall(
        r"^\| (\d+) .*\| (.*?) ?\|$", TABLES[{6: "Six", 12: "Twelve"}[weeks] + " weeks"], re.M
    )
    assert [int(week) for week, _ in lines] == list(range(1, weeks + 1))
    handed_in = [name.strip("`") for _, name in lines if name]
    assert sorted(handed_in) == [path.stem for path in book.assignments()]


@pytest.mark.parametrize("path", book.assignments(), ids=lambda path: path.stem)
def test_an_assignment_has_goals_and_its_links(path):
    (line,) = re.findall(rf"^\| `{path.stem}` \| \d.*", TABLES["Learning goals"], re.M)
    opening = nbformat.read(path, as_version=4).cells[1].source
    linked = re.findall(r"/chapters/(\w+/\w+)\.html", opening)
    assert linked == re.findall(r"`\.\./(\w+/\w+)`", line)
    students = (TEACHING / "students.md").read_text("utf-8")
    assert students.count(f"/assignments/{path.name})") == 2  # Colab and Binder
