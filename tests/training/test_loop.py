"""`train` against the ordinary loop: nn.Module, torch.optim, one trial at a time."""

import copy
import re
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import cross_entropy

from batchscaling.training import (
    BatchSizes,
    Data,
    FlipCrop,
    Model,
    Schedule,
    Trials,
    adam,
    adam_without_momentum,
    batches,
    chain,
    decoupled_weight_decay,
    fix,
    grid,
    heavy_ball,
    lars,
    linear_decay,
    mlp,
    nesterov,
    resnet,
    sgd,
    simple_cnn,
    step_drops,
    train,
    weight_decay,
)
from batchscaling.training.data import generator
from batchscaling.training.loop import DIVERGED
from batchscaling.training.rows import Pieces

CLOSE = 5e-4


def ordinary(data, network, optimizer, seed, batch_sizes, *, rate=None, decay=0.0, smoothing=0.0):
    """Return the losses of each measure after every step of the ordinary loop."""
    stream = batches(seed, len(data.train_inputs), batch_sizes)
    changes = generator(seed, "augment")
    average = copy.deepcopy(network)
    held = len(data.validation_labels)
    sets = {
        "validation": (network, data.validation_inputs, data.validation_labels),
        "training": (network, data.train_inputs[:held], data.train_labels[:held]),
        "averaged": (average, data.validation_inputs, data.validation_labels),
    }

    def mean_loss(network, inputs, labels, **options):
        outputs = network(inputs).flatten(0, -2)
        return cross_entropy(outputs, labels.flatten(), ignore_index=-1, **options)

    curves = {name: [] for name in sets}
    for step in range(len(batch_sizes) + 1):
        with torch.no_grad():
            for name, case in sets.items():
                curves[name].append(mean_loss(*case).item())
        if step == len(batch_sizes):
            return curves
        index = next(stream)
        inputs = data.train_inputs[index]
        if data.augment is not None:
            inputs = data.augment.apply(inputs, data.augment.draw(changes, len(index)))
        if rate is not None:
            optimizer.param_groups[0]["lr"] = rate(step)
        optimizer.zero_grad()
        mean_loss(network, inputs, data.train_labels[index], label_smoothing=smoothing).backward()
        optimizer.step()
        with torch.no_grad():
            for old, new in zip(average.parameters(), network.parameters(), strict=True):
                old.mul_(decay).add_(new, alpha=1 - decay)


def assert_curves(results, row, curves):
    for name, losses in results.losses.items():
        expected = np.array(curves[name])[results.steps]
        np.testing.assert_allclose(losses[row], expected, rtol=CLOSE, err_msg=name)


def same(one, other, rows=slice(None), rows_of_other=slice(None)):
    return one.losses.keys() == other.losses.keys() and all(
        np.array_equal(one.losses[name][rows], other.losses[name][rows_of_other], equal_nan=True)
        for name in one.losses
    )


def take(trials, rows):
    return Trials(trials.seeds[rows], {name: v[rows] for name, v in trials.hyper.items()})


TORCH = {
    "sgd": (sgd, {"lr": 0.3}, partial(torch.optim.SGD, lr=0.3)),
    "nesterov": (
        nesterov,
        {"lr": 0.05, "momentum": 0.9},
        partial(torch.optim.SGD, lr=0.05, momentum=0.9, nesterov=True),
    ),
    "adam": (
        fix(adam, beta2=0.99, epsilon=1e-6),
        {"lr": 0.003, "beta1": 0.8},
        partial(torch.optim.Adam, lr=0.003, betas=(0.8, 0.99), eps=1e-6),
    ),
}


@pytest.mark.parametrize("name", TORCH)
def test_all_measures_are_those_of_the_ordinary_loop(data, model, as_module, name):
    optimizer, hyper, oracle = TORCH[name]
    results = train(
        data,
        model,
        optimizer,
        grid([3, 5], **hyper, decay=[0.0, 0.8]),
        batch_size=32,
        max_steps=40,
        measures=["training", "averaged"],
    )
    assert list(results.losses) == ["validation", "training", "averaged"]
    for row, (seed, decay) in enumerate([(3, 0.0), (5, 0.0), (3, 0.8), (5, 0.8)]):
        network = as_module(model.init(generator(seed, "init")))
        curves = ordinary(data, network, oracle(network.parameters()), seed, [32] * 40, decay=decay)
        assert_curves(results, row, curves)
    raw, averaged = results.losses["validation"][2], results.losses["averaged"][2]
    assert not np.allclose(raw, averaged, rtol=100 * CLOSE)


