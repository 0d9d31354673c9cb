"""Advice: what it follows from, what it says, and that it leaves no trace."""

import copy
import json
import re
import sys
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import brentq
from test_branch import awkward, equal, everything
from torch.nn.functional import cross_entropy

from batchscaling.__main__ import main
from batchscaling.curves import load_results
from batchscaling.nqm import SGD as SGD_ON_QUADRATICS
from batchscaling.nqm import HeavyBall, Nesterov, NoisyQuadratic, critical_batch_size
from batchscaling.practice import BranchedCheck, NoiseReading, Race, Throughput, advise, predict
from batchscaling.practice.advice import combined
from batchscaling.training import TASKS
from tools import measure_advice

QUICK = {"repeats": 3, "steps": 1, "factors": (2, 4)}
SGD = {"method": "sgd", "hyper": {"lr": 0.1}}
SPEED = Throughput((1, 16, 256), (1.0, 1.3, 6.0), (0.9, 1.2, 5.5), (1.2, 1.5, 7.0), "enough")
NOISE = NoiseReading(100.0, 50.0, 200.0, None, 1.0, 0.01, 64)
UNKNOWN = NoiseReading(None, None, None, "the signal is weak", 1.0, 0.0, 64)


def branches(low, high, reason=None):
    return BranchedCheck(low, high, reason, (8, 16), ((0, 0, 0),) * 2, ("kept", "kept"), 0.2)


def test_the_fastest_batch_size_is_the_root_of_overhead_and_noise():
    a, b = 1.0, 0.02
    sizes = 2.0 ** np.arange(0, 12)
    for scale in (10.0, 100.0, 1000.0):
        best, low, high = predict.fastest(scale, sizes, a + b * sizes)
        assert best == pytest.approx(np.sqrt(a * scale / b), rel=0.02)
        steps, _ = predict.steps_against(scale, [best, low, high], 1)
        time = steps * (a + b * np.array([best, low, high]))
        np.testing.assert_allclose(time[1:] / time[0], 1.05, atol=0.01)


def test_steps_and_examples_are_those_of_the_hyperbola():
    steps, examples = predict.steps_against(100, [1, 100, 1e9], 100)
    np.testing.assert_allclose(steps, [101 / 2, 1, 0.5], rtol=1e-6)
    np.testing.assert_allclose(examples[:2], [0.505, 1])


@pytest.mark.parametrize("factor", [0.25, 8])
def test_what_moves_with_the_batch(factor):
    to = int(64 * factor)
    hyper = {"lr": 0.1, "beta2": 0.99, "decoupled_weight_decay": 0.01, "warm_up": 80}
    adam = {m.name: m.moved for m in predict.transfer("adam", hyper, 64, to)}
    assert adam["lr"] == pytest.approx(0.1 * factor**0.5)
    # What half of the memory is, and what decays, stays the same in examples.
    halves = [np.log(2) / np.log(1 / beta) * b for beta, b in ((0.99, 64), (adam["beta2"], to))]
    assert halves[0] == pytest.approx(halves[1])
    assert adam["lr"] * adam["decoupled_weight_decay"] == pytest.approx(0.1 * 0.01 * factor)
    assert adam["warm_up"] * to == pytest.approx(80 * 64)
    sgd = {m.name: m.moved for m in predict.transfer("sgd", {"lr": 0.1, "momentum": 0.9}, 64, to)}
    assert sgd == {"lr": pytest.approx(0.1 * factor), "momentum": 0.9}


def test_a_rule_says_where_it_holds():
    inside, outside = (
        predict.transfer("sgd", {"lr": 0.1}, 8, to, scale=100)[0].valid for to in (64, 128)
    )
    assert inside.endswith("100: inside") and outside.endswith("100: OUTSIDE")
    with pytest.raises(ValueError, match=r"^hyper is 'rate'; allowed: one of 'lr'"):
        predict.transfer("sgd", {"rate": 1}, 8, 16)


def test_a_warm_up_has_one_batch_size_at_a_time():
    assert predict.warm_up([0, 100], [64, 64], 8) == [(0, 64)]
    assert predict.warm_up([0.5], [64], 8) == [(0, 64)]


