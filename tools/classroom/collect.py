"""Find the submissions in a folder: notebooks, and zip files as course platforms make them."""

import io
import json
import re
import zipfile
import zlib
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from pathlib import Path, PurePosixPath
from typing import NamedTuple

LARGEST = 30 * 2**20  # bytes of a notebook; a larger one is not read
LARGEST_ZIP = 10 * LARGEST  # bytes of a student's zip file
MOST_IN_ZIP = 5000  # entries
DEEPEST_ZIP = 2  # a zip file of the course, with zip files of students

MOODLE = re.compile(r"(?P<name>.+?)_(?P<user>\d+)_assignsubmission_file_?")
CANVAS = re.compile(r"(?P<name>[^_]+)_(?P<late>LATE_)?(?P<user>\d+)_\d+_(?P<file>.+)")
COPY = re.compile(r"(?:[-_ ]?(?:Copy|copy)\d*|[-_ ]?\(\d+\))$")
VERSION = re.compile(r"-(?P<version>\d{1,2})$")  # of Canvas: elsewhere it may count students
UNREADABLE = (
    zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, OSError, RuntimeError, ValueError
)  # fmt: skip


@dataclass(frozen=True)
class Submission:
    """One student's notebook.

    Attributes
    ----------
    student : str
        Name and number from the course platform, else from the folder or the file.
    path : pathlib.PurePosixPath
        Where it was found, inside of zip files too.
    data : bytes
    time : datetime.datetime
        When it was last changed.
    notes : tuple of str
        What the instructor should know.
    """

    student: str
    path: PurePosixPath
    data: bytes
    time: datetime
    notes: tuple = field(default=())


def collect(folder):
    """Return one submission for each student, and a list of files that are none."""
    found, others = [], []
    for path in sorted(Path(folder).rglob("*")):
        name = PurePosixPath(path.relative_to(folder).as_posix())
        if path.is_symlink():
            others.append(f"{name}: a link, not followed")
        elif path.is_file() and not ignored(name):
            time = datetime.fromtimestamp(path.stat().st_mtime)
            _sort(name, path.stat().st_size, path.read_bytes, time, found, others)
    return newest(named(found)), others


def ignored(name):
    """Tell whether a file is one that programs leave behind."""
    return any(part.startswith(".") or part == "__MACOSX" for part in name.parts)


def _sort(name, size, read, time, found, others, depth=0):
    """Append a file to `found` if it is a notebook, or to `others`; look into a zip file."""
    suffix = name.suffix.lower()
    if suffix == ".ipynb":
        small = size <= LARGEST
        notes = () if small else (f"larger than {LARGEST // 2**20} MB, not read",)
        found.append(Submission("", name, read() if small else b"", time, notes))
    elif suffix == ".zip" and depth and size > LARGEST_ZIP:
        others.append(f"{name}: too large")
    elif suffix == ".zip" and depth < DEEPEST_ZIP:
        inside = []
        try:
            _unpack(name, read(), inside, others, depth)
        except UNREADABLE as error:
            others.append(f"{name}: a zip file that cannot be read ({error})")
        found += _owned(name, inside)
    else:
        others.append(f"{name}: no notebook")


def _unpack(name, data, found, others, depth):
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = [entry for entry in archive.infolist() if not entry.is_dir()]
        for entry in entries[:MOST_IN_ZIP]:
            inner = PurePosixPath(*[p for p in PurePosixPath(entry.filename).parts if p != "/"])
            if ignored(inner) or ".." in inner.parts:
                continue
            read = partial(archive.read, entry)
            try:
                _sort(inner, entry.file_size, read, _changed(entry), found, others, depth + 1)
            except UNREADABLE as error:
                others.append(f"{name / inner}: cannot be read ({error})")


def _changed(entry):
    """Return when an entry of a zip file was last changed; the least time if that is no date."""
    try:
        return datetime(*entry.date_time)
    except ValueError:
        return datetime.min


