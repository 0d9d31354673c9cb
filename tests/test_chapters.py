"""Every chapter: its anatomy, its stored results, its time and its memory.

The book's build has executed each chapter (`tools/execute.py`) and kept the results in `_build`;
nbval compares them with what is stored. A chapter that the build has not executed as it is now is
executed here.
"""

import copy

import nbformat
import pytest
from jupyter_cache import get_cache

from tests import replay
from tools import anatomy, book, execute, filled, parallel, refresh

MEMORY = 1.2 * 2**30  # bytes; free Binder's size
SECONDS = 60  # of one chapter
PART_SECONDS = {"noise": 240, "networks": 300}  # of all chapters of a part; others have 120
BUSY = 2  # the machine may be slow, or doing other things: `make bench` measures on a quiet one

# The longest first.
chapters = pytest.mark.parametrize(
    "path",
    sorted(book.chapters(), key=parallel.announced_seconds, reverse=True),
    ids=book.name,
)


@pytest.fixture(scope="session")
def cache():
    return get_cache(execute.CACHE)


@pytest.fixture(scope="session")
def stale(cache):
    """Return the chapters that the build has not executed as they are now."""
    return execute.stale(book.chapters(), cache)


@pytest.mark.timeout(1000)
@chapters
def test_stored_outputs_and_memory(path, cache, stale, request):
    done = execute.run(path) if path in stale else execute.cached(path, cache)
    assert replay.differences(path, done, request.session) == []
    peak = done.data["peak_bytes"]
    assert peak < MEMORY, f"{peak / 2**20:.0f} MiB"


@chapters
def test_anatomy(path):
    assert anatomy.problems(path) == []


def test_run_times_in_the_book(cache):
    current = {
        path: execute.cached(path, cache).data["execution_seconds"] for path in book.chapters()
    }
    assert not cache.list_project_records(), "the site's builder executed a chapter once more"
    assert max(current.values()) < BUSY * SECONDS, current
    for part in {path.parent for path in current}:
        total = sum(time for path, time in current.items() if path.parent == part)
        assert total < BUSY * PART_SECONDS.get(part.name, 120), current


def test_toc_names_notebooks_that_exist():
    stored = {
        path
        for path in (book.ROOT / "chapters").rglob("[0-9]*.ipynb")
        if ".ipynb_checkpoints" not in path.parts
    }
    assert stored == set(book.chapters())


# What follows tests the checks themselves, on a small chapter that passes and on broken copies.

OPENING = """\
# A small chapter

Does it pass?

```{admonition} What you will learn
:class: note chapter-box
- One thing.
- Another thing.

Reading: about 1 minute · Running: about 1 second · You need: nothing
```"""
EXERCISES = """\
## Exercises

```{exercise}
:label: small-ex1
Add one and one.
```

```{solution-start} small-ex1
:class: dropdown
```"""
SUMMARY = """\
```{solution-end}
```

## Summary

- One.
- Two.
- Three.

## References

```{bibliography}
:filter: docname in docnames
```
"""


def small_chapter():
    """A chapter that passes all checks, with the outputs that it would have."""
    markdown, code = nbformat.v4.new_markdown_cell, nbformat.v4.new_code_cell
    figure = nbformat.v4.new_output("display_data", {"image/png": "", "text/plain": "<Figure>"})
    caption = {"caption": "A line.", "name": "fig-line"}
    layout = {"figure": caption, "image": {"alt": "A line that rises from zero to one."}}
    cells = [
        markdown(OPENING),
        code(anatomy.setup_cell(), metadata={"tags": ["hide-input"]}),
        markdown("$$ x = 1 $$ (eq-small)\n\nSee {cite:t}`zhang2019`."),
        code(
            "from batchscaling.widgets import live\nplot()",
            metadata={"mystnb": layout},
            outputs=[figure],
        ),
        markdown("The line rises."),
        code("assert slope > 0"),
        markdown(EXERCISES),
        code("print(1.234)", outputs=[nbformat.v4.new_output("stream", text="1.234\n")]),
        markdown(SUMMARY),
    ]
    runs = 0
    for cell in cells:
        if cell.cell_type == "code":
            runs += 1
            cell.execution_count = runs
    return nbformat.v4.new_notebook(metadata=copy.deepcopy(book.METADATA), cells=cells)


def problems(notebook, tmp_path, name="nqm/02_momentum"):
    path = tmp_path / f"{name}.ipynb"
    path.parent.mkdir(exist_ok=True)
    nbformat.write(notebook, path)
    return anatomy.problems(path)


def test_a_good_chapter_has_no_problem(tmp_path):
    assert problems(small_chapter(), tmp_path) == []


