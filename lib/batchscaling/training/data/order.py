"""The order in which a trial sees its examples, and its independent random numbers."""

from collections.abc import Iterable
from itertools import repeat

import numpy as np
import torch
from torch.utils._pytree import tree_map

from batchscaling import _validation as check

PURPOSES = ("split", "init", "order", "augment", "optimizer", "labels")
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
    examples = check.integer("examples", examples, 1)
    several = isinstance(batch_size, Iterable) and getattr(batch_size, "ndim", 1)
    sizes = batch_size if several else repeat(batch_size)
    rng = generator(seed, "order")
    stream = torch.empty(0, dtype=torch.int64, device="cpu")
    for size in sizes:
        size = check.integer("batch_size", size, 1, examples)
        if len(stream) < size:
            stream = torch.cat([stream, torch.randperm(examples, generator=rng, device="cpu")])
        yield stream[:size]
        stream = stream[size:]


def generator(seed, purpose):
    """Return a random generator that is independent for each (`seed`, `purpose`).

    Parameters
    ----------
    seed : int
        Zero or larger.
    purpose : str
        What the numbers are for, one of `PURPOSES`.

    Returns
    -------
    torch.Generator
    """
    entropy = (check.integer("seed", seed, 0), PURPOSES.index(purpose))
    state = np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state))


class Streams:
    """The batches of several trials, and the other random numbers of their steps.

    Trials of one seed share its numbers.

    Parameters
    ----------
    seeds : sequence of int
        One a trial.
    examples : int
        Number of training examples.
    batch_size : int or iterable of int
        As for `batches`.
    draws : mapping of str to (str, callable)
        What else is drawn, by name: its purpose, and ``draw(rng, batch_size)``, which returns
        tensors in any nesting of dicts and tuples.
    """

    def __init__(self, seeds, examples, batch_size, draws):
        self._batches = {seed: batches(seed, examples, batch_size) for seed in seeds}
        self._draws = {
            name: (draw, {seed: generator(seed, purpose) for seed in seeds})
            for name, (purpose, draw) in draws.items()
        }
        self.names = tuple(draws)
        self.keep(seeds)

    def keep(self, seeds):
        """Go on with the trials of these seeds only."""
        distinct = list(dict.fromkeys(seeds))
        self._batches = {seed: self._batches[seed] for seed in distinct}
        self._which = torch.tensor([distinct.index(seed) for seed in seeds])

    def next(self, names, device):
        """Return the numbers of a step.

        Parameters
        ----------
        names : sequence of str
            What is drawn in this step beside the batch.
        device : torch.device

        Returns
        -------
        dict
            "index", the examples of the batch, shape (trials, batch_size), and what `names` are,
            with the trials as first axis. Where all trials have one seed, they are views of the
            same numbers.
        """
        indices = [next(stream) for stream in self._batches.values()]
        found = {"index": self._of_trials(indices, device)}
        for name in names:
            draw, rngs = self._draws[name]
            pairs = zip(self._batches, indices, strict=True)
            drawn = [draw(rngs[seed], len(index)) for seed, index in pairs]
            found[name] = tree_map(lambda *parts: self._of_trials(parts, device), *drawn)
        return found

    def _of_trials(self, parts, device):
        """Return each trial's numbers from those of each seed."""
        if len(parts) == 1:
            return parts[0].to(device).expand(len(self._which), *parts[0].shape)
        return torch.stack(parts).to(device)[self._which]
