"""Softmax regression's exact quadratic against automatic differentiation and plain sums."""

import numpy as np
import pytest
import torch
from torch.func import grad, hessian, vmap
from torch.nn.functional import cross_entropy

from batchscaling.curvature import LocalQuadratic, SoftmaxRegression
from batchscaling.nqm import SGD, risk

EXAMPLES, FEATURES, CLASSES, DECAY = 60, 4, 3, 1e-2
DIM = (FEATURES + 1) * CLASSES


@pytest.fixture(scope="module")
def examples():
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(EXAMPLES, FEATURES))
    labels = (inputs @ rng.normal(size=(FEATURES, CLASSES)) + rng.gumbel(size=CLASSES)).argmax(1)
    return inputs, labels


@pytest.fixture(scope="module")
def regression(examples):
    return SoftmaxRegression(*examples, weight_decay=DECAY)


@pytest.fixture(scope="module")
def quadratic(regression):
    return regression.local_quadratic()


def loss(params, inputs, labels):
    """The same objective in torch."""
    extended = torch.cat([inputs, torch.ones(len(inputs), 1, dtype=inputs.dtype)], 1)
    outputs = extended @ params.view(FEATURES + 1, CLASSES)
    return cross_entropy(outputs, labels) + DECAY / 2 * params @ params


@pytest.fixture
def point():
    return np.random.default_rng(1).normal(size=DIM)


def in_torch(examples, point):
    return torch.tensor(point), *(torch.tensor(part) for part in examples)


def test_value_slope_and_hessian_are_those_of_autograd(regression, examples, point):
    tensors = in_torch(examples, point)
    assert regression.dim == DIM
    np.testing.assert_allclose(regression.value(point), loss(*tensors), rtol=1e-12)
    np.testing.assert_allclose(regression.slope(point), grad(loss)(*tensors), rtol=1e-9)
    np.testing.assert_allclose(
        regression.hessian(point), hessian(loss)(*tensors), rtol=1e-9, atol=1e-14
    )


@pytest.mark.parametrize("chunk", [7, 4096])
def test_covariance_is_that_of_each_examples_gradient(
    regression, examples, point, chunk, monkeypatch
):
    monkeypatch.setattr("batchscaling.curvature.softmax._CHUNK", chunk)
    params, inputs, labels = in_torch(examples, point)
    each = vmap(grad(lambda p, x, k: loss(p, x[None], k[None])), (None, 0, 0))
    gradients = each(params, inputs, labels).numpy()
    expected = np.cov(gradients.T, bias=True)
    np.testing.assert_allclose(
        regression.gradient_covariance(point), expected, rtol=1e-9, atol=1e-12
    )


def test_the_minimum_is_one(regression, quadratic):
    assert np.abs(regression.slope(quadratic.point)).max() < 1e-9
    assert quadratic.minimum == regression.value(quadratic.point)
    rng = np.random.default_rng(2)
    for _ in range(10):
        near = quadratic.point + 0.1 * rng.normal(size=DIM)
        assert regression.value(near) > quadratic.minimum


def test_newton_arrives_where_whole_steps_would_not():
    # Far outliers of one class: from zero, Newton's whole steps overshoot.
    inputs = np.concatenate([np.random.default_rng(3).normal(size=(40, 1)), [[300.0], [-300.0]]])
    labels = (inputs[:, 0] > 0).astype(int)
    regression = SoftmaxRegression(inputs, labels, weight_decay=1e-6)
    assert np.abs(regression.slope(regression.minimise())).max() < 1e-7


def test_the_problem_is_the_quadratic_in_its_eigenbasis(quadratic, point):
    problem = quadratic.problem(point)
    away = point - quadratic.point
    assert problem.initial_risk == pytest.approx(away @ quadratic.hessian @ away / 2)
    assert problem.curvature.sum() == pytest.approx(np.trace(quadratic.hessian))
    assert problem.noise.sum() == pytest.approx(np.trace(quadratic.covariance))
    assert (np.diff(problem.curvature) <= 0).all()


def preconditioners():
    """Return what `scales` may be, by its name."""
    rng = np.random.default_rng(4)
    root = rng.normal(size=(DIM, DIM)) / DIM**0.5
    vector = rng.uniform(0.2, 2, DIM)
    return {"none": None, "diagonal": vector, "whole": root @ root.T + 0.2 * np.eye(DIM)}


