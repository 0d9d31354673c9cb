"""VGG networks for small images."""

import torch

from batchscaling import _validation as check
from batchscaling.training.models.layers import conv2d, dense, he_normal
from batchscaling.training.models.layers_cpu import max_pool2d
from batchscaling.training.models.norm import normalised, unit_channels


def vgg11(*, ghost_size=32, width=64, channels=3, classes=10):
    """Return VGG-11 of Zhang et al. [1]_: eight convolutions and a dense layer.

    All filters are 3 by 3. Layers have 1, 2, 4, 4, 8, 8, 8 and 8 times `width` filters [2]_. Each
    is followed by ghost batch normalisation [3]_ and ReLU; after layers 1, 2, 4, 6 and 8 comes the
    largest of each 2 by 2 pixels. Each filter has Frobenius norm 1: the network uses its filters
    divided by their norms, so averaged weights are normalised too, and `Model.constrain` scales
    the filters themselves. The paper trains it with label smoothing 0.1.

    Filters start as normal numbers scaled to norm 1, weights of the dense layer with variance
    2 / (its inputs) [4]_, scales at one, shifts and biases at zero.

    Parameters
    ----------
    ghost_size : int
        Examples in a ghost batch.
    width : int
        Filters of the first layer.
    channels : int
        Channels of the images: 1 is grey, 3 is colour.
    classes : int

    Returns
    -------
    Model
        Inputs are of shape (batch, channels, height, width), both sides 32 to 63. For colour
        images and 10 classes it has 9.2 million parameters.

    Raises
    ------
    ValueError
        If an argument is outside its range.

    References
    ----------
    .. [1] Zhang et al. (2019), Which algorithmic choices matter at which batch sizes?,
       appendix E.2.
    .. [2] Simonyan and Zisserman (2015), Very deep convolutional networks for large-scale image
       recognition, table 1, column A.
    .. [3] Hoffer, Hubara and Soudry (2017), Train longer, generalize better, algorithm 1.
    .. [4] He, Zhang, Ren and Sun (2015), Delving deep into rectifiers, section 2.2.
    """
    ghost_size, width = check.integer("ghost_size", ghost_size, 1), check.integer("width", width, 1)
    channels, classes = check.integer("channels", channels, 1), check.integer("classes", classes, 1)
    counts = [channels, *(width * times for times in (1, 2, 4, 4, 8, 8, 8, 8))]
    pooled = {0, 1, 3, 5, 7}

    def init(rng):
        params = {}
        for layer in range(8):
            inputs, filters = counts[layer : layer + 2]
            weight = torch.randn(filters, inputs, 3, 3, generator=rng)
            params[f"layer{layer}.weight"] = unit_channels(weight)
            params[f"layer{layer}.scale"] = torch.ones(filters)
            params[f"layer{layer}.shift"] = torch.zeros(filters)
        params["dense.weight"] = he_normal(rng, counts[-1], classes, inputs=counts[-1])
        params["dense.bias"] = torch.zeros(classes)
        return params

    def constrain(params):
        names = [f"layer{layer}.weight" for layer in range(8)]
        return params | {name: unit_channels(params[name]) for name in names}

    def forward(params, images, norm):
        for layer in range(8):
            name = f"layer{layer}"
            images = conv2d(params, name, images, transform=unit_channels)
            images = torch.relu(norm(name, images))
            images = max_pool2d(images) if layer in pooled else images
        return dense(params, "dense", images.flatten(1))

    return normalised(init, forward, ghost_size, constrain=constrain)
