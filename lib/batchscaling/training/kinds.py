"""What the arguments of training are: each of a type of its own."""

from batchscaling import _validation as check
from batchscaling.training.data.base import Data
from batchscaling.training.losses import Loss
from batchscaling.training.models.base import Model
from batchscaling.training.objective import Objective
from batchscaling.training.optimizers.base import Optimizer
from batchscaling.training.schedules import Schedule
from batchscaling.training.trials import Trials
from batchscaling.training.workers import Exchange

_KINDS = {
    "data": (Data, "a Data such as digits()"),
    "model": (Model, "a Model such as mlp([64, 32, 10]), or that of from_module"),
    "optimizer": (Optimizer, "an Optimizer such as sgd"),
    "trials": (Trials, "Trials such as grid(0, lr=0.1)"),
    "loss": (Loss, "a Loss such as cross_entropy"),
    "schedule": (Schedule, "a Schedule such as constant"),
    "exchange": (Exchange, "an Exchange such as synchronous(4)"),
    "objective": (Objective, "an Objective"),
}


def check_kinds(*, optional=(), **arguments):
    """Check the types of arguments of training.

    Parameters
    ----------
    optional : sequence of str
        Of the arguments that may be None.
    **arguments
        By the names that they have in `train`.

    Raises
    ------
    ValueError
        If one is of another type, such as a name, or the function that makes one.
    """
    for name, value in arguments.items():
        kind, allowed = _KINDS[name]
        if value is None and name in optional:
            continue
        if not isinstance(value, kind):
            check.reject(name, value, f"{allowed}, or None" if name in optional else allowed)
