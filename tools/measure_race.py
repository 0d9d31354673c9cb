"""Let optimizers race in runs of the sweeps' tasks: the data of chapter practice/05.

    python -m tools.measure_race [task ...] [folder]

A run begins with the settings that a sweep found best. After a tenth of the steps that it takes,
`batchscaling.practice.race` is asked, once for a race of a quarter of these steps and once for nine
tenths: what is left of the run. What is stored for each: how many times fewer steps one contender
takes than another, with the interval. The sweeps know what it is over whole runs.

There is a file for each task. Each race is stored when it is done; called again, the command goes
on where it ended. It takes about an hour of one core.
"""

import sys
from itertools import product
from pathlib import Path

import torch
from torch import nn

from batchscaling.curves import load_results
from batchscaling.practice import race
from batchscaling.practice.kept import gradient
from batchscaling.training import TASKS, batches
from batchscaling.training.data.order import generator
from tools.growing import fill, short
from tools.measure_advice import FOLDER, optimizer_of

RACES = FOLDER / "race"
RUNS = {
    "digits-mlp": (16, 64, 256, 1024),
    "fashion-cnn-small": (64, 256, 1024),
    "mnist-cnn-small": (64, 256),
    "mnist-softmax": (1024, 4096),
}
"""Batch sizes of the races on each task."""
OPTIMIZERS = "heavy_ball", "adam"
SEEDS = range(2)
ASKED, LENGTHS = 0.1, (0.25, 0.9)  # in units of the steps that the sweep took to the target
PAIRS = {
    "heavy_ball": (("momentum", "sgd"), ("adam", "momentum"), ("kfac", "adam")),
    "adam": (("adam", "adam_without_momentum"), ("adam", "momentum"), ("kfac", "adam")),
}
"""What is asked of the races of a run: how many steps the first saves over the second."""


def network(task, seed):
    """Return the network of a task in layers of torch.nn, so that K-FAC sees what goes through."""
    params, layers = task.model.init(generator(seed, "init")), []
    for place in range(len(params) // 2):
        weight = params[f"layer{place}.weight"]
        if weight.ndim == 4:
            layers += [nn.Conv2d(weight.shape[1], len(weight), 5, padding=2), nn.MaxPool2d(2)]
        else:
            layers += [nn.Flatten(), nn.Linear(*weight.shape)]
        layers.append(nn.ReLU())
    built = nn.Sequential(*layers[:-1])
    with torch.no_grad():
        for own, value in zip(built.parameters(), params.values(), strict=True):
            own.copy_(value.mT if value.ndim == 2 else value)
    return built


def begun(task, data, cell, seed):
    """Return the network and the optimizer of a run that has taken a tenth of its steps."""
    model = network(task, seed)
    optimizer = optimizer_of(cell.optimizer, cell.tuned(), model.parameters(), task.weight_decay)
    pair = data.train_inputs, data.train_labels
    order = batches(seed, len(pair[0]), cell.batch_size)
    for indices, _ in zip(order, range(round(ASKED * _steps(cell))), strict=False):
        gradient(model, loss_of(task), [part[indices] for part in pair], optimizer)
        optimizer.step()
    return model, optimizer


def loss_of(task):
    """Return the mean of a task's loss over all rows of outputs."""
    return lambda outputs, labels: task.loss.scores(outputs, labels)[0].mean()


def raced(task, data, cell, seed, length):
    """Return what the file keeps of a race."""
    model, optimizer = begun(task, data, cell, seed)
    pair, steps = (data.train_inputs, data.train_labels), max(4, round(length * _steps(cell)))
    options = {"batch_size": cell.batch_size, "steps": steps, "seed": seed}
    found = race(model, loss_of(task), pair, optimizer, **options)
    pairs = {
        f"{one} over {other}": [*numbers(found.saved(one, other)), found.verdict(one, other)]
        for one, other in PAIRS[cell.optimizer]
        if one in found.losses
    }
    hyper = {
        name: dict(zip(best, numbers(best.values()), strict=True))
        for name, best in found.hyper.items()
    }
    cost = found.examples / cell.batch_size / _steps(cell)
    return {"steps": steps, "saved": pairs, "hyper": hyper, "cost": short(cost, 4)}


def numbers(values):
    """Return what the file keeps of numbers."""
    return [short(value, 4) for value in values]


def _steps(cell):
    return int(cell.interval()[1])


def races_of(name, file):
    """Let those of a task race that its file does not hold."""
    task, data = TASKS[name], TASKS[name].load()
    stored = {(cell.optimizer, cell.batch_size): cell for cell in load_results(task=name)}

    def measure(batch_size, optimizer, seed, length, **_):
        return raced(task, data, stored[optimizer, batch_size], seed, length)

    keys = ("task", "batch_size", "optimizer", "seed", "length")
    races = product([name], RUNS[name], OPTIMIZERS, SEEDS, LENGTHS)
    cells = (dict(zip(keys, race, strict=True)) for race in races)
    fill(file, "rows", cells, measure, f"python -m tools.measure_race {name}")


def main(tasks, folder):
    """Let optimizers race on these tasks, or on all."""
    torch.set_num_threads(1)
    for name in tasks or RUNS:
        races_of(name, folder / f"{name}.json")


if __name__ == "__main__":
    tasks = [word for word in sys.argv[1:] if word in RUNS]
    main(tasks, *[Path(word) for word in sys.argv[1:] if word not in RUNS] or [RACES])