def test_schedules_act_on_each_trial_and_batch_sizes_on_all(data, model, as_module):
    sizes = BatchSizes([(10, 8), (5, 100), (15, 33)])
    trials = Trials(
        np.array([1, 1, 2]),
        {
            "lr": np.array([0.2, 0.2, 0.1]),
            "decay_steps": np.array([10.0, 25.0, 100.0]),
            "final_fraction": np.array([0.1, 0.0, 0.5]),
        },
    )
    results = train(data, model, sgd, trials, batch_size=sizes, max_steps=30, schedule=linear_decay)
    for row, seed in enumerate(trials.seeds.tolist()):
        lr, steps, fraction = (trials.hyper[name][row] for name in trials.hyper)
        network = as_module(model.init(generator(seed, "init")))
        curves = ordinary(
            data,
            network,
            torch.optim.SGD(network.parameters(), lr=lr),
            seed,
            [sizes.at(step) for step in range(30)],
            rate=lambda t, a=(lr, steps, fraction): a[0] * (1 - (1 - a[2]) * min(t / a[1], 1)),
        )
        assert_curves(results, row, curves)


def test_rate_drops_before_the_step_that_is_named(data, model, as_module):
    results = train(
        data,
        model,
        sgd,
        grid([1, 2], lr=0.3),
        batch_size=16,
        max_steps=12,
        schedule=step_drops([3, 7], 0.1),
    )
    network = as_module(model.init(generator(2, "init")))
    rates = [0.3] * 3 + [0.03] * 4 + [0.003] * 5
    optimizer = torch.optim.SGD(network.parameters(), lr=0.3)
    curves = ordinary(data, network, optimizer, 2, [16] * 12, rate=rates.__getitem__)
    assert_curves(results, 1, curves)


def test_evaluations_at_named_steps_are_those_of_every_step(data, model):
    settings = {"batch_size": BatchSizes([(70, 8), (30, 40)]), "max_steps": 100}
    trials = grid([1, 2], lr=0.1)
    every = train(data, model, sgd, trials, spacing=1e-6, **settings)
    some = train(data, model, sgd, trials, evaluate_at=[0, 5, 70, 99, 100], **settings)
    assert some.steps.tolist() == [0, 5, 70, 99, 100]
    assert np.array_equal(some.loss, every.loss[:, some.steps])


@pytest.mark.parametrize("smoothing", [0.1, 0.6])
def test_label_smoothing_is_torchs(data, model, as_module, smoothing):
    results = train(
        data,
        model,
        sgd,
        grid([1, 2], lr=0.2),
        batch_size=32,
        max_steps=30,
        label_smoothing=smoothing,
    )
    network = as_module(model.init(generator(1, "init")))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.2)
    curves = ordinary(data, network, optimizer, 1, [32] * 30, smoothing=smoothing)
    assert_curves(results, 0, curves)


@pytest.fixture(scope="module")
def sequences():
    """Return sequences of which about half the positions count, some examples hardly any."""
    rng = torch.Generator().manual_seed(0)
    inputs = torch.randn(60, 5, 4, generator=rng)
    labels = (inputs @ torch.randn(4, 3, generator=rng)).argmax(-1)
    part = torch.rand(60, 1, generator=rng)
    labels[torch.rand(60, 5, generator=rng) > part] = -1
    return Data(inputs[:40], labels[:40], inputs[40:], labels[40:])


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_positions_with_label_minus_one_do_not_count(sequences, as_module, smoothing):
    model = mlp([4, 6, 3])
    results = train(
        sequences,
        model,
        sgd,
        grid([1, 2], lr=0.3),
        batch_size=7,
        max_steps=30,
        measures=["training"],
        label_smoothing=smoothing,
    )
    network = as_module(model.init(generator(2, "init")))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.3)
    curves = ordinary(sequences, network, optimizer, 2, [7] * 30, smoothing=smoothing)
    assert_curves(results, 1, curves)
    labels = sequences.validation_labels
    right = (network(sequences.validation_inputs).argmax(-1) == labels).sum() / (labels >= 0).sum()
    assert results.accuracy[1, -1] == pytest.approx(right.item())


