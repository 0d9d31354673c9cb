"""A network of one's own: an ordinary ``torch.nn.Module`` as a `Model`."""

import inspect
from contextlib import contextmanager
from threading import RLock

import torch
from torch import nn
from torch.func import functional_call
from torch.nn.parameter import is_lazy

from batchscaling import _validation as check
from batchscaling.training._torch_state import undisturbed
from batchscaling.training.models.base import Model
from batchscaling.training.models.module_taps import recording

_RANDOM = (nn.modules.dropout._DropoutNd, nn.RReLU)
_NORMALISING = nn.modules.batchnorm._NormBase
_EMBEDDING = (nn.Embedding, nn.EmbeddingBag)
_ONE_AT_A_TIME = RLock()  # threads share torch's generator, and a module the tensors put into it


@undisturbed
def from_module(build):
    """Return the `Model` of a ``torch.nn.Module``.

    Each trial has initial parameters of its own: `build` is called once for each, while torch
    draws its random numbers from the trial's seed. Parameters that are shared within the module
    stay shared. Parameters that do not require gradients stay as they are, and so do buffers, such
    as the positions of a Transformer or the statistics of batch normalisation in the mode of
    ``module.eval()``.

    Parameters
    ----------
    build : callable
        ``build()`` returns a new module whose ``forward`` takes a batch of inputs and returns a
        tensor: one row of outputs an example, or one row a position of an example. Its layers
        must work under ``torch.func.vmap``; those of `torch.nn` do, but for the recurrent ones.

    Returns
    -------
    Model
        Its parameters have the names of ``module.named_parameters()``. Its layers record what goes
        through them, as `layer_moments` asks, if they are linear, convolutions of images,
        embeddings, or normalise by layers, groups or root mean squares. A linear layer that shares
        the weights of an embedding is the transposed embedding.

    Raises
    ------
    ValueError
        If `build` returns something else than a new module whose parameters are float32 and
        depend on torch's random numbers only, or a module with random layers, or with layers that
        take statistics of a batch, as batch normalisation does in training. Where only `forward`
        shows it, as that it changes a buffer, `Model.apply` raises the error.

    Examples
    --------
    >>> from torch import nn
    >>> from batchscaling.training import from_module
    >>> model = from_module(lambda: nn.Sequential(nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 10)))
    """
    _check_build(build)
    module, again, other = (_built(build, _generator(seed)) for seed in (0, 0, 1))
    _check_layers(module)
    _check_new(module, again)
    _keep_padding(module)
    fixed = _fixed(module, other)
    names = {id(t): name for name, t in (*module.named_parameters(), *module.named_buffers())}
    name_at = {place: names[id(t)] for place, t in places(module)}

    @undisturbed
    def init(rng):
        return _trained(_built(build, rng))

    def apply(params, inputs):
        like = next(iter(params.values()))
        given = params | {name: _beside(t, like) for name, t in fixed.items()}
        tensors = {place: given[name] for place, name in name_at.items()}
        with _together(), recording(module, name_at, params), _only_outputs(module, tensors):
            outputs = functional_call(module, tensors, (inputs,), tie_weights=False)
        if not isinstance(outputs, torch.Tensor):
            kind = type(outputs).__name__
            check.reject("build", f"of a module that returns a {kind}", "one that returns a tensor")
        return outputs

    return Model(init, apply)


def _check_build(build):
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


def places(module):
    """Yield the places where a module's parameters and buffers stand, and what stands there.

    For ``functional_call(..., tie_weights=False)``. A module that stands in two places comes once:
    under both names, `functional_call` would not put its parameters back.
    """
    for prefix, layer in module.named_modules():
        for named in (layer.named_parameters, layer.named_buffers):
            for name, tensor in named(recurse=False, remove_duplicate=False):
                yield f"{prefix}.{name}".lstrip("."), tensor


def _generator(seed):
    return torch.Generator().manual_seed(seed)


