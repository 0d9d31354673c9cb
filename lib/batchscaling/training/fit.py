"""Whether data and a model fit each other: checks of shapes, types and labels before a run."""

import torch

from batchscaling import _validation as check
from batchscaling._errors import InputError
from batchscaling.training.data import generator
from batchscaling.training.losses import cross_entropy, shown

_ERRORS = (AttributeError, IndexError, RuntimeError, TypeError, ValueError)


def check_fit(data, model, loss=cross_entropy, measures=()):
    """Check that the parts of the data fit each other, and the model.

    Parameters
    ----------
    data : Data
    model : Model
    loss : Loss
    measures : sequence of str
        What is evaluated, as for `train`.

    Raises
    ------
    ValueError
        If they do not fit. It names the part, its type and its shape.
    """
    params = model.init(generator(0, "init"))
    for part in ("train", "validation", "test"):
        names = f"{part}_inputs", f"{part}_labels"
        pair = [getattr(data, name) for name in names]
        if part == "test" and pair == [None, None]:
            continue
        augment = data.augment if part == "train" else None
        check_examples(model, params, *pair, names=names, loss=loss, augment=augment)
    held = len(data.validation_labels)
    evaluated = {"validation_labels": data.validation_labels}
    if "training" in measures:
        evaluated[f"train_labels[:{held}]"] = data.train_labels[:held]
    if any(measure.endswith("objective") for measure in measures):
        evaluated["train_labels"] = data.train_labels
    for name, labels in evaluated.items():
        if not loss.counts(labels).any():
            check.reject(name, f"{shown(labels)}, all of them -1", "some labels that count")


def check_examples(
    model, params, inputs, labels, *, names=("inputs", "labels"), loss=cross_entropy, augment=None
):
    """Check that inputs and labels fit each other, and the model.

    The model is asked for the outputs of two examples, on the CPU: on a GPU a number that is
    no word's would be the end of the process's work there.

    Parameters
    ----------
    model : Model
    params : dict of torch.Tensor
    inputs, labels : torch.Tensor
    names : tuple of two str
        What errors call them.
    loss : Loss
    augment : FlipCrop, optional

    Raises
    ------
    ValueError
        As `check_fit`.
    """
    for name, tensor in zip(names, (inputs, labels), strict=True):
        if not isinstance(tensor, torch.Tensor) or tensor.ndim == 0:
            check.reject(name, type(tensor).__name__, "a tensor, its first axis the examples")
    if not len(inputs) or len(inputs) != len(labels):
        allowed = f"as many as {names[0]}, {shown(inputs)}; at least 1"
        check.reject(names[1], f"{len(labels)} labels, {shown(labels)}", allowed)
    outputs = _outputs(model, params, inputs, names[0], augment)
    loss.check(names[1], labels, (len(labels), *outputs.shape[1:]))


def check_params(model, params):
    """Check that parameters are finite, and have the names and shapes of a model's own.

    Parameters
    ----------
    model : Model
    params : dict of torch.Tensor
        Of one trial.

    Raises
    ------
    ValueError
        If they are or do not. It names the parameter.
    """
    own = {name: p.shape for name, p in model.init(generator(0, "init")).items()}
    if not isinstance(params, dict) or params.keys() != own.keys():
        found = list(params) if isinstance(params, dict) else type(params).__name__
        check.reject("params", found, f"a dict of tensors with the model's names, {list(own)}")
    for name, shape in own.items():
        found = params[name]
        if not isinstance(found, torch.Tensor) or not found.is_floating_point():
            check.reject(f"params[{name!r}]", type(found).__name__, "a tensor of real numbers")
        if found.shape != shape or not found.isfinite().all():
            allowed = f"finite numbers of the model's shape, {tuple(shape)}"
            check.reject(f"params[{name!r}]", shown(found), allowed)


@torch.no_grad()
def _outputs(model, params, inputs, name, augment):
    """Return the model's outputs for two examples; of words, for the smallest and the largest."""
    try:
        words = not (inputs.is_floating_point() or inputs.is_complex())
        probe = torch.stack(inputs.aminmax(dim=0) if words else (inputs[0], inputs[-1])).cpu()
        if augment is not None:
            probe = augment.apply(probe, augment.draw(generator(0, "augment"), len(probe)))
        outputs = model.apply({name: p.cpu() for name, p in params.items()}, probe)
    except InputError:  # the model's own
        raise
    except _ERRORS as error:
        allowed = f"inputs that the model takes; it says: {str(error).strip()}"
        check.reject(name, shown(inputs), allowed)
    if outputs.ndim < 2 or len(outputs) != len(probe):
        found = f"{tuple(outputs.shape)} for {len(probe)} of {name} {shown(inputs)}"
        check.reject("the shape of the model's outputs", found, "(examples, ..., classes)")
    return outputs
