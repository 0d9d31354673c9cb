"""The training objective as a measure, and as what a task minimises."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from batchscaling.curvature import SoftmaxRegression
from batchscaling.training import (
    TASKS,
    Objective,
    chain,
    digits,
    fix,
    grid,
    sgd,
    softmax_regression,
    train,
    weight_decay,
)

DECAY = 1e-3
MODEL = softmax_regression(64, 10)
DESCENT = chain(fix(weight_decay, weight_decay=DECAY), sgd)


@pytest.fixture(scope="module")
def data():
    return digits()


@pytest.fixture(scope="module")
def objective(data):
    return Objective.of(data, MODEL, DECAY)


def reference(data, lr, steps, objective, decay=None):
    """Full-batch descent by hand; the excess after each step, of the average if there is one."""
    params = torch.zeros(65, 10, dtype=torch.double, requires_grad=True)
    inputs = torch.cat([data.train_inputs, torch.ones(len(data.train_inputs), 1)], 1).double()
    average, excess = params.detach().clone(), []
    for step in range(steps + 1):
        measured = params if decay is None else average

        def value(point):
            loss = cross_entropy(inputs @ point, data.train_labels)
            return loss + DECAY / 2 * point.square().sum()

        excess.append(value(measured).item() - objective.minimum)
        if step < steps:
            (slope,) = torch.autograd.grad(value(params), params)
            params = (params - lr * slope).detach().requires_grad_()
            if decay is not None:
                average = decay * average + (1 - decay) * params.detach()
    return np.array(excess)


@pytest.mark.parametrize("at_once", [300, 2**15])
def test_excess_is_that_of_descent_by_hand(data, objective, at_once):
    trials = grid(seeds=[0], lr=[0.05, 0.2], decay=0.5)
    result = train(
        data, MODEL, DESCENT, trials, batch_size=len(data.train_inputs), max_steps=12,
        measures=("objective", "averaged_objective"), objective=objective, at_once=at_once,
        evaluate_at=range(13),
    )  # fmt: skip
    for k, lr in enumerate([0.05, 0.2]):
        for measure, decay in (("objective", None), ("averaged_objective", 0.5)):
            expected = reference(data, lr, 12, objective, decay)
            np.testing.assert_allclose(result.losses[measure][k], expected, rtol=2e-5, atol=1e-6)


def test_crossings_are_the_same_where_sums_stop_early(data, objective):
    trials = grid(seeds=[0, 1], lr=[0.02, 0.1, 0.5, 20.0], decay=[0.0, 0.9])
    options = {"batch_size": 32, "max_steps": 300, "objective": objective}
    targets = {"objective": 0.25, "averaged_objective": 0.3}
    whole = train(data, MODEL, DESCENT, trials, target=targets, **options)
    quick = train(data, MODEL, DESCENT, trials, target=targets, exact=False, **options)
    for measure in targets:
        crossings = whole.crossing(measure)
        assert np.isfinite(crossings).any() and not np.isfinite(crossings).all()
        np.testing.assert_array_equal(quick.crossing(measure), crossings)


def test_the_smallest_value_is_newtons(data, objective):
    regression = SoftmaxRegression(data.train_inputs, data.train_labels, weight_decay=DECAY)
    newton = regression.value(regression.minimise())
    assert 0 <= objective.minimum - newton < 1e-6


def test_labels_that_do_not_count_are_left_out(data):
    labels = data.train_labels.clone()
    labels[::2] = -1
    kept = replace(data, train_inputs=data.train_inputs[1::2], train_labels=data.train_labels[1::2])
    some = Objective.of(replace(data, train_labels=labels), MODEL, DECAY)
    assert some.minimum == pytest.approx(Objective.of(kept, MODEL, DECAY).minimum, abs=1e-6)


def test_a_task_has_the_objective_that_its_optimizers_descend_on():
    for name in ("mnist-softmax", "mnist-softmax-averaged"):
        task = TASKS[name]
        assert task.weight_decay > 0
        for measure in task.targets:
            assert measure.endswith("objective")
    params = {"weight0": torch.ones(2, 2)}
    grads = {"weight0": torch.zeros(2, 2)}
    optimizer = TASKS["mnist-softmax"].optimizer("sgd")
    hyper = {"lr": torch.tensor(1.0)}
    updates, _ = optimizer.update(grads, optimizer.init(params), params, hyper)
    torch.testing.assert_close(updates["weight0"], torch.full((2, 2), -1e-4))
    assert TASKS["digits-mlp"].objective is None


def test_bad_input(data):
    trials = grid(seeds=[0], lr=0.1)
    options = {"batch_size": 8, "max_steps": 1, "measures": ("objective",)}
    for name, call in {
        "objective": lambda: train(data, MODEL, sgd, trials, **options),
        "weight_decay": lambda: Objective(weight_decay=-1.0),
        "minimum": lambda: Objective(minimum="0"),
        "inputs": lambda: softmax_regression(0, 10),
        "classes": lambda: softmax_regression(4, 1),
    }.items():
        with pytest.raises(ValueError, match=f"^{name} is .*; allowed: "):
            call()
    none = replace(data, train_labels=torch.full_like(data.train_labels, -1))
    with pytest.raises(ValueError, match=r"^train_labels is .*some labels that count"):
        train(none, MODEL, sgd, trials, objective=Objective(), **options)
    with pytest.raises(ValueError, match=r"^weight_decay is 0"):
        Objective.of(data, MODEL, 0)
