"""Layers of ``torch.nn`` that record what goes through them, in `Tapped` parameters."""

from contextlib import contextmanager, nullcontext
from functools import partial

import torch
from torch import nn
from torch.nn import functional

from batchscaling.training.models.taps import (
    ConvolutionUse,
    EmbeddingUse,
    ScaleUse,
    Tapped,
    TransposedUse,
    UnembeddingUse,
)


def recording(module, name_at, params):
    """Return the context in which the layers of a module record, if parameters are `Tapped`.

    Layers are `torch.nn.Linear`, `torch.nn.Conv2d` in one group, padded with zeros,
    `torch.nn.Embedding`, and normalisation by batches, layers, groups or root mean squares. Other
    layers record nothing, nor do subclasses that take more than one input. The slope of an example
    of a batch that is normalised is that of the whole batch's loss.

    Parameters
    ----------
    module : torch.nn.Module
    name_at : dict of str to str
        The name of the parameter that stands at a place: of a shared one, that of its first place.
        It ends in ``.weight`` for what is to record. A module that is itself a layer may be called
        ``network``.
    params : dict of torch.Tensor
    """
    return _hooked(module, name_at, params) if isinstance(params, Tapped) else nullcontext()


@contextmanager
def _hooked(module, name_at, params):
    weights = {}
    for prefix, layer in module.named_modules():
        name = name_at.get(f"{prefix}.weight" if prefix else "network.weight", "")
        if isinstance(layer, tuple(_USES)) and name in params and name.endswith(".weight"):
            weights[layer] = name.removesuffix(".weight")
    words = {name for layer, name in weights.items() if isinstance(layer, nn.Embedding)}
    hooks = []
    try:
        for layer, name in weights.items():
            hook = partial(_record, params, name, name in words)
            hooks.append(layer.register_forward_hook(hook, with_kwargs=True))
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _record(params, name, of_words, layer, inputs, named_inputs, outputs):
    """Let parameters record a use of a layer, if it is one that they know; a forward hook."""
    kind = next(kind for kind in _USES if isinstance(layer, kind))
    use = _USES[kind](layer, name, params, of_words)
    given = (*inputs, *named_inputs.values())
    if use is None or len(given) != 1:
        return outputs
    (given,) = given
    with torch.no_grad():
        given = _GIVEN[kind](layer, given) if kind in _GIVEN else given
    return params.tap(use, given, outputs)


def _linear(layer, name, params, of_words):
    return (UnembeddingUse if of_words else TransposedUse)(name, params)


def _convolution(layer, name, params, of_words):
    if layer.groups > 1 or layer.padding_mode != "zeros":
        return None
    padding = 0 if layer.padding == "valid" else layer.padding
    if padding == "same":
        around = [d * (k - 1) for d, k in zip(layer.dilation, layer.kernel_size, strict=True)]
        if any(total % 2 for total in around):
            return None
        padding = tuple(total // 2 for total in around)
    settings = {"padding": padding, "stride": layer.stride, "dilation": layer.dilation}
    return ConvolutionUse(name, params, layer.kernel_size, settings)


def _embedding(layer, name, params, of_words):
    return None if layer.scale_grad_by_freq else EmbeddingUse(name, params, layer.padding_idx)


def _scale(layer, name, params, of_words):
    if getattr(layer, "normalized_shape", (1,))[1:]:
        return None
    axis = -1 if hasattr(layer, "normalized_shape") else 2
    return ScaleUse(name, params, axis, names=("weight", "bias"))


def _normalised_by_layer(layer, inputs):
    return functional.layer_norm(inputs, layer.normalized_shape, eps=layer.eps)


def _normalised_by_group(layer, inputs):
    return functional.group_norm(inputs, layer.num_groups, eps=layer.eps)


def _normalised_by_batch(layer, inputs):
    training = layer.training or layer.running_mean is None
    own = (None, None) if training else (layer.running_mean, layer.running_var)
    return functional.batch_norm(inputs, *own, training=training, eps=layer.eps)


def _normalised_by_root(layer, inputs):
    return functional.rms_norm(inputs, layer.normalized_shape, eps=layer.eps)


_USES = {
    nn.Linear: _linear,
    nn.Conv2d: _convolution,
    nn.Embedding: _embedding,
    nn.LayerNorm: _scale,
    nn.GroupNorm: _scale,
    nn.RMSNorm: _scale,
    nn.modules.batchnorm._BatchNorm: _scale,
}
_GIVEN = {
    nn.LayerNorm: _normalised_by_layer,
    nn.GroupNorm: _normalised_by_group,
    nn.RMSNorm: _normalised_by_root,
    nn.modules.batchnorm._BatchNorm: _normalised_by_batch,
}
