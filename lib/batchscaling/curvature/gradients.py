"""Gradients of single examples at given parameters, for the estimators of `batchscaling.noise`."""

import numpy as np
import torch
from torch.func import grad, vjp, vmap

from batchscaling import _validation as check
from batchscaling.curvature._arguments import checked, mean_loss
from batchscaling.training._process import kept_memory
from batchscaling.training._torch_state import undisturbed
from batchscaling.training.losses import cross_entropy


@undisturbed
def per_example_gradients(model, params, inputs, labels, *, loss=cross_entropy):
    """Return the gradient of each example's loss.

    Parameters
    ----------
    model : Model
        Without ghost batch normalisation, which has no gradient of a single example.
    params : dict of torch.Tensor
        Of one trial. Parameters in float64 give everything in float64.
    inputs, labels : torch.Tensor, shape (n, ...)
        An example with several labels has their mean, over those that count; zero where none does.
    loss : Loss

    Returns
    -------
    torch.Tensor, shape (n, P)
        Parameters in the order of `params`, each flattened.

    Raises
    ------
    ValueError
        If the model has ghost batch normalisation, or inputs and labels do not fit each other or
        the model.
    """
    return _each_gradient(model, *checked(model, params, inputs, labels, loss, single=True), loss)


@undisturbed
@kept_memory()
def gradient_products(
    model, params, inputs, labels, *, hessian=None, chunk=256, loss=cross_entropy
):
    r"""Return the products of per-example gradients that `per_example_estimate` takes.

    Gradients are made in chunks, twice, and never kept all.

    Parameters
    ----------
    model, params, inputs, labels
        As for `per_example_gradients`; n at least 1.
    hessian : callable, optional
        Such as that of `hessian_product`: maps rows of shape (k, P) to their products with the
        Hessian. It is called for every gradient, with a copy.
    chunk : int
        Examples at once, at least 1.
    loss : Loss

    Returns
    -------
    norms, dots : numpy.ndarray, shape (n,)
        :math:`g_i^\top A g_i` and :math:`g_i^\top A \bar g`, where A is the Hessian, or the
        identity without one.

    Raises
    ------
    ValueError
        As `per_example_gradients`, or if another argument is outside its range.
    """
    chunk = check.integer("chunk", chunk, 1)
    if not (hessian is None or callable(hessian)):
        check.reject("hessian", hessian, "a function of rows, such as that of hessian_product")
    params, inputs, labels = checked(model, params, inputs, labels, loss, single=True)

    def chunks():
        for some in zip(inputs.split(chunk), labels.split(chunk), strict=True):
            yield _each_gradient(model, params, *some, loss).double().cpu().numpy()

    mean = sum(gradients.sum(axis=0) for gradients in chunks()) / len(inputs)
    curved_mean = mean if hessian is None else hessian(mean.copy())
    norms, dots = [], []
    for gradients in chunks():
        curved = gradients if hessian is None else hessian(gradients.copy())
        norms.append(np.einsum("np,np->n", gradients, curved))
        dots.append(gradients @ curved_mean)
    return np.concatenate(norms), np.concatenate(dots)


def gradients_from_slopes(model, params, inputs, slopes):
    """Return the gradient of each example for given slopes of its outputs, unchecked.

    Parameters
    ----------
    model, params, inputs
        As for `per_example_gradients`.
    slopes : torch.Tensor
        Of the shape of the outputs: derivatives of each example's loss by its outputs.

    Returns
    -------
    dict of torch.Tensor, each of shape (n, ...)
    """

    def single(example, slope):
        _, pull = vjp(lambda p: model.apply(p, example[None]), params)
        return pull(slope[None])[0]

    return vmap(single)(inputs, slopes)


def _each_gradient(model, params, inputs, labels, loss):
    """Return the gradient of each example's loss, all arguments checked."""

    def single(params, example, label):
        return mean_loss(loss, model.apply(params, example[None]), label[None])

    grads = vmap(grad(single), in_dims=(None, 0, 0))(params, inputs, labels)
    return torch.cat([g.flatten(1) for g in grads.values()], dim=1)
