"""What the other tools know about the book: where it is, which chapters it has, its address."""

import re
from pathlib import Path

import nbformat
import yaml

ROOT = Path(__file__).resolve().parent.parent

# The metadata of every chapter: no versions, timings or widget models of the machine that ran it.
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


TORCH = re.compile(
    r"^\s*(?:from|import) (?:torch|batchscaling\.(?:training|curvature|practice))\b", re.M
)


def chapters(root=ROOT):
    """Return the paths of all notebooks in the table of contents, in its order."""
    toc = yaml.safe_load((root / "_toc.yml").read_text())
    files = (root / f"{entry['file']}.ipynb" for part in toc["parts"] for entry in part["chapters"])
    return [file for file in files if file.exists()]


def assignments(root=ROOT):
    """Return the paths of the assignments' master notebooks."""
    return sorted((root / "chapters" / "assignments").glob("*.ipynb"))


def notebooks(root=ROOT):
    """Return the paths of all notebooks that are stored with outputs."""
    return chapters(root) + assignments(root)


def name(path):
    """Return the short name of the chapter at `path`, such as ``"nqm/01_sgd"``."""
    return f"{path.parent.name}/{path.stem}"


def imports_torch(source):
    """Return whether a cell's code imports torch, by itself or through the library."""
    return TORCH.search(source) is not None


def needs_torch(path):
    """Return whether a chapter's code imports torch: if not, it runs in the small Binder image."""
    cells = nbformat.read(path, as_version=4).cells
    return any(imports_torch(cell.source) for cell in cells if cell.cell_type == "code")


def repository(root=ROOT):
    """Return the repository's address, such as ``"https://github.com/owner/name"``."""
    return yaml.safe_load((root / "_config.yml").read_text())["repository"]["url"]
