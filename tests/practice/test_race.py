"""Races: against plain loops of torch, the book's K-FAC, and problems that one can tell."""

import copy
import json
import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_branch import Noisy, awkward, equal, everything
from torch import nn
from torch.func import grad
from torch.nn.functional import cross_entropy

from batchscaling.curves import load_results
from batchscaling.practice import Race, race
from batchscaling.practice.contenders import entered
from batchscaling.practice.contest import steps_saved
from batchscaling.practice.kfac import KFac
from batchscaling.practice.race import _best
from batchscaling.training import TASKS, batches, from_module, kfac
from batchscaling.training.data.order import generator
from batchscaling.training.models.taps import Kronecker, layer_moments
from tools import measure_race

STEPS = np.array([0, 1, 2, 4, 8, 16, 32, 64])
QUICK = {"steps": 12, "repeats": 3, "evaluated": 64}


def falling(rate, repeats=3, noise=0.0, seed=0):
    """Return losses that fall as fast as the rate says, of several repetitions."""
    rng = np.random.default_rng(seed)
    rates = rate * np.exp(noise * rng.standard_normal((repeats, 1)))
    return 2 * np.exp(-rates * STEPS)


def test_twice_as_fast_is_half_the_steps():
    many = np.arange(513) / 8
    for times in (1.0, 1.5, 2.0, 4.0):
        curves = [np.tile(np.exp(-0.1 * k * many), (3, 1)) for k in (times, 1)]
        saved, low, high = steps_saved(many, *curves)
        assert low == saved == high == pytest.approx(times, rel=1e-3)


rows = st.lists(st.floats(0.01, 10), min_size=len(STEPS), max_size=len(STEPS))
some = st.lists(rows, min_size=3, max_size=3)


@given(some, some, st.floats(0.1, 10), st.floats(-5, 5))
def test_the_ratio_turns_round_and_knows_no_units(one, other, scale, shift):
    one, other = np.array(one).round(3), np.array(other).round(3)
    one[:, 0] = other[:, 0] = 20.0
    one[:, -1] = other[:, -1] = 0.005  # progress is clear
    saved, low, high = steps_saved(STEPS, one, other)
    assert low <= saved <= high
    turned = steps_saved(STEPS, other, one)
    np.testing.assert_allclose(turned, [1 / saved, 1 / high, 1 / low], rtol=1e-6)
    units = steps_saved(STEPS, scale * one + shift, scale * other + shift)
    np.testing.assert_allclose(units, [saved, low, high], rtol=1e-4)


def test_what_is_not_there_before_the_worse_one_ends_counts():
    """The target is the worse one's lowest loss, by lines between points."""
    steps = [0, 10, 20]
    fast, slow = np.tile([4.0, 2.0, 0.0], (3, 1)), np.tile([4.0, 3.5, 3.0], (3, 1))
    assert steps_saved(steps, fast, slow)[0] == pytest.approx(20 / 5)
    middle = np.tile([4.0, 3.5, 2.5], (3, 1))
    assert steps_saved(steps, middle, slow)[0] == pytest.approx(20 / 15)
    up = np.tile([4.0, 3.0, 9.0], (3, 1))
    assert steps_saved(steps, up, slow)[0] == pytest.approx(20 / 10)


def test_one_that_diverges_loses_and_two_that_stand_still_cannot_be_told():
    good, bad = falling(0.1), np.full((3, len(STEPS)), np.nan)
    bad[:, 0] = 2
    saved = steps_saved(STEPS, good, bad)
    assert saved == pytest.approx((64,) * 3)
    assert steps_saved(STEPS, bad, good) == pytest.approx((1 / 64,) * 3)
    assert np.isnan(steps_saved(STEPS, bad, bad)).all()
    noise = 2 + 0.1 * np.random.default_rng(0).standard_normal((3, len(STEPS)))
    assert np.isnan(steps_saved(STEPS, noise, noise)).all()
    still, rounding = np.ones((3, len(STEPS))), 1 - 1e-8 * np.tile(STEPS, (3, 1)) / 64
    assert np.isnan(steps_saved(STEPS, rounding, still)).all()


