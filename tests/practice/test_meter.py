"""The meter in training loops, against plain gradients and against exact noise scales."""

import copy
import gc
import pickle
from dataclasses import astuple
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

from batchscaling.noise import RunningNoise, quadratic_noise_scales, two_batch_estimates
from batchscaling.nqm import NoisyQuadratic
from batchscaling.practice import NoiseMeter, taps
from batchscaling.practice.geometry import Euclidean, Sign
from batchscaling.training import batches, digits, grid, measure_noise, mlp, sgd
from batchscaling.training.data import generator

each_step = partial(NoiseMeter, every=np.int64(1))


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))


def some_batches(steps, size, seed=1):
    rng = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        yield torch.randn(size, 5, generator=rng), torch.randint(3, (size,), generator=rng)


def backward(model, inputs, labels, parts, factor=1.0):
    """Accumulate the gradients of equal parts."""
    model.zero_grad()
    for some, true in zip(inputs.chunk(parts), labels.chunk(parts), strict=True):
        (factor * cross_entropy(model(some), true) / parts).backward()


def run(model, meter, steps=4, size=12, parts=3, optimizer=None, **changed):
    """Train with a meter; without an optimizer the parameters stay."""
    for inputs, labels in some_batches(steps, size):
        backward(model, inputs, labels, parts, **changed)
        meter.step(size // parts)
        if optimizer is not None:
            optimizer.step()
    return meter.estimate()


def plain_gradients(model, inputs, labels):
    grads = torch.autograd.grad(cross_entropy(model(inputs), labels), list(model.parameters()))
    return [g.double().numpy() for g in grads]


def adam_weights(optimizer):
    """Return one over what Adam divides a gradient by, from its saved state."""
    saved = optimizer.state_dict()
    beta2, eps = saved["param_groups"][0]["betas"][1], saved["param_groups"][0]["eps"]
    for state in saved["state"].values():
        corrected = state["exp_avg_sq"].double().numpy() / (1 - beta2 ** int(state["step"]))
        yield 1 / (np.sqrt(corrected) + eps)


SQUARES = {
    "euclidean": lambda grads, weights: sum(np.sum(g**2) for g in grads),
    "adam": lambda grads, weights: sum(np.sum(w * g**2) for g, w in zip(grads, weights)),
    "sign": lambda grads, weights: sum(np.sum(np.abs(g)) for g in grads) ** 2,
}


@pytest.mark.parametrize("geometry", SQUARES)
@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW])
def test_estimates_are_those_of_plain_gradients(geometry, kind):
    """In total and for each layer, while Adam trains."""
    model, square = network(), SQUARES[geometry]
    optimizer = kind(model.parameters(), lr=0.03, betas=(0.8, 0.9), eps=1e-4)
    meter = each_step(model, optimizer, geometry=geometry, decay=0.7)
    running = RunningNoise(0.7)
    for inputs, labels in some_batches(6, 12):
        if optimizer.state or geometry != "adam":
            weights = list(adam_weights(optimizer)) or [None] * 4
            parts = [plain_gradients(model, inputs[k::4], labels[k::4]) for k in range(4)]
            whole = plain_gradients(model, inputs, labels)
            split = slice(0, 2), slice(2, 4), slice(0, 4)
            small = [np.mean([square(g[s], weights[s]) for g in parts]) for s in split]
            large = [square(whole[s], weights[s]) for s in split]
            running = running.update(*two_batch_estimates(small, large, 3, 12))
        order = torch.arange(12).reshape(3, 4).T.flatten()  # parts 0, 4, 8 and 1, 5, 9 …
        backward(model, inputs[order], labels[order], 4)
        meter.step(3)
        optimizer.step()
    found = meter.estimate()
    expected = np.transpose(astuple(running.estimate()))
    for reading, (value, low, high, trace, signal) in zip(
        [*found.groups.values(), found], expected, strict=True
    ):
        assert (reading.trace, reading.signal) == pytest.approx((trace, signal), rel=2e-5)
        if reading.reason is None:
            assert (reading.batch_size, reading.low) == pytest.approx((value, low), rel=1e-4)
        else:
            assert np.isinf(high) or trace < 0
    assert list(found.groups) == ["0", "2"]
    assert (
        found.measured == (5 if geometry == "adam" else 6) and found.left_out == 6 - found.measured
    )


