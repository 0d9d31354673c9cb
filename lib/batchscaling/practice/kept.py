"""Computing with a user's network without a trace: on copies."""

import copy
import inspect
from functools import partial

import numpy as np
import torch
from torch.nn.parallel import DistributedDataParallel
from torch.nn.parameter import is_lazy

from batchscaling import _validation as check
from batchscaling.practice.losses import named, value
from batchscaling.practice.memory import is_out_of_memory
from batchscaling.practice.states import owner_of
from batchscaling.practice.taps import is_of_meter

_WORKS = partial(named, allowed="one that works with every batch of the data, also larger ones")


def copied(model, optimizer, loss):
    """Return copies of a network, its optimizer and a loss that belong together, to be trained.

    A model in the mode of evaluation is put into that of training. If it is in training, each of
    its modules stays in its own mode: layers may be frozen. Hooks of gradients and of optimizer
    steps are those of the originals, without a meter's. A loss is copied if it is a module, a
    method of one, or a `functools.partial` of either; others are as they were.

    Raises
    ------
    ValueError
        If one of them cannot be copied, also for want of memory, or the copies do not belong
        together.
    """
    memo = {}  # tensors that are shared are shared in the copies
    try:
        copies = copy.deepcopy((model, optimizer), memo)
        _copy_attributes(optimizer, copies[1], memo)
        if isinstance(owner_of(loss), torch.nn.Module):
            loss = copy.deepcopy(loss, memo)
    except (RuntimeError, TypeError, MemoryError) as error:
        if is_out_of_memory(error):
            check.reject("model", "too large", f"one that fits into memory twice ({error})")
        allowed = f"one that copy.deepcopy copies, with its optimizer and loss ({error})"
        check.reject("model", type(model).__name__, allowed)
    if not _belong(*copies):
        allowed = "one whose copy the copied optimizer trains; a scripted module has none"
        check.reject("model", type(model).__name__, allowed)
    _copy_hooks(model, optimizer, *copies)
    if not model.training:
        copies[0].train()
    return *copies, loss


def loss_of(model, loss, batch, told=_WORKS):
    """Return the outputs and the loss of a batch of inputs and labels.

    Raises
    ------
    ValueError
        If the model or the loss fails, but for memory.
    """
    inputs, labels = batch
    with told("model"):
        outputs = model(inputs)
    with told("loss"):
        return outputs, value(loss, outputs, labels)


def mean_loss(model, loss, batches):
    """Return the mean of the losses of batches of inputs and labels, of equal size."""
    with torch.no_grad():
        return float(np.mean([float(loss_of(model, loss, batch)[1]) for batch in batches]))


def gradient(model, loss, batch, optimizer):
    """Let parameters hold the gradient of a batch of inputs and labels.

    Raises
    ------
    ValueError
        If the model or the loss fails, but for memory.
    """
    optimizer.zero_grad()
    _, found = loss_of(model, loss, batch)
    with _WORKS("loss"):
        found.backward()


def check_network(model, optimizer):
    """Check that both are what torch calls so, and that the optimizer trains the model.

    Raises
    ------
    ValueError
        If they are not, the optimizer is neither SGD nor a relative of Adam, or it maximizes.
    """
    if not isinstance(model, torch.nn.Module) or isinstance(model, DistributedDataParallel):
        check.reject("model", type(model).__name__, "a torch.nn.Module, such as the one in a DDP")
    for name, param in model.named_parameters():
        if is_lazy(param):
            found = f"with {name!r} without a shape yet"
            check.reject("model", found, "one that has been called once")
        if param.is_meta:
            check.reject("model", f"with {name!r} on the device 'meta'", "one that holds numbers")
        if not all(map(is_of_meter, (param._post_accumulate_grad_hooks or {}).values())):
            found = f"with a hook after the gradient of {name!r} is added"
            check.reject("model", found, "one without: on a copy it may step the run's optimizer")
    _check_optimizer(optimizer)
    if not _belong(model, optimizer):
        check.reject("optimizer", "one of other parameters", "one of parameters of the model")
    if not any(param.requires_grad for param in _params(optimizer)):
        allowed = "one with a parameter that the optimizer trains"
        check.reject("model", "without a parameter to train", allowed)


def is_decoupled(optimizer, group):
    """Return whether the weight decay of a group is apart from the gradient, as AdamW's is."""
    return group.get("decoupled_weight_decay", isinstance(optimizer, torch.optim.AdamW))


def _check_optimizer(optimizer):
    kind, adaptive = type(optimizer).__name__, "betas" in getattr(optimizer, "defaults", {})
    if not isinstance(optimizer, torch.optim.SGD) and not adaptive:
        check.reject("optimizer", kind, "a torch.optim.SGD, or Adam or a relative of it")
    for group in optimizer.param_groups:
        if group.get("maximize"):
            check.reject("optimizer", f"{kind} with maximize", "one that minimizes the loss")
        if adaptive and len(group["betas"]) != 2:
            found = f"{kind} with {len(group['betas'])} betas"
            check.reject("optimizer", found, "a relative of Adam with two betas")


def _params(optimizer):
    return [param for group in optimizer.param_groups for param in group["params"]]


def _belong(model, optimizer):
    """Return whether all that an optimizer trains is the model's."""
    own = {id(param) for param in model.parameters()}
    return all(id(param) in own for param in _params(optimizer))


def _copy_attributes(optimizer, new, memo):
    """Copy what a class of the user's keeps beside what torch copies.

    Functions are left out: a scheduler puts one there that steps the optimizer it was made for.
    """
    for name, held in vars(optimizer).items():
        if name not in vars(new) and not inspect.isroutine(held):
            setattr(new, name, copy.deepcopy(held, memo))


def _copy_hooks(model, optimizer, new, new_optimizer):
    """Let copies have the hooks that change gradients, which deepcopy drops."""
    for param, copied_param in zip(model.parameters(), new.parameters(), strict=True):
        for hook in (param._backward_hooks or {}).values():
            if not is_of_meter(hook):
                copied_param.register_hook(hook)
    copy_step_hooks(optimizer, new_optimizer)


def copy_step_hooks(optimizer, new):
    """Let an optimizer have the hooks of another one's steps, too."""
    for name in ("_optimizer_step_pre_hooks", "_optimizer_step_post_hooks"):
        getattr(new, name).update(getattr(optimizer, name))
