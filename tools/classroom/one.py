"""Grade one notebook in a process of its own; `tools.classroom.grade` starts it.

python -m tools.classroom.one ASSIGNMENT NOTEBOOK RESULT [--unsandboxed]
"""

import json
import sys
from pathlib import Path

from tools.classroom.collect import read
from tools.classroom.grading import Assignment, grade
from tools.classroom.sandbox import Limits


def main(assignment, notebook, result, isolated):
    """Write what the file `notebook` gets to the file `result`."""
    found = read(Path(notebook).read_bytes())
    graded = grade(found, Assignment.read(assignment), Limits(), isolated)
    text = json.dumps({**graded, "wrong": found.wrong})
    part = Path(result).with_suffix(".part")
    part.write_text(text)
    part.rename(result)


if __name__ == "__main__":
    main(*sys.argv[1:4], isolated="--unsandboxed" not in sys.argv)