CURVATURE = 1 / np.arange(1, 61)


def quadratic_readings(copies, sizes, *, steps=20, runs=10, theta=1.0, by_size=False):
    """Return readings of independent copies of a noisy quadratic, and the exact noise scale."""
    model = copies(CURVATURE, np.full(60, theta), 50)
    rng, readings = torch.Generator().manual_seed(0), []
    shares = np.divide(sizes, sum(sizes)) if by_size else np.ones(len(sizes)) / len(sizes)
    for _ in range(runs):
        meter = each_step(model, decay=0.9999)
        for _ in range(steps):
            model.zero_grad()
            for size, share in zip(sizes, shares):
                noise = torch.randn(size, 50, 60, generator=rng, dtype=torch.float64)
                (share * model(noise * model.curvature.sqrt()).mean()).backward()
            meter.step(sizes, by_size=by_size)
        readings += meter.estimate().groups.values()
        meter.close()
    problem = NoisyQuadratic(CURVATURE, second_moment=np.full(60, theta**2))
    return readings, quadratic_noise_scales(problem)[0]


@pytest.mark.parametrize(
    "sizes, by_size",
    [([2, 2], False), ([1, 1, 1, 1], False), ([1, 3], False), ([1, 5], True), ([4, 4, 1], True)],
)
def test_intervals_hold_the_exact_noise_scale(copies, sizes, by_size):
    readings, exact = quadratic_readings(copies, sizes, by_size=by_size)
    assert all(reading.reason is None for reading in readings)
    covered = np.mean([reading.low <= exact <= reading.high for reading in readings])
    assert covered >= 0.93
    assert np.mean([reading.batch_size for reading in readings]) == pytest.approx(exact, rel=0.03)


def test_pure_noise_gives_no_number(copies):
    readings, exact = quadratic_readings(copies, [2, 2], runs=4, theta=0.0)
    assert np.isinf(exact)
    lost = [reading for reading in readings if reading.reason is not None]
    assert len(lost) > 0.95 * len(readings)  # at 95 % one in forty looks clear by chance
    for reading in lost:
        assert "signal is not clear" in reading.reason and str(reading).startswith("cannot tell")
        assert reading.batch_size is reading.low is reading.high is None


def test_equal_parts_have_no_noise_to_divide():
    model = network()
    inputs, labels = next(some_batches(1, 4))
    meter = each_step(model)
    for _ in range(3):
        backward(model, inputs.repeat(2, 1), labels.repeat(2), 2)
        meter.step(4)
    reading = meter.estimate()
    assert "noise is not clear of zero" in reading.reason and reading.batch_size is None


def test_the_sign_is_biased_as_the_documentation_says(copies):
    """Gaussian noise: the sum of absolute values of its folded normal distributions."""
    spread, gradient = np.linspace(1, 3, 60), np.linspace(0.2, 0.4, 60)
    large_noise = spread.sum() / np.sum(gradient**2 / spread)
    for factor, bounds in ((1, (0.9, 1.15)), (0.02, (0.0, 0.3))):
        model = copies(gradient, np.ones(60), 20)
        meter = each_step(model, geometry="sign", decay=0.9999)
        rng = torch.Generator().manual_seed(0)
        for _ in range(60):
            model.zero_grad()
            for _ in range(2):
                noise = torch.randn(1, 20, 60, generator=rng, dtype=torch.float64)
                (model(factor * noise * torch.as_tensor(spread)).mean() / 2).backward()
            meter.step(1)
        groups = meter.estimate().groups.values()
        trace, signal = np.mean([(r.trace, r.signal) for r in groups], axis=0)
        assert bounds[0] < trace / signal / (factor**2 * large_noise) < bounds[1]


