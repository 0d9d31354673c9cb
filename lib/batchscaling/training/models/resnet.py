"""Residual networks for small images: with ghost batch normalisation, and without any."""

import torch
from torch.nn.functional import pad

from batchscaling import _validation as check
from batchscaling.training.models.base import Model
from batchscaling.training.models.layers import channel_bias, conv2d, dense, he_normal
from batchscaling.training.models.norm import normalised, unit_channels


def resnet(depth, *, ghost_size, weight_norm=False, width=16, channels=3, classes=10):
    """Return a residual network of He et al. for small images [1]_.

    A convolution, three stages of (depth - 2) / 6 blocks of two convolutions each, the mean over
    pixels, and a dense layer. All filters are 3 by 3. The second and third stage begin with stride
    2 and have twice the filters of the stage before. Shortcuts have no parameters: where the shape
    changes they take every second pixel and add channels of zeros (option A). Each convolution is
    followed by ghost batch normalisation [2]_.

    Weights start as normal numbers of variance 2 / (inputs of a unit) [3]_, scales at one, shifts
    and biases at zero.

    Parameters
    ----------
    depth : int
        Layers with weights: 8, 14, 20, ...
    ghost_size : int
        Examples in a ghost batch.
    weight_norm : bool
        Whether each filter has Frobenius norm 1. Then the network uses its filters divided by
        their norms, so averaged weights are normalised too, and `Model.constrain` scales the
        filters themselves. Without it, `Model.constrain` is None.
    width : int
        Filters of the first stage.
    channels : int
        Channels of the images: 1 is grey, 3 is colour.
    classes : int

    Returns
    -------
    Model
        Inputs are of shape (batch, channels, height, width), of any size.

    Raises
    ------
    ValueError
        If an argument is outside its range.

    References
    ----------
    .. [1] He, Zhang, Ren and Sun (2016), Deep residual learning for image recognition, section 4.2.
    .. [2] Hoffer, Hubara and Soudry (2017), Train longer, generalize better, algorithm 1.
    .. [3] He, Zhang, Ren and Sun (2015), Delving deep into rectifiers, section 2.2.
    """
    blocks = _blocks(depth, width)
    channels, classes = check.integer("channels", channels, 1), check.integer("classes", classes, 1)
    ghost_size = check.integer("ghost_size", ghost_size, 1)
    names = _names(blocks)

    def init(rng):
        params = _filters(rng, channels, width, blocks)
        for name in names:
            params[f"{name}.scale"] = torch.ones(len(params[f"{name}.weight"]))
            params[f"{name}.shift"] = torch.zeros(len(params[f"{name}.weight"]))
        params = constrain(params) if weight_norm else params
        return params | _dense(rng, blocks[-1][1], classes)

    def constrain(params):
        weights = {f"{name}.weight": unit_channels(params[f"{name}.weight"]) for name in names}
        return params | weights

    transform = unit_channels if weight_norm else None

    def forward(params, inputs, norm):
        def convolve(name, images, stride=1):
            return norm(name, conv2d(params, name, images, stride, transform=transform))

        images = torch.relu(convolve("first", inputs))
        for block, (_, filters, stride) in enumerate(blocks):
            inner = torch.relu(convolve(f"block{block}.0", images, stride))
            inner = convolve(f"block{block}.1", inner)
            images = torch.relu(inner + _shortcut(images, filters, stride))
        return dense(params, "dense", images.mean(dim=(-2, -1)))

    return normalised(init, forward, ghost_size, constrain=constrain if weight_norm else None)


def resnet20(*, ghost_size=128, width=16, channels=3, classes=10):
    """Return ResNet-20: `resnet` of depth 20, 0.27 million parameters.

    The default of `ghost_size` is the batch size of He et al. With it, and a batch size that is a
    multiple, each worker's batch of 128 examples has its own statistics, as in the experiments of
    Lin et al. [1]_.

    Parameters
    ----------
    ghost_size, width, channels, classes : int
        As `resnet` describes.

    Returns
    -------
    Model

    References
    ----------
    .. [1] Lin, Kong, Stich and Jaggi (2020), Extrapolation for large-batch training in deep
       learning, appendix C.
    """
    return resnet(20, ghost_size=ghost_size, width=width, channels=channels, classes=classes)


