"""K-FAC: the inverse of a Kronecker-factored Fisher matrix, layer by layer [1]_.

References
----------
.. [1] Martens and Grosse (2015), Optimizing neural networks with Kronecker-factored approximate
   curvature.
"""

from dataclasses import replace

import torch
from torch.utils._pytree import tree_map

from batchscaling import _validation as check
from batchscaling.training.models.layers_cpu import ByRows
from batchscaling.training.models.taps import Diagonal, Kronecker, as_matrix, from_matrix
from batchscaling.training.optimizers.base import Look, Optimizer, Outcome, chain
from batchscaling.training.optimizers.heavy_ball import heavy_ball
from batchscaling.training.optimizers.sgd import sgd

EVERY = 10
"""Steps from one look at the layers, and inversion, to the next."""

EVERY_OUTCOME = 5
"""Steps from one comparison of the loss with its quadratic model to the next."""

_EASED = (19 / 20) ** EVERY_OUTCOME  # what a good step multiplies the damping with
_FURTHEST = 1e8  # adapted damping stays within this factor of the given one
_LEAST_TRACE = 1e-20  # of a factor, where damping is balanced between two of them


def _init(params):
    # Sizes of the factors are known once the layers were looked at, before the first step.
    return {"looks": next(iter(params.values())).new_zeros(())}


def _fold(moments, state, hyper):
    """Add one look to the running averages, and invert them."""
    decay, looks = hyper["factor_decay"], state["looks"] + 1
    average = state.get("average") or tree_map(torch.zeros_like, moments)
    average = tree_map(lambda old, new: torch.lerp(new, old, decay), average, moments)
    factors = _unbiased(average, decay, looks)
    damping = _damping(state, hyper)
    inverses = {name: _inverted(moment, damping) for name, moment in factors.items()}
    return {**state, "looks": looks, "average": average, "inverses": inverses}


def _unbiased(average, decay, looks):
    """Return running averages as if all weights so far added up to 1; where decay is 0 they do."""
    return tree_map(lambda tensor: tensor / (1 - decay**looks), average)


def _damping(state, hyper):
    return hyper["damping"] * state["scale"] if "scale" in state else hyper["damping"]


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
        # Where it failed a pivot may be zero, which raises an error for all rows.
        root = torch.where(failed[..., None, None] > 0, torch.nan, root)
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
        natural |= _times(name, inverse, grads)
    inner = sum((natural[name] * grad).sum() for name, grad in grads.items())
    clip = (hyper["kl_clip"] / (hyper["lr"].square() * inner.clamp(min=0))).sqrt().clamp(max=1)
    return {name: clip * direction for name, direction in natural.items()}, state


def _times(name, block, tensors):
    """Return what a layer, or a parameter, has in a dict times its block of a Fisher matrix.

    `block` may also be the inverse of one.
    """
    if isinstance(block, Diagonal):
        return {name: tensors[name] * block.squares}
    layer = tensors[f"{name}.weight"], tensors.get(f"{name}.bias")
    matrix = as_matrix(block, *layer)
    left = block.inputs[:, None] * matrix if block.inputs.ndim == 1 else block.inputs @ matrix
    weight, bias = from_matrix(block, left @ block.outputs, *layer)
    return {f"{name}.weight": weight} | ({} if bias is None else {f"{name}.bias": bias})


def _init_with_scale(params):
    state = _init(params)
    return {**state, "scale": torch.ones_like(state["looks"])}


def _adapt(taken, state, hyper):
    """Multiply the damping by less than 1 where the model foresaw the step's gain, or by more."""
    foreseen = _foreseen(taken, state, hyper)
    ratio = taken.change / foreseen
    factor = torch.where(ratio > 3 / 4, _EASED, torch.where(ratio < 1 / 4, 1 / _EASED, 1.0))
    # A model that foresees no gain, as momentum may make it, is no measure.
    factor = torch.where(foreseen < 0, factor, 1.0)
    return {**state, "scale": (state["scale"] * factor).clamp(1 / _FURTHEST, _FURTHEST)}


def _foreseen(taken, state, hyper):
    """Return the change of the loss in the damped quadratic model of the batch."""
    curved = {}
    for name, block in _unbiased(state["average"], hyper["factor_decay"], state["looks"]).items():
        curved |= _times(name, block, taken.updates)
    damping = _damping(state, hyper)
    return sum(
        (u * (taken.grads[name] + (curved[name] + damping * u) / 2)).sum()
        for name, u in taken.updates.items()
    )


_hyper = {"damping": check.positive, "kl_clip": check.positive, "factor_decay": check.below_one}

kfac_preconditioner = Optimizer(_init, _update, _hyper, looks=(Look(EVERY, _fold),))
r"""K-FAC's direction, before an optimizer: g' = clip · F⁻¹ g.

A layer's block of the Fisher matrix is taken as A ⊗ S, the second moments of what goes in and of
the slopes of what comes out: running averages with decay ``factor_decay`` over the looks, divided
by their weights so far. Both are damped, A + π√λ and S + √λ/π, where λ is ``damping`` and π² the
ratio of their mean eigenvalues. The clip keeps lr² g'ᵀFg' at or below ``kl_clip``, with
the damped F.

A trial holds 2 (d² + k²) numbers for a layer with d inputs, the bias among them, and k outputs: its
averages and their inverses. For the dense layer of the paper's Simple CNN, d = 3,137 and k = 1,024,
that is 87 MB in float32; eight trials of that network, which go through in parts, took 2.9 GB at
their peak. A vocabulary's side counts once instead of squared.

Martens and Grosse (2015), sections 3, 5 and 6.3; Grosse and Martens (2016) for convolutions;
Ba, Grosse and Martens (2017), section 5, for the clip.
"""

adaptive_kfac_preconditioner = replace(
    kfac_preconditioner, init=_init_with_scale, outcomes=(Outcome(EVERY_OUTCOME, _adapt),)
)
r"""K-FAC's direction with Levenberg-Marquardt damping; ``damping`` is the one at the start.

Every `EVERY_OUTCOME` steps the change of the batch's loss is divided by the one that the quadratic
model foresaw, g'δ + δ'(F + λ)δ/2 for a step δ, where F is the matrix of the factors. Above 3/4,
the damping λ is multiplied by (19/20)^5, below 1/4 it is divided by that. It is used from the next
inversion on. Where the model foresees no gain, as momentum may make it, λ stays.

Martens and Grosse (2015), section 6.5. There F is exact.
"""

kfac = chain(kfac_preconditioner, heavy_ball)
"""K-FAC with heavy-ball momentum: lr, momentum, damping, kl_clip and factor_decay."""

kfac_adaptive_damping = chain(adaptive_kfac_preconditioner, heavy_ball)
"""The same with `adaptive_kfac_preconditioner`."""

kfac_without_momentum = chain(kfac_preconditioner, sgd)
"""K-FAC without momentum."""
