"""Products with curvature matrices against dense matrices by plain automatic differentiation.

Not by `torch.func.hessian`: of a Transformer, in torch 2.13, it is not symmetric, and finite
differences disagree.
"""

import re
import warnings
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.autograd.functional import hessian
from torch.func import jacrev
from torch.nn.functional import cross_entropy, mse_loss

from batchscaling.curvature import (
    fisher_matrix,
    fisher_product,
    gauss_newton_product,
    gauss_newton_product_of,
    gradient_products,
    hessian_product,
    hessian_product_of,
    per_example_gradients,
    spectral_density,
)
from batchscaling.training import (
    from_module,
    mlp,
    resnet,
    simple_cnn,
    softmax_regression,
    transformer_lm,
)

EXAMPLES = 5


def normal(*shape, seed=0):
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=rng, dtype=torch.float64)


def integers(high, *shape):
    return torch.randint(high, shape, generator=torch.Generator().manual_seed(1))


def own():
    return nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 3))


TEXT = {"width": 4, "heads": 2, "units": 3, "layers": 1}
NETWORKS = {
    "linear": (softmax_regression(4, 3), normal(EXAMPLES, 4), integers(3, EXAMPLES)),
    "mlp": (mlp([4, 5, 3]), normal(EXAMPLES, 4), integers(3, EXAMPLES)),
    "cnn": (
        simple_cnn(4, 2, filters=(2, 2), units=3, classes=3),
        normal(EXAMPLES, 2, 4, 4),
        integers(3, EXAMPLES),
    ),
    "own": (from_module(own), normal(EXAMPLES, 4), integers(3, EXAMPLES)),
    "tied": (transformer_lm(5, **TEXT), integers(5, EXAMPLES, 3), integers(5, EXAMPLES, 3)),
}


@pytest.fixture(params=NETWORKS)
def case(request):
    """Return a model, parameters without special values, inputs, and labels of which one is -1."""
    model, inputs, labels = NETWORKS[request.param]
    params = {n: p.double() for n, p in model.init(torch.Generator().manual_seed(0)).items()}
    params = {name: p + 0.2 * normal(*p.shape, seed=2) for name, p in params.items()}
    labels = labels.clone()
    labels.view(-1)[1] = -1
    return model, params, inputs, labels


def flat_function(model, params, inputs):
    """Return the outputs as a function of a flat vector, and that vector."""
    sizes = [p.numel() for p in params.values()]

    def function(flat):
        pieces = zip(params.items(), flat.split(sizes), strict=True)
        return model.apply({name: piece.view_as(p) for (name, p), piece in pieces}, inputs)

    return function, torch.cat([p.flatten() for p in params.values()])


def mean_loss(outputs, labels):
    return cross_entropy(outputs.flatten(0, -2), labels.flatten(), ignore_index=-1)


def dense_hessian(model, params, inputs, labels):
    function, flat = flat_function(model, params, inputs)
    return hessian(lambda flat: mean_loss(function(flat), labels), flat)


def dense_gauss_newton(model, params, inputs, labels):
    function, flat = flat_function(model, params, inputs)
    jacobian = jacrev(lambda flat: function(flat).flatten())(flat)
    outputs = function(flat)
    curved = hessian(lambda o: mean_loss(o.view_as(outputs), labels), outputs.flatten())
    return jacobian.mT @ curved @ jacobian


def assert_is(product, expected):
    """Check products with some vectors against those with the dense matrix."""
    multiply, dim = product
    assert expected.shape == (dim, dim)
    vectors = normal(4, dim, seed=3)
    found = torch.as_tensor(multiply(vectors.numpy()))
    torch.testing.assert_close(found, vectors @ expected.mT)


def test_hessian(case):
    assert_is(hessian_product(*case), dense_hessian(*case))


def test_gauss_newton_which_is_the_exact_fisher_matrix(case):
    expected = dense_gauss_newton(*case)
    assert_is(gauss_newton_product(*case), expected)
    assert_is(fisher_product(*case), expected)


