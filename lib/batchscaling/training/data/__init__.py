"""Data sets as tensors, and the order in which a trial sees them."""

from batchscaling.training.data.augment import FlipCrop
from batchscaling.training.data.base import Data
from batchscaling.training.data.images import (
    cifar10,
    digits,
    fashion_mnist,
    from_npz,
    mnist,
    pixels_as_labels,
)
from batchscaling.training.data.order import Streams, batches, generator
from batchscaling.training.data.registry import DataError, DataSet, describe, fetch, fetch_all
from batchscaling.training.data.text import multi30k, tiny_shakespeare, wikitext2

__all__ = [
    "Data",
    "DataError",
    "DataSet",
    "FlipCrop",
    "Streams",
    "batches",
    "cifar10",
    "describe",
    "digits",
    "fashion_mnist",
    "fetch",
    "fetch_all",
    "from_npz",
    "generator",
    "mnist",
    "multi30k",
    "pixels_as_labels",
    "tiny_shakespeare",
    "wikitext2",
]