def test_without_a_price_the_page_has_no_explorer():
    for price, shown in ((0.0, False), (2.0, True)):
        page = combined(8, SPEED, NOISE, None, {}, price=price, **SGD).to_html()
        assert ('id="explorer"' in page) == shown


def test_a_warm_up_never_falls_and_never_exceeds_what_was_read():
    assert predict.warm_up([10, 20, 30, 40], [5, 20, 15, 70], 8) == [(0, 8), (20, 16), (40, 64)]
    advice = combined(8, None, UNKNOWN, None, {}, **SGD)
    assert advice.warm_up([10, 20, 30], [UNKNOWN, NOISE, NOISE]) == [(0, 8), (20, 32)]
    assert advice.warm_up([10], [UNKNOWN]) == [(0, 8)]


@pytest.mark.parametrize(
    ("layers", "sizes", "words"),
    [
        ((SPEED, NOISE, None), (None, None, None), "least time on this device"),
        ((None, NOISE, None), (100, 50, 200), "noise scale: twice the fewest steps"),
        ((SPEED, UNKNOWN, branches(16, 64)), (16, 16, 64), "branches lose nothing up to there"),
        ((SPEED, UNKNOWN, branches(None, None, "weak")), None, "the signal is weak; weak"),
        ((SPEED, None, None), None, "no layer"),
    ],
)
def test_what_follows_from_the_layers(layers, sizes, words):
    advice = combined(8, *layers, {}, **SGD)
    found = advice.batch_size, advice.low, advice.high
    assert words in advice.reason
    if sizes is None:
        assert found == (None,) * 3 and str(advice).startswith("cannot tell: ")
    elif sizes[0] is not None:
        assert found == sizes
    else:
        best = [predict.fastest(s, SPEED.batch_sizes, SPEED.seconds) for s in (100, 50, 200)]
        assert found == tuple(map(round, (best[0][0], best[1][1], best[2][2])))
        assert found[1] < found[0] < found[2]


@pytest.mark.parametrize(("beta1", "told"), [(0.9, True), (0.0, False)])
def test_what_the_noise_scale_does_not_know_of_adam_is_told(beta1, told):
    adam = {"method": "adam", "hyper": {"beta1": beta1, "beta2": 0.99}}
    for layers in ((SPEED, NOISE, None), (None, NOISE, None)):
        reason = combined(8, *layers, {}, **adam).reason
        assert ("momentum may let larger ones" in reason) == told
    of_branches = combined(8, None, None, branches(16, 64), {}, **adam)
    assert "momentum" not in of_branches.reason


def test_with_momentum_the_interval_holds_what_it_may_add():
    plain, held = (combined(8, SPEED, NOISE, None, {}, gain=gain, **SGD) for gain in (1, 16))
    assert plain.critical == (100, 50, 200) and held.critical == (100, 50, 3200)
    assert held.batch_size == plain.batch_size and held.low == plain.low
    _, _, high = predict.fastest(3200, SPEED.batch_sizes, SPEED.seconds)
    assert held.high == round(high) > plain.high
    assert "up to 16 times the noise scale" in held.reason
    assert "momentum" not in plain.reason
    assert combined(8, None, NOISE, None, {}, gain=16, **SGD).high == 3200
    table, wide = plain.table()[-1], held.table()[8]
    assert table.batch_size == wide.batch_size == 256
    assert wide.steps[1] < table.steps[1] and wide.steps[2] == table.steps[2]
    for gain, word in ((1, "try it"), (16, "cannot tell")):
        advice = combined(512, None, None, None, {}, gain=gain, **SGD)
        object.__setattr__(advice, "noise", NOISE)
        assert advice.worth()["kfac"].startswith(word)
    page = held.to_html()
    assert "critical batch size of 100, between 50 and 3.2e+03" in page


