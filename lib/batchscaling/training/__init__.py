"""Many real networks trained at once: a trial is a row of a tensor. Needs torch."""

import os

# Without it the last bits of a matrix product depend on where in memory its matrices lie, and a
# trial on its neighbours. MKL reads this at its first product; it costs no time.
os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")

from batchscaling.training.curves import (
    first_crossing,
    fit_hyperbola,
    fit_shift,
    median_interval,
)
from batchscaling.training.data import (
    Data,
    DataError,
    FlipCrop,
    batches,
    cifar10,
    digits,
    fashion_mnist,
    from_npz,
    mnist,
    multi30k,
    tiny_shakespeare,
    wikitext2,
)
from batchscaling.training.loop import evaluation_steps, train
from batchscaling.training.models import Model, mlp, simple_cnn
from batchscaling.training.optimizers import (
    Optimizer,
    adam,
    adam_without_momentum,
    chain,
    decoupled_weight_decay,
    fix,
    heavy_ball,
    lars,
    layer_rate,
    nesterov,
    sgd,
    weight_decay,
    weights_only,
)
from batchscaling.training.results import CellResult, load_results
from batchscaling.training.schedules import (
    BatchSizes,
    Schedule,
    constant,
    linear_decay,
    linear_scaling,
    multiply_schedules,
    step_drops,
)
from batchscaling.training.search import Range, draw, hyperparameters
from batchscaling.training.sweeps import Cell, run_cell, run_sweep
from batchscaling.training.tasks import OPTIMIZERS, TASKS, Task
from batchscaling.training.trials import Summary, TrialResults, Trials, grid, summarise

__all__ = [
    "OPTIMIZERS",
    "TASKS",
    "BatchSizes",
    "Cell",
    "CellResult",
    "Data",
    "DataError",
    "FlipCrop",
    "Model",
    "Optimizer",
    "Range",
    "Schedule",
    "Summary",
    "Task",
    "TrialResults",
    "Trials",
    "adam",
    "adam_without_momentum",
    "batches",
    "chain",
    "cifar10",
    "constant",
    "decoupled_weight_decay",
    "digits",
    "draw",
    "evaluation_steps",
    "fashion_mnist",
    "first_crossing",
    "fit_hyperbola",
    "fit_shift",
    "fix",
    "from_npz",
    "grid",
    "heavy_ball",
    "hyperparameters",
    "lars",
    "layer_rate",
    "linear_decay",
    "linear_scaling",
    "load_results",
    "median_interval",
    "mlp",
    "mnist",
    "multi30k",
    "multiply_schedules",
    "nesterov",
    "run_cell",
    "run_sweep",
    "sgd",
    "simple_cnn",
    "step_drops",
    "summarise",
    "tiny_shakespeare",
    "train",
    "weight_decay",
    "weights_only",
    "wikitext2",
]
