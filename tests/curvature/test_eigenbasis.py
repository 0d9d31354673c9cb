"""What is measured along the Kronecker eigenbasis, against dense matrices and curvlinops."""

import curvlinops
import numpy as np
import pytest
import torch
from doubles import drawn, integers, normal
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from batchscaling.curvature import (
    Diagonal,
    Kronecker,
    along_eigenbasis,
    as_matrix,
    fisher_product,
    from_matrix,
    kronecker_eigenvalues,
    kronecker_factors,
    per_example_gradients,
)
from batchscaling.training import Model, mlp, resnet, simple_cnn, transformer_lm
from batchscaling.training.losses import bernoulli_cross_entropy
from batchscaling.training.models import layers

MLP = mlp([4, 5, 3])
TEXT = {"width": 4, "heads": 2, "units": 3, "layers": 1}
NETWORKS = {
    "mlp": (MLP, normal(7, 4), integers(3, 7)),
    "cnn": (
        simple_cnn(4, 2, filters=(2, 2), units=3, classes=3),
        normal(7, 2, 4, 4),
        integers(3, 7),
    ),
    "tied": (transformer_lm(5, **TEXT), integers(5, 7, 3), integers(5, 7, 3)),
}


@pytest.fixture(params=NETWORKS)
def case(request):
    model, inputs, labels = NETWORKS[request.param]
    return model, drawn(model), inputs, labels


def eigenvectors(side):
    return torch.linalg.eigh(side)[1] if side.ndim == 2 else torch.eye(len(side)).double()


def directions(params, factors):
    """Return for each name a matrix whose rows are flat vectors of all parameters."""
    places, first = {}, 0
    for name, p in params.items():
        places[name] = slice(first, first := first + p.numel())
    found = {}
    for name, factor in factors.items():
        if isinstance(factor, Diagonal):
            rows = torch.zeros(factor.squares.numel(), first).double()
            rows[:, places[name]] = torch.eye(len(rows)).double()
        else:
            left, right = (eigenvectors(side) for side in factor)
            layer = params[f"{name}.weight"], params.get(f"{name}.bias")
            rows = torch.zeros(left.shape[1] * right.shape[1], first).double()
            for k, row in enumerate(rows):
                i, j = divmod(k, right.shape[1])
                weight, bias = from_matrix(factor, torch.outer(left[:, i], right[:, j]), *layer)
                row[places[f"{name}.weight"]] = weight.flatten()
                if bias is not None:
                    row[places[f"{name}.bias"]] = bias
        found[name] = rows.numpy()
    return found


@pytest.mark.parametrize("fisher", ["exact", "empirical"])
def test_all_numbers_are_those_of_dense_eigenvectors(case, fisher):
    factors = kronecker_factors(*case, fisher="exact")
    found = along_eigenbasis(*case, factors, fisher=fisher, chunk=3)
    product, _ = fisher_product(*case, fisher=fisher)
    each = per_example_gradients(*case).numpy()
    for name, rows in directions(case[1], factors).items():
        shape = found[name].curvature.shape
        np.testing.assert_allclose(rows @ rows.T, np.eye(len(rows)), atol=1e-12)
        curvature = np.einsum("kp,kp->k", rows, product(rows)).reshape(shape)
        np.testing.assert_allclose(found[name].curvature, curvature, atol=1e-12)
        along = each @ rows.T
        np.testing.assert_allclose(found[name].noise, along.var(0).reshape(shape), atol=1e-12)
        np.testing.assert_allclose(found[name].gradient, along.mean(0).reshape(shape), atol=1e-12)


def test_kronecker_curvatures_are_the_eigenvalues_of_the_factors(case):
    factors = kronecker_factors(*case)
    found = along_eigenbasis(*case, factors)
    every = np.concatenate([along.kronecker.ravel() for along in found.values()])
    np.testing.assert_allclose(np.sort(every)[::-1], kronecker_eigenvalues(factors), atol=1e-14)


def test_with_one_example_the_factors_say_the_curvature():
    case = MLP, drawn(MLP), normal(1, 4), integers(3, 1)
    factors = kronecker_factors(*case, fisher="exact")
    for along in along_eigenbasis(*case, factors, fisher="exact").values():
        np.testing.assert_allclose(along.curvature, along.kronecker, atol=1e-12)


