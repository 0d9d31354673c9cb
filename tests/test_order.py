"""The order of the book: what a link calls earlier or next is so, and nothing is used too early."""

import re

import nbformat
import pytest

from tools import book

ORDER = book.chapters()
LINK = re.compile(r"\[([^\]]+)\]\(([^)\s]+)\.ipynb\)|\{doc\}`([^`<]+?)\s*<([^`>]+)>`")
WHERE = {
    r"\b(?:previous|last) chapter": lambda here, there: there == here - 1,
    r"\bnext chapter": lambda here, there: there == here + 1,
    r"\bearlier chapter": lambda here, there: there < here,
    r"\blater chapter": lambda here, there: there > here,
}


def links(text):
    """Yield the text and the target of every link to a chapter, without the target's ending."""
    for match in LINK.finditer(text):
        yield (match[1], match[2]) if match[1] else (match[3], match[4])


def misplaced(text, path, order):
    """Yield the links of a chapter's text that say where their target stands, and are wrong."""
    for label, target in links(text):
        there = (path.parent / f"{target}.ipynb").resolve()
        for words, right in WHERE.items():
            if re.search(words, label) and not right(order.index(path), order.index(there)):
                yield f"{path.stem}: [{label}]({target})"


def markdown(path):
    cells = nbformat.read(path, as_version=4).cells
    return "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")


@pytest.mark.parametrize("path", [pytest.param(path, id=path.stem) for path in ORDER])
def test_links_say_where_their_chapters_stand(path):
    assert list(misplaced(markdown(path), path, ORDER)) == []


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("[the previous chapter](02_momentum.ipynb)", 0),
        ("[the previous chapter](01_sgd.ipynb)", 1),
        ("{doc}`the next chapter <04_averaging>`", 0),
        ("{doc}`the next chapter <02_momentum>`", 1),
        ("[an earlier chapter](../noise/01_thermometer.ipynb)", 1),
        ("{doc}`a later chapter <../noise/01_thermometer>`", 0),
        ("[a chapter](../noise/01_thermometer.ipynb)", 0),
    ],
)
def test_a_misplaced_link_is_found(text, wrong):
    path = book.ROOT / "chapters" / "nqm" / "03_preconditioning.ipynb"
    assert len(list(misplaced(text, path, ORDER))) == wrong


def test_networks_are_introduced_before_other_parts_train_them():
    """Trials, `train`, fresh seeds and sweeps are explained in the part on real networks."""
    folders = list(dict.fromkeys(path.parent.name for path in ORDER))
    users = [
        path.parent.name
        for path in ORDER
        if any(
            "from batchscaling.training import" in cell.source
            for cell in nbformat.read(path, as_version=4).cells
            if cell.cell_type == "code"
        )
    ]
    assert users[0] == "networks" and folders.index("networks") < folders.index("noise")
