"""The Lipschitz constant of the gradient on the way of a step, against quadratics and loops."""

import numpy as np
import pytest
import torch

from batchscaling.curvature import gradient_lipschitz, hessian_product
from batchscaling.training import digits, mlp, softmax_regression, squared_error
from batchscaling.training.data import generator


@pytest.fixture(scope="module")
def examples():
    data = digits()
    return data.train_inputs[:100].double(), data.train_labels[:100]


def start(model, dtype=torch.float64):
    return {name: p.to(dtype) for name, p in model.init(generator(0, "init")).items()}


def slope(model, params, inputs, labels):
    leaves = {name: p.clone().requires_grad_() for name, p in params.items()}
    loss = torch.nn.functional.cross_entropy(model.apply(leaves, inputs), labels)
    grads = torch.autograd.grad(loss, list(leaves.values()))
    return dict(zip(leaves, grads, strict=True))


def flat(tree):
    return torch.cat([t.flatten() for t in tree.values()])


@pytest.mark.parametrize("lengths", [[1e-3], [0.5], [0.01, 3.0, 30.0]])
def test_on_a_quadratic_it_is_the_curvature_along_the_gradient(examples, lengths):
    inputs, labels = examples
    targets = torch.nn.functional.one_hot(labels, 10).float()
    model = softmax_regression(64, 10)
    params = start(model)
    found = gradient_lipschitz(model, params, inputs, targets, lengths=lengths, loss=squared_error)
    product, _ = hessian_product(model, params, inputs, targets, loss=squared_error)
    leaves = {name: p.clone().requires_grad_() for name, p in params.items()}
    rows = squared_error.scores(model.apply(leaves, inputs), targets)[0]
    grads = torch.autograd.grad(rows.sum() / len(inputs), list(leaves.values()))
    g = torch.cat([grad.flatten() for grad in grads]).numpy()
    assert found == pytest.approx(np.linalg.norm(product(g)) / np.linalg.norm(g), rel=1e-6)


def test_it_is_the_largest_ratio_of_a_plain_loop(examples):
    model, lengths = mlp([64, 16, 10]), [0.1, 1.0, 4.0]
    params = start(model)
    here = slope(model, params, *examples)
    ratios = []
    for length in lengths:
        point = {name: p - length * here[name] for name, p in params.items()}
        change = flat(slope(model, point, *examples)) - flat(here)
        ratios.append((change.norm() / (length * flat(here).norm())).item())
    assert np.ptp(ratios) > 0.1 * max(ratios)
    found = gradient_lipschitz(model, params, *examples, lengths=lengths)
    assert found == pytest.approx(max(ratios), rel=1e-10)


def test_at_a_place_without_slope_it_is_zero():
    model = softmax_regression(3, 2)
    params = {name: torch.zeros_like(p) for name, p in start(model).items()}
    inputs, labels = torch.ones(2, 3), torch.tensor([0, 1])
    assert gradient_lipschitz(model, params, inputs, labels, lengths=[1.0]) == 0


@pytest.mark.parametrize("lengths", [[], [0.0], [1.0, -1.0], [np.nan], 0.5, "long"])
def test_lengths_are_positive(examples, lengths):
    model = mlp([64, 16, 10])
    with pytest.raises(ValueError, match=r"^lengths is .*; allowed"):
        gradient_lipschitz(model, start(model), *examples, lengths=lengths)


def test_parameters_stay_as_they_are(examples):
    model = mlp([64, 16, 10])
    params = {name: p.requires_grad_() for name, p in start(model, torch.float32).items()}
    before = {name: p.detach().clone() for name, p in params.items()}
    gradient_lipschitz(model, params, *examples, lengths=np.array([1, 2]))
    assert all(torch.equal(params[name], p) for name, p in before.items())
    assert all(p.grad is None and p.requires_grad for p in params.values())
