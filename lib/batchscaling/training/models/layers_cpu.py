"""Products, convolution and pooling, so that many trials under ``vmap`` are fast on a CPU.

Images are of shape (batch, channels, height, width), the weights of a convolution of shape
(filters, channels, height, width), as in torch. ``vmap`` may be over weights alone or over weights
and inputs. Both can be differentiated as often as one likes, in both modes.
"""

import torch
from torch.autograd import Function
from torch.nn import functional
from torch.nn.grad import conv2d_input, conv2d_weight

LOOP = 512
"""On a CPU, trials take turns in convolutions and poolings from this many channels that come out,
over all images of a batch.

Under ``vmap``, torch makes one convolution with groups of them, and takes the maxima twice. A loop
over the trials costs more for each call but less for each number: at 8 channels, batches of 32 to
64 are where both meet. Convolutions as matrix products of unfolded images are slower by three to
five times.
"""

NARROW = 32
"""On a CPU, a product with ten columns takes up to four times as long as one with ten rows: below
this, it is worth turning the result.

A compiled step of the digits MLP takes a fifth less time so on a processor of AMD, but 4 % more on
one of Intel.
"""


def product(inputs, weight):
    """Return ``inputs @ weight``.

    Parameters
    ----------
    inputs : torch.Tensor, shape (..., inputs)
    weight : torch.Tensor, shape (inputs, outputs)

    Returns
    -------
    torch.Tensor, shape (..., outputs)
    """
    if inputs.device.type != "cpu" or inputs.ndim != 2:
        return inputs @ weight
    if torch.compiler.is_compiling():  # a compiled program has one layout without our help
        narrow = weight.shape[-1] < NARROW
        return (weight.mT @ inputs.mT).mT if narrow else inputs @ weight
    return _Product.apply(*_cast(inputs, weight), None)


