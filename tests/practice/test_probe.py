"""Gradients of single examples against plain ones, and what a probe must not touch."""

import copy
import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, mse_loss
from torch.utils.checkpoint import checkpoint

from batchscaling.noise import gradient_noise, per_example_estimate
from batchscaling.practice import NoiseMeter


class Everything(nn.Module):
    """Dropout, batch normalisation, tied, frozen and unused parameters, a buffer that counts."""

    def __init__(self):
        super().__init__()
        self.body = nn.Linear(5, 5)
        self.again = self.body
        self.shift = self.same = nn.Parameter(torch.linspace(0, 1, 5))
        self.norm = nn.BatchNorm1d(5)
        self.drop = nn.Dropout(0.5)
        self.frozen = nn.Linear(5, 5).requires_grad_(False)
        self.unused = nn.Linear(2, 2)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, inputs):
        self.calls += 1
        hidden = self.norm(self.frozen(self.body(inputs) + self.shift))
        return self.again(torch.tanh(self.drop(hidden)) + self.same)


def examples(count, seed=1):
    rng = torch.Generator().manual_seed(seed)
    inputs = torch.randn(count, 5, generator=rng)
    return inputs, inputs.argmax(1)


def trained(build, steps=3):
    torch.manual_seed(0)
    model = build()
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.1)
    for _ in range(steps):
        optimizer.zero_grad()
        cross_entropy(model(examples(8)[0]), examples(8)[1]).backward()
        optimizer.step()
    return model, optimizer


def rows(model, inputs, labels, params):
    """Return the gradients of single examples, one a row."""
    found = []
    for k in range(len(inputs)):
        loss = cross_entropy(model(inputs[k : k + 1]), labels[k : k + 1])
        found.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, params)]))
    return torch.stack(found).double().numpy()


def small():
    return nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 5))


def adam_squares(optimizer):
    """Return the squared gradients that Adam divides by, corrected, one a parameter."""
    states = optimizer.state_dict()["state"].values()
    return [s["exp_avg_sq"] / (1 - 0.999 ** s["step"]) for s in states]


@pytest.mark.parametrize("chunk", [1, 7, 40])
def test_a_probe_sees_the_gradients_of_single_examples(chunk):
    model, optimizer = trained(small)
    inputs, labels = examples(40)
    found = NoiseMeter(model).probe(cross_entropy, inputs, labels, chunk=chunk)
    gradients = rows(model, inputs, labels, list(model.parameters()))
    exact = gradient_noise(gradients)
    assert found.batch_size == pytest.approx(exact.batch_size, rel=1e-3)
    assert (found.low, found.high) == pytest.approx((exact.low, exact.high), rel=1e-3)
    last = gradient_noise(gradients[:, 24:])
    assert found.groups["2"].trace == pytest.approx(last.trace, rel=1e-4)
    assert (found.measured, found.left_out) == (40, 0)

    squares = torch.cat([square.flatten() for square in adam_squares(optimizer)])
    weighted = gradients / (squares.sqrt().double().numpy() + 1e-8)
    meter = NoiseMeter(model, optimizer, geometry="adam")
    found = meter.probe(cross_entropy, inputs, labels, chunk=chunk)
    exact = per_example_estimate(
        np.sum(gradients * weighted, axis=1), weighted @ gradients.mean(axis=0)
    )
    assert (found.trace, found.signal) == pytest.approx((exact.trace, exact.signal), rel=1e-3)


class Complex(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(5, 5, dtype=torch.complex64))

    def forward(self, inputs):
        return (inputs.to(torch.complex64) @ self.weight).abs()


