"""Many real networks trained at once: a trial is a row of a tensor. Needs torch."""

from batchscaling.training import _process  # noqa: F401, isort: skip

from batchscaling.curves import (
    BatchSizeCurve,
    CellResult,
    bootstrap_interval,
    first_crossing,
    fit_hyperbola,
    fit_shift,
    load_results,
    measured,
    median_interval,
)
from batchscaling.training.cells import Cell, run_cell
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
from batchscaling.training.from_phases import from_phases
from batchscaling.training.loop import evaluation_steps, train
from batchscaling.training.losses import (
    Loss,
    bernoulli_cross_entropy,
    cross_entropy,
    squared_error,
)
from batchscaling.training.measure import NoiseHistory, measure_noise
from batchscaling.training.models import (
    Model,
    from_module,
    lstm,
    mlp,
    resnet,
    resnet8,
    resnet20,
    resnet32,
    simple_cnn,
    softmax_regression,
    transformer,
    transformer_lm,
    vgg11,
    wide_resnet,
)
from batchscaling.training.objective import Objective
from batchscaling.training.optimizers import (
    Look,
    Optimizer,
    accumulator,
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
from batchscaling.training.schedules import (
    BatchSizes,
    Schedule,
    constant,
    linear_decay,
    linear_scaling,
    multiply_schedules,
    step_drops,
)
from batchscaling.training.search import Range, draw, hyperparameters, join
from batchscaling.training.sweeps import run_sweep
from batchscaling.training.tasks import OPTIMIZERS, TASKS, Task
from batchscaling.training.trials import Summary, TrialResults, Trials, grid, summarise
from batchscaling.training.workers import Exchange, local_steps, synchronous

__all__ = [
    "BatchSizeCurve",
    "BatchSizes",
    "Cell",
    "CellResult",
    "Data",
    "DataError",
    "Exchange",
    "FlipCrop",
    "Look",
    "Loss",
    "Model",
    "NoiseHistory",
    "OPTIMIZERS",
    "Objective",
    "Optimizer",
    "Range",
    "Schedule",
    "Summary",
    "TASKS",
    "Task",
    "TrialResults",
    "Trials",
    "accumulator",
    "adam",
    "adam_without_momentum",
    "batches",
    "bernoulli_cross_entropy",
    "bootstrap_interval",
    "chain",
    "cifar10",
    "constant",
    "cross_entropy",
    "decoupled_weight_decay",
    "digits",
    "draw",
    "evaluation_steps",
    "fashion_mnist",
    "first_crossing",
    "fit_hyperbola",
    "fit_shift",
    "fix",
    "from_module",
    "from_npz",
    "from_phases",
    "gradient_products",
    "grid",
    "heavy_ball",
    "hessian_product",
    "hyperparameters",
    "join",
    "lars",
    "layer_rate",
    "linear_decay",
    "linear_scaling",
    "load_results",
    "local_steps",
    "lstm",
    "measure_noise",
    "measured",
    "median_interval",
    "mlp",
    "mnist",
    "multi30k",
    "multiply_schedules",
    "nesterov",
    "per_example_gradients",
    "resnet",
    "resnet20",
    "resnet32",
    "resnet8",
    "run_cell",
    "run_sweep",
    "sgd",
    "simple_cnn",
    "softmax_regression",
    "squared_error",
    "step_drops",
    "summarise",
    "synchronous",
    "tiny_shakespeare",
    "train",
    "transformer",
    "transformer_lm",
    "vgg11",
    "weight_decay",
    "weights_only",
    "wide_resnet",
    "wikitext2",
]


def __getattr__(name):
    """Return what moved to `batchscaling.curvature`, which stands on this package."""
    if name in ("gradient_products", "hessian_product", "per_example_gradients"):
        from batchscaling import curvature

        return getattr(curvature, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
