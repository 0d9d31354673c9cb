"""Many real networks trained at once: a trial is a row of a tensor. Needs torch."""

from batchscaling.training.curves import first_crossing, fit_hyperbola, fit_shift
from batchscaling.training.data import Data, batches, digits
from batchscaling.training.models import Model, mlp
from batchscaling.training.optimizers import Optimizer, heavy_ball, sgd
from batchscaling.training.trials import (
    Summary,
    TrialResults,
    Trials,
    evaluation_steps,
    grid,
    summarise,
    train,
    train_step,
)

__all__ = [
    "Data",
    "Model",
    "Optimizer",
    "Summary",
    "TrialResults",
    "Trials",
    "batches",
    "digits",
    "evaluation_steps",
    "first_crossing",
    "fit_hyperbola",
    "fit_shift",
    "grid",
    "heavy_ball",
    "mlp",
    "sgd",
    "summarise",
    "train",
    "train_step",
]
