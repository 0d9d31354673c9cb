"""Where and how torch computes: its threads, the precision of products, compiled functions."""

from contextlib import contextmanager, nullcontext

import torch

from batchscaling import _validation as check
from batchscaling.training._torch_state import matrix_products

PRECISIONS = ("float32", "tf32", "bf16")


def check_device(device):
    """Return a `torch.device` that is here.

    Raises
    ------
    ValueError
        If torch finds no such device.
    """
    allowed = "the name of a device that torch finds here, such as 'cpu'"
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except (AssertionError, RuntimeError, TypeError):
        check.reject("device", device, allowed)
    return found


@contextmanager
def one_thread():
    """Keep torch on one thread.

    The operations are many and small: more threads would mostly wait for each other, and for very
    long where other programs use the cores. It also makes results independent of their number.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def products_in(precision, device):
    """Compute matrix products in one of `PRECISIONS`."""
    cast = nullcontext()
    if precision == "bf16":
        # The cache would keep a copy of the parameters of every step.
        cast = torch.autocast(device.type, torch.bfloat16, cache_enabled=False)
    with matrix_products(tf32=precision == "tf32"), cast:
        yield


def compile_all(*functions, device):
    """Return the functions through ``torch.compile``; an error says that one cannot be compiled."""
    torch.compiler.reset()  # it keeps a few versions of a function only, then gives up
    # On a CPU, calls of a small step's parts from Python take a fifth of its time.
    options = {"guard_filter_fn": _of_program, "cpp_wrapper": device.type == "cpu"}
    if device.type == "cpu" and torch.backends.mkldnn.is_available():
        options |= _passes()
    return [_compiled(function, options) for function in functions]


def _passes():
    """Return what the compiler does more than usual; nothing in a torch of other inner parts."""
    try:
        from batchscaling.training.shared_products import SharedProducts
    except ImportError:
        return {}
    return {"post_grad_custom_pre_pass": SharedProducts()}


def _compiled(function, options):
    try:
        # Sizes that change are made variables: the number of rows, which falls as trials end.
        run = torch.compile(function, options=options)
    except RuntimeError as error:  # as in a version of Python that torch cannot compile
        _not_compiled(error)

    def attempt(*args):
        try:
            return run(*args)
        except torch._dynamo.exc.BackendCompilerFailed as error:
            _not_compiled(error)

    return attempt


def _of_program(guards):
    """Say which guards each call looks at: those of a program and of what it is given.

    Hundreds more are of global functions and of torch's own tables. They stay as they are, and to
    look at them takes as long as a small step.
    """
    return [not (guard.is_global or "__import__" in guard.name) for guard in guards]


def _not_compiled(error):
    check.reject("compiled", True, f"False where torch cannot compile; it says: {error}")