def edit(cell, old, new):
    """Return a function that replaces text in one cell and makes sure that it was there."""

    def apply(notebook):
        source = notebook.cells[cell].source
        assert old in source
        notebook.cells[cell].source = source.replace(old, new)

    return apply


def layout(section, key, value):
    """Return a function that changes the figure's layout."""

    def apply(notebook):
        notebook.cells[3].metadata.mystnb[section][key] = value

    return apply


def output(cell, **content):
    """Return a function that adds an output to one cell."""

    def apply(notebook):
        notebook.cells[cell].outputs.append(nbformat.v4.new_output(**content))

    return apply


def attribute(cell, name, value):
    """Return a function that sets one cell's attribute."""

    def apply(notebook):
        notebook.cells[cell][name] = value

    return apply


def lengthen(notebook):
    """Make most code cells long, and none too long."""
    for cell in notebook.cells[3:]:
        if cell.cell_type == "code":
            cell.source = "1\n" * 9 + cell.source


BROKEN = {
    "no title": (edit(0, "# A small", "A small"), "opening: cell 0: must be markdown"),
    "no question": (edit(0, "pass?", "pass."), "opening: cell 0: no question"),
    "no box": (edit(0, "{admonition}", "{note}"), "opening: cell 0: has no box"),
    "box without class": (edit(0, " chapter-box", ""), "opening: cell 0: has no box"),
    "box too short": (edit(0, "- Another thing.\n", ""), "opening: cell 0: the box lists fewer"),
    "no minutes": (edit(0, "about 1 minute", "short"), "opening: cell 0: the box lacks"),
    "another set-up cell": (edit(1, "-q ", ""), "set_up: cell 1: is not the set-up cell"),
    "set-up cell visible": (attribute(1, "metadata", {}), "set_up: cell 1: the set-up cell's only"),
    "second install": (edit(7, "print", "%pip install x\nprint"), "set_up: cell 7: installs"),
    "long cell": (edit(7, "print", "1\n" * 20 + "print"), "lengths: cell 7: 21 lines"),
    "long cells on the whole": (lengthen, "typical_length: median of 10 lines a code cell"),
    "not run": (attribute(7, "execution_count", None), "executed: code cells have not run"),
    "run twice": (attribute(7, "execution_count", 9), "executed: code cells have not run"),
    "error": (
        output(7, output_type="error", ename="KeyError", evalue="", traceback=[]),
        "executed: cell 7: ends in an error, KeyError",
    ),
    "warning": (
        output(7, output_type="stream", name="stderr", text="careful"),
        "executed: cell 7: writes to stderr: 'careful'",
    ),
    "no caption": (layout("figure", "caption", " "), "figures: cell 3: figure has no caption"),
    "no name": (layout("figure", "name", ""), "figures: cell 3: figure's name is ''"),
    "no alternative text": (layout("image", "alt", "Plot"), "figures: cell 3: figure has no alt"),
    "SVG": (
        output(3, output_type="display_data", data={"image/svg+xml": ""}),
        "figures: cell 3: figure is SVG",
    ),
    "no sentence": (lambda nb: nb.cells.pop(4), "figures: cell 3: figure is not followed"),
    "no assert": (edit(5, "assert ", ""), "figures: cell 5: follows a figure but asserts nothing"),
    "empty assert": (edit(5, "slope > 0", "True"), "figures: cell 5: follows a figure but asserts"),
    "no figure": (lambda nb: nb.cells[3].outputs.clear(), "figures: has no figure"),
    "no summary": (edit(8, "## Summary", "## Outlook"), "sections: last three sections are"),
    "short summary": (edit(8, "- Three.\n", ""), "sections: the summary lists fewer"),
    "no bibliography": (edit(8, "{bibliography}", "{note}"), "sections: the references lack"),
    "no exercise": (
        lambda nb: [edit(6, EXERCISES, "## Exercises")(nb), edit(8, "{solution-end}", "{x}")(nb)],
        "exercises: has no exercise",
    ),
    "no solution": (
        edit(6, "{solution-start}", "{note}"),
        "exercises: exercise small-ex1: found end where start",
    ),
    "solution without end": (
        edit(8, "{solution-end}", "{note}"),
        "exercises: exercise small-ex1: its solution does not end",
    ),
    "another's solution": (
        edit(6, "{solution-start} small-ex1", "{solution-start} small-ex2"),
        "exercises: exercise small-ex1: followed by the solution of small-ex2",
    ),
    "open solution": (
        edit(6, ":class: dropdown\n", ""),
        "exercises: exercise small-ex1: its solution is not a dropdown",
    ),
    "no numbered equation": (edit(2, " (eq-small)", ""), "mathematics: has no numbered"),
    "no explorer": (edit(3, "batchscaling.widgets", "batchscaling"), "explorer: uses nothing"),
    "unknown reference": (edit(2, "zhang2019", "nobody"), "citations: cites 'nobody'"),
    "no reference": (edit(2, "{cite:t}`zhang2019`", "the paper"), "citations: cites nothing"),
    "called earlier": (
        edit(4, "rises.", "rises, as [an earlier chapter](../noise/01_thermometer.ipynb) says."),
        "order: calls noise/01_thermometer 'earlier'",
    ),
    "called previous": (
        edit(4, "rises.", "rises. In the previous chapter, {doc}`03_preconditioning`, it fell."),
        "order: calls nqm/03_preconditioning 'previous chapter'",
    ),
    "called next": (
        edit(4, "rises.", "rises: see the [next chapter](04_averaging.ipynb)."),
        "order: calls nqm/04_averaging 'next chapter'",
    ),
    "called later": (
        edit(4, "rises.", "rises. {doc}`The chapter on SGD <01_sgd>` later shows why."),
        "order: calls nqm/01_sgd 'later'",
    ),
    "widget state": (
        lambda nb: nb.metadata.update(widgets={}),
        "metadata: metadata is not",
    ),
    "timings": (
        attribute(7, "metadata", {"execution": {}}),
        "metadata: cell 7: metadata holds timings",
    ),
    "imports torch": (edit(5, "assert", "import torch\nassert"), "torch_free: cell 5: imports"),
    "imports training": (
        edit(5, "assert", "from batchscaling.training import sgd\nassert"),
        "torch_free: cell 5: imports",
    ),
    "too many digits": (
        output(7, output_type="stream", name="stdout", text="risk 0.0123456"),
        "printed_numbers: cell 7: prints 0.0123456",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_chapter_is_reported(case, tmp_path):
    change, message = BROKEN[case]
    notebook = small_chapter()
    change(notebook)
    assert [line for line in problems(notebook, tmp_path) if line.startswith(message)]


def test_of_a_master_less_is_asked(tmp_path):
    notebook = small_chapter()
    del notebook.cells[6:]
    lengthen(notebook)
    assert problems(notebook, tmp_path, "assignments/small") == []
    notebook.cells[5].source += "\n1" * 20
    notebook.cells[3].execution_count = None
    assert problems(notebook, tmp_path, "assignments/small") == [
        "lengths: cell 5: 30 lines; allowed: 20",
        "executed: code cells have not run from top to bottom: execution counts [1, None, 3]",
    ]


def test_chapters_called_by_their_order_are_found(tmp_path):
    notebook = small_chapter()
    notebook.cells[4].source = (
        "An earlier chapter, {doc}`01_sgd`, and [the last chapter](01_sgd.ipynb) lead here. "
        "[The next chapter](03_preconditioning.ipynb) goes on. Later, {doc}`04_averaging` ends it. "
        "The notation is {doc}`elsewhere <../appendix/notation>`, two lines later."
    )
    assert problems(notebook, tmp_path) == []


@pytest.mark.parametrize(
    "name, text",
    [
        ("nqm/01_sgd", "last chapter"),
        ("nqm/01_sgd", "chapters before"),
        ("practice/05_another_optimizer", "next chapter"),
        ("practice/05_another_optimizer", "later part"),
    ],
)
def test_no_chapter_comes_before_the_first_or_after_the_last(name, text, tmp_path):
    notebook = small_chapter()
    notebook.cells[4].source += f" The {text} says why."
    message = f"order: speaks of {text!r}; _toc.yml has none"
    assert message in problems(notebook, tmp_path, name)
    assert problems(notebook, tmp_path) == []


def test_every_check_has_a_broken_chapter():
    reported = {message.split(":")[0] for _, message in BROKEN.values()}
    assert reported == {check.__name__ for check in anatomy.CHECKS}


@pytest.fixture(scope="module")
def wrong_notebook(tmp_path_factory):
    """A notebook that stores another result than it computes, and takes 300 MiB."""
    source = "import numpy as np\nfilled = np.ones(300 * 2**17)\nprint(2)"
    code = nbformat.v4.new_code_cell(source, execution_count=1)
    code.outputs = [nbformat.v4.new_output("stream", text="3\n")]
    path = tmp_path_factory.mktemp("chapters") / "nqm" / "01_wrong.ipynb"
    path.parent.mkdir()
    nbformat.write(nbformat.v4.new_notebook(metadata=book.METADATA, cells=[code]), path)
    return path


def test_a_wrong_stored_output_and_its_memory_are_reported(wrong_notebook, request):
    done = execute.run(wrong_notebook)
    (difference,) = replay.differences(wrong_notebook, done, request.session)
    assert "mismatch 'stdout'" in difference
    assert 300 * 2**20 < done.data["peak_bytes"] < 600 * 2**20


@pytest.fixture
def filled_notebook(tmp_path):
    """Return a function that stores a notebook of cells with texts that code fills in."""

    def write(*cells):
        path = tmp_path / "noise" / "01_filled.ipynb"
        path.parent.mkdir()
        code = [nbformat.v4.new_code_cell("gain = 2.345", metadata=cell) for cell in ({}, *cells)]
        nbformat.write(nbformat.v4.new_notebook(metadata=book.METADATA, cells=code), path)
        return path

    return write


FILLED = {
    r'At $\eta = 10^{{-2}}$ it is "{gain:.1f}"': r'At $\eta = 10^{-2}$ it is "2.3"',
    "{1e4 * gain:,.0f} steps, {'more' if gain > 1 else 'less'}": "23,450 steps, more",
    "{{eq}}`eq-a` gives {[gain, 1][0] * 2:.3g}": "{eq}`eq-a` gives 4.69",
}


def test_code_fills_in_captions_and_alternative_texts(filled_notebook):
    path = filled_notebook(*({"filled": {"caption": text, "alt": text}} for text in FILLED))
    refresh.refresh(path)
    layouts = [cell.metadata.mystnb for cell in nbformat.read(path, as_version=4).cells[1:]]
    assert [layout.figure.caption for layout in layouts] == list(FILLED.values())
    assert [layout.image.alt for layout in layouts] == list(FILLED.values())


def test_code_fills_in_claims_and_drops_those_that_are_gone(filled_notebook):
    claims = {f"claim-{i}": text for i, text in enumerate(FILLED)}
    path = filled_notebook(
        {"claims": claims, filled.FOUND: {"claim-0": "", "gone": "7"}},
        {filled.FOUND: {"gone": "7"}},
    )
    refresh.refresh(path)
    _, cell, other = (cell.metadata for cell in nbformat.read(path, as_version=4).cells)
    assert cell[filled.FOUND] == dict(zip(claims, FILLED.values(), strict=True))
    assert filled.FOUND not in other and "mystnb" not in cell


def test_a_stored_text_that_differs_from_code_is_reported(filled_notebook, request):
    filled = {"caption": "{gain:.1f} times", "alt": "A line at {gain:.1f}."}
    right = {"figure": {"caption": "2.3 times"}, "image": {"alt": "A line at 2.3."}}
    stored = [
        right,
        {**right, "figure": {"caption": "2.4 times"}},
        {**right, "image": {"alt": "A line at 2.4."}},
        {"figure": right["figure"]},
    ]
    path = filled_notebook(*({"filled": filled, "mystnb": layout} for layout in stored))
    assert replay.differences(path, execute.run(path), request.session) == [
        "cell 2: the stored caption is not what code gives, '2.3 times': run make refresh",
        "cell 3: the stored alt is not what code gives, 'A line at 2.3.': run make refresh",
        "cell 4: the stored alt is not what code gives, 'A line at 2.3.': run make refresh",
    ]


def test_a_stored_claim_that_differs_from_code_is_reported(filled_notebook, request):
    claims = {"a": "{gain:.1f} times", "b": "{gain:.0f}"}
    stored = [{"a": "2.3 times", "b": "2"}, {"a": "2.4 times", "b": "2"}, {"a": "2.3 times"}]
    path = filled_notebook(*({"claims": claims, filled.FOUND: found} for found in stored))
    assert replay.differences(path, execute.run(path), request.session) == [
        "cell 2: the stored claim a is not what code gives, '2.3 times': run make refresh",
        "cell 3: the stored claim b is not what code gives, '2': run make refresh",
    ]


@pytest.mark.parametrize(
    "key, text, error",
    [
        ("caption", "{other:.1f}", "NameError: name 'other' is not defined"),
        ("alt", "{gain:", "SyntaxError"),
        ("alt", "{1 / 0}", "ZeroDivisionError"),
        ("title", "{gain}", "allowed: caption, alt"),
    ],
)
def test_a_text_that_code_cannot_fill_in_is_reported(key, text, error, filled_notebook, capsys):
    path = filled_notebook({"filled": {key: text}})
    stored = path.read_text()
    assert refresh.main([path]) == "1 problems" and path.read_text() == stored
    report = f"noise/01_filled failed\n  ValueError: cell 1: filled {key}: {error}"
    assert capsys.readouterr().out.startswith(report)


def test_a_claim_that_code_cannot_fill_in_is_reported(filled_notebook, capsys):
    path = filled_notebook({"claims": {"small-gain": "{other:.1f}"}})
    assert refresh.main([path]) == "1 problems"
    assert "cell 1: claim small-gain: NameError: name 'other'" in capsys.readouterr().out
