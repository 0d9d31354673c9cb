"""Execute chapters in place and store them in one form, so that a second run changes nothing.

    python -m tools.refresh [chapter.ipynb ...]

Without a name, all chapters in the table of contents and the masters of the assignments.
"""

import os
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from traitlets.config import Config

from tools import anatomy, book, filled, parallel
from tools.setup_cell import setup_cell

WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"  # holds a random model id
TIMEOUT = 600  # seconds a cell, for slow machines


def execute(notebook, folder):
    """Run all cells of `notebook` in `folder`, in place, and fill in captions from code."""
    with tempfile.TemporaryDirectory(prefix="kernel-") as sockets:
        client = NotebookClient(
            notebook,
            timeout=TIMEOUT,
            kernel_name="python3",
            coalesce_streams=True,
            record_timing=False,
            config=transport(sockets),
            resources={"metadata": {"path": str(folder)}},
        )
        client.on_cell_executed = lambda **executed: filled.fill(client.kc, **executed)
        client.execute()


def transport(folder):
    """Return how to talk to a kernel: by files in `folder`, where the system has such.

    Kernels that start at the same moment can take each other's ports.
    """
    config = Config()
    if os.name == "posix":
        config.ConnectionFileMixin = Config(transport="ipc", ip=f"{folder}/kernel")
    return config


def normalise(notebook):
    """Bring metadata, set-up cell and outputs of `notebook` to the book's form, in place."""
    notebook.metadata = nbformat.from_dict(book.METADATA)
    notebook.nbformat_minor = 5
    for cell in notebook.cells:
        for key in ("execution", "collapsed", "scrolled"):
            cell.metadata.pop(key, None)
        for output in cell.get("outputs", []):
            output.get("data", {}).pop(WIDGET_VIEW, None)
    setup = next(cell for cell in notebook.cells if cell.cell_type == "code")
    setup.source = setup_cell()
    setup.metadata = nbformat.from_dict({"tags": ["hide-input"]})
    return nbformat.validator.normalize(notebook)[1]


def refresh(path):
    """Execute and normalise the chapter at `path`."""
    notebook = normalise(nbformat.read(path, as_version=4))
    execute(notebook, path.parent)
    nbformat.write(normalise(notebook), path)


def main(paths):
    """Refresh chapters and print their problems; return the exit status."""
    found = 0
    for path, done in parallel.finished(refresh, paths, parallel.cores()):
        error = done.exception()
        print(f"{book.name(path)} {'failed' if error else 'refreshed'}", flush=True)
        for problem in [f"{type(error).__name__}: {error}"] if error else anatomy.problems(path):
            found += 1
            print(f"  {problem}")
    return f"{found} problems" if found else 0


if __name__ == "__main__":
    sys.exit(main([Path(name).resolve() for name in sys.argv[1:]] or book.notebooks()))
