"""The tasks of sweeps: data, network, targets and search spaces fit one another."""

import re
from dataclasses import replace
from decimal import Decimal

import numpy as np
import pytest
import tiny
import torch
from tiny import TINY

from batchscaling.training import (
    OPTIMIZERS,
    TASKS,
    Cell,
    Data,
    Range,
    draw,
    grid,
    hyperparameters,
    linear_decay,
    mlp,
    run_cell,
    sgd,
    train,
)
from batchscaling.training.data import describe
from batchscaling.training.evaluation import MEASURES
from batchscaling.training.fit import check_fit

EVERY = {**TASKS, "tiny": TINY}
every_task = pytest.mark.parametrize("task", EVERY.values(), ids=EVERY)


@every_task
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_space_gives_each_hyperparameter_of_its_optimizer(task, name):
    hyper = hyperparameters(draw(task.space(name), 50, seed=0))
    averaged = {"decay"} if any("averaged" in target for target in task.targets) else set()
    checks = {**task.optimizer(name).hyper, **task.schedule.hyper}
    assert set(hyper) == set(checks) | averaged
    for hyperparameter, check in checks.items():
        for value in hyper[hyperparameter]:
            check(hyperparameter, value)
    for decay in hyper.get("decay", []):
        assert 0 <= decay < 1


def test_a_rate_is_effective_where_there_is_momentum():
    task = TASKS["digits-mlp"]
    assert task.space("sgd") == {"lr": task.rates["sgd"], "decay": Range(2**-8, 1, complement=True)}
    for name in ("heavy_ball", "nesterov"):
        space = task.space(name)
        assert list(space) == ["effective_lr", "momentum", "decay"]
        assert space["effective_lr"] == task.rates["sgd"]
        assert space["momentum"].values([0, 1]).tolist() == [0.99, 0]
    assert list(task.space("adam")) == ["lr", "beta1", "decay"]
    assert (
        task.space("adam")["lr"] == task.space("adam_without_momentum")["lr"] == task.rates["adam"]
    )
    assert "decay" not in TASKS["mnist-cnn-small"].space("adam")


def test_a_task_may_have_ranges_of_its_own():
    ranges = {"damping": Range(0.1, 1), "momentum": Range(0.2, 1, complement=True)}
    task, usual = replace(TINY, ranges=ranges), TINY.space("kfac")
    assert task.space("kfac") == {**usual, **ranges}
    assert list(task.space("kfac")) == list(usual)
    assert task.space("heavy_ball") == {**TINY.space("heavy_ball"), "momentum": ranges["momentum"]}
    assert task.space("sgd") == TINY.space("sgd")
    assert task.space("kfac_without_momentum")["damping"] == ranges["damping"]


@pytest.mark.parametrize(
    ("ranges", "words"),
    [
        ({"dampings": Range(0.1, 1)}, "ranges is 'dampings'; allowed: one of .*'damping'"),
        ({"lr": Range(0.1, 1)}, "ranges is 'lr'; allowed"),
        ({"damping": (0.1, 1)}, r"ranges\['damping'\] is \(0.1, 1\); allowed: a Range"),
    ],
)
def test_ranges_that_no_method_searches_are_named(ranges, words):
    with pytest.raises(ValueError, match=f"^{words}"):
        replace(TINY, ranges=ranges)


DECAY = {"decay_steps": Range(2, 5), "final_fraction": Range(0.2, 0.5)}


def test_a_schedule_is_searched_and_used():
    task = replace(TINY, name="decayed", schedule=linear_decay, ranges=DECAY)
    assert task.space("sgd") == {**TINY.space("sgd"), **DECAY}
    small = {"trials": 3, "seeds": 1, "finalists": 1, "final_seeds": 1, "fresh": 2}
    record = run_cell(Cell(task, "sgd", 16, **small))
    best, hyper = record["best"]["validation"], record["hyper"]
    assert set(hyper) == set(task.space("sgd"))
    trials = grid([2000, 2001], **{name: values[best] for name, values in hyper.items()})
    target = {"validation": task.targets["validation"]}
    run = {"batch_size": 16, "max_steps": task.max_steps(16), "target": target}
    alone = train(task.load(), task.model, sgd, trials, schedule=linear_decay, **run)
    found = [np.inf if steps is None else steps for steps in record["fresh"]["validation"]]
    assert alone.crossing("validation").tolist() == found
    trials = grid([2000, 2001], lr=hyper["lr"][best])
    constant = train(task.load(), task.model, sgd, trials, **run)
    assert constant.crossing("validation").tolist() != found


