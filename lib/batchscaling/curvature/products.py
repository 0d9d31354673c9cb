r"""Products of curvature matrices with vectors, without the matrices.

Parameters are one vector: each tensor of the dict flattened, in the dict's order. A product maps a
NumPy array of shape (P,) to one of that shape, or rows of shape (k, P) to theirs. So it fits
`lanczos_spectrum` and, on rows, `gradient_noise`.
"""

from functools import partial

import numpy as np
import torch
from torch.func import grad, vjp

from batchscaling import _validation as check
from batchscaling.curvature._arguments import (
    checked,
    counted,
    mean_loss,
    sampled_slope,
)
from batchscaling.training._torch_state import undisturbed
from batchscaling.training.fisher import FISHERS
from batchscaling.training.losses import cross_entropy


@undisturbed
def hessian_product(model, params, inputs, labels, *, loss=cross_entropy):
    """Return the function that multiplies vectors by the Hessian of the mean loss.

    Parameters
    ----------
    model, params, inputs, labels
        As for `per_example_gradients`, with any model; all examples go through at once. The mean
        is over all rows of outputs that count, and zero where none does. Lanczos' method should
        have parameters in float64.
    loss : Loss

    Returns
    -------
    product : callable
        Maps arrays of shape (P,) or (k, P) to their products with the Hessian.
    dim : int
        P, the number of parameters.

    Raises
    ------
    ValueError
        If inputs and labels do not fit each other or the model.
    """
    params, inputs, labels = checked(model, params, inputs, labels, loss)
    return hessian_product_of(lambda p: mean_loss(loss, model.apply(p, inputs), labels), params)


@undisturbed
def hessian_product_of(function, params):
    """Return the function that multiplies vectors by the Hessian of any function.

    Parameters
    ----------
    function : callable
        Maps a dict of tensors to a tensor that holds one number.
    params : dict of torch.Tensor
        Where the Hessian is taken: a copy of them is kept.

    Returns
    -------
    product : callable
    dim : int

    Raises
    ------
    ValueError
        If the function returns something else, or `params` is no such dict.
    """
    params = _copies(params)
    _check_number("function", function(params))
    # The Hessian is symmetric: the transposed derivative of the gradient is its product.
    _, pull = vjp(grad(function), params)
    return _product(lambda vector: pull(vector)[0], params)


@undisturbed
def gauss_newton_product(model, params, inputs, labels, *, loss=cross_entropy):
    r"""Return the function that multiplies vectors by the generalised Gauss-Newton matrix.

    It is :math:`J^\top H J`: J is the Jacobian of the outputs by the parameters, H the Hessian of
    the mean loss by the outputs. For the losses of this library it is the Fisher matrix [1]_.

    Parameters
    ----------
    model, params, inputs, labels, loss
        As for `hessian_product`.

    Returns
    -------
    product : callable
    dim : int

    Raises
    ------
    ValueError
        As `hessian_product`.

    References
    ----------
    .. [1] Martens (2020), New insights and perspectives on the natural gradient method, section 9.
    """
    params, inputs, labels = checked(model, params, inputs, labels, loss)
    outputs = partial(_outputs, model, inputs)
    return gauss_newton_product_of(outputs, lambda o: mean_loss(loss, o, labels), params)


@undisturbed
def gauss_newton_product_of(function, loss, params):
    """Return the function that multiplies vectors by the Gauss-Newton matrix of any function.

    Parameters
    ----------
    function : callable
        Maps a dict of tensors to a tensor of outputs, and can be differentiated twice.
    loss : callable
        Maps the outputs to a tensor that holds one number.
    params : dict of torch.Tensor

    Returns
    -------
    product : callable
    dim : int

    Raises
    ------
    ValueError
        If the loss returns something else, or `params` is no such dict.
    """
    params = _copies(params)
    outputs, push, pull = _jacobian(function, params)
    _check_number("loss", loss(outputs))
    _, curve = vjp(grad(loss), outputs)
    return _product(lambda vector: pull(*curve(push(vector))), params)


