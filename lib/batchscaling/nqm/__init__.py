"""The noisy quadratic model: exact risk of optimizers at every batch size. Needs no torch."""

from batchscaling.nqm.crossing import steps_to_target
from batchscaling.nqm.optimizers import SGD, HeavyBall, Optimizer
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
from batchscaling.nqm.tuning import Tuning, tune

__all__ = [
    "HeavyBall",
    "NoisyQuadratic",
    "Optimizer",
    "SGD",
    "Tuning",
    "convergence_rate",
    "is_stable",
    "risk",
    "risk_by_curvature",
    "risk_parts",
    "sample_paths",
    "steady_state_risk",
    "steps_to_target",
    "tune",
]
