"""Losses: what the outputs of a network cost, and the slopes that training sends back.

The last axis of outputs is one prediction, a *row*: the scores of all classes, or numbers. Before
it stand any axes, such as those of trials, examples and positions. A loss adds up over a row; the
mean over the rows that count is what is trained and evaluated.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from batchscaling import _validation as check


@dataclass(frozen=True)
class Loss:
    """A loss as pure functions of tensors, minus the logarithm of a probability.

    They depend on their arguments alone: training may record the operations of `slope` in one step,
    and repeat them in others.

    Attributes
    ----------
    slope : callable
        ``slope(outputs, labels)`` returns the derivative of the sum of all losses by the outputs,
        a new tensor; zero in rows that do not count.
    scores : callable
        ``scores(outputs, labels)`` returns the loss of each row, zero where it does not count, and
        whether the row is right, 1 or 0; NaN where the loss knows no right and wrong. Both have
        the shape of the outputs without their last axis. It works under ``torch.func.vmap``.
    sampled_slope : callable
        ``sampled_slope(outputs, uniform)`` returns the slope for labels that are sampled from the
        distribution that the outputs state. `uniform` are random numbers from 0 to below 1, of
        the shape of the outputs. Over them its mean is zero, and its covariance in a row the
        Fisher information of the outputs, which for these losses is their Hessian.
    counts : callable
        ``counts(labels)`` returns a bool for each row: whether it counts.
    check : callable
        ``check(name, labels, shape)`` raises a ``ValueError`` that calls the labels `name`, unless
        they fit outputs of that shape.
    """

    slope: Callable[[Tensor, Tensor], Tensor]
    scores: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
    sampled_slope: Callable[[Tensor, Tensor], Tensor]
    counts: Callable[[Tensor], Tensor]
    check: Callable[[str, Tensor, tuple], None]


def shown(tensor):
    """Return type and shape of a tensor in words, for errors."""
    return f"{tensor.dtype} of shape {tuple(tensor.shape)}"


def _softmax(outputs):
    """Return the softmax over the last axis, as a new tensor.

    Over the last axis but one, torch's own takes a tenth of the time on a CPU.
    """
    return outputs.mT.softmax(-2).mT if outputs.ndim > 1 else outputs.softmax(-1)


def _slope_of_classes(outputs, labels, *, smoothing=0.0):
    """Return softmax - label."""
    slope = _softmax(outputs)
    if smoothing:
        slope -= smoothing / outputs.shape[-1]
    label = labels.clamp(min=0)[..., None]
    slope.scatter_add_(-1, label, slope.new_full((), smoothing - 1).expand_as(label))
    return slope.mul_((labels >= 0)[..., None])


def _scores_of_classes(outputs, labels):
    """Return -log softmax(outputs)[label], and whether no other output is as large.

    Three times as fast here as torch's own under `vmap`.
    """
    counted = labels >= 0
    picked = outputs.gather(-1, labels.clamp(min=0)[..., None])
    right = ((outputs >= picked).sum(-1) == 1) & counted
    return (outputs.logsumexp(-1) - picked[..., 0]) * counted, right.to(outputs.dtype)


def _sampled_slope_of_classes(outputs, uniform):
    """Sample by the largest sum of an output and a number of Gumbel's distribution."""
    return _slope_of_classes(outputs, (outputs - (-uniform.log()).log()).argmax(-1))


def _check_classes(name, labels, shape):
    rows, classes = tuple(shape[:-1]), shape[-1]
    if labels.dtype != torch.int64 or labels.shape != rows:
        allowed = f"torch.int64 of shape {rows}, a class for each row of the model's outputs"
        check.reject(name, shown(labels), allowed)
    low, high = labels.min().item(), labels.max().item()
    if low < -1 or high >= classes:
        allowed = f"from 0 to {classes - 1}, as the model has {classes} outputs, or -1"
        check.reject(name, f"{shown(labels)}, from {low} to {high}", allowed)


cross_entropy = Loss(
    _slope_of_classes,
    _scores_of_classes,
    _sampled_slope_of_classes,
    lambda labels: labels >= 0,
    _check_classes,
)
"""Cross-entropy of classes: -log softmax(outputs)[label]. A row with label -1 does not count."""


def smoothed_cross_entropy(label_smoothing):
    """Return `cross_entropy` whose slope spreads a part of each label evenly over all classes."""
    return replace(cross_entropy, slope=partial(_slope_of_classes, smoothing=label_smoothing))


def _every_row(labels):
    return torch.ones(labels.shape[:-1], dtype=torch.bool, device=labels.device)


def _unknown(loss):
    return loss, torch.full_like(loss, torch.nan)


def _check_numbers(name, labels, shape):
    if labels.dtype != torch.float32 or labels.shape != shape:
        allowed = f"torch.float32 of shape {tuple(shape)}, that of the model's outputs"
        check.reject(name, shown(labels), allowed)
    if not labels.isfinite().all():
        check.reject(name, f"{shown(labels)}, not all of them finite", "finite numbers")


def _check_probabilities(name, labels, shape):
    _check_numbers(name, labels, shape)
    low, high = labels.min().item(), labels.max().item()
    if low < 0 or high > 1:
        check.reject(name, f"{shown(labels)}, from {low:g} to {high:g}", "from 0 to 1")


def _normal(uniform):
    """Return normal numbers; zero, which has no finite one, counts as half the next number."""
    return torch.special.ndtri(uniform.clamp(min=2.0**-25))


squared_error = Loss(
    lambda outputs, labels: outputs - labels,
    lambda outputs, labels: _unknown((outputs - labels).square().sum(-1) / 2),
    lambda outputs, uniform: _normal(uniform),
    _every_row,
    _check_numbers,
)
"""Half the squared distance ‖outputs - labels‖² / 2, for regression and autoencoders.

Labels are float32, of the shape of the outputs. The outputs state normal numbers of variance 1.
"""


def _bernoulli_loss(outputs, labels):
    positive = outputs.clamp(min=0) + (-outputs.abs()).exp().log1p()  # log(1 + exp), no overflow
    return (positive - outputs * labels).sum(-1)


def _sampled_slope_of_bits(outputs, uniform):
    probability = outputs.sigmoid()
    return probability - (uniform < probability).to(outputs.dtype)


bernoulli_cross_entropy = Loss(
    lambda outputs, labels: outputs.sigmoid() - labels,
    lambda outputs, labels: _unknown(_bernoulli_loss(outputs, labels)),
    _sampled_slope_of_bits,
    _every_row,
    _check_probabilities,
)
"""Cross-entropy of independent bits: the sum of -y log p - (1 - y) log(1 - p), p = sigmoid(output).

For autoencoders of pixels. Labels y are float32 from 0 to 1, of the shape of the outputs.
"""
