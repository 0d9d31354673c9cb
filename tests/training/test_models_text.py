"""LSTM and Transformers against ordinary modules of torch.nn."""

from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, vmap

from batchscaling.training.data import generator
from batchscaling.training.models import lstm, transformer, transformer_lm

WORDS, SOURCES, LENGTH, WIDTH, HEADS = 11, 9, 6, 8, 2


def draw(model, seed=0):
    return model.init(torch.Generator().manual_seed(seed))


def positions(length, width):
    """Return the position encodings, number by number."""
    encoding = torch.zeros(length, width, dtype=torch.float64)
    for position in range(length):
        for i in range(width // 2):
            angle = torch.tensor(position / 10_000 ** (2 * i / width), dtype=torch.float64)
            encoding[position, 2 * i], encoding[position, 2 * i + 1] = angle.sin(), angle.cos()
    return encoding.float()


class Lstm(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(WORDS, WIDTH)
        self.layers = nn.LSTM(WIDTH, WIDTH, 2, batch_first=True)
        self.bias = nn.Parameter(torch.zeros(WORDS))

    def forward(self, words):
        return self.layers(self.embedding(words))[0] @ self.embedding.weight.T + self.bias


class LanguageModel(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(WORDS, WIDTH)
        settings = {"dropout": 0.0, "batch_first": True}
        for i in range(2):
            setattr(self, f"layer{i}", nn.TransformerEncoderLayer(WIDTH, HEADS, 16, **settings))

    def forward(self, words):
        length = words.shape[1]
        mask = nn.Transformer.generate_square_subsequent_mask(length)
        x = self.embedding(words) * WIDTH**0.5 + positions(length, WIDTH)
        for layer in (self.layer0, self.layer1):
            x = layer(x, src_mask=mask)
        return x @ self.embedding.weight.T


class Translator(nn.Module):
    def __init__(self):
        super().__init__()
        self.source, self.target = nn.Embedding(SOURCES, WIDTH), nn.Embedding(WORDS, WIDTH)
        settings = {"dropout": 0.0, "batch_first": True}
        for i in range(2):
            setattr(self, f"encoder{i}", nn.TransformerEncoderLayer(WIDTH, HEADS, 16, **settings))
            setattr(self, f"decoder{i}", nn.TransformerDecoderLayer(WIDTH, HEADS, 16, **settings))

    def forward(self, words):
        source, target = words.split([LENGTH, words.shape[1] - LENGTH], dim=1)
        empty = source == 0
        x = self.source(source) * WIDTH**0.5 + positions(LENGTH, WIDTH)
        for layer in (self.encoder0, self.encoder1):
            x = layer(x, src_key_padding_mask=empty)
        length = target.shape[1]
        mask = nn.Transformer.generate_square_subsequent_mask(length)
        y = self.target(target) * WIDTH**0.5 + positions(length, WIDTH)
        for layer in (self.decoder0, self.decoder1):
            y = layer(y, x, tgt_mask=mask, memory_key_padding_mask=empty)
        return y @ self.target.weight.T


def lstm_state(params):
    state = {"embedding.weight": params["embedding.weight"], "bias": params["embedding.bias"]}
    for i in range(2):
        inputs, states = f"layer{i}.inputs", f"layer{i}.states"
        state[f"layers.weight_ih_l{i}"] = params[f"{inputs}.weight"].mT
        state[f"layers.weight_hh_l{i}"] = params[f"{states}.weight"].mT
        state[f"layers.bias_ih_l{i}"] = params[f"{inputs}.bias"]
        state[f"layers.bias_hh_l{i}"] = torch.zeros_like(params[f"{inputs}.bias"])
    return state


def transformer_state(params):
    embeddings = ("embedding", "source", "target")
    names = [f"{name}.weight" for name in embeddings]
    state = {name: params[name] for name in names if name in params}
    for layer in {name.partition(".")[0] for name in params} - set(embeddings):
        blocks = [("self", "self_attn"), ("cross", "multihead_attn")]
        if f"{layer}.cross.query.weight" not in params:
            blocks.pop()
        for i, (ours, theirs) in enumerate([*blocks, ("dense", None)], start=1):
            part, to = f"{layer}.{ours}", f"{layer}.{theirs}"
            state[f"{layer}.norm{i}.weight"] = params[f"{part}.scale"]
            state[f"{layer}.norm{i}.bias"] = params[f"{part}.shift"]
            if theirs is None:
                for number, end in (("1", "in"), ("2", "out")):
                    state[f"{layer}.linear{number}.weight"] = params[f"{part}.{end}.weight"].mT
                    state[f"{layer}.linear{number}.bias"] = params[f"{part}.{end}.bias"]
                continue
            entries = [f"{part}.{end}" for end in ("query", "key", "value")]
            state[f"{to}.in_proj_weight"] = torch.cat([params[f"{e}.weight"].mT for e in entries])
            state[f"{to}.in_proj_bias"] = torch.cat([params[f"{e}.bias"] for e in entries])
            state[f"{to}.out_proj.weight"] = params[f"{part}.output.weight"].mT
            state[f"{to}.out_proj.bias"] = params[f"{part}.output.bias"]
    return state


SMALL = {"width": WIDTH, "heads": HEADS, "units": 16}
NETWORKS = {
    "lstm": (lstm(WORDS, units=WIDTH), Lstm(), lstm_state),
    "language model": (transformer_lm(WORDS, **SMALL), LanguageModel(), transformer_state),
    "translator": (transformer(SOURCES, WORDS, LENGTH, **SMALL), Translator(), transformer_state),
}


def words(rows, batch, seed=0):
    """Return sources with padding at their ends, and whole targets of another length."""
    rng = torch.Generator().manual_seed(seed)
    source = torch.randint(1, SOURCES, (rows, batch, LENGTH), generator=rng)
    length = torch.randint(1, LENGTH + 1, (rows, batch, 1), generator=rng)
    target = torch.randint(WORDS, (rows, batch, LENGTH - 1), generator=rng)
    return torch.cat([source * (torch.arange(LENGTH) < length), target], dim=2)


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_are_the_ordinary_ones(name):
    model, network, as_state = NETWORKS[name]
    rng = torch.Generator().manual_seed(0)
    params = [draw(model, row) for row in range(3)]
    params = {name: torch.stack([p[name] for p in params]) for name in params[0]}
    params = {name: p + 0.1 * torch.randn(p.shape, generator=rng) for name, p in params.items()}
    inputs = words(3, 5)
    target = torch.randn(3, *model.apply(draw(model), inputs[0]).shape, generator=rng)

    def ours(params, inputs, target):
        outputs = model.apply(params, inputs)
        return (outputs * target).sum(), outputs

    grads, outputs = vmap(grad(ours, has_aux=True))(params, inputs, target)
    assert outputs.shape[-1] == WORDS
    for row in range(3):
        one = {name: p[row].clone().requires_grad_() for name, p in params.items()}
        theirs = functional_call(network, as_state(one), (inputs[row],))
        close = {"rtol": 1e-4, "atol": 1e-4}
        torch.testing.assert_close(model.apply(one, inputs[row]), theirs, **close)
        torch.testing.assert_close(outputs[row], theirs.detach(), **close)
        expected = torch.autograd.grad((theirs * target[row]).sum(), list(one.values()))
        for name, value in zip(one, expected, strict=True):
            torch.testing.assert_close(grads[name][row], value, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", NETWORKS)
def test_no_word_sees_a_later_one(name):
    model = NETWORKS[name][0]
    params, inputs = draw(model), words(1, 4)[0]
    changed = inputs.clone()
    changed[:, -2] = (changed[:, -2] + 1) % WORDS
    before, after = model.apply(params, inputs), model.apply(params, changed)
    assert torch.equal(before[:, :-2], after[:, :-2])
    assert not torch.isclose(before[:, -2:], after[:, -2:]).all(dim=-1).any()


def test_padding_of_a_source_changes_nothing():
    model = NETWORKS["translator"][0]
    longer = transformer(SOURCES, WORDS, LENGTH + 3, **SMALL)
    params, inputs = draw(model), words(1, 4)[0]
    source, target = inputs[:, :LENGTH], inputs[:, LENGTH:]
    padded = torch.cat([source, torch.zeros(4, 3, dtype=torch.int64), target], dim=1)
    torch.testing.assert_close(longer.apply(params, padded), model.apply(params, inputs))
    empty = torch.cat([torch.zeros_like(source), target], dim=1)
    assert model.apply(params, empty).isfinite().all()


def test_base_transformer_has_the_published_number_of_parameters():
    """Vaswani et al., table 3: 65 million, with one vocabulary of 37,000 for both languages."""
    with torch.device("meta"):
        params = transformer(37_000, 37_000, 10, width=512, heads=8, units=2048, layers=6).init(
            None
        )
        small = transformer_lm(32_000).init(None)
    shared = sum(p.numel() for name, p in params.items() if name != "source.weight")
    assert shared == pytest.approx(65e6, rel=0.05)
    layer = 4 * (512 * 512 + 512) + 2 * 512 * 2048 + 2048 + 512 + 4 * 512
    assert sum(p.numel() for p in small.values()) == 32_000 * 512 + 2 * layer


def test_lstm_has_the_parameters_of_torchs_with_one_bias():
    params = draw(lstm(100, units=12, layers=3))
    ordinary = nn.LSTM(12, 12, 3)
    count = sum(p.numel() for name, p in ordinary.named_parameters() if "bias_hh" not in name)
    assert sum(p.numel() for p in params.values()) == count + 100 * 12 + 100


def test_initial_weights_are_the_stated_ones():
    params = draw(lstm(500, units=64))
    assert 0.099 < params["embedding.weight"].abs().max() <= 0.1
    assert 0.124 < params["layer1.states.weight"].abs().max() <= 0.125
    params = draw(transformer_lm(500, width=64, units=192))
    assert abs(params["embedding.weight"].var() * 64 - 1) < 0.03
    assert abs(params["layer0.self.query.weight"].var() * 64 - 1) < 0.05
    assert abs(params["layer1.dense.in.weight"].var() * 128 - 1) < 0.05
    again = draw(transformer_lm(500, width=64, units=192))
    assert all(torch.equal(params[name], again[name]) for name in params)


BAD = [
    (lambda: lstm(0), "vocabulary is 0"),
    (lambda: lstm(5, units=0), "units is 0"),
    (lambda: lstm(5, layers=1.0), "layers is 1.0"),
    (lambda: transformer_lm(-1), "vocabulary is -1"),
    (lambda: transformer_lm(5, width=30, heads=4), "width is 30"),
    (lambda: transformer_lm(5, width=15, heads=3), "width is 15"),
    (lambda: transformer_lm(5, heads=0), "heads is 0"),
    (lambda: transformer_lm(5, units=0), "units is 0"),
    (lambda: transformer_lm(5, layers=0), "layers is 0"),
    (lambda: transformer(0, 5, 4), "source_vocabulary is 0"),
    (lambda: transformer(5, 0, 4), "target_vocabulary is 0"),
    (lambda: transformer(5, 5, 0), "source_length is 0"),
    (lambda: transformer(5, 5, 4, padding=5), "padding is 5"),
]


@pytest.mark.parametrize(("call", "message"), BAD)
def test_bad_input_names_parameter_value_and_what_is_allowed(call, message):
    with pytest.raises(ValueError, match=f"^{message}.*allowed: "):
        call()


@pytest.mark.parametrize("width", [np.int8(64), np.uint8(128), torch.tensor(64)])
def test_sizes_may_be_integers_of_any_width(width):
    sizes = {"heads": np.int8(2), "units": np.int8(16), "layers": 1}
    plain = {"width": int(width), "heads": 2, "units": 16, "layers": 1}
    for build in (partial(transformer_lm, 65), partial(transformer, 20, 30, source_length=7)):
        found, expected = (
            build(**given).init(generator(0, "init"))
            for given in ({"width": width, **sizes}, plain)
        )
        for name, tensor in expected.items():
            assert tensor.isfinite().all() and torch.equal(found[name], tensor)
