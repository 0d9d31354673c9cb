"""Gradients at random points near the parameters."""

import torch

from batchscaling import _validation as check
from batchscaling.training.optimizers.base import Optimizer, no_state


def _normal(shape, rng):
    return torch.randn(shape, generator=rng)


def _uniform(shape, rng):
    return 2 * torch.rand(shape, generator=rng) - 1


NOISE = {"normal": _normal, "uniform": _uniform}


def perturbation(noise="normal", *, by_filter=False, shared=False):
    """Return a part before an optimizer: gradients are taken at w + radius z, z random.

    ``chain(perturbation(), sgd)`` descends on the loss smoothed by normal noise [1]_, and with
    `nesterov_lookahead` behind it, the noise comes on top of the look-ahead.

    Parameters
    ----------
    noise : {"normal", "uniform"}
        Of variance 1; or from -1 to 1.
    by_filter : bool
        Scale the noise of each filter to the norm of the filter, so that `radius` is relative. A
        filter is what leads to one channel or unit: a row of a convolution's weight, a column of
        another with two dimensions, as those of `mlp` are. An ``nn.Linear`` of `from_module` has
        one unit a row, and is not scaled unit by unit. Tensors of one dimension stay as they are.
    shared : bool
        Whether all workers of a trial get the same numbers, as in SmoothOut [2]_.

    Returns
    -------
    Optimizer
        With the hyperparameter ``radius``.

    Raises
    ------
    ValueError
        If an argument is not allowed.

    References
    ----------
    .. [1] Lin, Kong, Stich and Jaggi (2020), Extrapolation for large-batch training in deep
       learning, section 3.
    .. [2] Wen et al. (2018), SmoothOut: smoothing out sharp minima to improve generalization in
       deep learning.
    """
    number = NOISE[check.one_of("noise", noise, NOISE)]
    by_filter, shared = check.flag("by_filter", by_filter), check.flag("shared", shared)

    def draw(rng, params, batch_size):
        return {name: number(p.shape, rng) for name, p in params.items()}

    def query(params, state, hyper, drawn):
        if by_filter:
            drawn = {name: _like_filters(z, params[name]) for name, z in drawn.items()}
        return {n: torch.addcmul(p, hyper["radius"], drawn[n]) for n, p in params.items()}

    rules = {"radius": check.nonnegative}
    return Optimizer(no_state, _update, rules, query=query, draw=draw, shared_draw=shared)


def _update(grads, state, params, hyper):
    return grads, state


def _like_filters(noise, weight):
    """Return the noise, each filter scaled to the norm of the weight's; zero for single numbers."""
    if weight.ndim < 2:
        return torch.zeros_like(weight)
    # Convolutions have (filters, ...), dense layers (inputs, units).
    axes = tuple(range(1, weight.ndim)) if weight.ndim > 2 else (0,)
    norms = (torch.linalg.vector_norm(t, dim=axes, keepdim=True) for t in (weight, noise))
    of_weight, of_noise = norms
    return noise * (of_weight / of_noise.clamp(min=torch.finfo(noise.dtype).tiny))


perturbed = perturbation()
"""`perturbation` with normal noise of one scale."""
