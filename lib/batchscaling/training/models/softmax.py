"""Softmax regression: a network without a hidden layer."""

import torch

from batchscaling._validation import integer
from batchscaling.training.models.base import Model


def softmax_regression(inputs, classes):
    """Return softmax regression, which is linear in its parameters, so that its loss is convex.

    It maps the flattened inputs ``x`` to ``x @ weight0 + bias0``, and starts at zero: all classes
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
        Its parameters are ``weight0`` of shape (inputs, classes) and ``bias0`` of shape
        (classes,).

    Raises
    ------
    ValueError
        If an argument is outside its range.
    """
    inputs, classes = integer("inputs", inputs, 1), integer("classes", classes, 2)

    def init(rng):
        return {"weight0": torch.zeros(inputs, classes), "bias0": torch.zeros(classes)}

    def apply(params, examples):
        return examples.flatten(1) @ params["weight0"] + params["bias0"]

    return Model(init, apply)
