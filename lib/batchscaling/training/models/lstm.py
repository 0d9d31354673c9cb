"""The LSTM language model."""

import torch

from batchscaling import _validation as check
from batchscaling.training.models.base import Model
from batchscaling.training.models.layers import dense, embed, unembed


def lstm(vocabulary, *, units=128, layers=2):
    """Return a language model of LSTM layers with tied embedding, without dropout [1]_.

    Each layer has input, forget, cell and output gates, side by side in this order. Every sequence
    starts from states of zero. The embedding is as wide as the layers, and its transpose gives the
    outputs. Embeddings start uniform between ±0.1, all other weights and biases of the gates
    between ±units^(-1/2), the biases of the outputs at zero [1]_.

    Parameters
    ----------
    vocabulary : int
        Number of different words or characters.
    units : int
        Units of each layer.
    layers : int

    Returns
    -------
    Model
        Inputs are numbers of words, of shape (batch, length); outputs are of shape (batch, length,
        vocabulary).

    Raises
    ------
    ValueError
        If an argument is not a positive integer.

    References
    ----------
    .. [1] Merity, Keskar and Socher (2017), Regularizing and optimizing LSTM language models,
       sections on weight tying and on experiment details.
    """
    vocabulary, units = check.integer("vocabulary", vocabulary, 1), check.integer("units", units, 1)
    layers = check.integer("layers", layers, 1)

    def init(rng):
        def uniform(bound, *shape):
            return bound * (2 * torch.rand(*shape, generator=rng) - 1)

        params = {"embedding.weight": uniform(0.1, vocabulary, units)}
        for layer in range(layers):
            params[f"layer{layer}.inputs.weight"] = uniform(units**-0.5, units, 4 * units)
            params[f"layer{layer}.states.weight"] = uniform(units**-0.5, units, 4 * units)
            params[f"layer{layer}.inputs.bias"] = uniform(units**-0.5, 4 * units)
        params["embedding.bias"] = torch.zeros(vocabulary)
        return params

    def apply(params, inputs):
        sequence = embed(params, "embedding", inputs)
        for layer in range(layers):
            fed = dense(params, f"layer{layer}.inputs", sequence)
            sequence = _run(params, f"layer{layer}.states", fed)
        return unembed(params, "embedding", sequence)

    return Model(init, apply)


def _run(params, name, fed):
    """Return the states of one layer, given what its inputs feed into the gates."""
    state = cell = torch.zeros_like(fed[:, 0, : fed.shape[-1] // 4])
    states = []
    for now in fed.unbind(1):
        enter, forget, new, leave = (now + dense(params, name, state)).chunk(4, dim=-1)
        cell = torch.sigmoid(forget) * cell + torch.sigmoid(enter) * torch.tanh(new)
        state = torch.sigmoid(leave) * torch.tanh(cell)
        states.append(state)
    return torch.stack(states, dim=1)
