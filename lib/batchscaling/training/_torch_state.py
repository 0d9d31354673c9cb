"""What a process has set in torch: set aside while the library computes, and put back."""

from contextlib import ExitStack, contextmanager
from functools import wraps
from threading import Lock

import torch
from torch.amp.autocast_mode import is_autocast_available

_AUTOCASTS = ("cpu", "cuda", "mps", "xpu")
_users, _before, _lock = 0, None, Lock()


def undisturbed(function):
    """Let a function compute in torch's own default state, whatever the process has set."""

    @wraps(function)
    def wrapped(*args, **kwargs):
        with ExitStack() as stack:
            stack.enter_context(torch.inference_mode(False))  # it turns gradients on, too
            # It would raise an error where a trial diverges.
            stack.enter_context(torch.autograd.set_detect_anomaly(False))
            stack.enter_context(without_autocast())
            stack.enter_context(_float32())
            if torch.empty(0).device.type != "cpu":
                # Not always: torch then looks at every call of a function.
                stack.enter_context(torch.device("cpu"))
            stack.enter_context(matrix_products(tf32=False))
            return function(*args, **kwargs)

    return wrapped


@contextmanager
def without_autocast():
    """Compute in the types that tensors have, on all devices."""
    with ExitStack() as stack:
        for kind in _AUTOCASTS:
            if is_autocast_available(kind) and torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        yield


@contextmanager
def matrix_products(*, tf32):
    """Compute products and convolutions in float32, or on a GPU in TF32, and restore the rest.

    Torch has two interfaces to this. Where both were used, and disagree, the getters of the old one
    fail, and so may products. So both are set, and each is saved apart from the other.
    """
    before = _save()
    try:
        torch.backends.cuda.matmul.allow_tf32 = tf32
        if torch.cuda.is_available():
            torch.backends.cudnn.allow_tf32 = tf32
        for leaf in _leaves():
            # Forbidden, cuDNN's leaves would be "none", and so those of their parents.
            _set(*leaf, "tf32" if tf32 and leaf[0] == "cuda" else "ieee")
        yield
    finally:
        _restore(before)


@contextmanager
def _float32():
    """Make float32 the default, and restore it when the last thread that asked for it ends."""
    global _users, _before
    with _lock:
        if _users == 0:
            _before = torch.get_default_dtype()
        _users += 1
        torch.set_default_dtype(torch.float32)
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if _users == 0:
                torch.set_default_dtype(_before)


def _leaves():
    """Return the backends and operations of the new interface that are to be set.

    Torch has it from 2.9 on. The settings of cuDNN are left alone without a GPU: what they are
    before anybody sets them cannot be set again.
    """
    if not hasattr(torch._C, "_get_fp32_precision_getter"):
        return []
    leaves = [("mkldnn", operation) for operation in ("matmul", "conv", "rnn")]
    leaves.append(("cuda", "matmul"))
    return leaves + [("cuda", "conv"), ("cuda", "rnn")] * torch.cuda.is_available()


def _save():
    """Return the old settings and the new ones, and leave all new ones at float32."""
    new = {leaf: (_own(*leaf), _get(*leaf)) for leaf in _leaves()}
    for leaf in new:
        _set(*leaf, "ieee")
    # With these, the getter of the old precision of products always answers. That of cuDNN fails
    # where its setting is not that of these, so where it allows TF32.
    matmul, cudnn = torch.get_float32_matmul_precision(), None
    if torch.cuda.is_available():
        try:
            cudnn = torch.backends.cudnn.allow_tf32
        except RuntimeError:
            cudnn = True
    return matmul, cudnn, new


def _restore(before):
    matmul, cudnn, new = before
    torch.set_float32_matmul_precision(matmul)
    if cudnn is not None:
        torch.backends.cudnn.allow_tf32 = cudnn
    for leaf, (own, value) in new.items():
        _set(*leaf, own)
        if _get(*leaf) != value:
            _set(*leaf, value)


def _own(backend, operation):
    """Return a precision as it was set: "none" where it is that of its parent."""
    if backend == "generic":
        return _get(backend, operation)
    parent = (backend, "all") if operation != "all" else ("generic", "all")
    before, seen = _own(*parent), []
    for value in ("ieee", "tf32"):
        _set(*parent, value)
        seen.append(_get(backend, operation))
    _set(*parent, before)
    return seen[0] if seen[0] == seen[1] else "none"


def _get(backend, operation):
    return torch._C._get_fp32_precision_getter(backend, operation)


def _set(backend, operation, precision):
    torch._C._set_fp32_precision_setter(backend, operation, precision)
