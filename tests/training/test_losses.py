"""Losses against autograd, torch's own functions, and the Fisher information of the outputs."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from batchscaling.training import (
    Data,
    batches,
    bernoulli_cross_entropy,
    cross_entropy,
    grid,
    mlp,
    sgd,
    squared_error,
    train,
)
from batchscaling.training.data import generator

LOSSES = {
    "cross_entropy": cross_entropy,
    "squared_error": squared_error,
    "bernoulli_cross_entropy": bernoulli_cross_entropy,
}


def labels_of(name, shape, rng):
    """Return labels for outputs of a shape; of classes, every fourth does not count."""
    if name == "cross_entropy":
        labels = torch.randint(shape[-1], shape[:-1], generator=rng)
        return torch.where(torch.arange(labels.numel()).view(labels.shape) % 4 == 3, -1, labels)
    return torch.rand(shape, generator=rng)


def torchs(name, outputs, labels):
    """Return torch's sum of losses."""
    if name == "cross_entropy":
        rows = outputs.flatten(0, -2), labels.flatten()
        return functional.cross_entropy(*rows, ignore_index=-1, reduction="sum")
    if name == "squared_error":
        return functional.mse_loss(outputs, labels, reduction="sum") / 2
    return functional.binary_cross_entropy_with_logits(outputs, labels, reduction="sum")


@pytest.mark.parametrize("scale", [1.0, 60.0])
@pytest.mark.parametrize("shape", [(6, 3), (2, 4, 5), (2, 3, 2, 4)])
@pytest.mark.parametrize("name", LOSSES)
def test_scores_and_slope_are_torchs(name, shape, scale):
    rng = torch.Generator().manual_seed(0)
    loss, labels = LOSSES[name], labels_of(name, shape, rng)
    outputs = (scale * torch.randn(shape, generator=rng)).requires_grad_()
    expected = torchs(name, outputs, labels)
    (slope,) = torch.autograd.grad(expected, outputs)
    found, right = loss.scores(outputs.detach(), labels)
    assert found.shape == right.shape == shape[:-1]
    torch.testing.assert_close(found.sum(), expected.detach(), rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(loss.slope(outputs.detach(), labels), slope, rtol=1e-4, atol=1e-5)
    assert loss.counts(labels).shape == shape[:-1]
    assert (found[~loss.counts(labels)] == 0).all()
    assert right.isnan().all() == (name != "cross_entropy")


@pytest.mark.parametrize("name", LOSSES)
def test_sampled_slopes_have_mean_zero_and_the_hessian_as_covariance(name):
    count, loss = 200_000, LOSSES[name]
    rng = torch.Generator().manual_seed(1)
    outputs = torch.tensor([1.5, -1.0, 0.3])
    uniform = torch.rand(count, 3, generator=rng)
    slopes = loss.sampled_slope(outputs.expand(count, 3), uniform).double()
    label = torch.tensor(0) if name == "cross_entropy" else torch.zeros(3)
    hessian = torch.func.jacfwd(lambda o: loss.slope(o, label))(outputs)
    close = {"rtol": 0, "atol": 6 / count**0.5}
    torch.testing.assert_close(slopes.mean(0), torch.zeros(3).double(), **close)
    torch.testing.assert_close(slopes.T @ slopes / count, hessian.double(), **close)


@pytest.mark.parametrize("name", LOSSES)
def test_sampled_slopes_are_finite_for_every_uniform_number(name):
    outputs = torch.tensor([[50.0, -50.0, 0.0]] * 2)
    uniform = torch.tensor([[0.0] * 3, [1 - 2.0**-24] * 3])
    assert LOSSES[name].sampled_slope(outputs, uniform).isfinite().all()


@pytest.fixture(scope="module")
def regression():
    rng = torch.Generator().manual_seed(0)
    inputs = torch.randn(120, 4, generator=rng)
    labels = (inputs @ torch.randn(4, 2, generator=rng)).sigmoid()
    return Data(inputs[:80], labels[:80], inputs[80:], labels[80:])


@pytest.mark.parametrize("name", ["squared_error", "bernoulli_cross_entropy"])
def test_training_is_that_of_the_ordinary_loop(regression, as_module, name):
    model, steps = mlp([4, 6, 2]), 25
    options = {"batch_size": 16, "max_steps": steps, "loss": LOSSES[name], "at_once": 3 * 7}
    results = train(regression, model, sgd, grid([1, 2], lr=0.2), measures=["training"], **options)
    network = as_module(model.init(generator(2, "init")))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.2)
    stream = batches(2, 80, 16)
    for _ in range(steps):
        index = next(stream)
        optimizer.zero_grad()
        outputs = network(regression.train_inputs[index])
        (torchs(name, outputs, regression.train_labels[index]) / 16).backward()
        optimizer.step()
    with torch.no_grad():
        held = torchs(name, network(regression.validation_inputs), regression.validation_labels)
        first = regression.train_inputs[:40], regression.train_labels[:40]
        seen = torchs(name, network(first[0]), first[1])
    assert results.loss[1, -1] == pytest.approx(held.item() / 40, rel=1e-4)
    assert results.losses["training"][1, -1] == pytest.approx(seen.item() / 40, rel=1e-4)
    assert results.loss[1, -1] < 0.9 * results.loss[1, 0]
    assert np.isnan(results.accuracy).all()
    assert not results.diverged.any()


BAD = {
    "classes": (squared_error, lambda labels: labels.argmax(-1), "train_labels is 'torch.int64"),
    "double": (squared_error, lambda labels: labels.double(), "train_labels is 'torch.float64"),
    "shape": (squared_error, lambda labels: labels[:, :1], "train_labels is 'torch.float32 of sha"),
    "infinite": (squared_error, lambda labels: labels / 0, "train_labels is .* finite"),
    "beyond": (bernoulli_cross_entropy, lambda labels: 3 * labels, "train_labels is .* from "),
    "numbers": (cross_entropy, lambda labels: labels, "train_labels is .* allowed: torch.int64"),
}


@pytest.mark.parametrize("name", BAD)
def test_labels_that_do_not_fit_the_loss_are_named(regression, name):
    loss, change, message = BAD[name]
    data = replace(regression, train_labels=change(regression.train_labels))
    with pytest.raises(ValueError, match=f"^{message}"):
        train(data, mlp([4, 6, 2]), sgd, grid(0, lr=0.1), batch_size=8, max_steps=2, loss=loss)


def test_only_cross_entropy_has_smoothed_labels(regression):
    options = {"batch_size": 8, "max_steps": 2, "loss": squared_error, "label_smoothing": 0.1}
    with pytest.raises(ValueError, match=r"^label_smoothing is 0\.1; allowed: 0 for a loss"):
        train(regression, mlp([4, 6, 2]), sgd, grid(0, lr=0.1), **options)
