"""The type of every data set, and the split that all of them share."""

from dataclasses import dataclass, fields, replace

import torch

from batchscaling import _validation as check
from batchscaling.training.data.augment import FlipCrop
from batchscaling.training.data.order import generator


@dataclass(frozen=True)
class Data:
    """A data set as tensors, split for training, validation and test.

    Inputs are float32 of shape (examples, features) or (examples, channels, height, width) for
    images, and int64 of shape (examples, length) for text. Labels are int64: of shape (examples,)
    for classification, (examples, length) for sequences. Label -1 marks a position that does not
    count. Labels that are numbers are float32, of the shape of the model's outputs.

    Attributes
    ----------
    train_inputs, train_labels : torch.Tensor
    validation_inputs, validation_labels : torch.Tensor
    test_inputs, test_labels : torch.Tensor or None
        None where the source has no test set.
    augment : FlipCrop or None
        Augmentation of the training inputs.
    vocabularies : tuple of tuple of str
        The words or characters behind the numbers: one vocabulary for a language model, source
        and target for translation, none for images.
    """

    train_inputs: torch.Tensor
    train_labels: torch.Tensor
    validation_inputs: torch.Tensor
    validation_labels: torch.Tensor
    test_inputs: torch.Tensor | None = None
    test_labels: torch.Tensor | None = None
    augment: FlipCrop | None = None
    vocabularies: tuple[tuple[str, ...], ...] = ()

    def to(self, device):
        """Return the same data with all tensors on `device`.

        Parameters
        ----------
        device : torch.device or str

        Returns
        -------
        Data
        """
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        tensors = {name: v for name, v in values.items() if isinstance(v, torch.Tensor)}
        return replace(self, **{name: tensor.to(device) for name, tensor in tensors.items()})


def split(count, *, validation, seed):
    """Return the indices of the examples kept for training, and of those held out.

    Parameters
    ----------
    count : int
        Number of all examples.
    validation : int
        Number of examples held out, from 1 to ``count - 1``.
    seed : int
        Seed of the split, zero or larger.

    Returns
    -------
    kept, held_out : torch.Tensor of int64
        In random order.
    """
    validation = check.integer("validation", validation, 1, count - 1)
    order = torch.randperm(count, generator=generator(seed, "split"))
    return order[validation:], order[:validation]


def first(kept, examples):
    """Return the first `examples` of the indices `kept`; all if `examples` is None."""
    return kept if examples is None else kept[: check.integer("examples", examples, 1, len(kept))]
