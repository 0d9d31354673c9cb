"""Results of sweeps: loaded, summarised and printed."""

import os
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from batchscaling import _validation as check
from batchscaling.curves.intervals import median_interval
from batchscaling.curves.records import file_name, measured, not_a_record, read


@dataclass(frozen=True, eq=False)
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
            {**record["best"]},
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
        return next(iter(self.best)) if name is None else check.one_of("measure", name, self.best)


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
        If there are none, a file holds something else, or two files hold one cell, with other
        numbers, and neither has its name.

    Warns
    -----
    UserWarning
        If hidden files, folders or other files of a cell were left out; it names them.
    """
    folder = measured() if folder is None else Path(os.path.expanduser(folder))
    paths = sorted(folder.glob("*.json"))
    files = [path for path in paths if path.is_file() and not path.name.startswith(".")]
    results = _once({path: _result(path) for path in files})
    ignored = ", ".join(repr(path.name) for path in paths if path not in results)
    if ignored:
        warnings.warn(f"left out of the results in {str(folder)!r}: {ignored}", stacklevel=2)
    cells = [cell for cell in results.values() if task in (None, cell.task)]
    if not cells:
        check.reject("folder", str(folder), f"one with results of {task or 'a sweep'}")
    return sorted(cells, key=lambda cell: (cell.task, cell.optimizer, cell.batch_size))


def _once(results):
    """Return the results by file, one for each task, optimizer and batch size."""
    cells = {}
    for path, cell in results.items():
        name = file_name(cell.task, cell.optimizer, cell.batch_size)
        cells.setdefault(name, {})[path] = cell
    return dict(_original(name, files) for name, files in cells.items())


def _original(name, files):
    """Return the file of a cell, and the result, that has its name, or that of what was asked."""
    named = [path for path in files if path.name == name]
    asked = [path for path in files if path.name == _name_asked(files[path])]
    first, *others = named or asked or files
    if any(_measured_numbers(files[path]) != _measured_numbers(files[first]) for path in others):
        names = [path.name for path in (first, *others)]
        check.reject("folder", str(first.parent), f"one file for a cell, named {name}, not {names}")
    return first, files[first]


def _name_asked(cell):
    return file_name(cell.task, cell.optimizer, cell.record["cell"]["batch_size"])


def _measured_numbers(cell):
    return [cell.record[name] for name in ("hyper", "diverged", "steps", "best", "fresh")]


def _result(path):
    record = read(path)
    try:
        cell = CellResult.of(record)
        for size in (cell.batch_size, record["cell"]["batch_size"]):
            check.integer("batch_size", size, 1)
        for measure, best in cell.best.items():
            if best is not None:
                check.integer("best", best, 0)
            cell.tuned(measure)
        if not all((steps > 0).all() for steps in cell.fresh.values()):
            not_a_record(path)
        cell.interval()
    except (AttributeError, IndexError, KeyError, StopIteration, TypeError, ValueError):
        not_a_record(path)
    return (
        cell
        if isinstance(cell.task, str) and isinstance(cell.optimizer, str)
        else not_a_record(path)
    )


def having(cells, measure):
    """Return the cells that have a target of `measure`.

    Raises
    ------
    ValueError
        If none has.
    """
    kept = [cell for cell in cells if measure in cell.best]
    if cells and not kept:
        check.one_of(
            "measure", measure, dict.fromkeys(name for cell in cells for name in cell.best)
        )
    return kept


def table(cells, measure="validation"):
    """Return a table of the best settings of `cells`, a line for each.

    The last line names the tasks that have no target of `measure`, if there are any.
    """
    kept = having(cells, measure)
    lines = []
    for cell in kept:
        low, median, high = cell.interval(measure)
        hyper = "  ".join(f"{name} {value:.3g}" for name, value in cell.tuned(measure).items())
        lines.append(
            f"{cell.task}  {cell.optimizer:22} {cell.batch_size:5}  "
            f"{median:7.5g} [{low:.5g}, {high:.5g}]  {hyper}"
        )
    without = sorted({cell.task for cell in cells} - {cell.task for cell in kept})
    if without:
        lines.append(f"no {measure} target: {', '.join(without)}")
    return "\n".join([f"steps to the {measure} target: median [95 % interval]", *lines])


def _numbers(steps):
    """Return steps with None as infinity."""
    numbers = np.array(steps, dtype=float)
    return np.where(np.isnan(numbers), np.inf, numbers)