def test_a_batch_is_no_larger_than_the_data():
    held = [combined(8, None, NOISE, None, {}, largest=n, **SGD) for n in (60, 150, 1000)]
    assert [(a.batch_size, a.low, a.high) for a in held] == [
        (60, 50, 60),
        (100, 50, 150),
        (100, 50, 200),
    ]
    assert ["the data has" in a.reason for a in held] == [True, False, False]
    assert [a.table()[-1].batch_size for a in held] == [32, 128, 512]
    model, data, _ = awkward(torch.optim.SGD)
    sgd = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9999999)
    advice = advise(model, cross_entropy, data, sgd, batch_size=8, layers=["noise"])
    assert advice.high == advice.largest == len(data[0])


def test_the_advised_size_is_inside_what_it_is_advised_by():
    noise = replace(NOISE, batch_size=100.7)
    moved, *_ = combined(8, None, noise, None, {}, **SGD).transfer()
    assert moved.valid.endswith("101: inside")


def test_branches_within_what_momentum_may_add_do_not_disagree():
    for gain, told in ((1, True), (4, False)):
        found = combined(8, None, NOISE, branches(512, 1024), {}, gain=gain, **SGD)
        assert bool(found.disagreements) == told
    beyond = combined(8, None, NOISE, branches(1024, None), {}, gain=4, **SGD).disagreements
    assert "the critical batch size with momentum is 50 to 800" in beyond[0]


@pytest.mark.parametrize(
    ("options", "gain"),
    [
        ({}, 1),
        ({"momentum": 0.5}, 3),
        ({"momentum": np.float32(0.5), "dampening": 0.5}, 3),
        ({"momentum": torch.tensor(0.5), "nesterov": True}, 1.5),
        ({"betas": (0.9, 0.99)}, 1),
    ],
)
def test_the_gain_is_that_of_the_optimizer(options, gain):
    model, data, _ = awkward(torch.optim.SGD)
    kind = torch.optim.Adam if "betas" in options else torch.optim.SGD
    optimizer = kind(model.parameters(), lr=1e-3, **options)
    asked = partial(advise, model, cross_entropy, data, optimizer, batch_size=8, layers=[])
    assert asked().gain == pytest.approx(gain)
    if options and gain != 1:
        optimizer.param_groups[0]["momentum"] = 1.0
        with pytest.raises(ValueError, match=r"^momentum is 1.0; allowed: "):
            asked()


@pytest.mark.parametrize("frozen", [False, True])
def test_the_gain_is_that_of_the_trained_group_with_the_largest(frozen):
    model, data, _ = awkward(torch.optim.SGD)
    first, *rest = model.parameters()
    first.requires_grad_(not frozen)
    groups = [{"params": [first], "momentum": 0.8}, {"params": rest, "momentum": 0.5}]
    sgd = torch.optim.SGD(groups, lr=1e-3)
    advice = advise(model, cross_entropy, data, sgd, batch_size=8, layers=[])
    assert advice.gain == pytest.approx(3 if frozen else 9)


@given(st.floats(0, 0.99), st.booleans())
def test_the_gain_is_that_of_the_largest_stable_effective_rate(momentum, nesterov):
    def radius(rate):
        """Spectral radius of the step of momentum at curvature 1."""
        shrink = 1 - rate if nesterov else 1
        place = [1 - rate, shrink * momentum]  # of the parameter and its last change
        return max(abs(np.linalg.eigvals([place, [place[0] - 1, place[1]]])))

    largest = brentq(lambda rate: radius(rate) - 1, 1e-3, 4.1, xtol=1e-12)
    assert radius(largest * 0.999) < 1 < radius(largest * 1.001)
    gain = predict.momentum_gain(momentum, nesterov=nesterov)
    assert largest / (1 - momentum) / 2 == pytest.approx(gain, rel=1e-4)


@pytest.mark.parametrize("kind", [HeavyBall, Nesterov])
@pytest.mark.parametrize("target", [0.3, 0.03, 0.003])
def test_on_the_noisy_quadratic_momentum_adds_up_to_the_gain(kind, target):
    problem = NoisyQuadratic.harmonic(300)
    plain = critical_batch_size(problem, SGD_ON_QUADRATICS, target).batch_size
    found = {}
    for momentum in (0.5, 0.8, 0.9, 0.95):
        critical = critical_batch_size(problem, kind, target, momentum=momentum)
        gain = predict.momentum_gain(momentum, nesterov=kind is Nesterov)
        found[momentum] = critical.batch_size / plain / gain
    assert max(found.values()) < 1.1  # steps are whole, and only long runs keep to the limit
    assert found[0.5] > 0.85
    # The longer the memory of momentum, the less of its gain a run of this length can use.
    assert found[0.8] > found[0.9] > found[0.95]


