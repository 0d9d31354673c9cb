"""Measure what preconditioners make of softmax regression's quadratic: for chapter networks/06.

    python -m tools.measure_preconditioned [file]

The task is mnist-softmax. At the minimum, the matrix that K-FAC multiplies the gradient by is
fixed, for each damping: the inverse of the damped factors of the Fisher matrix of all training
examples, labels weighted by the model's probabilities. The file holds curvature, gradient noise and
start of the problem with this matrix as preconditioner.
It also holds the largest curvature at the start of training, with this matrix and with H^-p, where
H is the Hessian at the minimum: gradient descent needs a rate below 2 over it. It takes some
minutes of one core.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from scipy.linalg import eigh

from batchscaling.curvature import kronecker_factors
from batchscaling.training import TASKS, kfac_preconditioner
from batchscaling.training.provenance import provenance
from tools.measure_newton import POWERS, inverse_power
from tools.measure_softmax import regression_of, spectrum

FILE = Path(__file__).parents[1] / "data" / "softmax" / "mnist-preconditioned.json"
DAMPINGS = [1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0]  # all of the range that sweeps search


def factors_at(model, point, data):
    """Return the exact Kronecker factors of the Fisher matrix, in double precision."""
    start, pieces = model.init(torch.Generator()), torch.as_tensor(point)
    pieces = pieces.split([p.numel() for p in start.values()])
    params = {name: v.view_as(p) for (name, p), v in zip(start.items(), pieces, strict=True)}
    inputs = data.train_inputs.double()
    return kronecker_factors(model, params, inputs, data.train_labels, fisher="exact", chunk=4096)


def preconditioner(factors, damping):
    """Return the matrix that K-FAC multiplies the gradient by once its averages are `factors`."""
    (look,) = kfac_preconditioner.looks
    hyper = {"damping": torch.tensor(damping).double(), "factor_decay": torch.tensor(0.0).double()}
    state = look.fold(factors, kfac_preconditioner.init({"": torch.zeros(1).double()}), hyper)
    (block,) = state["inverses"].values()
    return torch.kron(block.inputs, block.outputs).numpy()


def steepest(hessian, matrix):
    """Return the largest curvature in coordinates in which the update is plain SGD."""
    last = len(hessian) - 1
    return float(
        eigh(hessian, np.linalg.inv(matrix), eigvals_only=True, subset_by_index=[last, last])[0]
    )


def main(file):
    """Measure everything and write `file`."""
    began = time.perf_counter()
    task = TASKS["mnist-softmax"]
    regression = regression_of(task)
    quadratic, start = regression.local_quadratic(), np.zeros(regression.dim)
    first, factors = regression.hessian(start), factors_at(task.model, quadratic.point, task.load())
    kfac = [preconditioner(factors, damping) for damping in DAMPINGS]
    record = {
        "dampings": DAMPINGS,
        "kfac": [spectrum(quadratic.problem(start, matrix)) for matrix in kfac],
        "steepest_at_start": {
            "kfac": [steepest(first, matrix) for matrix in kfac],
            **{f"{p:g}": steepest(first, inverse_power(quadratic.hessian, p)) for p in POWERS},
        },
    }
    seconds = time.perf_counter() - began
    record["provenance"] = provenance("python -m tools.measure_preconditioned", "cpu", seconds)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(record) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else FILE)
