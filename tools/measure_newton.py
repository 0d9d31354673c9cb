"""Measure Newton's method on softmax regression: the data of the section in chapter networks/06.

    python -m tools.measure_newton [--power 1 0.5] [--batch-size 4096 ...] [--out folder]

The task is mnist-softmax. SGD's gradient is multiplied by H^-p, where H is the objective's exact
Hessian at the minimum: what the noisy quadratic model calls preconditioning with the power p.
A cell is a power and a batch size, searched as those of `batchscaling sweep` are, with the numbers
of settings and seeds of the task's cells of SGD, and a range of rates around the one that the model
calls best. Each cell is a file, written when it is done; called again, the command goes on where it
ended. It takes some minutes for the Hessian, and some for each cell.
"""

import argparse
import json
from dataclasses import dataclass, fields
from functools import lru_cache
from itertools import product
from pathlib import Path

import numpy as np
import torch

from batchscaling.nqm import SGD, NoisyQuadratic, tune
from batchscaling.training import OPTIMIZERS, TASKS, Cell, Optimizer, Range, Task, chain, fix
from batchscaling.training import weight_decay as decay
from batchscaling.training.cells import run_cell
from batchscaling.training.files import write_record
from tools.measure_softmax import regression_of

DATA = Path(__file__).parents[1] / "data" / "softmax"
BASE = "mnist-softmax"
POWERS = (1.0, 0.5)
SIZES = (4096, 1024, 16384, 256, 64, 55000, 16)
SEARCH = {"trials": 16, "seeds": 1, "finalists": 4, "final_seeds": 3, "fresh": 8}
BELOW, ABOVE = 2.0**6, 2.0**3
"""Ends of the range of rates, relative to the model's best one: as long as SGD's range, with more
of it below, because the curvature at the start is larger than at the minimum."""


def multiplied(matrix):
    """Return the part of a chain that multiplies the gradient by a fixed matrix.

    Parameters
    ----------
    matrix : ndarray, shape (P, P)
        Acts on all parameters as one vector, in their order.
    """
    matrix = torch.as_tensor(matrix, dtype=torch.float32)

    def update(grads, state, params, hyper):
        turned = matrix @ torch.cat([grad.flatten() for grad in grads.values()])
        pieces = turned.split([grad.numel() for grad in grads.values()])
        pairs = zip(grads.items(), pieces, strict=True)
        return {name: piece.view_as(grad) for (name, grad), piece in pairs}, state

    return Optimizer(lambda params: {}, update, {})


def inverse_power(hessian, power):
    """Return H^-p of a positive definite matrix."""
    values, vectors = np.linalg.eigh(hessian)
    return (vectors * values**-power) @ vectors.T


@dataclass(frozen=True, eq=False)
class Preconditioned(Task):
    """A task whose optimizers get the gradient of the objective times a matrix.

    Attributes
    ----------
    base : Task
        The same without the matrix.
    matrix : ndarray, shape (P, P)
    """

    base: Task | None = None
    matrix: np.ndarray | None = None

    def optimizer(self, name):
        """Return one of `OPTIMIZERS` after weight decay and the matrix."""
        penalty = fix(decay, weight_decay=self.weight_decay)
        return chain(penalty, multiplied(self.matrix), OPTIMIZERS[name])

    @property
    def objective(self):
        """That of the task without the matrix, which is found only once."""
        return self.base.objective


def preconditioned(base, hessian, power, rates):
    """Return a task with the gradient times H^-p.

    Parameters
    ----------
    base : Task
        Whose weight decay is positive.
    hessian : ndarray, shape (P, P)
        Of its objective, at the minimum.
    power : float
    rates : Range
    """
    held = {field.name: getattr(base, field.name) for field in fields(Task)}
    held |= {"name": f"{BASE}-power-{power:g}", "rates": {"sgd": rates}}
    return Preconditioned(**held, base=base, matrix=inverse_power(hessian, power))


@lru_cache
def hessian_of(base):
    """Return the Hessian of a task's objective at its minimum."""
    regression = regression_of(base)
    return regression.hessian(regression.minimise())


def rates_around(problem, power, size, target):
    """Return the range of rates around the best one of the noisy quadratic model."""
    (best,) = tune(problem.precondition(power).quantize(100), SGD, [size], target).lr
    return Range(best / BELOW, best * ABOVE)


def measure(base, problem, power, size, search, folder):
    """Measure a cell whose file does not exist yet, and write it."""
    rates = rates_around(problem, power, size, base.targets["objective"])
    cell = Cell(preconditioned(base, hessian_of(base), power, rates), "sgd", size, **search)
    path = folder / cell.file
    if path.exists():
        return
    record = run_cell(cell)
    command = f"python -m tools.measure_newton --power {power:g} --batch-size {size}"
    record["provenance"]["command"] = command
    write_record(path, record)
    print(path.name, record["fresh"], record["provenance"]["seconds"], flush=True)


def main(powers, sizes, folder):
    """Measure the cells that the folder does not hold."""
    record = json.loads((DATA / "mnist.json").read_text("utf-8"))
    problem = NoisyQuadratic(**record["sgd"])
    folder.mkdir(parents=True, exist_ok=True)
    for size, power in product(sizes, powers):
        measure(TASKS[BASE], problem, power, size, SEARCH, folder)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--power", nargs="+", type=float, default=POWERS)
    parser.add_argument("--batch-size", nargs="+", type=int, default=SIZES)
    parser.add_argument("--out", type=Path, default=DATA / "newton")
    asked = parser.parse_args()
    main(asked.power, asked.batch_size, asked.out)
