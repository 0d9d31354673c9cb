"""Data sets of images."""

import os
import tarfile
import zipfile
import zlib
from dataclasses import replace

import numpy as np
import torch
from torch.nn.functional import avg_pool2d

from batchscaling import _validation as check
from batchscaling._errors import InputError
from batchscaling.training._torch_state import undisturbed
from batchscaling.training.data.base import Data, first, split
from batchscaling.training.data.registry import fetch, read

_BAD_NPZ = (AttributeError, EOFError, KeyError, RuntimeError, TypeError, ValueError)
_BAD_NPZ += (zipfile.BadZipFile, zlib.error)
"""What numpy raises for a file of another kind, a locked one, pickled objects, damage."""

_MOST_CHANNELS = 4  # of a picture: red, green, blue and opacity


@undisturbed
def digits(*, validation=360, seed=0):
    """Return scikit-learn's 1,797 images of hand-written digits, 8 by 8 pixels each.

    All pixels are shifted and scaled by one mean and one standard deviation, those of the
    training pixels. Some pixels never change, so a scale for each pixel would divide by zero.

    Parameters
    ----------
    validation : int
        Number of validation examples, from 1 to 1796. The rest is the training set.
    seed : int
        Seed of the split. The split does not depend on the seeds of the trials.

    Returns
    -------
    Data
        Inputs in float32, of shape (1797 - validation, 64) and (validation, 64).

    Raises
    ------
    ValueError
        If `validation` or `seed` is outside its range.
    """
    from sklearn.datasets import load_digits  # here: to import it takes a second

    images, labels = load_digits(return_X_y=True)
    kept, held_out = split(len(images), validation=validation, seed=seed)
    inputs = torch.tensor(images, dtype=torch.float32)
    labels = torch.tensor(labels)
    inputs = (inputs - inputs[kept].mean()) / inputs[kept].std()
    return Data(inputs[kept], labels[kept], inputs[held_out], labels[held_out])


@undisturbed
def mnist(*, validation=5000, seed=0, examples=None, size=28):
    """Return MNIST: 70,000 images of hand-written digits, 28 by 28 pixels each [1]_.

    Pixels are standardised by the mean and standard deviation of the training pixels.

    Parameters
    ----------
    validation : int
        Number of the 60,000 training images held out for validation, from 1 to 59,999.
    seed : int
        Seed of the split. The split does not depend on the seeds of the trials.
    examples : int, optional
        Number of training examples, at most 60,000 - `validation`; all if not given.
    size : int
        Height and width of the images, a divisor of 28: each pixel is the mean of a square.

    Returns
    -------
    Data
        Inputs of shape (examples, 1, size, size), with the 10,000 test images.

    Raises
    ------
    ValueError
        If an argument is outside its range.
    DataError
        If a file is missing or damaged, and cannot be downloaded.

    References
    ----------
    .. [1] LeCun, Bottou, Bengio and Haffner (1998), Gradient-based learning applied to document
       recognition.
    """
    return _idx("mnist", validation=validation, seed=seed, examples=examples, size=size)


@undisturbed
def fashion_mnist(*, validation=5000, seed=0, examples=None, size=28):
    """Return Fashion-MNIST: 70,000 images of clothes, 28 by 28 pixels each [1]_.

    Pixels are standardised by the mean and standard deviation of the training pixels.

    Parameters
    ----------
    validation : int
        Number of the 60,000 training images held out for validation, from 1 to 59,999.
    seed : int
        Seed of the split. The split does not depend on the seeds of the trials.
    examples : int, optional
        Number of training examples, at most 60,000 - `validation`; all if not given.
    size : int
        Height and width of the images, a divisor of 28: each pixel is the mean of a square.

    Returns
    -------
    Data
        Inputs of shape (examples, 1, size, size), with the 10,000 test images.

    Raises
    ------
    ValueError
        If an argument is outside its range.
    DataError
        If a file is missing or damaged, and cannot be downloaded.

    References
    ----------
    .. [1] Xiao, Rasul and Vollgraf (2017), Fashion-MNIST: a novel image dataset for benchmarking
       machine learning algorithms.
    """
    return _idx("fashion-mnist", validation=validation, seed=seed, examples=examples, size=size)


