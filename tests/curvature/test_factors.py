"""Kronecker factors where they are exact, and against curvlinops."""

import copy

import curvlinops
import numpy as np
import pytest
import torch
from doubles import drawn, integers, normal
from torch import nn

from batchscaling.curvature import (
    Diagonal,
    Kronecker,
    as_matrix,
    fisher_product,
    from_matrix,
    gauss_newton_product,
    kronecker_eigenvalues,
    kronecker_factors,
    per_example_gradients,
)
from batchscaling.training import Model, from_module, mlp, resnet, simple_cnn, transformer_lm
from batchscaling.training.losses import bernoulli_cross_entropy, squared_error
from batchscaling.training.models import layers


def blocks(params, product):
    """Return the block of each layer's weights and bias of the dense matrix."""
    multiply, dim = product
    dense = torch.as_tensor(multiply(np.eye(dim)))
    found, first = {}, 0
    for name, p in params.items():
        layer = name.rpartition(".")[0]
        start = found.get(layer, slice(first, first)).start
        found[layer] = slice(start, first := first + p.numel())
    return {layer: dense[part, part] for layer, part in found.items()}


MLP = mlp([4, 5, 3])


@pytest.mark.parametrize("fisher", ["exact", "empirical"])
def test_with_one_example_the_product_of_the_factors_is_the_block_of_the_fisher(fisher):
    params, inputs, labels = drawn(MLP), normal(1, 4), torch.tensor([2])
    factors = kronecker_factors(MLP, params, inputs, labels, fisher=fisher)
    expected = blocks(params, fisher_product(MLP, params, inputs, labels, fisher=fisher))
    for layer, found in factors.items():
        torch.testing.assert_close(torch.kron(*found), expected[layer])


@pytest.mark.parametrize("loss", [squared_error, bernoulli_cross_entropy])
@pytest.mark.parametrize("fisher", ["exact", "empirical"])
def test_losses_of_numbers_have_factors_and_fishers_too(loss, fisher):
    params, inputs, labels = drawn(MLP), normal(1, 4), torch.rand(1, 3)
    options = {"fisher": fisher, "loss": loss}
    factors = kronecker_factors(MLP, params, inputs, labels, **options)
    expected = blocks(params, fisher_product(MLP, params, inputs, labels, **options))
    for layer, found in factors.items():
        torch.testing.assert_close(torch.kron(*found), expected[layer])


def test_a_deep_linear_network_with_squared_error_has_exact_factors():
    """Its slopes are the same for all examples: the mean of products is that of the factors."""

    def apply(params, inputs):
        return layers.dense(params, "two", layers.dense(params, "one", inputs))

    params = {"one.weight": normal(4, 3), "two.weight": normal(3, 2, seed=1)}
    case = Model(lambda rng: params, apply), params, normal(9, 4), torch.zeros(9, 2)
    factors = kronecker_factors(*case, fisher="exact", loss=squared_error)
    expected = blocks(params, gauss_newton_product(*case, loss=squared_error))
    for layer, found in factors.items():
        torch.testing.assert_close(torch.kron(*found), expected[layer])


def shared(params, inputs):
    """A layer at each of several positions, and the mean over them: weights are shared."""
    return layers.dense(params, "shared", inputs).mean(1)


def test_reduce_is_exact_where_positions_are_averaged_and_expand_is_not():
    params = {"shared.weight": normal(4, 3), "shared.bias": normal(3, seed=1)}
    model = Model(lambda rng: params, shared)
    case = model, params, normal(1, 6, 4), torch.tensor([2])
    expected = blocks(params, fisher_product(*case))["shared"]
    reduced = kronecker_factors(*case, fisher="exact", sharing="reduce")["shared"]
    torch.testing.assert_close(torch.kron(*reduced), expected)
    expanded = kronecker_factors(*case, fisher="exact")["shared"]
    assert (torch.kron(*expanded) - expected).norm() > 0.1 * expected.norm()


def test_factors_of_many_examples_are_means():
    params, inputs, labels = drawn(MLP), normal(6, 4), integers(3, 6)
    labels[4] = -1
    whole = kronecker_factors(MLP, params, inputs, labels, fisher="exact", chunk=4)
    each = [
        kronecker_factors(MLP, params, inputs[i : i + 1], labels[i : i + 1], fisher="exact")
        for i in range(6)
    ]
    for layer, found in whole.items():
        inputs_mean = sum(one[layer].inputs for one in each) / 6
        torch.testing.assert_close(found.inputs, inputs_mean)
        outputs_mean = sum(one[layer].outputs for one in each) / 5
        torch.testing.assert_close(found.outputs, outputs_mean)