def test_a_plain_loop_measures_what_measure_noise_does(as_module):
    data, model = digits(), mlp([64, 16, 10])
    network = as_module(model.init(generator(3, "init")))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.2)
    meter = each_step(network, optimizer, decay=0.9)
    for index, _ in zip(batches(3, len(data.train_inputs), 32), range(30), strict=False):
        backward(network, data.train_inputs[index], data.train_labels[index], 4)
        meter.step(np.int16(8))
        optimizer.step()
    history = measure_noise(
        data, model, sgd, grid([3], lr=0.2), batch_size=32, max_steps=30, parts=4
    )
    running = RunningNoise(0.9)
    for trace, signal in zip(*(values[0] for values in history.estimates()), strict=True):
        running = running.update(trace, signal)
    expected, found = running.estimate(), meter.estimate()
    assert (found.trace, found.signal) == pytest.approx((expected.trace, expected.signal), rel=1e-3)
    assert found.batch_size == pytest.approx(expected.batch_size, rel=1e-3)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), rel=1e-2)


@settings(max_examples=15, deadline=None)
@given(power=st.integers(-20, 20), parts=st.sampled_from([2, 3, 4, 6, 12]))
def test_a_factor_of_the_loss_changes_nothing(power, parts):
    model = network()
    plain = run(model, each_step(model), parts=parts)
    scaled = run(model, each_step(model), parts=parts, factor=2.0**power)
    assert (scaled.batch_size, scaled.reason) == (plain.batch_size, plain.reason)
    assert scaled.trace == plain.trace * 4.0**power


def test_groups_are_those_of_the_optimizer():
    model = network()
    groups = [{"params": model[2].parameters(), "lr": 0.1}, {"params": model[0].parameters()}]
    optimizer = torch.optim.SGD(groups, lr=0.01)
    by_group = run(model, each_step(model, optimizer, groups="optimizer")).groups
    by_layer = run(model, each_step(model)).groups
    assert by_group.keys() == {"0", "1"}
    assert by_group["0"].trace == by_layer["2"].trace
    assert by_group["1"].trace == by_layer["0"].trace
    only = torch.optim.SGD(model[2].parameters(), lr=0.1)
    assert run(model, each_step(model, only)).trace == by_layer["2"].trace


class Sometimes(nn.Module):
    """A layer that only batches with a positive first number pass, and one passed `times`."""

    def __init__(self, *, times=2, reentrant=False):
        super().__init__()
        self.times = times
        torch.manual_seed(0)
        self.first, self.twice, self.rare = nn.Linear(5, 5), nn.Linear(5, 5), nn.Linear(5, 5)
        self.reentrant = reentrant

    def forward(self, inputs):
        hidden = self.first(inputs)
        for _ in range(self.times):
            if self.reentrant:
                hidden = checkpoint(self.twice, hidden, use_reentrant=True)
            else:
                hidden = self.twice(hidden)
            hidden = torch.tanh(hidden)
        return (self.rare(hidden) if inputs[0, 0] > 0 else hidden)[:, :3]


@pytest.mark.parametrize("geometry", ["euclidean", "sign"])
def test_a_layer_without_a_gradient_in_some_parts(geometry):
    model, square, running = Sometimes(), SQUARES[geometry], RunningNoise(0.99)
    found = run(model, each_step(model, geometry=geometry))
    for inputs, labels in some_batches(4, 12):
        norms, total = [], [0.0] * 6
        assert 0 < sum(inputs[k, 0] > 0 for k in (0, 4, 8)) < 3
        for k in (0, 4, 8):
            loss = cross_entropy(model(inputs[k : k + 4]), labels[k : k + 4])
            grads = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
            grads = [np.zeros(1) if g is None else g.double().numpy() for g in grads]
            norms.append(square(grads, None))
            total = [t + g / 3 for t, g in zip(total, grads)]
        running = running.update(*two_batch_estimates(np.mean(norms), square(total, None), 4, 12))
    assert (found.measured, found.left_out) == (4, 0)
    assert found.trace == pytest.approx(running.estimate().trace, rel=1e-4)