def test_sampled_curvature_has_the_exact_mean(case):
    factors = kronecker_factors(*case, fisher="exact")
    exact = along_eigenbasis(*case, factors, fisher="exact")
    draws = [along_eigenbasis(*case, factors, samples=4, seed=seed) for seed in range(60)]
    for name, along in exact.items():
        each = np.stack([draw[name].curvature for draw in draws])
        error = each.std(axis=0, ddof=1) / np.sqrt(len(each))
        assert (np.abs(each.mean(axis=0) - along.curvature) <= 5 * error + 1e-12).all()
    again = along_eigenbasis(*case, factors, samples=4, seed=5)
    assert np.array_equal(again[name].curvature, draws[5][name].curvature)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**31), st.integers(1, 9), st.integers(1, 4))
def test_any_basis_keeps_the_traces(seed, chunk, examples):
    """Directions are orthogonal, so that sums over them do not depend on the factors."""
    case = MLP, drawn(MLP), normal(examples, 4, seed=seed), integers(3, examples)
    factors = {}
    for k, (name, found) in enumerate(kronecker_factors(*case).items()):
        roots = (normal(*side.shape, seed=(seed + k) % 2**31) for side in found)
        factors[name] = Kronecker(*(root @ root.mT for root in roots))
    found = along_eigenbasis(*case, factors, fisher="exact", chunk=chunk)
    each = per_example_gradients(*case).numpy()
    product, dim = fisher_product(*case)
    trace = np.trace(product(np.eye(dim)))
    assert sum(along.curvature.sum() for along in found.values()) == pytest.approx(trace)
    assert sum(along.noise.sum() for along in found.values()) == pytest.approx(
        each.var(0).sum(), abs=1e-12
    )
    squares = sum(np.square(along.gradient).sum() for along in found.values())
    assert squares == pytest.approx(np.square(each.mean(0)).sum())


def test_noise_is_curvature_where_labels_come_from_the_model():
    model = mlp([3, 4, 2])
    params, inputs = drawn(model), normal(40_000, 3)
    chances = model.apply(params, inputs).softmax(-1)[:, 1]
    labels = (torch.rand(len(inputs), generator=torch.Generator().manual_seed(3)) < chances).long()
    factors = kronecker_factors(model, params, inputs, labels)
    found = along_eigenbasis(model, params, inputs, labels, factors, fisher="exact", chunk=8000)
    for along in found.values():
        np.testing.assert_allclose(along.noise, along.curvature, rtol=0.1, atol=1e-4)


def test_several_labels_of_an_example_divide_its_noise():
    """Two positions with the same input, and labels from the model: half the noise."""
    params = {"one.weight": normal(3, 2), "one.bias": normal(2)}
    model = Model(lambda rng: params, lambda p, x: layers.dense(p, "one", x))
    inputs = normal(40_000, 1, 3).expand(-1, 2, -1)
    chances = model.apply(params, inputs).softmax(-1)[..., 1]
    uniform = torch.rand(*chances.shape, generator=torch.Generator().manual_seed(3))
    case = model, params, inputs, (uniform < chances).long()
    along = along_eigenbasis(*case, kronecker_factors(*case), fisher="exact", chunk=8000)["one"]
    np.testing.assert_allclose(along.noise, along.curvature / 2, rtol=0.1, atol=1e-4)


def test_labels_that_do_not_count_are_left_out():
    params, inputs, labels = drawn(MLP), normal(6, 4), integers(3, 6)
    factors = kronecker_factors(MLP, params, inputs, labels)
    counted = along_eigenbasis(MLP, params, inputs[:4], labels[:4], factors, fisher="exact")
    labels[4:] = -1
    found = along_eigenbasis(MLP, params, inputs, labels, factors, fisher="exact")
    for name, along in found.items():
        np.testing.assert_allclose(along.curvature, counted[name].curvature)
        # An example without a label that counts has no gradient.
        np.testing.assert_allclose(along.gradient, counted[name].gradient * 4 / 6)


def test_losses_of_numbers_too():
    case = MLP, drawn(MLP), normal(6, 4), torch.rand(6, 3)
    factors = kronecker_factors(*case, loss=bernoulli_cross_entropy)
    found = along_eigenbasis(*case, factors, fisher="exact", loss=bernoulli_cross_entropy)
    product, dim = fisher_product(*case, loss=bernoulli_cross_entropy)
    trace = np.trace(product(np.eye(dim)))
    assert sum(along.curvature.sum() for along in found.values()) == pytest.approx(trace)


