"""A step of a copy before anything is measured: what does not fit is named, nothing is changed."""

from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial

import torch
from torch.utils._pytree import tree_leaves, tree_map

from batchscaling import _validation as check
from batchscaling._errors import InputError
from batchscaling.practice.kept import copied, loss_of
from batchscaling.practice.losses import named, value
from batchscaling.practice.memory import is_out_of_memory
from batchscaling.practice.states import buffers_kept, modules_held, random_states_kept
from batchscaling.training._torch_state import without_autocast

_SAME = 1e-3  # relative difference of losses that rounding may make


@contextmanager
def tried(model, optimizer, loss, examples, batch_size):
    """Take a step on copies, and keep a user's state while more is measured on others.

    Gradients are on, and autocast is off, whatever the process has set. Random numbers, and
    gradients of tensors that the loss holds itself, are put back at the end. Where memory is short,
    a smaller batch is tried.

    Raises
    ------
    ValueError
        If data, model, loss or optimizer fails at this batch size, or the loss looks at parameters
        of the model, which would not be those of the copies, or is a sum over the batch.
    """
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))  # which lets gradients be taken, too
        # It would raise an error where a loss is not finite.
        stack.enter_context(torch.autograd.set_detect_anomaly(False))
        stack.enter_context(without_autocast())  # its copies of weights would not be trained
        stack.enter_context(random_states_kept(model, loss, *examples.holders))
        stack.enter_context(buffers_kept(modules_held(loss)))
        with random_states_kept():
            others = _tensors_of_others(model, optimizer, loss, examples, batch_size)
        stack.enter_context(_gradients_aside(others))
        yield


def _tensors_of_others(model, optimizer, loss, examples, batch_size):
    """Return the tensors that a step would change though they are no copies."""
    size = min(batch_size, examples.count)
    told = partial(named, allowed=f"one that works in training with a batch of {size} examples")
    while True:
        try:
            return _step(model, optimizer, loss, examples, size, told)
        except InputError:
            raise
        except Exception as error:
            if size == 1 or not is_out_of_memory(error):
                return []  # smaller batches fail for other reasons, which the run does not meet
        size, told = size // 2, nullcontext


def _step(model, optimizer, loss, examples, size, told):
    new, new_optimizer, new_loss = copied(model, optimizer, loss)
    batch = examples.first(size)
    outputs, found = loss_of(new, new_loss, batch, told)
    own, copies = ({id(param) for param in each.parameters()} for each in (model, new))
    others = [leaf for leaf in _leaves(found) if id(leaf) not in copies]
    if any(id(leaf) in own for leaf in others):
        allowed = (
            "one that sees the model by its outputs only, or a torch.nn.Module that holds it; "
            "weight decay belongs to the optimizer"
        )
        check.reject("loss", "a function that looks at parameters of the model", allowed)
    with told("loss"), _gradients_aside(others):
        found.backward()
    if size == 1 < examples.count:  # one alone does not tell a sum from a mean
        outputs, batch = _of_two(new, examples, outputs, batch)
    _check_mean(new_loss, outputs, batch[1])  # not before: a loss may change what it keeps
    with told("optimizer"):
        new_optimizer.step()
    return others


def _of_two(model, examples, outputs, batch):
    """Return outputs and the batch of two examples, or what is given if there are none."""
    try:
        two = examples.first(2)
        with torch.no_grad():
            return model(two[0]), two
    except Exception:  # a model may take one example only
        return outputs, batch


def _check_mean(loss, outputs, labels):
    """Refuse a loss that is a sum over the batch, if outputs and labels can be divided."""
    leaves = tree_leaves((outputs, labels))
    tensors = all(isinstance(leaf, torch.Tensor) and leaf.ndim for leaf in leaves)
    if not tensors or len({len(leaf) for leaf in leaves}) != 1:
        return
    pieces = min(4, len(leaves[0]))
    count = len(leaves[0]) // max(pieces, 1) * pieces

    def of(place, parts):
        """Return the loss of one of so many equal parts."""
        some = slice(place * count // parts, (place + 1) * count // parts)
        pair = tree_map(lambda leaf: leaf.detach()[some], (outputs, labels))
        return float(value(loss, *pair))

    try:
        with torch.no_grad():
            whole, *divided = ([of(k, parts) for k in range(parts)] for parts in (1, 2, pieces))
    except Exception:  # such as that of a loss of pairs, which a part of a batch may not have
        return
    if sum(part != 0 for part in divided[-1]) < 2:
        return
    if all(abs(whole[0] - sum(parts)) <= _SAME * abs(whole[0]) for parts in divided):
        found = "a sum: that of a batch is that of its parts added up"
        check.reject("loss", found, "a mean over the batch")


def _leaves(found):
    """Yield the tensors that a backward pass gives gradients to."""
    seen, waiting = set(), [found.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if type(node).__name__ == "AccumulateGrad":
            yield node.variable
        waiting += [before for before, _ in node.next_functions]


@contextmanager
def _gradients_aside(tensors):
    """Let tensors be without gradients, and put back those that they have."""
    before = [tensor.grad for tensor in tensors]
    try:
        for tensor in tensors:
            tensor.grad = None
        yield
    finally:
        for tensor, grad in zip(tensors, before, strict=True):
            tensor.grad = grad