def test_bad_numbers_for_momentum_are_named():
    for momentum in (1.0, -0.1, float("nan"), "high"):
        with pytest.raises(ValueError, match=r"^momentum is "):
            predict.momentum_gain(momentum)


def test_layers_that_disagree_are_told():
    told = [
        combined(8, None, NOISE, branches(*ends), {}, **SGD).disagreements
        for ends in ((None, 16), (256, 512), (32, 64), (128, None))
    ]
    assert "branches lose at 16" in told[0][0] and "branches lose nothing at 256" in told[1][0]
    assert told[2:] == [(), ()]


def test_the_table_has_intervals_around_its_values():
    rows = combined(8, SPEED, NOISE, None, {}, steps=1000, price=2, **SGD).table()
    assert [row.batch_size for row in rows] == [2**k for k in range(9)]
    for row in rows:
        for value, low, high in (row.steps, row.examples, row.time, row.cost, row.efficiency):
            assert low <= value <= high
        assert row.cost == tuple(2 * part for part in row.time)
    own = rows[3]
    assert own.steps == pytest.approx((1000,) * 3) and own.examples == pytest.approx((8000,) * 3)
    assert combined(8, SPEED, UNKNOWN, None, {}, **SGD).table() == []


@pytest.mark.parametrize(("used", "word"), [(16, "no"), (100, "cannot tell"), (512, "try it")])
def test_momentum_is_worth_it_above_the_noise_scale_only(used, word):
    advice = combined(used, None, None, None, {}, **SGD)
    assert advice.worth()["momentum"].startswith("cannot tell")
    object.__setattr__(advice, "noise", NOISE)
    assert advice.worth()["momentum"].startswith(word)
    # Below the noise scale K-FAC saves steps on digits, so the scale does not tell.
    assert advice.worth()["kfac"].startswith("cannot tell" if word == "no" else word)


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW])
def test_all_is_as_it_was_and_all_layers_answer(kind):
    model, data, optimizer = awkward(kind)
    before = everything(model, optimizer)
    options = {"batch_size": 8, "probed": 64, "steps": 2, "branches": QUICK}
    advice = advise(model, cross_entropy, data, optimizer, **options)
    assert equal(everything(model, optimizer), before)
    assert advice.throughput.batch_sizes[0] == 2 and advice.branches.batch_sizes[0] == 8
    assert advice.failed == {}
    assert advice.noise.measured == 64
    assert {m.name for m in advice.transfer(16)} >= {"lr"}

    def broken(outputs, labels):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        advise(model, broken, data, optimizer, batch_size=8)
    assert equal(everything(model, optimizer), before)


def test_pure_noise_cannot_be_told():
    rng = torch.Generator().manual_seed(0)
    inputs = torch.randn(2048, 64, generator=rng)
    model = torch.nn.Linear(64, 10)
    torch.nn.init.zeros_(model.weight), torch.nn.init.zeros_(model.bias)
    data = inputs, torch.randint(10, (2048,), generator=rng)
    sgd = torch.optim.SGD(model.parameters(), lr=1e-3)
    options = {
        "batch_size": 8,
        "layers": ["noise", "branches"],
        "branches": {**QUICK, "evaluated": 256},
    }
    advice = advise(model, cross_entropy, data, sgd, **options)
    assert advice.batch_size is None and "signal" in advice.reason
    page = advice.to_html()
    assert "Cannot tell" in page and 'id="explorer"' not in page
    with pytest.raises(ValueError, match=r"^to is None"):
        advice.transfer()


