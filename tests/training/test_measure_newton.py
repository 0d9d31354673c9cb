"""Newton's method on softmax regression, as it is measured: its step, its cells, its ranges."""

import json

import numpy as np
import pytest
import tiny
import torch

from batchscaling.curvature import SoftmaxRegression
from batchscaling.curves import load_results
from batchscaling.nqm import SGD, tune
from batchscaling.training import Objective, Range, Task, chain, sgd, softmax_regression
from tools import measure_newton as tool

TARGET, DECAY = 0.02, 0.05
RATE = {"lr": torch.tensor(1.0)}
FEW = {"trials": 4, "seeds": 1, "finalists": 2, "final_seeds": 2, "fresh": 3}
BASE = Task(
    load=tiny.load,
    model=softmax_regression(tiny.FEATURES, tiny.CLASSES),
    targets={"objective": TARGET},
    rates={"sgd": Range(0.01, 1)},
    examples=20_000,
    steps=100,
    weight_decay=DECAY,
)


@pytest.fixture(scope="module")
def regression():
    data = tiny.load()
    return SoftmaxRegression(data.train_inputs, data.train_labels, weight_decay=DECAY)


@pytest.fixture(scope="module")
def problem(regression):
    return regression.local_quadratic().problem(np.zeros(regression.dim))


def as_params(flat):
    weight, bias = torch.as_tensor(flat, dtype=torch.float32).split([18, 3])
    return {"layer0.weight": weight.view(6, 3), "layer0.bias": bias}


def test_with_power_1_one_step_is_at_the_minimum_of_a_quadratic_and_with_half_it_is_not():
    rng = np.random.default_rng(0)
    root = rng.normal(size=(21, 21))
    hessian, minimum, start = root @ root.T / 21 + np.eye(21), *rng.normal(size=(2, 21))
    left = {}
    for power in (1, 0.5):
        matrix = tool.inverse_power(hessian, power)
        method = chain(tool.multiplied(matrix), sgd)
        grads, params = as_params(hessian @ (start - minimum)), as_params(start)
        updates, _ = method.update(grads, method.init(params), params, RATE)
        ends = [params[name] + updates[name] for name in params]
        left[power] = np.abs(torch.cat([p.flatten() for p in ends]).numpy() - minimum).max()
    assert left[1] < 1e-5 and left[0.5] > 0.05
    halves = np.linalg.matrix_power(tool.inverse_power(hessian, 0.5), 2)
    np.testing.assert_allclose(halves @ hessian, np.eye(21), atol=1e-10)


def test_a_step_of_the_task_is_newtons_on_its_objective(regression):
    quadratic = regression.local_quadratic()
    task = tool.preconditioned(BASE, quadratic.hessian, 1.0, Range(0.1, 1))
    away = 0.1 * np.random.default_rng(0).normal(size=regression.dim)
    params, data = as_params(quadratic.point + away), tiny.load()
    points = {name: p.requires_grad_() for name, p in params.items()}
    outputs = BASE.model.apply(points, data.train_inputs)
    loss = torch.nn.functional.cross_entropy(outputs, data.train_labels)
    grads = dict(zip(points, torch.autograd.grad(loss, list(points.values())), strict=True))
    method = task.optimizer("sgd")
    updates, _ = method.update(grads, method.init(params), params, RATE)
    flat = torch.cat([u.flatten() for u in updates.values()]).detach().numpy()
    step = np.linalg.solve(quadratic.hessian, regression.slope(quadratic.point + away))
    np.testing.assert_allclose(flat, -step, rtol=1e-3, atol=1e-5)
    # The objective is no quadratic: what is left is of second order.
    assert np.linalg.norm(away + flat) < 0.3 * np.linalg.norm(away)


def test_rates_lie_around_the_best_one_of_the_model(problem):
    for power in (0.5, 1.0):
        rates = tool.rates_around(problem, power, 8, TARGET)
        (best,) = tune(problem.precondition(power), SGD, [8], TARGET).lr
        assert rates.position(best) == pytest.approx(2 / 3, abs=0.02)
        assert rates.high / rates.low == pytest.approx(2**9)


def test_cells_are_searched_once_and_read_as_those_of_sweeps(problem, tmp_path, monkeypatch):
    begun, run = [], tool.run_cell
    monkeypatch.setattr(tool, "run_cell", lambda cell: begun.append(cell.file) or run(cell))
    for _ in range(2):
        for power in (1.0, 0.5):
            tool.measure(BASE, problem, power, 96, FEW, tmp_path)
    assert begun == [f"mnist-softmax-power-{power}-sgd-00096.json" for power in (1, 0.5)]
    results = {cell.task: cell for cell in load_results(tmp_path)}
    steps = {power: results[f"mnist-softmax-power-{power}"].interval()[1] for power in (1, 0.5)}
    assert steps[1] < 40 and steps[0.5] < 100
    record = json.loads((tmp_path / begun[0]).read_text("utf-8"))
    command = "python -m tools.measure_newton --power 1 --batch-size 96"
    assert record["provenance"]["command"] == command
    assert len(record["fresh"]["objective"]) == FEW["fresh"]


def test_the_objective_is_that_of_the_task_without_the_matrix(regression):
    task = tool.preconditioned(BASE, tool.hessian_of(BASE), 1.0, Range(0.1, 1))
    assert task.objective is BASE.objective
    expected = Objective.of(tiny.load(), BASE.model, DECAY)
    assert task.objective.minimum == pytest.approx(expected.minimum, abs=1e-6)
    np.testing.assert_allclose(tool.hessian_of(BASE), regression.hessian(regression.minimise()))
