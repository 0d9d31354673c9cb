"""The noisy quadratic model: exact risk of optimizers at every batch size. Needs no torch."""

from batchscaling.nqm.averaging import tail_average_risk
from batchscaling.nqm.batch_growth import fewest_examples_schedule, tuned_batch_sizes
from batchscaling.nqm.crossing import steps_to_target
from batchscaling.nqm.limits import (
    CriticalBatchSize,
    bayes_risk,
    critical_batch_size,
    lower_bound_steps,
    maximum_likelihood_risk,
)
from batchscaling.nqm.optimizers import SGD, Averaged, ExtrapSGD, HeavyBall, Nesterov, Optimizer
from batchscaling.nqm.problem import NoisyQuadratic
from batchscaling.nqm.risk import (
    convergence_rate,
    is_stable,
    risk,
    risk_by_curvature,
    risk_parts,
    steady_state_risk,
)
from batchscaling.nqm.sampling import sample_paths
from batchscaling.nqm.schedules import (
    Piece,
    fewest_steps_schedule,
    optimal_batch_sizes,
    optimal_lr_schedule,
    schedule_risk,
)
from batchscaling.nqm.tuning import Tuning, tune

__all__ = [
    "SGD",
    "Averaged",
    "CriticalBatchSize",
    "ExtrapSGD",
    "HeavyBall",
    "Nesterov",
    "NoisyQuadratic",
    "Optimizer",
    "Piece",
    "Tuning",
    "bayes_risk",
    "convergence_rate",
    "critical_batch_size",
    "fewest_examples_schedule",
    "fewest_steps_schedule",
    "is_stable",
    "lower_bound_steps",
    "maximum_likelihood_risk",
    "optimal_batch_sizes",
    "optimal_lr_schedule",
    "risk",
    "risk_by_curvature",
    "risk_parts",
    "sample_paths",
    "schedule_risk",
    "steady_state_risk",
    "steps_to_target",
    "tail_average_risk",
    "tune",
    "tuned_batch_sizes",
]
