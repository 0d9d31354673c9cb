"""The noise of SGD: its scale, its diffusion, its measure, and the evidence of a minimum.

Needs no torch.
"""

from batchscaling.noise.diffusion import (
    OrnsteinUhlenbeck,
    diffusion_constant,
    stationary_density,
    stationary_variance,
)
from batchscaling.noise.estimators import (
    NoiseEstimate,
    RunningNoise,
    gradient_noise,
    per_example_estimate,
    quadratic_noise_scales,
    ratio_estimate,
    two_batch_estimates,
)
from batchscaling.noise.evidence import (
    Evidence,
    laplace_evidence,
    laplace_evidence_from_log_det,
)
from batchscaling.noise.paths import sde_paths, sgd_paths
from batchscaling.noise.sampling import hamiltonian_draws
from batchscaling.noise.schedules import (
    Phase,
    decay_lr,
    examples_by_step,
    hybrid,
    increase_batch,
    matched_batch_size,
    noise_scale,
    published_schedules,
    steps_by_phase,
    updates,
)
from batchscaling.spectrum import Spectrum, lanczos_spectrum

__all__ = [
    "Evidence",
    "NoiseEstimate",
    "OrnsteinUhlenbeck",
    "Phase",
    "RunningNoise",
    "Spectrum",
    "decay_lr",
    "diffusion_constant",
    "examples_by_step",
    "gradient_noise",
    "hamiltonian_draws",
    "hybrid",
    "increase_batch",
    "lanczos_spectrum",
    "laplace_evidence",
    "laplace_evidence_from_log_det",
    "matched_batch_size",
    "noise_scale",
    "per_example_estimate",
    "published_schedules",
    "quadratic_noise_scales",
    "ratio_estimate",
    "sde_paths",
    "sgd_paths",
    "stationary_density",
    "stationary_variance",
    "steps_by_phase",
    "two_batch_estimates",
    "updates",
]
