import gzip
import io
import re
import struct
import tarfile
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import torch

from batchscaling.training.data import (
    Data,
    FlipCrop,
    cifar10,
    digits,
    fashion_mnist,
    from_npz,
    images,
    mnist,
    pixels_as_labels,
)
from batchscaling.training.data.base import split

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (50, 28, 28), dtype=np.uint8)
COLOUR = RNG.integers(0, 256, (24, 3, 32, 32), dtype=np.uint8)


@pytest.fixture
def small(tmp_path, monkeypatch):
    """Small data sets in the official formats; every label is the image's number, so unique."""

    def fetch(name):
        return tmp_path / name.split("/")[1]

    for part, numbers in (("train", np.arange(40)), ("t10k", np.arange(40, 50))):
        pixels, labels = GREY[numbers].tobytes(), numbers.astype(np.uint8).tobytes()
        header = struct.pack(">HBBIII", 0, 8, 3, len(numbers), 28, 28)
        name = f"{part}-images-idx3-ubyte.gz"
        (tmp_path / name).write_bytes(gzip.compress(header + pixels))
        header = struct.pack(">HBBI", 0, 8, 1, len(numbers))
        name = f"{part}-labels-idx1-ubyte.gz"
        (tmp_path / name).write_bytes(gzip.compress(header + labels))

    with tarfile.open(tmp_path / "cifar-10-binary.tar.gz", "w:gz") as archive:
        names = ["data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5"]
        for batch, name in enumerate([*names, "test_batch"]):
            numbers = range(4 * batch, 4 * batch + 4)
            data = b"".join(bytes([i]) + COLOUR[i].tobytes() for i in numbers)
            info = tarfile.TarInfo(f"cifar-10-batches-bin/{name}.bin")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    for name, numbers in (("train-20k", np.arange(20)), ("test-9827", np.arange(20, 24))):
        path = tmp_path / f"cifar10-{name}.npz"
        np.savez(path, images=COLOUR[numbers], labels=numbers.astype(np.uint8))
    monkeypatch.setattr(images, "fetch", fetch)


def standardised(pixels, train_labels):
    """Return float64 images, standardised one channel after the other."""
    pixels = pixels.astype(float)
    for channel in range(pixels.shape[1]):
        seen = pixels[train_labels, channel]
        pixels[:, channel] = (pixels[:, channel] - seen.mean()) / seen.std(ddof=1)
    return pixels


def check(data, pixels, train, validation, test):
    """Check sizes, split, and every image against the one that its label names."""
    parts = [
        (data.train_inputs, data.train_labels),
        (data.validation_inputs, data.validation_labels),
        (data.test_inputs, data.test_labels),
    ]
    assert [len(labels) for _, labels in parts] == [train, validation, test]
    labels = torch.cat([labels for _, labels in parts])
    assert len(set(labels.tolist())) == train + validation + test
    expected = standardised(pixels, data.train_labels.numpy())
    for inputs, labels in parts:
        assert inputs.dtype == torch.float32 and labels.dtype == torch.int64
        np.testing.assert_allclose(inputs.numpy(), expected[labels.numpy()], atol=1e-4)


@pytest.mark.parametrize("load", [mnist, fashion_mnist])
def test_idx_files(small, load):
    check(load(validation=10), GREY[:, None], 30, 10, 10)


def test_small_images_are_means_of_squares(small):
    data = mnist(validation=10, size=7, examples=12)
    means = GREY.reshape(50, 1, 7, 4, 7, 4).mean(axis=(3, 5))
    check(data, means, 12, 10, 10)


def test_a_part_of_one_image(small):
    data = mnist(validation=1, examples=1)
    check(data, GREY[:, None], 1, 1, 10)


@pytest.mark.parametrize("source", ["binary", "subset"])
def test_cifar10(small, source):
    augment = FlipCrop(2)
    data = cifar10(source=source, validation=5, augment=augment)
    check(data, COLOUR, 15, 5, 4)
    assert data.augment == augment
    assert data.test_labels.tolist() == [20, 21, 22, 23]


def test_fewer_examples_leave_the_split_as_it_is(small):
    few, all_of_them = (mnist(validation=10, seed=3, examples=n) for n in (12, None))
    assert torch.equal(few.train_labels, all_of_them.train_labels[:12])
    assert torch.equal(few.validation_labels, all_of_them.validation_labels)
    other = mnist(validation=10, seed=4)
    assert not torch.equal(other.validation_labels, all_of_them.validation_labels)