def test_a_range_of_the_schedule_that_is_missing_is_named():
    with pytest.raises(
        ValueError, match=r"^ranges is .*'decay_steps'.*; allowed: .*final_fraction"
    ):
        replace(TINY, schedule=linear_decay, ranges={"decay_steps": Range(10, 100)})


@every_task
def test_small_batches_have_examples_enough_and_large_ones_steps(task):
    sizes = np.array([2**k for k in range(13)])
    steps = np.array([task.max_steps(int(size)) for size in sizes])
    assert (np.diff(steps) <= 0).all()
    assert (steps >= task.steps).all()
    assert (np.abs((steps - task.steps) * sizes - task.examples) <= sizes).all()


FILES = {
    "cifar10": "cifar10_subset",
    "fashion": "fashion_mnist",
    "mnist": "mnist",
    "shakespeare": "tiny_shakespeare",
}
HERE = {row.name for row in describe() if row.present}


@pytest.mark.parametrize("name", EVERY)
def test_a_task_fits_together_and_its_targets_are_below_the_loss_of_chance(name):
    files = FILES.get(name.split("-")[0])
    if files and files not in HERE:
        pytest.skip(f"needs the files of {files}")
    task = EVERY[name]
    data = task.load()
    check_fit(data, task.model, task.loss)
    rows = task.model.apply(
        task.model.init(torch.Generator().manual_seed(0)), data.validation_inputs[:5]
    )
    # Without a look at the inputs, all classes are as likely, or all pixels grey.
    chance, _ = task.loss.scores(torch.zeros_like(rows), data.validation_labels[:5])
    assert set(task.targets) <= set(MEASURES)
    assert all(0 < target < chance.mean() for target in task.targets.values())
    assert task.patience >= 1
    # Batches of a sweep are at most the training set.
    assert len(data.train_inputs) > 50


def test_kfac_sees_every_layer_of_the_transformer():
    """A look names a parameter that no layer explains; the tied matrix is pooled."""
    if FILES["shakespeare"] not in HERE:
        pytest.skip("needs the files of tiny_shakespeare")
    task = TASKS["shakespeare-transformer"]
    data = task.load()
    parts = data.train_inputs, data.train_labels, data.validation_inputs, data.validation_labels
    few = Data(*(tensor[:20] for tensor in parts))
    setting = {"lr": 0.1, "momentum": 0.5, "damping": 0.1, "kl_clip": 0.01}
    options = {"batch_size": 20, "max_steps": 12, "measures": ["training"]}
    result = train(few, task.model, task.optimizer("kfac"), grid([0], **setting), **options)
    loss = result.losses["training"][0]
    assert np.isfinite(loss).all() and loss[-1] < 0.95 * loss[0]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"targets": {}}, "targets is {}; allowed: a mapping of some of validation"),
        ({"targets": 1.0}, "targets is 1.0; allowed: a mapping"),
        ({"targets": {"valid": 1.0}}, "targets is 'valid'; allowed: one of 'validation'"),
        ({"targets": {"validation": 0}}, "targets['validation'] is 0; allowed: a finite number"),
        ({"ranges": None}, "ranges is None; allowed: a mapping"),
        ({"rates": None}, "rates is None; allowed: a mapping"),
        ({"rates": {"sgd": (1, 2)}}, "rates['sgd'] is (1, 2); allowed: a Range"),
        ({"schedule": "x"}, "schedule is 'x'; allowed: a Schedule"),
        ({"loss": "x"}, "loss is 'x'; allowed: a Loss"),
        ({"model": mlp}, "allowed: a Model"),
        ({"load": 5}, "load is 5; allowed: a function without arguments"),
    ],
)
def test_what_is_no_part_of_a_task_is_named_at_once(changed, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        replace(tiny.TINY, **changed)


@pytest.mark.parametrize(
    "number", [np.float32(0.5), np.array(0.5), torch.tensor(0.5), Decimal("0.5")]
)
def test_a_target_may_be_a_number_of_any_type(number):
    goal = replace(tiny.TINY, targets={"validation": number}).targets["validation"]
    assert type(goal) is float and goal == 0.5
