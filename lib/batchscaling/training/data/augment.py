"""Augmentation: random changes of a batch of training images."""

from dataclasses import dataclass
from functools import partial

import torch
from torch.nn.functional import pad

from batchscaling import _validation as check


@dataclass(frozen=True)
class FlipCrop:
    """Crop an image at a random place after padding it, and flip it left to right half the time.

    The padding is zero, the mean colour of standardised images. As in He et al. [1]_.

    The random draws are made apart from the images: on the CPU from a trial's own seed, so that
    every device sees the same changes.

    Attributes
    ----------
    padding : int
        Pixels added on every side, zero or larger.

    References
    ----------
    .. [1] He, Zhang, Ren and Sun (2016), Deep residual learning for image recognition,
       section 4.2.
    """

    padding: int = 4

    def __post_init__(self):
        check.fields(self, padding=partial(check.integer, low=0))

    def draw(self, rng, batch_size):
        """Draw the changes of one batch.

        Each example takes one number of `rng`. So the changes are a stream, and a larger batch
        cuts the same stream into longer pieces.

        Parameters
        ----------
        rng : torch.Generator
            On the CPU.
        batch_size : int

        Returns
        -------
        torch.Tensor of int64, shape (batch_size, 3)
            Flip (0 or 1), then the row and the column at which the crop begins, each from 0 to
            twice the padding.
        """
        places = 2 * self.padding + 1
        drawn = torch.randint(2 * places**2, (batch_size,), generator=rng)
        return torch.stack([drawn % 2, drawn // 2 % places, drawn // 2 // places], dim=1)

    def apply(self, images, draws):
        """Return the changed images; works under ``torch.func.vmap``.

        Parameters
        ----------
        images : torch.Tensor, shape (batch_size, channels, height, width)
        draws : torch.Tensor of int64, shape (batch_size, 3)
            As `draw` returns them, on the device of the images.

        Returns
        -------
        torch.Tensor, shape (batch_size, channels, height, width)
        """
        batch_size, channels, height, width = images.shape
        flip, top, left = (column[:, None] for column in draws.unbind(1))
        rows = top + torch.arange(height, device=images.device)
        columns = torch.arange(width, device=images.device)
        columns = left + torch.where(flip == 1, width - 1 - columns, columns)
        padded = pad(images, [self.padding] * 4)
        place = (rows * padded.shape[3])[:, :, None] + columns[:, None, :]
        place = place.reshape(batch_size, 1, -1).expand(-1, channels, -1)
        return padded.flatten(2).gather(2, place).unflatten(2, (height, width))