@pytest.mark.parametrize("parts", [1, 3])
def test_passes_of_reentrant_checkpoints_are_no_parts(parts):
    """Of the layer that is passed twice there come twice as many gradients as of the first."""
    model = Sometimes(reentrant=True)
    meter = each_step(model)
    for inputs, labels in some_batches(4, 12):
        backward(model, inputs, labels, parts)
        meter.step([12 // parts] * parts)
    assert (meter.estimate().measured, meter.estimate().left_out) == (0, 4)


def test_reentrant_checkpoints_of_layers_that_are_passed_once():
    found = []
    for reentrant in (False, True):
        model = Sometimes(times=1, reentrant=reentrant)
        meter = each_step(model)
        for inputs, labels in some_batches(4, 12):
            backward(model, inputs.abs(), labels, 3)
            meter.step(4)
        found.append(meter.estimate())
    assert found[0].measured == 4 and found[0].trace == found[1].trace


class Odd(nn.Module):
    """A weight that stands in two places, a frozen one, one without a gradient, a sparse one."""

    def __init__(self, *, sparse):
        super().__init__()
        torch.manual_seed(0)
        self.words = nn.Embedding(2, 5, sparse=sparse)
        self.body = nn.Linear(5, 5)
        self.again = self.body
        self.frozen = nn.Linear(5, 5).requires_grad_(False)
        self.unused = nn.Linear(2, 2)

    def forward(self, inputs):
        words = self.words((inputs[:, 0] > 0).long())
        return self.again(torch.tanh(self.frozen(self.body(inputs + words))))[:, :3]


def test_tied_frozen_unused_and_sparse_parameters():
    model, plain = Odd(sparse=True), Odd(sparse=False)
    found, running = run(model, each_step(model)), RunningNoise(0.99)
    trained = [plain.words.weight, *plain.body.parameters()]
    for inputs, labels in some_batches(4, 12):
        norms = []
        for index in (slice(0, 4), slice(4, 8), slice(8, 12), slice(12)):
            grads = torch.autograd.grad(cross_entropy(plain(inputs[index]), labels[index]), trained)
            squares = [float(g.double().square().sum()) for g in grads]
            norms.append([squares[0], squares[1] + squares[2], sum(squares)])
        small = np.mean(norms[:3], axis=0)
        running = running.update(*two_batch_estimates(small, norms[3], 4, 12))
    expected = running.estimate()
    readings = [found.groups["words"], found.groups["body"], found]
    assert [r.trace for r in readings] == pytest.approx(expected.trace, rel=1e-4)
    assert [r.signal for r in readings] == pytest.approx(expected.signal, rel=1e-4)
    assert list(found.groups) == ["words", "body", "unused"]
    assert found.groups["unused"].reason == "no gradient was seen"


def test_steps_that_cannot_be_measured_are_left_out():
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    clean = run(model, each_step(model, optimizer))
    meter = each_step(model, optimizer)
    inputs, labels = next(some_batches(1, 12))
    for factor in (torch.nan, torch.inf):
        backward(model, inputs, labels, 3, factor)
        meter.step(4)
    backward(model, inputs, labels, 1)  # one part only
    meter.step(12)
    model.zero_grad()  # none
    meter.step(12)
    backward(model, inputs, labels, 3)  # clipped too early
    nn.utils.clip_grad_norm_(model.parameters(), 0.01)
    meter.step(4)
    backward(model, inputs, labels, 3)  # taken away
    model.zero_grad()
    meter.step(4)
    backward(model, inputs, labels, 3)  # of which one call is missing
    backward(model, inputs, labels, 3)
    meter.step(4)
    cross_entropy(model(inputs), labels).backward()  # not set to zero before
    cross_entropy(model(inputs), labels).backward()
    meter.step(4)
    before = meter.estimate()
    assert before.reason.startswith("it takes three steps")
    assert (before.measured, before.left_out) == (0, 8) and before.trace is None
    assert before.groups["0"].reason == before.reason
    after = run(model, meter)
    assert (after.batch_size, after.low, after.high) == (clean.batch_size, clean.low, clean.high)
    assert (after.measured, after.left_out) == (4, 8)


@pytest.mark.parametrize("steps", [1, 2])
def test_adam_may_begin_with_steps_of_which_the_meter_is_not_told(steps):
    """Its first gradient has no weight yet, the second has: they are one step, left out."""
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    meter = each_step(model, optimizer, geometry="adam")
    for inputs, labels in some_batches(steps, 12):
        backward(model, inputs, labels, 1)
        optimizer.step()
    meter.step(12)
    found = run(model, meter)
    assert (found.measured, found.left_out) == (4, 1)
    expected = run(model, each_step(model, optimizer, geometry="adam"))
    assert (found.trace, found.signal) == (expected.trace, expected.signal)


def test_a_checkpoint_of_adam_may_be_loaded_after_the_meter_is_made():
    """State and betas are those of the checkpoint, for each group."""
    model = network()
    trained = torch.optim.Adam(model.parameters(), lr=0.01, betas=(0.9, 0.8))
    run(model, each_step(model), optimizer=trained)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    meter = each_step(model, optimizer, geometry="adam")
    optimizer.load_state_dict(trained.state_dict())
    found, expected = run(model, meter), run(model, each_step(model, trained, geometry="adam"))
    assert found.measured == 4 and found.trace == expected.trace
    run(model, each_step(model), optimizer=trained, factor=3.0)
    optimizer.load_state_dict(trained.state_dict())
    inputs, labels = next(some_batches(1, 20))
    late = each_step(model, optimizer, geometry="adam").probe(cross_entropy, inputs, labels)
    assert meter.probe(cross_entropy, inputs, labels).trace == late.trace


def test_a_layer_may_be_frozen_and_trained_again():
    """Frozen, it counts as without a gradient; the other layer is measured as before."""

    def groups(frozen):
        model = network()
        meter = NoiseMeter(model, every=2)
        for step, (inputs, labels) in enumerate(some_batches(12, 12)):
            model[0].requires_grad_(step not in frozen)
            backward(model, inputs, labels, 3)
            meter.step(4)
        found = meter.estimate()
        assert (found.measured, found.left_out) == (6, 0)
        return found.groups

    partly, always = groups(range(3, 9)), groups(())
    assert partly["2"].trace == always["2"].trace
    assert 0.3 < partly["0"].trace / always["0"].trace < 0.7


def test_one_step_of_every_few():
    model = network()
    some = run(model, NoiseMeter(model, every=3), steps=10)
    assert some.measured == 4
    running = RunningNoise(0.99)
    for step, (inputs, labels) in enumerate(some_batches(10, 12)):
        if step % 3 == 0:
            parts = [
                plain_gradients(model, inputs[k : k + 4], labels[k : k + 4]) for k in (0, 4, 8)
            ]
            norms = [np.mean([SQUARES["euclidean"](g, None) for g in parts])]
            norms += [SQUARES["euclidean"](plain_gradients(model, inputs, labels), None)]
            running = running.update(*two_batch_estimates(*norms, 4, 12))
    assert some.trace == pytest.approx(running.estimate().trace, rel=1e-5)


def test_the_scale_of_mixed_precision_is_divided_out():
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    plain = run(model, each_step(model, optimizer), optimizer=optimizer)
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=1)
    meter = each_step(model, optimizer, scaler=scaler)
    late = each_step(model, optimizer, scaler=scaler)
    for inputs, labels in some_batches(4, 12):
        optimizer.zero_grad()
        for some, true in zip(inputs.chunk(3), labels.chunk(3), strict=True):
            scaler.scale(cross_entropy(model(some), true) / 3).backward()
        meter.step(4)
        scaler.unscale_(optimizer)
        late.step(4)
        scaler.step(optimizer)
        scaler.update()
    found = meter.estimate()
    assert scaler.get_scale() > 2**10
    assert (found.trace, found.signal) == pytest.approx((plain.trace, plain.signal), rel=1e-6)
    assert (late.estimate().measured, late.estimate().left_out) == (0, 4)


def test_sizes_of_half_precision_and_of_many_numbers():
    rng = torch.Generator().manual_seed(0)
    many = torch.randn(2000, 2000, generator=rng)
    for grad in (many, many.T, many.flatten()[1:], many[:1], 500 * torch.ones(3000).half()):
        for geometry in (Euclidean(), Sign()):
            exact = np.linalg.norm(grad.double().numpy().flatten(), geometry.order)
            assert float(geometry.size(grad, None)) == pytest.approx(exact, rel=2e-6)


def test_every_hook_goes(copies):
    model = network()
    meter = NoiseMeter(model)
    meter.close()
    backward(model, *next(some_batches(1, 12)), 3)
    for param in model.parameters():
        assert not param._backward_hooks and not param._post_accumulate_grad_hooks
    for _ in range(11):
        meter.step(4)
    backward(model, *next(some_batches(1, 12)), 3)
    assert not any(param._backward_hooks for param in model.parameters())
    assert (meter.estimate().measured, meter.estimate().left_out) == (0, 0)


def test_no_hook_outlives_its_meter():
    model = network()
    inputs, labels = next(some_batches(1, 12))
    NoiseMeter(model).probe(cross_entropy, inputs, labels)
    for param in model.parameters():
        assert not param._backward_hooks and not param._post_accumulate_grad_hooks


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda both: pickle.loads(pickle.dumps(both))])
def test_a_copy_of_a_meter_goes_on_with_the_copy_of_its_network(copied):
    model = network()
    meter = each_step(model)
    backward(model, *next(some_batches(1, 12)), 3)
    other, theirs = copied((model, meter))
    meter.step(4)
    found = run(other, theirs, steps=3)
    assert found.measured == 3 and meter.estimate().measured == 1
    assert found.trace == run(other, each_step(other), steps=3).trace
    del theirs
    gc.collect()
    assert not any(param._backward_hooks for param in other.parameters())
    assert all(param._backward_hooks for param in model.parameters())


