"""Tune extrapolation and its rivals on networks: the data of chapter extrapolation/04.

    python -m tools.measure_extrapolation digits-mlp fashion-cnn-small
    python -m tools.measure_extrapolation cifar10-resnet20 --device cuda
    python -m tools.measure_extrapolation cifar10-resnet20-small --more 20

Simulated workers share a batch. A cell is a method, a number of workers, and what counts: steps to
the target loss at a constant rate, or the loss at the end of a budget. Every cell of a network
gets the same search: so many quasi-random settings, more where the best one lies at a border, a
final among the best with other seeds, and fresh seeds that chose nothing for the winner. All cells
use the same seeds, so that they can be compared in pairs.
Each cell is stored when it is done; called again, the command goes on where it ended.
With --more, winners of the runs to the target train with so many further seeds.
"""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from batchscaling import _validation as check
from batchscaling.ranges import join
from batchscaling.training import (
    OPTIMIZERS,
    TASKS,
    FlipCrop,
    Range,
    Task,
    Trials,
    chain,
    cifar10,
    constant,
    draw,
    fix,
    hyperparameters,
    local_steps,
    lstm,
    multi30k,
    resnet20,
    step_drops,
    synchronous,
    tiny_shakespeare,
    train,
    transformer,
    weight_decay,
    weights_only,
)
from batchscaling.training.files import write_record
from batchscaling.training.provenance import provenance

FOLDER = Path(__file__).parents[1] / "data" / "extrapolation"
FINAL, FRESH, MORE = 1_000, 2_000, 3_000  # first seeds; those of the search begin at 0
WIDENINGS = 3
NO_LESS = ("relative_extrapolation", "radius")  # less than their smallest value is as good as none
NOISE = ("extrap_gaussian", "extrap_uniform", "smoothout", "extrap_gradient")


@dataclass(frozen=True)
class Cell:
    """What is tuned and measured.

    Attributes
    ----------
    method : str
        Of the registry.
    batch_size, workers : int
    momentum : float or None
        Fixed, or searched.
    end : {"target", "budget", "decay"}
        Whether a run ends at the target, or when it has used the budget of examples, at a constant
        rate or with one that falls to a tenth after half of the steps and again after 3/4.
    every : int
        Local steps from one meeting of the workers to the next after the first fall of the rate;
        before it, and if 0, gradients are averaged in each step.
    """

    method: str
    batch_size: int
    workers: int
    momentum: float | None = None
    end: str = "target"
    every: int = 0


@dataclass(frozen=True)
class Setting:
    """What the cells of a network share: the task, the examples of a budget, and the search."""

    task: Callable
    cells: tuple
    budget: int
    trials: int
    seeds: int
    finalists: int
    final_seeds: int
    fresh: int
    decay: float = 0.0  # weight decay, not of biases and normalisation


def digits_cells():
    """Yield the cells of the digits, the most important first."""
    plain, both = Cell("nesterov", 256, 16), ("nesterov", "extrap_sgd")
    methods = [*both, "lars", "adam", "extrap_adam", *NOISE]
    yield from (replace(plain, method=name) for name in methods[:6])
    yield from (replace(plain, method=name, momentum=u) for u in (0.0, 0.9) for name in both)
    for every in (0, 8):
        yield from (replace(plain, method=name, end="decay", every=every) for name in both)
    yield from (replace(plain, method="extrap_sgd", workers=k) for k in (1, 64))
    yield from (replace(plain, method=name) for name in methods[6:])
    yield from (replace(plain, method=name, end="budget") for name in both)
    yield from (replace(plain, method=name, end="decay") for name in ("lars", *NOISE))
    yield from (replace(plain, method=name, momentum=u) for u in (0.5, 0.97) for name in both)
    yield from (replace(plain, method=name, batch_size=1024) for name in methods)
    yield from (replace(plain, method="extrap_gaussian", workers=k) for k in (1, 64))


