"""The examples of a check: those of tensors, of a data set or of a loader, by their numbers."""

from collections.abc import Mapping

import torch
from torch.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    Subset,
    SubsetRandomSampler,
    WeightedRandomSampler,
    default_collate,
)

from batchscaling import _validation as check
from batchscaling.practice.losses import named

_ALLOWED = (
    "a tensor of inputs and one of labels, a data set or a list of pairs of them, or a DataLoader"
)


class Examples:
    """Batches of inputs and labels by the numbers of their examples.

    Parameters
    ----------
    data : pair of torch.Tensor, torch.utils.data.Dataset, list of pairs, or DataLoader
        Of a loader its data set and ``collate_fn`` count; of its sampler only which examples a
        `SubsetRandomSampler` takes.
    device : torch.device
        Where batches go.

    Raises
    ------
    ValueError
        If it holds no examples, or is none of these.
    """

    def __init__(self, data, device):
        self._device, self._collate = device, default_collate
        self._is_pair = _is_pair(data)
        if self._is_pair:
            self._data, self.count = data, len(data[0])
        else:
            if isinstance(data, DataLoader):
                self._collate, data = data.collate_fn, _drawn(data)
            elif isinstance(data, (tuple, list)):
                _check_pairs(data)
            self._data, self.count = _numbered(data), len(data)
        if self.count == 0:
            check.reject("data", "without examples", "at least one")

    @property
    def holders(self):
        """What the data are made of that may hold generators of random numbers."""
        return () if self._is_pair else _parts(self._data)

    def check_count(self, least, why):
        """Raise a ``ValueError`` if there are fewer examples, which says `why` it takes more."""
        if self.count < least:
            check.reject("data", f"one of {self.count} examples", f"at least {least}, {why}")

    def first(self, size):
        """Return the batch of the first so many examples."""
        return self.batch(torch.arange(size, device="cpu"))

    def batch(self, indices):
        """Return inputs and labels."""
        if self._is_pair:
            batch = [part[indices.to(part.device)] for part in self._data]
        else:
            with named("data", "one whose examples can be taken and collated"):
                batch = self._collate([self._data[int(index)] for index in indices])
        if not isinstance(batch, (tuple, list)) or len(batch) != 2:
            parts = f" of {len(batch)} parts" if isinstance(batch, (tuple, list)) else ""
            kind = type(batch).__name__
            check.reject("data", f"batches of {kind}{parts}", "pairs of inputs and labels")
        # Detached: a graph that they belong to is the user's.
        return [p.detach().to(self._device) if isinstance(p, torch.Tensor) else p for p in batch]


def _parts(data):
    """Return a data set, the data sets that it is made of, and the functions they change data by.

    Those are attributes, or entries of a list that is one.
    """
    found, waiting = {}, [data]
    while waiting:
        part = waiting.pop()
        if id(part) in found:
            continue
        found[id(part)] = part
        for held in getattr(part, "__dict__", {}).values():
            each = held if isinstance(held, (list, tuple)) else [held]
            waiting += [one for one in each if isinstance(one, Dataset) or callable(one)]
    return tuple(found.values())


def _drawn(loader):
    """Return the data set of a loader, or the part of it that the loader's sampler takes."""
    if loader.batch_sampler is None:
        check.reject("data", "a DataLoader with batch_size=None", "one that makes batches")
    sampler = getattr(loader.batch_sampler, "sampler", loader.sampler)
    if isinstance(sampler, WeightedRandomSampler):
        found = "a DataLoader with a WeightedRandomSampler"
        check.reject("data", found, "one whose examples all count alike")
    if isinstance(sampler, SubsetRandomSampler):
        return Subset(loader.dataset, list(sampler.indices))
    return loader.dataset


def _is_pair(data):
    """Return whether data are a tensor of inputs and one of labels; it refuses what seems to be."""
    if not isinstance(data, (tuple, list)) or not any(isinstance(p, torch.Tensor) for p in data):
        return False
    fits = len(data) == 2 and all(isinstance(part, torch.Tensor) and part.ndim for part in data)
    if not fits or len(data[0]) != len(data[1]):
        allowed = "a tensor of inputs and one of as many labels, a data set, or a DataLoader"
        check.reject("data", _shown(data), allowed)
    return True


def _numbered(data):
    unnumbered = isinstance(data, (IterableDataset, Mapping, str))
    if unnumbered or not (hasattr(data, "__getitem__") and hasattr(data, "__len__")):
        check.reject("data", type(data).__name__, _ALLOWED)
    return data


def _check_pairs(data):
    if not all(isinstance(entry, (tuple, list)) and len(entry) == 2 for entry in data):
        check.reject("data", _shown(data), _ALLOWED)


def _shown(data):
    if len(data) > 3:
        return f"a {type(data).__name__} of {len(data)} entries"
    shapes = [tuple(p.shape) if isinstance(p, torch.Tensor) else type(p).__name__ for p in data]
    return f"a {type(data).__name__} of {shapes}"