def test_without_a_step_little_is_kept(monkeypatch):
    """A step of so many parts is left out, and then the meter goes on."""
    monkeypatch.setattr(taps, "MOST", 20)
    model = network()
    meter, clean = each_step(model), run(model, each_step(model), steps=3, size=20, parts=20)
    inputs, labels = next(some_batches(1, 2))

    def tensors():
        return sum(isinstance(each, torch.Tensor) for each in gc.get_objects())

    backward(model, inputs, labels, 1)
    before = tensors()
    for _ in range(29):
        backward(model, inputs, labels, 1)
    assert tensors() <= before
    meter.step([2] * 30)
    found = run(model, meter, steps=3, size=20, parts=20)
    assert (found.measured, found.left_out) == (3, 1)
    assert found.trace == clean.trace


def test_default_dtype_and_numpy_sizes():
    before = torch.get_default_dtype()
    try:
        torch.set_default_dtype(torch.float64)
        model = network()
        meter = each_step(model, decay=np.float32(0.5))
        for inputs, labels in some_batches(3, 12):
            backward(model, inputs, labels, 3)
            meter.step(np.array([4, 4, 4], dtype=np.int8))
    finally:
        torch.set_default_dtype(before)
    assert meter.estimate(np.float32(0.9)).measured == 3