def test_a_layer_that_fails_says_why_and_others_go_on():
    model, data, sgd = awkward(torch.optim.SGD)
    model.norm.running_mean = model.norm.running_var = model.norm.num_batches_tracked = None
    options = {"batch_size": 8, "layers": ["noise", "branches"], "branches": QUICK}
    advice = advise(model, cross_entropy, data, sgd, **options)
    assert advice.failed.keys() == {"noise"} and "batch statistics" in advice.failed["noise"]
    assert advice.branches is not None


def nan(outputs, labels):
    return torch.nan * cross_entropy(outputs, labels)


def too_large(outputs, labels):
    raise MemoryError("out of memory")


@pytest.mark.parametrize(
    ("loss", "reasons"),
    [
        (nan, ["gradients are not finite", "branches: loss is 'not finite'"]),
        (
            too_large,
            [
                "throughput: model is 'too large'",
                "noise: batch_size is 8; allowed: one that fits",
                "branches: batch_size is 8; allowed: one that fits",
            ],
        ),
    ],
)
@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW])
def test_a_loss_that_is_nan_and_memory_that_is_short_give_no_number(kind, loss, reasons):
    model, data, optimizer = awkward(kind)
    before = everything(model, optimizer)
    advice = advise(model, loss, data, optimizer, batch_size=8, probed=24, branches=QUICK)
    assert advice.batch_size is None and str(advice).startswith("cannot tell: ")
    assert all(reason in advice.reason for reason in reasons)
    assert equal(everything(model, optimizer), before)


def test_a_batch_that_does_not_fit_into_memory_ends_the_throughput():
    model, data, sgd = awkward(torch.optim.SGD)
    before = everything(model, sgd)

    def loss(outputs, labels):
        if len(labels) > 8:
            raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB")
        return cross_entropy(outputs, labels)

    speed = advise(model, loss, data, sgd, batch_size=8, layers=["throughput"]).throughput
    assert speed.ended == "a batch of 16 does not fit into memory"
    assert speed.batch_sizes == (2, 4, 8)
    assert equal(everything(model, sgd), before)


