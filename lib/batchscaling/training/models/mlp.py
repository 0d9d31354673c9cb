"""The multi-layer perceptron."""

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
    try:
        sizes = tuple(sizes)
    except TypeError:
        check.reject("sizes", sizes, "a sequence of at least two positive integers")
    if len(sizes) < 2:
        check.reject("sizes", sizes, "a sequence of at least two positive integers")
    sizes = tuple(check.integer(f"sizes[{i}]", size, 1) for i, size in enumerate(sizes))

    def init(rng):
        params = {}
        for layer, (inputs, outputs) in enumerate(pairwise(sizes)):
            scale = (2 / inputs) ** 0.5
            params[f"layer{layer}.weight"] = scale * torch.randn(inputs, outputs, generator=rng)
            params[f"layer{layer}.bias"] = torch.zeros(outputs)
        return params

    def apply(params, inputs):
        for layer in range(len(sizes) - 1):
            inputs = torch.relu(inputs) if layer else inputs
            inputs = dense(params, f"layer{layer}", inputs)
        return inputs

    return Model(init, apply)
