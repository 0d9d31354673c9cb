"""A user's nn.Module as a Model, against the ordinary loop of torch and torch.optim."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import tiny
import torch
from torch import nn
from torch.func import grad, vmap
from torch.nn import functional
from torch.nn.functional import cross_entropy, dropout

from batchscaling.training import (
    TASKS,
    Cell,
    Data,
    batches,
    chain,
    from_module,
    grid,
    heavy_ball,
    kfac,
    run_cell,
    sgd,
    synchronous,
    train,
    weight_decay,
)
from batchscaling.training.data import generator

STEPS, BATCH = 25, 16


def build():
    return nn.Sequential(nn.Linear(tiny.FEATURES, 8), nn.Tanh(), nn.Linear(8, tiny.CLASSES))


class Tied(nn.Module):
    """A language model of characters whose last layer is tied, with a frozen scale."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(7, 4)
        self.hidden = nn.Linear(4, 4)
        self.last = nn.Linear(4, 7)
        self.last.weight = self.embedding.weight
        self.scale = nn.Parameter(torch.full((4,), 2.0), requires_grad=False)

    def forward(self, words):
        return self.last(torch.tanh(self.hidden(self.embedding(words))) * self.scale)


class Twice(nn.Module):
    """A module that stands in two places, and a parameter with two names in one module."""

    def __init__(self):
        super().__init__()
        self.embedding, self.last = nn.Embedding(7, 4), nn.Linear(4, 7)
        self.inner = nn.Linear(4, 4)
        self.again = nn.Sequential(self.inner, nn.Tanh())
        self.shift = self.same = nn.Parameter(torch.full((4,), 0.5))

    def forward(self, words):
        hidden = torch.tanh(self.inner(self.embedding(words)) * self.shift)
        return self.last(self.again(hidden) * self.same)


class Shifted(nn.Module):
    """A network with buffers: a shift, places, and the statistics of a normalisation."""

    def __init__(self, shift=0.5):
        super().__init__()
        self.register_buffer("shift", torch.as_tensor(shift))
        self.register_buffer("order", torch.arange(tiny.FEATURES).flip(0), persistent=False)
        self.register_buffer("nothing", None)
        self.first, self.last = build()[0], nn.Linear(8, tiny.CLASSES)
        self.norm = nn.BatchNorm1d(8).eval()
        self.norm.running_mean.fill_(0.3)

    def forward(self, inputs):
        return self.last(torch.tanh(self.norm(self.first(inputs[..., self.order] + self.shift))))


def ordinary(build, data, seed, lr, momentum):
    """Return the validation losses of the ordinary loop, and the module."""
    before = torch.get_rng_state()
    torch.set_rng_state(generator(seed, "init").get_state())
    module = build()
    torch.set_rng_state(before)
    optimizer = torch.optim.SGD(module.parameters(), lr=lr, momentum=momentum)
    order, losses = batches(seed, len(data.train_inputs), BATCH), []

    def evaluate():
        with torch.no_grad():
            losses.append(cross_entropy(module(data.validation_inputs), data.validation_labels))

    evaluate()
    for _ in range(STEPS):
        index = next(order)
        optimizer.zero_grad()
        cross_entropy(module(data.train_inputs[index]), data.train_labels[index]).backward()
        optimizer.step()
        evaluate()
    return torch.stack(losses).numpy(), module


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("name", ["plain", "buffers", "spare", "attention", "precise"])
def test_rows_of_train_are_the_ordinary_loops(name, compiled):
    data, build = tiny.load(), NETWORKS[name]
    trials = grid(seeds=[0, 7], lr=[0.05, 0.2], momentum=[0.0, 0.6])
    results = train(
        data,
        from_module(build),
        heavy_ball,
        trials,
        batch_size=BATCH,
        max_steps=STEPS,
        evaluate_at=range(STEPS + 1),
        compiled=compiled,
    )
    for row, seed in enumerate(trials.seeds.tolist()):
        lr, momentum = trials.hyper["lr"][row], trials.hyper["momentum"][row]
        losses, _ = ordinary(build, data, seed, lr, momentum)
        np.testing.assert_allclose(
            results.losses["validation"][row], losses, rtol=1e-4 if name == "attention" else 2e-5
        )


class Padded(nn.Module):
    def __init__(self):
        super().__init__()
        self.words, self.last = nn.Embedding(7, 4, padding_idx=2), nn.Linear(4, 3)

    def forward(self, words):
        return self.last(torch.tanh(self.words(input=words).mean(1)))


