"""Softmax regression: a network without a hidden layer."""

import torch

from batchscaling import _validation as check
from batchscaling.training.models.base import Model
from batchscaling.training.models.layers import dense


def softmax_regression(inputs, classes):
    """Return softmax regression, which is linear in its parameters, so that its loss is convex.

    It maps the flattened inputs ``x`` to ``x @ weight + bias``, and starts at zero: all classes
    are equally likely.

    Parameters
    ----------
    inputs : int
        Numbers of an example, positive.
    classes : int
        At least 2.

    Returns
    -------
    Model
        Its parameters are ``layer0.weight`` of shape (inputs, classes) and ``layer0.bias`` of
        shape (classes,).

    Raises
    ------
    ValueError
        If an argument is outside its range.
    """
    inputs, classes = check.integer("inputs", inputs, 1), check.integer("classes", classes, 2)

    def init(rng):
        return {"layer0.weight": torch.zeros(inputs, classes), "layer0.bias": torch.zeros(classes)}

    def apply(params, examples):
        return dense(params, "layer0", examples.flatten(1))

    return Model(init, apply)