@pytest.mark.parametrize("geometry", ["euclidean", "adam"])
def test_complex_parameters_are_pairs_of_real_ones(geometry):
    """For a probe, and for a meter with parts of one example."""
    model, optimizer = trained(Complex)
    inputs, labels = examples(20)
    gradients = []
    for some, true in zip(inputs.split(1), labels.split(1)):
        (grad,) = torch.autograd.grad(cross_entropy(model(some), true), [model.weight])
        gradients.append(torch.view_as_real(grad).flatten().double().numpy())
    gradients = np.array(gradients)
    if geometry == "adam":
        square = torch.view_as_real(adam_squares(optimizer)[0]).flatten().double().numpy()
        gradients /= np.sqrt(np.sqrt(square) + 1e-8)
    exact = gradient_noise(gradients)
    meter = NoiseMeter(model, optimizer, geometry=geometry, every=1)
    for _ in range(3):
        model.zero_grad()
        for some, true in zip(inputs.split(1), labels.split(1)):
            (cross_entropy(model(some), true) / 20).backward()
        meter.step(1)
    for found in (meter.probe(cross_entropy, inputs, labels), meter.estimate()):
        assert (found.trace, found.signal) == pytest.approx((exact.trace, exact.signal), rel=1e-3)


def test_coordinates_without_a_gradient_until_now_do_not_count_for_adam():
    """One over epsilon would make them ten thousand times as long as the others."""
    torch.manual_seed(0)
    model = nn.Linear(5, 5, bias=False)
    optimizer = torch.optim.Adam(model.parameters())
    inputs, labels = examples(20)
    cross_entropy(model(inputs * torch.tensor([0, 1, 1, 1, 1])), labels).backward()
    optimizer.step()
    found = NoiseMeter(model, optimizer, geometry="adam").probe(cross_entropy, inputs, labels)
    gradients = rows(model, inputs, labels, [model.weight]).reshape(20, 5, 5)[:, :, 1:]
    square = optimizer.state[model.weight]["exp_avg_sq"].double().numpy()[:, 1:] / (1 - 0.999)
    lengths = (gradients / np.sqrt(np.sqrt(square) + 1e-8)).reshape(20, -1)
    assert found.trace == pytest.approx(gradient_noise(lengths).trace, rel=1e-3)


def test_batch_normalisation_is_that_of_evaluation_and_no_gradient_is_no_number():
    model, _ = trained(Everything)
    model.drop.p = 0.0
    inputs, labels = examples(20)
    found = NoiseMeter(model).probe(cross_entropy, inputs, labels)
    model.eval()
    params = [model.shift, *model.body.parameters(), *model.norm.parameters()]
    exact = gradient_noise(rows(model, inputs, labels, params))
    assert found.trace == pytest.approx(exact.trace, rel=1e-4)
    assert found.groups["unused"].reason == "no gradient was seen"
    assert list(found.groups) == ["shift", "body", "norm", "unused"]


def test_dropout_is_the_same_for_the_norms_and_for_their_mean():
    """Each example has a mask of its own, and the same one in both passes over the chunks."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Dropout(0.5), nn.Linear(200, 1, bias=False))
    inputs, targets = torch.ones(64, 200), torch.zeros(64, 1)

    def loss(outputs, targets):
        return outputs.mean()  # its gradient is the masked input

    found = NoiseMeter(model).probe(loss, inputs, targets, chunk=16)
    # Entries are 0 or 2: variance 1 and mean 1.
    assert found.trace == pytest.approx(200, rel=0.05)
    assert found.signal == pytest.approx(200, rel=0.05)


class DropsByNumpy(nn.Module):
    """Dropout of one input in two; the gradient of an output is twice its mask."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(200))

    def forward(self, inputs):
        mask = np.random.rand(200) < random.choice([0.5])
        return (inputs * 2 * torch.as_tensor(mask) * self.weight).sum(1)


def test_random_numbers_of_numpy_and_python_are_drawn_twice_alike_and_put_back():
    """Mean and variance are one; examples of one chunk would share the mask."""
    np.random.seed(0)

    def states():
        return random.getstate(), np.random.get_state()[1].tolist(), np.random.get_state()[2]

    before = states()
    meter = NoiseMeter(DropsByNumpy())
    found = meter.probe(lambda outputs, _: outputs.mean(), torch.ones(64, 200), torch.zeros(64))
    assert states() == before
    assert found.trace == pytest.approx(200, rel=0.05)
    assert found.signal == pytest.approx(200, rel=0.05)


