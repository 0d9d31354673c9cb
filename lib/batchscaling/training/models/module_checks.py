"""What `from_module` refuses: networks whose rows would not be those of ordinary training."""

import inspect

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from batchscaling import _validation as check

_RANDOM = (nn.modules.dropout._DropoutNd, nn.RReLU)
_NORMALISING = nn.modules.batchnorm._NormBase
_EMBEDDING = (nn.Embedding, nn.EmbeddingBag)


def check_build(build):
    """Check that it is a function that can be called without arguments."""
    allowed = "a function without arguments that returns a new module"
    if not callable(build) or isinstance(build, nn.Module):
        found = f"itself a {type(build).__name__}" if callable(build) else build
        check.reject("build", found, allowed)
    try:
        inspect.signature(build).bind()
    except TypeError:
        check.reject("build", build, f"{allowed}, such as lambda: nn.Linear(3, 2)")
    except ValueError:  # of what has no signature
        pass


def check_layers(module):
    """Check that each example has outputs of its own, which only its inputs decide."""
    for name, layer in module.named_modules():
        if isinstance(layer, _NORMALISING) and _takes_statistics(layer):
            found = f"of a module with a layer that takes statistics of a batch, {name!r}"
            check.reject("build", found, "layers in which examples do not meet, or module.eval()")
        if isinstance(layer, _RANDOM) and layer.training and getattr(layer, "p", 1) > 0:
            allowed = "no random layer, or module.eval()"
            check.reject("build", f"of a module with a random layer, {name!r}", allowed)
        if isinstance(layer, _EMBEDDING) and layer.sparse:
            found = f"of a module with sparse gradients, of {name!r}"
            check.reject("build", found, "dense ones, as with sparse=False")
    for name, p in module.named_parameters():
        if is_lazy(p) or p.dtype != torch.float32:
            kind = "without a shape yet" if is_lazy(p) else str(p.dtype)
            check.reject("build", f"of a module with {name!r} {kind}", "torch.float32")
    if not any(p.requires_grad for p in module.parameters()):
        check.reject("build", "of a module without parameters to train", "at least one")
    _check_apart(module)


def _check_apart(module):
    """Check that no two parameters are one piece of memory, which training would part."""
    name_at = {}
    for name, p in module.named_parameters():
        other = name_at.setdefault(p.data_ptr(), name) if p.numel() else name
        if other != name:
            found = f"of a module whose parameters {other!r} and {name!r} share their memory"
            check.reject("build", found, "one torch.nn.Parameter in both places instead")


def _takes_statistics(layer):
    """Return whether a layer takes statistics of a batch, or follows those that it sees."""
    stored = layer.running_mean is not None
    if isinstance(layer, nn.modules.batchnorm._BatchNorm):
        return layer.training or not stored
    return layer.training and stored


def check_new(module, again):
    """Check that two modules of one seed are two modules, and alike."""
    if module is again:
        check.reject("build", "of one module again and again", "a new one at each call")
    if not _equal(dict(module.named_parameters()), dict(again.named_parameters())):
        found = "of a module whose parameters differ for equal seeds of torch"
        check.reject("build", found, "random numbers of torch only")


def fixed_tensors(module, other):
    """Return buffers, and parameters that are not trained; `other` is of another seed."""
    fixed, elsewhere = (
        {name: p.detach() for name, p in each.named_parameters() if not p.requires_grad}
        | {name: buffer.detach() for name, buffer in each.named_buffers()}
        for each in (module, other)
    )
    random = [n for n, t in fixed.items() if n not in elsewhere or not same(t, elsewhere[n])]
    if random:
        found = f"of a module with random tensors that are not trained: {', '.join(random)}"
        check.reject("build", found, "such tensors only if they are the same for every seed")
    return fixed


def _equal(some, others):
    return some.keys() == others.keys() and all(same(some[n], others[n]) for n in some)


def same(one, other):
    """Return whether two tensors hold the same numbers, and both or neither none in each place."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    return bool(((one == other) | ((one != one) & (other != other))).all())
