"""How smooth a loss is along its gradient: the Lipschitz constant that a step meets."""

import numpy as np
import torch

from batchscaling import _validation as check
from batchscaling.curvature._arguments import checked, mean_loss
from batchscaling.training._torch_state import undisturbed
from batchscaling.training.losses import cross_entropy


@undisturbed
def gradient_lipschitz(model, params, inputs, labels, *, lengths, loss=cross_entropy):
    r"""Return how much the gradient changes on the way of a gradient step, over the way's length.

    .. math:: \max_{\ell} \frac{\|g(w - \ell g(w)) - g(w)\|}{\ell\,\|g(w)\|}

    It is a lower bound of the gradient's Lipschitz constant; on a quadratic it is
    :math:`\|Hg\|/\|g\|` for every length.

    Parameters
    ----------
    model, params, inputs, labels, loss
        As for `hessian_product`.
    lengths : array_like, shape (k,)
        Of steps, in units of the gradient, as learning rates are. Positive.

    Returns
    -------
    float
        0 where the gradient is zero.

    Raises
    ------
    ValueError
        If inputs and labels do not fit each other or the model, or a length is not positive.

    References
    ----------
    Santurkar, Tsipras, Ilyas and Madry (2018), How does batch normalization help optimization?,
    section 3.1. Lin, Kong, Stich and Jaggi (2020), Extrapolation for large-batch training in deep
    learning, figure 1(b), draws it along training.
    """
    lengths = check.array("lengths", lengths, positive=True)
    params, inputs, labels = checked(model, params, inputs, labels, loss)

    def slope(point):
        leaves = [p.detach().requires_grad_() for p in point]
        outputs = model.apply(dict(zip(params, leaves, strict=True)), inputs)
        value = mean_loss(loss, outputs, labels)
        return torch.autograd.grad(value, leaves, materialize_grads=True)

    start = list(params.values())
    here = slope(start)
    size = _norm(here)
    if size == 0:
        return 0.0
    ratios = []
    for length in lengths.tolist():
        there = slope([p - length * g for p, g in zip(start, here, strict=True)])
        change = _norm([a - b for a, b in zip(there, here, strict=True)])
        ratios.append(change / (length * size))
    return float(np.max(ratios))


def _norm(tensors):
    """Return the norm of all tensors together, in double precision."""
    return float(sum(t.double().square().sum() for t in tensors)) ** 0.5
