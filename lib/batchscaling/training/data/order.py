"""The order in which a trial sees its examples, and its independent random numbers."""

from collections.abc import Iterable
from itertools import repeat

import numpy as np
import torch

from batchscaling._validation import integer

PURPOSES = ("split", "init", "order", "augment")
"""A purpose's place fixes its random numbers: a new one goes to the end."""


def batches(seed, examples, batch_size):
    """Yield the indices of one batch after the other, without end if `batch_size` is a number.

    The data is shuffled, used up, and shuffled again. A batch that meets the end of one epoch
    takes its rest from the next. So the order of the examples depends on `seed` alone: a larger
    batch cuts the same stream into longer pieces.

    Parameters
    ----------
    seed : int
        Seed of the order.
    examples : int
        Number of training examples.
    batch_size : int or iterable of int
        Examples in a batch, from 1 to `examples`; or those of each batch, one after the other.

    Yields
    ------
    torch.Tensor of int64, shape (batch_size,)

    Raises
    ------
    ValueError
        If an argument is outside its range; raised when the first batch is asked for.
    """
    examples = integer("examples", examples, 1)
    sizes = batch_size if isinstance(batch_size, Iterable) else repeat(batch_size)
    rng = generator(seed, "order")
    stream = torch.empty(0, dtype=torch.int64)
    for size in sizes:
        size = integer("batch_size", size, 1, examples)
        if len(stream) < size:
            stream = torch.cat([stream, torch.randperm(examples, generator=rng)])
        yield stream[:size]
        stream = stream[size:]


def generator(seed, purpose):
    """Return a random generator that is independent for each (`seed`, `purpose`).

    Parameters
    ----------
    seed : int
        Zero or larger.
    purpose : {"split", "init", "order", "augment"}
        What the numbers are for.

    Returns
    -------
    torch.Generator
    """
    entropy = (integer("seed", seed, 0), PURPOSES.index(purpose))
    state = np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state))