@undisturbed
def fisher_product(model, params, inputs, labels, *, fisher="exact", seed=0, loss=cross_entropy):
    r"""Return the function that multiplies vectors by a Fisher matrix of the mean loss.

    With :math:`g_n` the gradient of the sum of an example's losses, and M rows of outputs that
    count, it is :math:`\frac1M \sum_n g_n g_n^\top`. The labels in :math:`g_n` differ:

    - "exact": the mean over labels from the model itself, which is the Gauss-Newton matrix;
    - "sampled": one draw of labels from the model, whose mean is the exact one;
    - "empirical": the labels of the data, another matrix [1]_.

    Parameters
    ----------
    model, params, inputs, labels
        As for `hessian_product`; unless it is exact, without ghost batch normalisation.
    fisher : {"exact", "sampled", "empirical"}
    seed : int
        Of the draw.
    loss : Loss

    Returns
    -------
    product : callable
    dim : int

    Raises
    ------
    ValueError
        As `hessian_product`, or if another argument is outside its range.

    References
    ----------
    .. [1] Kunstner, Balles and Hennig (2019), Limitations of the empirical Fisher approximation
       for natural gradient descent.
    """
    check.one_of("fisher", fisher, FISHERS)
    rng = torch.Generator().manual_seed(check.integer("seed", seed, 0))
    if fisher == "exact":
        return gauss_newton_product(model, params, inputs, labels, loss=loss)
    params, inputs, labels = checked(model, params, inputs, labels, loss, single=True)
    function = partial(_outputs, model, inputs)
    outputs, push, pull = _jacobian(function, params)
    if fisher == "sampled":
        slope = sampled_slope(loss, outputs, labels, rng)
    else:
        slope = loss.slope(outputs, labels)

    def linear(vector):
        along = (push(vector) * slope).flatten(1).sum(1) / counted(loss, labels)
        return pull(slope * along.reshape(-1, *[1] * (slope.ndim - 1)))

    return _product(linear, params)


def _jacobian(function, params):
    """Return the outputs, and functions that multiply by their Jacobian and by its transpose.

    Both are of reverse mode: where a function stops gradients, forward mode may go on, and the
    product of both would not be symmetric.
    """
    outputs, pull = vjp(function, params)

    def transposed(slope):
        return vjp(function, params)[1](slope)[0]

    _, push = vjp(transposed, torch.zeros_like(outputs))
    return outputs, lambda vector: push(vector)[0], lambda slope: pull(slope)[0]


def _outputs(model, inputs, params):
    return model.apply(params, inputs)


def _copies(params):
    """Return copies of parameters: their owner may go on and change them."""
    allowed = "a dict of tensors of real numbers, at least one"
    if not isinstance(params, dict) or not params:
        check.reject("params", params, allowed)
    for name, p in params.items():
        if not isinstance(p, torch.Tensor) or not p.is_floating_point():
            check.reject(f"params[{name!r}]", p, allowed)
    return {name: p.detach().clone() for name, p in params.items()}


def _check_number(name, value):
    if not isinstance(value, torch.Tensor) or value.numel() != 1 or value.ndim:
        found = f"a function that returns {getattr(value, 'shape', type(value).__name__)}"
        check.reject(name, found, "one that returns a tensor that holds one number")


def _product(linear, params):
    """Return a linear function of dicts as one of NumPy arrays, and the number of parameters."""
    like = next(iter(params.values()))
    sizes = [p.numel() for p in params.values()]

    def single(vector):
        pieces = zip(params.items(), vector.split(sizes), strict=True)
        product = linear({name: piece.view_as(p) for (name, p), piece in pieces})
        return torch.cat([product[name].flatten() for name in params])

    @undisturbed
    def product(vectors):
        rows = check.array("vectors", vectors, ndim=(1, 2), finite=False, missing=True)
        if rows.shape[-1] != sum(sizes):
            found, allowed = f"an array of shape {rows.shape}", f"one of shape (k, {sum(sizes)})"
            check.reject("vectors", found, allowed)
        # A copy: torch takes no negative strides, and warns of arrays that nobody can write to.
        products = [single(torch.as_tensor(row.copy()).to(like)) for row in np.atleast_2d(rows)]
        return torch.stack(products).double().cpu().numpy().reshape(rows.shape)

    return product, sum(sizes)