def few_cells(batch_size, workers, methods=("nesterov", "extrap_sgd", "lars")):
    """Yield the main comparison, and that of local steps after the rate has fallen."""
    plain = Cell("nesterov", batch_size, workers)
    yield from (replace(plain, method=name) for name in methods)
    for name in methods[:2]:
        yield from (replace(plain, method=name, end="decay", every=n) for n in (0, 8))


def _task(load, model, target, *, sgd=(2**-7, 2**3), **limits):
    """Return a task that no sweep has."""
    rates = {"sgd": Range(*sgd), "adam": Range(2**-12, 2**-5), "lars": Range(2**-8, 2**2)}
    limits = {"examples": 2_000_000, "steps": 500} | limits
    return Task(load, model, {"validation": target}, rates, **limits)


def resnet_task():
    """Return ResNet-20 of half the width on the stored images of CIFAR-10."""
    return _task(
        lambda: cifar10(source="subset", validation=2_000, augment=FlipCrop()),
        resnet20(ghost_size=64, width=8),
        1.0,
    )


def lstm_task():
    """Return the LSTM of two layers on the characters of Tiny Shakespeare."""
    return _task(tiny_shakespeare, lstm(65), 1.8)


def transformer_task():
    """Return a small encoder and decoder that translates the captions of Multi30k."""
    data = multi30k()
    sizes = {"width": 64, "heads": 4, "units": 128, "layers": 2}
    counts = map(len, data.vocabularies)
    return _task(lambda: data, transformer(*counts, source_length=24, **sizes), 3.0)


_SHORT = {"examples": 0, "steps": 400, "patience": 1.5}


def small_resnet_task():
    """Return ResNet-20 of a quarter of the width on images of half the size, for a CPU."""
    return _task(
        lambda: cifar10(source="subset", validation=1_000, size=16, augment=FlipCrop()),
        resnet20(ghost_size=16, width=4),
        1.7,
        **_SHORT,
    )


def small_lstm_task():
    """Return the LSTM of half the width on shorter sequences, for a CPU."""
    return _task(
        lambda: tiny_shakespeare(length=32, validation=500),
        lstm(65, units=64),
        2.1,
        sgd=(2**-2, 2**6),
        **_SHORT,
    )


def small_transformer_task():
    """Return an encoder and decoder of one layer each on frequent words, for a CPU."""
    data = multi30k(source_length=16, target_length=16, min_count=10)
    sizes = {"width": 32, "heads": 2, "units": 64, "layers": 1}
    counts = map(len, data.vocabularies)
    return _task(lambda: data, transformer(*counts, source_length=16, **sizes), 3.0, **_SHORT)


_LARGER = {"trials": 16, "seeds": 1, "finalists": 3, "final_seeds": 2, "fresh": 5}
_SMALLER = {"trials": 12, "seeds": 1, "finalists": 2, "final_seeds": 2, "fresh": 5}
_ADAM = ("adam", "extrap_adam")
SETTINGS = {
    "digits-mlp": Setting(
        lambda: replace(TASKS["digits-mlp"], targets={"validation": 0.2}, patience=3),
        (*digits_cells(),), 15 * 1437, 96, 2, 8, 8, 32,
    ),
    "fashion-cnn-small": Setting(
        lambda: TASKS["fashion-cnn-small"], (*few_cells(1024, 16),), 150_000, 24, 1, 4, 3, 12
    ),
    "cifar10-resnet20-small": Setting(
        small_resnet_task, (*few_cells(256, 16),), 3 * 19_000, **_SMALLER, decay=1e-4
    ),
    "shakespeare-lstm-small": Setting(small_lstm_task, (*few_cells(256, 16),), 64_000, **_SMALLER),
    "multi30k-transformer-small": Setting(
        small_transformer_task, (*few_cells(256, 16, _ADAM),), 2 * 29_000, **_SMALLER
    ),
    "cifar10-resnet20": Setting(
        resnet_task, (*few_cells(1024, 16),), 30 * 18_000, **_LARGER, decay=1e-4
    ),
    "shakespeare-lstm": Setting(lstm_task, (*few_cells(1024, 16),), 20 * 16_000, **_LARGER),
    "multi30k-transformer": Setting(
        transformer_task, (*few_cells(1024, 16, _ADAM),), 20 * 29_000, **_LARGER
    ),
}  # fmt: skip


