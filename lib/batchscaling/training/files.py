"""Files that are complete whenever they exist."""

import codecs
import json
import os
import uuid
from contextlib import contextmanager


@contextmanager
def complete_file(path):
    """Yield a binary file beside `path` to write to; at the end, it gets this name in one step.

    After an error there is none, and what had the name before keeps it.

    Parameters
    ----------
    path : pathlib.Path
    """
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with part.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def write_record(path, record):
    """Write a dict to a file of JSON that is complete whenever it exists."""
    with complete_file(path) as file:
        json.dump(record, codecs.getwriter("utf-8")(file), allow_nan=False)
        file.write(b"\n")
