"""Cells: a search for the best hyperparameters at one task, optimizer and batch size."""

import shlex
import time
from dataclasses import dataclass, fields

import numpy as np

from batchscaling import _validation as check
from batchscaling.curves.records import file_name
from batchscaling.curves.results import acts
from batchscaling.ranges import join
from batchscaling.training.device import check_device
from batchscaling.training.loop import train
from batchscaling.training.own_tasks import identity
from batchscaling.training.provenance import provenance
from batchscaling.training.search import draw, hyperparameters
from batchscaling.training.tasks import OPTIMIZERS, TASKS, Task
from batchscaling.training.trials import Trials

LONGEST = 10.0
"""Trials that compare or measure again end at this many times the steps of the search's fastest."""

SEARCH, FINAL, FRESH = 0, 1_000, 2_000
"""First seed of the search, of the final among its best settings, and of the last measurement."""

_MOST_DRAWS = 4  # times the trials asked for, where many diverge
_MOST_WIDENINGS = 3  # once so many ranges have grown, none grows further


@dataclass(frozen=True)
class Cell:
    """One search: a task, an optimizer and a batch size.

    Parameters
    ----------
    task : str or Task
        One of `TASKS`, or a task of your own that has a name, such as `load_task` returns.
    optimizer : str
        One of `OPTIMIZERS`.
    batch_size : int
        At least 1. Sizes above the number of training examples mean all of them; the result
        says how many these are.
    trials : int
        Settings that do not diverge, at least 1.
    seeds : int
        Seeds of each setting, from 1 to 1,000, so that the final has others.
    finalists : int
        Settings that are compared again, each with `final_seeds` seeds, at least 1.
    final_seeds : int
        From 1 to 1,000, so that the last measurement has others.
    fresh : int
        Seeds that measure the best setting once more, at least 1.
    search_seed : int
        Of the quasi-random settings.

    Raises
    ------
    ValueError
        If a value is outside its range.
    """

    task: str | Task
    optimizer: str
    batch_size: int
    trials: int = 64
    seeds: int = 2
    finalists: int = 8
    final_seeds: int = 10
    fresh: int = 20
    search_seed: int = 0

    def __post_init__(self):
        if not self.is_own:
            check.one_of("task", self.task, TASKS)
        elif not self.task.name or self.task.name in TASKS:
            check.reject("task's name", self.task.name, "one, and none of the book's tasks")
        check.one_of("optimizer", self.optimizer, OPTIMIZERS)
        least = dict.fromkeys(("batch_size", "trials", "seeds", "finalists", "final_seeds"), 1)
        most = {"seeds": FINAL - SEARCH, "final_seeds": FRESH - FINAL}
        for name, low in {**least, "fresh": 1, "search_seed": 0}.items():
            # Also an integer of numpy becomes one that JSON knows.
            number = check.integer(name, getattr(self, name), low, most.get(name))
            object.__setattr__(self, name, number)

    @property
    def is_own(self):
        """Whether the task is one of the user's own."""
        return isinstance(self.task, Task)

    @property
    def settings(self):
        """What was asked for: a dict of plain values, the task by its name."""
        task = self.task.name if self.is_own else self.task
        return {**{field.name: getattr(self, field.name) for field in fields(self)}, "task": task}

    @property
    def file(self):
        """Name of the cell's file."""
        return file_name(self.settings["task"], self.optimizer, self.batch_size)

    @property
    def command(self):
        """The command that makes the cell's file."""
        source = shlex.quote(self.task.source if self.is_own else self.task)
        values = {**self.settings, "task": source}
        options = [f"--{name.replace('_', '-')} {value}" for name, value in values.items()]
        return " ".join(["python -m batchscaling sweep", *options])


def check_cell(cell):
    """Return a `Cell`; refuse what is none, such as the name of one."""
    if not isinstance(cell, Cell):
        check.reject("cell", cell, "a Cell, such as Cell('digits-mlp', 'sgd', 64)")
    return cell


def run_cell(cell, *, device="cpu", progress=False):
    """Search the best hyperparameters of one cell, for each measure that has a target.

    Settings are quasi-random, until `cell.trials` of them have not diverged. If the best one
    lies at a border of the search space, the space grows there and more are drawn. The fastest
    few meet again in a final, with seeds that the search has not seen, because the winner of a
    contest between noisy numbers was lucky too. For the same reason the winner of the final is
    measured once more.

    Parameters
    ----------
    cell : Cell
    device : str or torch.device
    progress : bool
        Whether to show progress bars.

    Returns
    -------
    dict
        What the cell's file holds: JSON numbers, strings, lists and dicts. Steps are None where
        a target was not reached.

    Raises
    ------
    ValueError
        If `cell` is none, or there is no such device.
    """
    check_cell(cell)
    device, start = str(check_device(device)), time.perf_counter()
    known = {"identity": identity(cell.task)} if cell.is_own else {}
    search = _Search(cell, device, progress)
    search.fill()
    widened = []
    while len(widened) < _MOST_WIDENINGS and (grown := search.widen()):
        widened += grown
    finals = {measure: search.final(measure) for measure in search.task.targets}
    best = {measure: final["best"] for measure, final in finals.items()}
    return {
        "cell": cell.settings,
        **known,
        "trained_batch_size": search.batch_size,
        "targets": dict(search.task.targets),
        "space": {name: [r.low, r.high] for name, r in search.space.items()},
        "widened": widened,
        "at_border": {
            measure: [name for name, _ in search.borders(measure, k)] for measure, k in best.items()
        },
        "hyper": {name: v.tolist() for name, v in hyperparameters(search.values).items()},
        "diverged": search.diverged.tolist(),
        "steps": {measure: _finite(steps) for measure, steps in search.steps.items()},
        "final": finals,
        "best": best,
        "fresh": {measure: search.fresh(measure, k) for measure, k in best.items()},
        "max_steps": search.max_steps,
        "patience": search.task.patience,
        "provenance": provenance(
            f"{cell.command} --device {device}", device, time.perf_counter() - start
        ),
    }


