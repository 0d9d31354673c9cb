import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.func import vmap

from batchscaling.training.data import FlipCrop, generator


def one_by_one(images, draws, padding):
    """Return the changed images, each cut out of a larger canvas."""
    changed = []
    for image, (flip, top, left) in zip(images, draws.tolist(), strict=True):
        channels, height, width = image.shape
        canvas = torch.zeros(channels, height + 2 * padding, width + 2 * padding)
        canvas[:, padding : padding + height, padding : padding + width] = image
        crop = canvas[:, top : top + height, left : left + width]
        changed.append(crop.flip(2) if flip else crop)
    return torch.stack(changed)


@pytest.mark.parametrize("padding", [0, 1, 4, 9])
@pytest.mark.parametrize("shape", [(1, 5, 5), (3, 8, 6)])
def test_images_are_cropped_and_flipped(padding, shape):
    rng, augment = generator(0, "augment"), FlipCrop(padding)
    images = torch.randn(3, 40, *shape)
    before = images.clone()
    draws = torch.stack([augment.draw(rng, 40) for _ in range(3)])
    expected = torch.stack([one_by_one(*pair, padding) for pair in zip(images, draws, strict=True)])
    assert torch.equal(augment.apply(images[0], draws[0]), expected[0])
    assert torch.equal(vmap(augment.apply)(images, draws), expected)
    assert torch.equal(images, before)


def test_every_change_is_drawn_equally_often():
    draws = FlipCrop(1).draw(generator(0, "augment"), 18_000)
    assert draws.dtype == torch.int64
    changes, counts = torch.unique(draws, dim=0, return_counts=True)
    assert len(changes) == 2 * 3 * 3
    assert changes.min(dim=0).values.tolist() == [0, 0, 0]
    assert changes.max(dim=0).values.tolist() == [1, 2, 2]
    assert (counts - 1000).abs().max() < 150


@given(st.lists(st.integers(1, 40), min_size=1, max_size=6), st.integers(0, 100))
def test_batch_size_only_cuts_the_stream(sizes, seed):
    augment = FlipCrop()
    rng = generator(seed, "augment")
    pieces = torch.cat([augment.draw(rng, size) for size in sizes])
    assert torch.equal(pieces, augment.draw(generator(seed, "augment"), sum(sizes)))


@pytest.mark.parametrize("padding", [-1, 2.0, True])
def test_bad_padding(padding):
    with pytest.raises(ValueError, match=f"padding is {padding}; allowed: an integer"):
        FlipCrop(padding)
