"""Slopes of the outputs whose squares make a Fisher matrix, for the kinds that there are."""

import torch
from torch.func import jacrev, vmap

FISHERS = ("exact", "sampled", "empirical")
"""Labels of a Fisher matrix: each with its probability, drawn from the model, or those of the data.
"""


def slopes_of(fisher, loss, outputs, labels, uniform=None):
    """Yield derivatives of the losses by the outputs, for the labels that `fisher` says.

    The mean over examples of their squares is the Fisher matrix of the outputs.

    Parameters
    ----------
    fisher : {"exact", "sampled", "empirical"}
    loss : Loss
    outputs : torch.Tensor, shape (rows, examples, ..., classes)
    labels : torch.Tensor
    uniform : torch.Tensor, optional
        Random numbers from 0 to below 1, of the shape of the outputs, where labels are sampled.

    Yields
    ------
    torch.Tensor
        Of the shape of the outputs.
    """
    if fisher == "sampled":
        yield loss.sampled_slope(outputs, uniform) * loss.counts(labels)[..., None]
    elif fisher == "empirical":
        yield loss.slope(outputs, labels)
    else:
        yield from _roots(loss, outputs, labels)


def _roots(loss, outputs, labels):
    """Yield slopes whose squares add up to the Hessian by the outputs, position by position."""
    counts = loss.counts(labels)
    each = labels.flatten(0, counts.ndim - 1)

    def single(row, label):
        return loss.scores(row[None], label[None])[0].sum()

    curved = vmap(jacrev(jacrev(single)))(outputs.flatten(0, -2), each)
    found = torch.linalg.eigh(curved.to(torch.promote_types(curved.dtype, torch.float32)))
    values, vectors = (part.to(curved.dtype) for part in found)  # of half precision, too
    roots = vectors * values.clamp(min=0).sqrt()[:, None] * counts.flatten()[:, None, None]
    roots = roots.view(*outputs.shape[:2], -1, *roots.shape[1:])  # (rows, examples, positions, …)
    for place in range(roots.shape[2]):
        for column in roots[:, :, place].unbind(-1):
            slope = torch.zeros_like(roots[..., 0])
            slope[:, :, place] = column
            yield slope.view_as(outputs)
