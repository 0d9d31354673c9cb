"""The official files: these tests run where `BATCHSCALING_DATA` or the cache holds them."""

import time

import pytest
import torch

from batchscaling.training.data import (
    cifar10,
    describe,
    fashion_mnist,
    fetch_all,
    mnist,
    multi30k,
    tiny_shakespeare,
    wikitext2,
)

ROWS = {row.name: row for row in describe()}


def needs(name):
    reason = f"needs the files of {name}: set BATCHSCALING_DATA to a folder that holds them"
    return pytest.mark.skipif(not ROWS[name].present, reason=reason)


@pytest.mark.parametrize("name", [pytest.param(name, marks=needs(name)) for name in ROWS])
def test_checksums(name):
    assert len(fetch_all([name])[name]) == len(ROWS[name].files)


@pytest.mark.parametrize(
    ("load", "mean", "std"),
    [
        pytest.param(mnist, 0.1307, 0.3081, marks=needs("mnist")),
        pytest.param(fashion_mnist, 0.2860, 0.3530, marks=needs("fashion_mnist")),
    ],
)
def test_images_have_the_published_statistics(load, mean, std):
    start = time.process_time()
    data = load()
    assert time.process_time() - start < 3
    assert data.train_inputs.shape == (55_000, 1, 28, 28)
    assert data.validation_inputs.shape == (5_000, 1, 28, 28)
    assert data.test_inputs.shape == (10_000, 1, 28, 28)
    assert abs(data.train_inputs.mean()) < 1e-4
    assert abs(data.train_inputs.std() - 1) < 1e-4
    # Black is -mean / std, white (1 - mean) / std, for pixels between 0 and 1.
    assert data.train_inputs.min().item() == pytest.approx(-mean / std, rel=0.01)
    assert data.train_inputs.max().item() == pytest.approx((1 - mean) / std, rel=0.01)
    labels = torch.cat([data.train_labels, data.validation_labels])
    if load is mnist:
        published = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
        assert labels.bincount().tolist() == published
    else:
        assert labels.bincount().tolist() == [6000] * 10
        assert data.test_labels.bincount().tolist() == [1000] * 10


@needs("cifar10_subset")
def test_cifar10_subset_has_the_statistics_of_cifar10():
    data = cifar10(source="subset")
    assert data.train_inputs.shape == (15_000, 3, 32, 32)
    assert data.validation_inputs.shape == (5000, 3, 32, 32)
    assert data.test_inputs.shape == (9827, 3, 32, 32)
    assert data.test_labels[:10].tolist() == [3, 8, 8, 0, 6, 6, 1, 6, 3, 1]
    published = ((0.4914, 0.2470), (0.4822, 0.2435), (0.4465, 0.2616))
    for channel, (mean, std) in enumerate(published):
        pixels = data.train_inputs[:, channel]
        assert abs(pixels.mean()) < 1e-4
        assert pixels.min().item() == pytest.approx(-mean / std, rel=0.02)
        assert pixels.max().item() == pytest.approx((1 - mean) / std, rel=0.02)


@needs("tiny_shakespeare")
def test_tiny_shakespeare_has_65_characters():
    data = tiny_shakespeare(length=100, validation=154)
    assert len(data.vocabularies[0]) == 65
    assert data.train_inputs.shape == (11_000 - 1, 100)


@needs("wikitext2")
def test_wikitext2_has_its_published_size():
    data = wikitext2(length=35, validation=218)
    assert len(data.train_inputs) + 218 == (217_646 - 1) // 35
    assert len(data.test_inputs) == (245_569 - 1) // 35
    vocabulary = data.vocabularies[0]
    assert "the" in vocabulary[:4]
    assert 12_000 < len(vocabulary) < 14_000


@needs("multi30k")
def test_multi30k_pairs_and_lengths():
    data = multi30k()
    assert data.train_inputs.shape == (29_000, 48)
    assert data.validation_labels.shape == (1014, 24)
    assert data.test_labels.shape == (1000, 24)
    source, target = data.vocabularies
    english = [source[number] for number in data.train_inputs[0, :12]]
    assert " ".join(english) == "two young , white males are outside near many bushes . <eos>"
    german = [target[number] for number in data.train_labels[0] if number >= 0]
    expected = "zwei junge weiße männer sind im freien in der nähe vieler büsche . <eos>"
    assert " ".join(german) == expected

    # The documented part of sentences that are cut: they fill all positions, without an end.
    for last in (data.train_inputs[:, 23], data.train_labels[:, -1]):
        cut = (last != 0) & (last != -1) & (last != source.index("<eos>"))
        assert 0.015 < cut.float().mean() < 0.025
