"""A submission as the tests see it: its values as data, its functions as things to call."""

import tempfile
import time

from tools.classroom import wire
from tools.classroom.sandbox import Ended, Sandbox

GRACE = 5  # seconds beyond a limit, in which a process may still answer by itself
RESTARTS = 4  # after as many sudden ends, nothing more is tried


class Failed(Exception):
    """A test cannot go on, for a reason that the submission gave; the text says which."""


class Student:
    """One submission, running in a sandbox.

    A cell that ends the process is left out when the process starts again, so that it costs only
    what depends on it.

    Parameters
    ----------
    cells : list of str
        The code cells.
    limits : Limits
    isolated : bool

    Attributes
    ----------
    results : list of dict
        ``error``, ``text`` and ``figures`` of each cell.
    peak : int
        The most memory that it was seen to take, in bytes.
    """

    def __init__(self, cells, limits, isolated):
        self._cells, self._limits, self._isolated = cells, limits, isolated
        self._end = time.monotonic() + limits.total
        self._sandbox, self._fatal, self._starts = None, {}, 0
        self._folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        self.peak = 0
        self.results = [failed_cell("not run") for _ in cells]

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self._stop()
        self._folder.cleanup()

    def run(self):
        """Run all cells; start again without a cell that ends the process."""
        while self._sandbox is None and self._starts <= RESTARTS:
            self._starts += 1
            self._sandbox = Sandbox(self._limits, self._isolated, self._folder.name)
            for i, source in enumerate(self._cells):
                if i in self._fatal:
                    self.results[i] = failed_cell(f"left out: {self._fatal[i]}")
                    continue
                try:
                    request = {"run": source, "seconds": self._limits.cell}
                    self.results[i] = cell_result(self._ask(request, self._limits.cell))
                except Ended as end:
                    self._fatal[i] = str(end)
                    break

    def fetch(self, name):
        """Return what the name stands for in the notebook: data, or a function to call."""
        self._revive()
        answer = self._answer({"get": name}, self._limits.call)
        if answer.get("missing"):
            raise Failed(f"`{name}` is not defined")
        value = value_of(answer)
        return Remote(self, name) if isinstance(value, wire.Function) else value

    def call(self, name, args, kwargs):
        """Call a function of the notebook with data, and return data."""
        given = wire.encode({"args": list(args), "kwargs": kwargs})
        seconds = self._limits.call
        answer = self._answer({"call": name, "given": given, "seconds": seconds}, seconds)
        if "value" not in answer:
            raise Failed(f"`{name}` raised {answer.get('error')}"[:600])
        return value_of(answer)

    def _revive(self):
        if self._sandbox is None:
            self.run()
        if self._sandbox is None:
            raise Failed("the notebook's process does not stay alive")

    def _answer(self, request, seconds):
        try:
            return self._ask(request, seconds)
        except Ended as end:
            raise Failed(f"the notebook's process ended: {end}") from None

    def _ask(self, request, seconds):
        deadline = min(time.monotonic() + seconds + GRACE, self._end)
        try:
            return self._sandbox.ask(request, deadline)
        except Ended:
            self._stop()
            raise

    def _stop(self):
        if self._sandbox is not None:
            self._sandbox.close()
            self.peak = max(self.peak, self._sandbox.peak)
            self._sandbox = None


class Remote:
    """A function of the notebook."""

    def __init__(self, student, name):
        self._student, self._name = student, name

    def __call__(self, *args, **kwargs):
        """Call it, in the sandbox."""
        return self._student.call(self._name, args, kwargs)


def value_of(answer):
    """Return the value in an answer."""
    if "value" not in answer:
        raise Failed(str(answer.get("error"))[:600])
    try:
        value = wire.decode(answer["value"])
    except wire.Broken as error:
        raise Failed(f"the notebook sent no value that could be read: {error}") from None
    return value


def failed_cell(error):
    """Return the result of a cell that gave nothing."""
    return {"error": error, "text": "", "figures": []}


def cell_result(answer):
    """Return the result of a cell, whatever the submission made of it."""
    figures = answer.get("figures")
    figures = figures if isinstance(figures, list) else []
    error = answer.get("error")
    return {
        "error": None if error is None else str(error)[:600],
        "text": str(answer.get("text", ""))[:5000],
        "figures": [png for png in figures[:8] if isinstance(png, str)],
    }