def test_one_step_is_compared_by_what_it_gains():
    one, other = np.tile([4.0, 1.0], (3, 1)), np.tile([4.0, 2.0], (3, 1))
    assert steps_saved([0, 1], one, other) == pytest.approx((1.5,) * 3)


def test_intervals_hold_the_truth():
    """Logarithms of both rates are normal, so those of their ratio are, too."""
    held, many = 0, np.geomspace(0.01, 64, 400)
    steps = np.concatenate([[0], many])
    for seed in range(300):
        rng = np.random.default_rng(seed)
        rates = 0.1 * np.exp(0.1 * rng.standard_normal((2, 8, 1))) * np.array([[[1.5]], [[1.0]]])
        _, low, high = steps_saved(steps, *np.exp(-rates * steps))
        held += low <= 1.5 <= high
    assert 0.92 < held / 300 < 0.98


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (([0, 2, 1], np.ones((3, 3)), np.ones((3, 3))), "steps is .*increasing numbers, 0 first"),
        (([1, 2], np.ones((3, 2)), np.ones((3, 2))), "steps is"),
        (([0, 1], np.ones((2, 2)), np.ones((2, 2))), r"one is 'an array of shape \(2, 2\)'"),
        (([0, 1], np.ones((3, 2)), np.ones((3, 3))), r"other is 'an array of shape \(3, 3\)'"),
        (([0, 1], np.ones((3, 2)), np.ones((4, 2))), "other"),
        (([0, 1], np.full((3, 2), np.inf), np.ones((3, 2))), "one is 'not finite at the start'"),
        (([0, 1], np.ones((3, 2)), np.ones((3, 2)), 1.0), "confidence is 1.0"),
    ],
)
def test_bad_curves_are_named(arguments, words):
    with pytest.raises(ValueError, match=f"^{words}"):
        steps_saved(*arguments)


def test_verdicts_are_those_of_the_interval():
    curves = {"a": falling(0.2, 8, 0.05), "b": falling(0.1, 8, 0.05, 1), "c": falling(0.11, 8, 0.6)}
    found = Race(8, tuple(STEPS), curves, {}, 0.1, 0.95)
    assert found.verdict("a", "b") == "yes" and found.verdict("b", "a") == "no"
    assert found.verdict("b", "b") == "no" and found.saved("b", "b") == (1, 1, 1)
    assert found.verdict("c", "b") == "cannot tell"
    little = {"a": falling(0.105, 8, 0.001), "b": falling(0.1, 8, 0.001, 1)}
    assert Race(8, tuple(STEPS), little, {}, 0.1, 0.95).verdict("a", "b") == "no"
    assert Race(8, tuple(STEPS), little, {}, 0.001, 0.95).verdict("a", "b") == "yes"
    assert found.lowest() == "a" and found.lowest(without=["a"]) in "bc"
    with pytest.raises(ValueError, match=r"^over is 'd'; allowed: one of 'a', 'b', 'c'"):
        found.saved("a", "d")


def begun(kind, **hyper):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))
    inputs = torch.randn(600, 6)
    data = inputs, inputs[:, :3].argmax(1)
    groups = [{"params": [*model[0].parameters()]}, {"params": [*model[2].parameters()], "lr": 0.3}]
    return model, data, kind(groups, lr=0.1, **hyper)


