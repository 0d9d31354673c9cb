"""Dense Fisher matrices and exact steps against products with vectors, and Newton's step."""

import numpy as np
import pytest
import torch
from doubles import drawn, integers, normal
from torch.func import grad

from batchscaling.curvature import (
    fisher_matrix,
    fisher_product,
    gauss_newton_step,
    hessian_product,
    per_example_gradients,
)
from batchscaling.training import Model, mlp, resnet, simple_cnn, transformer_lm
from batchscaling.training.losses import squared_error
from batchscaling.training.models import layers

MLP = mlp([4, 5, 3])
CNN = simple_cnn(4, 2, filters=(2, 2), units=3, classes=3)
TIED = transformer_lm(5, width=4, heads=2, units=3, layers=1)
NETWORKS = {
    "mlp": (MLP, drawn(MLP), normal(7, 4), integers(3, 7)),
    "cnn": (CNN, drawn(CNN), normal(7, 2, 4, 4), integers(3, 7)),
    "tied": (TIED, drawn(TIED), integers(5, 7, 3), integers(5, 7, 3)),
}


@pytest.fixture(params=NETWORKS)
def case(request):
    return NETWORKS[request.param]


def flat(tensors):
    return torch.cat([t.flatten() for t in tensors.values()]).numpy()


@pytest.mark.parametrize("fisher", ["exact", "empirical"])
def test_the_matrix_is_that_of_the_product(case, fisher):
    labels = case[3].clone()
    labels.view(-1)[1] = -1
    case = (*case[:3], labels)
    product, dim = fisher_product(*case, fisher=fisher)
    found = fisher_matrix(*case, fisher=fisher, chunk=3)
    np.testing.assert_allclose(found, product(np.eye(dim)), atol=1e-13)


def test_the_error_of_a_sampled_matrix_falls_with_the_root_of_the_samples():
    case = NETWORKS["mlp"]
    exact = fisher_matrix(*case)
    errors = [
        np.mean(
            [
                np.square(fisher_matrix(*case, fisher="sampled", samples=n, seed=k) - exact).sum()
                for k in range(40)
            ]
        )
        for n in (2, 32)
    ]
    assert errors[0] / errors[1] == pytest.approx(16, rel=0.5)
    assert errors[1] < 0.05 * np.square(exact).sum()


@pytest.mark.parametrize("damping", [1e-3, 1.0])
def test_a_step_solves_its_equation(case, damping):
    step = gauss_newton_step(*case, damping=damping)
    product, _ = fisher_product(*case)
    mean = per_example_gradients(*case).mean(0).numpy()
    np.testing.assert_allclose(product(flat(step)) + damping * flat(step), mean, atol=1e-12)
    assert list(step) == list(case[1])
    assert all(step[name].shape == p.shape for name, p in case[1].items())


def test_a_step_by_layers_solves_the_equation_of_each_layer(case):
    step = gauss_newton_step(*case, damping=0.1, blocks="layers")
    product, dim = fisher_product(*case)
    mean = per_example_gradients(*case).mean(0).numpy()
    first, layers_of = 0, {}
    for name, p in case[1].items():
        places = np.arange(first, first := first + p.numel())
        layers_of.setdefault(name.rpartition(".")[0], []).append(places)
    for places in layers_of.values():
        places = np.concatenate(places)
        alone = np.zeros(dim)
        alone[places] = flat(step)[places]
        pushed = product(alone)[places] + 0.1 * alone[places]
        np.testing.assert_allclose(pushed, mean[places], atol=1e-12)
    assert not np.allclose(flat(step), flat(gauss_newton_step(*case, damping=0.1)), rtol=1e-2)


def test_one_step_solves_least_squares():
    params = {"one.weight": normal(4, 3), "one.bias": normal(3)}
    model = Model(lambda rng: params, lambda p, x: layers.dense(p, "one", x))
    inputs, labels = normal(9, 4), normal(9, 3, seed=1).float()
    step = gauss_newton_step(model, params, inputs, labels, damping=1e-12, loss=squared_error)
    ones = np.column_stack([inputs, np.ones(9)])
    best = np.linalg.lstsq(ones, labels.double().numpy(), rcond=None)[0]
    found = np.vstack(
        [params["one.weight"] - step["one.weight"], params["one.bias"] - step["one.bias"]]
    )
    np.testing.assert_allclose(found, best, atol=1e-6)


def test_softmax_regression_takes_newtons_step():
    params = {"one.weight": normal(4, 3)}
    model = Model(lambda rng: params, lambda p, x: layers.dense(p, "one", x))
    case = model, params, normal(9, 4), integers(3, 9)
    product, dim = hessian_product(*case)
    mean = per_example_gradients(*case).mean(0).numpy()
    newton = np.linalg.solve(product(np.eye(dim)) + 0.01 * np.eye(dim), mean)
    np.testing.assert_allclose(flat(gauss_newton_step(*case, damping=0.01)), newton, atol=1e-12)


def test_much_damping_leaves_the_gradient():
    model, params, inputs, labels = NETWORKS["mlp"]
    slope = grad(lambda p: torch.nn.functional.cross_entropy(model.apply(p, inputs), labels))(
        params
    )
    step = gauss_newton_step(model, params, inputs, labels, damping=1e9)
    np.testing.assert_allclose(1e9 * flat(step), flat(slope), rtol=1e-6)


def test_single_precision_stays_single_precision():
    model, params, inputs, labels = NETWORKS["mlp"]
    single = {name: p.float() for name, p in params.items()}
    step = gauss_newton_step(model, single, inputs, labels, damping=np.float32(0.1))
    assert all(p.dtype == torch.float32 for p in step.values())
    double = gauss_newton_step(model, params, inputs, labels, damping=0.1)
    np.testing.assert_allclose(flat(step), flat(double), rtol=1e-4, atol=1e-4)


CASE = NETWORKS["mlp"]
GHOSTS = resnet(8, ghost_size=2, width=1, channels=1, classes=2)
BAD = {
    "fisher": lambda: fisher_matrix(*CASE, fisher="true"),
    "samples": lambda: fisher_matrix(*CASE, samples=0),
    "seed": lambda: fisher_matrix(*CASE, seed=-1),
    "chunk": lambda: fisher_matrix(*CASE, chunk=0),
    "labels": lambda: fisher_matrix(*CASE[:3], CASE[3][:2]),
    "damping": lambda: gauss_newton_step(*CASE, damping=0),
    "damping below rounding": lambda: gauss_newton_step(*CASE, damping=1e-300),
    "blocks": lambda: gauss_newton_step(*CASE, damping=1, blocks="whole"),
    "model": lambda: gauss_newton_step(
        GHOSTS, drawn(GHOSTS), normal(4, 1, 4, 4), integers(2, 4), damping=1
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_named(name):
    with pytest.raises(ValueError, match=f"^{name.split()[0]} is .*; allowed: "):
        BAD[name]()
