"""A call of a module with other parameters: what is watched, and how torch is to compute."""

from contextlib import contextmanager, nullcontext
from threading import RLock

import torch
from torch import nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from batchscaling import _validation as check
from batchscaling.training.models.module_checks import same

_OF_EMBEDDING = "input", "weight", "padding_idx"

ONE_AT_A_TIME = RLock()
"""Threads share torch's generator, and a module the tensors that are put into it."""


@contextmanager
def together():
    """Let an error that says that rows cannot be computed together name what is wrong."""
    try:
        yield
    except RuntimeError as error:
        if not any(word in str(error) for word in ("Batching rule not implemented", "vmap:")):
            raise
        found = f"of a module that torch.func.vmap cannot take ({error})"
        check.reject("build", found, "layers that it can take; recurrent layers of torch are none")


@contextmanager
def only_outputs(module, tensors, *, thorough):
    """Refuse a forward, with these tensors at their places, that leaves more than its outputs.

    That is random numbers drawn and buffers changed. To see changes that torch does not count takes
    a `thorough` look, at all their numbers; it sees a word that pads, too, of which only layers
    know in every row. A program that is being compiled shows nothing, nor do tensors without
    numbers.
    """
    compiling = torch.compiler.is_compiling()
    with nullcontext() if compiling else ONE_AT_A_TIME, _without_fast_path():
        if compiling or any(tensor.is_meta for tensor in tensors.values()):
            yield
        else:
            with _watched(module, tensors, thorough):
                yield


@contextmanager
def _watched(module, tensors, thorough):
    allowed = "one without, such as in the mode of module.eval()"
    before = {place: tensors[place].clone() if thorough else None for place, _ in _buffers(module)}
    counts = {place: _changes(tensors[place]) for place in before}

    def look(*_):
        for place, now in _buffers(module):
            given = now is tensors.get(place) and _changes(now) == counts[place]
            if not given or (thorough and not same(now, before[place])):
                found = f"of a module whose forward changes its buffer {place!r}"
                check.reject("build", found, allowed)

    drawn = torch.random.get_rng_state()
    hook = module.register_forward_hook(look)
    try:
        with _PaddingOfLayers(module, tensors) if thorough else nullcontext():
            yield
    finally:
        hook.remove()
    if not torch.equal(torch.random.get_rng_state(), drawn):
        check.reject("build", "of a module whose forward draws random numbers", allowed)


class _PaddingOfLayers(TorchFunctionMode):
    """Refuses a word that pads in a call of ``functional.embedding`` that is not a layer's own.

    Under ``vmap`` torch would train it in all rows but the first.
    """

    def __init__(self, module, tensors):
        super().__init__()
        layers = [(n, m) for n, m in module.named_modules() if isinstance(m, nn.Embedding)]
        self._known = [id(tensors.get(f"{name}.weight".lstrip("."))) for name, _ in layers]

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function is functional.embedding:
            _, weight, padding = (*args, *[kwargs.get(n) for n in _OF_EMBEDDING[len(args) :]])[:3]
            if padding is not None and id(weight) not in self._known:
                found = "of a module whose forward calls functional.embedding with padding_idx"
                check.reject("build", found, "torch.nn.Embedding with a weight as it is stored")
        return function(*args, **kwargs)


def _changes(tensor):
    """Return how often a tensor was written to, as far as torch counts it."""
    return None if tensor.is_inference() else tensor._version


def _buffers(module):
    return module.named_buffers(remove_duplicate=False)


@contextmanager
def _without_fast_path():
    """Compute attention by what has a derivative, also in the mode of evaluation."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
