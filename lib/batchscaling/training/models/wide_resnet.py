"""Wide residual networks."""

import torch

from batchscaling import _validation as check
from batchscaling.training.models.layers import conv2d, dense, he_normal
from batchscaling.training.models.norm import normalised


def wide_resnet(depth=16, factor=4, *, ghost_size=128, width=16, channels=3, classes=10):
    """Return a wide residual network, WRN-depth-factor, without dropout [1]_.

    A convolution, three stages of (depth - 4) / 6 blocks of two convolutions of 3 by 3 each, the
    mean over pixels, and a dense layer. Ghost batch normalisation [2]_ and ReLU stand before each
    convolution of a block and before the mean. The second and third stage begin with stride 2.
    Where the number of channels changes, the shortcut is a convolution of 1 by 1 of the
    normalised images.

    Weights start as normal numbers of variance 2 / (inputs of a unit) [3]_, scales at one, shifts
    and biases at zero.

    Parameters
    ----------
    depth : int
        10, 16, 22, ...
    factor : int
        How many times wider the stages are than `width`, 2 `width` and 4 `width`.
    ghost_size : int
        Examples in a ghost batch; the default is the paper's batch size.
    width : int
        Filters of the first convolution.
    channels : int
        Channels of the images: 1 is grey, 3 is colour.
    classes : int

    Returns
    -------
    Model
        Inputs are of shape (batch, channels, height, width), of any size. WRN-16-4 has 2.7
        million parameters.

    Raises
    ------
    ValueError
        If an argument is outside its range.

    References
    ----------
    .. [1] Zagoruyko and Komodakis (2016), Wide residual networks, section 2.
    .. [2] Hoffer, Hubara and Soudry (2017), Train longer, generalize better, algorithm 1.
    .. [3] He, Zhang, Ren and Sun (2015), Delving deep into rectifiers, section 2.2.
    """
    depth = check.integer("depth", depth, 10)
    if depth % 6 != 4:
        check.reject("depth", depth, "10, 16, 22 and so on: 6 n + 4")
    factor, width = check.integer("factor", factor, 1), check.integer("width", width, 1)
    channels, classes = check.integer("channels", channels, 1), check.integer("classes", classes, 1)
    ghost_size = check.integer("ghost_size", ghost_size, 1)
    blocks = _blocks(depth, factor, width)

    def init(rng):
        params = {"first.weight": he_normal(rng, width, channels, 3, 3, inputs=9 * channels)}
        for block, (inputs, filters, _) in enumerate(blocks):
            for i, count in enumerate((inputs, filters)):
                name = f"block{block}.{i}"
                params |= _scale(name, count)
                weight = he_normal(rng, filters, count, 3, 3, inputs=9 * count)
                params[f"{name}.weight"] = weight
            if inputs != filters:
                weight = he_normal(rng, filters, inputs, 1, 1, inputs=inputs)
                params[f"block{block}.shortcut.weight"] = weight
        last = blocks[-1][1]
        params |= _scale("last", last)
        params["dense.weight"] = he_normal(rng, last, classes, inputs=last)
        params["dense.bias"] = torch.zeros(classes)
        return params

    def forward(params, inputs, norm):
        images = conv2d(params, "first", inputs)
        for block, (inputs, filters, stride) in enumerate(blocks):
            first, second = f"block{block}.0", f"block{block}.1"
            active = torch.relu(norm(first, images))
            inner = conv2d(params, first, active, stride)
            inner = conv2d(params, second, torch.relu(norm(second, inner)))
            if inputs != filters:
                images = conv2d(params, f"block{block}.shortcut", active, stride)
            else:
                images = images[..., ::stride, ::stride]
            images = images + inner
        images = torch.relu(norm("last", images))
        return dense(params, "dense", images.mean(dim=(-2, -1)))

    return normalised(init, forward, ghost_size)


def _scale(name, channels):
    return {f"{name}.scale": torch.ones(channels), f"{name}.shift": torch.zeros(channels)}


def _blocks(depth, factor, width):
    """Return inputs, filters and stride of every block."""
    blocks, count = [], width
    for stage in range(3):
        filters = width * factor * 2**stage
        for place in range((depth - 4) // 6):
            blocks.append((count, filters, 2 if stage and not place else 1))
            count = filters
    return blocks
