"""Layers of torch.nn that record: against gradients of single examples, and the book's layers."""

import numpy as np
import pytest
import tiny
import torch
from torch import nn
from torch.func import grad, vmap

from batchscaling.training import from_module, grid, kfac, train
from batchscaling.training.models import Model, layers
from batchscaling.training.models.taps import Kronecker, Tapped, as_matrix, layer_moments

ROWS, EXAMPLES, WORDS = 2, 6, 7


def normal(*shape, seed=0):
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=rng, dtype=torch.float64)


def images():
    return nn.Sequential(
        nn.Conv2d(2, 4, (3, 2), stride=(2, 1), padding=(1, 0), dilation=(1, 2)),
        nn.GroupNorm(2, 4),
        nn.Tanh(),
        nn.Conv2d(4, 3, (3, 1), padding="same", dilation=2, bias=False),
        nn.Tanh(),
        nn.Conv2d(3, 2, 2, padding="valid"),
        nn.Flatten(),
        nn.Linear(2 * 3 * 5, 5),
        nn.RMSNorm(5),
        nn.Linear(5, 5),
        nn.Linear(5, 3, bias=False),
    )


class Text(nn.Module):
    """The last layer is tied to the embedding; `first` says which of the two stands first."""

    def __init__(self, first):
        super().__init__()
        if first == "last":
            self.last = nn.Linear(4, WORDS)
        self.embedding = nn.Embedding(WORDS, 4)
        self.norm, self.inner = nn.LayerNorm(4), nn.Linear(4, 4)
        if first == "embedding":
            self.last = nn.Linear(4, WORDS, bias=False)
            self.last.weight = self.embedding.weight
        else:
            self.embedding.weight = self.last.weight

    def forward(self, words):
        return self.last(torch.tanh(self.inner(input=self.norm(self.embedding(words)))))


SENTENCES = torch.randint(WORDS, (ROWS, EXAMPLES, 5), generator=torch.Generator().manual_seed(0))
NETWORKS = {
    "images": (images, normal(ROWS, EXAMPLES, 2, 8, 8)),
    "embedding first": (lambda: Text("embedding"), SENTENCES),
    "last layer first": (lambda: Text("last"), SENTENCES),
}


def built(name):
    """Return the model, parameters of some rows in double precision, and inputs."""
    build, inputs = NETWORKS[name]
    model = from_module(build)
    params = [model.init(torch.Generator().manual_seed(row)) for row in range(ROWS)]
    params = {key: torch.stack([p[key] for p in params]).double() for key in params[0]}
    return model, {key: p + 0.1 * normal(*p.shape) for key, p in params.items()}, inputs


def each_gradient(model, params, inputs, slopes):
    def loss(params, example, slope):
        return (model.apply(params, example[None])[0] * slope).sum()

    return vmap(vmap(grad(loss), in_dims=(None, 0, 0)))(params, inputs, slopes)


@pytest.mark.parametrize("name", NETWORKS)
def test_all_parameters_belong_to_layers_and_taps_change_nothing(name):
    model, params, inputs = built(name)
    shape = vmap(model.apply)(params, inputs).shape
    moments = layer_moments(model, params, inputs, lambda o: [normal(*shape)], verify=True)
    found = set()
    for key, value in moments.items():
        found |= {f"{key}.weight", f"{key}.bias"} if isinstance(value, Kronecker) else {key}
    assert found >= params.keys()
    single = {key: p[0] for key, p in params.items()}
    tapped = Tapped(single)
    assert torch.equal(model.apply(tapped, inputs[0]), model.apply(single, inputs[0]))
    assert len(tapped.uses) == len(tapped.inputs) > 3


@pytest.mark.parametrize("name", NETWORKS)
def test_scales_have_the_squares_of_gradients_of_single_examples(name):
    model, params, inputs = built(name)
    slopes = normal(*vmap(model.apply)(params, inputs).shape, seed=1)
    moments = layer_moments(model, params, inputs, lambda o: [slopes])
    each = each_gradient(model, params, inputs, slopes)
    scales = [key for key, found in moments.items() if not isinstance(found, Kronecker)]
    assert len(scales) == (3 if name == "images" else 2)
    for key in scales:
        torch.testing.assert_close(moments[key].squares, each[key].square().sum(1))


@pytest.mark.parametrize("name", NETWORKS)
def test_a_layer_that_an_example_uses_once_has_the_moment_of_gradients_of_examples(name):
    """With one position and one example, the Kronecker product is the square of its gradient."""
    model, params, inputs = built(name)
    inputs = inputs[:, :1] if name == "images" else inputs[:, :1, :1]
    slopes = normal(*vmap(model.apply)(params, inputs).shape, seed=1)
    moments = layer_moments(model, params, inputs, lambda o: [slopes], verify=True)
    each = each_gradient(model, params, inputs, slopes)
    names = ("7", "9", "10") if name == "images" else ("inner",)
    for row in range(ROWS):
        for key in names:
            factors = Kronecker(*(side[row] for side in moments[key]))
            ends = [end for end in ("weight", "bias") if f"{key}.{end}" in each]
            matrix = as_matrix(factors, *(each[f"{key}.{end}"][row, 0] for end in ends))
            expected = torch.outer(matrix.flatten(), matrix.flatten())
            torch.testing.assert_close(torch.kron(*factors), expected)


