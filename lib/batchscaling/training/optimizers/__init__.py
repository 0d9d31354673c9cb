"""Optimizers of networks, one method a file, and how to combine them."""

from batchscaling.training.optimizers.accumulator import accumulator
from batchscaling.training.optimizers.adam import adam, adam_without_momentum
from batchscaling.training.optimizers.base import (
    AnotherBatch,
    Look,
    Optimizer,
    Outcome,
    Taken,
    chain,
    fix,
    weights_only,
    with_fisher,
)
from batchscaling.training.optimizers.diagonal_fisher import diagonal_fisher
from batchscaling.training.optimizers.ema_nesterov import ema_nesterov
from batchscaling.training.optimizers.extrap_adam import extrap_adam
from batchscaling.training.optimizers.extrap_noise import (
    extrap_gaussian,
    extrap_gradient,
    extrap_uniform,
    smoothout,
)
from batchscaling.training.optimizers.extrap_sgd import extrap_sgd
from batchscaling.training.optimizers.gradient_perturbed import gradient_perturbed
from batchscaling.training.optimizers.heavy_ball import heavy_ball
from batchscaling.training.optimizers.kfac import (
    adaptive_kfac_preconditioner,
    kfac,
    kfac_adaptive_damping,
    kfac_preconditioner,
    kfac_without_momentum,
)
from batchscaling.training.optimizers.lars import lars, layer_rate
from batchscaling.training.optimizers.nesterov import nesterov
from batchscaling.training.optimizers.nesterov_lookahead import nesterov_lookahead
from batchscaling.training.optimizers.perturbed import perturbation, perturbed
from batchscaling.training.optimizers.sgd import sgd
from batchscaling.training.optimizers.weight_decay import decoupled_weight_decay, weight_decay

__all__ = [
    "AnotherBatch",
    "Look",
    "Optimizer",
    "Outcome",
    "Taken",
    "accumulator",
    "adam",
    "adam_without_momentum",
    "adaptive_kfac_preconditioner",
    "chain",
    "decoupled_weight_decay",
    "diagonal_fisher",
    "ema_nesterov",
    "extrap_adam",
    "extrap_gaussian",
    "extrap_gradient",
    "extrap_sgd",
    "extrap_uniform",
    "fix",
    "gradient_perturbed",
    "heavy_ball",
    "kfac",
    "kfac_adaptive_damping",
    "kfac_preconditioner",
    "kfac_without_momentum",
    "lars",
    "layer_rate",
    "nesterov",
    "nesterov_lookahead",
    "perturbation",
    "perturbed",
    "sgd",
    "smoothout",
    "weight_decay",
    "weights_only",
    "with_fisher",
]