@pytest.fixture(scope="module")
def images():
    """Return images of 8 by 8 pixels, of digits, that are flipped and cropped in training."""
    from batchscaling.training import digits

    data = digits()
    return replace(
        data,
        train_inputs=data.train_inputs.unflatten(1, (1, 8, 8)),
        validation_inputs=data.validation_inputs.unflatten(1, (1, 8, 8)),
        augment=FlipCrop(1),
    )


def on_images(model):
    return replace(model, apply=lambda params, inputs: model.apply(params, inputs.flatten(1)))


def test_augmentation_is_each_seeds_own(images, model, as_module):
    run = partial(train, images, on_images(model), sgd, batch_size=16, max_steps=30)
    trials = grid([1, 2, 3], lr=[0.1, 0.2])
    together = run(trials)
    assert same(together, run(trials))
    assert same(together, run(take(trials, [4, 1])), [4, 1])
    plain = train(
        replace(images, augment=None), on_images(model), sgd, trials, batch_size=16, max_steps=30
    )
    assert not np.allclose(together.loss[:, -1], plain.loss[:, -1], rtol=0.05)
    dense = as_module(model.init(generator(3, "init")))
    network = nn.Sequential(nn.Flatten(), *dense)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.2)
    assert_curves(together, 5, ordinary(images, network, optimizer, 3, [16] * 30))


@settings(deadline=None, max_examples=8)
@given(
    validation=st.floats(0.2, 2.5),
    training=st.floats(0.1, 2.5),
    averaged=st.floats(0.2, 2.5),
)
def test_trials_end_when_all_their_targets_are_reached(data, model, **targets):
    trials = grid([0, 1], lr=[0.02, 0.1, 0.3], momentum=0.9, decay=0.8)
    run = partial(train, data, model, heavy_ball, trials, batch_size=64, max_steps=60)
    every = run(measures=tuple(targets))
    ended = run(target=targets)
    for name, target in targets.items():
        reached = every.losses[name] <= target
        first = np.where(reached.any(1), every.steps[reached.argmax(1)], np.inf)
        np.testing.assert_array_equal(ended.crossing(name), first)
    last = np.max([ended.crossing(name) for name in targets], axis=0)
    for row, end in enumerate(last):
        np.testing.assert_array_equal(np.isnan(ended.loss[row]), ended.steps > end)


@pytest.mark.parametrize("patience", [1, 1.5, 4])
def test_patience_ends_the_slow_and_changes_nothing_else(data, model, patience):
    trials = grid([0, 1], lr=[0.01, 0.03, 0.1, 0.3], decay=0.7)
    targets = {"validation": 1.0, "averaged": 0.6}
    run = partial(train, data, model, sgd, trials, batch_size=64, max_steps=400, target=targets)
    whole, patient = run(), run(patience=patience)
    end = np.zeros(len(trials.seeds))
    for name in targets:
        crossing = whole.crossing(name)
        deadline = whole.steps[whole.steps >= patience * crossing.min()][0]
        end = np.maximum(end, np.minimum(crossing, deadline))
    assert (end < whole.crossing("averaged")).any()
    for name in targets:
        expected = np.where(patient.steps <= end[:, None], whole.losses[name], np.nan)
        np.testing.assert_array_equal(patient.losses[name], expected)


def same_crossings(exact, bounds):
    """Return whether a sum stopped, having compared: steps are equal; a loss is exact, or infinite
    above the target, or not needed.
    """
    np.testing.assert_array_equal(bounds.diverged, exact.diverged)
    for name, target in exact.targets.items():
        np.testing.assert_array_equal(bounds.crossing(name), exact.crossing(name))
        found, loss = bounds.losses[name], exact.losses[name]
        needed = exact.steps <= exact.crossing(name)[:, None]
        np.testing.assert_array_equal(np.isnan(found), np.isnan(loss) | ~needed)
        same = np.isclose(found, loss, rtol=1e-5)
        stopped = ~np.isnan(found) & ~same
        assert (np.isinf(found) & ~(loss <= target))[stopped].all()
        np.testing.assert_allclose(found[:, 0], loss[:, 0], rtol=1e-6)
    return np.isinf(bounds.loss).any()


