"""Measure the quadratic of softmax regression: the data of chapter networks/00.

    python -m tools.measure_softmax [file]

The task is mnist-softmax. At the minimum: curvature and gradient noise along every eigenvector of
the Hessian, and the start, for SGD and for the preconditioner that Adam tends to there. On the way
to it: how curvature and noise along the same eigenvectors differ. It takes some minutes of one
core.
"""

import json
import sys
import time
from itertools import pairwise
from pathlib import Path

import numpy as np

from batchscaling.curvature import SoftmaxRegression
from batchscaling.training import TASKS
from batchscaling.training.provenance import provenance

FILE = Path(__file__).parents[1] / "data" / "softmax" / "mnist.json"
GROUPS = [0, 10, 30, 100, 300, 1000]  # edges of groups of eigenvectors; flat ones are left out
RATE = 0.5
KEPT = [0, 1, 4, 16, 64, 256, 1024, 4096]  # steps of gradient descent at which it looks


def spectrum(problem):
    """Return what the file keeps of a problem, with six digits."""
    arrays = {
        "curvature": problem.curvature,
        "noise": problem.noise,
        "second_moment": problem.second_moment,
    }
    return {name: [float(f"{value:.6g}") for value in values] for name, values in arrays.items()}


def path(regression, quadratic, vectors):
    """Yield what differs from the quadratic on the way that gradient descent takes."""
    params = np.zeros(regression.dim)
    for step in range(KEPT[-1] + 1):
        if step in KEPT:
            away = params - quadratic.point
            yield {
                "step": step,
                "excess": regression.value(params) - quadratic.minimum,
                "quadratic": float(away @ quadratic.hessian @ away / 2),
                "curvature": _along(vectors, regression.hessian(params)),
                "noise": _along(vectors, regression.gradient_covariance(params)),
            }
        params = params - RATE * regression.slope(params)


def _along(vectors, matrix):
    """Return the sum of a matrix's diagonal in the eigenbasis over each group."""
    diagonal = np.einsum("ij,ij->j", vectors, matrix @ vectors)
    return [float(diagonal[first:end].sum()) for first, end in pairwise(GROUPS)]


def regression_of(task):
    """Return the exact regression of a task of softmax regression."""
    data = task.load()
    decay = {"weight_decay": task.weight_decay}
    return SoftmaxRegression(data.train_inputs, data.train_labels, **decay)


def main(file):
    """Measure everything and write `file`."""
    began = time.perf_counter()
    regression = regression_of(TASKS["mnist-softmax"])
    quadratic = regression.local_quadratic()
    start = np.zeros(regression.dim)
    scales = 1 / np.sqrt(np.diag(quadratic.covariance))
    vectors = np.linalg.eigh(quadratic.hessian)[1][:, ::-1]
    result = {
        "minimum": quadratic.minimum,
        "excess": regression.value(start) - quadratic.minimum,
        "examples": len(regression.inputs),
        "sgd": spectrum(quadratic.problem(start)),
        "adam": spectrum(quadratic.problem(start, scales)),
        "groups": GROUPS,
        "rate": RATE,
        "path": list(path(regression, quadratic, vectors)),
        "provenance": provenance(
            "python -m tools.measure_softmax", "cpu", time.perf_counter() - began
        ),
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(result) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else FILE)
