"""What every chapter must have; CONTRIBUTING.md lists it in words.

    python -m tools.anatomy [chapter.ipynb ...]

Without a name, all chapters and the masters of the assignments, for which less is asked.

Each check takes a `Chapter` and yields one line for each problem it finds.
"""

import ast
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import nbformat
from pybtex.database import parse_file

from tools import book
from tools.setup_cell import setup_cell

LONGEST_CELL = 20  # lines
MEDIAN_CELL = 8  # lines; about 6 is the aim
SIGNIFICANT_DIGITS = 4
SHORTEST_ALT = 20  # characters
# Chapters, by the start of their names, that a reader runs without torch.
WITHOUT_TORCH = ("nqm/", "extrapolation/01", "extrapolation/02", "extrapolation/03")

BOX = re.compile(
    r"(`{3,}|:{3,})\{admonition\} What you will learn\n:class: note chapter-box\n(?P<body>.*?)\1",
    re.S,
)
BOX_LAST_LINE = re.compile(
    r"^Reading: about \d+ minutes? · Running: about (?P<seconds>\d+) seconds? · You need: .+$", re.M
)
EXERCISE = re.compile(r"^`{3,}\{exercise\}[^\n]*\n:label: (?P<label>\S+)$", re.M)
SOLUTION = re.compile(r"^`{3,}\{solution-start\} (?P<label>\S+)\n(?P<options>(?::.*\n)*)", re.M)
SOLUTION_END = re.compile(r"^`{3,}\{solution-end\}", re.M)
LABELLED_EQUATION = re.compile(r"\$\$\s*\([\w:-]+\)|\\label\{|\{math\}\n:label:", re.M)
CITATION = re.compile(r"\{cite(?::\w+)?\}`([^`]+)`")
LINK = re.compile(r"\{doc\}`(?:[^`<]*<)?(?P<doc>[^`<>]+)>?`|\[[^\]]+\]\((?P<file>[^)\s#]+\.ipynb)")
# The words of an order, as distances in the table of contents.
EARLIER, LATER = range(-1000, 0), range(1, 1000)
ORDER = {
    r"(?:earlier|previously)": EARLIER,
    r"later": LATER,
    r"(?:previous|last) chapter": range(-1, 0),
    r"next chapter": range(1, 2),
}
ORDER_WITHOUT_LINK = {
    r"(?:earlier|previous|last) (?:chapter|part)s?|(?:chapter|part)s before": EARLIER,
    r"(?:later|next) (?:chapter|part)s?": LATER,
}
NEAR = 3  # words between a link and the word of an order that belongs to it
DECIMAL = re.compile(r"(?<![\w.])\d+\.\d+(?:e[+-]?\d+)?(?![\w.])", re.I)


@dataclass(frozen=True)
class Chapter:
    """A notebook and its name, such as ``"nqm/01_sgd"``."""

    notebook: nbformat.NotebookNode
    name: str

    @property
    def folder(self):
        """The folder in `chapters/` that it belongs to."""
        return self.name.split("/")[0]

    @property
    def code(self):
        """Numbered code cells."""
        return [(i, cell) for i, cell in enumerate(self.notebook.cells) if cell.cell_type == "code"]

    @property
    def markdown(self):
        """All markdown as one text."""
        return "\n\n".join(c.source for c in self.notebook.cells if c.cell_type == "markdown")


def opening(chapter):
    """Title, question and box, all in the first cell."""
    first = chapter.notebook.cells[0]
    if first.cell_type != "markdown" or not re.match(r"# \S", first.source):
        yield "cell 0: must be markdown that begins with '# Title'"
        return
    box = BOX.search(first.source)
    if not box:
        yield "cell 0: has no box 'What you will learn' of class 'note chapter-box'"
        return
    question = first.source[: box.start()].partition("\n")[2]
    if "?" not in question:
        yield "cell 0: no question between the title and the box"
    if len(re.findall(r"^- ", box["body"], re.M)) < 2:
        yield "cell 0: the box lists fewer than two things to learn"
    if not BOX_LAST_LINE.search(box["body"]):
        yield "cell 0: the box lacks 'Reading: about … · Running: about … · You need: …'"


def set_up(chapter):
    """The set-up cell is the second cell, with the template's text and hidden input."""
    cells = chapter.notebook.cells
    expected = setup_cell()
    if len(cells) < 2 or cells[1].cell_type != "code" or cells[1].source != expected:
        yield "cell 1: is not the set-up cell that `python -m tools.setup_cell` prints"
    elif cells[1].metadata.get("tags") != ["hide-input"]:
        yield "cell 1: the set-up cell's only tag must be hide-input"
    for i, cell in chapter.code:
        if i != 1 and ("google.colab" in cell.source or "%pip" in cell.source):
            yield f"cell {i}: installs packages; only the set-up cell does"