TEXT = {"width": 4, "heads": 2, "units": 3, "layers": 1}
NETWORKS = {
    "mlp": (MLP, normal(6, 4), integers(3, 6)),
    "cnn": (
        simple_cnn(4, 2, filters=(2, 2), units=3, classes=3),
        normal(6, 2, 4, 4),
        integers(3, 6),
    ),
    "tied": (transformer_lm(5, **TEXT), integers(5, 6, 3), integers(5, 6, 3)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_chunks_add_up_and_samples_have_the_exact_mean(name):
    model, inputs, labels = NETWORKS[name]
    case = model, drawn(model), inputs, labels
    exact = kronecker_factors(*case, fisher="exact")
    in_parts = kronecker_factors(*case, fisher="exact", chunk=4)
    draws = kronecker_factors(*case, samples=1000)
    for layer, found in exact.items():
        for side, other, drawn_side in zip(found, in_parts[layer], draws[layer], strict=True):
            torch.testing.assert_close(side, other)
            assert (drawn_side - side).norm() < 0.15 * side.norm() + 1e-12


def test_the_error_of_sampled_factors_has_the_size_that_probabilities_say():
    params, inputs, labels = drawn(MLP), normal(6, 4), integers(3, 6)
    exact = kronecker_factors(MLP, params, inputs, labels, fisher="exact")["layer1"].outputs
    chances = MLP.apply(params, inputs).softmax(-1)
    squares = torch.stack([chances - torch.eye(3)[k] for k in range(3)])
    squares = torch.einsum("kni,knj->knij", squares, squares)  # of the slopes for each label
    weights = chances.mT[..., None, None]
    mean = (weights * squares).sum(0)
    variance = ((weights * squares.square()).sum(0) - mean.square()).sum() / 6**2
    for samples in (1, 9):
        errors = []
        for seed in range(60):
            options = {"samples": samples, "seed": seed}
            found = kronecker_factors(MLP, params, inputs, labels, **options)["layer1"].outputs
            errors.append((found - exact).square().sum().item())
        slack = 4 * np.std(errors) / len(errors) ** 0.5
        assert np.mean(errors) == pytest.approx(variance.item() / samples, abs=slack)
        assert slack < variance / samples


def test_examples_that_meet_have_sampled_factors_only():
    model = resnet(8, ghost_size=3, width=1, channels=1, classes=2)
    case = model, drawn(model), normal(6, 1, 4, 4), integers(2, 6)
    whole, in_ghosts = (kronecker_factors(*case, chunk=size) for size in (6, 4))
    for layer, found in whole.items():
        for side, other in zip(found, in_ghosts[layer], strict=True):
            torch.testing.assert_close(side, other)
    for fisher in ("exact", "empirical"):
        with pytest.raises(ValueError, match=r"^model is .*ghost batch.*; allowed: "):
            kronecker_factors(*case, fisher=fisher)


def test_a_norms_diagonal_is_the_mean_square_of_gradients():
    model, inputs, labels = NETWORKS["tied"]
    params = drawn(model)
    factors = kronecker_factors(model, params, inputs, labels, fisher="empirical")
    # An example's own loss is the mean over its three labels: here it is the sum.
    grads = 3 * per_example_gradients(model, params, inputs, labels)
    diagonal = grads.square().sum(0).split([p.numel() for p in params.values()])
    diagonal = {name: part / 18 for name, part in zip(params, diagonal, strict=True)}
    for name in ("layer0.self.scale", "layer0.dense.shift"):
        assert isinstance(factors[name], Diagonal)
        torch.testing.assert_close(factors[name].squares, diagonal[name])


def test_eigenvalues_are_those_of_the_product():
    inputs, outputs = normal(4, 3), normal(2, 5, seed=1)
    factors = {
        "one": Kronecker(inputs.mT @ inputs, outputs @ outputs.mT),
        "words": Kronecker(torch.tensor([3.0, 0.5]), outputs @ outputs.mT),
        "two.scale": Diagonal(torch.tensor([7.0, 1.0])),
    }
    dense = [
        torch.kron(*factors["one"]),
        torch.kron(torch.diag(factors["words"].inputs).double(), outputs @ outputs.mT),
    ]
    dense = torch.block_diag(*dense, torch.diag(factors["two.scale"].squares).double())
    expected = torch.linalg.eigvalsh(dense).flip(0).numpy()
    np.testing.assert_allclose(kronecker_eigenvalues(factors), expected, atol=1e-12)


def images(params, inputs):
    inputs = layers.channel_bias(params, "0", layers.conv2d(params, "0", inputs))
    inputs = layers.conv2d(params, "2", torch.tanh(inputs), 2)
    inputs = torch.tanh(layers.channel_bias(params, "2", inputs))
    return layers.dense(params, "5", inputs.flatten(1))


CONVOLUTIONS = nn.Sequential(
    nn.Conv2d(2, 3, 3, padding=1),
    nn.Tanh(),
    nn.Conv2d(3, 2, 5, padding=2, stride=2),
    nn.Tanh(),
    nn.Flatten(),
    nn.Linear(8, 3),
)
DENSE = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))


