"""Extrapolated SGD with noise: Nesterov momentum whose gradient is taken at a random point nearby.

Each is a `chain` of the noise and `nesterov_lookahead`, and has the hyperparameters of both. Lin,
Kong, Stich and Jaggi (2020), Extrapolation for large-batch training in deep learning, section 3.2.
"""

from batchscaling.training.optimizers.base import chain
from batchscaling.training.optimizers.gradient_perturbed import gradient_perturbed
from batchscaling.training.optimizers.nesterov_lookahead import nesterov_lookahead
from batchscaling.training.optimizers.perturbed import perturbation

extrap_gaussian = chain(perturbation(by_filter=True), nesterov_lookahead)
"""Normal noise, each filter's scaled to its norm: ``radius`` is relative to the weights."""

extrap_uniform = chain(perturbation("uniform", by_filter=True), nesterov_lookahead)
"""`extrap_gaussian` with uniform noise."""

smoothout = chain(perturbation("uniform", by_filter=True, shared=True), nesterov_lookahead)
"""`extrap_uniform` whose workers all get the same numbers; with one worker, it is the same method.

Wen et al. (2018), SmoothOut: smoothing out sharp minima to improve generalization in deep learning.
"""

extrap_gradient = chain(gradient_perturbed, nesterov_lookahead)
"""A step along the gradient of another batch, of length ``extrapolation``: two gradients a step."""
