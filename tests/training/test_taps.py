"""Moments of layers against plain loops, and against gradients of single examples."""

import pytest
import torch
from torch import nn
from torch.func import grad, vmap

from batchscaling.training import mlp
from batchscaling.training.models import (
    Model,
    layers,
    lstm,
    resnet,
    resnet8,
    resnet32,
    simple_cnn,
    softmax_regression,
    transformer,
    transformer_lm,
    vgg11,
    wide_resnet,
)
from batchscaling.training.models.taps import (
    Diagonal,
    Kronecker,
    Tapped,
    as_matrix,
    from_matrix,
    layer_moments,
)

ROWS, EXAMPLES, WORDS = 2, 8, 7


def normal(*shape, seed=0):
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=rng, dtype=torch.float64)


def words(length):
    rng = torch.Generator().manual_seed(0)
    return torch.randint(1, WORDS, (ROWS, EXAMPLES, length), generator=rng)


GREY = {"width": 2, "channels": 2, "classes": 3}
TEXT = {"width": 8, "heads": 2, "units": 6}
NETWORKS = {
    "softmax": (softmax_regression(5, 3), normal(ROWS, EXAMPLES, 5)),
    "mlp": (mlp([5, 12, 12, 3]), normal(ROWS, EXAMPLES, 5)),
    "cnn": (simple_cnn(9, 2, filters=(3, 4), units=6), normal(ROWS, EXAMPLES, 2, 9, 9)),
    "resnet8": (resnet8(**GREY), normal(ROWS, EXAMPLES, 2, 9, 9)),
    "resnet14": (resnet(14, ghost_size=4, **GREY), normal(ROWS, EXAMPLES, 2, 8, 8)),
    "resnet32": (resnet32(ghost_size=4, **GREY), normal(ROWS, EXAMPLES, 2, 8, 8)),
    "wide": (wide_resnet(10, 2, ghost_size=4, **GREY), normal(ROWS, EXAMPLES, 2, 8, 8)),
    "vgg": (vgg11(ghost_size=4, **GREY), normal(ROWS, EXAMPLES, 2, 32, 32)),
    "lstm": (lstm(WORDS, units=4), words(5)),
    "language model": (transformer_lm(WORDS, **TEXT), words(5)),
    "translator": (transformer(WORDS, WORDS, 4, **TEXT), words(7)),
}


def drawn(model, rows=ROWS):
    """Return parameters of some rows, in double precision, none with a special value."""
    params = [model.init(torch.Generator().manual_seed(row)) for row in range(rows)]
    params = {name: torch.stack([p[name] for p in params]).double() for name in params[0]}
    return {name: p + 0.1 * normal(*p.shape) for name, p in params.items()}


def some_slopes(outputs):
    """Return two slopes that are like nothing in particular."""
    return [normal(*outputs.shape, seed=seed) for seed in (1, 2)]


def each_gradient(model, params, inputs, seed=1):
    """Return the gradients of every row's single examples, for one of `some_slopes`."""
    slopes = normal(*vmap(model.apply)(params, inputs).shape, seed=seed)

    def loss(params, example, slope):
        return (model.apply(params, example[None])[0] * slope).sum()

    return vmap(vmap(grad(loss), in_dims=(None, 0, 0)))(params, inputs, slopes)


def tensors(moments):
    return {(name, i): t for name, found in moments.items() for i, t in enumerate(found)}


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_names_its_parameters_alike_and_all_belong_to_layers(name):
    model, inputs = NETWORKS[name]
    params = drawn(model)
    moments = layer_moments(model, params, inputs, some_slopes, verify=True)
    found = set()
    for key, value in moments.items():
        found |= {key} if isinstance(value, Diagonal) else {f"{key}.weight", f"{key}.bias"}
    assert {name.rpartition(".")[2] for name in params} <= {"weight", "bias", "scale", "shift"}
    assert found >= params.keys()
    for key, value in moments.items():
        if isinstance(value, Diagonal):
            assert value.squares.shape == params[key].shape