def test_a_loss_that_depends_on_parameters_otherwise_than_by_the_outputs_is_refused():
    model, _ = trained(small)
    before = [param.grad.clone() for param in model.parameters()]
    weight = model[2].weight

    def decayed(outputs, labels):
        return cross_entropy(outputs, labels) + sum(p.square().sum() for p in model.parameters())

    def pulled(outputs, labels):
        return cross_entropy(outputs, labels) + weight.abs().sum()

    for loss, name in ((decayed, "0.weight"), (pulled, "2.weight")):
        with torch.no_grad(), pytest.raises(ValueError, match=f"^loss is .*{name}.*allowed: one"):
            NoiseMeter(model).probe(loss, *examples(5))
    assert all(map(torch.equal, before, [param.grad for param in model.parameters()]))


def test_a_loss_may_have_parameters_of_its_own():
    model, _ = trained(small)
    scale = torch.ones((), requires_grad=True)
    found = NoiseMeter(model).probe(lambda o, y: cross_entropy(o * scale, y), *examples(20))
    assert found.trace == probe(model, *examples(20)).trace and scale.grad is None


class Keeps(nn.Module):
    """A network that keeps what it computes, in all places that modules have for it."""

    def __init__(self):
        super().__init__()
        self.inner = small()
        self.last, self.calls, self.all, self.named = None, 0, [], {}
        self.inner[1].seen = []

    def forward(self, inputs):
        self.last = self.new = self.named["last"] = self.inner(inputs)
        self.calls += 1
        self.all.append(self.last)
        self.inner[1].seen.append(self.last)
        return self.last


def test_what_a_network_keeps_of_its_forward_pass_is_as_before():
    torch.manual_seed(0)
    model = Keeps()
    probe(model, *examples(5))
    assert (model.last, model.calls, model.all, model.named) == (None, 0, [], {})
    assert model.inner[1].seen == [] and not hasattr(model, "new")
    with torch.no_grad():
        outputs = model(examples(5)[0])
    probe(model, *examples(5))
    assert model.last is outputs and model.all == [outputs] and model.calls == 1
    assert torch.equal(copy.deepcopy(model).last, outputs)


class Keeping(nn.Module):
    """A loss that counts, and keeps a mean of outputs."""

    def __init__(self, *, centred):
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("centre", torch.ones(5))
        self.last, self.centred = None, centred

    def forward(self, outputs, labels):
        self.calls = self.calls + 1
        self.last = outputs
        if self.centred:
            self.centre.mul_(0.9).add_(outputs.detach().mean(0))
        return cross_entropy(outputs, labels)


@pytest.mark.parametrize("centred", [False, True])
def test_what_a_loss_keeps_is_as_before(centred):
    loss = Keeping(centred=centred)
    NoiseMeter(small()).probe(loss, *examples(5))
    assert loss.calls == 0 and torch.equal(loss.centre, torch.ones(5)) and loss.last is None


class Alone(nn.Module):
    """A network of which `torch.func` cannot take the gradients of several examples together."""

    def __init__(self, kind):
        super().__init__()
        self.kind, self.seen = kind, 0
        self.words = nn.Embedding(10, 5, sparse=kind == "sparse")
        self.read = nn.GRU(5, 5, batch_first=True) if kind == "recurrent" else nn.Linear(5, 5)
        self.drop = nn.Dropout(0.5 if kind == "dropout" else 0)
        self.last = nn.Linear(5, 5)

    def forward(self, inputs):
        self.seen += 1
        hidden = self.words(inputs.abs().mul(3).long().clamp(max=9))
        if self.kind == "checkpointed":
            hidden = checkpoint(self.read, hidden, use_reentrant=False)
        else:
            hidden = self.read(hidden)
        hidden = self.drop(hidden[0] if self.kind == "recurrent" else hidden).mean(1)
        if self.kind in ("branching", "dropout") and inputs.sum() > 0:
            hidden = torch.tanh(hidden)
        return self.last(hidden)


