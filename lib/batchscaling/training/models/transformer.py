"""Transformers: a language model, and an encoder with a decoder for translation."""

import torch

from batchscaling import _validation as check
from batchscaling.training.models.attention import (
    add_and_norm,
    attend,
    attention_params,
    embed_in_place,
    feed_forward,
    feed_forward_params,
    later,
    norm_params,
)
from batchscaling.training.models.base import Model
from batchscaling.training.models.layers import unembed


def transformer_lm(vocabulary, *, width=512, heads=8, units=2048, layers=2):
    """Return a Transformer language model with tied embedding, without dropout.

    The defaults are the "base" sizes of Vaswani et al. [1]_ with two layers, as in Zhang et al.
    [2]_. A layer is self-attention to the words so far, and a network of one hidden layer with
    ReLU; each is added to its input and the sum is normalised. Positions are encoded as sines and
    cosines. The transposed embedding gives the outputs.

    Embeddings start as normal numbers of variance 1 / width; weights uniform, of variance
    2 / (inputs + outputs) [3]_; biases at zero.

    Parameters
    ----------
    vocabulary : int
        Number of different words or characters.
    width : int
        Numbers for each word; even, and a multiple of `heads`.
    heads : int
        Attention heads of each layer.
    units : int
        Hidden units of each layer.
    layers : int

    Returns
    -------
    Model
        Inputs are numbers of words, of shape (batch, length); outputs are of shape (batch, length,
        vocabulary).

    Raises
    ------
    ValueError
        If an argument is outside its range.

    References
    ----------
    .. [1] Vaswani et al. (2017), Attention is all you need, section 3 and table 3.
    .. [2] Zhang et al. (2019), Which algorithmic choices matter at which batch sizes?,
       appendix E.2.
    .. [3] Glorot and Bengio (2010), Understanding the difficulty of training deep feedforward
       neural networks, equation 16.
    """
    vocabulary = check.integer("vocabulary", vocabulary, 1)
    width, heads, units, layers = _sizes(width, heads, units, layers)

    def init(rng):
        params = {"embedding.weight": _embedding(rng, vocabulary, width)}
        for layer in range(layers):
            params |= _layer_params(rng, f"layer{layer}", width, units)
        return params

    def apply(params, inputs):
        hidden = later(inputs.shape[1], inputs.device)
        sequence = embed_in_place(params, "embedding", inputs)
        for layer in range(layers):
            sequence = _layer(params, f"layer{layer}", sequence, heads, hidden)
        return unembed(params, "embedding", sequence)

    return Model(init, apply)


def transformer(
    source_vocabulary,
    target_vocabulary,
    source_length,
    *,
    width=128,
    heads=4,
    units=512,
    layers=2,
    padding=0,
):
    """Return a small Transformer with encoder and decoder, without dropout [1]_.

    It is `transformer_lm`, the decoder, beside a stack of equal layers without the mask of later
    words, the encoder. Layers of the decoder attend to the encoder's outputs, too, after the words
    so far. The transposed embedding of target words gives the outputs. Initial values are those of
    `transformer_lm`.

    Parameters
    ----------
    source_vocabulary, target_vocabulary : int
        Numbers of different words.
    source_length : int
        Words of each source, padding among them.
    width, heads, units, layers : int
        As in `transformer_lm`; `layers` are those of the encoder, and those of the decoder.
    padding : int
        The number that fills up short sources. Nothing attends to it. Targets are filled up at
        the end, where no word before attends to.

    Returns
    -------
    Model
        Inputs are numbers of words, of shape (batch, source_length + target length): the source,
        then what the decoder reads. Outputs are of shape (batch, target length,
        target_vocabulary).

    Raises
    ------
    ValueError
        If an argument is outside its range.

    References
    ----------
    .. [1] Vaswani et al. (2017), Attention is all you need, section 3.
    """
    source_vocabulary = check.integer("source_vocabulary", source_vocabulary, 1)
    target_vocabulary = check.integer("target_vocabulary", target_vocabulary, 1)
    source_length = check.integer("source_length", source_length, 1)
    width, heads, units, layers = _sizes(width, heads, units, layers)
    padding = check.integer("padding", padding, 0, source_vocabulary - 1)

    def init(rng):
        params = {
            "source.weight": _embedding(rng, source_vocabulary, width),
            "target.weight": _embedding(rng, target_vocabulary, width),
        }
        for layer in range(layers):
            params |= _layer_params(rng, f"encoder{layer}", width, units)
        for layer in range(layers):
            params |= _layer_params(rng, f"decoder{layer}", width, units)
            params |= attention_params(rng, f"decoder{layer}.cross", width)
            params |= norm_params(f"decoder{layer}.cross", width)
        return params

    def apply(params, inputs):
        source, target = inputs[:, :source_length], inputs[:, source_length:]
        empty = (source == padding)[:, None, None, :]
        memory = embed_in_place(params, "source", source)
        for layer in range(layers):
            memory = _layer(params, f"encoder{layer}", memory, heads, empty)
        hidden = later(target.shape[1], target.device)
        sequence = embed_in_place(params, "target", target)
        for layer in range(layers):
            cross = (memory, empty)
            sequence = _layer(params, f"decoder{layer}", sequence, heads, hidden, cross)
        return unembed(params, "target", sequence)

    return Model(init, apply)


def _sizes(width, heads, units, layers):
    width, heads = check.integer("width", width, 2), check.integer("heads", heads, 1)
    if width % 2 or width % heads:
        check.reject("width", width, f"an even multiple of the {heads} heads")
    return width, heads, check.integer("units", units, 1), check.integer("layers", layers, 1)


def _embedding(rng, vocabulary, width):
    return width**-0.5 * torch.randn(vocabulary, width, generator=rng)


def _layer_params(rng, name, width, units):
    return {
        **attention_params(rng, f"{name}.self", width),
        **norm_params(f"{name}.self", width),
        **feed_forward_params(rng, f"{name}.dense", width, units),
        **norm_params(f"{name}.dense", width),
    }


def _layer(params, name, sequence, heads, hidden, cross=None):
    """Return one layer's outputs; `cross` holds the encoder's outputs and which are hidden."""
    part = f"{name}.self"
    attended = attend(params, part, sequence, sequence, heads, hidden)
    sequence = add_and_norm(params, part, sequence, attended)
    if cross is not None:
        part, (memory, empty) = f"{name}.cross", cross
        attended = attend(params, part, sequence, memory, heads, empty)
        sequence = add_and_norm(params, part, sequence, attended)
    part = f"{name}.dense"
    return add_and_norm(params, part, sequence, feed_forward(params, part, sequence))