OTHERS = {
    "momentum": lambda groups: torch.optim.SGD(groups, momentum=0.9),
    "sgd": torch.optim.SGD,
    "adam": lambda groups: torch.optim.AdamW(groups, betas=(0.9, 0.999)),
    "adam_without_momentum": lambda groups: torch.optim.AdamW(groups, betas=(0.0, 0.999)),
}


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (torch.optim.SGD, "sgd"),
        (torch.optim.SGD, "momentum"),
        (torch.optim.SGD, "adam"),
        (torch.optim.AdamW, "adam"),
        (torch.optim.AdamW, "adam_without_momentum"),
        (torch.optim.AdamW, "momentum"),
    ],
)
def test_losses_are_those_of_the_plain_loop(kind, name):
    """Of torch's own optimizer from the same state, on the same examples in the same order."""
    model, data, optimizer = begun(kind, weight_decay=0.01)
    for _ in range(3):  # a past, which contenders forget
        cross_entropy(model(data[0]), data[1]).backward()
        optimizer.step()
    found = race(model, cross_entropy, data, optimizer, batch_size=8, **QUICK)
    rate = found.hyper[name]["lr"]
    same = name.startswith("adam") == (kind is torch.optim.AdamW)
    decay = 0.01 * (0.1 if name == "momentum" else 1)
    for repeat, losses in enumerate(found.losses[name]):
        again = copy.deepcopy(model)
        # The second group has three times the rate; another kind takes off as much, in the end.
        groups = [
            {
                "params": [*again[place].parameters()],
                "lr": share * rate,
                "weight_decay": 0.01 if same else decay * 0.1 / rate,
            }
            for place, share in ((0, 1), (2, 3))
        ]
        plain, expected = OTHERS[name](groups), []
        order = [*zip(range(12 + 8), batches(2 + repeat, 600, 8), strict=False)]
        held = [indices for _, indices in order[12:]]
        for step in range(13):
            if step in found.steps:
                with torch.no_grad():
                    mean = [cross_entropy(again(data[0][i]), data[1][i]) for i in held]
                expected.append(float(torch.stack(mean).mean()))
            indices = order[step][1]
            plain.zero_grad()
            cross_entropy(again(data[0][indices]), data[1][indices]).backward()
            plain.step()
        np.testing.assert_allclose(losses, expected, rtol=1e-5)


class Positions(nn.Module):
    """One output for each position of a sentence; they may be laid beside the examples."""

    def __init__(self, is_flat=False):
        super().__init__()
        self.is_flat = is_flat
        self.words, self.norm = nn.Embedding(5, 4), nn.LayerNorm(4)
        self.inner, self.last = nn.Linear(4, 6), nn.Linear(6, 3)

    def forward(self, words):
        hidden = self.norm(self.words(words))
        hidden = hidden.flatten(0, 1) if self.is_flat else hidden
        found = self.last(torch.tanh(self.inner(hidden)))
        return found.unflatten(0, words.shape) if self.is_flat else found


def by_position(outputs, labels):
    return cross_entropy(outputs.flatten(0, 1), labels.flatten())


def empirical_moments(model, params, words, labels):
    """Return the mean moments of the book for the labels of the data."""

    def slopes(outputs):
        rows = outputs.detach().requires_grad_()
        return [len(words) * torch.autograd.grad(by_position(rows[0], labels), rows)[0]]

    rows = {name: p[None] for name, p in params.items()}
    found = layer_moments(model, rows, words[None], slopes)
    return {n: type(m)(*(side[0] / len(words) for side in m)) for n, m in found.items()}


def mean_eigenvalue(moments, params):
    traces = [[s.sum() if s.ndim == 1 else s.trace() for s in m] for m in moments.values()]
    pairs = zip(moments.values(), traces, strict=True)
    total = sum(t[0] * t[1] if isinstance(m, Kronecker) else m.squares.sum() for m, t in pairs)
    return float(total) / sum(p.numel() for p in params.values())


@pytest.mark.parametrize("is_flat", [False, True])
def test_kfac_is_that_of_the_book_with_the_labels_of_the_data(is_flat):
    torch.manual_seed(0)
    module = Positions(is_flat).double()
    words, labels = torch.randint(5, (24, 7)), torch.randint(3, (24, 7))
    params = {name: p.detach().clone() for name, p in module.named_parameters()}
    groups = [{"params": [*module.parameters()], "lr": 0.1, "weight_decay": 0.02}]
    ours = KFac(module, groups, 24, lr=0.1, momentum=0.7, damping=0.5, kl_clip=1e-3)
    model, state = from_module(Positions), kfac.init(params)
    first = empirical_moments(model, params, words, labels)
    hyper = {"lr": 0.1, "momentum": 0.7, "factor_decay": 0.95, "kl_clip": 1e-3}
    hyper["damping"] = 0.5 * mean_eigenvalue(first, params)
    hyper = {name: torch.tensor(value, dtype=torch.float64) for name, value in hyper.items()}
    for step in range(12):
        ours.zero_grad()
        by_position(module(words), labels).backward()
        ours.step()
        grads = grad(lambda p: by_position(model.apply(p, words), labels))(params)
        if step % 10 == 0:
            moments = empirical_moments(model, params, words, labels)
            state = kfac.looks[0].fold(moments, state, hyper)
        updates, state = kfac.update(grads, state, params, hyper)
        params = {n: (1 - 0.1 * 0.02) * p + updates[n] for n, p in params.items()}
    for name, p in module.named_parameters():
        torch.testing.assert_close(p.detach(), params[name], rtol=1e-7, atol=1e-9)