def convolve(inputs, weight, stride=1):
    """Return the convolution with the padding that keeps the size of images at stride 1.

    Parameters
    ----------
    inputs : torch.Tensor, shape (batch, channels, height, width)
    weight : torch.Tensor, shape (filters, channels, size, size)
        Filters of odd size.
    stride : int

    Returns
    -------
    torch.Tensor, shape (batch, filters, ceil(height / stride), ceil(width / stride))
    """
    settings = {"stride": stride, "padding": weight.shape[-1] // 2}
    if _looped(inputs, len(weight)):
        return _Convolve.apply(*_cast(inputs, weight), (inputs.shape, weight.shape, settings))
    if inputs.device.type == "cpu" and inputs.shape[1] == weight.shape[1] < 4:
        # With less than eight channels in all groups, torch takes another algorithm: the last bits
        # of a row would depend on the number of rows. Four channels each are eight for two rows.
        inputs, weight = (
            functional.pad(images, (0, 0, 0, 0, 0, 4 - images.shape[1]))
            for images in (inputs, weight)
        )
    return functional.conv2d(inputs, weight, **settings)


def max_pool2d(inputs):
    """Return the largest number of each square of 2 by 2 pixels.

    An odd last row or column is left out. Where several pixels are largest, the gradient goes to
    the first, row by row, as in torch.

    Parameters
    ----------
    inputs : torch.Tensor, shape (batch, channels, height, width)

    Returns
    -------
    torch.Tensor, shape (batch, channels, height // 2, width // 2)
    """
    if not _looped(inputs, inputs.shape[1]):
        return functional.max_pool2d(inputs, 2)
    height, width = inputs.shape[-2:]
    return _Largest.apply(inputs[..., : height // 2 * 2, : width // 2 * 2])[0]


def _cast(*tensors):
    """Return tensors in the type of autocast, which does not look into a Function's gradients."""
    if not torch.is_autocast_enabled("cpu"):
        return tensors
    dtype = torch.get_autocast_dtype("cpu")
    kept = torch.float64, torch.int64  # autocast takes other floating types only
    return [tensor if tensor.dtype in kept else tensor.to(dtype) for tensor in tensors]


def _looped(inputs, channels):
    return inputs.device.type == "cpu" and len(inputs) * channels >= LOOP


def _rows(info, dims, tensors):
    """Return the tensors with the dimension of ``vmap`` first."""
    pairs = zip(tensors, dims, strict=True)
    return [t.expand(info.batch_size, *t.shape) if d is None else t.movedim(d, 0) for t, d in pairs]


class _Bilinear(Function):
    """A function of two tensors, linear in each, that takes the rows of ``vmap`` one by one.

    `about` holds what else it needs. Derivatives are functions of the same kind, so they can be
    differentiated again.
    """

    @staticmethod
    def setup_context(ctx, inputs, output):
        one, two, ctx.about = inputs
        ctx.save_for_backward(one, two)
        ctx.save_for_forward(one, two)

    @classmethod
    def backward(cls, ctx, grad):
        one, two = ctx.saved_tensors
        first, second, _ = ctx.needs_input_grad
        return (
            cls.by_first(grad, two, ctx.about) if first else None,
            cls.by_second(one, grad, ctx.about) if second else None,
            None,
        )

    @classmethod
    def jvp(cls, ctx, one_tangent, two_tangent, _):
        one, two = ctx.saved_tensors
        return cls.apply(one_tangent, two, ctx.about) + cls.apply(one, two_tangent, ctx.about)

    @classmethod
    def vmap(cls, info, dims, one, two, about):
        ones = [one] * info.batch_size if dims[0] is None else one.unbind(dims[0])
        twos = [two] * info.batch_size if dims[1] is None else two.unbind(dims[1])
        rows = [cls.apply(*pair, about) for pair in zip(ones, twos, strict=True)]
        return torch.stack(rows), 0


class _Product(_Bilinear):
    """A product whose examples are columns in memory.

    So all that lies between two layers has one layout, products with few outputs take a quarter of
    the time, and the gradient of the weights comes in the layout of the weights.
    """

    @staticmethod
    def forward(inputs, weight, about):
        return (weight.mT @ inputs.mT).mT

    @staticmethod
    def by_first(grad, weight, about):
        return _Product.apply(grad, weight.mT, about)

    @staticmethod
    def by_second(inputs, grad, about):
        if grad.shape[-1] >= NARROW:
            return inputs.mT @ grad
        return (grad.mT @ inputs).mT.contiguous()

    @classmethod
    def vmap(cls, info, dims, inputs, weight, about):
        if dims[1] is None:
            return inputs.movedim(dims[0], 0) @ weight, 0
        return cls.apply(*_rows(info, dims[:2], (inputs, weight)), about), 0


class _Convolve(_Bilinear):
    @staticmethod
    def forward(images, weight, about):
        return functional.conv2d(images, weight, **about[2])

    @staticmethod
    def by_first(grad, weight, about):
        return _ByImages.apply(grad, weight, about)

    @staticmethod
    def by_second(images, grad, about):
        return _ByWeight.apply(images, grad, about)


class _ByImages(_Bilinear):
    """What a gradient of the outputs means for the images."""

    @staticmethod
    def forward(grad, weight, about):
        return conv2d_input(about[0], weight, grad, **about[2])

    @staticmethod
    def by_first(images, weight, about):
        return _Convolve.apply(images, weight, about)

    @staticmethod
    def by_second(grad, images, about):
        return _ByWeight.apply(images, grad, about)


class _ByWeight(_Bilinear):
    """What a gradient of the outputs means for the weights."""

    @staticmethod
    def forward(images, grad, about):
        return conv2d_weight(images, about[1], grad, **about[2])

    @staticmethod
    def by_first(weight, grad, about):
        return _ByImages.apply(grad, weight, about)

    @staticmethod
    def by_second(images, weight, about):
        return _Convolve.apply(images, weight, about)


class ByRows(Function):
    """A function that takes any leading dimensions, so the rows of ``vmap`` as one more."""

    @classmethod
    def vmap(cls, info, dims, *tensors):
        outputs = cls.apply(*_rows(info, dims, tensors))
        return outputs, (0,) * len(outputs) if isinstance(outputs, tuple) else 0


class _Largest(ByRows):
    """The largest of each square, whether it is in the left column, and whether in the top row."""

    @staticmethod
    def forward(pixels):
        left, right = pixels[..., ::2], pixels[..., 1::2]
        rows = torch.maximum(left, right)
        top, bottom = rows[..., ::2, :], rows[..., 1::2, :]
        return torch.maximum(top, bottom), left >= right, top >= bottom

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.mark_non_differentiable(*output[1:])
        ctx.save_for_backward(*output[1:])
        ctx.save_for_forward(*output[1:])

    @staticmethod
    def backward(ctx, grad, *_):
        return _Spread.apply(grad, *ctx.saved_tensors)

    @staticmethod
    def jvp(ctx, tangent):
        return _Pick.apply(tangent, *ctx.saved_tensors), None, None


class _Linear(ByRows):
    """A linear function of a tensor, for given columns and rows of the largest pixels."""

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs[1:])
        ctx.save_for_forward(*inputs[1:])

    @classmethod
    def backward(cls, ctx, grad):
        return cls.transposed(grad, *ctx.saved_tensors), None, None

    @classmethod
    def jvp(cls, ctx, tangent, *_):
        return cls.apply(tangent, *ctx.saved_tensors)


class _Pick(_Linear):
    """The pixel of each square that was the largest."""

    @staticmethod
    def forward(pixels, left, top):
        pixels = torch.where(left, pixels[..., ::2], pixels[..., 1::2])
        return torch.where(top, pixels[..., ::2, :], pixels[..., 1::2, :])

    @staticmethod
    def transposed(grad, left, top):
        return _Spread.apply(grad, left, top)


class _Spread(_Linear):
    """Squares with a number at the winner and zeros else."""

    @staticmethod
    def forward(numbers, left, top):
        height, width = 2 * top.shape[-2], 2 * top.shape[-1]
        rows = numbers.new_empty(*top.shape[:-2], height, width // 2)
        torch.mul(numbers, top, out=rows[..., ::2, :])
        torch.sub(numbers, rows[..., ::2, :], out=rows[..., 1::2, :])
        squares = numbers.new_empty(*top.shape[:-2], height, width)
        torch.mul(rows, left, out=squares[..., ::2])
        torch.sub(rows, squares[..., ::2], out=squares[..., 1::2])
        return squares

    @staticmethod
    def transposed(pixels, left, top):
        return _Pick.apply(pixels, left, top)
