"""Spectra of curvature matrices of networks, by Lanczos' method."""

from functools import partial

from batchscaling import _validation as check
from batchscaling.curvature.products import fisher_product, gauss_newton_product, hessian_product
from batchscaling.spectrum import lanczos_spectrum
from batchscaling.training.losses import cross_entropy

MATRICES = {
    "hessian": hessian_product,
    "gauss_newton": gauss_newton_product,
    "empirical_fisher": partial(fisher_product, fisher="empirical"),
}


def spectral_density(
    model,
    params,
    inputs,
    labels,
    *,
    matrix="hessian",
    steps=50,
    probes=4,
    seed=0,
    loss=cross_entropy,
):
    """Return the spectrum of a curvature matrix of the mean loss.

    Parameters
    ----------
    model, params, inputs, labels
        As for `hessian_product`. Parameters should be in float64.
    matrix : {"hessian", "gauss_newton", "empirical_fisher"}
    steps, probes, seed
        As for `lanczos_spectrum`.
    loss : Loss

    Returns
    -------
    Spectrum
        ``density(grid, width)`` is its smoothed density, ``trace`` the trace of a function of it.

    Raises
    ------
    ValueError
        If an argument is outside its range.
    """
    check.one_of("matrix", matrix, MATRICES)
    product, dim = MATRICES[matrix](model, params, inputs, labels, loss=loss)
    return lanczos_spectrum(product, dim, steps=steps, probes=probes, seed=seed)
