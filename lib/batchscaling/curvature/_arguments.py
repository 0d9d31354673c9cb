"""What functions of this package take: a model at some parameters, and labelled examples."""

import torch

from batchscaling import _validation as check
from batchscaling.training.fisher import slopes_of
from batchscaling.training.fit import check_examples, check_params
from batchscaling.training.kinds import check_kinds


def checked(model, params, inputs, labels, loss, *, single=False):
    """Return copies of parameters, inputs and labels, real inputs as precise as parameters.

    Copies, because the caller may change what a product was made from. With `single`, gradients
    are of single examples.

    Raises
    ------
    ValueError
        If model or loss is none, if parameters are not those of the model, if inputs and labels do
        not fit each other or the model, or if with `single` the model has ghost batch
        normalisation.
    """
    check_kinds(model=model, loss=loss)
    if single and model.statistics is not None:
        check.reject("model", "one with ghost batch normalisation", "one without")
    check_params(model, params)
    # Clones: a forward such as that of an embedding with `max_norm` writes into parameters.
    params = {name: p.detach().clone() for name, p in params.items()}
    dtype = next(iter(params.values())).dtype
    if isinstance(inputs, torch.Tensor) and inputs.is_floating_point():
        inputs = inputs.to(dtype)
    check_examples(model, params, inputs, labels, loss=loss)
    return params, inputs.detach().clone(), labels.detach().clone()


def counted(loss, labels):
    """Return how many rows count, at least 1."""
    return loss.counts(labels).sum().clamp(min=1)


def mean_loss(loss, outputs, labels):
    """Return the mean loss over the rows that count."""
    return loss.scores(outputs, labels)[0].sum() / counted(loss, labels)


def sampled_slope(loss, outputs, labels, rng):
    """Return the slope for labels that the model itself draws; zero in rows that do not count."""
    uniform = torch.rand(outputs.shape, generator=rng, dtype=outputs.dtype).to(outputs.device)
    (slope,) = slopes_of("sampled", loss, outputs, labels, uniform)
    return slope


def fisher_slopes(loss, labels, fisher, samples, rng, outputs):
    """Yield derivatives of the losses by the outputs, for the labels that `fisher` says.

    The mean over examples of their squares is the Fisher matrix of the outputs. Outputs have the
    axes (rows, examples, ..., classes).
    """
    if fisher == "sampled":
        for _ in range(samples):
            yield sampled_slope(loss, outputs, labels, rng) / samples**0.5
    else:
        yield from slopes_of(fisher, loss, outputs, labels)