@pytest.mark.parametrize("name", NETWORKS)
def test_taps_change_nothing_and_the_check_holds_in_single_precision(name):
    model, inputs = NETWORKS[name]
    params = {name: p[0] for name, p in drawn(model).items()}
    outputs = model.apply(params, inputs[0])
    assert torch.equal(model.apply(Tapped(params), inputs[0]), outputs)
    rows = {name: p[None].float() for name, p in params.items()}
    inputs = inputs.float() if inputs.is_floating_point() else inputs
    layer_moments(model, rows, inputs[:1], lambda o: [some_slopes(o)[0].float()], verify=True)


@pytest.mark.parametrize("name", ["softmax", "mlp", "language model", "resnet14"])
def test_parts_of_a_batch_add_up_and_rows_do_not_meet(name):
    model, inputs = NETWORKS[name]
    params = drawn(model)
    shape = vmap(model.apply)(params, inputs).shape
    slopes = normal(*shape, seed=3)
    whole = tensors(layer_moments(model, params, inputs, lambda outputs: [slopes]))
    parts = [
        tensors(
            layer_moments(model, params, inputs[:, part], lambda _, part=part: [slopes[:, part]])
        )
        for part in (slice(0, 4), slice(4, EXAMPLES))
    ]
    alone = tensors(
        layer_moments(
            model, {n: p[1:] for n, p in params.items()}, inputs[1:], lambda _: [slopes[1:]]
        )
    )
    for key, value in whole.items():
        torch.testing.assert_close(parts[0][key] + parts[1][key], value)
        torch.testing.assert_close(alone[key][0], value[1])


def test_moments_of_dense_layers_are_those_that_gradients_of_single_examples_tell():
    """An example's gradient by the weights is a gᵀ, that by the bias g, which is not zero here."""
    model, inputs = NETWORKS["mlp"]
    params = drawn(model)
    moments = layer_moments(model, params, inputs, lambda o: some_slopes(o)[:1])
    each = each_gradient(model, params, inputs)
    for layer in range(3):
        weights, slopes = (each[f"layer{layer}.{end}"] for end in ("weight", "bias"))
        given = torch.einsum("rnio,rno->rni", weights, slopes) / slopes.square().sum(2)[..., None]
        given = torch.cat([given, torch.ones(ROWS, EXAMPLES, 1)], 2)
        inputs_moment, outputs_moment = moments[f"layer{layer}"]
        torch.testing.assert_close(inputs_moment, torch.einsum("rni,rnj->rij", given, given))
        torch.testing.assert_close(outputs_moment, torch.einsum("rni,rnj->rij", slopes, slopes))


@pytest.mark.parametrize("sharing", ["expand", "reduce"])
@pytest.mark.parametrize("stride", [1, 2])
def test_moments_of_convolutions_are_sums_over_pixels(sharing, stride):
    def apply(params, images):
        images = torch.tanh(layers.conv2d(params, "first", images, stride))
        images = layers.conv2d(params, "second", images)
        return layers.channel_bias(params, "second", images).square().sum((2, 3))

    params = {
        "first.weight": normal(3, 2, 3, 3),
        "second.weight": normal(4, 3, 1, 1),
        "second.bias": normal(4, seed=4),
    }
    images = normal(5, 2, 6, 7)
    model = Model(lambda rng: params, apply)
    rows = {name: p[None] for name, p in params.items()}
    slopes = normal(1, 5, 4, seed=1)
    moments = layer_moments(
        model, rows, images[None], lambda _: [slopes], sharing=sharing, verify=True
    )

    first = nn.functional.conv2d(images, params["first.weight"], None, stride, 1).requires_grad_()
    hidden = torch.tanh(first)
    second = torch.einsum("fc,nchw->nfhw", params["second.weight"][:, :, 0, 0], hidden)
    second = second + params["second.bias"][:, None, None]
    second.retain_grad()
    (second.square().sum((2, 3)) * slopes[0]).sum().backward()
    padded = nn.functional.pad(images, (1, 1, 1, 1))
    for name, outputs in {"first": first, "second": second}.items():
        height, width = outputs.shape[2:]
        given = {"first": [], "second": []}
        for y in range(height):
            for x in range(width):
                corner = (slice(y * stride, y * stride + 3), slice(x * stride, x * stride + 3))
                given["first"].append(padded[(..., *corner)].flatten(1))
                pixel = hidden[:, :, y, x].detach()
                given["second"].append(torch.cat([pixel, torch.ones(5, 1)], 1))
        given = torch.stack(given[name], 1)
        felt = outputs.grad.flatten(2).mT
        if sharing == "reduce":
            given, felt = given.mean(1, keepdim=True), felt.sum(1, keepdim=True)
        found = moments[name]
        expected = sum(torch.outer(a, a) for a in given.flatten(0, 1))
        torch.testing.assert_close(found.inputs[0], expected)
        expected = sum(torch.outer(g, g) for g in felt.flatten(0, 1)) / felt.shape[1]
        torch.testing.assert_close(found.outputs[0], expected)