@settings(deadline=None, max_examples=8)
@given(
    validation=st.floats(0.2, 2.5),
    training=st.floats(0.1, 2.5),
    averaged=st.floats(0.2, 2.5),
    patience=st.sampled_from([None, 1, 1.5]),
)
def test_bounds_of_losses_give_the_same_steps(data, model, patience, **targets):
    trials = grid([0, 1], lr=[0.02, 0.1, 0.3, 1e9], momentum=0.9, decay=0.8)
    task = {"batch_size": 64, "max_steps": 60, "target": targets, "patience": patience}
    run = partial(train, data, model, heavy_ball, trials, **task)
    same_crossings(run(), run(exact=False))


def test_bounds_of_losses_of_two_examples(images):
    two = {"validation_inputs": images.validation_inputs[:2]}
    few = replace(images, **two, validation_labels=images.validation_labels[:2])
    task = {"batch_size": 64, "max_steps": 20, "target": 0.5}
    model, trials = simple_cnn(8, filters=(2, 4), units=8), grid([0, 1], lr=[0.1, 0.3])
    run = partial(train, few, model, sgd, trials, **task)
    assert same_crossings(run(), run(exact=False))


@pytest.mark.parametrize("at_once", [384, 2**15])
def test_bounds_of_losses_with_ghost_batches_and_with_left_out_positions(
    images, sequences, at_once
):
    task = {"batch_size": 64, "max_steps": 12, "at_once": at_once}
    model = resnet(8, ghost_size=4, width=2, channels=1)
    trials = grid(0, lr=[0.01, 0.1, 0.4])
    run = partial(train, images, model, sgd, trials, target=1.5, **task)
    assert same_crossings(run(), run(exact=False))
    task |= {"batch_size": 8, "max_steps": 60, "target": {"validation": 0.5, "training": 0.4}}
    run = partial(train, sequences, mlp([4, 6, 3]), sgd, trials, **task)
    assert same_crossings(run(), run(exact=False))


def parts_or_whole(data, model, batch_size, parts, **options):
    """Return the results of a batch in parts, and in one."""
    run = partial(train, data, model, batch_size=batch_size, **options)
    return run(at_once=3 * parts), run(at_once=10**6)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_parts_of_a_batch_are_the_batch(sequences, images, smoothing):
    options = {"max_steps": 25, "measures": ["training"], "label_smoothing": smoothing}
    cases = [
        (sequences, mlp([4, 6, 3]), 40, 7),  # with other numbers of labels in each part
        (images, on_images(mlp([64, 16, 10])), 100, 33),
    ]
    for data, model, batch_size, parts in cases:
        some, whole = parts_or_whole(
            data, model, batch_size, parts, optimizer=sgd, trials=grid([0, 1], lr=0.3), **options
        )
        for name in whole.losses:
            np.testing.assert_allclose(some.losses[name], whole.losses[name], rtol=1e-4)
        np.testing.assert_allclose(some.accuracy, whole.accuracy, atol=0.01)


def test_parts_of_a_batch_tear_no_ghost_batch(images):
    few = replace(
        images,
        train_inputs=images.train_inputs[:24],
        train_labels=images.train_labels[:24],
        validation_inputs=images.validation_inputs[:20],
        validation_labels=images.validation_labels[:20],
    )
    model = resnet(8, ghost_size=4, width=2, channels=1)
    torn = replace(model, ghost_size=1)
    options = {"optimizer": sgd, "trials": grid([0, 1], lr=0.1), "max_steps": 4}
    some, whole = parts_or_whole(few, model, 22, 11, **options)
    np.testing.assert_allclose(some.loss, whole.loss, rtol=1e-4)
    some, whole = parts_or_whole(few, torn, 22, 11, **options)
    assert not np.allclose(some.loss, whole.loss, rtol=1e-2)