def _built(build, rng):
    """Return a new module; torch draws from `rng`, and its own generator stays as it was."""
    with _ONE_AT_A_TIME:
        before = torch.default_generator.get_state()
        torch.default_generator.set_state(rng.get_state())
        try:
            module = build()
            rng.set_state(torch.default_generator.get_state())
        finally:
            torch.default_generator.set_state(before)
    if not isinstance(module, nn.Module):
        check.reject("build", f"of a {type(module).__name__}", "of a torch.nn.Module")
    return module


def _keep_padding(module):
    """Let the word that pads have no gradient in any row, and in both modes of differentiation.

    Under `vmap` torch knows it in the first row only, and forward mode does not know it at all.
    """

    def hook(layer, inputs, outputs):
        pads = (inputs[0] == layer.padding_idx)[..., None]
        return torch.where(pads, outputs.detach(), outputs)

    for layer in module.modules():
        if isinstance(layer, nn.Embedding) and layer.padding_idx is not None:
            layer.register_forward_hook(hook)


def _beside(tensor, like):
    """Return a tensor on the device of another, and if it is float32, in the type of that."""
    return tensor.to(like) if tensor.dtype == torch.float32 else tensor.to(like.device)


@contextmanager
def _together():
    """Let an error that says that rows cannot be computed together name what is wrong."""
    try:
        yield
    except RuntimeError as error:
        if not any(word in str(error) for word in ("Batching rule not implemented", "vmap:")):
            raise
        found = f"of a module that torch.func.vmap cannot take ({error})"
        check.reject("build", found, "layers that it can take; recurrent layers of torch are none")


@contextmanager
def _only_outputs(module, tensors):
    """Refuse a forward, with these tensors at their places, that leaves more than its outputs.

    That is random numbers drawn and buffers changed. A program that is being compiled shows
    neither, nor do tensors without numbers.
    """
    with _without_fast_path():
        if torch.compiler.is_compiling() or any(t.is_meta for t in tensors.values()):
            yield
        else:
            with _ONE_AT_A_TIME, _watched(module, tensors):
                yield


@contextmanager
def _watched(module, tensors):
    allowed = "one without, such as in the mode of module.eval()"
    buffers = {place: tensors[place].clone() for place, _ in _buffers(module)}

    def look(*_):
        for place, now in _buffers(module):
            if now is not tensors.get(place) or not _same(now, buffers[place]):
                found = f"of a module whose forward changes its buffer {place!r}"
                check.reject("build", found, allowed)

    drawn = torch.random.get_rng_state()
    hook = module.register_forward_hook(look)
    try:
        yield
    finally:
        hook.remove()
    if not torch.equal(torch.random.get_rng_state(), drawn):
        check.reject("build", "of a module whose forward draws random numbers", allowed)


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


def _trained(module):
    return {name: p.detach() for name, p in module.named_parameters() if p.requires_grad}


def _check_layers(module):
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
    if not _trained(module):
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


def _check_new(module, again):
    if module is again:
        check.reject("build", "of one module again and again", "a new one at each call")
    if not _equal(dict(module.named_parameters()), dict(again.named_parameters())):
        found = "of a module whose parameters differ for equal seeds of torch"
        check.reject("build", found, "random numbers of torch only")


def _fixed(module, other):
    """Return buffers, and parameters that are not trained; `other` is of another seed."""
    fixed, elsewhere = (
        {name: p.detach() for name, p in each.named_parameters() if not p.requires_grad}
        | {name: buffer.detach() for name, buffer in each.named_buffers()}
        for each in (module, other)
    )
    random = [n for n, t in fixed.items() if n not in elsewhere or not _same(t, elsewhere[n])]
    if random:
        found = f"of a module with random tensors that are not trained: {', '.join(random)}"
        check.reject("build", found, "such tensors only if they are the same for every seed")
    return fixed


def _equal(some, others):
    return some.keys() == others.keys() and all(_same(some[n], others[n]) for n in some)


def _same(one, other):
    """Return whether two tensors hold the same numbers, and both or neither none in each place."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    return bool(((one == other) | ((one != one) & (other != other))).all())