def resnet32(*, ghost_size=32, width=16, channels=3, classes=10):
    """Return ResNet-32 of Zhang et al. [1]_: `resnet` of depth 32 with normalised weights.

    It has 0.46 million parameters. The paper trains it with label smoothing 0.1.

    Parameters
    ----------
    ghost_size, width, channels, classes : int
        As `resnet` describes.

    Returns
    -------
    Model

    References
    ----------
    .. [1] Zhang et al. (2019), Which algorithmic choices matter at which batch sizes?,
       appendix E.2.
    """
    sizes = {"width": width, "channels": channels, "classes": classes}
    return resnet(32, ghost_size=ghost_size, weight_norm=True, **sizes)


def resnet8(*, width=16, channels=3, classes=10):
    """Return ResNet-8 without batch normalisation, of Shallue et al. and Zhang et al. [1]_.

    The network of `resnet` at depth 8, with biases in place of normalisation, and the improved
    block: ReLU stands before each convolution of a block, and nothing after the sum [2]_. Weights
    start as normal numbers of variance 2 / (inputs of a unit), biases at zero.

    Parameters
    ----------
    width, channels, classes : int
        As `resnet` describes.

    Returns
    -------
    Model

    Raises
    ------
    ValueError
        If an argument is outside its range.

    References
    ----------
    .. [1] Shallue et al. (2019), Measuring the effects of data parallelism on neural network
       training, appendix B; Zhang et al. (2019), appendix E.2.
    .. [2] He, Zhang, Ren and Sun (2016), Identity mappings in deep residual networks, figure 1.
    """
    blocks = _blocks(8, width)
    channels, classes = check.integer("channels", channels, 1), check.integer("classes", classes, 1)

    def init(rng):
        params = _filters(rng, channels, width, blocks)
        for name in _names(blocks):
            params[f"{name}.bias"] = torch.zeros(len(params[f"{name}.weight"]))
        return params | _dense(rng, blocks[-1][1], classes)

    def apply(params, inputs):
        def convolve(name, images, stride=1):
            return channel_bias(params, name, conv2d(params, name, images, stride))

        images = convolve("first", inputs)
        for block, (_, filters, stride) in enumerate(blocks):
            inner = convolve(f"block{block}.0", torch.relu(images), stride)
            inner = convolve(f"block{block}.1", torch.relu(inner))
            images = inner + _shortcut(images, filters, stride)
        return dense(params, "dense", torch.relu(images).mean(dim=(-2, -1)))

    return Model(init, apply)


def _blocks(depth, width):
    """Return inputs, filters and stride of every block."""
    depth = check.integer("depth", depth, 8)
    if depth % 6 != 2:
        check.reject("depth", depth, "8, 14, 20 and so on: 6 n + 2")
    width, blocks = check.integer("width", width, 1), []
    for block in range((depth - 2) // 2):
        stage, place = divmod(block, (depth - 2) // 6)
        first = stage > 0 and place == 0
        filters = width * 2**stage
        blocks.append((filters // 2, filters, 2) if first else (filters, filters, 1))
    return blocks


def _names(blocks):
    return ["first", *(f"block{block}.{i}" for block in range(len(blocks)) for i in range(2))]


def _filters(rng, channels, width, blocks):
    params = {"first.weight": he_normal(rng, width, channels, 3, 3, inputs=9 * channels)}
    for block, (inputs, filters, _) in enumerate(blocks):
        for i, count in enumerate((inputs, filters)):
            weight = he_normal(rng, filters, count, 3, 3, inputs=9 * count)
            params[f"block{block}.{i}.weight"] = weight
    return params


def _dense(rng, inputs, classes):
    weight = he_normal(rng, inputs, classes, inputs=inputs)
    return {"dense.weight": weight, "dense.bias": torch.zeros(classes)}


def _shortcut(images, filters, stride):
    images = images[..., ::stride, ::stride]
    missing = filters - images.shape[-3]
    return pad(images, (0, 0, 0, 0, 0, missing)) if missing else images
