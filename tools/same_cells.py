"""Compute stored cells of sweeps again, and compare the numbers with what is stored.

    python -m tools.same_cells
    python -m tools.same_cells --record before    # on a processor where the stored ones differ,
    python -m tools.same_cells --against before   # before and after a change

A change of the code that is to change no number leaves every cell the same: a line for each says
so, and the exit status is 1 where one differs. Where last bits change, a trial at the edge of
divergence may diverge or not, and a search draws one setting more: then a line for each measure
says whether what the cell is read for stays, the best setting and the median steps of fresh seeds.

Commits aa9f33e and 3e67dda, which compute dense layers transposed, changed the last bits of
training: cells of `digits-mlp` and of the CNNs that were stored before differ for that reason. The
last bits of a sum depend on the processor, too.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np

from batchscaling.curves import measured
from batchscaling.training import Cell, run_cell

CELLS = (
    ("digits-mlp", "sgd", 256),
    ("digits-mlp", "heavy_ball", 128),
    ("digits-mlp", "nesterov", 256),
    ("digits-mlp", "adam", 256),
    ("digits-mlp", "adam_without_momentum", 256),
    ("fashion-cnn-small", "heavy_ball", 32),
    ("fashion-cnn-small", "adam", 128),
    ("mnist-cnn-small", "heavy_ball", 64),
    ("mnist-softmax", "sgd", 256),
    ("mnist-softmax-averaged", "sgd", 256),
)
"""Every task that a CPU can train, and every optimizer, at batch sizes that take a minute or so."""

NUMBERS = ("hyper", "diverged", "steps", "fresh")


def numbers(record, name):
    """Return one of a record's `NUMBERS` as a flat array; NaN for None."""
    values = record[name].values() if isinstance(record[name], dict) else [record[name]]
    return np.concatenate([np.ravel(np.array(each, dtype=float)) for each in values])


def differences(stored, result):
    """Return which of `NUMBERS` differ between two records of a cell, and in how many places."""
    found = []
    for name in NUMBERS:
        one, other = numbers(stored, name), numbers(result, name)
        if len(one) != len(other):
            found.append(f"{name}: {len(other)} numbers, not {len(one)}")
        elif not np.array_equal(one, other, equal_nan=True):
            places = (one != other) & ~(np.isnan(one) & np.isnan(other))
            found.append(f"{name} in {places.sum()} of {len(one)} places")
    return found


def reading(record, measure):
    """Return the median steps of fresh seeds at the best setting of a measure, and the setting."""
    steps = [np.inf if n is None else n for n in record["fresh"][measure]]
    best = record["best"][measure]
    return np.median(steps), {name: round(v[best], 6) for name, v in record["hyper"].items()}


def compare(cell, folder, record):
    """Run a cell again and print whether it is the same as in `folder`; return whether."""
    stored = json.loads((folder / cell.file).read_text())
    start = time.perf_counter()
    result = run_cell(Cell(**stored["cell"]))
    if record is not None:
        (record / cell.file).write_text(json.dumps(result))
    found = differences(stored, result)
    verdict = f"differs: {', '.join(found)}" if found else "same"
    print(f"{cell.file:45} {time.perf_counter() - start:5.0f} s  {verdict}", flush=True)
    for measure in stored["fresh"] if found else ():
        (before, setting), (after, other) = reading(stored, measure), reading(result, measure)
        best = f"best setting {'the same' if setting == other else f'{other}, not {setting}'}"
        print(f"    {measure}: median {after:g} steps, stored {before:g}; {best}", flush=True)
    return not found


def main():
    """Compare all `CELLS`; the exit status is 1 where one differs."""
    parser = argparse.ArgumentParser(description="Compute stored cells again and compare them.")
    parser.add_argument("--record", type=Path, help="folder for what is computed")
    parser.add_argument("--against", type=Path, default=measured(), help="folder to compare with")
    options = parser.parse_args()
    if options.record is not None:
        options.record.mkdir(parents=True, exist_ok=True)
    cells = [Cell(*names) for names in CELLS]
    same = [compare(cell, options.against, options.record) for cell in cells]
    sys.exit(0 if all(same) else "some cells differ")


if __name__ == "__main__":
    main()