@pytest.mark.parametrize("kind", preconditioners())
def test_risk_is_that_of_the_plain_recursion_in_all_parameters(quadratic, point, kind):
    # Without the noise between directions that the model leaves out.
    scales = preconditioners()[kind]
    whole = np.eye(DIM) if kind == "none" else scales if scales.ndim == 2 else np.diag(scales)
    root = np.linalg.cholesky(whole)
    _, vectors = np.linalg.eigh(root.T @ quadratic.hessian @ root)
    along = vectors.T @ root.T @ quadratic.covariance @ root @ vectors
    back = np.linalg.inv(root).T @ vectors
    covariance = back @ np.diag(np.diag(along)) @ back.T
    lr, batch_size = 0.3, 8
    move = np.eye(DIM) - lr * whole @ quadratic.hessian
    noise = lr**2 / batch_size * whole @ covariance @ whole
    second = np.outer(point - quadratic.point, point - quadratic.point)
    for _ in range(20):
        second = move @ second @ move.T + noise
    expected = np.sum(quadratic.hessian * second) / 2
    assert risk(quadratic.problem(point, scales), SGD(lr), batch_size, 20) == pytest.approx(
        expected, rel=1e-9
    )


@pytest.mark.parametrize(("kind", "last"), [(np.uint8, 255), (np.int8, 127)])
def test_labels_may_be_the_largest_of_their_type(kind, last):
    labels = np.array([0, 3, last], dtype=kind)
    found = SoftmaxRegression(np.eye(3), labels, weight_decay=1)
    assert found.targets.shape == (3, last + 1) and found.targets.argmax(1).tolist() == [0, 3, last]


INPUTS, LABELS = np.eye(3), np.array([0, 1, 2])
QUADRATIC = LocalQuadratic(0.0, np.zeros(2), np.eye(2), np.eye(2))
BAD = [
    ("weight_decay", lambda: SoftmaxRegression(INPUTS, LABELS, weight_decay=0), "0"),
    ("weight_decay", lambda: SoftmaxRegression(INPUTS, LABELS, weight_decay="1"), "'1'"),
    ("labels", lambda: SoftmaxRegression(INPUTS, LABELS[:2], weight_decay=1), "(2,)"),
    ("labels", lambda: SoftmaxRegression(INPUTS, LABELS - 1, weight_decay=1), "-1"),
    ("labels", lambda: SoftmaxRegression(INPUTS, LABELS * 1.0, weight_decay=1), "2."),
    ("labels", lambda: SoftmaxRegression(INPUTS, [[0], [1, 2]], weight_decay=1), "[[0], [1, 2]]"),
    ("inputs", lambda: SoftmaxRegression([[1], [1, 2]], [0, 1], weight_decay=1), "[[1], [1, 2]]"),
    ("inputs", lambda: SoftmaxRegression(INPUTS * np.nan, LABELS, weight_decay=1), "nan"),
    ("inputs", lambda: SoftmaxRegression([], [], weight_decay=1), "shape (0"),
    ("inputs", lambda: SoftmaxRegression(1.0, [0], weight_decay=1), "1."),
    ("start", lambda: QUADRATIC.problem(np.zeros(3)), "(3,)"),
    ("scales", lambda: QUADRATIC.problem(np.zeros(2), np.ones(3)), "(3,)"),
    ("scales", lambda: QUADRATIC.problem(np.zeros(2), np.zeros(2)), "0.0"),
    ("scales", lambda: QUADRATIC.problem(np.zeros(2), -np.eye(2)), "not positive definite"),
    ("scales", lambda: QUADRATIC.problem(np.zeros(2), np.triu(np.ones((2, 2)))), "not symmetric"),
    ("scales", lambda: QUADRATIC.problem(np.zeros(2), np.eye(3)), "(3, 3)"),
]


@pytest.mark.parametrize("method", ["value", "slope", "hessian", "gradient_covariance"])
def test_parameters_are_one_vector_of_any_kind(method):
    function = getattr(SoftmaxRegression(INPUTS, LABELS, weight_decay=1), method)
    whole = np.arange(12.0)
    np.testing.assert_array_equal(function(whole.tolist()), function(whole))
    for wrong in (whole[:4], whole.reshape(4, 3), 1.0, "a"):
        with pytest.raises(ValueError, match=r"^params is .*; allowed: "):
            function(wrong)


def test_a_weight_decay_below_rounding_is_named():
    inputs = np.random.default_rng(0).normal(scale=100, size=(9, 4))
    with pytest.raises(ValueError, match=r"^weight_decay is 1e-300; allowed: a larger one"):
        SoftmaxRegression(inputs, np.tile(LABELS, 3), weight_decay=1e-300).minimise()


@pytest.mark.parametrize(("name", "call", "value"), BAD)
def test_bad_input(name, call, value):
    with pytest.raises(ValueError) as error:
        call()
    given, _ = str(error.value).split("; allowed: ")
    assert given.startswith(f"{name} is ") and value in given