@pytest.mark.parametrize("chunk", [3, 32])
@pytest.mark.parametrize("kind", ["recurrent", "sparse", "checkpointed", "branching"])
def test_examples_that_cannot_go_together_go_one_by_one(kind, chunk):
    torch.manual_seed(0)
    model = Alone(kind)
    inputs, labels = examples(20)
    plain = copy.deepcopy(model)
    plain.words.sparse = False
    exact = gradient_noise(rows(plain, inputs, labels, list(plain.parameters())))
    found = NoiseMeter(model).probe(cross_entropy, inputs, labels, chunk=chunk)
    assert found.trace == pytest.approx(exact.trace, rel=1e-4)
    assert found.signal == pytest.approx(exact.signal, rel=1e-3)
    assert model.seen == 0 and all(p.grad is None for p in model.parameters())


def test_one_by_one_in_inference_mode():
    model, (inputs, labels) = Alone("branching"), examples(20)
    outside = NoiseMeter(model).probe(cross_entropy, inputs, labels)
    with torch.inference_mode():
        inside = NoiseMeter(model).probe(cross_entropy, inputs.clone(), labels.clone())
    assert inside.trace == pytest.approx(outside.trace, rel=1e-6)


def test_random_numbers_are_those_of_the_first_pass_one_by_one_too():
    """With other numbers in the second pass, products with the mean would be of other gradients."""
    torch.manual_seed(0)
    model, (inputs, labels) = Alone("dropout"), examples(20)
    torch.manual_seed(7)
    found = NoiseMeter(model).probe(cross_entropy, inputs, labels)
    again = torch.rand(3)
    torch.manual_seed(7)
    gradients = rows(model, inputs, labels, list(model.parameters()))
    torch.manual_seed(7)
    assert torch.equal(again, torch.rand(3))
    assert found.trace == pytest.approx(gradient_noise(gradients).trace, rel=1e-4)


