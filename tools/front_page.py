"""What the front page takes from the chapters: its picture and the answer at a glance.

`python -m tools.claims` writes both.
"""

import base64

import nbformat

from tools import book

CHAPTER, CELL = "nqm/05_critical_batch_size", "nqm05-13"  # whose picture it shows
PICTURE = book.ROOT / "chapters" / "_static" / "steps.png"
GLANCE = book.ROOT / "chapters" / "glance.md"

LINES = """\
- **The batch.** Four times as large, in the model: {perfect-scaling}.
  Where one regime turns into the other is the critical batch size ({{doc}}`nqm/01_sgd`).
- **Momentum** helps beyond it: {momentum-large} at $B = 2^{{20}}$.
  Before it, {momentum-small} of the steps ({{doc}}`nqm/02_momentum`).
- **Averaging and schedules** help before it.
  At $B = 1$ averaging gives {average-small}, less where a preconditioner helps already.
  Beyond it their gain fades ({{doc}}`nqm/04_averaging`, {{doc}}`nqm/06_schedules`).
- **Preconditioning** helps at every batch size, and far more beyond it: {power-small} at $B = 16$,
  and {power-large} at $B = 2^{{20}}$ ({{doc}}`nqm/03_preconditioning`).
- **Small networks** agree in direction, not in size.
  On digits, at the largest batch: {model-agrees} ({{doc}}`networks/03_measured_curves`).
"""


def glance(found):
    """Return the answer at a glance, with the numbers of claims in place of their ids."""
    return LINES.format_map({key: number for key, _, number in found})


def picture():
    """Return the chapter's picture as the bytes of a PNG file."""
    notebook = nbformat.read(book.ROOT / "chapters" / f"{CHAPTER}.ipynb", as_version=4)
    (cell,) = [cell for cell in notebook.cells if cell.id == CELL]
    return base64.b64decode(cell.outputs[0].data["image/png"])
