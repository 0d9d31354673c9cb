"""Gradients of single examples at given parameters, and products with the Hessian.

What is measured here goes to the estimators of `batchscaling.noise`.
"""

import numpy as np
import torch
from torch.func import grad, vjp, vmap

from batchscaling._validation import integer, reject
from batchscaling.training._process import kept_memory
from batchscaling.training._torch_state import undisturbed
from batchscaling.training.fit import check_examples
from batchscaling.training.losses import cross_entropy


@undisturbed
def per_example_gradients(model, params, inputs, labels):
    """Return the gradient of each example's cross-entropy.

    Parameters
    ----------
    model : Model
        Without ghost batch normalisation, which has no gradient of a single example.
    params : dict of torch.Tensor
        Of one trial. Parameters in float64 give everything in float64.
    inputs, labels : torch.Tensor, shape (n, ...)
        An example with several labels has their mean, over those that count; zero where none does.

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
    return _each_gradient(model, *_checked(model, params, inputs, labels, single=True))


def _each_gradient(model, params, inputs, labels):
    """Return the gradient of each example's loss, all arguments checked."""

    def loss(params, example, label):
        return _mean_loss(model, params, example[None], label[None])

    grads = vmap(grad(loss), in_dims=(None, 0, 0))(params, inputs, labels)
    return torch.cat([g.flatten(1) for g in grads.values()], dim=1)


@undisturbed
def hessian_product(model, params, inputs, labels):
    """Return the function that multiplies vectors by the Hessian of the mean cross-entropy.

    Parameters
    ----------
    model, params, inputs, labels
        As for `per_example_gradients`, with any model; all examples go through at once. The mean
        is over all labels that count, and zero where none does. Lanczos' method should have
        parameters in float64.

    Returns
    -------
    product : callable
        Maps a NumPy array of shape (P,) to its product with the Hessian, of that shape, or rows of
        shape (k, P) to theirs. It fits `lanczos_spectrum` and, on rows, `gradient_noise`.
    dim : int
        P, the number of parameters.

    Raises
    ------
    ValueError
        If inputs and labels do not fit each other or the model.
    """
    params, inputs, labels = _checked(model, params, inputs, labels)
    like = next(iter(params.values()))
    sizes = [p.numel() for p in params.values()]
    # The Hessian is symmetric: the transposed derivative of the gradient is its product.
    _, pull = vjp(grad(lambda params: _mean_loss(model, params, inputs, labels)), params)

    def single(vector):
        pieces = zip(params.items(), vector.split(sizes), strict=True)
        (product,) = pull({name: piece.view_as(p) for (name, p), piece in pieces})
        return torch.cat([product[name].flatten() for name in params])

    @undisturbed
    def product(vectors):
        rows = np.atleast_2d(np.asarray(vectors, dtype=np.float64))
        if rows.ndim != 2 or rows.shape[1] != sum(sizes):
            reject("vectors", f"an array of shape {np.shape(vectors)}", f"(k, {sum(sizes)})")
        products = [single(torch.as_tensor(row).to(like)) for row in rows]
        result = torch.stack(products).double().cpu().numpy()
        return result.reshape(np.shape(vectors))

    return product, sum(sizes)


@undisturbed
@kept_memory()
def gradient_products(model, params, inputs, labels, *, hessian=None, chunk=256):
    r"""Return the products of per-example gradients that `per_example_estimate` takes.

    Gradients are made in chunks, twice, and never kept all.

    Parameters
    ----------
    model, params, inputs, labels
        As for `per_example_gradients`; n at least 1.
    hessian : callable, optional
        Such as that of `hessian_product`: maps rows of shape (k, P) to their products with the
        Hessian. It is called for every gradient.
    chunk : int
        Examples at once, at least 1.

    Returns
    -------
    norms, dots : numpy.ndarray, shape (n,)
        :math:`g_i^\top A g_i` and :math:`g_i^\top A \bar g`, where A is the Hessian, or the
        identity without one.

    Raises
    ------
    ValueError
        As `per_example_gradients`, or if `chunk` is outside its range.
    """
    chunk = integer("chunk", chunk, 1)
    params, inputs, labels = _checked(model, params, inputs, labels, single=True)

    def chunks():
        for some in zip(inputs.split(chunk), labels.split(chunk), strict=True):
            yield _each_gradient(model, params, *some).double().cpu().numpy()

    mean = sum(gradients.sum(axis=0) for gradients in chunks()) / len(inputs)
    curved_mean = mean if hessian is None else hessian(mean)
    norms, dots = [], []
    for gradients in chunks():
        curved = gradients if hessian is None else hessian(gradients)
        norms.append(np.einsum("np,np->n", gradients, curved))
        dots.append(gradients @ curved_mean)
    return np.concatenate(norms), np.concatenate(dots)


def _mean_loss(model, params, inputs, labels):
    loss, _ = cross_entropy.scores(model.apply(params, inputs), labels)
    return loss.sum() / (labels >= 0).sum().clamp(min=1)


def _checked(model, params, inputs, labels, *, single=False):
    """Return parameters, inputs and labels to compute with, real inputs as precise as parameters.

    With `single`, gradients are of single examples.
    """
    if single and model.statistics is not None:
        reject("model", "one with ghost batch normalisation", "one without")
    params = {name: p.detach() for name, p in params.items()}
    dtype = next(iter(params.values())).dtype
    if isinstance(inputs, torch.Tensor) and inputs.is_floating_point():
        inputs = inputs.to(dtype)
    check_examples(model, params, inputs, labels)
    return params, inputs, labels