def test_layers_that_are_used_again_and_again_pool_their_uses():
    def apply(params, inputs):
        state = torch.zeros_like(inputs[:, 0])
        for now in inputs.unbind(1):
            state = torch.tanh(now + layers.dense(params, "again", state))
        return state

    params = {"again.weight": normal(3, 3), "again.bias": normal(3)}
    inputs, slopes = normal(4, 2, 3), normal(4, 3, seed=1)
    found = layer_moments(
        Model(lambda rng: params, apply),
        {name: p[None] for name, p in params.items()},
        inputs[None],
        lambda _: [slopes[None]],
        verify=True,
    )["again"]

    first = torch.tanh(inputs[:, 0] + params["again.bias"])
    second = torch.tanh(inputs[:, 1] + first @ params["again.weight"] + params["again.bias"])
    late = slopes * (1 - second**2)
    early = late @ params["again.weight"].mT * (1 - first**2)
    given = torch.cat([torch.zeros_like(first), first])
    given = torch.cat([given, torch.ones(8, 1)], 1)
    felt = torch.cat([early, late])
    torch.testing.assert_close(found.inputs[0], given.mT @ given)
    torch.testing.assert_close(found.outputs[0], felt.mT @ felt / 2)


def test_a_tied_embedding_pools_both_uses_with_the_vocabulary_diagonal():
    def apply(params, inputs):
        return layers.unembed(params, "tied", torch.tanh(layers.embed(params, "tied", inputs)))

    params = {"tied.weight": normal(WORDS, 3), "tied.bias": normal(WORDS)}
    inputs, slopes = words(5)[0], some_slopes(torch.empty(EXAMPLES, 5, WORDS))
    found = layer_moments(
        Model(lambda rng: params, apply),
        {name: p[None] for name, p in params.items()},
        inputs[None],
        lambda _: [slope[None] for slope in slopes],
        verify=True,
    )["tied"]

    hidden = torch.tanh(params["tied.weight"][inputs])
    columns = [torch.cat([hidden, torch.ones(EXAMPLES, 5, 1)], 2)]
    for slope in slopes:
        felt = slope @ params["tied.weight"] * (1 - hidden**2)
        columns.append(torch.cat([felt, torch.zeros(EXAMPLES, 5, 1)], 2))
    columns = torch.cat(columns).flatten(0, 1)
    vocabulary = torch.bincount(inputs.flatten(), minlength=WORDS).double()
    vocabulary += sum(slope.square().sum((0, 1)) for slope in slopes)
    torch.testing.assert_close(found.inputs[0], vocabulary)
    torch.testing.assert_close(found.outputs[0], columns.mT @ columns / 10)


def test_an_embedding_alone_counts_its_words():
    model, inputs = NETWORKS["translator"]
    found = layer_moments(model, drawn(model), inputs, some_slopes)["source"]
    for row in range(ROWS):
        counts = torch.bincount(inputs[row, :, :4].flatten(), minlength=WORDS)
        torch.testing.assert_close(found.inputs[row], counts.double())


def test_scales_and_shifts_have_the_squares_of_gradients_of_single_examples():
    model, inputs = NETWORKS["language model"]
    params = drawn(model)
    moments = layer_moments(model, params, inputs, some_slopes)
    each = [each_gradient(model, params, inputs, seed) for seed in (1, 2)]
    names = [name for name in params if name.endswith((".scale", ".shift"))]
    assert len(names) == 8
    for name in names:
        expected = sum(grads[name].square().sum(1) for grads in each)
        torch.testing.assert_close(moments[name].squares, expected)