def code_lines(chapter):
    """Return the number of lines of each code cell but the set-up cell, by the cell's number."""
    shown = [(i, cell) for i, cell in chapter.code if cell.source != setup_cell()]
    return {i: len(cell.source.splitlines()) for i, cell in shown}


def lengths(chapter):
    """Cells are short; longer code belongs in the library."""
    for i, lines in code_lines(chapter).items():
        if lines > LONGEST_CELL:
            yield f"cell {i}: {lines} lines; allowed: {LONGEST_CELL}"


def typical_length(chapter):
    """Most cells are much shorter."""
    counts = code_lines(chapter).values()
    if counts and median(counts) > MEDIAN_CELL:
        yield f"median of {median(counts):g} lines a code cell; allowed: {MEDIAN_CELL}"


def executed(chapter):
    """Every code cell has run, once and in order, without errors or warnings."""
    counts = [cell.execution_count for _, cell in chapter.code]
    if counts != list(range(1, len(counts) + 1)):
        yield f"code cells have not run from top to bottom: execution counts {counts}"
    for i, cell in chapter.code:
        for output in cell.outputs:
            if output.output_type == "error":
                yield f"cell {i}: ends in an error, {output.ename}"
            if output.get("name") == "stderr":
                yield f"cell {i}: writes to stderr: {output.text.strip()[:60]!r}"


def figures(chapter):
    """A figure is a PNG with caption, name and alternative text; a checked sentence follows."""
    cells = chapter.notebook.cells
    names = []
    for i, cell in chapter.code:
        kinds = {kind for output in cell.outputs for kind in output.get("data", {})}
        if "image/svg+xml" in kinds:
            yield f"cell {i}: figure is SVG; allowed: PNG"
        if "image/png" not in kinds:
            continue
        layout = cell.metadata.get("mystnb", {})
        figure, image = layout.get("figure", {}), layout.get("image", {})
        names.append(figure.get("name", ""))
        if not figure.get("caption", "").strip():
            yield f"cell {i}: figure has no caption"
        if not names[-1].startswith("fig-"):
            yield f"cell {i}: figure's name is {names[-1]!r}; allowed: fig-…"
        if len(image.get("alt", "").strip()) < SHORTEST_ALT:
            yield f"cell {i}: figure has no alternative text of {SHORTEST_ALT} characters or more"
        after = cells[i + 1 : i + 3]
        if [cell.cell_type for cell in after] != ["markdown", "code"]:
            yield f"cell {i}: figure is not followed by one markdown cell and one code cell"
        elif not asserts(after[1].source):
            yield f"cell {i + 2}: follows a figure but asserts nothing"
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield f"figure name {name!r} is used {names.count(name)} times"
    if not names:
        yield "has no figure"


def asserts(source):
    """Tell whether Python code has an assert statement that can fail."""
    found = [node.test for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Assert)]
    return any(not isinstance(test, ast.Constant) for test in found)


def sections(chapter):
    """The last three sections are Exercises, Summary and References."""
    titles = re.findall(r"^## (.+)$", chapter.markdown, re.M)
    if titles[-3:] != ["Exercises", "Summary", "References"]:
        yield f"last three sections are {titles[-3:]}; allowed: Exercises, Summary, References"
        return
    body = re.split(r"^## .+$", chapter.markdown, flags=re.M)
    if len(re.findall(r"^(?:- |\d+\. )", body[-2], re.M)) < 3:
        yield "the summary lists fewer than three claims"
    if "{bibliography}\n:filter: docname in docnames\n" not in body[-1]:
        yield "the references lack a {bibliography} filtered by 'docname in docnames'"


def exercises(chapter):
    """Every exercise is followed by its own solution in a dropdown, before the next exercise."""
    marks = sorted(
        (match.start(), kind, match)
        for kind, form in (("exercise", EXERCISE), ("start", SOLUTION), ("end", SOLUTION_END))
        for match in form.finditer(chapter.markdown)
    )
    if not marks:
        yield "has no exercise"
    wanted, label = "exercise", None
    for _, kind, match in marks:
        if kind != wanted:
            yield f"exercise {label}: found {kind} where {wanted} of its solution is due"
            return
        if kind == "exercise":
            label = match["label"]
        elif kind == "start" and match["label"] != label:
            yield f"exercise {label}: followed by the solution of {match['label']}"
        elif kind == "start" and ":class: dropdown" not in match["options"]:
            yield f"exercise {label}: its solution is not a dropdown"
        wanted = {"exercise": "start", "start": "end", "end": "exercise"}[kind]
    if wanted != "exercise":
        yield f"exercise {label}: its solution does not {wanted}"


