"""Computing with a user's network without a trace: on copies, with random numbers put back."""

import copy
import random
from contextlib import contextmanager

import numpy as np
import torch
from torch.nn.parallel import DistributedDataParallel

from batchscaling import _validation as check


def copied(model, optimizer):
    """Return copies of a network and its optimizer that belong together.

    Raises
    ------
    ValueError
        If the network cannot be copied.
    """
    try:
        return copy.deepcopy((model, optimizer))
    except (RuntimeError, TypeError) as error:
        check.reject("model", type(model).__name__, f"one that copy.deepcopy copies ({error})")


def gradient(model, loss, batch, optimizer):
    """Let parameters hold the gradient of a batch of inputs and labels."""
    inputs, labels = batch
    optimizer.zero_grad()
    loss(model(inputs), labels).backward()


def check_network(model, optimizer):
    """Check that both are what torch calls so, and that the optimizer's parameters are the model's.

    Raises
    ------
    ValueError
        If they are not, or the optimizer is neither SGD nor a relative of Adam.
    """
    if not isinstance(model, torch.nn.Module) or isinstance(model, DistributedDataParallel):
        check.reject("model", type(model).__name__, "a torch.nn.Module, such as the one in a DDP")
    known = isinstance(optimizer, torch.optim.SGD) or "betas" in getattr(optimizer, "defaults", {})
    if not known:
        kind = type(optimizer).__name__
        check.reject("optimizer", kind, "a torch.optim.SGD, or Adam or a relative of it")
    own = {id(param) for param in model.parameters()}
    if not all(id(p) in own for group in optimizer.param_groups for p in group["params"]):
        check.reject("optimizer", "one of other parameters", "one of parameters of the model")


@contextmanager
def random_states_kept():
    """Put back the random numbers of Python, numpy and torch at the end."""
    python, of_numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng():
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(of_numpy)


def is_out_of_memory(error):
    """Return whether an error says that memory is short."""
    words = ("out of memory", "can't allocate memory", "not enough memory")
    return isinstance(error, torch.cuda.OutOfMemoryError) or (
        isinstance(error, (RuntimeError, MemoryError)) and any(word in str(error) for word in words)
    )
