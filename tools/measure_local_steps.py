"""Measure batch-size curves of local SGD on digits: the data of chapter extrapolation/05.

    python -m tools.measure_local_steps [file]

Simulated workers share a batch, take steps of SGD on their own, and average their parameters every
so many steps. For each number of workers, of local steps, and each batch size, a grid of rates is
tried, and lower ones where the lowest is best; the best is measured with seeds that did not choose
it.
Each cell is stored when it is done; called again, the command goes on where it ended. It takes a
quarter of an hour of one core.
"""

import sys
from pathlib import Path

import numpy as np

from batchscaling.training import TASKS, grid, local_steps, sgd, summarise, train
from tools.growing import fill

FILE = Path(__file__).parents[1] / "data" / "extrapolation" / "local_steps.json"
WORKERS, EVERY = (4, 16), (1, 4, 16)
SIZES = [16, 32, 64, 128, 256, 512, 1024]
RATES = 2.0 ** np.arange(-3, 4.1, 0.5)
SEARCH, FRESH = range(3), range(100, 120)  # seeds
TARGET, SPACING, PATIENCE = 0.2, 0.02, 3.0


def measure(workers, every, batch_size):
    """Return what the file keeps of a cell."""
    task = TASKS["digits-mlp"]
    options = {
        "batch_size": batch_size,
        "max_steps": task.max_steps(batch_size),
        "target": TARGET,
        "exchange": local_steps(workers, every),
        "spacing": SPACING,
        "patience": PATIENCE,
        "exact": False,
    }
    data = task.load()
    for more in range(4):
        rates = np.append(RATES[0] / 2.0 ** (np.arange(4 * more, 0, -1) / 2), RATES)
        found = summarise(train(data, task.model, sgd, grid(SEARCH, lr=rates), **options))
        rate = float(found.hyper["lr"][found.best])
        if not found.at_border["lr"]:
            break
    fresh = train(data, task.model, sgd, grid(FRESH, lr=rate), **options)
    return {
        "search": [int(s) if np.isfinite(s) else None for s in found.median],
        "lr": rate,
        "at_border": bool(found.at_border["lr"]),
        "steps": [int(s) if np.isfinite(s) else None for s in fresh.steps_to_target],
    }


def main(file):
    """Measure the cells that `file` does not hold."""
    cells = (
        {"workers": workers, "every": every, "batch_size": size}
        for workers in WORKERS
        for size in SIZES
        for every in EVERY
    )
    task = {"task": "digits-mlp", "target": TARGET, "rates": RATES.tolist()}
    fill(file, "cells", cells, measure, "python -m tools.measure_local_steps", task=task)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else FILE)
