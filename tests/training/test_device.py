"""A step and an evaluation make no tensor on another device than their own.

Torch's "meta" device stands for a GPU here: operations that mix it with the CPU fail on both.
"""

from dataclasses import replace
from functools import partial

import pytest
import torch

from batchscaling.training import (
    Data,
    FlipCrop,
    adam,
    adam_without_momentum,
    chain,
    decoupled_weight_decay,
    grid,
    heavy_ball,
    lars,
    linear_decay,
    lstm,
    mlp,
    nesterov,
    resnet,
    resnet8,
    sgd,
    simple_cnn,
    train,
    transformer,
    transformer_lm,
    vgg11,
    weight_decay,
    weights_only,
    wide_resnet,
)

EXAMPLES, LENGTH, WORDS = 12, 6, 11
SMALL = {"width": 8, "heads": 2, "units": 8, "layers": 1}


def examples(inputs, labels):
    """Return data of zeros; labels are of one class or, for words, one at each position."""
    kind = torch.int64 if labels else torch.float32
    inputs = torch.zeros(EXAMPLES, *inputs, dtype=kind)
    labels = torch.zeros(EXAMPLES, *labels, dtype=torch.int64)
    return Data(inputs[:8], labels[:8], inputs[8:], labels[8:])


IMAGES, SENTENCES = examples((3, 32, 32), ()), examples((LENGTH,), (LENGTH,))
PAIRS = examples((2 * LENGTH - 1,), (LENGTH - 1,))

NETWORKS = {
    "mlp": (mlp([5, 4, 3]), examples((5,), ())),
    "simple_cnn": (simple_cnn(32, 3, filters=(2, 2), units=4), IMAGES),
    "resnet8": (resnet8(width=2), IMAGES),
    "ghost batches": (resnet(8, width=2, ghost_size=4, weight_norm=True), IMAGES),
    "vgg11": (vgg11(width=2, ghost_size=4), IMAGES),
    "wide_resnet": (wide_resnet(10, 1, ghost_size=4), IMAGES),
    "lstm": (lstm(WORDS, units=4), SENTENCES),
    "transformer_lm": (transformer_lm(WORDS, **SMALL), SENTENCES),
    "transformer": (transformer(WORDS, WORDS, LENGTH, **SMALL), PAIRS),
}
OPTIMIZERS = {
    "sgd": sgd,
    "heavy_ball": heavy_ball,
    "nesterov": nesterov,
    "adam": chain(adam, decoupled_weight_decay),
    "adam_without_momentum": adam_without_momentum,
    "lars": lars,
    "l2": chain(weights_only(weight_decay), heavy_ball),
}


@pytest.fixture
def on_meta(monkeypatch):
    """Let results come back from a device that holds no numbers: ones in their place."""
    monkeypatch.setattr(torch.Tensor, "cpu", lambda t: torch.ones(t.shape, dtype=t.dtype))
    return partial(train, batch_size=6, device="meta", schedule=linear_decay, at_once=24)


def settings(optimizer):
    names = [*optimizer.hyper, "decay", "final_fraction"]
    return grid([0, 1], decay_steps=3, **dict.fromkeys(names, 0.5))


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("name", NETWORKS)
def test_networks_stay_on_their_device(on_meta, name, exact):
    model, data = NETWORKS[name]
    target = {"validation": 0.5, "training": 0.5, "averaged": 0.5}
    task = {"max_steps": 2, "target": target, "exact": exact, "label_smoothing": 0.1}
    results = on_meta(data, model, heavy_ball, settings(heavy_ball), **task)
    assert (results.loss == 1).all()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers_and_augmentation_stay_on_their_device(on_meta, name):
    model, data = NETWORKS["ghost batches"]
    data, optimizer = replace(data, augment=FlipCrop(2)), OPTIMIZERS[name]
    results = on_meta(data, model, optimizer, settings(optimizer), max_steps=2)
    assert (results.loss == 1).all()


def test_a_tensor_on_another_device_is_noticed(on_meta):
    shift = torch.ones(3)
    model = mlp([5, 4, 3])
    strange = replace(model, apply=lambda params, inputs: model.apply(params, inputs) + shift)
    with pytest.raises(RuntimeError, match="device"):
        on_meta(NETWORKS["mlp"][1], strange, sgd, settings(sgd), max_steps=1)
