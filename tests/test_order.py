"""The order of the book: nothing is used before it is introduced."""

import nbformat

from tools import book


def trains(path):
    """Whether a chapter imports from `batchscaling.training`."""
    cells = nbformat.read(path, as_version=4).cells
    return any(
        "from batchscaling.training" in cell.source for cell in cells if cell.cell_type == "code"
    )


def test_networks_are_introduced_before_other_parts_train_them():
    """Trials, `train`, fresh seeds and sweeps are explained in the part on real networks."""
    parts = list(dict.fromkeys(path.parent.name for path in book.chapters()))
    users = [path.parent.name for path in book.chapters() if trains(path)]
    assert users[0] == "networks" and "noise" in users
    assert parts.index("networks") < parts.index("noise")
