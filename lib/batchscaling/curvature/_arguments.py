"""What functions of this package take: a model at some parameters, and labelled examples."""

import torch

from batchscaling import _validation as check
from batchscaling.training.fit import check_examples


def checked(model, params, inputs, labels, *, single=False):
    """Return parameters, inputs and labels to compute with, real inputs as precise as parameters.

    With `single`, gradients are of single examples.

    Raises
    ------
    ValueError
        If inputs and labels do not fit each other or the model, or if with `single` the model has
        ghost batch normalisation.
    """
    if single and model.statistics is not None:
        check.reject("model", "one with ghost batch normalisation", "one without")
    params = {name: p.detach() for name, p in params.items()}
    dtype = next(iter(params.values())).dtype
    if isinstance(inputs, torch.Tensor) and inputs.is_floating_point():
        inputs = inputs.to(dtype)
    check_examples(model, params, inputs, labels)
    return params, inputs, labels


def counted(labels):
    """Return how many labels count, at least 1."""
    return (labels >= 0).sum().clamp(min=1)


def cross_entropies(outputs, labels):
    """Return -log softmax(outputs)[label], and zero for label -1."""
    picked = outputs.gather(-1, labels.clamp(min=0)[..., None])[..., 0]
    return (outputs.logsumexp(-1) - picked) * (labels >= 0)


def mean_loss(outputs, labels):
    """Return the mean cross-entropy over the labels that count."""
    return cross_entropies(outputs, labels).sum() / counted(labels)


def slopes(outputs, labels):
    """Return the derivative of the sum of all cross-entropies by the outputs."""
    hits = torch.nn.functional.one_hot(labels.clamp(min=0), outputs.shape[-1])
    return (outputs.softmax(-1) - hits) * (labels >= 0)[..., None]


def sampled(outputs, labels, rng):
    """Return labels drawn from the model's own probabilities; -1 stays -1."""
    chances = outputs.softmax(-1).flatten(0, -2).cpu()
    drawn = torch.multinomial(chances, 1, generator=rng).view_as(labels).to(labels.device)
    return torch.where(labels >= 0, drawn, labels)