class _Search:
    """The settings of one cell that were tried so far, shape (settings,), and their steps."""

    def __init__(self, cell, device, progress):
        self.cell, self.device, self.progress = cell, device, progress
        self.task = cell.task if cell.is_own else TASKS[cell.task]
        self.data = self.task.load()
        self.batch_size = min(cell.batch_size, len(self.data.train_inputs))
        self.max_steps = self.task.max_steps(self.batch_size)
        self.space = self.task.space(cell.optimizer)
        self.values = {name: np.empty(0) for name in self.space}
        self.diverged = np.empty((0, cell.seeds), dtype=bool)
        self.steps = {measure: np.empty((0, cell.seeds)) for measure in self.task.targets}
        self.drawn = 0

    def fill(self):
        """Try settings until enough have not diverged."""
        most = _MOST_DRAWS * self.cell.trials
        while (missing := self.cell.trials - self._not_diverged()) > 0 and self.drawn < most:
            self._try(self.space, min(missing, most - self.drawn))

    def widen(self):
        """Widen the space where a best setting lies at its border; return what was widened."""
        sides = set()
        for measure in self.steps:
            sides.update(self.borders(measure, next(iter(self._ranking(measure)), None)))
        grown = []
        for name, side in sorted(sides):
            strip = self.space[name].beyond(side)
            self._try({**self.space, name: strip}, -(-self.cell.trials // 2))
            self.space = {**self.space, name: join(self.space[name], strip)}
            grown.append({"name": name, "to": [self.space[name].low, self.space[name].high]})
        return grown

    def final(self, measure):
        """Return the fastest settings, their steps with other seeds, and the best of them."""
        settings = self._ranking(measure)[: self.cell.finalists]
        if not settings:
            return {"settings": [], "steps": [], "best": None}
        steps = self._again(measure, settings, FINAL, self.cell.final_seeds)
        median = np.median(steps, axis=1)
        found = np.isfinite(median).any()
        return {
            "settings": settings,
            "steps": _finite(steps),
            "best": settings[np.argmin(median)] if found else None,
        }

    def fresh(self, measure, setting):
        """Return the steps of a setting with fresh seeds."""
        if setting is None:
            return []
        return _finite(self._again(measure, [setting], FRESH, self.cell.fresh)[0])

    def borders(self, measure, setting):
        """Return the names and sides of the ranges at whose border a setting lies."""
        if setting is None:
            return []
        acting = {n: r for n, r in self.space.items() if acts(n, measure)}
        sides = {name: r.border(self.values[name][setting]) for name, r in acting.items()}
        return [(name, side) for name, side in sides.items() if side is not None]

    def _try(self, space, count):
        values = draw(space, count, seed=self.cell.search_seed, skip=self.drawn)
        self.drawn += count
        fastest = [steps.min(initial=np.inf) for steps in self.steps.values()]
        limit = int(min(self.max_steps, self.task.patience * max(fastest)))
        seeds = np.arange(SEARCH, SEARCH + self.cell.seeds)
        results = self._train(values, seeds, limit, self.task.patience)
        shape = count, self.cell.seeds
        for name, new in values.items():
            self.values[name] = np.concatenate([self.values[name], new])
        self.diverged = np.concatenate([self.diverged, results.diverged.reshape(shape)])
        for measure, old in self.steps.items():
            new = results.crossing(measure).reshape(shape)
            if not new.all():
                least = f"one below the loss at the start, {results.losses[measure][:, 0].min():g}"
                check.reject(f"targets[{measure!r}]", self.task.targets[measure], least)
            self.steps[measure] = np.concatenate([old, new])

    def _again(self, measure, settings, first_seed, count):
        """Return the steps of settings with other seeds, shape (settings, count)."""
        values = {name: v[settings] for name, v in self.values.items()}
        seeds = np.arange(first_seed, first_seed + count)
        limit = int(min(self.max_steps, LONGEST * self.steps[measure].min()))
        results = self._train(values, seeds, limit, None, [measure])
        return results.crossing(measure).reshape(len(settings), count)

    def _train(self, values, seeds, max_steps, patience, measures=None):
        """Train every setting with every seed; the seed changes fastest."""
        hyper = hyperparameters(values)
        trials = Trials(
            np.tile(seeds, len(hyper["lr"])),
            {name: np.repeat(column, len(seeds)) for name, column in hyper.items()},
        )
        return train(
            self.data,
            self.task.model,
            self.task.optimizer(self.cell.optimizer),
            trials,
            batch_size=self.batch_size,
            max_steps=max_steps,
            target={name: self.task.targets[name] for name in measures or self.task.targets},
            objective=self.task.objective,
            loss=self.task.loss,
            schedule=self.task.schedule,
            patience=patience,
            exact=False,
            device=self.device,
            progress=self.progress,
        )

    def _ranking(self, measure):
        """Return the settings whose median steps are finite, the fastest first."""
        median = np.median(self.steps[measure], axis=1)
        return [int(k) for k in np.argsort(median, kind="stable") if np.isfinite(median[k])]

    def _not_diverged(self):
        """Return the number of settings that have not diverged with any seed."""
        return int((~self.diverged.any(axis=1)).sum())


def _finite(steps):
    """Return steps as JSON: nested lists of integers, None for infinity."""
    if np.ndim(steps):
        return [_finite(step) for step in steps]
    return int(steps) if np.isfinite(steps) else None
