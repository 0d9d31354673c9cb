"""What preconditioners make of softmax regression's quadratic."""

import numpy as np
import tiny
import torch

from batchscaling.curvature import SoftmaxRegression
from batchscaling.training import kfac_preconditioner, softmax_regression
from tools import measure_preconditioned as tool

DAMPING = 0.01


def test_the_matrix_is_the_optimizers_and_damped_factors_of_the_data():
    data = tiny.load()
    regression = SoftmaxRegression(data.train_inputs, data.train_labels, weight_decay=0.05)
    point = regression.minimise()
    model = softmax_regression(tiny.FEATURES, tiny.CLASSES)
    factors = tool.factors_at(model, point, data)
    matrix = tool.preconditioner(factors, DAMPING)

    x = regression.inputs
    p = torch.softmax(torch.as_tensor(x @ point.reshape(7, 3)), 1).numpy()
    A, S = x.T @ x / len(x), np.diag(p.mean(0)) - p.T @ p / len(p)
    balance = np.sqrt(np.trace(A) / 7 / (np.trace(S) / 3))
    A, S = A + balance * DAMPING**0.5 * np.eye(7), S + DAMPING**0.5 / balance * np.eye(3)
    np.testing.assert_allclose(matrix @ np.kron(A, S), np.eye(21), atol=1e-6)

    hyper = {"damping": DAMPING, "factor_decay": 0.0, "kl_clip": 1e9, "lr": 1.0}
    hyper = {name: torch.tensor(value).double() for name, value in hyper.items()}
    params = {"layer0.weight": torch.randn(6, 3).double(), "layer0.bias": torch.randn(3).double()}
    (look,) = kfac_preconditioner.looks
    state = look.fold(factors, kfac_preconditioner.init(params), hyper)
    natural, _ = kfac_preconditioner.update(params, state, params, hyper)
    flat = [torch.cat([v.flatten() for v in each.values()]).numpy() for each in (params, natural)]
    np.testing.assert_allclose(matrix @ flat[0], flat[1], rtol=1e-9)


def test_the_largest_curvature_at_the_start_says_which_rates_are_stable():
    rng = np.random.default_rng(0)
    hessian, matrix = (root @ root.T + np.eye(5) for root in rng.normal(size=(2, 5, 5)))
    found = tool.steepest(hessian, matrix)
    for lr, stable in ((1.99 / found, True), (2.01 / found, False)):
        move = np.eye(5) - lr * matrix @ hessian
        assert (np.abs(np.linalg.eigvals(move)).max() < 1) == stable