@undisturbed
def cifar10(*, source="binary", validation=5000, seed=0, examples=None, size=32, augment=None):
    """Return CIFAR-10: colour images of ten kinds of things, 32 by 32 pixels each [1]_.

    Every channel is standardised by its mean and standard deviation over the training images.

    Parameters
    ----------
    source : {"binary", "subset"}
        The official archive of 50,000 training and 10,000 test images; or a subset of 20,000
        and 9,827 of them, for a machine that has these two files and not the archive. Numbers
        measured on one do not compare with those on the other, so the choice is always yours.
    validation : int
        Number of the training images held out for validation.
    seed : int
        Seed of the split. The split does not depend on the seeds of the trials.
    examples : int, optional
        Number of training examples, at most what `validation` leaves; all if not given.
    size : int
        Height and width of the images, a divisor of 32: each pixel is the mean of a square.
    augment : FlipCrop, optional
        Augmentation of the training images.

    Returns
    -------
    Data
        Inputs of shape (examples, 3, size, size), channels red, green and blue, with the test
        images.

    Raises
    ------
    ValueError
        If an argument is outside its range.
    DataError
        If a file is missing or damaged, and cannot be downloaded.

    References
    ----------
    .. [1] Krizhevsky (2009), Learning multiple layers of features from tiny images.
    """
    if check.one_of("source", source, ("binary", "subset")) == "binary":
        train, test = _read_cifar(fetch("cifar-10/cifar-10-binary.tar.gz"))
    else:
        names = ("cifar10-train-20k", "cifar10-test-9827")
        train, test = (_read_npz(fetch(f"cifar-10/{name}.npz")) for name in names)
    return _images(
        *train, test, validation=validation, seed=seed, examples=examples, size=size,
        augment=augment,
    )  # fmt: skip


@undisturbed
def from_npz(path, *, validation, seed=0, examples=None, size=None, augment=None):
    """Return your own images from a ``.npz`` file, as `numpy.savez` writes it.

    Every channel is standardised by its mean and standard deviation over the training images.

    Parameters
    ----------
    path : str or os.PathLike
        A file with ``images``, numbers of shape (examples, height, width) or (examples, channels,
        height, width), and ``labels``, integers from 0 of shape (examples,). Numbers may be
        integers or real ones of any size and byte order. Files with pickled objects are refused,
        and so are images whose channels seem to come last: where only the last axis is as short
        as 4, or where it is shorter than two equal ones before it.
    validation : int
        Number of examples held out for validation.
    seed : int
        Seed of the split. The split does not depend on the seeds of the trials.
    examples : int, optional
        Number of training examples, at most what `validation` leaves; all if not given.
    size : int, optional
        Height and width of the images, for square images a divisor of their side: each pixel is
        the mean of a square. As they are if not given.
    augment : FlipCrop, optional
        Augmentation of the training images.

    Returns
    -------
    Data
        Inputs of shape (examples, channels, size, size), without a test set.

    Raises
    ------
    ValueError
        If an argument is outside its range, or the file does not hold what it should.
    FileNotFoundError
        If there is no such file.
    """
    images, labels = _read_npz(path)
    _check_images(path, images)
    _check_labels(path, labels, len(images))
    images = images if images.ndim == 4 else images[:, None]
    data = _images(
        images, labels, None, validation=validation, seed=seed, examples=examples, size=size,
        augment=augment,
    )  # fmt: skip
    if not torch.isfinite(data.validation_inputs).all():
        allowed = "numbers for validation that float32 holds at the scale of those for training"
        _refuse(path, "images", images, allowed)
    return data


