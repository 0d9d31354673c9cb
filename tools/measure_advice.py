"""Ask for advice in runs of the sweeps' tasks: the data of chapter practice/04.

    python -m tools.measure_advice [advice | momentum] [file]

A run begins with the settings that a sweep found best at a small batch size. At some points of its
way, `batchscaling.practice.advise` is asked for the noise scale. What is stored for each time: the
reading with its interval, or why there is none, and the gradients of single examples that it took.
The sweeps know what each batch size really takes.

``advice`` takes about ten minutes of one core. ``momentum`` is about runs that were not
looked at when a rule for momentum was proposed, and takes as long.
"""

import json
import sys
import time
from itertools import product
from pathlib import Path

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from batchscaling import _validation as check
from batchscaling.curves import load_results
from batchscaling.practice import advise
from batchscaling.practice.kept import gradient
from batchscaling.training import TASKS, batches
from batchscaling.training.data.order import generator
from batchscaling.training.files import write_record
from batchscaling.training.provenance import provenance
from tools.growing import short

FOLDER = Path(__file__).parents[1] / "data" / "practice"
RUNS = {
    "advice": {
        ("digits-mlp", (16, 64)): ("sgd", "heavy_ball", "adam"),
        ("fashion-cnn-small", (16, 64)): ("sgd", "heavy_ball", "adam"),
        ("mnist-cnn-small", (16, 64)): ("sgd", "heavy_ball", "adam"),
        ("mnist-softmax", (64, 256)): ("sgd", "heavy_ball", "adam"),
    },
    "momentum": {
        ("digits-mlp", (16, 64)): ("nesterov",),
        ("mnist-softmax", (64, 256)): ("nesterov",),
        ("shakespeare-transformer", (4, 8)): ("sgd", "heavy_ball", "adam"),
        ("fashion-cnn-small-hard", (16, 64)): ("sgd", "heavy_ball", "adam"),
    },
}
"""For each file: tasks, batch sizes that runs begin with, and optimizers."""
SEEDS = range(3)
ASKED = (0.1, 0.25, 0.5)  # of the steps that the sweep took to the target


class Network(nn.Module):
    """A network of the book as an ordinary module."""

    def __init__(self, model, seed):
        super().__init__()
        self._model, params = model, model.init(generator(seed, "init"))
        self._names = list(params)
        self.held = nn.ParameterList(nn.Parameter(param) for param in params.values())

    def forward(self, inputs):
        return self._model.apply(dict(zip(self._names, self.held, strict=True)), inputs)


def optimizer_of(name, hyper, params, weight_decay):
    """Return torch's optimizer of that name."""
    more = {"lr": hyper["lr"], "weight_decay": weight_decay}
    if name == "adam":
        return torch.optim.Adam(params, betas=(hyper["beta1"], 0.999), **more)
    more["nesterov"] = name == "nesterov"
    return torch.optim.SGD(params, momentum=hyper.get("momentum", 0.0), **more)


def loss(outputs, labels):
    """Return the mean over all labels: one of each example, or one of each of its positions."""
    return cross_entropy(outputs.flatten(0, -2), labels.flatten())


def asked(task, data, cell, seed):
    """Yield what the file keeps of each time that a run is asked."""
    steps = int(cell.interval()[1])
    model = Network(task.model, seed)
    optimizer = optimizer_of(cell.optimizer, cell.tuned(), model.parameters(), task.weight_decay)
    pair = data.train_inputs, data.train_labels
    shares = {round(share * steps): share for share in ASKED}
    order = batches(seed, len(pair[0]), cell.batch_size)
    for step, indices in zip(range(max(shares) + 1), order, strict=False):
        if step in shares:
            options = {"batch_size": cell.batch_size, "layers": ["noise"], "seed": seed}
            advice = advise(model, loss, pair, optimizer, **options)
            yield {"seed": seed, "asked": shares[step], "steps": steps, **kept(advice.noise)}
        gradient(model, loss, [part[indices] for part in pair], optimizer)
        optimizer.step()


def kept(reading):
    """Return what the file keeps of a reading."""
    names = ("batch_size", "low", "high", "trace", "signal")
    found = {name: short(getattr(reading, name)) for name in names}
    found["noise_scale"] = found.pop("batch_size")
    return {**found, "reason": reading.reason, "probed": reading.measured, "taken": reading.taken}


def main(name, file):
    """Ask in every run, and write the file."""
    torch.set_num_threads(1)
    began, rows = time.perf_counter(), []
    for (task_name, sizes), optimizers in RUNS[name].items():
        task, data = TASKS[task_name], TASKS[task_name].load()
        cells = {(cell.optimizer, cell.batch_size): cell for cell in load_results(task=task_name)}
        for optimizer, size, seed in product(optimizers, sizes, SEEDS):
            run = {"task": task_name, "optimizer": optimizer, "batch_size": size}
            for row in asked(task, data, cells[optimizer, size], seed):
                rows.append({**run, **row})
                print(json.dumps(rows[-1]), flush=True)
    command = f"python -m tools.measure_advice {name}"
    origin = provenance(command, "cpu", time.perf_counter() - began)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_record(file, {"provenance": origin, "rows": rows})


if __name__ == "__main__":
    name = check.one_of("file", sys.argv[1] if len(sys.argv) > 1 else "advice", RUNS)
    main(name, Path(sys.argv[2]) if len(sys.argv) > 2 else FOLDER / f"{name}.json")
