"""Errors that say that memory is short, by whatever name."""

import torch

_SHORT = (
    "out of memory",
    "can't allocate memory",
    "not enough memory",
    "unable to allocate",
    "alloc_failed",
)


def is_out_of_memory(error):
    """Return whether an error says that memory is short."""
    if isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error).lower() for word in _SHORT)
