"""Layers that several networks share, by name.

A layer called ``name`` has the parameters ``<name>.weight`` and, where it has a bias,
``<name>.bias``. The weight of a dense layer is of shape (inputs, outputs), that of a convolution of
shape (filters, channels, height, width), an embedding of shape (vocabulary, width).

Every linear map of a network is one of these functions: so `Tapped` parameters see what goes
through it.
"""

import torch
from torch.nn import functional

from batchscaling.training.models.layers_cpu import convolve


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
    return _plus_bias(params, name, inputs @ params[f"{name}.weight"])


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
    return convolve(images, weight if transform is None else transform(weight), stride)


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
    return functional.embedding(words, params[f"{name}.weight"])


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
    return _plus_bias(params, name, inputs @ params[f"{name}.weight"].mT)


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


def _plus_bias(params, name, outputs):
    bias = params.get(f"{name}.bias")
    return outputs if bias is None else outputs + bias
