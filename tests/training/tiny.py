"""A task that takes a moment, and the command line with it: ``python tiny.py sweep --task tiny``.

Processes that a sweep starts import this file again, and so know the task too.
"""

import torch

from batchscaling.__main__ import main
from batchscaling.training import TASKS, Data, Range, Task, cells, mlp

FEATURES, CLASSES, TRAIN, VALIDATION = 6, 3, 96, 48


def load():
    rng = torch.Generator().manual_seed(0)
    inputs = torch.randn(TRAIN + VALIDATION, FEATURES, generator=rng)
    scores = inputs @ torch.randn(FEATURES, CLASSES, generator=rng)
    labels = (scores + 0.5 * torch.randn(scores.shape, generator=rng)).argmax(1)
    return Data(inputs[:TRAIN], labels[:TRAIN], inputs[TRAIN:], labels[TRAIN:])


TINY = Task(
    load=load,
    model=mlp([FEATURES, 8, CLASSES]),
    targets={"validation": 0.6, "training": 0.5, "averaged": 0.6},
    rates={
        "sgd": Range(2**-6, 2**4),
        "adam": Range(2**-8, 2**1),
        "kfac": Range(2**-6, 2**2),
        "lars": Range(2**-8, 2**2),
    },
    examples=800,
    steps=40,
)


def run_cell(cell, *, device):
    """Run a cell in a worker of a cluster, which knows no task "tiny" yet."""
    TASKS["tiny"] = TINY
    return cells.run_cell(cell, device=device)


if __name__ in ("__main__", "__mp_main__"):
    TASKS["tiny"] = TINY

if __name__ == "__main__":
    main()
