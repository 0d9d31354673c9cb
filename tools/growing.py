"""Files of measurements that grow by a cell at a time, and go on where they ended."""

import json
import time

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
    """
    stored = json.loads(file.read_text("utf-8")) if file.exists() else {part: []}
    before, began = stored.get("provenance", {}).get("seconds", 0), time.perf_counter()
    file.parent.mkdir(parents=True, exist_ok=True)
    for cell in cells:
        if any(cell.items() <= done.items() for done in stored[part]):
            continue
        stored[part].append(cell | measure(**cell))
        seconds = before + time.perf_counter() - began
        origin = provenance(command, "cpu", seconds)
        write_record(file, {"provenance": origin, **about, part: stored[part]})
        print(f"{seconds:6.0f} s", json.dumps(stored[part][-1]), flush=True)


def short(value, digits=6):
    """Return a number of so many digits; None for what is no finite number."""
    finite = value is not None and abs(value) < float("inf")
    return float(f"{value:.{digits}g}") if finite else None
