"""Errors that say that memory is short, by whatever name."""

from contextlib import contextmanager

import torch

from batchscaling import _validation as check

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


@contextmanager
def fitting(batch_size):
    """Let an error that says that memory is short name the batch size of the run.

    Raises
    ------
    ValueError
        For such an error; others stay as they are.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        check.reject("batch_size", batch_size, f"one that fits into memory ({error})")