def separated(scales):
    """Return a logistic regression of all examples at once, with inputs of these sizes."""
    torch.manual_seed(0)
    inputs = torch.randn(256, len(scales))
    labels = (inputs.sum(1) + torch.randn(256) > 0).long()
    model = nn.Sequential(nn.Linear(len(scales), 2))
    data = inputs * torch.tensor(scales), labels
    return model, data, torch.optim.SGD(model.parameters(), lr=0.5)


def test_momentum_and_preconditioning_are_worth_it_where_curvatures_differ():
    options = {"batch_size": 256, "steps": 100, "repeats": 3, "evaluated": 256}
    model, data, optimizer = separated([1.0] * 4)
    alike = race(model, cross_entropy, data, optimizer, **options)
    assert alike.verdict("momentum", "sgd") == "no"
    assert alike.verdict("adam", "sgd") == "no"
    model, data, optimizer = separated([4.0, 1.0, 0.1, 0.02])
    apart = race(model, cross_entropy, data, optimizer, **options)
    for better, worse in (("momentum", "sgd"), ("adam", "momentum"), ("kfac", "momentum")):
        assert apart.verdict(better, worse) == "yes"
        assert apart.verdict(worse, better) == "no"


def test_a_search_that_begins_where_all_diverges_finds_its_way():
    def loss_at(hyper):
        size = hyper.get("lr") or hyper["kl_clip"] ** 0.5
        stable = size < 1e-4 and hyper.get("damping", 1e4) > 1e3
        return (np.log(size) - np.log(3e-5)) ** 2 if stable else np.inf

    for start in ({"lr": 1.0}, {"damping": 1.0, "kl_clip": 1.0}):
        found, loss = _best(loss_at, start)
        assert loss == loss_at(found) < np.log(2) ** 2
    assert _best(lambda hyper: np.inf, {"lr": 1.0})[1] == np.inf


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell, self.last = nn.LSTM(5, 4, batch_first=True), nn.Linear(4, 3)

    def forward(self, inputs):
        return self.last(self.cell(inputs[:, None])[0][:, -1])


class Sometimes(nn.Module):
    """A layer that training leaves out after a few steps."""

    def __init__(self):
        super().__init__()
        self.first, self.last, self.seen = nn.Linear(5, 5), nn.Linear(5, 3), 0

    def forward(self, inputs):
        self.seen += torch.is_grad_enabled()
        return self.last(inputs if self.seen > 5 else self.first(inputs).tanh())


class Sparse(nn.Module):
    def __init__(self):
        super().__init__()
        self.words, self.last = nn.Embedding(9, 4, sparse=True), nn.Linear(4, 3)

    def forward(self, inputs):
        return self.last(self.words(inputs.abs().mul(2).long().clamp(max=8)).mean(1))


