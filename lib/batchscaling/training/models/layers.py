"""Layers that several networks share, by name.

A layer called ``name`` has the parameters ``<name>.weight`` and, where it has a bias,
``<name>.bias``. The weight of a dense layer is of shape (inputs, outputs), that of a convolution of
shape (filters, channels, height, width), an embedding of shape (vocabulary, width).

Every linear map of a network is one of these functions: so `Tapped` parameters see what goes
through it.
"""

import torch
from torch.nn import functional

from batchscaling.training.models.layers_cpu import convolve, product
from batchscaling.training.models.taps import (
    ConvolutionUse,
    DenseUse,
    EmbeddingUse,
    ScaleUse,
    Tapped,
    UnembeddingUse,
)


def dense(params, name, inputs):
    """Return ``inputs @ weight``, plus the bias if the layer has one.

    Parameters
    ----------
    params : dict of torch.Tensor
    name : str
    inputs : torch.Tensor, shape (batch, ..., inputs)

    Returns
    -------
    torch.Tensor, shape (batch, ..., outputs)
    """
    outputs = _plus_bias(params, name, product(inputs, params[f"{name}.weight"]))
    return _tapped(DenseUse, params, name, inputs, outputs)


def conv2d(params, name, images, stride=1, *, transform=None):
    """Return the convolution with the padding that keeps the size of images at stride 1.

    It is without the bias, which `channel_bias` adds: some networks do so after pooling.

    Parameters
    ----------
    params : dict of torch.Tensor
    name : str
        The weight's sides are odd.
    images : torch.Tensor, shape (batch, channels, height, width)
    stride : int
    transform : callable, optional
        A function of the weight, such as `unit_channels`: its result is used instead.

    Returns
    -------
    torch.Tensor, shape (batch, filters, ceil(height / stride), ceil(width / stride))
    """
    weight = params[f"{name}.weight"]
    outputs = convolve(images, weight if transform is None else transform(weight), stride)
    size = weight.shape[-1]
    patches = size, {"padding": size // 2, "stride": stride}
    return _tapped(ConvolutionUse, params, name, images, outputs, *patches, transform)


def channel_bias(params, name, images):
    """Return the images plus the bias of each channel."""
    return images + params[f"{name}.bias"][:, None, None]


def embed(params, name, words):
    """Return the rows of an embedding.

    Parameters
    ----------
    params : dict of torch.Tensor
    name : str
    words : torch.Tensor of int64, shape (batch, length)

    Returns
    -------
    torch.Tensor, shape (batch, length, width)
    """
    outputs = functional.embedding(words, params[f"{name}.weight"])
    return _tapped(EmbeddingUse, params, name, words, outputs)


def unembed(params, name, inputs):
    """Return the products with every row of an embedding, plus the bias if there is one.

    So the last layer of a language model is tied to its embedding.

    Parameters
    ----------
    params : dict of torch.Tensor
    name : str
    inputs : torch.Tensor, shape (batch, length, width)

    Returns
    -------
    torch.Tensor, shape (batch, length, vocabulary)
    """
    outputs = _plus_bias(params, name, inputs @ params[f"{name}.weight"].mT)
    return _tapped(UnembeddingUse, params, name, inputs, outputs)


def scale_channels(params, name, images):
    """Return normalised images times ``<name>.scale``, plus ``<name>.shift``, in each channel."""
    scale, shift = params[f"{name}.scale"], params[f"{name}.shift"]
    outputs = images * scale[:, None, None] + shift[:, None, None]
    return _tapped(ScaleUse, params, name, images, outputs, -3)


def layer_norm(params, name, sequence):
    """Return the sequence, normalised at each position, then scaled and shifted.

    Parameters
    ----------
    params : dict of torch.Tensor
        With ``<name>.scale`` and ``<name>.shift``.
    name : str
    sequence : torch.Tensor, shape (batch, length, width)

    Returns
    -------
    torch.Tensor, shape (batch, length, width)
    """
    shape = sequence.shape[-1:]
    scale, shift = params[f"{name}.scale"], params[f"{name}.shift"]
    outputs = functional.layer_norm(sequence, shape, scale, shift)
    if not isinstance(params, Tapped):
        return outputs
    return _tapped(ScaleUse, params, name, functional.layer_norm(sequence, shape), outputs, -1)


def he_normal(rng, *shape, inputs):
    """Return normal numbers of variance 2 / `inputs`, for layers before a ReLU [1]_.

    Parameters
    ----------
    rng : torch.Generator
    *shape : int
    inputs : int
        Numbers that each unit adds up.

    Returns
    -------
    torch.Tensor

    References
    ----------
    .. [1] He, Zhang, Ren and Sun (2015), Delving deep into rectifiers, section 2.2.
    """
    return (2 / inputs) ** 0.5 * torch.randn(*shape, generator=rng)


def _tapped(use, params, name, inputs, outputs, *about):
    """Return the outputs, and have `Tapped` parameters record this use of the layer."""
    if not isinstance(params, Tapped):
        return outputs
    return params.tap(use(name, params, *about), inputs, outputs)


def _plus_bias(params, name, outputs):
    bias = params.get(f"{name}.bias")
    return outputs if bias is None else outputs + bias
