"""The layers of a Transformer, as pure functions [1]_.

A parameter's name begins with the name of its layer, `name`.

References
----------
.. [1] Vaswani et al. (2017), Attention is all you need, section 3.
"""

import torch

from batchscaling.training.models.layers import dense, embed, layer_norm


def embed_in_place(params, name, words):
    """Return embeddings times the root of their width, plus encodings of the positions.

    Parameters
    ----------
    params : dict of torch.Tensor
    name : str
        Of an embedding of even width.
    words : torch.Tensor of int64, shape (batch, length)

    Returns
    -------
    torch.Tensor, shape (batch, length, width)
    """
    embedded = embed(params, name, words)
    length, width = embedded.shape[-2:]
    position = torch.arange(length, device=words.device)[:, None]
    frequency = 1e4 ** (-torch.arange(0, width, 2, device=words.device) / width)
    angle = position * frequency
    encoding = torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)
    return embedded * width**0.5 + encoding


def attention_params(rng, name, width):
    """Return the parameters of `attend`: Glorot's uniform weights, and biases of zero."""
    params = {}
    for part in ("query", "key", "value", "output"):
        params |= _dense_params(rng, f"{name}.{part}", width, width)
    return params


def attend(params, name, queries, memory, heads, hidden):
    """Return multi-head attention of `queries` to `memory`.

    Parameters
    ----------
    params : dict of torch.Tensor
    name : str
    queries : torch.Tensor, shape (batch, length, width)
    memory : torch.Tensor, shape (batch, memory length, width)
    heads : int
    hidden : torch.Tensor of bool, broadcast to (batch, heads, length, memory length)
        Where attention is not allowed. Where nothing is allowed, all counts alike.

    Returns
    -------
    torch.Tensor, shape (batch, length, width)
    """

    def project(part, sequence):
        sequence = dense(params, f"{name}.{part}", sequence)
        return sequence.unflatten(-1, (heads, -1)).transpose(1, 2)

    query, key, value = project("query", queries), project("key", memory), project("value", memory)
    scores = query @ key.mT * query.shape[-1] ** -0.5
    # Not -inf: a row of a source without words would become NaN.
    scores = scores.masked_fill(hidden, torch.finfo(scores.dtype).min)
    mixed = (scores.softmax(dim=-1) @ value).transpose(1, 2).flatten(-2)
    return dense(params, f"{name}.output", mixed)


def feed_forward_params(rng, name, width, units):
    """Return the parameters of `feed_forward`: Glorot's uniform weights, and biases of zero."""
    first = _dense_params(rng, f"{name}.in", width, units)
    return first | _dense_params(rng, f"{name}.out", units, width)


def feed_forward(params, name, sequence):
    """Return the position-wise network of two dense layers with ReLU between."""
    sequence = torch.relu(dense(params, f"{name}.in", sequence))
    return dense(params, f"{name}.out", sequence)


def norm_params(name, width):
    """Return the parameters of `add_and_norm`."""
    return {f"{name}.scale": torch.ones(width), f"{name}.shift": torch.zeros(width)}


def add_and_norm(params, name, sequence, update):
    """Return the layer-normalised sum."""
    return layer_norm(params, name, sequence + update)


def later(length, device):
    """Return which positions come after which: shape (length, length), hidden from a decoder."""
    return torch.ones(length, length, dtype=torch.bool, device=device).triu(1)


def _dense_params(rng, name, inputs, outputs):
    """Return uniform weights of variance 2 / (inputs + outputs), and biases of zero."""
    bound = (6 / (inputs + outputs)) ** 0.5
    weight = bound * (2 * torch.rand(inputs, outputs, generator=rng) - 1)
    return {f"{name}.weight": weight, f"{name}.bias": torch.zeros(outputs)}