def test_reduce_is_made_of_the_gradients_of_the_biases():
    model, inputs = NETWORKS["language model"]
    params = drawn(model)
    moments = layer_moments(
        model, params, inputs, lambda o: some_slopes(o)[:1], sharing="reduce", verify=True
    )
    slopes = each_gradient(model, params, inputs)["layer0.dense.in.bias"]
    found = moments["layer0.dense.in"].outputs
    torch.testing.assert_close(found, torch.einsum("rni,rnj->rij", slopes, slopes))


@pytest.mark.parametrize("name", ["mlp", "cnn", "lstm"])
def test_a_gradient_as_a_matrix_is_that_of_the_factors_and_comes_back(name):
    model, inputs = NETWORKS[name]
    params = {name: p[0] for name, p in drawn(model).items()}
    moments = layer_moments(model, {n: p[None] for n, p in params.items()}, inputs[:1], some_slopes)
    for layer, factors in moments.items():
        factors = Kronecker(*(factor[0] for factor in factors))
        weight, bias = params[f"{layer}.weight"], params.get(f"{layer}.bias")
        matrix = as_matrix(factors, weight, bias)
        assert matrix.shape == (len(factors.inputs), len(factors.outputs))
        again = from_matrix(factors, matrix, weight, bias)
        assert torch.equal(again[0], weight)
        assert again[1] is bias is None or torch.equal(again[1], bias)


def test_the_layout_of_the_matrix_is_that_of_the_factors():
    """With one example and one position, the gradient's matrix is a gᵀ: F is its square."""
    model = simple_cnn(4, 1, filters=(2, 2), units=3, classes=3)
    params = {name: p[0] for name, p in drawn(model).items()}
    inputs, slope = normal(1, 1, 4, 4), normal(1, 3, seed=1)
    moments = layer_moments(
        model, {n: p[None] for n, p in params.items()}, inputs[None], lambda _: [slope[None]]
    )
    grads = grad(lambda p: (model.apply(p, inputs) * slope).sum())(params)
    for layer in ("layer2", "layer3"):
        factors = Kronecker(*(factor[0] for factor in moments[layer]))
        matrix = as_matrix(factors, grads[f"{layer}.weight"], grads[f"{layer}.bias"])
        fisher = torch.kron(*factors)
        torch.testing.assert_close(fisher, torch.outer(matrix.flatten(), matrix.flatten()))


@pytest.mark.parametrize(
    ("apply", "message"),
    [
        (
            lambda p, x: layers.dense(p, "one", x) * p["factor"],
            '^model is .*"factor" belongs to no',
        ),
        (lambda p, x: layers.dense(p, "one", x) + p["factor"] * 0, '"factor" belongs to no layer'),
        (lambda p, x: layers.dense(p, "one", x) @ p["one.weight"], '^model is .*"one.weight" out'),
        (lambda p, x: layers.dense(p, "one", x) + 2 * p["one.bias"], '"one.bias" outside of its'),
    ],
)
def test_a_parameter_that_no_layer_explains_is_named(apply, message):
    params = {"one.weight": normal(3, 3), "one.bias": normal(3), "factor": normal(3)}
    if "factor" not in message:
        params.pop("factor")
    rows = {name: p[None] for name, p in params.items()}
    model = Model(lambda rng: params, apply)
    with pytest.raises(ValueError, match=f"{message}.*; allowed: "):
        layer_moments(model, rows, normal(1, 4, 3), some_slopes, verify=True)


def test_what_the_process_has_set_in_torch_changes_nothing():
    model, inputs = NETWORKS["language model"]
    params = {name: p.float() for name, p in drawn(model).items()}
    calm = layer_moments(model, params, inputs, lambda o: [torch.ones_like(o)])
    torch.set_default_dtype(torch.float64)
    try:
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            set_ = layer_moments(model, params, inputs, lambda o: [torch.ones_like(o)])
    finally:
        torch.set_default_dtype(torch.float32)
    for key, value in tensors(calm).items():
        assert torch.equal(tensors(set_)[key], value)


def test_bad_sharing_is_refused():
    model, inputs = NETWORKS["lstm"]
    params = drawn(model)
    with pytest.raises(ValueError, match=r"^sharing is 'both'; allowed: "):
        layer_moments(model, params, inputs, some_slopes, sharing="both")
    with pytest.raises(ValueError, match=r'^sharing is .*reduce.*"layer0.states" more than once'):
        layer_moments(model, params, inputs, some_slopes, sharing="reduce")
