import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from batchscaling.training.schedules import (
    BatchSizes,
    constant,
    linear_decay,
    linear_scaling,
    multiply_schedules,
    step_drops,
)

EPOCH = 50_000  # training examples of CIFAR-10


def factors(schedule, steps, hyper=None):
    return [float(schedule.factor(step, hyper or {})) for step in range(steps)]


def torch_factors(build, steps, lr=1.0):
    """Return the rates of one of torch's schedulers."""
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=lr)
    scheduler, rates = build(optimizer), []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def test_constant_is_one():
    assert factors(constant, 3) == [1, 1, 1]
    assert constant.hyper == {}


@settings(deadline=None, max_examples=30)
@given(decay_steps=st.integers(1, 30), final_fraction=st.floats(1e-3, 1))
def test_linear_decay_is_torchs_linear_lr(decay_steps, final_fraction):
    hyper = {
        "decay_steps": torch.tensor([decay_steps, 5.0]),
        "final_fraction": torch.tensor([final_fraction, 1.0]),
    }
    theirs = torch_factors(
        lambda optimizer: torch.optim.lr_scheduler.LinearLR(
            optimizer, start_factor=1, end_factor=final_fraction, total_iters=decay_steps
        ),
        40,
    )
    for step, rate in enumerate(theirs):
        ours = linear_decay.factor(step, hyper)
        assert ours.shape == (2,)
        assert ours.tolist() == pytest.approx([rate, 1], rel=1e-4)


def test_linear_decay_is_the_papers_formula_for_each_trial():
    lengths, rho = torch.tensor([10.0, 4.5]), torch.tensor([0.0, 0.2])
    hyper = {"decay_steps": lengths, "final_fraction": rho}
    for step in range(12):
        for row, factor in enumerate(linear_decay.factor(step, hyper)):
            end = step > lengths[row]
            expected = rho[row] if end else 1 - (1 - rho[row]) * step / lengths[row]
            assert factor.item() == pytest.approx(expected.item(), abs=1e-6)


@settings(deadline=None, max_examples=30)
@given(
    steps=st.lists(st.integers(1, 30), min_size=1, max_size=4, unique=True),
    factor=st.floats(0.01, 1),
)
def test_step_drops_are_torchs_multi_step_lr(steps, factor):
    theirs = torch_factors(
        lambda optimizer: torch.optim.lr_scheduler.MultiStepLR(optimizer, steps, gamma=factor), 40
    )
    assert factors(step_drops(sorted(steps), factor), 40) == pytest.approx(theirs, rel=1e-9)


@pytest.mark.parametrize("warm_up", [1, 8])
@pytest.mark.parametrize("batch_size", [256, 2048])
def test_linear_scaling_is_torchs_linear_lr_up_to_the_scaled_rate(batch_size, warm_up):
    scale = batch_size / 256
    theirs = torch_factors(
        lambda optimizer: torch.optim.lr_scheduler.LinearLR(
            optimizer, start_factor=1 / scale, total_iters=warm_up
        ),
        12,
        lr=scale,
    )
    ours = factors(linear_scaling(batch_size, reference=256, warm_up=warm_up), 12)
    assert ours == pytest.approx(theirs, rel=1e-9)


def test_without_a_warm_up_the_rate_is_scaled_from_the_start():
    assert factors(linear_scaling(2048, reference=256), 3) == [8, 8, 8]


def test_small_batches_are_scaled_down_from_the_start():
    assert factors(linear_scaling(64, reference=256, warm_up=4), 6) == [0.25] * 6


def test_multiplied_schedules_multiply_and_keeps_the_hyperparameters():
    warm_up = linear_scaling(512, reference=128, warm_up=3)
    both = multiply_schedules(warm_up, linear_decay, step_drops([5], 0.1))
    assert both.hyper == linear_decay.hyper
    hyper = {"decay_steps": torch.tensor([10.0]), "final_fraction": torch.tensor([0.0])}
    expected = [1, 2 * 0.9, 3 * 0.8, 4 * 0.7, 4 * 0.6, 0.4 * 0.5, 0.4 * 0.4]
    assert factors(both, 7, hyper) == pytest.approx(expected, rel=1e-5)


pieces = st.lists(st.tuples(st.integers(1, 20), st.integers(1, 50)), min_size=1, max_size=5)


@given(pieces=pieces)
def test_batch_sizes_are_the_written_out_list(pieces):
    sizes = BatchSizes(pieces)
    listed = [size for steps, size in pieces for _ in range(steps)]
    assert sizes.steps == len(listed)
    assert [sizes.at(step) for step in range(sizes.steps)] == listed
    used = [sum(listed[:step]) for step in range(sizes.steps + 1)]
    assert [sizes.examples(step) for step in range(sizes.steps + 1)] == used
    for examples in range(1, used[-1] + 1):
        step = sizes.steps_for(examples)
        assert used[step - 1] < examples <= used[step]


@given(
    examples=st.integers(1, 1000),
    pieces=st.lists(
        st.tuples(st.integers(1, 9), st.integers(1, 300)), min_size=1, max_size=4
    ).filter(lambda pieces: pieces == sorted(pieces, key=lambda piece: piece[1])),
)
def test_each_piece_ends_with_the_step_that_uses_up_its_epochs(examples, pieces):
    # Batches no larger than the set leave a step to every piece.
    pieces = [(epochs, min(batch_size, examples)) for epochs, batch_size in pieces]
    sizes, ends, step = BatchSizes.of_epochs(examples, pieces), 0, 0
    for (epochs, batch_size), (steps, counted) in zip(pieces, sizes.pieces, strict=True):
        ends, step = ends + epochs, step + steps
        assert counted == batch_size
        assert sizes.examples(step) - batch_size < ends * examples <= sizes.examples(step)
    assert sizes.steps == step == sizes.steps_for(ends * examples)


