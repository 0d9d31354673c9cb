"""What a loss must be, and its value: one rule for all that is measured."""

from contextlib import contextmanager

import torch

from batchscaling import _validation as check
from batchscaling._errors import InputError
from batchscaling.practice.memory import is_out_of_memory

_ALLOWED = (
    "a function of outputs and labels that returns the mean over a batch, "
    "as a tensor of one real number that depends on the parameters"
)


def check_loss(loss):
    """Check that a loss can be called, and is no class such as `torch.nn.CrossEntropyLoss`.

    Raises
    ------
    ValueError
        If not.
    """
    if not callable(loss) or isinstance(loss, type):
        check.reject("loss", loss, _ALLOWED)


def value(loss, outputs, labels):
    """Return the loss of a batch, a tensor without dimensions.

    Raises
    ------
    ValueError
        If it is not one real number or, where gradients are taken, depends on no parameter.
    """
    found = loss(outputs, labels)
    if not _is_value(found):
        check.reject("loss", f"one that returns {_shown(found)}", _ALLOWED)
    return found.reshape(()) if found.ndim else found


@contextmanager
def named(what, allowed):
    """Let an error of a user's own code name the argument that it came from.

    Those that say that memory is short stay as they are.

    Raises
    ------
    ValueError
        For any other.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        told = str(error).partition("\n")[0]
        check.reject(what, f"one that raises {type(error).__name__}: {told}", allowed)


def _is_value(found):
    is_number = isinstance(found, torch.Tensor) and found.numel() == 1 and found.is_floating_point()
    return is_number and (found.requires_grad or not torch.is_grad_enabled())


def _shown(found):
    if not isinstance(found, torch.Tensor):
        return f"a {type(found).__name__}"
    without = "" if found.requires_grad else ", without a gradient"
    return f"a tensor of shape {tuple(found.shape)} and {found.dtype}{without}"
