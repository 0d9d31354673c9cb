import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, hessian, jacrev, jvp, vmap

from batchscaling.training.models import layers_cpu, simple_cnn
from batchscaling.training.models.layers_cpu import convolve, max_pool2d, product


@pytest.fixture(params=[1, 10**9], ids=["loop", "grouped"])
def lowering(request, monkeypatch):
    monkeypatch.setattr(layers_cpu, "LOOP", request.param)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def ordinary(size, channels, filters, units, classes):
    first, second = filters
    return nn.Sequential(
        nn.Conv2d(channels, first, 5, padding="same"),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(first, second, 5, padding="same"),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(second * (size // 4) ** 2, units),
        nn.ReLU(),
        nn.Linear(units, classes),
    )


def as_state(params):
    """Return the parameters under the names and in the shapes of the ordinary network."""
    places = {"layer0": "0", "layer1": "3", "layer2": "7", "layer3": "9"}
    state = {}
    for name, p in params.items():
        layer, _, end = name.rpartition(".")
        state[f"{places[layer]}.{end}"] = p.mT if p.ndim == 2 else p
    return state


def stack(model, rows):
    params = [model.init(torch.Generator().manual_seed(row)) for row in range(rows)]
    return {name: torch.stack([p[name] for p in params]) for name in params[0]}


def test_simple_cnn_has_the_published_number_of_parameters():
    params = simple_cnn().init(torch.Generator().manual_seed(0))
    assert sum(p.numel() for p in params.values()) == 3_274_634


@pytest.mark.parametrize(("size", "channels"), [(14, 1), (9, 3)])
def test_simple_cnn_is_the_ordinary_network(lowering, size, channels):
    sizes = {"filters": (3, 4), "units": 6, "classes": 5}
    model = simple_cnn(size, channels, **sizes)
    network = ordinary(size, channels, **sizes)
    params = {name: p + 0.1 * normal(*p.shape) for name, p in stack(model, 3).items()}
    inputs = normal(3, 7, channels, size, size)
    target = normal(3, 7, 5, seed=1)

    def ours(params, inputs, target):
        outputs = model.apply(params, inputs)
        return (outputs * target).sum(), outputs

    grads, outputs = vmap(grad(ours, has_aux=True))(params, inputs, target)
    for row in range(3):
        one = {name: p[row] for name, p in params.items()}
        torch.testing.assert_close(model.apply(one, inputs[row]), outputs[row])

        def theirs(one, row=row):
            return functional_call(network, as_state(one), (inputs[row],))

        torch.testing.assert_close(outputs[row], theirs(one))
        expected = grad(lambda one, row=row: (theirs(one) * target[row]).sum())(one)
        for name, value in expected.items():
            torch.testing.assert_close(grads[name][row], value, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("channels", [1, 2, 3, 8])
@pytest.mark.parametrize("examples", [1, 16, 64])
def test_a_row_does_not_depend_on_its_partners(channels, examples):
    images, weight = normal(8, examples, channels, 16, 16), normal(8, 8, channels, 3, 3)

    def row(weight, images):
        return (max_pool2d(convolve(images, weight)) ** 2).sum()

    together = vmap(grad(row, argnums=(0, 1)))(weight, images)
    for rows in ([0, 1], [7, 2, 5], [4, 1, 0, 6, 3]):
        part = vmap(grad(row, argnums=(0, 1)))(weight[rows], images[rows])
        assert all(torch.equal(p, t[rows]) for p, t in zip(part, together, strict=True))


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [1, 3, 5])
def test_convolutions_of_rows_are_the_convolution_of_each(lowering, stride, size):
    images, weight = normal(2, 4, 3, 7, 7), normal(2, 5, 3, size, size)
    rows = vmap(lambda x, w: convolve(x, w, stride))(images, weight)
    shared = vmap(lambda w: convolve(images[0], w, stride))(weight)
    for row in range(2):
        settings = {"stride": stride, "padding": size // 2}
        expected = nn.functional.conv2d(images[row], weight[row], **settings)
        torch.testing.assert_close(rows[row], expected)
        expected = nn.functional.conv2d(images[0], weight[row], **settings)
        torch.testing.assert_close(shared[row], expected)


def test_largest_pixels_are_torchs_with_ties(lowering):
    images = torch.randint(3, (2, 40, 2, 7, 9), generator=torch.Generator().manual_seed(0)).float()
    weights = normal(2, 40, 2, 3, 4)

    def gradient(pool):
        return grad(lambda images, weights: (pool(images) * weights).sum())

    theirs = gradient(lambda images: nn.functional.max_pool2d(images, 2))
    ours = vmap(gradient(max_pool2d))(images, weights)
    for row in range(2):
        assert torch.equal(ours[row], theirs(images[row], weights[row]))
        assert torch.equal(max_pool2d(images[row]), nn.functional.max_pool2d(images[row], 2))


def test_loop_and_groups_agree_in_second_derivatives_and_forward_mode(monkeypatch):
    images, target = normal(2, 3, 1, 6, 6), normal(2, 3, 2, 3, 3)
    weight, tangent = normal(2, 2, 1, 3, 3, seed=1), normal(2, 2, 1, 3, 3, seed=2)

    def loss(weight, images, target):
        return ((max_pool2d(convolve(images, weight)) - target) ** 4).sum()

    def both():
        forward = vmap(lambda w, t, *rest: jvp(lambda w: loss(w, *rest), (w,), (t,))[1])
        return vmap(hessian(loss))(weight, images, target), forward(weight, tangent, images, target)

    monkeypatch.setattr(layers_cpu, "LOOP", 10**9)
    expected = both()
    monkeypatch.setattr(layers_cpu, "LOOP", 1)
    for ours, theirs in zip(both(), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-3)


OUTPUTS = [3, layers_cpu.NARROW + 1]


@pytest.mark.parametrize("outputs", OUTPUTS)
@pytest.mark.parametrize("dims", [(0, 0), (None, 0), (0, None)], ids=str)
def test_products_of_rows_are_those_of_torch_in_every_derivative(outputs, dims):
    inputs, weight = normal(4, 5, 6).double(), normal(4, 6, outputs, seed=1).double()
    pair = [t[0] if dim is None else t for t, dim in zip((inputs, weight), dims, strict=True)]
    along = [torch.cos(t) for t in pair]

    def derivatives(product):
        def loss(inputs, weight):
            return (product(inputs, weight).tanh() ** 3).sum()

        def forward(inputs, weight, *along):
            return jvp(loss, (inputs, weight), along)[1]

        functions = product, jacrev(loss, (0, 1)), jacrev(grad(loss, 1), (0, 1))
        yield from (vmap(function, dims)(*pair) for function in functions)
        yield vmap(forward, (*dims, *dims))(*pair, *along)

    for ours, theirs in zip(derivatives(product), derivatives(torch.matmul), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("outputs", OUTPUTS)
def test_examples_are_columns_and_gradients_lie_as_their_weights(outputs):
    inputs, weight = normal(4, 5, 6).requires_grad_(), normal(4, 6, outputs).requires_grad_()
    made = vmap(product)(inputs, weight)
    by_inputs, by_weight = torch.autograd.grad(made.sum(), (inputs, weight))
    assert made.mT.is_contiguous() and by_inputs.mT.is_contiguous() and by_weight.is_contiguous()


def test_products_of_rows_differentiate_in_bf16():
    inputs, weight = normal(2, 5, 6), normal(2, 6, 3).requires_grad_()
    whole = torch.autograd.grad(vmap(product)(inputs, weight).pow(2).sum(), weight)[0]
    with torch.autocast("cpu", torch.bfloat16):
        outputs = vmap(product)(inputs, weight)
    found = torch.autograd.grad(outputs.float().pow(2).sum(), weight)[0]
    assert outputs.dtype == torch.bfloat16 and found.dtype == weight.dtype
    torch.testing.assert_close(found, whole, rtol=0.05, atol=0.1)


def test_convolutions_of_rows_differentiate_in_bf16():
    rng = torch.Generator().manual_seed(0)
    images = torch.randn(-(-layers_cpu.LOOP // 5), 3, 8, 8, generator=rng)
    weight = torch.randn(2, 5, 3, 3, 3, generator=rng, requires_grad=True)
    whole = torch.autograd.grad(vmap(lambda w: convolve(images, w))(weight).pow(2).mean(), weight)[
        0
    ]
    with torch.autocast("cpu", torch.bfloat16):
        outputs = vmap(lambda w: convolve(images, w))(weight)
        assert outputs.dtype == torch.bfloat16
        half = torch.autograd.grad(outputs.float().pow(2).mean(), weight)[0]
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, whole, rtol=0.03, atol=0.01)


def test_weights_have_the_stated_variance():
    params = simple_cnn(14, filters=(8, 32), units=64).init(torch.Generator().manual_seed(0))
    for name, inputs in {"layer1": 200, "layer2": 288}.items():
        assert abs(params[f"{name}.weight"].var() * inputs / 2 - 1) < 0.05
    assert not any(params[f"layer{layer}.bias"].any() for layer in range(4))


BAD = [
    ({"size": 3}, "size is 3"),
    ({"channels": 0}, "channels is 0"),
    ({"filters": (8,)}, r"filters is \(8,\)"),
    ({"filters": 8}, "filters is 8"),
    ({"filters": (8, 0)}, r"filters\[1\] is 0"),
    ({"units": 1.5}, "units is 1.5"),
    ({"classes": 0}, "classes is 0"),
]


@pytest.mark.parametrize(("sizes", "message"), BAD)
def test_bad_input_names_parameter_value_and_what_is_allowed(sizes, message):
    with pytest.raises(ValueError, match=f"^{message}.*allowed: "):
        simple_cnn(**sizes)