def test_the_labels_of_an_autoencoder_are_the_pixels(small):
    data = mnist(validation=10)
    found, brightest = pixels_as_labels(data), GREY[data.train_labels.numpy()].max()
    assert GREY[data.train_labels.numpy()].min() == 0
    for part in ("train", "validation", "test"):
        labels = getattr(found, f"{part}_labels")
        pixels = GREY[getattr(data, f"{part}_labels").numpy()].reshape(len(labels), -1)
        assert labels.dtype == torch.float32
        np.testing.assert_allclose(labels, (pixels / brightest).clip(0, 1), atol=1e-6)
        assert getattr(found, f"{part}_inputs") is getattr(data, f"{part}_inputs")


def test_labels_of_coloured_pixels_have_a_scale_for_each_channel():
    rng = torch.Generator().manual_seed(0)
    pixels = torch.tensor([1.0, 10.0, 0.0]).view(3, 1, 1) * torch.rand(9, 3, 2, 2, generator=rng)
    found = pixels_as_labels(Data(pixels[:5], torch.arange(5), pixels[5:], torch.arange(4)))
    assert found.test_labels is None
    labels = found.train_labels.view(5, 3, -1)
    assert labels.amin((0, 2)).tolist() == [0, 0, 0]
    assert labels.amax((0, 2)).tolist() == [1, 1, 0]
    assert 0 <= found.validation_labels.min() <= found.validation_labels.max() <= 1


def test_pixels_that_move_are_no_labels():
    data = Data(torch.zeros(2, 1, 4, 4), torch.zeros(2), torch.zeros(1, 1, 4, 4), torch.zeros(1))
    with pytest.raises(ValueError, match=r"^data is .*FlipCrop.*; allowed: images without"):
        pixels_as_labels(replace(data, augment=FlipCrop()))


def test_to_moves_every_tensor(small):
    data = cifar10(validation=5, augment=FlipCrop())
    moved = data.to("meta")
    for name in ("train", "validation", "test"):
        for kind in ("inputs", "labels"):
            before, after = getattr(data, f"{name}_{kind}"), getattr(moved, f"{name}_{kind}")
            assert before.device.type == "cpu" and after.device.type == "meta"
            assert (after.shape, after.dtype) == (before.shape, before.dtype)
    assert moved.augment is data.augment
    assert digits().to("meta").test_inputs is None


@pytest.mark.parametrize("dtype", [np.uint8, np.float64])
def test_own_images(tmp_path, dtype):
    path = tmp_path / "own.npz"
    np.savez_compressed(path, images=COLOUR.astype(dtype), labels=np.arange(24))
    data = from_npz(path, validation=4, size=16, augment=FlipCrop())
    means = COLOUR.reshape(24, 3, 16, 2, 16, 2).mean(axis=(3, 5))
    expected = standardised(means, data.train_labels.numpy())
    for inputs, labels in (
        (data.train_inputs, data.train_labels),
        (data.validation_inputs, data.validation_labels),
    ):
        np.testing.assert_allclose(inputs.numpy(), expected[labels.numpy()], atol=1e-4)
    assert data.test_inputs is None and data.augment == FlipCrop()


@pytest.mark.filterwarnings("ignore:std_mean")
def test_own_images_without_channels_and_of_any_size(tmp_path):
    path = tmp_path / "own.npz"
    np.savez(path, images=np.full((10, 5, 8), 7), labels=np.arange(10))
    data = from_npz(path, validation=3)
    assert data.train_inputs.shape == (7, 1, 5, 8)
    assert (data.train_inputs == 0).all()
    np.savez(path, images=np.arange(3).reshape(3, 1, 1), labels=np.arange(3))
    assert from_npz(path, validation=2).train_inputs.item() == 0


class Opened:
    """An object that cannot be unpickled in silence."""

    def __reduce__(self):
        return (pytest.fail, ("a pickle was opened",))