@undisturbed
def pixels_as_labels(data):
    """Return the data for an autoencoder: the labels of an image are its own pixels.

    Labels go from 0 to 1, the smallest and the largest pixel of a channel among the training
    images. Pixels of other images are clipped there. So `bernoulli_cross_entropy` takes them.

    Parameters
    ----------
    data : Data
        Images, without augmentation.

    Returns
    -------
    Data
        Labels are float32, of shape (examples, channels * height * width).

    Raises
    ------
    ValueError
        If the inputs are no images, or are augmented.
    """
    if data.augment is not None:
        check.reject("data", f"one with {data.augment}", "images without augmentation")
    images = data.train_inputs
    if images.ndim != 4 or not images.is_floating_point():
        found = f"inputs of {images.dtype} of shape {tuple(images.shape)}"
        check.reject("data", found, "images, float32 of shape (n, channels, height, width)")
    low, high = images.amin((0, 2, 3), keepdim=True), images.amax((0, 2, 3), keepdim=True)
    scale = torch.where(high > low, high - low, 1)
    parts = [part for part in ("train", "validation", "test") if _inputs(data, part) is not None]
    scaled = {part: ((_inputs(data, part) - low) / scale).clamp(0, 1) for part in parts}
    return replace(data, **{f"{part}_labels": y.flatten(1) for part, y in scaled.items()})


def _inputs(data, part):
    return getattr(data, f"{part}_inputs")


def _check_images(path, images):
    if images.ndim not in (3, 4) or images.dtype.kind not in "uif" or images.size == 0:
        _refuse(path, "images", images, "numbers of shape (examples, [channels,] height, width)")
    if images.ndim == 4 and _channels_last(*images.shape[1:]):
        allowed = "channels before height and width, such as images.transpose(0, 3, 1, 2)"
        _refuse(path, "images", images, allowed)
    if not np.isfinite(images).all():
        _refuse(path, "images", images, "finite numbers")
    exact = 2 ** (np.finfo(_wide(images.dtype)).nmant + 1)
    if images.dtype.kind in "ui" and max(-int(images.min()), int(images.max())) > exact:
        _refuse(path, "images", images, f"integers from -{exact} to {exact}, on this machine")


def _check_labels(path, labels, count):
    if labels.shape != (count,) or labels.dtype.kind not in "ui":
        _refuse(path, "labels", labels, f"integers from 0 of shape ({count},)")
    for label in (int(labels.min()), int(labels.max())):
        if not 0 <= label < 2**63:
            _refuse(path, "labels", labels, f"integers from 0 to 2**63 - 1, unlike {label}")


def _channels_last(first, second, last):
    """Return whether images of this shape seem to have their channels on the last axis."""
    return last <= _MOST_CHANNELS < first or first == second > last


def _refuse(path, name, found, allowed):
    """Raise a ``ValueError`` that names the file and the array in it."""
    check.reject(name, f"an array of {found.dtype} of shape {found.shape} in {path}", allowed)


def _idx(folder, **settings):
    train, test = (
        [
            _read_idx(fetch(f"{folder}/{part}-{kind}-ubyte.gz"))
            for kind in ("images-idx3", "labels-idx1")
        ]
        for part in ("train", "t10k")
    )
    images, labels = train
    return _images(images[:, None], labels, (test[0][:, None], test[1]), **settings)


def _images(images, labels, test, *, validation, seed, examples, size, augment=None):
    """Return arrays of shape (examples, channels, height, width) as `Data`."""
    kept, held_out = split(len(images), validation=validation, seed=seed)
    # As arrays: numpy takes a tensor of one index for a number.
    kept, held_out = first(kept, examples).numpy(), held_out.numpy()
    factor = _pooling(size, *images.shape[2:])
    parts = [(images[kept], labels[kept]), (images[held_out], labels[held_out])]
    parts += [test] if test else []

    inputs = [torch.from_numpy(part) for part in _as_float32([part for part, _ in parts])]
    inputs = [avg_pool2d(part, factor) for part in inputs] if factor > 1 else inputs
    spread, mean = torch.std_mean(inputs[0], dim=(0, 2, 3), keepdim=True)
    # A channel that never changes has nothing to scale; neither has a single number.
    spread[~(spread > 0)] = 1
    tensors = []
    for part, (_, numbers) in zip(inputs, parts, strict=True):
        # In place, since a data set may be as large as the memory left.
        tensors += [part.sub_(mean).div_(spread), torch.from_numpy(numbers.astype(np.int64))]
    return Data(*tensors, augment=augment)


