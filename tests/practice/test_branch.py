"""The branched check: against the plain recursion, the exact loss, and what can go wrong."""

import copy
import json
import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from batchscaling.nqm import SGD, NoisyQuadratic, risk
from batchscaling.practice import branch
from batchscaling.practice.branch import _Runs, check_options
from batchscaling.practice.examples import Examples
from batchscaling.practice.paired import concluded, judge, lost_share
from batchscaling.training import batches
from tools import measure_branch

H = 1 / torch.arange(1.0, 13)
EXAMPLES = 2**13


def zero(outputs, labels):
    return outputs


@pytest.fixture
def quadratic(copies):
    """Return the function that makes a noisy quadratic: the model, its data and SGD."""

    def make(theta=1.0, noise=1.0, lr=0.05, seed=0):
        rng = torch.Generator().manual_seed(seed)
        inputs = (noise * H).sqrt() * torch.randn(EXAMPLES, 1, len(H), generator=rng)
        model = Mean(copies(H, torch.full((len(H),), theta), 1))
        return model, (inputs, torch.zeros(EXAMPLES)), torch.optim.SGD(model.parameters(), lr=lr)

    return make


class Mean(nn.Module):
    """The mean loss over a batch of examples of the model that adds them up."""

    def __init__(self, single):
        super().__init__()
        self.single = single

    def forward(self, inputs):
        return self.single(inputs.mean(0, keepdim=True))


def plain(data, theta, lr, size, factor, steps, largest, repeats, evaluated):
    """Return the loss at the end for each repetition, by nothing but the update rule."""
    h, inputs, losses = H.numpy(), data[0][:, 0].numpy(), []
    for seed in range(repeats):
        order = next(batches(seed, len(inputs), size * largest * steps + evaluated)).numpy()
        at, window = np.full(len(h), theta), size * largest * steps
        step = size * factor
        for place in range(0, window, step) if factor else ():
            noise = inputs[order[place : place + step]].mean(0)
            at = at - factor * lr * (h * at + noise)
        losses.append((h * at**2).sum() / 2 + inputs[order[window:]].mean(0) @ at)
    return np.array(losses)


def test_branches_take_the_steps_of_the_plain_recursion(quadratic):
    model, data, sgd = quadratic()
    found = branch(
        model,
        zero,
        data,
        sgd,
        batch_size=4,
        factors=(2, 8),
        steps=3,
        repeats=4,
        evaluated=64,
        tolerance=10,
    )
    start, base, *others = (
        plain(data, 1.0, 0.05, 4, k, 3, 8, repeats=4, evaluated=64) for k in (0, 1, 2, 8)
    )
    for share, other in zip(found.lost[1:], others, strict=True):
        np.testing.assert_allclose(share, lost_share(start, base, other), rtol=1e-3, atol=1e-5)
    assert found.batch_sizes == (4, 8, 32)
    assert found.examples == 4 * (3 * 4 * 8 * 3 + 4 * 64)


