"""Many real networks trained at once: a trial is a row of a tensor. Needs torch."""

from batchscaling.training.curves import first_crossing, fit_hyperbola, fit_shift
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
    "DataError",
    "FlipCrop",
    "Model",
    "Optimizer",
    "Summary",
    "TrialResults",
    "Trials",
    "batches",
    "cifar10",
    "digits",
    "evaluation_steps",
    "fashion_mnist",
    "first_crossing",
    "fit_hyperbola",
    "fit_shift",
    "from_npz",
    "grid",
    "heavy_ball",
    "mlp",
    "mnist",
    "multi30k",
    "sgd",
    "summarise",
    "tiny_shakespeare",
    "train",
    "train_step",
    "wikitext2",
]
