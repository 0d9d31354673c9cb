"""Data and models that do not fit are named; a batch in which no label counts is no step."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy, one_hot

from batchscaling.training import (
    Data,
    FlipCrop,
    batches,
    gradient_products,
    grid,
    hessian_product,
    lstm,
    measure_noise,
    mlp,
    per_example_gradients,
    sgd,
    simple_cnn,
    train,
    transformer,
    transformer_lm,
)
from batchscaling.training.data import generator

MODEL = mlp([64, 10])
IMAGES = torch.zeros(40, 1, 8, 8)
WORDS = torch.arange(11).repeat(22)[: 40 * 6].view(40, 6)
TEXT = Data(WORDS, WORDS, WORDS[:9], WORDS[:9])
SMALL = {"width": 8, "heads": 2, "units": 8, "layers": 1}


def both(data, model=MODEL):
    """Call both functions that train; return the errors, or what they measured."""
    trials, run = grid([0, 1], lr=0.1), {"batch_size": 4, "max_steps": 2}
    for function in (train, measure_noise):
        yield lambda f=function: f(data, model, sgd, trials, **run)


BAD = {
    "twice the labels": (
        lambda d: replace(d, validation_labels=d.validation_labels.repeat(2)),
        ["validation_labels is '720 labels", "validation_inputs, torch.float32 of shape (360, 64)"],
    ),
    "too few labels": (
        lambda d: replace(d, train_labels=d.train_labels[:5]),
        ["train_labels is '5 labels", "(1437, 64)"],
    ),
    "no examples": (
        lambda d: replace(
            d, validation_inputs=d.validation_inputs[:0], validation_labels=d.validation_labels[:0]
        ),
        ["validation_labels is '0 labels"],
    ),
    "labels from 1": (
        lambda d: replace(d, train_labels=d.train_labels + 1),
        ["train_labels is", "(1437,), from 1 to 10", "from 0 to 9"],
    ),
    "labels below -1": (
        lambda d: replace(d, validation_labels=d.validation_labels - 2),
        ["validation_labels is", "from -2 to 7"],
    ),
    "test labels": (
        lambda d: replace(d, test_inputs=d.validation_inputs, test_labels=d.train_labels),
        ["test_labels is '1437 labels"],
    ),
    "no test labels": (
        lambda d: replace(d, test_inputs=d.validation_inputs),
        ["test_labels is 'NoneType'"],
    ),
    "images": (
        lambda d: replace(d, train_inputs=d.train_inputs.view(-1, 1, 8, 8)),
        ["train_inputs is 'torch.float32 of shape (1437, 1, 8, 8)'", "model"],
    ),
    "float64": (
        lambda d: replace(d, train_inputs=d.train_inputs.double()),
        ["train_inputs is 'torch.float64 of shape (1437, 64)'"],
    ),
    "bytes": (
        lambda d: replace(d, validation_inputs=d.validation_inputs.to(torch.uint8)),
        ["validation_inputs is 'torch.uint8 of shape (360, 64)'"],
    ),
    "complex": (
        lambda d: replace(d, train_inputs=d.train_inputs.to(torch.complex64)),
        ["train_inputs is 'torch.complex64"],
    ),
    "one-hot": (
        lambda d: replace(d, train_labels=one_hot(d.train_labels)),
        ["train_labels is 'torch.int64 of shape (1437, 10)'", "shape (1437,)"],
    ),
    "int32 labels": (
        lambda d: replace(d, validation_labels=d.validation_labels.int()),
        ["validation_labels is 'torch.int32 of shape (360,)'", "torch.int64"],
    ),
    "an array": (
        lambda d: replace(d, train_inputs=d.train_inputs.numpy()),
        ["train_inputs is 'ndarray'"],
    ),
    "crops of vectors": (
        lambda d: replace(d, augment=FlipCrop()),
        ["train_inputs is 'torch.float32 of shape (1437, 64)'"],
    ),
    "no validation label counts": (
        lambda d: replace(d, validation_labels=torch.full_like(d.validation_labels, -1)),
        ["validation_labels is", "(360,), all of them -1"],
    ),
}
OTHERS = {
    "channels": (Data(IMAGES, WORDS[:, 0], IMAGES, WORDS[:, 0]), simple_cnn(8, 3), "train_inputs"),
    "words of an lstm": (TEXT, lstm(10, units=4), "train_inputs"),
    "words of a transformer": (TEXT, transformer_lm(10, **SMALL), "train_inputs"),
    "negative words": (replace(TEXT, train_inputs=WORDS - 1), lstm(11, units=4), "train_inputs"),
    "late words": (
        replace(TEXT, validation_inputs=WORDS[:9] + (WORDS[:9] == 5) * 10),
        lstm(11, units=4),
        "validation_inputs",
    ),
    "one label": (replace(TEXT, train_labels=WORDS[:, 0]), lstm(11, units=4), "train_labels"),
    "short labels": (replace(TEXT, train_labels=WORDS[:, 1:]), lstm(11, units=4), "train_labels"),
    "pairs": (TEXT, transformer(11, 11, 4, **SMALL), "train_labels"),
    "vectors": (replace(TEXT, train_inputs=torch.zeros(40, 6)), lstm(11, units=4), "train_inputs"),
}


@pytest.mark.parametrize("name", BAD)
def test_parts_that_do_not_fit_are_named_with_their_shapes(data, name):
    change, messages = BAD[name]
    for call in both(change(data)):
        with pytest.raises(ValueError, match=re.escape(messages[0])) as error:
            call()
        assert all(message in str(error.value) for message in messages)


@pytest.mark.parametrize("name", OTHERS)
def test_images_and_text_that_do_not_fit_are_named_too(name):
    data, model, part = OTHERS[name]
    for call in both(data, model):
        with pytest.raises(ValueError, match=f"^{part} is 'torch.*shape"):
            call()


@pytest.mark.parametrize("function", [per_example_gradients, hessian_product, gradient_products])
def test_gradients_compare_examples_and_model(data, function):
    params = MODEL.init(generator(0, "init"))
    inputs, labels = data.train_inputs[:6], data.train_labels[:6]
    for bad, name in (
        ((inputs.view(6, 1, 8, 8), labels), "inputs"),
        ((inputs.numpy(), labels), "inputs"),
        ((inputs, labels + 10), "labels"),
        ((inputs, labels - 11), "labels"),
        ((inputs, one_hot(labels)), "labels"),
        ((inputs, labels.int()), "labels"),
        ((inputs, labels[:3]), "labels"),
    ):
        with pytest.raises(ValueError, match=f"^{name} is"):
            function(MODEL, params, *bad)


def plain_loss(data, seed, batch_size, steps, lr):
    """Return the validation loss after steps of SGD; a batch without labels changes nothing."""
    params = {n: p.requires_grad_() for n, p in MODEL.init(generator(seed, "init")).items()}
    stream, skipped = batches(seed, len(data.train_inputs), batch_size), 0
    for _ in range(steps):
        index = next(stream)
        labels = data.train_labels[index]
        if (labels < 0).all():
            skipped += 1
            continue
        outputs = MODEL.apply(params, data.train_inputs[index])
        loss = cross_entropy(outputs, labels, ignore_index=-1)
        with torch.no_grad():
            for p, g in zip(params.values(), torch.autograd.grad(loss, [*params.values()])):
                p -= lr * g
    assert skipped
    return cross_entropy(MODEL.apply(params, data.validation_inputs), data.validation_labels).item()


def test_a_batch_in_which_no_label_counts_is_no_step(data):
    labels = data.train_labels.clone()
    labels[::2] = -1
    half, trials = replace(data, train_labels=labels), grid([0, 1], lr=0.1)
    for batch_size in (1, 2):
        results = train(half, MODEL, sgd, trials, batch_size=batch_size, max_steps=50)
        plain = [plain_loss(half, seed, batch_size, 50, 0.1) for seed in (0, 1)]
        np.testing.assert_allclose(results.loss[:, -1], plain, rtol=1e-4)
        assert not results.diverged.any()
    none = replace(data, train_labels=torch.full_like(labels, -1))
    for smoothing in (0.0, 0.3):
        results = train(
            none, MODEL, sgd, trials, batch_size=3, max_steps=5, label_smoothing=smoothing
        )
        assert (results.loss == results.loss[:, :1]).all()
    measured = measure_noise(half, MODEL, sgd, trials, batch_size=2, max_steps=50)
    assert np.isfinite(measured.small_norm).all() and (measured.small_norm == 0).any()


def test_gradients_are_zero_where_no_label_counts(data):
    params = {name: p.double() for name, p in MODEL.init(generator(0, "init")).items()}
    inputs, labels = data.train_inputs[:6], data.train_labels[:6].clone()
    labels[[1, 4]] = -1
    each = per_example_gradients(MODEL, params, inputs, labels)
    assert not each[[1, 4]].any() and each[[0, 2, 3, 5]].any(dim=1).all()
    norms, dots = gradient_products(MODEL, params, inputs, labels, chunk=2)
    np.testing.assert_allclose(norms, each.square().sum(1))
    np.testing.assert_allclose(dots, each @ each.mean(0))
    product, dim = hessian_product(MODEL, params, inputs, torch.full_like(labels, -1))
    assert not product(np.ones(dim)).any()


def test_the_training_loss_needs_a_label_that_counts(data):
    labels = data.train_labels.clone()
    labels[:360] = -1
    with pytest.raises(ValueError, match=r"train_labels\[:360\] is .*all of them -1"):
        train(
            replace(data, train_labels=labels), MODEL, sgd, grid(0, lr=0.1),
            batch_size=8, max_steps=2, measures=["training"],
        )  # fmt: skip


def test_an_evaluation_may_begin_with_labels_that_do_not_count(data):
    """The first part of a sum that may stop early holds none that counts."""
    labels = data.validation_labels.clone()
    labels[:100] = -1
    late = replace(data, validation_labels=labels)
    task = {"batch_size": 32, "max_steps": 60, "target": 0.6}
    exact, early = (
        train(late, MODEL, sgd, grid([0, 1], lr=0.1), **task, exact=exact)
        for exact in (True, False)
    )
    assert np.isfinite(exact.steps_to_target).all()
    np.testing.assert_array_equal(early.steps_to_target, exact.steps_to_target)
    assert not early.diverged.any()
