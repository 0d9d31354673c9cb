"""Data sets as tensors, and the order in which a trial sees them."""

from dataclasses import dataclass

import numpy as np
import torch
from sklearn.datasets import load_digits

from batchscaling._validation import integer


@dataclass(frozen=True)
class Data:
    """A data set, split for training and validation.

    Attributes
    ----------
    train_inputs : torch.Tensor, shape (examples, features)
    train_labels : torch.Tensor of int64, shape (examples,)
    validation_inputs : torch.Tensor, shape (validation examples, features)
    validation_labels : torch.Tensor of int64, shape (validation examples,)
    """

    train_inputs: torch.Tensor
    train_labels: torch.Tensor
    validation_inputs: torch.Tensor
    validation_labels: torch.Tensor


def digits(*, validation=360, seed=0):
    """Return scikit-learn's 1,797 images of hand-written digits, 8 by 8 pixels each.

    All pixels are shifted and scaled by one mean and one standard deviation, those of the
    training pixels. Some pixels never change, so a scale for each pixel would divide by zero.

    Parameters
    ----------
    validation : int
        Number of validation examples, from 1 to 1796. The rest is the training set.
    seed : int
        Seed of the split. The split does not depend on the seeds of the trials.

    Returns
    -------
    Data
        Inputs in float32, of shape (1797 - validation, 64) and (validation, 64).

    Raises
    ------
    ValueError
        If `validation` or `seed` is outside its range.
    """
    images, labels = load_digits(return_X_y=True)
    validation = integer("validation", validation, 1, len(images) - 1)
    inputs = torch.tensor(images, dtype=torch.float32)
    labels = torch.tensor(labels)
    order = torch.randperm(len(inputs), generator=generator(seed, "split"))
    held_out, kept = order[:validation], order[validation:]
    inputs = (inputs - inputs[kept].mean()) / inputs[kept].std()
    return Data(inputs[kept], labels[kept], inputs[held_out], labels[held_out])


def batches(seed, examples, batch_size):
    """Yield the indices of one batch after the other, without end.

    The data is shuffled, used up, and shuffled again. A batch that meets the end of one epoch
    takes its rest from the next. So the order of the examples depends on `seed` alone: a larger
    batch cuts the same stream into longer pieces.

    Parameters
    ----------
    seed : int
        Seed of the order.
    examples : int
        Number of training examples.
    batch_size : int
        Examples in a batch, from 1 to `examples`.

    Yields
    ------
    torch.Tensor of int64, shape (batch_size,)

    Raises
    ------
    ValueError
        If an argument is outside its range; raised when the first batch is asked for.
    """
    examples = integer("examples", examples, 1)
    batch_size = integer("batch_size", batch_size, 1, examples)
    rng = generator(seed, "order")
    stream = torch.empty(0, dtype=torch.int64)
    while True:
        if len(stream) < batch_size:
            stream = torch.cat([stream, torch.randperm(examples, generator=rng)])
        yield stream[:batch_size]
        stream = stream[batch_size:]


def generator(seed, purpose):
    """Return a random generator that is independent for each (`seed`, `purpose`).

    Parameters
    ----------
    seed : int
        Zero or larger.
    purpose : {"split", "init", "order"}
        What the numbers are for.

    Returns
    -------
    torch.Generator
    """
    entropy = (integer("seed", seed, 0), ("split", "init", "order").index(purpose))
    state = np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state))