def test_exact_fisher_is_the_mean_over_labels_of_the_model():
    model, inputs, labels = NETWORKS["mlp"]
    params = {n: p.double() for n, p in model.init(torch.Generator().manual_seed(0)).items()}
    chances = model.apply(params, inputs).softmax(-1)
    expected = 0
    for label in range(3):
        grads = per_example_gradients(model, params, inputs, torch.full_like(labels, label))
        expected = expected + grads.mT @ (chances[:, label, None] * grads) / EXAMPLES
    assert_is(fisher_product(model, params, inputs, labels), expected)


def test_empirical_fisher_is_the_mean_square_of_gradients(case):
    labels = case[3]
    # An example's own loss is the mean over its labels: here it is the sum.
    count = (labels >= 0).flatten(1).sum(1, keepdim=True) if labels.ndim > 1 else 1
    grads = per_example_gradients(*case) * count
    expected = grads.mT @ grads / (labels >= 0).sum()
    assert_is(fisher_product(*case, fisher="empirical"), expected)


def test_the_mean_of_sampled_fishers_is_the_exact_one(case):
    _, dim = hessian_product(*case)
    vector = normal(dim, seed=5).numpy()
    draws = np.stack(
        [fisher_product(*case, fisher="sampled", seed=seed)[0](vector) for seed in range(100)]
    )
    exact = fisher_product(*case)[0](vector)
    error = draws.std(axis=0, ddof=1) / np.sqrt(len(draws))
    assert (np.abs(draws.mean(axis=0) - exact) <= 5 * error + 1e-12).all()
    assert np.array_equal(draws[3], fisher_product(*case, fisher="sampled", seed=3)[0](vector))


def test_functions_of_a_dict_of_parameters():
    params = {"a": normal(3), "b": normal(2, 2, seed=1)}
    inputs, wanted = normal(6, 3), normal(6, 2, seed=4)

    def outputs(p):
        return torch.tanh(inputs * p["a"])[:, :2] @ p["b"]

    flat = torch.cat([p.flatten() for p in params.values()])

    def of_flat(flat):
        return outputs({"a": flat[:3], "b": flat[3:].view(2, 2)})

    found = hessian_product_of(lambda p: mse_loss(outputs(p), wanted), params)
    assert_is(found, hessian(lambda f: mse_loss(of_flat(f), wanted), flat))
    found = gauss_newton_product_of(outputs, lambda o: mse_loss(o, wanted), params)
    jacobian = jacrev(lambda f: of_flat(f).flatten())(flat)
    assert_is(found, jacobian.mT @ jacobian / 6)


def test_ghost_batch_norm_has_a_gauss_newton_matrix_but_no_gradients_of_examples():
    model = resnet(8, ghost_size=2, width=1, channels=1, classes=2)
    params = {n: p.double() for n, p in model.init(torch.Generator().manual_seed(0)).items()}
    case = model, params, normal(4, 1, 4, 4), integers(2, 4)
    assert_is(gauss_newton_product(*case), dense_gauss_newton(*case))
    with pytest.raises(ValueError, match=r"^model is .*ghost batch.*; allowed: "):
        fisher_product(*case, fisher="empirical")


@pytest.mark.parametrize("matrix", ["hessian", "gauss_newton", "empirical_fisher"])
def test_the_spectrum_has_the_eigenvalues_of_the_dense_matrix(matrix):
    model, inputs, labels = NETWORKS["mlp"]
    params = {n: p.double() for n, p in model.init(torch.Generator().manual_seed(0)).items()}
    case = model, params, inputs, labels
    grads = per_example_gradients(*case)
    dense = {
        "hessian": lambda: dense_hessian(*case),
        "gauss_newton": lambda: dense_gauss_newton(*case),
        "empirical_fisher": lambda: grads.mT @ grads / EXAMPLES,
    }[matrix]()
    eigenvalues = torch.linalg.eigvalsh(dense).numpy()
    spectrum = spectral_density(*case, matrix=matrix, steps=43, probes=3)
    assert spectrum.nodes.max() == pytest.approx(eigenvalues.max())
    assert spectrum.nodes.min() == pytest.approx(eigenvalues.min(), abs=1e-9)
    # Vectors of signs give the trace of the square with little error: off the diagonal only.
    estimate, error = spectral_density(*case, matrix=matrix, probes=60).trace(np.square)
    assert abs(estimate - np.square(eigenvalues).sum()) < 5 * error