def _as_float32(parts):
    """Return images in float32, which standardising makes the same numbers of.

    What float32 may not hold is moved and scaled, channel by channel, as suits the first part.
    """
    if parts[0].dtype.kind in "ui" and parts[0].itemsize <= 2:
        return [part.astype(np.float32) for part in parts]
    results = [np.empty(part.shape, np.float32) for part in parts]
    wide = _wide(parts[0].dtype)
    for channel in range(parts[0].shape[1]):
        offset, exponent = _range(parts[0][:, channel].astype(wide))
        for part, result in zip(parts, results, strict=True):
            # Only another part than the first can be too large: then it becomes infinite.
            with np.errstate(over="ignore"):
                result[:, channel] = np.ldexp(part[:, channel].astype(wide) - offset, -exponent)
    return results


def _wide(dtype):
    """Return the native type of real numbers that holds those of another type."""
    is_long = dtype.kind in "ui" and dtype.itemsize == 8
    return np.dtype(np.longdouble) if is_long else np.result_type(dtype, np.float64)


def _range(numbers):
    """Return an offset and a power of two that bring numbers near 1 without loss of digits.

    The offset is zero unless zero is far from all numbers; then their differences are exact.
    """
    low, high = numbers.min(), numbers.max()
    offset = low if low > high / 2 or high < low / 2 else 0 * low
    return offset, np.frexp(max(abs(low - offset), abs(high - offset)))[1]


def _pooling(size, height, width):
    """Return the side of the squares of pixels that become one."""
    if size is None:
        return 1
    size = check.integer("size", size, 1)
    if height != width or height % size:
        check.reject(
            "size", size, f"a divisor of the side of square images; these are {height}×{width}"
        )
    return height // size


def _read_idx(path):
    """Return the array of a file in MNIST's format: 0, 0, type, dimensions, shape, bytes."""
    data = read(path)
    shape = np.frombuffer(data, ">i4", count=data[3], offset=4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * data[3]).reshape(shape)


def _read_cifar(path):
    """Return (images, labels) of training and test from CIFAR-10's binary archive."""
    names = [f"data_batch_{i}.bin" for i in range(1, 6)] + ["test_batch.bin"]
    with tarfile.open(path) as archive:
        files = [archive.extractfile(f"cifar-10-batches-bin/{name}").read() for name in names]
    # A record is the label, then 1,024 bytes each of red, green and blue.
    parts = [
        np.frombuffer(data, np.uint8).reshape(-1, 3073) for data in (b"".join(files[:5]), files[5])
    ]
    return [(part[:, 1:].reshape(-1, 3, 32, 32), part[:, 0]) for part in parts]


def _read_npz(path):
    """Return (images, labels) of a ``.npz`` file; pickled objects are never loaded."""
    path = os.path.expanduser(path)
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return [_array(path, arrays, name) for name in ("images", "labels")]
    except InputError:
        raise
    except _BAD_NPZ as error:
        check.reject("path", str(path), f"a .npz file of arrays named images and labels ({error})")


def _array(path, arrays, name):
    try:
        found = arrays[name]
    except KeyError:
        check.reject("path", str(path), f"a .npz file with an array {name}; it has {list(arrays)}")
    except _BAD_NPZ as error:
        check.reject(
            "path", str(path), f"a .npz file with an array {name} without objects ({error})"
        )
    if not isinstance(found, np.ndarray):
        check.reject(
            "path", str(path), f"a .npz file in which {name} is an array, as numpy writes it"
        )
    return found