def sentences():
    words = torch.randint(7, (96, 5), generator=torch.Generator().manual_seed(0))
    words[:, 3:] = 2
    labels = torch.randint(3, (96,), generator=torch.Generator().manual_seed(1))
    return Data(words[:64], labels[:64], words[64:], labels[64:])


@pytest.mark.parametrize("optimizer", [sgd, kfac])
def test_the_word_that_pads_is_trained_in_no_row(optimizer):
    data, model, ends = sentences(), from_module(Padded), {}
    numbers = {"momentum": 0.0, "damping": 0.1, "kl_clip": 0.01, "factor_decay": 0.9}
    hyper = {n: v for n, v in numbers.items() if optimizer is kfac} | {"lr": 1.0}
    for name, seeds, exchange in (
        ("alone", [1], None),
        ("second", [0, 1], None),
        ("workers", [1], synchronous(2) if optimizer is sgd else None),
    ):
        options = {"batch_size": 16, "max_steps": 20, "exchange": exchange}
        ends[name] = train(data, model, optimizer, grid(seeds, **hyper), **options).loss[-1, -1]
    assert ends["second"] == pytest.approx(ends["alone"], rel=1e-6)
    assert ends["workers"] == pytest.approx(ends["alone"], rel=1e-6)
    params = model.init(torch.Generator().manual_seed(0))
    rows = {name: torch.stack(3 * [p]) for name, p in params.items()}
    words, labels = data.train_inputs[:12].view(3, 4, 5), data.train_labels[:12].view(3, 4)
    grads = vmap(grad(lambda p, x, y: cross_entropy(model.apply(p, x), y)))(rows, words, labels)
    assert not grads["words.weight"][:, 2].any() and grads["words.weight"].any(2).any(1).all()


class Spare(nn.Module):
    """A network with a head that nobody uses."""

    def __init__(self):
        super().__init__()
        self.first, self.head = nn.Linear(tiny.FEATURES, tiny.CLASSES), nn.Linear(3, 2)

    def forward(self, inputs):
        return self.first(inputs)