def mathematics(chapter):
    """Equations that are spoken of carry a number."""
    if not LABELLED_EQUATION.search(chapter.markdown):
        yield "has no numbered equation"


def explorer(chapter):
    """At least one figure has knobs."""
    if not any("batchscaling.widgets" in cell.source for _, cell in chapter.code):
        yield "uses nothing from batchscaling.widgets"


def citations(chapter):
    """Every cited key is in references.bib."""
    known = parse_file(book.ROOT / "chapters" / "references.bib").entries
    keys = {key.strip() for keys in CITATION.findall(chapter.markdown) for key in keys.split(",")}
    for key in sorted(keys - set(known)):
        yield f"cites {key!r}, which is not in references.bib"
    if not keys:
        yield "cites nothing"


def order(chapter):
    """Chapters that the text calls earlier, previous, next or later are so."""
    places = [book.name(path) for path in book.chapters()]
    if chapter.name not in places:
        return
    place = places.index(chapter.name)
    for words, link in links(chapter.markdown):
        target = (link["doc"] or link["file"]).removesuffix(".ipynb")
        target = target.removeprefix("../") if "/" in target else f"{chapter.folder}/{target}"
        for word, distances in ORDER.items():
            found = re.search(rf"\b{word}\b", words, re.I)
            if found and target in places and places.index(target) - place not in distances:
                yield f"calls {target} {found[0]!r}; _toc.yml has another order"
    for word, distances in ORDER_WITHOUT_LINK.items():
        found = re.search(rf"\b(?:{word})\b", chapter.markdown, re.I)
        if found and not any(i - place in distances for i in range(len(places))):
            yield f"speaks of {found[0]!r}; _toc.yml has none"


def links(text):
    """Yield each link to a chapter, with the words of its sentence that are near it."""
    for sentence in re.split(r"(?<=[.?!:;])\s+|\n\n", text):
        for link in LINK.finditer(sentence):
            before = sentence[: link.start()].split()[-NEAR:]
            after = sentence[link.end() :].split()[:NEAR]
            yield " ".join([*before, link[0], *after]), link


def metadata(chapter):
    """Metadata names the kernel and nothing else; outputs hold no widget model of one run."""
    if chapter.notebook.metadata != book.METADATA:
        yield f"metadata is not {book.METADATA}; run `make refresh`"
    for i, cell in enumerate(chapter.notebook.cells):
        if "execution" in cell.metadata:
            yield f"cell {i}: metadata holds timings; run `make refresh`"
    ids = [cell.get("id") for cell in chapter.notebook.cells]
    if None in ids or len(set(ids)) < len(ids):
        yield "cell ids are missing or repeated; run `make refresh`"


def torch_free(chapter):
    """Chapters that are to need no torch import none."""
    if not chapter.name.startswith(WITHOUT_TORCH):
        return
    for i, cell in chapter.code:
        if book.imports_torch(cell.source):
            yield f"cell {i}: imports torch; {chapter.name} must run without it"


def printed_numbers(chapter):
    """Strictly compared chapters print no more digits than every machine agrees on."""
    if not chapter.name.startswith(WITHOUT_TORCH):
        return
    for i, cell in chapter.code:
        texts = [o.get("text") or o.get("data", {}).get("text/plain", "") for o in cell.outputs]
        for number in DECIMAL.findall("\n".join(texts)):
            digits = re.split("e", number, flags=re.I)[0].replace(".", "").lstrip("0")
            if len(digits) > SIGNIFICANT_DIGITS:
                yield f"cell {i}: prints {number}; allowed: {SIGNIFICANT_DIGITS} significant digits"


CHECKS = (
    opening,
    set_up,
    lengths,
    typical_length,
    executed,
    figures,
    sections,
    exercises,
    mathematics,
    explorer,
    citations,
    order,
    metadata,
    torch_free,
    printed_numbers,
)
MASTER_CHECKS = (lengths, executed, metadata)  # what holds for an assignment's master, too


def problems(path):
    """Return all problems of the chapter or master at `path`, one line each."""
    chapter = Chapter(nbformat.read(path, as_version=4), book.name(path))
    checks = MASTER_CHECKS if chapter.folder == "assignments" else CHECKS
    return [f"{check.__name__}: {problem}" for check in checks for problem in check(chapter)]


if __name__ == "__main__":
    paths = [Path(name).resolve() for name in sys.argv[1:]] or book.notebooks()
    lines = [f"{path.relative_to(book.ROOT)}: {line}" for path in paths for line in problems(path)]
    print("\n".join(lines) or "no problem")
    sys.exit(bool(lines))