class Half(torch.nn.Module):
    """A network with its forward pass in half precision."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, inputs):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return self.inner(inputs).float()


def test_mixed_precision_is_measured():
    """Batch normalisation mixes precisions for one example, and not under `torch.func`."""
    torch.manual_seed(0)
    inner = torch.nn.Sequential(torch.nn.Linear(5, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3))
    normalising, data, _ = awkward(torch.optim.SGD)

    def advised(model):
        sgd = torch.optim.SGD(model.parameters(), lr=1e-2)
        return advise(model, cross_entropy, data, sgd, batch_size=8, layers=["noise"])

    for model, near in ((inner, 0.05), (normalising, 0.2)):  # other units are dropped one by one
        plain, half = advised(copy.deepcopy(model)).noise, advised(Half(model)).noise
        assert half.trace == pytest.approx(plain.trace, rel=near) and half.trace != plain.trace
    plain, half = advised(inner).noise, advised(Half(inner)).noise
    assert half.batch_size == pytest.approx(plain.batch_size, rel=0.2)


@pytest.mark.parametrize(("file", "optimizer"), [("advice", "adam"), ("momentum", "nesterov")])
def test_the_stored_advice_is_what_a_run_says_again(file, optimizer):
    stored = json.loads((measure_advice.FOLDER / f"{file}.json").read_text("utf-8"))
    rows, questions = stored["rows"], len(measure_advice.SEEDS) * len(measure_advice.ASKED)
    for (task, sizes), optimizers in measure_advice.RUNS[file].items():
        mine = [row for row in rows if row["task"] == task]
        assert len(mine) == len(sizes) * len(optimizers) * questions
    assert "dirty" not in stored["provenance"]["commit"]
    (cell,) = (
        cell
        for cell in load_results(task="digits-mlp")
        if (cell.optimizer, cell.batch_size) == (optimizer, 16)
    )
    task = TASKS["digits-mlp"]
    same = {"task": "digits-mlp", "optimizer": optimizer, "batch_size": 16}
    again = next(measure_advice.asked(task, task.load(), cell, 1))
    held = next(r for r in rows if r.items() >= {**same, "seed": 1, "asked": 0.1}.items())
    for name in ("trace", "signal", "noise_scale"):
        assert again[name] == pytest.approx(held[name], rel=0.05)


def raced(**rates):
    """Return a race in which losses of each contender fall at a rate."""
    steps = np.array([0, 1, 2, 4, 8, 16, 32, 64])
    noise = np.random.default_rng(0).normal(0, 0.02, (4, 1))
    curves = {
        n: tuple(map(tuple, np.exp(-rate * (1 + noise) * steps))) for n, rate in rates.items()
    }
    hyper = {name: {"lr": 0.1} for name in rates}
    left_out = {} if "kfac" in rates else {"kfac": "model is of <other> layers"}
    return Race(8, tuple(steps.tolist()), curves, hyper, 0.1, 0.95, left_out)


WORTH = [
    ("sgd", {"momentum": 0.2, "sgd": 0.1, "adam": 0.2}, ("yes", "no", "cannot tell")),
    ("sgd", {"momentum": 0.1, "sgd": 0.1, "adam": 0.2, "kfac": 0.4}, ("no", "yes", "yes")),
    ("sgd", {"momentum": 0.2, "sgd": 0.1, "adam": 0.1, "kfac": 0.2}, ("yes", "no", "no")),
    (
        "adam",
        {"adam": 0.2, "adam_without_momentum": 0.1, "momentum": 0.1},
        ("yes", "yes", "cannot tell"),
    ),
]


@pytest.mark.parametrize(("method", "rates", "verdicts"), WORTH)
def test_a_race_says_what_is_worth_it(method, rates, verdicts):
    advice = combined(8, None, None, None, {}, method=method, hyper={}, race=raced(**rates))
    worth = advice.worth()
    for name, verdict in zip(("momentum", "adam", "kfac"), verdicts, strict=True):
        assert worth[name].startswith(verdict)
    assert "of SGD with momentum by" in worth["adam"] and "between" in worth["adam"]
    assert "64 steps at batch size 8" in worth["momentum"]
    if "kfac" in rates:
        best = max((name for name in rates if name != "kfac"), key=rates.get)
        assert {"adam": "of Adam by", "momentum": "of SGD with"}[best] in worth["kfac"]
    page = advice.to_html()
    assert json.loads(advice.to_json())["worth"] == worth and "Race: 64 steps" in page
    assert ("&lt;other&gt;" in page) == ("kfac" not in rates)


def test_a_race_that_goes_nowhere_cannot_tell():
    race = raced(momentum=0, sgd=0, adam=0)
    worth = combined(8, None, None, None, {}, **SGD, race=race).worth()
    for name in ("momentum", "adam"):
        assert worth[name].startswith("cannot tell: in a race") and "fall" in worth[name]


def test_a_race_and_the_noise_scale_may_disagree_on_momentum():
    fast, slow = (raced(momentum=rate, sgd=0.1, adam=0.1) for rate in (0.2, 0.1))
    for used, race, words in ((16, fast, "saves steps"), (512, slow, "saves none")):
        told = combined(used, None, NOISE, None, {}, **SGD, race=race).disagreements
        assert len(told) == 1 and words in told[0]
    for used, race in ((16, slow), (512, fast), (100, fast)):
        assert combined(used, None, NOISE, None, {}, **SGD, race=race).disagreements == ()


def test_a_race_is_asked_for_and_has_options():
    model, data, sgd = awkward(torch.optim.SGD)
    options = {"batch_size": 8, "layers": ["race"], "race": {"steps": 5, "repeats": 3}}
    advice = advise(model, cross_entropy, data, sgd, **options)
    assert advice.race.steps[-1] == 5 and len(advice.race.losses["adam"]) == 3
    assert advice.batch_size is None and advice.race.confidence == 0.95
    assert advise(model, cross_entropy, data, sgd, batch_size=8, branches=QUICK).race is None
    words = "^an option of a race is 'factors'; allowed: one of 'steps'"
    with pytest.raises(ValueError, match=words):
        advise(model, cross_entropy, data, sgd, batch_size=8, race={"factors": (2,)})
    with pytest.raises(ValueError, match=r"^race is 5; allowed: a dict of options of race"):
        advise(model, cross_entropy, data, sgd, batch_size=8, race=5)


def test_json_and_page_hold_the_same():
    advice = combined(8, SPEED, NOISE, branches(16, 32), {"noise": "<b>"}, price=1e-3, **SGD)
    held = json.loads(advice.to_json())
    assert held["batch_size"] == advice.batch_size and len(held["table"]) == 9
    page = advice.to_html()
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert json.loads(data[1]) == held
    assert "<b>" not in page and "&lt;b&gt;" in page
    assert not re.findall(r"(?:src|href)=|https?://|@import|url\(", page)
    assert "prefers-color-scheme: dark" in page and page.count("<svg") == 3
    assert "$$" not in page


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (16, 32, "nothing lost up to 16, something from 32 on"),
        (16, None, "nothing lost up to 16"),
        (None, 32, "something from 32 on"),
    ],
)
def test_the_page_says_what_branches_show(low, high, words):
    page = combined(8, SPEED, NOISE, branches(low, high), {}, price=0.0, **SGD).to_html()
    assert f"Branches: {words}</li>" in page


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_hyperparameters_of_any_kind_of_number(kind):
    model, data, _ = awkward(torch.optim.SGD)
    if kind == "sgd":
        some = {"momentum": np.float32(0.5), "weight_decay": torch.tensor(0.25)}
        optimizer = torch.optim.SGD(model.parameters(), lr=torch.tensor(0.01), **some)
    else:
        betas = torch.tensor(0.5), torch.tensor(0.75)
        some = {"betas": betas, "weight_decay": np.float64(0.25), "foreach": False}
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, **some)
    advice = advise(model, cross_entropy, data, optimizer, batch_size=8, layers=[])
    hyper = json.loads(advice.to_json())["hyper"]
    assert 0.5 in hyper.values() and 0.25 in hyper.values()
    assert "cannot tell" in advice.to_html()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"batch_size": 0}, "batch_size is 0"),
        ({"layers": ["speed"]}, "layers is 'speed'; allowed: one of 'throughput'"),
        ({"probed": 23}, "probed is 23"),
        ({"steps": 0}, "steps is 0"),
        ({"price": -1}, "price is -1"),
        ({"optimizer": None}, "optimizer is 'NoneType'"),
        ({"data": None}, "data is 'NoneType'"),
        ({"data": (torch.empty(0, 5), torch.empty(0))}, "data is 'without examples'"),
    ],
)
def test_bad_input_is_named(changes, words):
    model, data, sgd = awkward(torch.optim.SGD)
    options = {"model": model, "loss": cross_entropy, "data": data, "optimizer": sgd}
    with pytest.raises(ValueError, match=f"^{words}"):
        advise(**{**options, "batch_size": 8, **changes})


SETUP = """
import torch

