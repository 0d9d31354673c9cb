"""The noise scale over a stretch of a run: plain probes on the way, and how many it takes."""

import copy

import numpy as np
import pytest
import torch
from test_branch import Mean, awkward, equal, everything
from torch.nn.functional import cross_entropy

from batchscaling.noise import ratio_estimate
from batchscaling.practice import NoiseMeter
from batchscaling.practice.examples import Examples
from batchscaling.practice.stretch import STATES, stretch
from batchscaling.training import batches

OPTIONS = {"batch_size": 8, "probed": 192, "most": 0, "confidence": 0.9, "seed": 3}


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.Adam])
def test_it_is_the_average_of_probes_on_the_way(kind):
    """24 examples a state: three batches of 8, then a probe of 24 others."""
    model, data, optimizer = awkward(kind)
    model.drop.p = 0.0
    before = everything(model, optimizer)
    found = stretch(model, cross_entropy, Examples(data, "cpu"), optimizer, **OPTIONS)
    assert equal(everything(model, optimizer), before)

    model, optimizer = copy.deepcopy((model, optimizer))
    geometry = "adam" if kind is torch.optim.Adam else "euclidean"
    order, readings = batches(3, len(data[0]), [8, 8, 8, 24] * STATES), []
    for indices in order:
        inputs, labels = data[0][indices], data[1][indices]
        if len(indices) == 24:
            meter = NoiseMeter(model, optimizer, geometry=geometry)
            readings.append(meter.probe(cross_entropy, inputs, labels))
            continue
        optimizer.zero_grad()
        cross_entropy(model(inputs), labels).backward()
        optimizer.step()
    last = found.groups["last"], [reading.groups["last"] for reading in readings]
    for one, parts in ((found, readings), last):
        pairs = zip(*((part.trace, part.signal) for part in parts), strict=True)
        expected = ratio_estimate(*pairs, confidence=0.9)
        assert (one.trace, one.signal) == pytest.approx((expected.trace, expected.signal))
        if one.batch_size is not None:
            assert (one.batch_size, one.low) == pytest.approx((expected.batch_size, expected.low))
    assert (found.measured, found.taken) == (192, 3 * 192)
    assert found.groups["unused"].reason == "no gradient was seen"


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW, torch.optim.NAdam])
def test_an_optimizer_that_has_made_no_step(kind):
    model, data, _ = awkward(torch.optim.SGD)
    optimizer = kind(model.parameters(), lr=1e-3)
    found = stretch(model, cross_entropy, Examples(data, "cpu"), optimizer, **OPTIONS)
    assert found.trace > 0 and not optimizer.state


def outputs_alone(outputs, labels):
    return outputs.mean()


def quadratic(copies, seed, rate, batch_size=8):
    """Return a noisy quadratic in its steady state, its examples and SGD."""
    h = torch.tensor([1.0, 0.7, 0.4])
    rng = torch.Generator().manual_seed(seed)
    spread = (rate / (batch_size * h * (2 - rate * h))).sqrt()
    model = Mean(copies(h, spread * torch.randn(3, generator=rng), 1))
    inputs = torch.randn(2**13, 1, 3, generator=rng)
    sgd = torch.optim.SGD(model.parameters(), lr=rate)
    signal = float((h**2 * spread**2).sum())
    return model, Examples((inputs, torch.zeros(len(inputs))), "cpu"), sgd, 3 / signal


def test_intervals_hold_the_ratio_over_states_which_those_of_one_state_do_not(copies):
    """In the steady state the signal is that of the noise in the parameters, on average."""
    held, alone = [], []
    for seed in range(40):
        model, examples, sgd, exact = quadratic(copies, seed, rate=1.0)
        options = {"batch_size": 8, "probed": 512, "most": 0, "confidence": 0.95, "seed": seed}
        found = stretch(model, outputs_alone, examples, sgd, **options)
        one = NoiseMeter(model).probe(outputs_alone, *examples.batch(torch.arange(512)))
        for reading, inside in ((found, held), (one, alone)):
            if reading.reason is None:
                inside.append(reading.low <= exact <= reading.high)
    assert len(held) > 20 and np.mean(held) > 0.8
    assert len(alone) > 20 and np.mean(alone) < 0.5


def test_probes_grow_while_the_signal_is_weak(copies):
    model, examples, _, _ = quadratic(copies, 0, rate=1.0)
    with torch.no_grad():
        for param in model.parameters():
            param.zero_()
    sgd = torch.optim.SGD(model.parameters(), lr=1e-6)
    options = {**OPTIONS, "confidence": 0.999}
    for most, grown in ((0, 1), (3 * 192 * 3, 2), (3 * 192 * 7, 4)):
        found = stretch(model, outputs_alone, examples, sgd, **{**options, "most": most})
        assert "signal is not clear" in found.reason and found.measured == 192 * grown
        assert found.taken == 3 * 192 * (2 * grown - 1)


def test_gradients_that_are_not_finite_on_the_way_are_told():
    model, data, sgd = awkward(torch.optim.SGD)
    sgd.param_groups[0]["lr"] = 1e30
    found = stretch(model, cross_entropy, Examples(data, "cpu"), sgd, **OPTIONS)
    assert found.reason == "gradients are not finite" and found.batch_size is None


def test_memory_that_is_short_is_named():
    model, data, sgd = awkward(torch.optim.SGD)

    def loss(outputs, labels):
        if len(labels) > 1:
            raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB")
        return cross_entropy(outputs, labels)

    with pytest.raises(ValueError, match=r"^batch_size is 8; allowed: one that fits into memory"):
        stretch(model, loss, Examples(data, "cpu"), sgd, **OPTIONS)
