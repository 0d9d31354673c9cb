"""Measure accuracy against batch size at a constant rate: the data of chapter noise/03.

    python -m tools.measure_best_batch_size [file]

A network of one hidden layer is trained on a few images of MNIST, at many batch sizes, for one
number of steps. Four settings each of the learning rate, the number of images and the momentum.
Each cell (a setting, a batch size, a split of the data) is stored when it is done; called again,
the command goes on where it ended. It takes about half an hour of one core.
"""

import sys
from dataclasses import replace
from pathlib import Path

from batchscaling.training import grid, heavy_ball, mlp, mnist, train
from tools.growing import fill

FILE = Path(__file__).parents[1] / "data" / "noise" / "best_batch_size.json"
SIZES = [1, 2, 4, 8, 16, 32, 64, 128]
SPLITS = range(4)  # of MNIST: each has its own training and validation images
SEEDS = range(8)
STEPS = 4096
KEPT = 3  # evaluations: at 1024, 2048 and 4096 steps
PIXELS, HIDDEN, VALIDATION = 14, 32, 5000
NOISIEST = 0.1  # lr / (1 - momentum) / batch size; above it, a first look found hardly any learning

# (lr, momentum, examples)
SETTINGS = [(lr, 0.0, 1000) for lr in (0.05, 0.1, 0.2, 0.4)]
SETTINGS += [(0.2, 0.0, examples) for examples in (250, 500, 2000)]
SETTINGS += [(0.05, momentum, 1000) for momentum in (0.5, 0.75, 0.875)]


def cells():
    """Yield what identifies each cell, one split after the other."""
    for split in SPLITS:
        for lr, momentum, examples in SETTINGS:
            for size in SIZES:
                if lr / (1 - momentum) / size <= NOISIEST:
                    cell = {"split": split, "lr": lr, "momentum": momentum}
                    yield {**cell, "examples": examples, "batch_size": size}


def measure(split, lr, momentum, examples, batch_size):
    """Train all seeds of one cell, and return what the file keeps of it."""
    data = mnist(size=PIXELS, examples=examples, validation=VALIDATION, seed=split)
    flat = {name: getattr(data, name).flatten(1) for name in ("train_inputs", "validation_inputs")}
    result = train(
        replace(data, **flat, test_inputs=None, test_labels=None),
        mlp([PIXELS**2, HIDDEN, 10]),
        heavy_ball,
        grid(SEEDS, lr=lr, momentum=momentum),
        batch_size=batch_size,
        max_steps=STEPS,
        measures=("validation", "training"),
        spacing=1.0,
    )
    return {
        "steps": result.steps[-KEPT:].tolist(),
        "accuracy": result.accuracy[:, -KEPT:].round(4).tolist(),
        "loss": result.loss[:, -KEPT:].round(4).tolist(),
        "training_loss": result.losses["training"][:, -KEPT:].round(5).tolist(),
    }


def main(file):
    """Measure the cells that `file` does not hold."""
    task = {"pixels": PIXELS, "hidden": HIDDEN, "validation": VALIDATION, "seeds": len(SEEDS)}
    fill(file, "cells", cells(), measure, "python -m tools.measure_best_batch_size", task=task)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else FILE)