def test_evaluation_normalises_by_the_first_training_examples(data):
    def moments(inputs):
        variance, mean = torch.var_mean(inputs, dim=0, correction=0)
        return {"mean": mean, "scale": (variance + 0.1).rsqrt()}

    def apply(params, inputs, given=None):
        given = moments(inputs) if given is None else given
        return (inputs - given["mean"]) * given["scale"] @ params["weight"]

    model = Model(
        lambda rng: {"weight": torch.randn(64, 10, generator=rng)},
        apply,
        lambda params, inputs: moments(inputs),
        ghost_size=32,
    )
    results = train(
        data,
        model,
        sgd,
        grid([0, 1], lr=0.1, decay=0.5),
        batch_size=32,
        max_steps=1,
        measures=["training", "averaged"],
    )
    weight = model.init(generator(1, "init"))["weight"]
    given = moments(data.train_inputs[:512])
    index = next(batches(1, len(data.train_inputs), 32))
    leaf = weight.clone().requires_grad_()
    cross_entropy(
        apply({"weight": leaf}, data.train_inputs[index]), data.train_labels[index]
    ).backward()
    after = weight - 0.1 * leaf.grad

    def loss(weight, inputs, labels):
        return cross_entropy(apply({"weight": weight}, inputs, given), labels).item()

    held_out = data.validation_inputs, data.validation_labels
    count = len(data.validation_labels)
    first = data.train_inputs[:count], data.train_labels[:count]
    expected = {
        "validation": [loss(weight, *held_out), loss(after, *held_out)],
        "training": [loss(weight, *first), loss(after, *first)],
        "averaged": [loss(weight, *held_out), loss((weight + after) / 2, *held_out)],
    }
    assert_curves(results, 1, expected)


@given(
    rows=st.integers(2, 300),
    batch_size=st.integers(1, 5_000),
    ghost_size=st.sampled_from([1, 32, 128]),
    at_once=st.integers(384, 2**15),
)
def test_memory_is_bounded(rows, batch_size, ghost_size, at_once):
    pieces = Pieces(at_once, ghost_size)
    size = pieces.examples(batch_size)
    parts = pieces.rows(rows, size)
    assert [row for part in parts for row in range(rows)[part]] == list(range(rows))
    lengths = [part.stop - part.start for part in parts]
    assert min(lengths) >= 2
    assert max(lengths) * size <= at_once
    assert size == batch_size or size % ghost_size == 0


DIVERGING = {
    "sgd": (sgd, {"lr": 0.1}, {"lr": 1e9}),
    "heavy_ball": (heavy_ball, {"lr": 0.02, "momentum": 0.9}, {"lr": 1e20}),
    "nesterov": (nesterov, {"lr": 0.02, "momentum": 0.9}, {"lr": 1e38}),
    "adam": (
        fix(adam, beta2=0.999, epsilon=1e-8),
        {"lr": 0.01, "beta1": 0.9},
        {"lr": 1e12},
    ),
    "adam_without_momentum": (
        fix(adam_without_momentum, beta2=0.999, epsilon=1e-8),
        {"lr": 0.01},
        {"lr": 1e25},
    ),
    "lars": (lars, {"lr": 1.0, "momentum": 0.9, "weight_decay": 1e-4, "trust": 0.01}, {"lr": 1e9}),
    "adamw": (
        chain(fix(adam, beta1=0.9, beta2=0.999, epsilon=1e-8), decoupled_weight_decay),
        {"lr": 0.01, "weight_decay": 0.1},
        {"lr": 1e30},
    ),
    "l2": (chain(weight_decay, sgd), {"lr": 0.1, "weight_decay": 1e-3}, {"weight_decay": 1e30}),
}


@pytest.mark.parametrize("name", DIVERGING)
def test_a_diverging_trial_leaves_the_others_bit_identical(data, model, name):
    optimizer, usual, wild = DIVERGING[name]

    def run(hyper):
        columns = {k: np.array([usual[k], v, usual[k] / 2]) for k, v in hyper.items()}
        trials = Trials(np.arange(3), {**columns, "decay": np.full(3, 0.9)})
        return train(
            data, model, optimizer, trials, batch_size=32, max_steps=30, measures=["averaged"]
        )

    tame, torn = run(usual), run({**usual, **wild})
    assert torn.diverged.tolist() == [False, True, False]
    assert not tame.diverged.any()
    assert same(tame, torn, [0, 2], [0, 2])
    assert not np.isnan(torn.loss[[0, 2]]).any()


@pytest.mark.parametrize("batch_size", [8, 16])
def test_a_lone_cnn_is_what_it_is_among_others(images, batch_size):
    """Torch splits the products of a lone row otherwise, and the last bits differ."""
    model = simple_cnn(8, filters=(2, 3), units=8)
    trials = Trials(np.arange(4), {"lr": np.array([0.3, 0.1, 0.2, 0.05]), "decay": np.full(4, 0.5)})
    run = partial(train, images, model, sgd, batch_size=batch_size, measures=["averaged"])
    together = run(trials, max_steps=20)
    for row in range(4):
        assert same(run(take(trials, [row]), max_steps=20), together, rows_of_other=[row])