def test_one_by_one_no_example_sees_what_another_left_in_the_loss():
    class Centred(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("centre", torch.zeros(5))

        def forward(self, outputs, labels):
            self.centre.mul_(0.5).add_(outputs.detach().mean(0))
            return cross_entropy(outputs + 1e-3 * self.centre, labels)

    torch.manual_seed(0)
    model, (inputs, labels) = small(), examples(12)
    whole = NoiseMeter(model).probe(Centred(), inputs, labels)
    turned = NoiseMeter(model).probe(Centred(), inputs.flip(0), labels.flip(0))
    assert whole.trace == pytest.approx(turned.trace, rel=1e-7)


def test_an_example_whose_gradient_fails_is_told():
    class Picky(nn.Linear):
        def forward(self, inputs):
            if inputs.max() > 2:
                raise RuntimeError("too bright")
            return super().forward(inputs)

    inputs, labels = examples(10)
    inputs[7, 2] = 3
    with pytest.raises(ValueError, match=r"model .*can be taken \(too bright\)"):
        NoiseMeter(Picky(5, 5)).probe(cross_entropy, inputs.clamp(max=3), labels)


def test_parameters_that_are_frozen_now_do_not_count():
    model, _ = trained(small)
    meter = NoiseMeter(model)
    before = meter.probe(cross_entropy, *examples(20))
    model[0].requires_grad_(False)
    found = meter.probe(cross_entropy, *examples(20))
    assert found.trace == pytest.approx(before.groups["2"].trace)
    assert found.groups["0"].reason == "no gradient was seen"
    model.requires_grad_(False)
    with pytest.raises(ValueError, match="model is 'without a parameter to train'"):
        meter.probe(cross_entropy, *examples(20))


def test_gradients_that_are_not_finite_give_no_number():
    model, optimizer = trained(small, steps=0)
    inputs, labels = examples(5)
    inputs[3] = torch.nan
    found = NoiseMeter(model).probe(cross_entropy, inputs, labels)
    assert found.reason == "gradients are not finite" and found.left_out == 5
    fresh = NoiseMeter(model, optimizer, geometry="adam").probe(cross_entropy, *examples(5))
    assert "no step" in fresh.reason and fresh.batch_size is None


def everything_of(model, optimizer):
    """Return all that training depends on, as one list of tensors."""
    state = [*model.state_dict().values(), *(p.grad for p in model.parameters())]
    state += [v for s in optimizer.state_dict()["state"].values() for v in s.values()]
    state += [torch.tensor([module.training for module in model.modules()])]
    return [torch.get_rng_state(), *(t.clone() for t in state if t is not None)]


def test_nothing_is_touched():
    """A measured and probed run is the plain run, to the last bit."""

    def run(*, measured):
        torch.manual_seed(0)
        model = Everything()
        optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.1)
        meters = []
        if measured:
            kinds = ("euclidean", "adam", "sign")
            meters = [NoiseMeter(model, optimizer, geometry=kind, every=1) for kind in kinds]
        for step in range(5):
            optimizer.zero_grad()
            for part in range(2):
                inputs, labels = examples(6, seed=2 * step + part)
                (cross_entropy(model(inputs), labels) / 2).backward()
            for meter in meters:
                meter.step(6)
            optimizer.step()
            for meter in meters[:2]:
                before = everything_of(model, optimizer)
                meter.probe(cross_entropy, *examples(9), chunk=4)
                after = everything_of(model, optimizer)
                assert all(map(torch.equal, before, after))
        for meter in meters:
            assert meter.estimate().trace > 0
            meter.close()
        assert model.state_dict()["calls"] == 10
        return everything_of(model, optimizer)

    plain, measured = run(measured=False), run(measured=True)
    assert len(plain) == len(measured) and all(map(torch.equal, plain, measured))


def test_modes_and_random_numbers_are_put_back_after_an_error():
    model, optimizer = trained(Everything)
    before = everything_of(model, optimizer)

    def fails(outputs, labels):
        torch.rand(3)
        raise RuntimeError("out of memory")

    with pytest.raises(ValueError, match=r"^model is 'too large'; allowed: one that fits into"):
        NoiseMeter(model).probe(fails, *examples(5))
    assert all(map(torch.equal, before, everything_of(model, optimizer)))


def probe(model, inputs, labels, **changed):
    return NoiseMeter(model).probe(cross_entropy, inputs, labels, **changed)


def sign(model):
    return NoiseMeter(model, geometry="sign")


BAD = [
    ("inputs", lambda m, x, y: probe(m, x.numpy(), y), "ndarray"),
    ("labels", lambda m, x, y: probe(m, x, y[0]), "Tensor"),
    ("labels", lambda m, x, y: probe(m, x, y[:4]), "4 labels"),
    ("labels", lambda m, x, y: probe(m, x[:2], y[:2]), "2 labels"),
    ("chunk", lambda m, x, y: probe(m, x, y, chunk=0), "0"),
    ("confidence", lambda m, x, y: probe(m, x, y, confidence=1), "1"),
    ("geometry", lambda m, x, y: sign(m).probe(mse_loss, x, y), "sign"),
    ("model", lambda m, x, y: probe(
        nn.Sequential(m, nn.BatchNorm1d(5, track_running_stats=False)), x, y), "'1'"),
]  # fmt: skip


@pytest.mark.parametrize("name, call, value", BAD)
def test_bad_input(name, call, value):
    with pytest.raises(ValueError, match=name) as error:
        call(small(), *examples(5))
    assert value in str(error.value) and "allowed" in str(error.value)
