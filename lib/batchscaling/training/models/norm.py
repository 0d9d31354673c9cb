"""Ghost batch normalisation, and channels of weights with norm 1.

A network that is normalised is written once, as ``forward(params, inputs, norm)``, and calls
``norm(name, images)`` where a layer is normalised. `normalised` makes the `Model` of it.
"""

from functools import partial

import torch

from batchscaling.training.models.base import Model
from batchscaling.training.models.layers import scale_channels

EPSILON = 1e-5
"""Added to each variance, as in torch."""


def ghost_batch_norm(inputs, ghost_size):
    """Return the images with mean 0 and variance 1 in each channel of each ghost batch [1]_.

    The batch is cut into ghost batches in order. What is left over, or a smaller batch, is a ghost
    batch of its own. So micro-batches that are multiples of `ghost_size` change nothing.

    Parameters
    ----------
    inputs : torch.Tensor, shape (batch, channels, height, width)
    ghost_size : int
        Examples in a ghost batch.

    Returns
    -------
    torch.Tensor, of the shape of `inputs`

    References
    ----------
    .. [1] Hoffer, Hubara and Soudry (2017), Train longer, generalize better, algorithm 1.
    """
    whole = len(inputs) // ghost_size * ghost_size
    parts = []
    if whole:
        parts.append(inputs[:whole].unflatten(0, (-1, ghost_size)))
    if whole < len(inputs):
        parts.append(inputs[whole:][None])
    parts = [_standardise(part, *_moments(part)).flatten(0, 1) for part in parts]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def unit_channels(weight):
    """Return the filters of a convolution, each scaled to Frobenius norm 1."""
    return weight / weight.flatten(1).norm(dim=1)[:, None, None, None]


def normalised(init, forward, ghost_size, *, constrain=None):
    """Return the `Model` of a network with ghost batch normalisation.

    Parameters
    ----------
    init, constrain : callable
        As `Model` describes.
    forward : callable
        ``forward(params, inputs, norm)`` returns the outputs. It calls ``norm(name, images)`` for
        every normalised layer. `params` hold each layer's ``scale`` and ``shift``, as
        ``<name>.scale`` and ``<name>.shift``.
    ghost_size : int
        Examples in a ghost batch.

    Returns
    -------
    Model
        Its statistics are those of all the inputs as one batch, ``<name>.mean`` and
        ``<name>.variance``: each layer is normalised by them before the next ones are taken.
    """

    def by_ghosts(params, name, images):
        return scale_channels(params, name, ghost_batch_norm(images, ghost_size))

    def by_statistics(given, params, name, images):
        moments = (given[f"{name}.{moment}"][:, None, None] for moment in ("mean", "variance"))
        return scale_channels(params, name, _standardise(images, *moments))

    def apply(params, inputs, statistics=None):
        norm = by_ghosts if statistics is None else partial(by_statistics, statistics)
        return forward(params, inputs, partial(norm, params))

    def statistics(params, inputs):
        found = {}

        def norm(name, images):
            mean, variance = (moment[0, :, 0, 0] for moment in _moments(images))
            found.update({f"{name}.mean": mean, f"{name}.variance": variance})
            return by_statistics(found, params, name, images)

        forward(params, inputs, norm)
        return found

    return Model(init, apply, statistics, constrain, ghost_size)


def _moments(images):
    """Return mean and variance of each channel over examples and pixels."""
    variance, mean = torch.var_mean(images, dim=(-4, -2, -1), correction=0, keepdim=True)
    return mean, variance


def _standardise(images, mean, variance):
    return (images - mean) * torch.rsqrt(variance + EPSILON)
