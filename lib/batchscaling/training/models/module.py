"""A network of one's own: an ordinary ``torch.nn.Module`` as a `Model`."""

import torch
from torch import nn
from torch.func import functional_call

from batchscaling import _validation as check
from batchscaling.training._torch_state import undisturbed
from batchscaling.training.models.base import Model
from batchscaling.training.models.module_calls import ONE_AT_A_TIME, only_outputs, together
from batchscaling.training.models.module_checks import (
    check_build,
    check_layers,
    check_new,
    fixed_tensors,
)
from batchscaling.training.models.module_taps import recording


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
        depend on torch's random numbers only, or a module with random layers, sparse gradients, or
        layers that take statistics of a batch, as batch normalisation does in training. Where only
        `forward` shows it, as that it changes a buffer, `Model.apply` raises the error.

    Examples
    --------
    >>> from torch import nn
    >>> from batchscaling.training import from_module
    >>> model = from_module(lambda: nn.Sequential(nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 10)))
    """
    check_build(build)
    module, again, other = (_built(build, _generator(seed)) for seed in (0, 0, 1))
    check_layers(module)
    check_new(module, again)
    _keep_padding(module)
    fixed = fixed_tensors(module, other)
    names = {id(t): name for name, t in (*module.named_parameters(), *module.named_buffers())}
    name_at = {place: names[id(t)] for place, t in places(module)}

    applied = []  # not empty once a forward was looked at

    @undisturbed
    def init(rng):
        return _trained(_built(build, rng))

    def apply(params, inputs):
        like = next(iter(params.values()))
        given = params | {name: _beside(t, like) for name, t in fixed.items()}
        tensors = {place: given[name] for place, name in name_at.items()}
        watched = only_outputs(module, tensors, thorough=not applied)
        with together(), watched, recording(module, name_at, params):
            outputs = functional_call(module, tensors, (inputs,), tie_weights=False)
        if not isinstance(outputs, torch.Tensor):
            kind = type(outputs).__name__
            check.reject("build", f"of a module that returns a {kind}", "one that returns a tensor")
        if not inputs.is_meta and not torch.compiler.is_compiling():
            applied[:] = [True]
        return outputs

    return Model(init, apply)


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
    with ONE_AT_A_TIME:
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

    def hook(layer, inputs, named_inputs, outputs):
        (words,) = inputs or named_inputs.values()
        return torch.where((words == layer.padding_idx)[..., None], outputs.detach(), outputs)

    for layer in module.modules():
        if isinstance(layer, nn.Embedding) and layer.padding_idx is not None:
            layer.register_forward_hook(hook, with_kwargs=True)


def _beside(tensor, like):
    """Return a tensor on the device of another, and if it is float32, in the type of that."""
    return tensor.to(like) if tensor.dtype == torch.float32 else tensor.to(like.device)


def _trained(module):
    return {name: p.detach() for name, p in module.named_parameters() if p.requires_grad}