def test_a_set_default_dtype_and_no_grad_change_nothing():
    model, inputs, labels = NETWORKS["mlp"]
    params = model.init(torch.Generator().manual_seed(0))
    vector = np.ones(sum(p.numel() for p in params.values()), dtype=np.float32)
    expected = gauss_newton_product(model, params, inputs, labels)[0](vector)
    torch.set_default_dtype(torch.float64)
    try:
        with torch.no_grad():
            found = gauss_newton_product(model, params, inputs, labels)[0](vector)
    finally:
        torch.set_default_dtype(torch.float32)
    assert np.array_equal(found, expected)


class Stopped(nn.Module):
    """A network through which some gradients are stopped, in two ways of torch."""

    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(7, 4, padding_idx=2)
        self.first, self.last = nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, words):
        hidden = self.first(self.words(words).mean(1))
        with torch.no_grad():
            scale = hidden.norm(dim=-1, keepdim=True)
        return self.last(hidden / scale)


@pytest.mark.parametrize("fisher", ["exact", "empirical"])
def test_products_are_of_the_gradients_that_training_has(fisher):
    model = from_module(Stopped)
    params = {n: p.double() for n, p in model.init(torch.Generator().manual_seed(0)).items()}
    words, labels = integers(7, EXAMPLES, 6), integers(3, EXAMPLES)
    words[:, 0] = 2
    product, dim = fisher_product(model, params, words, labels, fisher=fisher)
    found, expected = (
        product(np.eye(dim)),
        fisher_matrix(model, params, words, labels, fisher=fisher),
    )
    np.testing.assert_allclose(found, expected, atol=1e-14)
    assert np.abs(expected).max() > 0.01 and not expected[8:12].any()  # the word that pads


def test_parameters_that_a_forward_changes_stay_those_of_the_caller():
    model = from_module(
        lambda: nn.Sequential(nn.Embedding(7, 4, max_norm=0.5), nn.Flatten(), own())
    )
    params = model.init(torch.Generator().manual_seed(0))
    before = {name: p.clone() for name, p in params.items()}
    hessian_product(model, params, integers(7, EXAMPLES, 1), integers(3, EXAMPLES))
    assert all(torch.equal(p, before[name]) for name, p in params.items())


@pytest.mark.parametrize(
    "function", [hessian_product, gauss_newton_product, partial(fisher_product, fisher="empirical")]
)
def test_a_product_stays_that_of_the_arguments_it_was_made_from(function):
    model, inputs, labels = NETWORKS["mlp"]
    params = {n: p.double() for n, p in model.init(torch.Generator().manual_seed(0)).items()}
    inputs, labels = inputs.clone(), labels.clone()
    product, dim = function(model, params, inputs, labels)
    before = product(np.eye(dim))
    for moved in (inputs, labels, *params.values()):
        moved.mul_(2).clamp_(max=2)
    assert np.array_equal(product(np.eye(dim)), before)


@pytest.mark.parametrize(
    "product_of",
    [
        lambda p: hessian_product_of(lambda p: p["a"].pow(4).sum(), p),
        lambda p: gauss_newton_product_of(lambda p: p["a"] ** 2, lambda o: o.square().sum(), p),
    ],
)
def test_a_product_of_a_function_stays_where_it_was_taken(product_of):
    params = {"a": torch.ones(2, dtype=torch.float64, requires_grad=True)}
    product, _ = product_of(params)
    before = product([1.0, 0.0])
    with torch.no_grad():
        params["a"].mul_(2)
    assert np.array_equal(product([1.0, 0.0]), before)
    assert not np.array_equal(product_of(params)[0]([1.0, 0.0]), before)


def test_a_hessian_of_gradients_may_compute_in_place():
    found = gradient_products(*CASE, hessian=lambda rows: np.multiply(rows, 2, out=rows))
    expected = gradient_products(*CASE, hessian=lambda rows: 2 * rows)
    assert all(map(np.array_equal, found, expected))


