"""Results of sweeps: read, summarise and print them."""

import json
import warnings
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np

from batchscaling._validation import one_of, reject
from batchscaling.training.curves import median_interval


@dataclass(frozen=True)
class CellResult:
    """One cell of a sweep, as `run_cell` describes it.

    Attributes
    ----------
    task, optimizer : str
    batch_size : int
        Examples that a step took: all of them where more were asked for.
    hyper : dict of str to numpy.ndarray, each of shape (settings,)
        The settings of the search.
    diverged : numpy.ndarray of bool, shape (settings, seeds)
    steps : dict of str to numpy.ndarray, each of shape (settings, seeds)
        Steps to the target of each measure; ``inf`` where it was not reached.
    best : dict of str to int or None
        The best setting of each measure; None if the target was not reached by any.
    fresh : dict of str to numpy.ndarray, each of shape (fresh seeds,)
        Steps of the best setting with seeds that did not choose it.
    record : dict
        The whole file, with targets, search space, final and provenance.
    """

    task: str
    optimizer: str
    batch_size: int
    hyper: dict
    diverged: np.ndarray
    steps: dict
    best: dict
    fresh: dict
    record: dict

    @classmethod
    def of(cls, record):
        """Return the result that a file's `record` holds."""
        cell = record["cell"]
        return cls(
            cell["task"],
            cell["optimizer"],
            record.get("trained_batch_size", cell["batch_size"]),
            {name: np.array(values) for name, values in record["hyper"].items()},
            np.array(record["diverged"], dtype=bool),
            {measure: _numbers(steps) for measure, steps in record["steps"].items()},
            record["best"],
            {measure: _numbers(steps) for measure, steps in record["fresh"].items()},
            record,
        )

    def tuned(self, measure=None):
        """Return the best setting's hyperparameters, a dict of str to float; empty if none.

        The decay of averaged parameters is one of them for measures of these only. Without a
        name, the measure is the first one.
        """
        measure = self._measure(measure)
        best = self.best[measure]
        if best is None:
            return {}
        acting = [name for name in self.hyper if acts(name, measure)]
        return {name: float(self.hyper[name][best]) for name in acting}

    def interval(self, measure=None):
        """Return the median of the fresh steps and its 95 % interval: low, median, high."""
        steps = self.fresh[self._measure(measure)]
        return median_interval(steps) if len(steps) else (np.inf, np.inf, np.inf)

    def _measure(self, name):
        return next(iter(self.best)) if name is None else one_of("measure", name, self.best)


def acts(hyperparameter, measure):
    """Return whether a hyperparameter has an effect on a measure: a decay only on averages."""
    return hyperparameter != "decay" or measure.startswith("averaged")


def load_results(folder=None, task=None):
    """Return the results of a folder, sorted by task, optimizer and batch size.

    Parameters
    ----------
    folder : path-like, optional
        Where `run_sweep` wrote them. The default is the book's own sweeps.
    task : str, optional
        Only this one.

    Returns
    -------
    list of CellResult

    Raises
    ------
    ValueError
        If there are none, a file holds something else, or two files hold one cell and neither has
        its name.

    Warns
    -----
    UserWarning
        If hidden files, folders or copies of a cell's file were left out; it names them.
    """
    folder = measured() if folder is None else Path(folder)
    paths = sorted(folder.glob("*.json"))
    ignored = [path for path in paths if path.name.startswith(".") or path.is_dir()]
    results = {path: _result(path) for path in paths if path not in ignored}
    copies = {}
    for path, result in results.items():
        copies.setdefault(_own_name(result), []).append(path)
    kept = [_original(name, same) for name, same in copies.items()]
    ignored += [path for path in results if path not in kept]
    if ignored:
        names = ", ".join(repr(path.name) for path in ignored)
        warnings.warn(f"left out of the results in {str(folder)!r}: {names}", stacklevel=2)
    cells = [results[path] for path in kept if task in (None, results[path].task)]
    if not cells:
        reject("folder", str(folder), f"one with results of {task or 'a sweep'}")
    return sorted(cells, key=lambda cell: (cell.task, cell.optimizer, cell.batch_size))


def read(path):
    """Return the record of a cell's file, a dict.

    Raises
    ------
    ValueError
        If the file holds something else.
    """
    try:
        record = json.loads(path.read_text("utf-8-sig"))
    except (IsADirectoryError, ValueError):
        record = None
    if not isinstance(record, dict) or "cell" not in record:
        _reject(path)
    return record


def file_name(task, optimizer, batch_size):
    """Return the name of a cell's file."""
    return f"{task}-{optimizer}-{batch_size:05d}.json"


def _own_name(result):
    """Return the name that the file of a result should have."""
    return file_name(result.task, result.optimizer, result.record["cell"]["batch_size"])


def _original(name, copies):
    """Return the file of a cell that has its name, or the only one."""
    named = [path for path in copies if path.name == name]
    if not named and len(copies) > 1:
        names = [path.name for path in copies]
        reject("folder", str(copies[0].parent), f"one file for a cell, named {name}, not {names}")
    return (named or copies)[0]


def _result(path):
    record = read(path)
    try:
        return CellResult.of(record)
    except (AttributeError, KeyError, TypeError, ValueError):
        _reject(path)


def _reject(path):
    reject("file", str(path), "the result of a cell of a sweep")


def measured():
    """Return the folder of the book's own sweeps: in the installed package, else in a checkout.

    Other measured results are in folders beside it, as in the repository's ``data``.
    """
    installed = files("batchscaling") / "measured"
    checkout = Path(__file__).resolve().parents[3] / "data"
    return (installed if installed.is_dir() else checkout) / "sweeps"


def table(cells, measure="validation"):
    """Return a table of the best settings of `cells`, a line for each."""
    lines = []
    for cell in cells:
        low, median, high = cell.interval(measure)
        hyper = "  ".join(f"{name} {value:.3g}" for name, value in cell.tuned(measure).items())
        lines.append(
            f"{cell.task}  {cell.optimizer:22} {cell.batch_size:5}  "
            f"{median:7.5g} [{low:.5g}, {high:.5g}]  {hyper}"
        )
    return "\n".join([f"steps to the {measure} target: median [95 % interval]", *lines])


def _numbers(steps):
    """Return steps with None as infinity."""
    numbers = np.array(steps, dtype=float)
    return np.where(np.isnan(numbers), np.inf, numbers)
