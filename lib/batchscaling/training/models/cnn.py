"""The Simple CNN."""

import torch

from batchscaling import _validation as check
from batchscaling.training.models.base import Model, positive_integers
from batchscaling.training.models.layers import channel_bias, conv2d, dense, he_normal
from batchscaling.training.models.layers_cpu import max_pool2d


def simple_cnn(size=28, channels=1, *, filters=(32, 64), units=1024, classes=10):
    """Return the Simple CNN of Zhang et al. [1]_, without dropout.

    Two convolutions with filters of 5 by 5, each followed by the largest of each 2 by 2 pixels
    and ReLU, then a dense layer with ReLU, then a dense layer. Weights start as normal numbers of
    variance 2 / (inputs of a unit), biases at zero [2]_.

    Parameters
    ----------
    size : int
        Height and width of the images, at least 4.
    channels : int
        Channels of the images: 1 is grey, 3 is colour.
    filters : sequence of two int
        Filters of both convolutions.
    units : int
        Units of the hidden dense layer.
    classes : int

    Returns
    -------
    Model
        Inputs are of shape (batch, channels, size, size). The network for 28 by 28 grey pixels
        has 3,274,634 parameters: weight and bias of ``layer0`` to ``layer3``.

    Raises
    ------
    ValueError
        If an argument is outside its range.

    References
    ----------
    .. [1] Zhang et al. (2019), Which algorithmic choices matter at which batch sizes?,
       appendix E.2.
    .. [2] He, Zhang, Ren and Sun (2015), Delving deep into rectifiers, section 2.2.
    """
    side = check.integer("size", size, 4) // 4
    channels = check.integer("channels", channels, 1)
    first, second = positive_integers("filters", filters, 2)
    units, classes = check.integer("units", units, 1), check.integer("classes", classes, 1)
    flat = second * side * side

    def init(rng):
        return {
            "layer0.weight": he_normal(rng, first, channels, 5, 5, inputs=25 * channels),
            "layer0.bias": torch.zeros(first),
            "layer1.weight": he_normal(rng, second, first, 5, 5, inputs=25 * first),
            "layer1.bias": torch.zeros(second),
            "layer2.weight": he_normal(rng, flat, units, inputs=flat),
            "layer2.bias": torch.zeros(units),
            "layer3.weight": he_normal(rng, units, classes, inputs=units),
            "layer3.bias": torch.zeros(classes),
        }

    def apply(params, inputs):
        for layer in range(2):
            # Bias and ReLU commute with the maximum; after it they have a quarter of the work.
            name = f"layer{layer}"
            inputs = max_pool2d(conv2d(params, name, inputs))
            inputs = torch.relu(channel_bias(params, name, inputs))
        inputs = torch.relu(dense(params, "layer2", inputs.flatten(1)))
        return dense(params, "layer3", inputs)

    return Model(init, apply)
