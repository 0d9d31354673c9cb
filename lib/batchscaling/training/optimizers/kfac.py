"""K-FAC: the inverse of a Kronecker-factored Fisher matrix, layer by layer [1]_.

References
----------
.. [1] Martens and Grosse (2015), Optimizing neural networks with Kronecker-factored approximate
   curvature.
"""

import torch
from torch.utils._pytree import tree_map

from batchscaling import _validation as check
from batchscaling.training.models.layers_cpu import ByRows
from batchscaling.training.models.taps import Diagonal, Kronecker, as_matrix, from_matrix
from batchscaling.training.optimizers.base import Look, Optimizer, chain
from batchscaling.training.optimizers.heavy_ball import heavy_ball
from batchscaling.training.optimizers.sgd import sgd

EVERY = 10
"""Steps from one look at the layers, and inversion, to the next."""

_LEAST_TRACE = 1e-20  # of a factor, where damping is balanced between two of them


def _init(params):
    # Sizes of the factors are known once the layers were looked at, before the first step.
    return {"looks": next(iter(params.values())).new_zeros(())}


def _fold(moments, state, hyper):
    """Add one look to the running averages, and invert them."""
    decay, looks = hyper["factor_decay"], state["looks"] + 1
    average = state.get("average") or tree_map(torch.zeros_like, moments)
    average = tree_map(lambda old, new: torch.lerp(new, old, decay), average, moments)
    # As if all weights so far added up to 1; where decay is 0 they do.
    weight = 1 - decay**looks
    inverses = {
        name: _inverted(tree_map(lambda tensor: tensor / weight, moment), hyper["damping"])
        for name, moment in average.items()
    }
    return {"looks": looks, "average": average, "inverses": inverses}


def _inverted(moment, damping):
    """Return the inverses of the damped factors, or of a damped diagonal."""
    if isinstance(moment, Diagonal):
        return Diagonal(1 / (moment.squares + damping))
    sides = [_mean_of_diagonal(factor).clamp(min=_LEAST_TRACE) for factor in moment]
    balance, root = (sides[0] / sides[1]).sqrt(), damping.sqrt()
    shares = root * balance, root / balance
    return Kronecker(*(_inverse(*pair) for pair in zip(moment, shares, strict=True)))


def _mean_of_diagonal(factor):
    return (factor if factor.ndim == 1 else factor.diagonal()).mean()


def _inverse(factor, shift):
    """Return the inverse of a factor plus a multiple of the identity."""
    return 1 / (factor + shift) if factor.ndim == 1 else _Inverse.apply(factor, shift)


class _Inverse(ByRows):
    """The inverse of symmetric matrices of shape (..., n, n) plus `shift` of shape (...)."""

    @staticmethod
    def forward(factor, shift):
        identity = torch.eye(factor.shape[-1], dtype=factor.dtype, device=factor.device)
        root, failed = torch.linalg.cholesky_ex(factor + shift[..., None, None] * identity)
        inverse = torch.cholesky_inverse(root)
        # Rounding can make a factor indefinite by more than the shift. What diverged stays so.
        failed = (failed > 0) & factor.flatten(-2).isfinite().all(-1)
        if failed.any():
            inverse[failed] = _inverse_by_eigenvalues(factor[failed], shift[failed])
        return inverse

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.mark_non_differentiable(output)


def _inverse_by_eigenvalues(factor, shift):
    """Return the same in float64, negative eigenvalues of the factor taken as zero."""
    values, vectors = torch.linalg.eigh(factor.double())
    values = values.clamp(min=0) + shift.double()[..., None]
    return ((vectors / values[..., None, :]) @ vectors.mT).to(factor.dtype)


def _update(grads, state, params, hyper):
    natural = dict(grads)
    for name, inverse in state["inverses"].items():
        natural |= _solved(name, inverse, grads)
    inner = sum((natural[name] * grad).sum() for name, grad in grads.items())
    clip = (hyper["kl_clip"] / (hyper["lr"].square() * inner.clamp(min=0))).sqrt().clamp(max=1)
    return {name: clip * direction for name, direction in natural.items()}, state


def _solved(name, inverse, grads):
    """Return the gradients of a layer, or of a parameter, times the inverse of its moments."""
    if isinstance(inverse, Diagonal):
        return {name: grads[name] * inverse.squares}
    layer = grads[f"{name}.weight"], grads.get(f"{name}.bias")
    matrix = as_matrix(inverse, *layer)
    left = inverse.inputs[:, None] * matrix if inverse.inputs.ndim == 1 else inverse.inputs @ matrix
    weight, bias = from_matrix(inverse, left @ inverse.outputs, *layer)
    return {f"{name}.weight": weight} | ({} if bias is None else {f"{name}.bias": bias})


_hyper = {"damping": check.positive, "kl_clip": check.positive, "factor_decay": check.below_one}

kfac_preconditioner = Optimizer(_init, _update, _hyper, looks=(Look(EVERY, _fold),))
r"""K-FAC's direction, before an optimizer: g' = clip · F⁻¹ g.

A layer's block of the Fisher matrix is taken as A ⊗ S, the second moments of what goes in and of
the slopes of what comes out: running averages with decay ``factor_decay`` over the looks, divided
by their weights so far. Both are damped, A + π√λ and S + √λ/π, where λ is ``damping`` and π² the
ratio of their mean eigenvalues. The clip keeps lr² g'ᵀg at or below ``kl_clip``.

A trial holds 2 (d² + k²) numbers for a layer with d inputs, the bias among them, and k outputs: its
averages and their inverses. For the dense layer of the paper's Simple CNN, d = 3,137 and k = 1,024,
that is 87 MB in float32. A vocabulary's side counts once instead of squared.

Martens and Grosse (2015), sections 3, 5 and 6.3; Grosse and Martens (2016) for convolutions;
Ba, Grosse and Martens (2017), section 5, for the clip.
"""

kfac = chain(kfac_preconditioner, heavy_ball)
"""K-FAC with heavy-ball momentum: lr, momentum, damping, kl_clip and factor_decay."""

kfac_without_momentum = chain(kfac_preconditioner, sgd)
"""K-FAC without momentum."""