@pytest.mark.parametrize(
    ("pieces", "updates"),
    [
        ([(200, 128)], 78_125),
        ([(60, 128), (140, 640)], 34_375),
        ([(60, 128), (60, 640), (40, 3200), (40, 16_000)], 28_875),
        ([(60, 640), (60, 3200), (80, 5120)], 6_406),
        ([(60, 3200), (140, 5120)], 2_305),
    ],
)
def test_updates_are_those_of_smith_et_al(pieces, updates):
    sizes = BatchSizes.of_epochs(EPOCH, pieces)
    assert abs(sizes.steps - updates) <= 2
    assert 0 <= sizes.examples(sizes.steps) - 200 * EPOCH < pieces[-1][1]


def test_rate_over_batch_size_falls_alike_whether_the_rate_drops_or_the_batch_grows():
    """The noise of an update is as lr / batch size: Smith et al. (2018)."""
    decay = BatchSizes.of_epochs(EPOCH, [(200, 100)])
    drops = step_drops([decay.steps_for(epochs * EPOCH) for epochs in (60, 120, 160)], 0.2)
    grow = BatchSizes.of_epochs(EPOCH, [(60, 100), (60, 500), (40, 2500), (40, 12_500)])
    for epochs in range(1, 200):
        if epochs in (60, 120, 160):
            continue
        decayed = drops.factor(decay.steps_for(epochs * EPOCH), {}) / 100
        assert decayed == pytest.approx(1 / grow.at(grow.steps_for(epochs * EPOCH)))


def test_parts_of_an_epoch_are_whole_examples():
    assert BatchSizes.of_epochs(10, [(1.1, 1)]).steps == 11


BAD = [
    (lambda: step_drops([], 0.1), "steps is []"),
    (lambda: step_drops(5, 0.1), "steps is 5"),
    (lambda: step_drops([0], 0.1), "steps[0] is 0"),
    (lambda: step_drops([2.0], 0.1), "steps[0] is 2.0"),
    (lambda: step_drops([5, 5], 0.1), "steps is [5, 5]"),
    (lambda: step_drops([5, 4], 0.1), "steps is [5, 4]"),
    (lambda: step_drops([5], 0), "factor is 0"),
    (lambda: step_drops([5], 1.5), "factor is 1.5"),
    (lambda: linear_scaling(0, reference=1), "batch_size is 0"),
    (lambda: linear_scaling(64, reference=0), "reference is 0"),
    (lambda: linear_scaling(64, reference=32.0), "reference is 32.0"),
    (lambda: linear_scaling(64, reference=32, warm_up=-1), "warm_up is -1"),
    (lambda: multiply_schedules(), "schedules is ()"),
    (lambda: multiply_schedules(constant, 0.5), "schedules[1] is 0.5"),
    (lambda: multiply_schedules(linear_decay, linear_decay), "schedules is"),
    (lambda: linear_decay.hyper["decay_steps"]("decay_steps", 0), "decay_steps is 0"),
    (lambda: linear_decay.hyper["final_fraction"]("final_fraction", -0.1), "final_fraction is"),
    (lambda: linear_decay.hyper["final_fraction"]("final_fraction", 1.1), "final_fraction is"),
    (lambda: BatchSizes([]), "pieces is []"),
    (lambda: BatchSizes(128), "pieces is 128"),
    (lambda: BatchSizes([128]), "pieces[0] is 128"),
    (lambda: BatchSizes([(1, 2, 3)]), "pieces[0] is [1, 2, 3]"),
    (lambda: BatchSizes([(0, 8)]), "pieces[0][0] is 0"),
    (lambda: BatchSizes([(5, 8), (5, 0)]), "pieces[1][1] is 0"),
    (lambda: BatchSizes([(5, 8.0)]), "pieces[0][1] is 8.0"),
    (lambda: BatchSizes([(5, 8)]).at(5), "step is 5"),
    (lambda: BatchSizes([(5, 8)]).at(-1), "step is -1"),
    (lambda: BatchSizes([(5, 8)]).examples(6), "step is 6"),
    (lambda: BatchSizes([(5, 8)]).steps_for(41), "examples is 41"),
    (lambda: BatchSizes([(5, 8)]).steps_for(0), "examples is 0"),
    (lambda: BatchSizes.of_epochs(0, [(1, 8)]), "examples is 0"),
    (lambda: BatchSizes.of_epochs(100, [(0, 8)]), "pieces[0][0] is 0"),
    (lambda: BatchSizes.of_epochs(100, [(1, 0)]), "pieces[0][1] is 0"),
    (lambda: BatchSizes.of_epochs(100, [(1, 90), (0.5, 10)]), "pieces[1][0] is 0.5"),
]


@pytest.mark.parametrize(("call", "message"), BAD, ids=[message for _, message in BAD])
def test_bad_input_names_parameter_value_and_what_is_allowed(call, message):
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        call()
    assert "allowed: " in str(error.value)