def test_vectors_may_be_reversed_or_protected():
    product, dim = hessian_product(*CASE)
    vector = np.arange(dim, dtype=float)
    backwards = vector[::-1].copy()[::-1]
    vector.setflags(write=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.array_equal(product(backwards), product(vector))


LINEAR = NETWORKS["linear"]
PARAMS = {n: p.double() for n, p in LINEAR[0].init(torch.Generator()).items()}
CASE = (LINEAR[0], PARAMS, *LINEAR[1:])
BAD = {
    "fisher": lambda: fisher_product(*CASE, fisher="true"),
    "seed": lambda: fisher_product(*CASE, seed=-1),
    "matrix": lambda: spectral_density(*CASE, matrix="fisher"),
    "steps": lambda: spectral_density(*CASE, steps=0),
    "labels": lambda: gauss_newton_product(*CASE[:3], CASE[3][:2]),
    "vectors": lambda: gauss_newton_product(*CASE)[0](np.ones((2, 3))),
    "model": lambda: per_example_gradients(nn.Linear(4, 3), *CASE[1:]),
    "hessian": lambda: gradient_products(*CASE, hessian=1.0),
    "function": lambda: hessian_product_of(lambda p: p["a"], {"a": torch.ones(2)}),
    "params": lambda: hessian_product_of(lambda p: p["a"].sum(), {}),
    "loss": lambda: gauss_newton_product_of(lambda p: p["a"], lambda o: 3.0, {"a": torch.ones(2)}),
}


@pytest.mark.parametrize("vectors", [1j * np.ones(15), np.zeros((0, 15)), "a", np.ones((1, 1, 15))])
def test_vectors_are_arrays_of_real_numbers(vectors):
    with pytest.raises(ValueError, match=r"(?s)^vectors is .*; allowed: "):
        hessian_product(*CASE)[0](vectors)


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_named(name):
    with pytest.raises(ValueError, match=f"^{name} is .*; allowed: "):
        BAD[name]()


def changed(**others):
    """Return the case with other parameters."""
    return CASE[0], CASE[1] | others, *CASE[2:]


FIRST = next(iter(CASE[1]))


@pytest.mark.parametrize(
    "params", [[torch.ones(2)], {}, {"a": np.ones(2)}, {"a": torch.ones(2, dtype=torch.int64)}]
)
def test_parameters_of_a_function_are_a_dict_of_real_tensors(params):
    for call in (
        lambda: hessian_product_of(lambda p: p["a"].sum(), params),
        lambda: gauss_newton_product_of(lambda p: p["a"], lambda o: o.sum(), params),
    ):
        with pytest.raises(ValueError, match=r"^params.* is .*; allowed: "):
            call()


BAD_PARAMS = {
    "a list": ((CASE[0], list(CASE[1].values()), *CASE[2:]), "params is 'list'"),
    "one more": (changed(more=torch.ones(2)), "params is "),
    "one less": ((CASE[0], {FIRST: CASE[1][FIRST]}, *CASE[2:]), "params is "),
    "an array": (changed(**{FIRST: CASE[1][FIRST].numpy()}), f"params['{FIRST}'] is 'ndarray'"),
    "integers": (changed(**{FIRST: CASE[1][FIRST].long()}), f"params['{FIRST}'] is 'Tensor'"),
    "rows": (changed(**{FIRST: CASE[1][FIRST][None]}), f"params['{FIRST}'] is 'torch.float"),
    "NaN": (changed(**{FIRST: CASE[1][FIRST] * np.nan}), f"params['{FIRST}'] is 'torch.float"),
}


@pytest.mark.parametrize("name", BAD_PARAMS)
@pytest.mark.parametrize("function", [gauss_newton_product, fisher_product, spectral_density])
def test_parameters_that_are_not_the_models_are_named(function, name):
    case, message = BAD_PARAMS[name]
    with pytest.raises(ValueError, match=f"^{re.escape(message)}.*; allowed: "):
        function(*case)


def test_the_names_in_training_are_these():
    import batchscaling.training as training

    assert training.hessian_product is hessian_product
    assert training.per_example_gradients is per_example_gradients
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        training.nothing  # noqa: B018
