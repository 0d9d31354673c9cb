"""Repeated steps: the bits of plain ones, and no recording of what may be another next time."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.func import vjp, vmap
from torch.utils._pytree import tree_leaves, tree_map

from batchscaling.training import (
    OPTIMIZERS,
    BatchSizes,
    Data,
    Optimizer,
    Schedule,
    autoencoder,
    bernoulli_cross_entropy,
    chain,
    extrap_sgd,
    grid,
    heavy_ball,
    linear_decay,
    local_steps,
    lstm,
    mlp,
    multiply_schedules,
    nesterov_lookahead,
    outer_steps,
    perturbed,
    recorded,
    resnet8,
    resnet32,
    sgd,
    simple_cnn,
    squared_error,
    step_drops,
    train,
    transformer_lm,
)
from batchscaling.training.data import FlipCrop
from batchscaling.training.models.taps import Diagonal
from batchscaling.training.recorded import Recorded, Recording

VALUES = {
    "momentum": [0.5, 0.9],
    "beta1": 0.9,
    "damping": 0.01,
    "kl_clip": 0.01,
    "radius": 0.01,
    "extrapolation": 0.02,
    "decay_steps": 9,
    "final_fraction": 0.1,
    "outer_lr": 0.7,
    "outer_momentum": 0.5,
}


def noted(monkeypatch, owner, name, argument):
    """Return the list of what a function gets as one of its arguments; it grows."""
    found, plain = [], getattr(owner, name)

    def function(*arguments):
        found.append(arguments[argument])
        return plain(*arguments)

    monkeypatch.setattr(owner, name, function)
    return found


@pytest.fixture
def made(monkeypatch):
    """Return the list of recordings that are made into functions; it grows."""
    return noted(monkeypatch, Recording, "function", 0)


@pytest.fixture
def written(monkeypatch):
    """Return the list of the names that operations write over, None for new memory; it grows."""
    return noted(monkeypatch, recorded, "_callable", 1)


def both(monkeypatch, *arguments, **options):
    """Return the results of plain steps, and of those that are repeated from the fifth on."""
    results = []
    for calls in (10**9, 2):
        monkeypatch.setattr(recorded, "PLAIN", calls)
        results.append(train(*arguments, **options))
    return results


def assert_same(plain, repeated):
    for name, losses in plain.losses.items():
        np.testing.assert_array_equal(repeated.losses[name], losses)
    np.testing.assert_array_equal(repeated.accuracy, plain.accuracy)
    np.testing.assert_array_equal(repeated.diverged, plain.diverged)


def trials_of(optimizer, *, seeds=(0, 1), lr=0.02, **more):
    values = {n: VALUES[n] for n in optimizer.hyper if n != "lr"} | more
    return grid(seeds, lr=lr, **values)


def noise(shape, labels, examples=24):
    """Return data of random numbers; `labels` gives those of so many examples."""
    rng = torch.Generator().manual_seed(0)
    inputs = torch.randn(examples, *shape, generator=rng)
    half, targets = examples // 2, labels(rng, inputs)
    return Data(inputs[:half], targets[:half], inputs[half:], targets[half:])


def classes(rng, inputs):
    return torch.randint(10, (len(inputs),), generator=rng)


def words(examples=24, length=5, vocabulary=10):
    """Return sequences, every third position of whose labels does not count."""
    rng = torch.Generator().manual_seed(0)
    inputs = torch.randint(vocabulary, (examples, length + 1), generator=rng)
    labels = inputs[:, 1:].clone()
    labels[:, ::3] = -1
    half = examples // 2
    return Data(inputs[:half, :-1], labels[:half], inputs[half:, :-1], labels[half:])


@pytest.mark.parametrize("network", ["mlp", "cnn"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_gives_the_same_bits(data, monkeypatch, made, name, network):
    optimizer = OPTIMIZERS[name]
    task = (data, mlp([64, 8, 10]))
    if network == "cnn":
        task = noise((1, 4, 4), classes), simple_cnn(4, filters=(2, 3), units=5)
    options = {"batch_size": 8, "max_steps": 14, "measures": ["training"]}
    assert_same(*both(monkeypatch, *task, optimizer, trials_of(optimizer), **options))
    # Of the gradient, the update, and where the gradient is taken if that is elsewhere.
    assert len(made) == 2 + (optimizer.query is not None)


NETWORKS = {
    "autoencoder": (autoencoder([6, 4, 2]), lambda: noise((6,), lambda rng, x: x.sigmoid()),
                    {"loss": bernoulli_cross_entropy}),
    "squared error": (mlp([6, 4, 2]), lambda: noise((6,), lambda rng, x: x[:, :2].sin()),
                      {"loss": squared_error}),
    "label smoothing": (mlp([6, 4, 10]), lambda: noise((6,), classes), {"label_smoothing": 0.1}),
    "loops of convolutions": (simple_cnn(4, filters=(96, 64), units=5),
                              lambda: noise((1, 4, 4), classes), {}),
    "augmented": (simple_cnn(4, filters=(2, 3), units=5),
                  lambda: replace(noise((1, 4, 4), classes), augment=FlipCrop(1)), {}),
    "residual": (resnet8(width=2), lambda: noise((3, 8, 8), classes), {}),
    "normalised": (resnet32(ghost_size=4, width=2), lambda: noise((3, 8, 8), classes), {}),
    "lstm": (lstm(10, units=4), words, {}),
    "transformer": (transformer_lm(10, width=4, heads=2, units=8), words, {}),
}  # fmt: skip


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_and_losses_give_the_same_bits(monkeypatch, made, name):
    model, data, options = NETWORKS[name]
    trials = trials_of(heavy_ball, lr=[0.01, 0.05])
    task = {"batch_size": 8, "max_steps": 8} | options
    assert_same(*both(monkeypatch, data(), model, heavy_ball, trials, **task))
    assert len(made) == 2


HALVES = step_drops([7], 0.5)
WAYS = {
    "a schedule": {"schedule": HALVES},
    "a schedule of each trial": {"schedule": multiply_schedules(linear_decay, HALVES)},
    "averages": {"measures": ["averaged"], "decay": 0.9},
    "batch sizes": {"batch_size": BatchSizes([(7, 6), (8, 12)])},
    "parts of rows": {"at_once": 40},
    "parts of batches": {"at_once": 20},
    "workers": {"exchange": local_steps(2, 4)},
    "an outer optimizer": {"exchange": outer_steps(2, 4)},
    "a draw and a query": {"optimizer": chain(perturbed, nesterov_lookahead)},
    "an own gradient": {"optimizer": extrap_sgd, "exchange": local_steps(2, 4)},
    "one seed": {"seeds": 0, "lr": np.geomspace(0.01, 0.3, 4)},
    "bfloat16": {"precision": "bf16"},
}


@pytest.mark.parametrize("name", WAYS)
def test_every_way_of_training_gives_the_same_bits(data, model, monkeypatch, made, name):
    options = {"batch_size": 12, "max_steps": 15} | WAYS[name]
    optimizer = options.pop("optimizer", heavy_ball)
    rates = {n: options.pop(n) for n in ("seeds", "lr", "decay") if n in options}
    for part in (options.get("schedule"), options.get("exchange")):
        rates |= {n: VALUES[n] for n in ([] if part is None else part.hyper)}
    trials = trials_of(optimizer, **rates)
    assert_same(*both(monkeypatch, data, model, optimizer, trials, **options))
    assert (len(made) >= 2) == (name != "bfloat16")


def test_trials_that_end_at_different_steps_end_there(data, model, monkeypatch, made):
    trials = trials_of(heavy_ball, lr=[*np.geomspace(0.01, 0.2, 6), 1e30])
    options = {"batch_size": 32, "max_steps": 80, "target": 0.6}
    plain, repeated = both(monkeypatch, data, model, heavy_ball, trials, **options)
    assert_same(plain, repeated)
    assert len(np.unique(plain.steps_to_target)) > 5 and plain.diverged.any()
    assert len(made) > 4


def test_without_the_rows_that_ended_nothing_is_kept(data, model, monkeypatch):
    kept, forget = [], Recorded.forget
    monkeypatch.setattr(Recorded, "forget", lambda self: (kept.append(self), forget(self)))
    train(data, model, sgd, trials_of(sgd, lr=[0.1, 1e30]), batch_size=8, max_steps=20)
    assert len(kept) == 4  # two at the start, two when half of the rows have diverged


def test_a_schedule_that_python_computes_is_no_constant(data, model, monkeypatch, made):
    ramp = Schedule(lambda step, hyper: 1 / (1 + step), {})
    task = data, model, sgd, trials_of(sgd, lr=0.5)
    assert_same(*both(monkeypatch, *task, batch_size=8, max_steps=20, schedule=ramp))
    assert len(made) == 2


def calls(function, *arguments, constants=(), spent=(), count=9, monkeypatch):
    """Return what plain calls and recorded ones give, each argument a function of the call."""
    monkeypatch.setattr(recorded, "PLAIN", 2)
    repeated = Recorded(function, constants, spent=spent)
    for i in range(count):
        torch.manual_seed(i)
        want = tree_leaves(function(*(argument(i) for argument in arguments)))
        torch.manual_seed(i)
        have = tree_leaves(repeated(*(argument(i) for argument in arguments)))
        yield want, have


def assert_equal_calls(*arguments, **options):
    for want, have in calls(*arguments, **options):
        assert len(want) == len(have) and all(map(torch.equal, want, have))


def number(i):
    return torch.tensor([[1.0, -2.0], [3.0, float(i)]])


def through_a_view(t):
    total = t + 1
    total[0].mul_(t[1])
    return total


PURE = {
    "through a view": through_a_view,
    "gradient": vmap(torch.func.grad(lambda t: (t.tanh() ** 3 * 2.5).sum())),
    "in place": lambda t: t.mul_(2).add_(t[0].clone()),
    "unchanged": lambda t: {"same": t, "view": t.view(2, 2), "twice": (t, t)},
    "parts": lambda t: tuple(t.unbind()) + torch.split(t, 1),
    "made": lambda t: t + torch.ones(2, 2, dtype=torch.float64, device="cpu") * float("inf"),
    "written": lambda t: torch.add(t, 1, out=torch.empty(2, 2)),
    "named": lambda t: Diagonal(t.max(0).values),
    "by index": lambda t: t[torch.arange(2), :1],
    "several": lambda t: tuple(torch.sort(t)),
    "sparse": lambda t: torch.sparse.mm(t.to_sparse_csr(), t) + 1,
}


@pytest.mark.parametrize("name", PURE)
def test_a_pure_function_is_repeated(monkeypatch, made, name):
    assert_equal_calls(PURE[name], number, monkeypatch=monkeypatch)
    assert len(made) == 1


def test_a_view_that_is_made_twice_is_made_once_and_sees_what_is_written(monkeypatch, made):
    def function(t):
        first = t.mT * 1
        t.mT.add_(1)
        return first, t.mT * 1, torch.add(t.mT, t.mT.permute(0, 1), out=torch.empty(2, 2))

    assert_equal_calls(function, number, monkeypatch=monkeypatch)
    assert sum(line.operation.is_view for line in made[0].lines) == 1


def two_views(t):
    total = t * 2
    turned, more = total.mT, total + 1
    return turned - more


def view_of_a_view(t):
    total = t * 2
    row, more = total.mT[0], total + 1
    return more, row * 2


def view_that_does_not_say_so(t):
    total = t * 2
    flat = torch.ops.aten._unsafe_view(total, [4])
    return flat + 1, total * 1


def parts_that_do_not_say_so(t):
    total = t * 2
    first, second = torch.unsafe_split(total, 1)
    more = total + 1
    return first * 1, second * 1, more


def written_into_by_name(t):
    total = t * 2
    turned = total.mT
    torch.add(t, 3, out=total)
    more = total + 1
    return turned * 1, more


def itself_and_its_view(t):
    total = t * 2
    return total + total.mT


def wider(t):
    return (t[:1] * 2) + t


def twice(t):
    total = t * 2
    return total + 1, total - 1


OVER = {
    "a chain": (lambda t: torch.relu((t * 2 + 1).mT - t), 3),
    "of columns": (lambda t: (t * 2).mT + t, 1),
    "what is given": (lambda t: t + 1, 0),
    "what is returned": (lambda t: (lambda two: (two, two + 1))(t * 2), 0),
    "what is needed again": (twice, 1),
    "what a view needs": (two_views, 1),
    "what a view of a view needs": (view_of_a_view, 0),
    "what is seen elsewhere": (view_that_does_not_say_so, 1),
    "parts that are needed": (parts_that_do_not_say_so, 1),
    "what a view of a result sees": (written_into_by_name, 0),
    "a number first": (lambda t: torch.sub(1.0, torch.mul(0.5, torch.add(1, t))), 2),
    "its own view": (itself_and_its_view, 0),
    "of another shape": (wider, 0),
    "all rows in one": (lambda t: (t[:1] * 2).expand(2, 2) + t, 0),
    "of another type": (lambda t: (t.long() * 2) + t, 1),
    "a gradient": (lambda t: vjp(torch.relu, t)[1](t * 2)[0], 1),
    "a mean": (lambda t: torch.lerp(t * 2, t, t[:1]).abs().sqrt(), 2),
    "a mask": (lambda t: (t * 2).masked_fill(t > 2, -1), 1),
    "the second of two": (lambda t: t + t * 2, 1),
    "the second of a gradient": (lambda t: vjp(torch.tanh, t * 1)[1](t)[0], 2),
}


@pytest.mark.parametrize("name", OVER)
def test_results_are_written_over_what_nothing_needs(monkeypatch, written, name):
    function, count = OVER[name]
    assert_equal_calls(function, number, monkeypatch=monkeypatch)
    assert sum(place is not None for place in written) == count and len(written) > 0


def moved(grad, velocity, param, rate):
    velocity = torch.addcmul(grad, rate, velocity)
    return param.add_(rate * velocity), velocity


SPENT = {
    "both": (moved, (0, 1), 2),
    "a gradient": (moved, (0,), 1),
    "a velocity": (moved, (1,), 1),
    "neither": (moved, (), 0),
    "what is returned": (lambda g, v, p, r: (v, v + g, v + p, v - g), (0, 1), 1),
    "what a view returns": (lambda g, v, p, r: (v[0], v + p, v + r), (1,), 0),
    "a view that is needed": (lambda g, v, p, r: (lambda w: (v + 1, w + 1))(v.mT), (1,), 1),
    "twice, in turn": (lambda g, v, p, r: (p + r, p - r, p * r), (0, 1), 2),
    "of another layout": (lambda g, v, p, r: p.mT + r.mT, (0, 1), 0),
}


@pytest.mark.parametrize("name", SPENT)
def test_results_are_written_over_spent_arguments(monkeypatch, written, name):
    function, spent, count = SPENT[name]
    given = [lambda i, k=k: number(i) + k for k in range(4)]
    assert_equal_calls(function, *given, spent=spent, monkeypatch=monkeypatch)
    assert sum(place is not None for place in written) == count and len(written) > 0


def test_arguments_that_are_not_spent_stay_as_they_are(monkeypatch, written):
    monkeypatch.setattr(recorded, "PLAIN", 2)
    repeated = Recorded(lambda one, other: (one + other, one - other), spent=(1,))
    for i in range(6):
        one, other = number(i), number(i) * 2
        repeated(one, other)
        assert torch.equal(one, number(i))
        assert torch.equal(other, number(i) * 2) == (i < 4)
    assert sum(place is not None for place in written) == 1


CONSTANT = number(0)
SHARED = {
    "a view": lambda t: ({"one": t}, {"other": t.mT}),
    "parts": lambda t: ({"one": t[:1], "other": t[1:]}, {}),
    "a view that is not spent": lambda t: ({"one": t}, {}, t.view(2, 2)),
    "a view of a constant": lambda t: ({"one": CONSTANT.view(2, 2)}, {}),
}


def each_plus_one(*trees):
    return *(t + 1 for t in tree_leaves(trees)), CONSTANT * 1


def assert_repeated(repeated, calls):
    for arguments in calls:
        have, want = repeated(*arguments()), each_plus_one(*arguments())
        assert all(map(torch.equal, have, want))


@pytest.mark.parametrize("name", SHARED)
def test_nothing_is_written_over_memory_that_two_arguments_share(monkeypatch, written, name):
    monkeypatch.setattr(recorded, "PLAIN", 2)
    repeated = Recorded(each_plus_one, [CONSTANT], spent=(0, 1))
    assert_repeated(repeated, [lambda i=i: SHARED[name](number(i)) for i in range(6)])
    assert len(written) > 0 and not any(written)


@pytest.mark.parametrize("name", SHARED)
def test_memory_that_is_shared_in_a_later_call_is_not_written_over(monkeypatch, written, name):
    """The layouts are those of the calls that were recorded."""
    monkeypatch.setattr(recorded, "PLAIN", 2)
    repeated = Recorded(each_plus_one, [CONSTANT], spent=(0, 1))
    apart = SHARED[name](number(1))
    calls = [lambda: tree_map(lambda t: t.clone(), apart)] * 5
    calls += [lambda i=i: SHARED[name](number(i)) for i in range(9)]
    assert_repeated(repeated, calls + calls[:2])
    assert any(written) and torch.equal(CONSTANT, number(0))


def test_what_was_made_for_inference_is_not_written_over(monkeypatch, written):
    monkeypatch.setattr(recorded, "PLAIN", 2)
    repeated = Recorded(each_plus_one, [CONSTANT], spent=(0, 1))

    def arguments():
        with torch.inference_mode():
            return {"one": number(3) * 1}, {}

    assert_repeated(repeated, [arguments] * 6)
    assert len(written) > 0 and not any(written)


def test_a_sparse_tensor_may_be_spent(monkeypatch):
    given = [lambda i: number(i).to_sparse()]
    assert_equal_calls(lambda t: t.to_dense() + 1, *given, spent=(0,), monkeypatch=monkeypatch)


def remembering(first, then, delays=7):
    """Return SGD with a state of many slots, in which what `first` and `then` give moves on."""
    last = str(delays - 1)

    def init(params):
        zeros = {name: torch.zeros_like(p) for name, p in params.items()}
        slots = {str(i): tree_map(torch.clone, zeros) for i in range(delays)}
        return slots | {str(i): slot for i, slot in enumerate(first(params))}

    def update(grads, state, params, hyper):
        moved = {n: g + 0.5 * state[last][n] + state["0"][n].cos() for n, g in grads.items()}
        slots = {str(i): state[str(i - 1)] for i in range(1, delays)}
        new = {n: -hyper["lr"] * g for n, g in moved.items()}
        return new, slots | {str(i): slot for i, slot in enumerate(then(grads, params, moved))}

    return Optimizer(init, update, {"lr": sgd.hyper["lr"]})


def views(params):
    return {name: p.view_as(p) for name, p in params.items()}


def ones(params):
    one = {name: torch.ones_like(p) for name, p in params.items()}
    return one, views(one)


REMEMBERED = {
    "the gradient": (lambda p: (), lambda g, p, m: (g,)),
    "the gradient twice": (lambda p: (), lambda g, p, m: (g, views(g))),
    "the parameters": (lambda p: (), lambda g, p, m: (p,)),
    "the first parameters": (lambda p: (views(p),), lambda g, p, m: (g,)),
    "two views": (ones, lambda g, p, m: (g,)),
    "what is new": (lambda p: (), lambda g, p, m: (m, views(m))),
}
PARTS = {
    "one size": {"batch_size": 8},
    "parts": {"batch_size": 16, "at_once": 50},
    "whole and parts": {"batch_size": BatchSizes([(9, 16), (9, 4), (18, 16)]), "at_once": 50},
}


@pytest.mark.parametrize("way", PARTS)
@pytest.mark.parametrize("name", REMEMBERED)
def test_states_keep_what_they_are_given(monkeypatch, made, name, way):
    """Also where two tensors become one only after steps were recorded."""
    data, model = noise((6,), classes, examples=64), mlp([6, 4, 10])
    trials = grid([0, 1], lr=[0.01, 0.05])
    optimizer = remembering(*REMEMBERED[name])
    assert_same(*both(monkeypatch, data, model, optimizer, trials, max_steps=36, **PARTS[way]))
    assert len(made) >= 1


def test_a_step_writes_over_gradient_and_velocity(data, model, monkeypatch, written):
    task = {"batch_size": 8, "max_steps": 6}
    both(monkeypatch, data, model, heavy_ball, trials_of(heavy_ball), **task)
    assert {f"t{i}" for i in range(8)} <= set(written)  # four gradients, four velocities


def test_each_layout_has_a_recording_of_its_own(monkeypatch, made):
    """Of what `t.view(-1)` copies where numbers do not follow one another, and only there."""
    kinds = (number, lambda i: number(i).T, lambda i: number(i)[:1], lambda i: number(i).double())
    repeated = Recorded(lambda t: t.reshape(-1).add_(1))
    monkeypatch.setattr(recorded, "PLAIN", 2)
    for i, kind in itertools.product(range(6), kinds):
        given, wanted = kind(i), kind(i)
        result = repeated(given)
        assert torch.equal(result, wanted.reshape(-1).add_(1)) and torch.equal(given, wanted)
    assert len(made) == len(kinds)


def test_a_tensor_that_is_given_twice_is_not_taken_for_one(monkeypatch, made):
    repeated = Recorded(lambda one, other: one - other)
    monkeypatch.setattr(recorded, "PLAIN", 2)
    for i in range(9):
        one = number(i)
        other = one if i < 6 else number(2)
        assert torch.equal(repeated(one, other), one - other)
    assert made == []


def counter():
    count = itertools.count()
    return lambda t: t * (next(count) // 2)  # a plain call, and one that may be recorded


table = torch.zeros(2)


def from_a_table(t):
    table.add_(t[0, 0])
    return t + table


OTHER = {
    "draws": lambda t: t + torch.rand(2),
    "drops": lambda t: torch.dropout(t, 0.5, True),
    "looks at a number": lambda t: t if t[1, 1] > 6 else -t,
    "takes a number": lambda t: t * t[1, 1].item(),
    "takes all numbers": lambda t: t * sum(t[1].tolist()),
    "selects by a mask": lambda t: t[t > 3].sum(),
    "writes by a mask": lambda t: t.index_put_([t > 3], torch.tensor(0.0)),
    "looks for numbers": lambda t: (t > 3).nonzero().sum(0),
    "counts": counter(),
    "goes by numpy": lambda t: t + torch.from_numpy(t.numpy() ** 2),
    "takes what is not given": lambda t: t + torch.tensor(len(t) + 0.5),
    "returns a number": lambda t: (t, 3),
    "returns a list": lambda t: [t],
    "returns another tuple": lambda t: torch.sort(t),
}  # fmt: skip


@pytest.mark.parametrize("name", OTHER)
def test_what_may_be_another_next_time_is_not_repeated(monkeypatch, made, name):
    for want, have in calls(OTHER[name], number, monkeypatch=monkeypatch):
        assert str(want) == str(have)
    assert made == []