@pytest.mark.parametrize("first", ["embedding", "last"])
def test_a_tied_layer_is_the_transposed_embedding_of_the_book(first):
    model, params, inputs = built("embedding first" if first == "embedding" else "last layer first")
    tied = "embedding" if first == "embedding" else "last"

    def apply(params, words):
        hidden = layers.embed(params, tied, words)
        own = {"norm.scale": params["norm.weight"], "norm.shift": params["norm.bias"]}
        hidden = layers.layer_norm(own, "norm", hidden)
        inner = {"inner.weight": params["inner.weight"].mT, "inner.bias": params["inner.bias"]}
        return layers.unembed(params, tied, torch.tanh(layers.dense(inner, "inner", hidden)))

    slopes = normal(*vmap(model.apply)(params, inputs).shape, seed=1)
    ours = layer_moments(model, params, inputs, lambda o: [slopes])[tied]
    book = layer_moments(Model(lambda rng: params, apply), params, inputs, lambda o: [slopes])
    for side, expected in zip(ours, book[tied], strict=True):
        torch.testing.assert_close(side, expected)


def plain():
    return nn.Sequential(nn.Linear(tiny.FEATURES, 4), nn.Tanh(), nn.Linear(4, tiny.CLASSES))


def test_padding_has_no_part():
    def build():
        return nn.Sequential(nn.Embedding(WORDS, 4, padding_idx=2), nn.Tanh(), nn.Linear(4, 3))

    model = from_module(build)
    params = {n: p[None].double() for n, p in model.init(torch.Generator().manual_seed(0)).items()}
    words = SENTENCES[:1]
    slopes = normal(*vmap(model.apply)(params, words).shape, seed=1)
    found = layer_moments(model, params, words, lambda o: [slopes], verify=True)["0"]
    counts = torch.bincount(words.flatten(), minlength=WORDS)
    assert counts[2] > 0
    counts[2] = 0
    torch.testing.assert_close(found.inputs[0], counts.double())


def test_kfac_trains_it_as_the_same_network_of_the_book():
    own = from_module(plain)

    def apply(params, inputs):
        return layers.dense(params, "2", torch.tanh(layers.dense(params, "0", inputs)))

    def init(rng):
        return {n: p.mT.contiguous() if p.ndim == 2 else p for n, p in own.init(rng).items()}

    hyper = {"momentum": 0.5, "damping": [1e-3, 0.1], "kl_clip": 0.1, "factor_decay": 0.9}
    trials = grid([0, 1], lr=0.1, **hyper)
    results = [
        train(tiny.load(), model, kfac, trials, batch_size=8, max_steps=12)
        for model in (own, Model(init, apply))
    ]
    losses = [result.losses["validation"] for result in results]
    np.testing.assert_allclose(*losses, rtol=1e-3)
    assert (losses[0][:, -1] < losses[0][:, 0]).all()


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.heads = nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, sequence):
        return self.heads(sequence, sequence, sequence, need_weights=False)[0]


class Skewed(nn.Linear):
    def forward(self, inputs):
        return super().forward(2 * inputs)


class Scaled(nn.Linear):
    """It takes more than one input."""

    def forward(self, inputs, scale):
        return super().forward(inputs) * scale


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.dense = Scaled(3, 3)

    def forward(self, inputs):
        return self.dense(inputs, 2.0)


class AtTheTop(nn.Module):
    """The weights of its layer have the name of a parameter of the module itself."""

    def __init__(self):
        super().__init__()
        self.matrix = nn.Parameter(torch.randn(3, 3))
        self.dense = nn.Linear(3, 3)
        self.dense.weight = self.matrix

    def forward(self, inputs):
        return self.dense(inputs)


class Shared(nn.Module):
    """Its weights have a second use, outside of any layer."""

    def __init__(self):
        super().__init__()
        self.dense = nn.Linear(3, 3)

    def forward(self, inputs):
        return self.dense(inputs) @ self.dense.weight


REFUSED = {
    "itself a layer": (lambda: nn.Linear(3, 2), (3,), '"weight" belongs to no layer'),
    "groups": (lambda: nn.Sequential(nn.Conv2d(2, 2, 1, groups=2)), (2, 1, 1), '"0.weight" bel'),
    "circular": (
        lambda: nn.Sequential(nn.Conv2d(1, 1, 3, padding=1, padding_mode="circular")),
        (1, 2, 2),
        '"0.weight" belongs',
    ),
    "uneven": (lambda: nn.Sequential(nn.Conv2d(1, 1, 2, padding="same")), (1, 2, 2), '"0.weight"'),
    "one axis": (lambda: nn.Sequential(nn.Conv1d(2, 2, 1)), (2, 1), '"0.weight" belongs'),
    "two axes": (lambda: nn.Sequential(nn.LayerNorm((2, 3))), (2, 3), '"0.weight" belongs'),
    "attention": (Attention, (5, 4), '"heads.in_proj_weight" belongs to no layer'),
    "another forward": (lambda: nn.Sequential(Skewed(3, 3)), (3,), '"0.weight" outside of its'),
    "two inputs": (Twice, (3,), '"dense.weight" belongs to no layer'),
    "at the top": (AtTheTop, (3,), '"matrix" belongs to no layer'),
    "used elsewhere": (Shared, (3,), '"dense.weight" outside of its layer'),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_no_layer_explains_is_named_and_no_hook_is_left(name):
    build, shape, words = REFUSED[name]
    made = []
    model = from_module(lambda: made.append(build()) or made[-1])
    params = {n: p[None] for n, p in model.init(torch.Generator().manual_seed(0)).items()}
    inputs = normal(1, 4, *shape).float()

    def slopes(outputs):
        return [normal(*outputs.shape, seed=2).float()]

    with pytest.raises(ValueError, match=f"^model is .*{words}.*; allowed: .*torch.nn"):
        layer_moments(model, params, inputs, slopes, verify=True)
    assert not any(layer._forward_hooks for module in made for layer in module.modules())