LABELS = np.arange(6)
PIXELS = np.ones((6, 4, 4))
BAD_FILES = [
    ({"images": PIXELS, "labels": np.array([Opened()] * 6)}, "path is .*bad.npz.* array labels"),
    ({"images": np.array([Opened()] * 6), "labels": LABELS}, "path is .*bad.npz.* array images"),
    ({"images": PIXELS}, r"path is .*bad.npz.* array labels; it has \['images'\]"),
    ({"pixels": PIXELS, "labels": LABELS}, "path is .*bad.npz.* array images; it has"),
    ({"images": PIXELS[0], "labels": LABELS}, "images is"),
    ({"images": PIXELS[:0], "labels": LABELS[:0]}, "images is"),
    ({"images": PIXELS.astype(str), "labels": LABELS}, "images is"),
    ({"images": PIXELS * np.nan, "labels": LABELS}, "images is"),
    ({"images": PIXELS, "labels": LABELS[:5]}, "labels is"),
    ({"images": PIXELS, "labels": LABELS - 1}, "labels is"),
    ({"images": PIXELS, "labels": LABELS / 2}, "labels is"),
    ({"images": PIXELS * 1j, "labels": LABELS}, "images is"),
    ({"images": PIXELS > 0, "labels": LABELS}, "images is"),
    ({"images": np.array(1.0), "labels": LABELS}, "images is"),
    ({"images": PIXELS, "labels": np.uint64(2**63) + LABELS.astype(np.uint64)}, "labels is"),
    ({"images": np.ones((6, 8, 8, 3)), "labels": LABELS}, "images is"),
    ({"images": np.ones((6, 8, 5, 1)), "labels": LABELS}, "images is"),
    ({"images": np.ones((6, 12, 12, 7)), "labels": LABELS}, "images is"),
    ({"images": PIXELS.astype("M8[s]"), "labels": LABELS}, "images is"),
    ({"images": PIXELS.astype([("a", "f8")]), "labels": LABELS}, "images is"),
    ({"images": PIXELS, "labels": LABELS > 2}, "labels is"),
    ({"images": PIXELS, "labels": np.array(3)}, "labels is"),
    ({"images": PIXELS, "labels": LABELS.astype(complex)}, "labels is"),
]


@pytest.mark.parametrize(("arrays", "message"), BAD_FILES)
def test_bad_files_are_refused(tmp_path, arrays, message):
    path = tmp_path / "bad.npz"
    np.savez(path, **arrays)
    with pytest.raises(ValueError, match=message) as error:
        from_npz(path, validation=2)
    assert "; allowed: " in str(error.value)
    if not message.startswith("path"):
        with pytest.raises(ValueError, match=r"in /.*bad\.npz['\"]?; allowed: "):
            from_npz(path, validation=2)


def loaded(tmp_path, images, labels=None):
    """Return all inputs in the order of the labels, which number the images."""
    path = tmp_path / "own.npz"
    np.savez(path, images=images, labels=np.arange(len(images)) if labels is None else labels)
    data = from_npz(path, validation=4)
    inputs = torch.cat([data.train_inputs, data.validation_inputs])
    return inputs[torch.cat([data.train_labels, data.validation_labels]).argsort()].numpy()


SWAPPED = [f"{order}{kind}" for kind in ("u2", "i4", "i8", "f2", "f4", "f8", "g") for order in "<>"]


@pytest.mark.parametrize("kind", [*SWAPPED, "u1", "i1"])
def test_own_images_are_the_same_in_every_type_and_byte_order(tmp_path, kind):
    numbers = np.random.default_rng(0).integers(0, 100, (20, 2, 4, 4))
    expected = loaded(tmp_path, numbers.astype(np.float32))
    np.testing.assert_allclose(loaded(tmp_path, numbers.astype(kind)), expected, atol=1e-5)
    swapped = np.arange(20).astype(">i8")
    np.testing.assert_array_equal(
        loaded(tmp_path, numbers.astype("f4"), swapped), loaded(tmp_path, numbers.astype("f4"))
    )


@pytest.mark.parametrize("scale", [1e-300, 1e-40, 1e30, 1e300])
@pytest.mark.parametrize("kind", [">f8", "<f8"])
def test_own_images_are_the_same_at_every_scale(tmp_path, scale, kind):
    numbers = np.random.default_rng(0).normal(size=(20, 2, 4, 4))
    expected = loaded(tmp_path, numbers)
    found = loaded(tmp_path, (scale * numbers).astype(kind))
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_numbers_for_validation_do_not_cost_the_others_digits(tmp_path):
    images = np.random.default_rng(0).random((20, 1, 4, 4)).astype(np.float32)
    held_out = split(20, validation=4, seed=0)[1]
    expected = loaded(tmp_path, images)
    for wild in (1e4, 1e10, -1e30):
        images[held_out, 0, 0, 0] = wild
        found = loaded(tmp_path, images)
        # All pixels of training, and those of validation, are as before.
        assert (found != expected).sum() == 4
        assert np.isfinite(found).all()
    for wild in (3e38, 1e60):
        images = images.astype(np.float64)
        images[held_out, 0, 0, 0] = wild
        with pytest.raises(ValueError, match=r"images is .*own.npz.*; allowed: numbers for valid"):
            loaded(tmp_path, images)


