"""Grade one submission: run it in a sandbox, and its tests outside."""

import contextlib
import inspect
import json
import signal
from dataclasses import dataclass
from pathlib import Path

from batchscaling.classroom.grader import read
from tools.classroom.student import Failed, Student

LONGEST_TEST = 180  # seconds


class TookTooLong(BaseException):
    """A test did not come to an end; no test catches this."""


@dataclass(frozen=True)
class Assignment:
    """What grading knows about one assignment.

    Attributes
    ----------
    name : str
    questions : list of dict
        As `tools.classroom.master.questions` returns them.
    given : set of str
        The texts that stand in the student notebook already.
    tests : dict of str to list of batchscaling.classroom.grader.Test
        The tests of each question.
    """

    name: str
    questions: list
    given: set
    tests: dict

    @classmethod
    def read(cls, folder):
        """Return the assignment whose files `tools.classroom.generate` wrote to `folder`."""
        grading = Path(folder) / "grading"
        record = json.loads((grading / "assignment.json").read_text())
        tests = {path.stem: read(path.read_text()) for path in (grading / "tests").glob("*.py")}
        return cls(record["name"], record["questions"], set(record["given"]), tests)


def grade(notebook, assignment, limits, isolated):
    """Return what a submission gets, as data for reports.

    Parameters
    ----------
    notebook : tools.classroom.collect.Notebook
    assignment : Assignment
    limits : tools.classroom.sandbox.Limits
    isolated : bool
        Whether to use bubblewrap.

    Returns
    -------
    dict
        ``questions``: for each its name, points, score (None for a written answer) and tests, or
        answer and rubric; ``cells``: error, text and figures of each; ``memory``, in bytes.
    """
    sources = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    with Student(sources, limits, isolated) as student:
        student.run()
        questions = [
            written(question, notebook, assignment)
            if question["manual"]
            else automatic(question, assignment.tests[question["name"]], student)
            for question in assignment.questions
        ]
        cells = student.results
    return {"questions": questions, "cells": cells, "memory": student.peak}


def automatic(question, tests, student):
    """Return what the tests of a question give."""
    results = []
    for test in tests:
        message = failure(test.function, student)
        score = 0 if message else test.points
        record = {"name": test.function.__name__, "message": message, "score": score}
        results.append({**record, "points": test.points, "hidden": test.hidden})
    score = sum(result["score"] for result in results)
    return {
        "name": question["name"],
        "points": question["points"],
        "score": score,
        "tests": results,
    }


def failure(test, student):
    """Run one test; return what is wrong, or an empty text."""
    try:
        with time_limit(LONGEST_TEST):
            test(**{name: student.fetch(name) for name in inspect.signature(test).parameters})
    except (AssertionError, Failed) as error:
        return str(error)[:600] or "a check failed"
    except TookTooLong:
        return "the test did not come to an end"
    except Exception as error:
        return f"the test could not use what it got: {type(error).__name__}: {error}"[:600]
    return ""


@contextlib.contextmanager
def time_limit(seconds):
    """Raise TookTooLong in this process after some time."""

    def stop(*_):
        raise TookTooLong

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def written(question, notebook, assignment):
    """Return a written answer: the texts between its question and the next, without given ones."""
    opening = question["prompt"].split("\n")[0]
    others = {q["prompt"].split("\n")[0] for q in assignment.questions} - {opening}
    found, inside = [], False
    for cell in notebook.cells:
        source = cell.source
        if opening in source:
            inside = True
        elif any(other in source for other in others):
            inside = False
        elif inside and cell.cell_type == "markdown" and source not in assignment.given:
            found.append(source)
    keys = ("name", "points", "rubric")
    return {key: question[key] for key in keys} | {"score": None, "answer": "\n\n".join(found)}