def test_only_a_chunk_goes_through_at_once():
    """So memory does not grow with the examples, nor with the square of the directions."""
    seen = []

    def apply(params, inputs):
        seen.append(len(inputs))
        return layers.dense(params, "one", inputs)

    params = {"one.weight": normal(4, 3)}
    case = Model(lambda rng: params, apply), params, normal(90, 4), integers(3, 90)
    factors = kronecker_factors(*case)
    seen.clear()
    along_eigenbasis(*case, factors, chunk=20)
    assert max(seen) == 20


class Dense(nn.Module):
    """Two layers, in the order and with the names that `vectors` has."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(4, 5), nn.Linear(5, 3)

    def forward(self, inputs):
        return self.two(torch.tanh(self.one(inputs)))


def vectors(params, inputs):
    return layers.dense(params, "two", torch.tanh(layers.dense(params, "one", inputs)))


@pytest.mark.parametrize("fisher", ["exact", "empirical"])
def test_products_with_the_corrected_eigenvalues_are_those_of_curvlinops(fisher):
    """Its EKFAC is the curvature in the same basis; of the empirical one, squares not centred."""
    module = Dense().double()
    inputs, labels = normal(7, 4), integers(3, 7)
    theirs = curvlinops.EKFACLinearOperator(
        module,
        nn.CrossEntropyLoss(),
        list(module.parameters()),
        [(inputs, labels)],
        fisher_type={"exact": "type-2", "empirical": "empirical"}[fisher],
        separate_weight_and_bias=False,
        check_deterministic=False,
    )
    state = {name: p.detach() for name, p in module.named_parameters()}
    params = {n: p.mT.contiguous() if p.ndim == 2 else p for n, p in state.items()}
    case = Model(lambda rng: params, vectors), params, inputs, labels
    factors = kronecker_factors(*case, fisher=fisher)
    found = along_eigenbasis(*case, factors, fisher=fisher)
    some = {name: normal(*p.shape, seed=i) for i, (name, p) in enumerate(state.items())}
    expected = dict(zip(state, theirs @ list(some.values()), strict=True))
    for name, factor in factors.items():
        left, right = (eigenvectors(side) for side in factor)
        ends = f"{name}.weight", f"{name}.bias"
        matrix = as_matrix(factor, some[ends[0]].mT, some[ends[1]])
        inside = torch.as_tensor(found[name].curvature) * (left.mT @ matrix @ right)
        weight, bias = from_matrix(factor, left @ inside @ right.mT, *(params[e] for e in ends))
        torch.testing.assert_close(weight.mT, expected[ends[0]], rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(bias, expected[ends[1]], rtol=1e-9, atol=1e-12)


CASE = (MLP, drawn(MLP), normal(6, 4), integers(3, 6))
FACTORS = kronecker_factors(*CASE)
GHOSTS = resnet(8, ghost_size=2, width=1, channels=1, classes=2)
BAD = {
    "fisher": lambda: along_eigenbasis(*CASE, FACTORS, fisher="true"),
    "samples": lambda: along_eigenbasis(*CASE, FACTORS, samples=0),
    "seed": lambda: along_eigenbasis(*CASE, FACTORS, seed=-1),
    "chunk": lambda: along_eigenbasis(*CASE, FACTORS, chunk=0.5),
    "labels": lambda: along_eigenbasis(*CASE[:3], CASE[3][:2], FACTORS),
    "model": lambda: along_eigenbasis(
        GHOSTS, drawn(GHOSTS), normal(4, 1, 4, 4), integers(2, 4), {}
    ),
}
BAD_FACTORS = {
    "missing": {"layer0": FACTORS["layer0"]},
    "a list": [FACTORS["layer0"]],
    "numbers": {"layer0": 3.0},
    "unknown": {**FACTORS, "layer7": FACTORS["layer0"]},
    "swapped": dict(zip(FACTORS, reversed(FACTORS.values()), strict=True)),
    "mixed": {**FACTORS, "layer1": Diagonal(torch.ones(5))},
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_named(name):
    with pytest.raises(ValueError, match=f"^{name} is .*; allowed: "):
        BAD[name]()


@pytest.mark.parametrize("kind", BAD_FACTORS)
def test_factors_of_another_network_are_refused(kind):
    with pytest.raises(ValueError, match=r"^factors is .*; allowed: "):
        along_eigenbasis(*CASE, BAD_FACTORS[kind])