def vectors(params, inputs):
    inputs = torch.tanh(layers.dense(params, "0", inputs))
    return layers.dense(params, "2", inputs)


ORACLES = {
    "dense": (DENSE, vectors, normal(7, 4)),
    "convolutions": (CONVOLUTIONS, images, normal(7, 2, 4, 4)),
}


@pytest.mark.parametrize("fisher", ["exact", "empirical"])
@pytest.mark.parametrize("sharing", ["expand", "reduce"])
@pytest.mark.parametrize("is_own", [False, True])
@pytest.mark.parametrize("name", ORACLES)
def test_products_are_those_of_curvlinops(name, is_own, sharing, fisher):
    """Of the book's layers, whose dense weights are transposed, and of a module of one's own."""
    module, apply, inputs = ORACLES[name]
    module = module.double()
    labels = integers(3, 7)
    theirs = curvlinops.KFACLinearOperator(
        module,
        nn.CrossEntropyLoss(),
        list(module.parameters()),
        [(inputs, labels)],
        fisher_type={"exact": "type-2", "empirical": "empirical"}[fisher],
        kfac_approx=sharing,
        separate_weight_and_bias=False,
        check_deterministic=False,
    )
    state = {name: p.detach() for name, p in module.named_parameters()}

    def turned(weight):
        return weight.mT.contiguous() if weight.ndim == 2 and not is_own else weight

    params = {name: turned(p) for name, p in state.items()}
    own = from_module(lambda: copy.deepcopy(module).float())
    model = own if is_own else Model(lambda rng: params, apply)
    factors = kronecker_factors(model, params, inputs, labels, fisher=fisher, sharing=sharing)
    directions = {name: normal(*p.shape, seed=i) for i, (name, p) in enumerate(state.items())}
    expected = dict(zip(state, theirs @ list(directions.values()), strict=True))
    for layer, found in factors.items():
        weight, bias = directions[f"{layer}.weight"], directions[f"{layer}.bias"]
        weight = turned(weight)
        product = found.inputs @ as_matrix(found, weight, bias) @ found.outputs
        weight, bias = from_matrix(found, product, weight, bias)
        weight = turned(weight)
        torch.testing.assert_close(weight, expected[f"{layer}.weight"], rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(bias, expected[f"{layer}.bias"], rtol=1e-10, atol=1e-12)


def test_factors_may_be_part_of_a_graph():
    factors = kronecker_factors(*CASE)
    expected = kronecker_eigenvalues(factors)
    for found in factors.values():
        for side in found:
            side.requires_grad_()
    assert np.array_equal(kronecker_eigenvalues(factors), expected)


CASE = (MLP, drawn(MLP), normal(6, 4), integers(3, 6))
OWN = from_module(lambda: nn.Linear(4, 3))
BAD = {
    "fisher": lambda: kronecker_factors(*CASE, fisher="monte-carlo"),
    "sharing": lambda: kronecker_factors(*CASE, sharing="none"),
    "factors": lambda: kronecker_eigenvalues({"layer0": torch.ones(2)}),
    "factors of no layer": lambda: kronecker_eigenvalues({}),
    "samples": lambda: kronecker_factors(*CASE, samples=0),
    "chunk": lambda: kronecker_factors(*CASE, chunk=0),
    "seed": lambda: kronecker_factors(*CASE, seed=0.5),
    "labels": lambda: kronecker_factors(*CASE[:3], CASE[3][:2]),
    "model": lambda: kronecker_factors(OWN, drawn(OWN), *CASE[2:]),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_named(name):
    with pytest.raises(ValueError, match=f"^{name.split()[0]} is .*; allowed: "):
        BAD[name]()