class Mixed(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(5, 5).double(), nn.Linear(5, 3)

    def forward(self, inputs):
        return self.last(self.first(inputs.double()).float())


def hooked():
    model = nn.Linear(5, 3)
    model.bias.register_hook(lambda _: None)
    return model


LEFT_OUT = {
    "hook": (hooked, {"kfac": "a hook on the gradient of 'bias'"}),
    "compiled": (lambda: torch.compile(nn.Linear(5, 3)), {"kfac": "compiled by torch.compile"}),
    "recurrent": (Recurrent, {"kfac": '"cell.weight_ih_l0" belongs to no layer'}),
    "sometimes": (Sometimes, {"kfac": "uses 'first' in some steps"}),
    "sparse": (Sparse, {"adam": "Adam does not support sparse gradients"}),
    "mixed": (Mixed, {"kfac": "torch.float32, torch.float64"}),
    "half": (lambda: nn.Sequential(nn.Linear(5, 3)).bfloat16(), {"kfac": "torch.bfloat16"}),
}


@pytest.mark.parametrize("name", LEFT_OUT)
def test_kinds_that_cannot_train_a_network_are_left_out(name):
    build, reasons = LEFT_OUT[name]
    torch.manual_seed(0)
    model, (inputs, labels) = build(), awkward(torch.optim.SGD)[1]
    inputs = inputs.bfloat16() if name == "half" else inputs
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    data = inputs, labels
    found = race(model, cross_entropy, data, sgd, batch_size=8, **{**QUICK, "steps": 11})
    assert found.left_out.keys() == reasons.keys()
    assert set(found.losses) == {"momentum", "sgd", "adam", "kfac"} - reasons.keys()
    assert found.hyper.keys() == found.losses.keys()
    for kind, words in reasons.items():
        assert words in found.left_out[kind]


class Cast(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3))

    def forward(self, inputs):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return self.inner(inputs)


class Experts(nn.Module):
    """Few examples go to the second expert, in many batches none."""

    def __init__(self):
        super().__init__()
        self.usual, self.rare = nn.Linear(5, 3), nn.Linear(5, 3)

    def forward(self, inputs):
        places = inputs[:, 0] > 2
        outputs = torch.zeros(len(inputs), 3).index_put((~places,), self.usual(inputs[~places]))
        return outputs.index_put((places,), self.rare(inputs[places]))


class Unused(nn.Module):
    def __init__(self):
        super().__init__()
        self.used, self.unused = nn.Linear(5, 3), nn.Linear(5, 3)

    def forward(self, inputs):
        return self.used(inputs)


KFAC_TRAINS = {
    "dropout, batch normalisation, tied, frozen and unused": lambda: awkward(torch.optim.SGD)[0],
    "itself a layer": lambda: nn.Linear(5, 3),
    "autocast": Cast,
    "unused": Unused,
    "padding": lambda: nn.Sequential(
        nn.Embedding(9, 4, padding_idx=0), nn.Flatten(), nn.Linear(20, 3)
    ),
    "experts": Experts,
}


@pytest.mark.parametrize("name", KFAC_TRAINS)
def test_kfac_trains(name):
    torch.manual_seed(0)
    model, (inputs, labels) = KFAC_TRAINS[name](), awkward(torch.optim.SGD)[1]
    if name == "padding":
        inputs = inputs.abs().mul(2).long().clamp(max=8)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    size = 400 if name == "experts" else 50
    groups = [{"params": [p for p in model.parameters() if p.requires_grad], "lr": 0.1}]
    ours, losses = KFac(model, groups, size, lr=0.1, momentum=0.5, damping=1.0, kl_clip=1e-2), []
    for _ in range(5):
        for some in torch.arange(400).split(size):
            ours.zero_grad()
            loss = cross_entropy(model(inputs[some]).float(), labels[some])
            loss.backward()
            losses.append(float(loss))
            ours.step()
    count = len(losses) // 5
    assert np.mean(losses[-count:]) < np.mean(losses[:count]) - 0.02
    for n, p in model.named_parameters():
        is_still = "unused" in n or not p.requires_grad
        assert torch.equal(p, before[n]) == is_still and p.isfinite().all()


def test_experts_without_examples_are_named():
    model, (inputs, labels) = Experts(), awkward(torch.optim.SGD)[1]
    some = inputs[:, 0] < 2
    groups = [{"params": [*model.parameters()], "lr": 0.1}]
    ours = KFac(model, groups, 400, lr=0.1, momentum=0.5, damping=1.0, kl_clip=1e-2)
    cross_entropy(model(inputs[some]), labels[some]).backward()
    with pytest.raises(ValueError, match=r'^model is .*"rare.weight" belongs'):
        ours.step()


def test_what_diverges_at_all_rates_is_left_out():
    model, data, _ = awkward(torch.optim.SGD)
    model = nn.Sequential(nn.Linear(5, 3)).half()
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    data = data[0].half(), data[1]
    data[0][:, 0] = 0  # Adam's epsilon is zero in this type, and divides a gradient of zero
    found = race(model, cross_entropy, data, sgd, batch_size=8, **QUICK)
    assert found.left_out["adam"] == "it diverges at all rates that were tried"
    assert "adam" not in found.losses and "momentum" in found.losses


