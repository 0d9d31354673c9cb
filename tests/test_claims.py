"""The page of claims and the front page: they say what chapters found, leaving nothing out."""

import copy

import nbformat
import pytest

from tools import book, claims, filled, front_page

DOCUMENTS = claims.load()
FOUND = list(claims.numbers(book.chapters()))


def test_every_claim_has_its_number_and_every_figure_its_claim():
    assert list(claims.problems(DOCUMENTS, FOUND)) == []
    assert [document.get("figures") for document in DOCUMENTS] == [13, None, None, 8]


def test_pages_are_what_code_writes():
    stale = [
        str(path.relative_to(book.ROOT))
        for path, content in claims.files(DOCUMENTS, FOUND).items()
        if path.read_bytes() != content
    ]
    assert stale == [], "run: python -m tools.claims"


def test_front_page_shows_what_is_written():
    intro = (book.ROOT / "chapters" / "intro.md").read_text("utf-8")
    assert f"{{include}} {front_page.GLANCE.name}" in intro
    assert f"{{figure}} _static/{front_page.PICTURE.name}" in intro
    assert front_page.LINES.count("- **") == 5


def one(**changed):
    """Return a document with one claim on its only figure."""
    claim = {"id": "a", "claim": "It holds.", "source": "Figure 1", "scale": "model"}
    return [{"title": "Paper", "about": "", "figures": 1, "claims": [claim | changed]}]


GOOD = [("a", "nqm/01_sgd", "2.3 times")]
BROKEN = {
    "no number": (one(verdict="holds"), [], "claim a: 'holds', but no chapter measures it"),
    "empty number": (
        one(verdict="holds"),
        [("a", "nqm/01_sgd", None)],
        "nqm/01_sgd: claim a has no number: run make refresh",
    ),
    "measured after all": (
        one(verdict="not measured here"),
        GOOD,
        "claim a: 'not measured here', but a chapter measures it",
    ),
    "unknown verdict": (
        one(verdict="yes"),
        GOOD,
        "claim a: verdict is 'yes'; allowed: holds, partly, fails, open, not measured here",
    ),
    "unknown claim": (
        one(verdict="holds"),
        [*GOOD, ("b", "nqm/02_momentum", "1")],
        "nqm/02_momentum: claim b is not listed",
    ),
    "measured twice": (
        one(verdict="holds"),
        [*GOOD, ("a", "nqm/02_momentum", "1")],
        "nqm/02_momentum: claim a stands in nqm/01_sgd too",
    ),
    "listed twice": (
        [*one(verdict="holds"), *one(verdict="holds")],
        GOOD,
        "claim a is listed 2 times",
    ),
    "figure missing": (
        one(verdict="holds", source="Figure 10"),
        GOOD,
        "Paper: figure 1 is missing",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_table_is_reported(case):
    documents, found, message = BROKEN[case]
    assert list(claims.problems(documents, found)) == [message]
    assert list(claims.problems(one(verdict="holds", source="a figure, figure 1b"), GOOD)) == []


def test_numbers_come_from_the_cells(tmp_path):
    code = nbformat.v4.new_code_cell("x = 1", metadata={"claims": {"a": "{x}", "b": "{x + 1}"}})
    code.metadata[filled.FOUND] = {"a": "1", "dropped": "7"}
    path = tmp_path / "nqm" / "01_small.ipynb"
    path.parent.mkdir()
    nbformat.write(nbformat.v4.new_notebook(cells=[copy.deepcopy(code)]), path)
    assert list(claims.numbers([path])) == [("a", "nqm/01_small", "1"), ("b", "nqm/01_small", None)]