@pytest.mark.parametrize("batch_size", [16, 64])
def test_a_diverging_cnn_leaves_the_others_bit_identical(images, batch_size):
    model = simple_cnn(8, filters=(2, 3), units=8)

    def run(lr):
        trials = Trials(np.arange(3), {"lr": np.array([0.1, lr, 0.05])})
        return train(images, model, sgd, trials, batch_size=batch_size, max_steps=12)

    tame, torn = run(0.1), run(1e20)
    assert torn.diverged.tolist() == [False, True, False]
    assert same(tame, torn, [0, 2], [0, 2])


def test_divergence_is_a_loss_that_is_far_above_the_first(data, model):
    results = train(data, model, sgd, grid([0, 1, 2], lr=50.0), batch_size=8, max_steps=40)
    worst = np.nanmax(results.loss / results.loss[:, :1], axis=1)
    np.testing.assert_array_equal(results.diverged, worst > DIVERGED)
    assert results.diverged.any()


@pytest.fixture(scope="module")
def company(data, model):
    """Return what runs trials of all kinds, all of these trials, and their results."""
    run = partial(
        train,
        data,
        model,
        fix(adam, beta2=0.99, epsilon=1e-6),
        batch_size=48,
        max_steps=25,
        target={"training": 0.4, "averaged": 0.5},
    )
    trials = grid([0, 1, 2], lr=[0.003, 0.03, 1e20], beta1=[0.0, 0.9], decay=[0.5])
    return run, trials, run(trials)


@settings(deadline=None, max_examples=15)
@given(data=st.data())
def test_numbers_do_not_depend_on_which_trials_share_the_program(company, data):
    run, trials, together = company
    rows = data.draw(st.lists(st.integers(0, 17), min_size=1, max_size=18, unique=True))
    assert same(run(take(trials, rows)), together, rows_of_other=rows)


def test_bf16_is_close_and_leaves_no_setting_behind(data):
    seen = set()

    def apply(params, inputs):
        outputs = torch.relu(inputs @ params["one"]) @ params["two"]
        seen.add((outputs.dtype, torch.is_autocast_cache_enabled()))
        return outputs

    def init(rng):
        return {
            "one": 0.2 * torch.randn(64, 32, generator=rng),
            "two": 0.2 * torch.randn(32, 10, generator=rng),
        }

    model = Model(init, apply)
    run = partial(train, data, model, sgd, grid([0, 1], lr=0.1), batch_size=64, max_steps=60)
    exact = run()
    assert {dtype for dtype, _ in seen} == {torch.float32}
    seen.clear()
    half = run(precision="bf16")
    # The cache would keep the parameters of all steps.
    # And before the first step data and model are compared, in float32.
    assert seen == {(torch.bfloat16, False), (torch.float32, True)}
    np.testing.assert_allclose(half.loss, exact.loss, rtol=0.03)
    assert not same(exact, half)
    assert not torch.is_autocast_enabled("cpu")
    # Sums over the examples are float32: 8 bits would not hold these numbers.
    with torch.autocast("cpu", torch.bfloat16):
        outputs = apply(init(generator(1, "init")), data.validation_inputs).float()
    expected = cross_entropy(outputs, data.validation_labels).item()
    assert half.loss[1, 0] == pytest.approx(expected, rel=1e-5)
    right = (outputs.argmax(1) == data.validation_labels).double().mean().item()
    assert half.accuracy[1, 0] == pytest.approx(right, abs=0.02)  # ties are no right answers


def test_tf32_changes_nothing_on_a_cpu_and_leaves_no_setting_behind(data, model):
    run = partial(train, data, model, sgd, grid(0, lr=0.1), batch_size=16, max_steps=5)
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    assert same(run(precision="tf32"), run())
    assert before == (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32)


def test_equal_outputs_are_no_right_answer(data):
    model = Model(
        lambda rng: {"weight": torch.zeros(64, 10)},
        lambda params, inputs: inputs @ params["weight"],
    )
    results = train(data, model, sgd, grid(0, lr=0.1), batch_size=16, max_steps=1)
    assert results.accuracy[0, 0] == 0
    assert results.loss[0, 0] == pytest.approx(np.log(10))
    assert results.accuracy[0, 1] > 0.2