def test_hooks_of_steps_are_those_of_all_contenders():
    model, data, optimizer = begun(torch.optim.SGD)
    seen = []
    optimizer.register_step_pre_hook(lambda own, *_: seen.append(type(own).__name__))
    race(model, cross_entropy, data, optimizer, batch_size=8, **QUICK)
    assert set(seen) == {"SGD", "AdamW", "KFac"}


def test_weight_decay_takes_off_as_much_in_the_long_run():
    for kind, hyper, names in (
        (torch.optim.SGD, {"momentum": 0.9, "weight_decay": 0.005}, ("momentum", "adam")),
        (torch.optim.AdamW, {"weight_decay": 0.05}, ("adam", "momentum")),
    ):
        left = []
        for name in names:
            model, _, optimizer = begun(kind, **hyper)
            rate = 0.1 if name == names[0] else 0.02
            contender = entered(name, model, optimizer, 8, {"lr": rate})
            start = model[0].weight.detach().clone()
            for _ in range(300):
                for p in model.parameters():
                    p.grad = torch.zeros_like(p)
                contender.step()
            left.append(float((model[0].weight / start).mean()))
        assert np.log(left[0]) == pytest.approx(np.log(left[1]), rel=0.1)
        assert left[0] < 0.3


class Growing(nn.Module):
    """A loss that counts its calls in a buffer, and can hardly be lowered."""

    def __init__(self):
        super().__init__()
        self.register_buffer("scale", torch.ones(()))

    def forward(self, outputs, labels):
        self.scale *= 1.01
        found = cross_entropy(outputs, labels)
        return found.detach() * self.scale + 1e-9 * found


def test_all_contenders_have_the_same_examples_and_evaluation_changes_nothing():
    _, data, _ = begun(torch.optim.SGD)
    model = nn.Sequential(nn.Linear(5, 3))
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    noisy = Noisy((data[0][:, :5], data[1]))
    found = race(model, cross_entropy, noisy, sgd, batch_size=8, **QUICK)
    starts = [[curve[0] for curve in curves] for curves in found.losses.values()]
    assert starts[1:] == starts[:-1] and len(set(starts[0])) == 3
    still = torch.optim.SGD(model.parameters(), lr=1e-9)
    found = race(model, Growing(), noisy.data, still, batch_size=8, **QUICK)
    first, second = found.losses["sgd"][0][:2]
    assert second / first == pytest.approx(1.01, rel=1e-4)


def test_autocast_outside_does_not_stop_the_training():
    model, data, optimizer = begun(torch.optim.SGD)
    plain = race(model, cross_entropy, data, optimizer, batch_size=8, **QUICK)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert race(model, cross_entropy, data, optimizer, batch_size=8, **QUICK) == plain


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW])
@pytest.mark.parametrize("error", [None, ZeroDivisionError, KeyboardInterrupt])
def test_all_is_as_it_was(kind, error):
    model, data, optimizer = awkward(kind)
    before, calls = everything(model, optimizer), []

    def loss(outputs, labels):
        calls.append(random.random() + np.random.rand())
        if error and len(calls) == 150:
            raise error
        return cross_entropy(outputs, labels)

    def check():
        return race(model, loss, data, optimizer, batch_size=8, **QUICK)

    if error:
        with pytest.raises(error if error is KeyboardInterrupt else ValueError):
            check()
    else:
        assert check() == check()
    assert len(calls) >= 150
    assert equal(everything(model, optimizer), before)
    assert not any(layer._forward_hooks for layer in model.modules())