@pytest.mark.parametrize("kind", ["i4", "i8", "u8", "f2", "f4", "f8"])
def test_images_that_float32_holds_are_standardised_as_they_are(tmp_path, kind):
    images = (100 * np.random.default_rng(0).random((20, 3, 8, 8))).astype(kind)
    expected = torch.tensor(images.astype(np.float32))
    kept, _ = split(20, validation=4, seed=0)
    spread, mean = torch.std_mean(expected[kept], dim=(0, 2, 3), keepdim=True)
    np.testing.assert_array_equal(loaded(tmp_path, images), (expected - mean) / spread)


def test_the_order_in_memory_does_not_matter(tmp_path):
    images = np.random.default_rng(0).random((20, 3, 4, 4))
    np.testing.assert_array_equal(
        loaded(tmp_path, np.asfortranarray(images)), loaded(tmp_path, images)
    )


def test_a_file_that_numpy_did_not_write_is_refused(tmp_path):
    path = tmp_path / "bad.npz"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("images", "text")
        file.writestr("labels", "text")
    with pytest.raises(ValueError, match=r"path is .*bad.npz'; allowed: .* images is an array"):
        from_npz(path, validation=2)


def test_a_tilde_in_the_path_is_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    np.savez(tmp_path / "own.npz", images=PIXELS, labels=LABELS)
    assert len(from_npz("~/own.npz", validation=2).train_inputs) == 4


def test_own_images_keep_their_digits_beside_an_offset(tmp_path):
    numbers = np.random.default_rng(0).integers(0, 100, (20, 1, 4, 4))
    expected = loaded(tmp_path, numbers)
    np.testing.assert_allclose(loaded(tmp_path, numbers + 2**60), expected, atol=1e-5)
    np.testing.assert_allclose(loaded(tmp_path, numbers + 1e12), expected, atol=1e-5)
    np.testing.assert_array_equal(loaded(tmp_path, np.full((20, 3, 3), 0.1)), 0)
    np.testing.assert_allclose(loaded(tmp_path, -1e12 - numbers), -expected, atol=1e-5)


def test_damaged_files_are_refused(tmp_path):
    path = tmp_path / "bad.npz"
    np.savez_compressed(path, images=COLOUR, labels=np.arange(24))
    data = bytearray(path.read_bytes())
    data[5000:5040] = bytes(40)
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"path is .*; allowed: "):
        from_npz(path, validation=2)


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04 not a zip", b"\x80\x04pickle"])
def test_files_of_another_kind_are_refused(tmp_path, content):
    path = tmp_path / "bad.npz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"path is .*; allowed: "):
        from_npz(path, validation=2)
    np.save(tmp_path / "array.npy", PIXELS)
    with pytest.raises(ValueError, match=r"path is .*; allowed: "):
        from_npz(tmp_path / "array.npy", validation=2)
    with pytest.raises(FileNotFoundError):
        from_npz(tmp_path / "nowhere.npz", validation=2)


BAD = [
    (lambda: mnist(validation=40), "validation is 40"),
    (lambda: fashion_mnist(validation=0), "validation is 0"),
    (lambda: mnist(validation=10, seed=-1), "seed is -1"),
    (lambda: mnist(validation=10, examples=31), "examples is 31"),
    (lambda: mnist(validation=10, examples=0), "examples is 0"),
    (lambda: mnist(validation=10, size=8), "size is 8"),
    (lambda: mnist(validation=10, size=56), "size is 56"),
    (lambda: mnist(validation=10, size=0), "size is 0"),
    (lambda: mnist(validation=10, size=14.0), "size is 14.0"),
    (lambda: cifar10(source="pickle"), "source is 'pickle'"),
    (lambda: cifar10(validation=20), "validation is 20"),
]


@pytest.mark.parametrize(("call", "message"), BAD, ids=[message for _, message in BAD])
def test_bad_arguments(small, call, message):
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        call()
    assert "allowed: " in str(error.value)
