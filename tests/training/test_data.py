import torch
from sklearn.datasets import load_digits

from batchscaling.training import batches, digits


def test_digits_are_scikit_learns_images_split_and_standardised(data):
    images, labels = load_digits(return_X_y=True)
    assert data.train_inputs.shape == (1437, 64)
    assert data.validation_inputs.shape == (360, 64)
    assert data.train_inputs.dtype == torch.float32
    assert abs(data.train_inputs.mean()) < 1e-5
    assert abs(data.train_inputs.std() - 1) < 1e-5

    ours = torch.cat([data.train_inputs, data.validation_inputs])
    ours = ((ours - ours.min()) / (ours.max() - ours.min()) * 16).round().to(torch.int64)
    ours = torch.column_stack([ours, torch.cat([data.train_labels, data.validation_labels])])
    theirs = torch.column_stack([torch.tensor(images).to(torch.int64), torch.tensor(labels)])
    assert sorted(ours.tolist()) == sorted(theirs.tolist())


def test_split_depends_on_its_seed_alone(data):
    assert torch.equal(digits().train_inputs, data.train_inputs)
    assert not torch.equal(digits(seed=1).validation_labels, data.validation_labels)
    assert len(digits(validation=100).train_labels) == 1697


def test_every_epoch_holds_every_example_once():
    stream = batches(3, 10, 4)
    drawn = torch.cat([next(stream) for _ in range(5)])
    first, second = drawn[:10].tolist(), drawn[10:].tolist()
    assert sorted(first) == sorted(second) == list(range(10))
    assert first != second


def test_batch_size_only_cuts_the_stream():
    small, large = batches(5, 100, 7), batches(5, 100, 35)
    for _ in range(20):
        assert torch.equal(torch.cat([next(small) for _ in range(5)]), next(large))
