"""ResNets, wide ResNets and VGG against ordinary modules of torch.nn."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, vmap

from batchscaling.training import digits, local_steps, outer_steps, sgd
from batchscaling.training.models import (
    layers_cpu,
    resnet,
    resnet8,
    resnet20,
    resnet32,
    vgg11,
    wide_resnet,
)
from batchscaling.training.models.norm import ghost_batch_norm
from batchscaling.training.program import Program
from batchscaling.training.rows import Pieces

GHOST = 4


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def draw(model, seed=0):
    return model.init(torch.Generator().manual_seed(seed))


class Ghosts(nn.BatchNorm2d):
    """Batch normalisation of torch, of one ghost batch after the other in training."""

    def forward(self, images):
        if not self.training:
            return super().forward(images)
        return torch.cat([super(Ghosts, self).forward(part) for part in images.split(GHOST)])


class Layer(nn.Module):
    def __init__(self, inputs, filters, stride=1, bias=False):
        super().__init__()
        self.conv = nn.Conv2d(inputs, filters, 3, stride, padding=1, bias=bias)
        self.norm = nn.Identity() if bias else Ghosts(filters)

    def forward(self, images):
        return self.norm(self.conv(images))


class Residual(nn.Module):
    """ResNet with option A; `improved` is ResNet-8 without normalisation."""

    def __init__(self, blocks, width, channels, classes, improved=False):
        super().__init__()
        self.improved = improved
        self.first = Layer(channels, width, bias=improved)
        self.blocks, count = 3 * blocks, width
        for block in range(self.blocks):
            stride = 2 if block in (blocks, 2 * blocks) else 1
            first = Layer(count, count * stride, stride, improved)
            count *= stride
            pair = nn.ModuleList([first, Layer(count, count, 1, improved)])
            setattr(self, f"block{block}", pair)
        self.dense = nn.Linear(count, classes)

    def forward(self, x):
        x = self.first(x)
        x = x if self.improved else x.relu()
        for block in range(self.blocks):
            one, two = getattr(self, f"block{block}")
            y = two(one(x.relu() if self.improved else x).relu())
            if y.shape != x.shape:
                x = nn.functional.avg_pool2d(x, 1, 2)
                x = torch.cat([x, torch.zeros_like(x)], dim=1)
            x = x + y if self.improved else (x + y).relu()
        x = x.relu()
        return self.dense(nn.AdaptiveAvgPool2d(1)(x).flatten(1))


class Wide(nn.Module):
    def __init__(self, blocks, factor, width, channels, classes):
        super().__init__()
        self.first = Layer(channels, width)
        self.first.norm = nn.Identity()
        self.blocks, count = 3 * blocks, width
        for block in range(self.blocks):
            stage, place = divmod(block, blocks)
            filters, stride = width * factor * 2**stage, 1 if stage == 0 or place else 2
            pair = Layer(count, filters, stride), Layer(filters, filters)
            pair[0].norm, pair[1].norm = Ghosts(count), Ghosts(filters)
            setattr(self, f"block{block}", nn.ModuleList(pair))
            if count != filters:
                shortcut = nn.Conv2d(count, filters, 1, stride, bias=False)
                getattr(self, f"block{block}").shortcut = shortcut
            count = filters
        self.last = nn.Module()
        self.last.norm = Ghosts(count)
        self.dense = nn.Linear(count, classes)

    def forward(self, x):
        x = self.first(x)
        for block in range(self.blocks):
            pair = getattr(self, f"block{block}")
            one, two = pair[0], pair[1]
            y = one.norm(x).relu()
            x = pair.shortcut(y) if hasattr(pair, "shortcut") else x
            x = x + two.conv(two.norm(one.conv(y)).relu())
        return self.dense(self.last.norm(x).relu().mean(dim=(2, 3)))


class Vgg(nn.Module):
    def __init__(self, width, channels, classes):
        super().__init__()
        counts = [channels, *(width * times for times in (1, 2, 4, 4, 8, 8, 8, 8))]
        for layer in range(8):
            setattr(self, f"layer{layer}", Layer(*counts[layer : layer + 2]))
        self.dense = nn.Linear(counts[-1], classes)

    def forward(self, x):
        for layer in "0M1M23M45M67M":
            x = nn.MaxPool2d(2)(x) if layer == "M" else getattr(self, f"layer{layer}")(x).relu()
        return self.dense(x.flatten(1))


def unit(p):
    """Return the parameter, filters with norm 1."""
    if p.ndim < 4:
        return p
    return torch.stack([one / (one**2).sum().sqrt() for one in p.unbind()])


def as_state(params, weight_norm):
    """Return the tensors under the names and in the shapes of the ordinary network."""
    ends = {"weight": "conv.weight", "bias": "conv.bias"}
    ends |= {"scale": "norm.weight", "shift": "norm.bias"}
    ends |= {"mean": "norm.running_mean", "variance": "norm.running_var"}
    state = {}
    for name, p in params.items():
        p = unit(p) if weight_norm else p
        layer, _, end = name.rpartition(".")
        if layer == "dense" or layer.endswith(".shortcut"):
            state[name] = p.mT if p.ndim == 2 else p
        else:
            state[f"{layer}.{ends[end]}"] = p
    return state


SMALL = {"channels": 2, "classes": 3}
NETWORKS = {
    "resnet14": (resnet(14, ghost_size=GHOST, width=3, **SMALL), Residual(2, 3, 2, 3), 8, False),
    "resnet32": (resnet32(ghost_size=GHOST, width=2, **SMALL), Residual(5, 2, 2, 3), 8, True),
    "resnet8": (resnet8(width=3, **SMALL), Residual(1, 3, 2, 3, improved=True), 9, False),
    "wide": (
        wide_resnet(16, 2, ghost_size=GHOST, width=2, **SMALL),
        Wide(2, 2, 2, 2, 3),
        8,
        False,
    ),
    "wide by 1": (
        wide_resnet(10, 1, ghost_size=GHOST, width=2, **SMALL),
        Wide(1, 1, 2, 2, 3),
        8,
        False,
    ),
    "vgg11": (vgg11(ghost_size=GHOST, width=2, **SMALL), Vgg(2, 2, 3), 32, True),
}


def moved(model, rows):
    """Return initial parameters of some rows, each moved so that none has a special value."""
    params = [draw(model, row) for row in range(rows)]
    params = {name: torch.stack([p[name] for p in params]) for name in params[0]}
    return {name: p + 0.1 * normal(*p.shape) for name, p in params.items()}


@pytest.fixture(params=[1, 10**9], ids=["loop", "grouped"])
def lowering(request, monkeypatch):
    monkeypatch.setattr(layers_cpu, "LOOP", request.param)


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_are_the_ordinary_ones(lowering, name):
    model, network, size, weight_norm = NETWORKS[name]
    params = moved(model, 2)
    inputs, target = normal(2, 10, 2, size, size), normal(2, 10, 3, seed=1)

    def ours(params, inputs, target):
        outputs = model.apply(params, inputs)
        return (outputs * target).sum(), outputs

    grads, outputs = vmap(grad(ours, has_aux=True))(params, inputs, target)
    network.train()
    for row in range(2):
        one = {name: p[row] for name, p in params.items()}

        def theirs(one, row=row):
            return functional_call(network, as_state(one, weight_norm), (inputs[row],))

        close = {"rtol": 1e-3, "atol": 2e-4}
        torch.testing.assert_close(model.apply(one, inputs[row]), theirs(one), **close)
        torch.testing.assert_close(outputs[row], theirs(one), **close)
        one = {name: p.requires_grad_() for name, p in one.items()}
        expected = torch.autograd.grad((theirs(one) * target[row]).sum(), list(one.values()))
        for name, value in zip(one, expected, strict=True):
            error = (grads[name][row] - value).norm() / value.norm()
            assert error < 1e-3, name


@pytest.mark.parametrize("name", [name for name in NETWORKS if name != "resnet8"])
def test_evaluation_is_that_of_torch_with_the_same_statistics(name):
    model, network, size, weight_norm = NETWORKS[name]
    params = {name: p[0] for name, p in moved(model, 1).items()}
    inputs, others = normal(10, 2, size, size), normal(7, 2, size, size, seed=1)
    statistics = model.statistics(params, inputs)
    network.eval()
    state = as_state(params | statistics, weight_norm)
    ours = model.apply(params, others, statistics)
    close = {"rtol": 1e-3, "atol": 1e-4}
    torch.testing.assert_close(ours, functional_call(network, state, (others,)), **close)
    rows = vmap(model.statistics)({name: p[None] for name, p in params.items()}, inputs[None])
    assert rows.keys() == statistics.keys()
    for name, value in statistics.items():
        torch.testing.assert_close(rows[name][0], value, **close)


def test_statistics_are_those_of_one_batch():
    small, whole = (resnet(8, ghost_size=size, width=3) for size in (4, 10))
    params, inputs = draw(small), normal(10, 3, 8, 8)
    evaluated = small.apply(params, inputs, small.statistics(params, inputs))
    torch.testing.assert_close(evaluated, whole.apply(params, inputs), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("examples", [1, 3, 4, 8, 10])
def test_each_ghost_batch_is_batch_norm_of_torch(examples):
    images = normal(examples, 3, 5, 5)
    ghosts = [nn.BatchNorm2d(3)(part) for part in images.split(4)]
    torch.testing.assert_close(ghost_batch_norm(images, 4), torch.cat(ghosts).detach())


def test_micro_batches_of_whole_ghost_batches_change_nothing():
    model = resnet(8, ghost_size=4, width=3)
    params, inputs = draw(model), normal(20, 3, 8, 8)
    parts = [model.apply(params, part) for part in inputs.split(8)]
    torch.testing.assert_close(torch.cat(parts), model.apply(params, inputs))


@pytest.mark.parametrize("model", [resnet32(width=4), vgg11(width=4)], ids=["resnet32", "vgg11"])
def test_filters_have_norm_one_and_only_their_direction_counts(model):
    params, inputs = draw(model), normal(6, 3, 32, 32)
    scaled = {
        name: p * torch.linspace(0.5, 3, len(p))[:, None, None, None] if p.ndim == 4 else p
        for name, p in params.items()
    }
    torch.testing.assert_close(
        model.apply(scaled, inputs), model.apply(params, inputs), rtol=1e-3, atol=1e-3
    )
    for p in (params, model.constrain(scaled)):
        filters = [value for value in p.values() if value.ndim == 4]
        assert len(filters) in (8, 31)
        for value in filters:
            torch.testing.assert_close(value.flatten(1).norm(dim=1), torch.ones(len(value)))
    others = {name: p for name, p in scaled.items() if p.ndim < 4}
    assert all(torch.equal(model.constrain(scaled)[name], p) for name, p in others.items())


def test_only_normalised_networks_have_statistics_and_only_normalised_weights_a_constraint():
    assert resnet8().statistics is resnet8().constrain is resnet20().constrain is None
    assert wide_resnet().constrain is None


@pytest.mark.parametrize(
    ("model", "published"),
    [
        (resnet20(), 269_722),
        (resnet32(), 464_154),
        (resnet(56, ghost_size=128), 853_018),
        (wide_resnet(16, 4), 2_748_890),
        (wide_resnet(28, 10), 36_479_194),
        (vgg11(), 9_231_114 - 2_752),  # the published one has biases before normalisation
        (resnet8(), 75_050),
    ],
)
def test_number_of_parameters(model, published):
    with torch.device("meta"):
        params = model.init(None)
    assert sum(p.numel() for p in params.values()) == published


def test_filters_have_the_stated_variance():
    params = resnet20(width=64).init(torch.Generator().manual_seed(0))
    assert abs(params["block0.1.weight"].var() * 9 * 64 / 2 - 1) < 0.03
    assert abs(params["block3.0.weight"].var() * 9 * 64 / 2 - 1) < 0.03


BAD = [
    (lambda: resnet(9, ghost_size=4), "depth is 9"),
    (lambda: resnet(2, ghost_size=4), "depth is 2"),
    (lambda: resnet(20, ghost_size=0), "ghost_size is 0"),
    (lambda: resnet8(width=0), "width is 0"),
    (lambda: resnet20(channels=0), "channels is 0"),
    (lambda: resnet32(classes=2.0), "classes is 2.0"),
    (lambda: wide_resnet(14), "depth is 14"),
    (lambda: wide_resnet(factor=0), "factor is 0"),
    (lambda: wide_resnet(ghost_size=1.5), "ghost_size is 1.5"),
    (lambda: vgg11(width=-1), "width is -1"),
    (lambda: vgg11(ghost_size=True), "ghost_size is True"),
]


@pytest.mark.parametrize(("call", "message"), BAD)
def test_bad_input_names_parameter_value_and_what_is_allowed(call, message):
    with pytest.raises(ValueError, match=f"^{message}.*allowed: "):
        call()


@pytest.mark.parametrize(
    ("exchange", "hyper"),
    [(local_steps(2, 3), {}), (outer_steps(2, 3), {"outer_lr": 0.7, "outer_momentum": 0.9})],
)
def test_filters_have_norm_one_also_after_workers_met(exchange, hyper):
    data = digits()
    data = replace(
        data,
        train_inputs=data.train_inputs.view(-1, 1, 8, 8),
        validation_inputs=data.validation_inputs.view(-1, 1, 8, 8),
    )
    model = resnet(8, ghost_size=2, width=2, channels=1, weight_norm=True)
    program = Program(data, model, sgd, Pieces(2**15, 2), exchange=exchange)
    numbers = {name: torch.full((2,), value) for name, value in {**hyper, "lr": 1.0}.items()}
    program.start(np.array([0, 1]), numbers, 8)
    for step in range(6):
        program.step(step)
        norms = program.rows.params["block0.0.weight"].flatten(2).norm(dim=2)
        torch.testing.assert_close(norms, torch.ones_like(norms))