class Attending(nn.Module):
    """Attention in the mode of evaluation, which torch computes in a way without derivatives."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(tiny.FEATURES, 8)
        self.layer = nn.TransformerEncoderLayer(4, 2, 6, batch_first=True).eval()
        self.last = nn.Linear(8, tiny.CLASSES)

    def forward(self, inputs):
        return self.last(self.layer(self.first(inputs).unflatten(1, (2, 4))).flatten(1))


class Precise(nn.Module):
    """A network with a buffer that single precision cannot hold, and one without numbers."""

    def __init__(self):
        super().__init__()
        self.last = nn.Linear(tiny.FEATURES, tiny.CLASSES)
        self.register_buffer("start", torch.tensor(2.0**24 + 1, dtype=torch.float64))
        self.register_buffer("nothing", torch.tensor(torch.nan))

    def forward(self, inputs):
        return self.last((inputs + (self.start - 2**24)).float())


def test_attention_is_as_fast_as_before_once_a_model_was_applied():
    torch.backends.mha.set_fastpath_enabled(True)
    model = from_module(Attending)
    model.apply(model.init(torch.Generator()), tiny.load().train_inputs)
    assert torch.backends.mha.get_fastpath_enabled()


def test_models_compute_in_inference_mode_and_in_threads():
    model, inputs = from_module(Shifted), tiny.load().train_inputs
    with torch.inference_mode():
        params = {name: p + 0 for name, p in model.init(torch.Generator()).items()}
        expected = model.apply(params, inputs)
    state = torch.get_rng_state()

    def alone(seed):
        params = model.init(torch.Generator().manual_seed(seed))
        return model.apply(params, inputs)

    with ThreadPoolExecutor(8) as pool:
        found = [*pool.map(alone, [0] * 40 + [1] * 40)]
    assert expected.shape == found[0].shape and torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(outputs, found[40 * (k >= 40)]) for k, outputs in enumerate(found))


@pytest.mark.parametrize(
    ("build", "optimizer"), [(build, "heavy_ball"), (build, "kfac"), (Shifted, "kfac")]
)
def test_a_sweep_takes_it_and_finds_steps(monkeypatch, build, optimizer):
    monkeypatch.setitem(TASKS, "tiny", replace(tiny.TINY, model=from_module(build)))
    small = {"trials": 4, "seeds": 1, "finalists": 2, "final_seeds": 2, "fresh": 3}
    record = run_cell(Cell("tiny", optimizer, 16, **small))
    assert np.isfinite(record["fresh"]["validation"]).all()


def test_initial_parameters_are_those_of_the_seed_alone():
    model = from_module(build)
    params = model.init(torch.Generator().manual_seed(3))
    torch.manual_seed(3)
    expected = build().state_dict()
    torch.manual_seed(8)
    state = torch.get_rng_state()
    torch.set_default_dtype(torch.float64)
    try:
        again = from_module(build).init(torch.Generator().manual_seed(3))
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(torch.get_rng_state(), state)
    assert params.keys() == again.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(params[name], value) and torch.equal(again[name], value)
        assert again[name].dtype == torch.float32 and not params[name].requires_grad
    rng = torch.Generator().manual_seed(3)
    one, two = model.init(rng), model.init(rng)
    assert not torch.equal(one["0.weight"], two["0.weight"])


@pytest.mark.parametrize(
    "build", [Tied, Twice, lambda: mixed().eval()], ids=["tied", "twice", "eval"]
)
def test_outputs_and_gradients_are_the_modules(build):
    made = []
    model, rows = from_module(lambda: made.append(build()) or made[-1]), []
    own = [list(module.parameters()) for module in made]
    words = torch.randint(7, (5, 3), generator=torch.Generator().manual_seed(0))
    for seed in range(2):
        torch.manual_seed(seed)
        module = build()
        rows.append(model.init(torch.Generator().manual_seed(seed)))
        assert torch.equal(model.apply(rows[-1], words), module(words))
        cross_entropy(module(words).flatten(0, 1), words.flatten()).backward()
        rows[-1] = rows[-1], module
    params = {name: torch.stack([p[name] for p, _ in rows]) for name in rows[0][0]}
    slopes = vmap(
        grad(lambda p: cross_entropy(model.apply(p, words).flatten(0, 1), words.flatten()))
    )
    grads = slopes(params)
    for row, (_, module) in enumerate(rows):
        expected = {name: p for name, p in module.named_parameters() if p.requires_grad}
        assert expected.keys() == grads.keys()
        for name, p in expected.items():
            torch.testing.assert_close(grads[name][row], p.grad)
    # What was put into the modules for a call is out of them again.
    for module, before in zip(made, own, strict=False):
        assert [id(p) for p in module.parameters()] == [id(p) for p in before]


def mixed():
    return nn.Sequential(nn.Embedding(7, 4), nn.Dropout(0.5), nn.LayerNorm(4), nn.Linear(4, 7))


def test_parameters_that_are_not_trained_stay_also_under_weight_decay():
    data, model = tiny.load(), from_module(half_frozen)
    decayed = chain(weight_decay, heavy_ball)
    hyper = {"lr": 0.1, "momentum": 0.0, "weight_decay": 0.5}
    options = {"batch_size": BATCH, "max_steps": 5}
    results = train(data, model, decayed, grid(seeds=[0], **hyper), **options)
    assert results.losses["validation"][0, -1] < results.losses["validation"][0, 0]
    assert model.init(torch.Generator().manual_seed(0)).keys() == {"1.weight", "1.bias"}
    params = {name: p.double() for name, p in model.init(torch.Generator()).items()}
    assert model.apply(params, data.train_inputs.double()).dtype == torch.float64


def half_frozen():
    first = nn.Linear(tiny.FEATURES, 4)
    nn.init.eye_(first.weight).requires_grad_(False)
    nn.init.zeros_(first.bias).requires_grad_(False)
    return nn.Sequential(first, nn.Linear(4, tiny.CLASSES))


def random_frozen():
    module = build()
    module[0].weight.requires_grad_(False)
    return module


def of_numpy():
    module = nn.Linear(2, 2)
    module.weight.data.fill_(np.random.default_rng().random())
    return module


def shared_memory():
    module = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    module[1].weight.data = module[0].weight.data
    return module


def frozen_whole():
    return nn.Linear(2, 2).requires_grad_(False)


LSTM = nn.LSTM(tiny.CLASSES, 2)


def counting(module, outputs):
    module.count += 1
    return outputs


def counting_in_data(module, outputs):
    module.count.data.add_(1)
    return outputs


def remembering(module, outputs):
    module.count = 0.9 * module.count + outputs.mean().detach()
    return outputs


ONE = build()
NETWORKS = {
    "plain": build,
    "buffers": Shifted,
    "spare": Spare,
    "attention": Attending,
    "precise": Precise,
}
BAD = {
    "no function": (3, "build is 3"),
    "a module": (ONE, "allowed: a function without arguments that returns a new module"),
    "a class with arguments": (nn.Linear, "allowed: a function without arguments"),
    "arguments": (lambda width: nn.Linear(width, 2), "such as lambda: nn.Linear(3, 2)"),
    "no module": (lambda: 3, "build is 'of a int'"),
    "one module": (lambda: ONE, "build is 'of one module again"),
    "batch norm": (lambda: nn.Sequential(nn.BatchNorm1d(3)), "statistics of a batch, '0'"),
    "batch norm without statistics of its own": (
        lambda: nn.Sequential(nn.BatchNorm1d(3, track_running_stats=False)).eval(),
        "statistics of a batch, '0'",
    ),
    "running statistics": (
        lambda: nn.Sequential(nn.InstanceNorm1d(3, affine=True, track_running_stats=True)),
        "statistics of a batch, '0'",
    ),
    "random buffers": (lambda: Shifted(torch.randn(tiny.FEATURES)), "not trained: shift"),
    "dropout": (lambda: nn.Sequential(nn.Linear(2, 2), nn.Dropout()), "random layer, '1'"),
    "rrelu": (lambda: nn.Sequential(nn.Linear(2, 2), nn.RReLU()), "random layer, '1'"),
    "sparse": (lambda: nn.Sequential(nn.Embedding(7, 2, sparse=True)), "sparse gradients, of '0'"),
    "shared memory": (shared_memory, "'0.weight' and '1.weight' share their memory"),
    "double": (lambda: nn.Linear(2, 2).double(), "'weight' torch.float64"),
    "lazy": (lambda: nn.LazyLinear(2), "'weight' without a shape yet"),
    "nothing to train": (frozen_whole, "without parameters to train"),
    "random and frozen": (random_frozen, "not trained: 0.weight"),
    "numbers of numpy": (of_numpy, "differ for equal seeds"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_a_model_is_refused_in_words(case):
    build, message = BAD[case]
    with pytest.raises(ValueError, match=r"^build is .*; allowed: ") as caught:
        from_module(build)
    assert message in str(caught.value)


class PaddedByHand(nn.Module):
    def __init__(self, padding):
        super().__init__()
        self.padding = padding
        self.table, self.last = nn.Parameter(torch.randn(7, 4)), nn.Linear(4, 3)
        self.words = nn.Embedding(7, 4, padding_idx=2)

    def forward(self, words):
        sums = self.words(words) + functional.embedding(words, self.table, **self.padding)
        return self.last(torch.tanh(sums.mean(1)))


def test_a_word_that_pads_by_hand_is_refused():
    data = sentences()
    how = {"batch_size": 16, "max_steps": 3}
    train(data, from_module(partial(PaddedByHand, {})), sgd, grid([0, 1], lr=0.1), **how)
    for padding in ({"padding_idx": 2}, {"padding_idx": 0}):
        model = from_module(partial(PaddedByHand, padding))
        with pytest.raises(ValueError, match=r"^build is .*padding_idx.*; allowed: torch\.nn\.Emb"):
            train(data, model, sgd, grid([0, 1], lr=0.1), **how)


class Forward(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.dense, self.function = nn.Linear(tiny.FEATURES, tiny.CLASSES), function
        self.register_buffer("count", torch.zeros(()))

    def forward(self, inputs):
        return self.function(self, self.dense(inputs))


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda module, x: (x, x), "returns a tuple"),
        (lambda module, x: dropout(x), "forward draws random numbers"),
        (counting, "forward changes its buffer 'count'"),
        (remembering, "forward changes its buffer 'count'"),
        (counting_in_data, "forward changes its buffer 'count'"),
        (lambda module, x: LSTM(x[None])[0][0][..., :1].expand_as(x), "vmap cannot take"),
    ],
)
def test_what_only_forward_shows_is_refused_before_training(function, message):
    model = from_module(lambda: Forward(function))
    trials = grid(seeds=[0], lr=0.1, momentum=0.5)
    with pytest.raises(ValueError, match=f"^build is .*{message}.*; allowed: "):
        train(tiny.load(), model, heavy_ball, trials, batch_size=4, max_steps=1)
