import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from batchscaling.training import (
    Trials,
    batches,
    evaluation_steps,
    grid,
    heavy_ball,
    sgd,
    train,
)
from batchscaling.training.data import generator

FIELDS = ("loss", "accuracy", "steps_to_target", "diverged")


def same(one, rows_of_one, other, rows_of_other):
    """Whether the rows are equal bit for bit in every measured field."""
    return all(
        np.array_equal(
            getattr(one, field)[rows_of_one], getattr(other, field)[rows_of_other], equal_nan=True
        )
        for field in FIELDS
    )


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("batch_size", [16, 1000])
def test_a_trial_is_the_ordinary_training_loop(data, model, as_module, momentum, batch_size):
    results = train(
        data,
        model,
        heavy_ball,
        grid([4, 7], lr=0.05, momentum=momentum),
        batch_size=batch_size,
        max_steps=40,
    )
    network = as_module(model.init(generator(7, "init")))
    oracle = torch.optim.SGD(network.parameters(), lr=0.05, momentum=momentum)
    stream, curve = batches(7, len(data.train_inputs), batch_size), []
    for step in range(41):
        if step in results.steps:
            with torch.no_grad():
                outputs = network(data.validation_inputs)
            curve.append(cross_entropy(outputs, data.validation_labels).item())
        index = next(stream)
        oracle.zero_grad()
        cross_entropy(network(data.train_inputs[index]), data.train_labels[index]).backward()
        oracle.step()
    np.testing.assert_allclose(results.loss[1], curve, rtol=2e-4)
    assert curve[-1] < 0.5 * curve[0]


@pytest.mark.parametrize("batch_size", [8, 1000, 1437])
def test_a_trial_does_not_depend_on_its_partners(data, model, batch_size):
    def run(trials):
        return train(data, model, heavy_ball, trials, batch_size=batch_size, max_steps=30)

    full = grid([0, 1, 2], lr=[0.02, 0.1, 0.3], momentum=[0.0, 0.9])
    together = run(full)
    for rows in ([5], [11, 2], [17, 0, 9, 4, 3]):
        part = Trials(full.seeds[rows], {name: v[rows] for name, v in full.hyper.items()})
        assert same(together, rows, run(part), slice(None))


