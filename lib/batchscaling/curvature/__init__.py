"""Curvature of real losses: products, gradients, Kronecker factors, spectra. Needs torch."""

from batchscaling.curvature.eigenbasis import Directions, along_eigenbasis
from batchscaling.curvature.factors import kronecker_eigenvalues, kronecker_factors
from batchscaling.curvature.gradients import gradient_products, per_example_gradients
from batchscaling.curvature.products import (
    fisher_product,
    gauss_newton_product,
    gauss_newton_product_of,
    hessian_product,
    hessian_product_of,
)
from batchscaling.curvature.smoothness import gradient_lipschitz
from batchscaling.curvature.softmax import LocalQuadratic, SoftmaxRegression
from batchscaling.curvature.spectra import spectral_density
from batchscaling.curvature.steps import fisher_matrix, gauss_newton_step
from batchscaling.spectrum import trace_estimate
from batchscaling.training.models.taps import (
    Diagonal,
    Kronecker,
    as_matrix,
    from_matrix,
    layer_moments,
)

__all__ = [
    "Diagonal",
    "Directions",
    "Kronecker",
    "LocalQuadratic",
    "SoftmaxRegression",
    "along_eigenbasis",
    "as_matrix",
    "fisher_matrix",
    "fisher_product",
    "from_matrix",
    "gauss_newton_product",
    "gauss_newton_product_of",
    "gauss_newton_step",
    "gradient_lipschitz",
    "gradient_products",
    "hessian_product",
    "hessian_product_of",
    "kronecker_eigenvalues",
    "kronecker_factors",
    "layer_moments",
    "per_example_gradients",
    "spectral_density",
    "trace_estimate",
]
