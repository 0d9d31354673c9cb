"""Grade a class.

    python -m tools.classroom.grade FOLDER [--assignment NAME] [--out FOLDER] [--unsandboxed]

FOLDER holds notebooks, folders of notebooks, or zip files of Canvas or Moodle. The results go to
`_build/grades/NAME`: `grades.csv`, one HTML report for each student in `reports`, and the notebooks
in `notebooks`. Stopped, it goes on where it was: what is graded already is not graded again.
"""

import argparse
import hashlib
import json
import re
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from tqdm import tqdm

from tools import book, parallel
from tools.classroom import generate, report, sandbox
from tools.classroom.collect import collect, read
from tools.classroom.grading import Assignment

PATIENCE = 900  # seconds for one submission, tests included
HERE = Path(__file__).resolve().parent


def slug(submission):
    """Return a file name for a student, different for different students."""
    code = hashlib.sha256(submission.student.encode(errors="replace")).hexdigest()[:8]
    return f"{re.sub(r'[^A-Za-z0-9]+', '-', submission.student)[:40].strip('-')}-{code}"


def state(assignment_folder, isolated):
    """Return a text that changes whenever a grade could: tests, graders and isolation."""
    files = sorted([*(assignment_folder / "grading").rglob("*.*"), *HERE.glob("*.py")])
    content = b"".join(path.read_bytes() for path in files)
    return hashlib.sha256(content + bytes([isolated])).hexdigest()


def stored(result, key):
    """Return a stored result if it has this key."""
    try:
        found = json.loads(result.read_text())
    except (OSError, ValueError):
        return None
    return found if found.get("key") == key else None


def grade_one(submission, assignment_folder, out, isolated, condition):
    """Return a submission's result, from its file if that is up to date."""
    key = hashlib.sha256(condition.encode() + submission.data).hexdigest()
    notebook = out / "notebooks" / f"{slug(submission)}.ipynb"
    result = out / "results" / f"{slug(submission)}.json"
    if found := stored(result, key):
        return found
    notebook.write_bytes(submission.data)
    made = result.with_suffix(".new")
    command = [sys.executable, "-m", "tools.classroom.one", assignment_folder, notebook, made]
    if not isolated:
        command.append("--unsandboxed")
    try:
        done = subprocess.run(
            list(map(str, command)), cwd=book.ROOT, capture_output=True, timeout=PATIENCE
        )
        problem = done.stderr.decode(errors="replace")[-2000:] if done.returncode else ""
    except subprocess.TimeoutExpired:
        problem = f"not graded in {PATIENCE} seconds"
    if problem:
        return {"problem": problem}
    graded = {**json.loads(made.read_text()), "key": key}
    made.write_text(json.dumps(graded))
    made.rename(result)
    return graded


def grade_all(submissions, assignment_folder, out, isolated, jobs):
    """Return the results of all submissions, by student; show a progress bar."""
    for name in ("notebooks", "results", "reports"):
        (out / name).mkdir(parents=True, exist_ok=True)
    condition = state(assignment_folder, isolated)
    results = {}
    with ThreadPoolExecutor(jobs) as pool:
        work = {
            pool.submit(grade_one, each, assignment_folder, out, isolated, condition): each
            for each in submissions
        }
        try:
            for future in tqdm(as_completed(work), total=len(work), unit="notebook"):
                results[work[future].student] = future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return results


def named_assignment(submissions):
    """Return the assignment that most notebooks name, or None."""
    names = [read(each.data).assignment for each in submissions]
    known = {path.stem for path in book.assignments()}
    counts = Counter(name for name in names if name in known)
    return counts.most_common(1)[0][0] if counts else None


def arguments(words):
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(prog="make grade", description="Grade a class.")
    parser.add_argument("folder", type=Path)
    known = [path.stem for path in book.assignments()]
    parser.add_argument("--assignment", choices=known, help="default: what most notebooks name")
    parser.add_argument("--out", type=Path, help="default: _build/grades/NAME")
    parser.add_argument("--built", type=Path, default=generate.BUILT, help=argparse.SUPPRESS)
    parser.add_argument("--unsandboxed", action="store_true", help="grade without bubblewrap")
    parser.add_argument("--jobs", type=int, default=parallel.cores())
    return parser.parse_args(words)


def main(words):
    """Grade; return the exit status."""
    options = arguments(words)
    if not options.folder.is_dir():
        return f"{options.folder} is no folder"
    isolated = sandbox.isolation_available()
    if not isolated and not options.unsandboxed:
        return sandbox.NOT_ISOLATED
    submissions, others = collect(options.folder)
    name = options.assignment or named_assignment(submissions)
    if name is None:
        return "no notebook names an assignment: say which, ASSIGNMENT=name (--assignment)"
    print(*others, sep="\n")
    folder, out = options.built / name, options.out or book.ROOT / "_build" / "grades" / name
    out = out.resolve()
    try:
        results = grade_all(submissions, folder.resolve(), out, isolated, options.jobs)
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    report.write(submissions, results, Assignment.read(folder), slug, out)
    return summary(results, out)


def summary(results, out):
    """Print where the results are; return the students that could not be graded, if any."""
    memory = max((result.get("memory", 0) for result in results.values()), default=0)
    print(f"{len(results)} students: {out / 'grades.csv'}. Most memory: {memory / 2**20:.0f} MiB.")
    failed = {name: result["problem"] for name, result in results.items() if "problem" in result}
    lines = [f"{name}: {problem.splitlines()[-1]}" for name, problem in failed.items()]
    return "\n".join(["These were not graded, through no fault of theirs:", *lines]) if lines else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