def test_memory_that_is_short_is_named():
    model, data, sgd = awkward(torch.optim.SGD)

    def loss(outputs, labels):
        if len(labels) > 7:
            raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB")
        return cross_entropy(outputs, labels)

    with pytest.raises(ValueError, match=r"^batch_size is 8; allowed: one that fits into memory"):
        race(model, loss, data, sgd, batch_size=8, **QUICK)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"batch_size": 401}, "batch_size is 401"),
        ({"steps": 0}, "steps is 0"),
        ({"steps": 10**6}, "steps is 1000000"),
        ({"repeats": 2}, "repeats is 2"),
        ({"evaluated": 0.5}, "evaluated is 0.5"),
        ({"tolerance": 0}, "tolerance is 0"),
        ({"confidence": 1}, "confidence is 1"),
        ({"seed": -1}, "seed is -1"),
        ({"loss": lambda *pair: cross_entropy(*pair) * torch.nan}, "loss is .* norm nan"),
        (
            {"optimizer": "momentum of one"},
            "optimizer is 'one with momentum 1'; allowed: one bel",
        ),
        ({"loss": lambda *pair: cross_entropy(*pair) * 0}, "loss is .* norm 0"),
        ({"loss": nn.CrossEntropyLoss}, "loss is"),
        ({"model": nn.Linear(5, 3)}, "optimizer is 'one of other parameters'"),
        ({"data": (torch.ones(3, 5), torch.ones(4))}, "data is"),
    ],
)
def test_bad_input_is_named(changes, words):
    model, data, optimizer = awkward(torch.optim.SGD)
    before = everything(model, optimizer)
    options = {"model": model, "loss": cross_entropy, "data": data, "optimizer": optimizer}
    if "optimizer" in changes:
        changes = {"optimizer": torch.optim.SGD(model.parameters(), lr=0.1, momentum=1.0)}
    with pytest.raises(ValueError, match=f"^{words}"):
        race(**{**options, "batch_size": 8, **QUICK, **changes})
    assert equal(everything(model, optimizer), before)


def test_a_run_without_a_rate_is_named():
    model, data, _ = awkward(torch.optim.SGD)
    still = torch.optim.SGD(model.parameters(), lr=0.0)
    with pytest.raises(ValueError, match=r"^optimizer is 'one whose rates are all zero'"):
        race(model, cross_entropy, data, still, batch_size=8, **QUICK)


def test_nesterov_and_its_dampening_stay_those_of_the_run():
    model, _, optimizer = begun(torch.optim.SGD, momentum=0.5, nesterov=True)
    (group, _) = entered("momentum", model, optimizer, 8, {"lr": 0.2}).param_groups
    assert group["nesterov"] and group["momentum"] == 0.5 and group["lr"] == 0.2
    assert optimizer.param_groups[1]["lr"] == pytest.approx(0.6)
    (group, _) = entered("sgd", model, optimizer, 8, {"lr": 0.2}).param_groups
    assert group["momentum"] == 0


def test_the_stored_races_are_what_a_run_says_again():
    each = len(measure_race.OPTIMIZERS) * len(measure_race.SEEDS) * len(measure_race.LENGTHS)
    for name, sizes in measure_race.RUNS.items():
        stored = json.loads((measure_race.RACES / f"{name}.json").read_text("utf-8"))
        assert len(stored["rows"]) == len(sizes) * each
        assert "dirty" not in stored["provenance"]["commit"]
    stored = json.loads((measure_race.RACES / "digits-mlp.json").read_text("utf-8"))
    same = {"task": "digits-mlp", "batch_size": 256, "optimizer": "heavy_ball", "seed": 1}
    held = next(r for r in stored["rows"] if r.items() >= {**same, "length": 0.9}.items())
    task, cells = TASKS["digits-mlp"], load_results(task="digits-mlp")
    (cell,) = (c for c in cells if (c.optimizer, c.batch_size) == ("heavy_ball", 256))
    again = measure_race.raced(task, task.load(), cell, 1, 0.9)
    assert again["steps"] == held["steps"]
    for question, (*numbers, _) in held["saved"].items():
        assert again["saved"][question][:3] == pytest.approx(numbers, rel=0.1)


def test_the_networks_of_the_measurement_are_those_of_the_sweeps():
    for name in measure_race.RUNS:
        task = TASKS[name]
        inputs = torch.rand(5, *((64,) if name == "digits-mlp" else (1, 14, 14)))
        expected = task.model.apply(task.model.init(generator(3, "init")), inputs)
        torch.testing.assert_close(measure_race.network(task, 3)(inputs), expected)