nan = float("nan")
BAD = [
    ({"batch_size": BatchSizes([(5, 8)]), "max_steps": 6}, "batch_size is BatchSizes"),
    ({"batch_size": BatchSizes([(5, 1438)]), "max_steps": 5}, "batch_size is BatchSizes"),
    ({"batch_size": BatchSizes([(5, 8)]), "max_steps": "6"}, "max_steps is '6'"),
    ({"batch_size": "8"}, "batch_size is '8'"),
    ({"max_steps": 2.0}, "max_steps is 2.0"),
    ({"target": "low"}, "target is 'low'"),
    ({"target": {"test": 0.5}}, "measure is 'test'"),
    ({"target": {"validation": 0}}, "target is 0"),
    ({"target": {"averaged": 0.5}}, "trials.hyper is ['lr']"),
    ({"exact": False}, "exact is False"),
    ({"measures": ["averaged"]}, "trials.hyper is ['lr']"),
    ({"measures": ["test"]}, "measure is 'test'"),
    ({"measures": "training"}, "measures is 'training'"),
    ({"measures": None}, "measures is None"),
    ({"schedule": linear_decay}, "trials.hyper is ['lr']"),
    ({"label_smoothing": 1}, "label_smoothing is 1"),
    ({"label_smoothing": -0.1}, "label_smoothing is -0.1"),
    ({"label_smoothing": nan}, "label_smoothing is nan"),
    ({"spacing": nan}, "spacing is nan"),
    ({"patience": 0.9}, "patience is 0.9"),
    ({"patience": nan}, "patience is nan"),
    ({"device": "toaster"}, "device is 'toaster'"),
    ({"device": 3.5}, "device is 3.5"),
    ({"device": None}, "device is None"),
    ({"compiled": "no"}, "compiled is 'no'"),
    ({"precision": "float16"}, "precision is 'float16'"),
    ({"at_once": 2}, "at_once is 2"),
    ({"at_once": 96.0}, "at_once is 96.0"),
    ({"model": replace(mlp([64, 10]), ghost_size=32), "at_once": 95}, "at_once is 95"),
    ({"trials": grid(0, lr=0.1, decay=1.0)}, "decay is"),
    ({"trials": grid(0, lr=0.1, decay=-0.1)}, "decay is"),
    ({"trials": grid(0, lr=0.1, decay=1 - 1e-9)}, "decay is"),
    ({"trials": Trials(np.array([-1]), {"lr": np.array([0.1])})}, "seed is -1"),
    ({"trials": Trials(np.array([0.5]), {"lr": np.array([0.1])})}, "seed is 0.5"),
    ({"trials": Trials(np.array([], dtype=int), {"lr": np.array([])})}, "lr is"),
    ({"schedule": linear_decay, "trials": grid(0, lr=1, decay_steps=0, final_fraction=0)}, "decay"),
]


@pytest.mark.parametrize(("changes", "message"), BAD, ids=[message for _, message in BAD])
def test_bad_input_names_parameter_value_and_what_is_allowed(data, model, changes, message):
    options = {"trials": grid(0, lr=0.1), "batch_size": 8, "max_steps": 2, "model": model}
    with pytest.raises(ValueError, match=f"^{re.escape(message)}.*allowed: "):
        train(data, optimizer=sgd, **(options | changes))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_told(data, model):
    with pytest.raises(ValueError, match=r"^device is 'cuda'; allowed: "):
        train(data, model, sgd, grid(0, lr=0.1), batch_size=8, max_steps=2, device="cuda")


def test_a_schedule_may_declare_what_the_optimizer_has():
    def factor(step, hyper):
        return 1 - hyper["momentum"]

    trials = grid(0, lr=0.1, momentum=0.5)
    how = {"batch_size": 16, "max_steps": 5}
    found = train(
        tiny.load(), tiny.TINY.model, heavy_ball, trials, **how,
        schedule=Schedule(factor, {"momentum": heavy_ball.hyper["momentum"]}),
    )  # fmt: skip
    half = train(tiny.load(), tiny.TINY.model, heavy_ball, grid(0, lr=0.05, momentum=0.5), **how)
    np.testing.assert_allclose(found.loss, half.loss, rtol=1e-6)
    other = Schedule(factor, {"momentum": lambda name, value: value})
    with pytest.raises(ValueError, match=r"'momentum' of another kind than another part"):
        train(tiny.load(), tiny.TINY.model, heavy_ball, trials, **how, schedule=other)
