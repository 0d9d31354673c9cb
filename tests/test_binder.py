"""Where Binder is offered: on the pages of chapters that need no torch."""

import ast
import subprocess
import sys
from types import SimpleNamespace

import nbformat
import pytest
from test_package import NO_TORCH

from tools import book
from tools.site_fixes import drop_binder

OFFERED = {book.name(path): not book.needs_torch(path) for path in book.chapters()}


def buttons(page):
    """Return the texts of the launch buttons that a page keeps."""
    group = {"label": "launch-buttons", "buttons": [{"text": t} for t in ("Binder", "Colab")]}
    app = SimpleNamespace(srcdir=book.ROOT)
    drop_binder(app, page, "page.html", {"header_buttons": [group]}, None)
    return [button["text"] for button in group["buttons"]]


@pytest.mark.parametrize("name", OFFERED)
def test_a_page_offers_binder_if_its_chapter_needs_no_torch(name):
    assert buttons(f"chapters/{name}") == (["Binder", "Colab"] if OFFERED[name] else ["Colab"])


def test_chapters_on_the_model_and_the_first_on_noise_need_no_torch():
    assert OFFERED["noise/01_thermometer"] and OFFERED["noise/02_evidence"]
    assert all(OFFERED[name] for name in OFFERED if name.startswith("nqm/"))
    assert not any(OFFERED[name] for name in OFFERED if name.startswith("networks/"))
    assert buttons("chapters/intro") == ["Colab"]


@pytest.mark.parametrize(
    "source",
    ["import torch", "    from torch import nn", "from batchscaling.training.data import mnist"],
)
def test_torch_is_found_however_it_comes(source):
    assert book.imports_torch(f"import numpy\n{source}\n")
    assert not book.imports_torch(
        "# import torch\nimport torchless\nfrom batchscaling.noise import x"
    )


def test_what_these_chapters_import_is_there_without_torch():
    lines = [NO_TORCH]
    for path in book.chapters():
        if OFFERED[book.name(path)]:
            code = [c.source for c in nbformat.read(path, 4).cells if c.cell_type == "code"]
            trees = (ast.parse(source) for source in code if "%pip" not in source)
            nodes = (node for tree in trees for node in tree.body)
            found = [node for node in nodes if isinstance(node, ast.Import | ast.ImportFrom)]
            lines += [ast.unparse(node) for node in found]
    assert len(lines) > 50
    subprocess.run([sys.executable, "-c", "\n".join(lines)], check=True, timeout=120)