def test_intervals_hold_the_exact_share_and_the_verdict_is_right(quadratic):
    inside = []
    for seed in range(3):
        model, data, sgd = quadratic(noise=4.0, lr=0.1, seed=seed)
        found = branch(
            model, zero, data, sgd, batch_size=8, steps=4, seed=seed, tolerance=0.1, evaluated=128
        )
        problem = NoisyQuadratic(H.numpy(), noise=4 * H.numpy(), second_moment=1)
        start = risk(problem, SGD(lr=0.1), 8, 0)
        base = risk(problem, SGD(lr=0.1), 8, 4 * 16)
        exact = {}
        for size, (_, low, high) in zip(found.batch_sizes, found.lost, strict=True):
            k = size // 8
            end = risk(problem, SGD(lr=0.1 * k), size, 4 * 16 // k)
            exact[size] = (end - base) / (start - base)
            inside.append(low <= exact[size] <= high)
        assert found.low is None or exact[found.low] <= 0.1
        assert found.high is None or exact[found.high] > 0.1
    assert np.mean(inside) > 0.85


def test_at_the_minimum_it_cannot_tell(quadratic):
    model, data, sgd = quadratic(theta=0.0)
    found = branch(model, zero, data, sgd, batch_size=4, repeats=4, steps=2, evaluated=256)
    assert (found.low, found.high) == (None, None)
    assert str(found) == "cannot tell: the loss does not fall clearly within the window"


def test_squares_of_adam_are_those_of_the_larger_batch(copies):
    """Small steps go as far as the rate over the root of mean squares: signal and noise over B."""
    rng = torch.Generator().manual_seed(0)
    inputs = torch.randn(EXAMPLES, 1, len(H), generator=rng)
    model = Mean(copies(torch.ones(len(H)), torch.full((len(H),), 0.2), 1))
    squares = [0.2**2 + 1 / size for size in (4, 32)]
    adam = torch.optim.Adam(model.parameters(), lr=2e-3, betas=(0.9, 0.999))
    (theta,) = model.parameters()
    adam.state[theta] = {
        "step": torch.tensor(1e5),
        "exp_avg": torch.full_like(theta, 0.2),
        "exp_avg_sq": torch.full_like(theta, squares[0]),
    }
    found = branch(
        model,
        zero,
        (inputs, torch.zeros(EXAMPLES)),
        adam,
        batch_size=4,
        factors=(8,),
        steps=8,
        evaluated=400,
        repeats=6,
    )
    goes = 8**0.5 / 8 * (squares[0] / squares[1]) ** 0.5
    # Twelve parameters tell their squares to 20 %. Stale ones would lose 0.65.
    assert found.lost[1][0] == pytest.approx(1 - goes, abs=0.15)


class Stream(IterableDataset):
    def __iter__(self):
        return iter(())


class Awkward(nn.Module):
    """Dropout, batch normalisation, tied and frozen weights, one without a gradient, a hook."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(5, 5), nn.Linear(5, 3)
        self.again = self.first
        self.norm, self.drop = nn.BatchNorm1d(5), nn.Dropout(0.5)
        self.unused, self.frozen = nn.Parameter(torch.ones(2)), nn.Linear(5, 5)
        self.frozen.requires_grad_(False)
        self.register_buffer("seen", torch.zeros(()), persistent=False)

    def forward(self, inputs):
        self.seen += 1
        return self.last(self.drop(self.norm(self.again(self.frozen(self.first(inputs))).relu())))


def awkward(kind):
    torch.manual_seed(0)
    model = Awkward()
    inputs = torch.randn(400, 5)
    data = inputs, inputs[:, :3].argmax(1)
    optimizer = kind(model.parameters(), lr=1e-2)
    for indices in batches(1, 400, 8):
        optimizer.zero_grad()
        cross_entropy(model(data[0][indices]), data[1][indices]).backward()
        optimizer.step()
        if model.seen > 20:
            return model, data, optimizer


def everything(model, optimizer):
    """Return copies of all that a check must leave as it is."""
    tensors = [*model.parameters(), *model.buffers(), *(p.grad for p in model.parameters())]
    return copy.deepcopy(
        (
            tensors,
            [module.training for module in model.modules()],
            optimizer.state_dict(),
            [len(p._backward_hooks or ()) for p in model.parameters()],
            (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()),
        )
    )


def equal(one, other):
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[k], other[k]) for k in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(equal, one, other))
    return one == other


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW])
@pytest.mark.parametrize("error", [None, ZeroDivisionError, KeyboardInterrupt])
def test_all_is_as_it_was(kind, error):
    model, data, optimizer = awkward(kind)
    before, places = everything(model, optimizer), [id(p) for p in model.parameters()]
    calls = []

    def loss(outputs, labels):
        calls.append(random.random() + np.random.rand())
        if error and len(calls) == 150:
            raise error
        return cross_entropy(outputs, labels)

    def check():
        return branch(model, loss, data, optimizer, batch_size=8, repeats=3, steps=2, evaluated=99)

    if error:
        with pytest.raises(error if error is KeyboardInterrupt else ValueError):
            check()
    else:
        assert str(check()) == str(check())
    assert len(calls) >= 150
    assert equal(everything(model, optimizer), before)
    assert [id(p) for p in model.parameters()] == places


def test_a_loader_a_data_set_and_tensors_are_the_same():
    model, data, sgd = awkward(torch.optim.SGD)
    loader = DataLoader(TensorDataset(*data), batch_size=8, shuffle=True)
    found = [
        branch(model, cross_entropy, some, sgd, batch_size=8, repeats=3, steps=1)
        for some in (data, TensorDataset(*data), loader)
    ]
    assert found[0] == found[1] == found[2]


class Noisy(torch.utils.data.Dataset):
    """Examples with noise by a generator of its own."""

    def __init__(self, data):
        self.data, self.rng = data, np.random.default_rng(0)

    def __len__(self):
        return len(self.data[0])

    def __getitem__(self, place):
        noise = torch.tensor(self.rng.standard_normal(5), dtype=torch.float32)
        return self.data[0][place] + noise, self.data[1][place]


def test_numbers_of_a_generator_of_the_data_are_common_to_all_branches():
    """Without a step all branches end with the same losses, and the generator is as it was."""
    data = Noisy(awkward(torch.optim.SGD)[1])
    before, model = data.rng.bit_generator.state, nn.Sequential(nn.Linear(5, 3))
    still = torch.optim.SGD(model.parameters(), lr=0.0)
    options = check_options(factors=(2, 4), steps=2, repeats=3, evaluated=64, seed=0)
    run = _Runs((model, still, cross_entropy), Examples(data, torch.device("cpu")), 8, options)
    start, *others = (run.losses(factor) for factor in (0, 1, 2, 4))
    assert len(set(start)) == 3 and all((other == start).all() for other in others)
    branch(model, cross_entropy, data, still, batch_size=8, factors=(2,), repeats=3, steps=1)
    assert data.rng.bit_generator.state == before


def test_memory_that_is_short_ends_the_check():
    model, data, sgd = awkward(torch.optim.SGD)

    def loss(outputs, labels, most=16):
        if len(labels) > most:
            raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB")
        return cross_entropy(outputs, labels)

    options = {"batch_size": 8, "repeats": 3, "steps": 2, "tolerance": 9.0}
    found = branch(model, loss, data, sgd, **options)
    assert found.verdicts == ("kept", "kept", "out of memory")
    assert (found.low, found.high, found.batch_sizes) == (16, None, (8, 16, 32))
    found = branch(model, lambda *pair: loss(*pair, most=8), data, sgd, **options)
    assert found.reason == "twice the batch does not fit into memory"
    with pytest.raises(ValueError, match=r"^batch_size is 8; allowed: one that fits into memory"):
        branch(model, lambda *pair: loss(*pair, most=7), data, sgd, **options)


def test_a_branch_that_diverges_has_lost(quadratic):
    model, data, _ = quadratic()
    sgd = torch.optim.SGD(model.parameters(), lr=1.5)
    found = branch(
        model, zero, data, sgd, batch_size=4, factors=(2, 32), steps=8, repeats=3, evaluated=64
    )
    assert found.verdicts[-1] == "lost" and found.high == 8


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"data": (torch.empty(0, 5), torch.empty(0))}, "data is 'without examples'"),
        ({"data": (torch.ones(3, 5), torch.ones(4))}, r"data is 'a tuple of \[\(3, 5\), \(4,\)\]'"),
        ({"data": Stream()}, "data is 'Stream'; allowed: a tensor of inputs"),
        ({"data": [5]}, "data is .a list of"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"batch_size": 64}, "batch_size times the largest of factors is 1024"),
        ({"factors": (3, 4)}, r"factors is \(3, 4\); allowed: increasing"),
        ({"factors": (4, 2)}, r"factors is \(4, 2\); allowed: increasing"),
        ({"factors": ()}, r"factors is \(\)"),
        ({"factors": None}, "factors is None; allowed: increasing"),
        ({"factors": 4}, "factors is 4; allowed: increasing"),
        ({"factors": [[2], [4, 8]]}, r"factors is \[2\]"),
        ({"repeats": 2}, "repeats is 2"),
        ({"repeats": 10**9}, "repeats is 1000000000"),
        ({"steps": 10**9}, "steps is 1000000000"),
        ({"steps": 0}, "steps is 0"),
        ({"tolerance": 0}, "tolerance is 0"),
        ({"confidence": 1}, "confidence is 1"),
        ({"seed": -1}, "seed is -1"),
        ({"evaluated": 0}, "evaluated is 0"),
        ({"loss": lambda *pair: cross_entropy(*pair) * torch.nan}, "loss is 'not finite'"),
        ({"model": nn.Linear(5, 3)}, "optimizer is 'one of other parameters'"),
        ({"model": 3}, "model is 'int'"),
    ],
)
def test_bad_input_is_named(changes, words):
    model, data, optimizer = awkward(torch.optim.SGD)
    before = everything(model, optimizer)
    options = {"model": model, "loss": cross_entropy, "data": data, "optimizer": optimizer}
    with pytest.raises(ValueError, match=f"^{words}"):
        branch(**{**options, "batch_size": 8, "repeats": 3, "steps": 1, **changes})
    assert equal(everything(model, optimizer), before)


@pytest.mark.parametrize("kind", [torch.optim.LBFGS, torch.optim.RMSprop])
def test_other_optimizers_are_refused(kind):
    model = nn.Linear(5, 3)
    data = torch.ones(40, 5), torch.zeros(40, dtype=int)
    with pytest.raises(ValueError, match=r"^optimizer is '.*'; allowed: a torch.optim.SGD"):
        branch(model, cross_entropy, data, kind(model.parameters()), batch_size=2)


def test_shares_are_ratios_of_means():
    start, base = np.full(5, 3.0), np.array([1.0, 1.1, 0.9, 1.2, 0.8])
    share, low, high = lost_share(start, base, base + 0.5)
    assert low < share < high and share == pytest.approx(0.25)
    assert lost_share(start, base, [*base[:4], np.nan]) == (np.inf,) * 3
    assert np.isnan(lost_share(base, base + np.array([1, -1, 1, -1, 0]), base)).all()
    assert np.isnan(lost_share(base, start, start)).all()
    verdicts = [judge((x, x - 0.1, x + 0.1), 0.2) for x in (0.0, 0.2, 0.4)]
    assert verdicts == ["kept", "cannot tell", "lost"] and judge((np.nan,) * 3, 0.2) == verdicts[1]


def test_the_calibration_is_against_the_exact_loss():
    theta = np.linspace(0.5, 2, 30)
    for lr, size in ((0.01, 4), (0.05, 32)):
        exact = measure_branch.expected_losses(measure_branch.PROBLEM, theta, lr, size, 64 * size)
        problem = replace(measure_branch.PROBLEM, second_moment=theta**2)
        assert exact == pytest.approx(risk(problem, SGD(lr=lr), size, 64), rel=1e-10)


@pytest.mark.parametrize("repeats", [4, 8, 16])
def test_the_stored_calibration_holds_what_is_promised(repeats):
    stored = json.loads(measure_branch.FILE.read_text("utf-8"))
    rows = [row for row in stored["rows"] if row["repeats"] == repeats]
    assert len(rows) == 24 and stored["check"]["checks"] == measure_branch.CHECKS
    assert np.mean([row["covered_with_refusals"] for row in rows]) > 0.93
    assert np.mean([row["wrong"] for row in rows]) < 0.05
    told = np.average([row["covered"] for row in rows], weights=[row["intervals"] for row in rows])
    assert told > (0.93 if repeats == 16 else 0.9)


@pytest.mark.parametrize(
    ("verdicts", "ends"),
    [
        (["kept"] * 4, (8, None)),
        (["kept", "kept", "cannot tell", "kept", "lost"], (2, 16)),
        (["kept", "lost"], (None, 2)),
        (["kept", "cannot tell", "cannot tell"], (None, None)),
    ],
)
def test_the_ends_are_the_last_kept_and_the_first_lost(verdicts, ends):
    sizes = [2**k for k in range(len(verdicts))]
    found = concluded(sizes, [(0, 0, 0)] * len(verdicts), verdicts, 0.2)
    assert (found.low, found.high) == ends
    assert (found.reason is None) == (ends != (None, None))


@pytest.mark.parametrize("seed", [2**32 - 1, 2**70])
def test_any_seed_is_a_seed(seed):
    model, data, sgd = awkward(torch.optim.SGD)
    sgd.param_groups[0]["lr"] = 0.1
    options = {"batch_size": 8, "steps": 8, "repeats": 3, "factors": (2,), "evaluated": 200}
    one, same, other = (
        branch(model, cross_entropy, data, sgd, seed=s, **options) for s in (seed, seed, seed + 1)
    )
    assert one.lost == same.lost != other.lost