def adam():
    return torch.optim.Adam(network().parameters())


BAD = [
    ("model", lambda: each_step(lambda x: x), "function"),
    ("model", lambda: each_step(nn.ReLU()), "without a parameter"),
    ("model", lambda: each_step(network(), adam()), "without a parameter"),
    ("optimizer", lambda: each_step(network(), "adam"), "'adam'"),
    ("optimizer", lambda: each_step(network(), geometry="adam"), "None"),
    ("optimizer", lambda: each_step(network(), groups="optimizer"), "None"),
    ("geometry", lambda: each_step(network(), geometry="plain"), "'plain'"),
    ("groups", lambda: each_step(network(), groups=["0"]), "['0']"),
    ("scaler", lambda: each_step(network(), scaler=1024.0), "1024.0"),
    ("every", lambda: NoiseMeter(network(), every=0), "0"),
    ("decay", lambda: each_step(network(), decay=1), "1"),
    ("part_size", lambda: each_step(network()).step(0), "0"),
    ("part_size", lambda: each_step(network()).step(2.5), "2.5"),
    ("part_size", lambda: each_step(network()).step([4, 4]), "(2,)"),
    ("part_size", lambda: each_step(network()).step([4, 0]), "0"),
    ("by_size", lambda: each_step(network()).step(4, by_size=1), "1"),
    ("confidence", lambda: each_step(network()).estimate(95), "95"),
]  # fmt: skip


@pytest.mark.parametrize("name, call, value", BAD)
def test_bad_input(name, call, value):
    with pytest.raises(ValueError, match=name) as error:
        call()
    assert value in str(error.value) and "allowed" in str(error.value)


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.Adamax])
def test_the_geometry_of_adam_needs_a_relative_of_adam(kind):
    model = network()
    optimizer = kind(model.parameters(), lr=0.01)
    with pytest.raises(ValueError, match=r"optimizer .*allowed: Adam"):
        run(model, each_step(model, optimizer, geometry="adam"), optimizer=optimizer)
