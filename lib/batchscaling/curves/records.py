"""Files of results: one record of JSON for each cell of a sweep."""

import json
from importlib.resources import files
from pathlib import Path

from batchscaling import _validation as check


def read(path):
    """Return the record of a cell's file, a dict.

    Raises
    ------
    ValueError
        If the file holds something else.
    """
    try:
        record = json.loads(path.read_bytes())  # in any encoding of Unicode
    except (OSError, RecursionError, ValueError) as error:
        not_a_record(path, f" ({error})")
    if not isinstance(record, dict) or "cell" not in record:
        not_a_record(path)
    return record


def file_name(task, optimizer, batch_size):
    """Return the name of a cell's file."""
    return f"{task}-{optimizer}-{batch_size:05d}.json"


def measured():
    """Return the folder of the book's own sweeps: in the installed package, else in a checkout.

    Other measured results are in folders beside it, as in the repository's ``data``.
    """
    installed = files("batchscaling") / "measured"
    checkout = Path(__file__).resolve().parents[3] / "data"
    return (installed if installed.is_dir() else checkout) / "sweeps"


def not_a_record(path, reason=""):
    """Raise the error that a file is no record."""
    check.reject("file", str(path), f"the result of a cell of a sweep{reason}")
