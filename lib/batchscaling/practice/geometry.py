"""How long a gradient is: in the plain norm, or as the optimizer measures it.

A geometry has an `order` and three functions. ``weight(param)`` is what gradients of a parameter
are multiplied with, None for one; ``knows(param)`` is whether it exists yet; ``size(grad, weight)``
is the norm of that order. Sizes to the power of the order add up over parameters. A complex number
is two real ones, as it is for optimizers.
"""

from functools import partial

import torch

from batchscaling import _validation as check

GEOMETRIES = ("euclidean", "adam", "sign")

_SHORT = 2**16  # so many squares float32 adds up with an error of about 1e-7


def as_real(numbers):
    """Return complex numbers as pairs of real ones, in a last dimension; others as they are."""
    return torch.view_as_real(numbers.resolve_conj()) if numbers.is_complex() else numbers


class Euclidean:
    """The plain norm: that of SGD, with or without momentum."""

    order = 2

    def knows(self, param):
        """Return whether there is a weight for gradients of `param`."""
        return True

    def weight(self, param):
        """Return what gradients of `param` are multiplied with."""
        return None

    def size(self, grad, weight):
        """Return the norm as a tensor without dimensions, in float32 or wider."""
        if grad.requires_grad:
            grad = grad.detach()
        if grad.is_sparse:
            grad = grad.to_dense()
        grad = as_real(grad)
        if weight is not None:
            grad = grad * weight
        dtype = torch.float32 if grad.dtype.itemsize < 4 else None
        norm = partial(torch.linalg.vector_norm, ord=self.order, dtype=dtype)
        if grad.numel() > _SHORT:
            flat, even = grad.flatten(), grad.numel() // _SHORT * _SHORT
            grad = torch.cat([norm(flat[:even].view(-1, _SHORT), dim=1), norm(flat[even:])[None]])
        return norm(grad)


class Sign(Euclidean):
    """The sum of absolute values: that of steps along the sign of the gradient."""

    order = 1


class Adam(Euclidean):
    r"""The norm in which a step of Adam is the steepest, :math:`(g^\top P g)^{1/2}`.

    P is diagonal, one over :math:`\sqrt{\hat s} + \epsilon`, from the running average of squared
    gradients that the optimizer holds before this step. So P and the gradient are independent.
    Where all gradients were zero until now, P is zero: one over epsilon would drown the rest.
    """

    def __init__(self, optimizer):
        self._optimizer = optimizer  # a checkpoint that is loaded puts other objects into it
        groups = enumerate(optimizer.param_groups)
        self._number = {param: number for number, group in groups for param in group["params"]}

    def knows(self, param):
        """Return whether the optimizer has seen a gradient of `param`."""
        return bool(self._optimizer.state.get(param))

    def weight(self, param):
        """Return the root of P."""
        state = self._optimizer.state[param]
        group = self._optimizer.param_groups[self._number[param]]
        if "exp_avg_sq" not in state:
            check.reject("optimizer", "without exp_avg_sq in its state", "Adam or a relative of it")
        square = as_real(state.get("max_exp_avg_sq", state["exp_avg_sq"]))
        square = square / (1 - group["betas"][1] ** state["step"])
        root = square.sqrt().add_(group["eps"]).rsqrt_()
        return root.masked_fill_(square == 0, 0)


def geometry_of(name, optimizer):
    """Return the geometry of that name."""
    name = check.one_of("geometry", name, GEOMETRIES)
    if name != "adam":
        return Euclidean() if name == "euclidean" else Sign()
    if optimizer is None or not {"betas", "eps"} <= optimizer.defaults.keys():
        kind = None if optimizer is None else type(optimizer).__name__
        check.reject("optimizer", kind, "Adam or a relative of it, for the geometry 'adam'")
    return Adam(optimizer)
