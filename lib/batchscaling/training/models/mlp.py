"""Multi-layer perceptrons: of ReLU units for classes, of tanh units for autoencoders."""

from functools import partial
from itertools import pairwise

import torch

from batchscaling import _validation as check
from batchscaling.training.models.base import Model
from batchscaling.training.models.layers import dense


def mlp(sizes):
    """Return a multi-layer perceptron with ReLU units.

    Layer ``l`` maps ``a`` to ``a @ weight + bias``. Weights start as normal numbers of
    variance 2 / (inputs of the layer), biases at zero [1]_.

    Parameters
    ----------
    sizes : sequence of int
        Units of every layer, inputs first, classes last; at least two numbers.

    Returns
    -------
    Model
        Its parameters are ``layer0.weight`` of shape (sizes[0], sizes[1]), ``layer0.bias`` of
        shape (sizes[1],), and so on.

    Raises
    ------
    ValueError
        If `sizes` holds fewer than two numbers, or one that is not a positive integer.

    References
    ----------
    .. [1] He, Zhang, Ren and Sun (2015), Delving deep into rectifiers, section 2.2.
    """
    sizes = _check_sizes(sizes)
    before = [None] + (len(sizes) - 2) * [torch.relu]
    return _perceptron(sizes, before, gain=2)


def autoencoder(sizes):
    """Return a deep autoencoder: tanh units, and a code in its middle that is linear [1]_.

    The decoder mirrors the encoder. Outputs are one logit for each number of the input, as
    `bernoulli_cross_entropy` wants them. Weights start as normal numbers of variance
    1 / (inputs of the layer), biases at zero.

    Parameters
    ----------
    sizes : sequence of int
        Units of every layer of the encoder, inputs first, code last; at least two numbers.

    Returns
    -------
    Model
        Its parameters are ``layer0.weight`` of shape (sizes[0], sizes[1]), ``layer0.bias`` of
        shape (sizes[1],), and so on to the last layer of the decoder. Inputs are flattened.

    Raises
    ------
    ValueError
        If `sizes` holds fewer than two numbers, or one that is not a positive integer.

    References
    ----------
    .. [1] Hinton and Salakhutdinov (2006), Reducing the dimensionality of data with neural
       networks.
    """
    sizes = _check_sizes(sizes)
    tanh, flat = (len(sizes) - 2) * [torch.tanh], partial(torch.flatten, start_dim=1)
    return _perceptron((*sizes, *sizes[-2::-1]), [flat, *tanh, None, *tanh], gain=1)


def _perceptron(sizes, before, gain):
    """Return dense layers, each with a function before it or None.

    Weights start with variance `gain` / (inputs of the layer).
    """

    def init(rng):
        params = {}
        for layer, (inputs, outputs) in enumerate(pairwise(sizes)):
            scale = (gain / inputs) ** 0.5
            params[f"layer{layer}.weight"] = scale * torch.randn(inputs, outputs, generator=rng)
            params[f"layer{layer}.bias"] = torch.zeros(outputs)
        return params

    def apply(params, inputs):
        for layer, function in enumerate(before):
            inputs = inputs if function is None else function(inputs)
            inputs = dense(params, f"layer{layer}", inputs)
        return inputs

    return Model(init, apply)


def _check_sizes(sizes):
    """Return units of layers as a tuple of positive int, at least two."""
    try:
        sizes = tuple(sizes)
    except TypeError:
        check.reject("sizes", sizes, "a sequence of at least two positive integers")
    if len(sizes) < 2:
        check.reject("sizes", sizes, "a sequence of at least two positive integers")
    return tuple(check.integer(f"sizes[{i}]", size, 1) for i, size in enumerate(sizes))
