"""The public tests of an assignment, run in the student's notebook.

The tests stand in the notebook's metadata, in the format of otter-grader, so that a check needs no
other file. Running them needs no otter-grader either: it does not read metadata on Colab, and would
bring packages that replace Colab's own.
"""

import copy
import inspect
import json
import os
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import NamedTuple

OTTER = "from otter.test_files import test_case\n"
PUBLIC = "These are only the public tests. Hidden ones follow when your work is graded."


class Grader:
    """Run the public tests of one assignment.

    Parameters
    ----------
    assignment : str
        The assignment's name, such as ``"sgd"``.
    """

    def __init__(self, assignment):
        self.assignment = assignment

    def check(self, question):
        """Run the public tests of `question` on the names of the calling notebook, and print."""
        print(self._report(question, inspect.currentframe().f_back.f_globals))

    def check_all(self):
        """Run all public tests on the names of the calling notebook, and print."""
        names = inspect.currentframe().f_back.f_globals
        for question in self._tests():
            print(self._report(question, names))

    def _tests(self):
        notebook = colab_notebook() or stored_notebook(self.assignment)
        return notebook["metadata"]["otter"]["tests"] if notebook else {}

    def _report(self, question, names):
        tests = self._tests()
        if question not in tests:
            return (
                f"{question}: found no tests. Is this notebook saved, in the folder "
                f"{os.getcwd()}, and still the one that you were given?"
            )
        failures = [failure(test.function, names) for test in read(tests[question])]
        if not failures:
            return f"{question}: has no public tests. Hidden ones follow when your work is graded."
        messages = [f"  {message}" for message in failures if message is not None]
        passed = len(failures) - len(messages)
        lines = [f"{question}: {passed} of {len(failures)} public tests passed.", *messages, PUBLIC]
        return "\n".join(lines)


class Test(NamedTuple):
    """A test of a question: a function of names that the notebook defines."""

    function: Callable
    points: float
    hidden: bool


def read(source):
    """Return the tests in a test file of otter-grader that holds exception-based tests."""
    tests = []

    def test_case(points, hidden):
        return lambda function: tests.append(Test(function, points, hidden))

    exec(source.replace(OTTER, ""), {"test_case": test_case})
    return tests


def failure(test, names):
    """Call a test with those of `names` that it asks for; return what is wrong, or None."""
    wanted = inspect.signature(test).parameters
    missing = [name for name in wanted if name not in names]
    if missing:
        return f"`{missing[0]}` is not defined: run the cells above, from the top"
    try:
        test(**{name: on_copies(names[name]) for name in wanted})
    except AssertionError as error:
        return str(error) or "a check failed"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


def on_copies(value):
    """Return a function as one of copies of its arguments, as in grading; else the value itself."""
    if not callable(value) or isinstance(value, type):
        return value

    @wraps(value)
    def function(*args, **keywords):
        return value(*copy.deepcopy(args), **copy.deepcopy(keywords))

    return function


def colab_notebook():
    """Return the notebook that runs on Colab, or None elsewhere."""
    if "google.colab" not in sys.modules:
        return None
    from google.colab import _message

    return _message.blocking_request("get_ipynb", timeout_sec=60)["ipynb"]


def stored_notebook(assignment):
    """Return the notebook of `assignment` in this folder, whatever its file name, or None."""
    paths = [path for path in Path().glob("*.ipynb") if path.is_file()]  # no link to nowhere
    for path in sorted(paths, key=lambda path: -path.stat().st_mtime):
        try:
            notebook = json.loads(path.read_text(encoding="utf-8"))
            if notebook["metadata"]["otter"]["assignment_name"] == assignment:
                return notebook
        except (KeyError, OSError, TypeError, ValueError):
            continue
    return None
