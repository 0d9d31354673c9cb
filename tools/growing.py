"""Files of measurements that grow by a cell at a time, and go on where they ended."""

import json
import time

from batchscaling import _validation as check
from batchscaling.training.files import write_record
from batchscaling.training.provenance import provenance


def fill(file, part, cells, measure, command, **about):
    """Measure the cells that a file does not hold, and write the file after each.

    Parameters
    ----------
    file : pathlib.Path
        Of JSON.
    part : str
        The name of the list in it that holds the cells.
    cells : iterable of dict
        What identifies each, by values that JSON gives back.
    measure : callable
        ``measure(**cell)`` returns a dict of what is found.
    command : str
        That makes the file, for its provenance, which has the seconds of all calls.
    **about
        What else the file holds.

    Raises
    ------
    ValueError
        If the file holds something else.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    for cell in cells:
        if _holds(_read(file, part, about)[part], cell):
            continue
        began, found = time.perf_counter(), measure(**cell)
        stored = _read(file, part, about)  # another process may have added cells
        if _holds(stored[part], cell):
            continue
        seconds = stored["provenance"]["seconds"] + time.perf_counter() - began
        origin = provenance(command, "cpu", seconds)
        write_record(file, {"provenance": origin, **about, part: [*stored[part], cell | found]})
        print(f"{seconds:6.0f} s", json.dumps(cell | found), flush=True)


def _read(file, part, about):
    """Return what a file holds; one of other settings is refused."""
    if not file.exists():
        return {part: [], "provenance": {"seconds": 0}}
    stored = json.loads(file.read_text("utf-8"))
    held = {name: value for name, value in stored.items() if name not in (part, "provenance")}
    if held != json.loads(json.dumps(about)):
        check.reject("file", str(file), f"one of {about}; it is of {held}")
    return stored


def _holds(cells, cell):
    return any(cell.items() <= done.items() for done in cells)


def short(value, digits=6):
    """Return a number of so many digits; None for what is no finite number."""
    finite = value is not None and abs(value) < float("inf")
    return float(f"{value:.{digits}g}") if finite else None
