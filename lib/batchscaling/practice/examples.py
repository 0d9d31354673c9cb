"""The examples of a check: those of tensors, of a data set or of a loader, by their numbers."""

import torch
from torch.utils.data import DataLoader, IterableDataset, default_collate

from batchscaling import _validation as check


class Examples:
    """Batches of inputs and labels by the numbers of their examples.

    Parameters
    ----------
    data : pair of torch.Tensor, torch.utils.data.Dataset or DataLoader
        Of a loader its data set and ``collate_fn`` count; its sampler is not touched.
    device : torch.device
        Where batches go.

    Raises
    ------
    ValueError
        If it holds no examples, or is none of these.
    """

    def __init__(self, data, device):
        self._device, self._collate = device, default_collate
        if isinstance(data, DataLoader):
            self._collate, data = data.collate_fn, data.dataset
        if isinstance(data, (tuple, list)):
            data = _pair(data)
        elif isinstance(data, IterableDataset) or not hasattr(data, "__getitem__"):
            allowed = "inputs and labels, a data set with numbered examples, or a DataLoader of one"
            check.reject("data", type(data).__name__, allowed)
        self._data = data
        self.count = len(data[0]) if isinstance(data, tuple) else len(data)
        if self.count == 0:
            check.reject("data", "without examples", "at least one")

    def batch(self, indices):
        """Return inputs and labels."""
        if isinstance(self._data, tuple):
            batch = [part[indices.to(part.device)] for part in self._data]
        else:
            batch = self._collate([self._data[int(index)] for index in indices])
        if not isinstance(batch, (tuple, list)) or len(batch) != 2:
            check.reject("data", f"batches of {type(batch).__name__}", "pairs of inputs and labels")
        return [p.to(self._device) if isinstance(p, torch.Tensor) else p for p in batch]


def _pair(data):
    is_pair = len(data) == 2 and all(isinstance(part, torch.Tensor) and part.ndim for part in data)
    if not is_pair or len(data[0]) != len(data[1]):
        check.reject("data", _shown(data), "a tensor of inputs and one of as many labels")
    return tuple(data)


def _shown(data):
    shapes = [tuple(p.shape) if isinstance(p, torch.Tensor) else type(p).__name__ for p in data]
    return f"a {type(data).__name__} of {shapes}"