def _owned(name, inside):
    """Return a zip file's notebooks: of its owner if there is one, else of whom they name."""
    alone = len(inside) == 1
    return [replace(each, path=name / each.path) for each in inside] if alone else inside


def named(submissions):
    """Return the submissions with their students' names.

    Notebooks of one owner under different names stay apart: a folder may be a group's.
    """
    owners = [owner(each.path) for each in submissions]
    stems = {}
    for student, stem, _ in owners:
        stems.setdefault(student, set()).add(stem)
    result = []
    for (student, stem, late), each in zip(owners, submissions):
        name = f"{student}/{stem}" if len(stems[student]) > 1 else student
        notes = each.notes + (("late",) if late else ())
        result.append(replace(each, student=name, notes=notes))
    return result


def owner(path):
    """Return the student that a path names, the notebook's name without copy marks, and if late."""
    stem = COPY.sub("", path.stem)
    for part in path.parts[:-1]:
        if match := MOODLE.fullmatch(part):
            return f"{match['name']} ({match['user']})", stem, False
    if match := canvas(path):
        stem = COPY.sub("", VERSION.sub("", Path(match["file"]).stem))
        return f"{match['name']} ({match['user']})", stem, bool(match["late"])
    if len(path.parts) > 1:
        return Path(path.parts[0]).stem, stem, False
    return stem, stem, False


def canvas(path):
    """Return the match of the innermost part of a path that Canvas has named, or None."""
    return next(filter(None, map(CANVAS.fullmatch, reversed(path.parts))), None)


def newest(submissions):
    """Return the newest submission of each student, noting that there were others."""
    groups = {}
    for each in submissions:
        groups.setdefault(each.student, []).append(each)
    chosen = []
    for group in groups.values():
        last = max(group, key=lambda each: (version(each.path), each.time, each.path))
        more = (f"the newest of {len(group)} files",) if len(group) > 1 else ()
        chosen.append(replace(last, notes=last.notes + more))
    return noting_equals(sorted(chosen, key=lambda each: each.student))


def version(path):
    """Return the number that Canvas adds to the name of a later file, else 0."""
    match = canvas(path)
    found = match and VERSION.search(Path(match["file"]).stem)
    return int(found["version"]) if found else 0


def noting_equals(submissions):
    """Note which students handed in the same bytes."""
    first, result = {}, []
    for each in submissions:
        other = first.setdefault(each.data, each.student)
        same = (f"the same file as {other}",) if other != each.student and each.data else ()
        result.append(replace(each, notes=each.notes + same))
    return result


class Cell(NamedTuple):
    """One cell of a submission: whatever else it holds is of no use here."""

    cell_type: str
    source: str


class Notebook(NamedTuple):
    """What a submission's file holds.

    ``assignment`` is the name that it says, or an empty text; ``wrong`` says why there are no
    cells, if there is a reason.
    """

    cells: list
    assignment: str = ""
    wrong: str = ""


def read(data):
    """Return the notebook in a file, which may be broken or hostile."""
    if not data.strip():
        return Notebook([], wrong="the file is empty")
    try:
        found = notebook(data.decode("utf-8-sig"))
        cells = [Cell(str(cell["cell_type"]), text(cell["source"])) for cell in found["cells"]]
    except Exception as error:
        return Notebook([], wrong=f"no notebook that can be read: {type(error).__name__}")
    return Notebook(cells, assignment(found))


def notebook(text):
    """Return the notebook in a file's text, in the present format."""
    found = json.loads(text)
    if found["nbformat"] == 4:
        return found
    import nbformat  # takes longer than grading some submissions

    return nbformat.reads(text, as_version=4)


def text(source):
    """Return a cell's text, which may be stored as a list of lines."""
    return "".join(map(str, source)) if isinstance(source, list) else str(source)


def assignment(notebook):
    """Return the name of the assignment in a notebook's metadata, or an empty text."""
    try:
        return str(notebook["metadata"]["otter"]["assignment_name"])
    except (KeyError, TypeError, IndexError):
        return ""