def test_parts_of_a_large_program_are_the_program(data, model):
    def run(at_once):
        trials = grid(range(9), lr=[0.1, 0.4])
        return train(data, model, sgd, trials, batch_size=380, max_steps=20, at_once=at_once)

    whole = run(2**20)
    for parts in (2, 3, 5):
        assert same(whole, slice(None), run(18 * 380 // parts), slice(None))


def test_the_number_of_threads_is_given_back(data, model):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    train(data, model, sgd, grid(0, lr=0.1), batch_size=8, max_steps=2)
    assert torch.get_num_threads() == 2
    torch.set_num_threads(before)


@pytest.mark.parametrize("batch_size", [16, 1437])
@pytest.mark.parametrize("bad", [1e4, 1e38])
def test_divergence_leaves_the_neighbours_bit_identical(data, model, batch_size, bad):
    def run(lr):
        trials = Trials(np.array([0, 1, 2]), {"lr": np.array([0.1, lr, 0.2])})
        return train(data, model, sgd, trials, batch_size=batch_size, max_steps=40)

    calm, wild = run(0.1), run(bad)
    assert same(calm, [0, 2], wild, [0, 2])
    assert wild.diverged.tolist() == [False, True, False]
    assert not calm.diverged.any()
    seen = ~np.isnan(wild.loss)
    assert seen[[0, 2]].all()
    assert not seen[1, 5:].any()
    assert np.isinf(wild.steps_to_target[1])


def test_same_seed_same_numbers(data, model):
    def run(seed):
        trials = grid([seed, seed + 1], lr=[0.1, 0.4])
        return train(data, model, sgd, trials, batch_size=32, max_steps=30)

    assert same(run(3), slice(None), run(3), slice(None))
    assert not same(run(3), slice(None), run(4), slice(None))


@settings(deadline=None, max_examples=6)
@given(
    target=st.floats(0.15, 2.0),
    batch_size=st.sampled_from([8, 64, 1437]),
    momentum=st.sampled_from([0.0, 0.9]),
)
def test_first_crossing_is_the_one_found_by_brute_force(data, model, target, batch_size, momentum):
    trials = grid([0, 1], lr=[0.01, 0.05, 0.2], momentum=momentum)
    settings = {"batch_size": batch_size, "max_steps": 50, "spacing": 1e-6}
    every = train(data, model, heavy_ball, trials, **settings)
    ended = train(data, model, heavy_ball, trials, target=target, **settings)
    assert every.steps.tolist() == list(range(51))
    for row in range(len(trials.seeds)):
        crossings = [step for step in range(51) if every.loss[row, step] <= target]
        first = crossings[0] if crossings else np.inf
        assert ended.steps_to_target[row] == first
        stop = int(min(first, 50)) + 1
        np.testing.assert_array_equal(ended.loss[row, :stop], every.loss[row, :stop])
        assert np.isnan(ended.loss[row, stop:]).all()


def test_the_program_ends_with_its_last_trial(data, model, monkeypatch):
    drawn = []

    def counted(seed, examples, batch_size):
        for index in batches(seed, examples, batch_size):
            drawn.append(seed)
            yield index

    monkeypatch.setattr("batchscaling.training.data.order.batches", counted)
    trials = Trials(np.array([0, 1]), {"lr": np.array([0.05, 0.2])})
    results = train(data, model, sgd, trials, batch_size=64, max_steps=100_000, target=1.0)
    slow, fast = results.steps_to_target
    assert fast < slow < 200
    assert (drawn.count(0), drawn.count(1)) == (slow, fast)


def test_accuracy_counts_the_right_answers(data, model):
    results = train(data, model, sgd, grid(0, lr=0.2), batch_size=64, max_steps=100)
    params = model.init(generator(0, "init"))
    answers = model.apply(params, data.validation_inputs).argmax(dim=1)
    right = (answers == data.validation_labels).double().mean()
    assert results.accuracy[0, 0] == pytest.approx(right.item(), abs=1e-6)
    assert results.accuracy[0, -1] > 0.9


@given(max_steps=st.integers(1, 10_000), spacing=st.floats(1e-3, 0.5))
def test_evaluations_are_a_fine_grid(max_steps, spacing):
    steps = evaluation_steps(max_steps, spacing=spacing)
    assert steps[0] == 0
    assert steps[-1] == max_steps
    gaps = np.diff(steps)
    assert (gaps >= 1).all()
    assert ((gaps == 1) | (gaps <= spacing * steps[:-1] + 1e-9)).all()


def test_grid_holds_every_combination_once():
    trials = grid(range(2), lr=[0.1, 0.2, 0.4], momentum=[0, 0.9])
    rows = np.column_stack([trials.hyper["lr"], trials.hyper["momentum"], trials.seeds])
    assert rows.shape == (12, 3)
    assert len(np.unique(rows, axis=0)) == 12
    assert rows[:2].tolist() == [[0.1, 0, 0], [0.1, 0, 1]]


def test_progress_bar_shows_only_when_asked(data, model, capsys):
    settings = {"batch_size": 8, "max_steps": 5}
    train(data, model, sgd, grid(0, lr=0.1), **settings)
    assert capsys.readouterr().err == ""
    train(data, model, sgd, grid(0, lr=0.1), progress=True, **settings)
    assert "batch size 8" in capsys.readouterr().err


@pytest.mark.parametrize("seeds", [0, "a", None, [[1, 2], [3]], [[1, 2]], np.array(3)])
def test_seeds_that_are_no_sequence_are_named(seeds):
    with pytest.raises(ValueError, match=r"^seeds is .*; allowed: a sequence of integers"):
        Trials(seeds, {"lr": [0.1]})