class Search:
    """The settings of one cell that were tried so far, and their scores: less is better."""

    def __init__(self, setting, cell, task, data, device):
        self.setting, self.cell, self.task, self.data = setting, cell, task, data
        self.device = device
        self.space = task.space(cell.method)
        if cell.momentum is not None:
            del self.space["momentum"]
        self.values = {name: np.empty(0) for name in self.space}
        self.scores, self.widened, self.drawn = np.empty(0), [], 0

    def train(self, values, seeds, patience):
        """Return the `TrialResults` of every setting with every seed; the seed changes fastest."""
        cell, columns = self.cell, dict(values)
        count = len(next(iter(columns.values())))
        if cell.momentum is not None:
            columns["momentum"] = np.full(count, cell.momentum)
        hyper = {name: np.repeat(v, len(seeds)) for name, v in hyperparameters(columns).items()}
        optimizer = OPTIMIZERS[cell.method]
        if self.setting.decay:
            decay = fix(weights_only(weight_decay), weight_decay=self.setting.decay)
            optimizer = chain(decay, optimizer)
        return train(
            self.data,
            self.task.model,
            optimizer,
            Trials(np.tile(seeds, count), hyper),
            batch_size=cell.batch_size,
            loss=self.task.loss,
            device=self.device,
            **self.course(patience),
        )

    def course(self, patience):
        """Return the options of `train` that say how a run goes and ends."""
        cell = self.cell
        if cell.end == "target":
            steps = self.task.max_steps(cell.batch_size)
            ends = {"target": self.task.targets, "exact": False, "patience": patience}
            return {**ends, "max_steps": steps, "exchange": synchronous(cell.workers)}
        steps = self.setting.budget // cell.batch_size
        drops = steps // 2, 3 * steps // 4
        exchange = synchronous(cell.workers)
        if cell.every:
            exchange = local_steps(cell.workers, cell.every, after=drops[0])
        return {
            "max_steps": steps,
            "evaluate_at": [0, *drops, steps],
            "schedule": step_drops(drops, 0.1) if cell.end == "decay" else constant,
            "exchange": exchange,
        }

    def score(self, results):
        """Return steps to the target, or the loss at the end; infinite where there is none."""
        if self.cell.end == "target":
            return results.steps_to_target
        return np.where(results.diverged, np.inf, np.nan_to_num(results.loss[:, -1], nan=np.inf))

    def attempt(self, space, count):
        """Try more settings."""
        values = draw(space, count, seed=0, skip=self.drawn)
        results = self.train(values, np.arange(self.setting.seeds), self.task.patience)
        self.drawn += count
        self.values = {name: np.append(self.values[name], new) for name, new in values.items()}
        scores = self.score(results).reshape(count, -1).mean(axis=1)
        self.scores = np.append(self.scores, scores)

    def borders(self, setting):
        """Return the names and sides of the ranges at whose border a setting lies."""
        sides = {n: r.border(self.values[n][setting]) for n, r in self.space.items()}
        return [
            (name, side)
            for name, side in sides.items()
            if side is not None and not (side == "low" and name in NO_LESS)
        ]

    def run(self):
        """Search, and return what the file keeps."""
        self.attempt(self.space, self.setting.trials)
        while len(self.widened) < WIDENINGS and (found := self.borders(self.scores.argmin())):
            for name, side in found:
                strip = self.space[name].beyond(side)
                self.attempt({**self.space, name: strip}, self.setting.trials // 2)
                self.space[name] = join(self.space[name], strip)
                self.widened.append(name)
        best = np.argsort(self.scores, kind="stable")[: self.setting.finalists]
        final = self.again(best, FINAL, self.setting.final_seeds)
        scores = self.score(final).reshape(len(best), -1)
        winner = best[scores.mean(axis=1).argmin()]
        fresh = self.again([winner], FRESH, self.setting.fresh)
        tuned = {name: float(v[0]) for name, v in fresh.trials.hyper.items()}
        kept = {
            "hyper": tuned,
            "at_border": [name for name, _ in self.borders(winner)],
            "widened": self.widened,
            "settings": self.drawn,
            "search": numbers(self.scores),
            "values": {name: numbers(v) for name, v in self.values.items()},
            "final": numbers(scores),
            "scores": numbers(self.score(fresh)),
        }
        if self.cell.end != "target":
            kept["accuracy"] = numbers(fresh.accuracy[:, -1])
        return kept

    def again(self, settings, first, count):
        """Return the `TrialResults` of some settings with other seeds."""
        values = {name: column[settings] for name, column in self.values.items()}
        return self.train(values, np.arange(first, first + count), None)


def numbers(values):
    """Return numbers of five digits in nested lists; None for what is not finite."""
    if np.ndim(values):
        return [numbers(value) for value in values]
    return float(f"{values:.5g}") if np.isfinite(values) else None


def main(network, device, folder=FOLDER):
    """Measure the cells of a network that its file does not hold."""
    setting, file = SETTINGS[network], folder / f"methods-{network}.json"
    stored = json.loads(file.read_text()) if file.exists() else {"cells": []}
    done = [stored_cell["cell"] for stored_cell in stored["cells"]]
    todo = [cell for cell in setting.cells if asdict(cell) not in done]
    task = setting.task()
    data = task.load()
    folder.mkdir(parents=True, exist_ok=True)
    command = f"python -m tools.measure_extrapolation {network} --device {device}"
    counts = ("budget", "trials", "seeds", "finalists", "final_seeds", "fresh", "decay")
    about = {"setting": {name: getattr(setting, name) for name in counts}}
    about["target"] = task.targets["validation"]
    for name, value in about.items():
        if stored.setdefault(name, value) != value:
            check.reject("file", str(file), f"one whose {name} is {value}; it is {stored[name]}")
    for cell in tqdm(todo, desc=network):
        start = time.perf_counter()
        kept = Search(setting, cell, task, data, device).run()
        origin = provenance(command, device, time.perf_counter() - start)
        stored["cells"].append({"cell": asdict(cell), **kept, "provenance": origin})
        write_record(file, stored)
        scores = [np.inf if s is None else s for s in kept["scores"]]
        tqdm.write(f"{cell} {np.mean(scores):.4g} {kept['hyper']} {kept['at_border']}")


def measure_more(network, count, device, folder=FOLDER):
    """Train the winners of the stored cells to the target with further seeds."""
    setting, file = SETTINGS[network], folder / f"methods-{network}.json"
    stored, task = json.loads(file.read_text("utf-8")), setting.task()
    data = task.load()
    command = f"python -m tools.measure_extrapolation {network} --more {count} --device {device}"
    todo = [c for c in stored["cells"] if c["cell"]["end"] == "target" and "more" not in c]
    for kept in tqdm(todo, desc=network):
        start = time.perf_counter()
        search = Search(setting, Cell(**kept["cell"]), task, data, device)
        winner = {name: np.array([value]) for name, value in kept["hyper"].items()}
        results = search.train(winner, np.arange(MORE, MORE + count), None)
        kept["more"] = numbers(search.score(results))
        kept["provenance of more"] = provenance(command, device, time.perf_counter() - start)
        write_record(file, stored)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("networks", nargs="+", choices=SETTINGS)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--more", type=int, metavar="SEEDS", help="of winners that are stored")
    asked = parser.parse_args()
    for each in asked.networks:
        if asked.more:
            measure_more(each, asked.more, asked.device)
        else:
            main(each, asked.device)