def setup():
    torch.manual_seed(0)
    model = torch.nn.Linear(6, 2)
    inputs = torch.randn(256, 6)
    return {
        "model": model,
        "loss": torch.nn.functional.cross_entropy,
        "data": (inputs, (inputs[:, 0] > 0).long()),
        "optimizer": torch.optim.SGD(model.parameters(), lr=0.1),
        "batch_size": 8,
    }

wrong = 3
"""


def test_the_command_line_advises(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "net.py").write_text(SETUP)
    files = [f"--{kind}={tmp_path / 'advice'}.{kind}" for kind in ("html", "json")]
    main(["advise", f"{tmp_path}/net.py:setup", "--layers", "throughput", "noise", *files])
    out = capsys.readouterr().out
    held = json.loads((tmp_path / "advice.json").read_text("utf-8"))
    assert out.startswith(f"batch size {held['batch_size']}, between") and "lr 0.1 -> " in out
    assert "<title>Advice" in (tmp_path / "advice.html").read_text("utf-8")
    main(["advise", f"{tmp_path}/net.py:setup", "--layers", "race"])
    assert "\nadam: " in capsys.readouterr().out
    for name in ("wrong", "nothing"):
        with pytest.raises(SystemExit) as ended:
            main(["advise", f"{tmp_path}/net.py:{name}"])
        assert ended.value.code == 2
        assert "allowed: a function that returns a dict" in capsys.readouterr().err
