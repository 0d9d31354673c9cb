"""The training objective as a measure."""

from dataclasses import dataclass, replace

import torch
from scipy.optimize import minimize
from torch.nn.functional import cross_entropy

from batchscaling import _validation as check
from batchscaling.training._torch_state import undisturbed


@dataclass(frozen=True)
class Objective:
    """The mean loss of all training examples and weight decay, above its smallest value.

    An optimizer with coupled `weight_decay` descends on this function.

    Parameters
    ----------
    weight_decay : float
        At least 0: ``weight_decay / 2`` times the squared norm of all parameters is added.
    minimum : float
        The smallest value, which is subtracted: the measure is the excess.

    Raises
    ------
    ValueError
        If a number is outside its range.
    """

    weight_decay: float = 0.0
    minimum: float = 0.0

    def __post_init__(self):
        check.fields(self, weight_decay=check.nonnegative, minimum=check.nonnegative)

    def beside_loss(self, params):
        """Return what is added to each row's mean loss, in double precision.

        Parameters
        ----------
        params : dict of torch.Tensor, each of shape (rows, ...)

        Returns
        -------
        torch.Tensor, shape (rows,)
        """
        squares = sum(p.double().square().flatten(1).sum(1) for p in params.values())
        return self.weight_decay / 2 * squares - self.minimum

    @classmethod
    @undisturbed
    def of(cls, data, model, weight_decay):
        """Return the objective of a convex loss, with its smallest value.

        The value is found by L-BFGS in double precision, from the model's initial parameters. It
        is the smallest one where the loss is convex, as that of `softmax_regression` is.

        Parameters
        ----------
        data : Data
        model : Model
        weight_decay : float
            Positive, so that there is one minimum.

        Returns
        -------
        Objective

        Raises
        ------
        ValueError
            If `weight_decay` is not positive.
        """
        objective = cls(check.positive("weight_decay", weight_decay))
        start = model.init(torch.Generator().manual_seed(0))
        inputs, labels = data.train_inputs.double(), data.train_labels
        sizes = [p.numel() for p in start.values()]

        def value_and_slope(flat):
            point = torch.tensor(flat, requires_grad=True)
            pieces = zip(start.items(), point.split(sizes), strict=True)
            params = {name: piece.view_as(p) for (name, p), piece in pieces}
            loss = cross_entropy(model.apply(params, inputs), labels, ignore_index=-1)
            value = loss + objective.beside_loss({name: p[None] for name, p in params.items()})[0]
            (slope,) = torch.autograd.grad(value, point)
            return value.item(), slope.numpy()

        flat = torch.cat([p.flatten() for p in start.values()]).double().numpy()
        limits = {"maxiter": 10_000, "maxfun": 20_000, "ftol": 0.0, "gtol": 1e-6}
        found = minimize(value_and_slope, flat, jac=True, method="L-BFGS-B", options=limits)
        return replace(objective, minimum=found.fun)
