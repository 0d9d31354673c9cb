import pytest
import torch
from torch import nn

from batchscaling.training import autoencoder, mlp


def test_mlp_is_the_ordinary_network(as_module):
    model = mlp([5, 7, 6, 3])
    rng = torch.Generator().manual_seed(0)
    params = {name: torch.randn(p.shape, generator=rng) for name, p in model.init(rng).items()}
    inputs = torch.randn(11, 5, generator=rng)
    torch.testing.assert_close(model.apply(params, inputs), as_module(params)(inputs))


def test_initial_weights_have_the_stated_variance_and_follow_the_generator():
    model = mlp([400, 300, 10])
    params = model.init(torch.Generator().manual_seed(0))
    again = model.init(torch.Generator().manual_seed(0))
    assert all(torch.equal(params[name], again[name]) for name in params)
    assert abs(params["layer0.weight"].var() * 400 / 2 - 1) < 0.02
    assert not params["layer0.bias"].any()


@pytest.mark.parametrize("encoder", [(6, 5), (6, 5, 4, 2)])
def test_an_autoencoder_is_the_ordinary_network(encoder):
    model, sizes = autoencoder(encoder), [*encoder, *encoder[-2::-1]]
    rng = torch.Generator().manual_seed(0)
    params = {name: torch.randn(p.shape, generator=rng) for name, p in model.init(rng).items()}
    layers = []
    for layer in range(len(sizes) - 1):
        linear = nn.Linear(*sizes[layer : layer + 2])
        linear.weight.data = params[f"layer{layer}.weight"].T
        linear.bias.data = params[f"layer{layer}.bias"]
        layers += [linear, nn.Tanh()]
    del layers[2 * len(encoder) - 3]  # the code is linear
    reference = nn.Sequential(*layers[:-1])
    inputs = torch.randn(7, 2, 3, generator=rng)
    torch.testing.assert_close(model.apply(params, inputs), reference(inputs.flatten(1)))
    many = {name: torch.stack([p, 2 * p]) for name, p in params.items()}
    rows = torch.func.vmap(model.apply, (0, None))(many, inputs)
    torch.testing.assert_close(rows[0], reference(inputs.flatten(1)))


def test_an_autoencoder_keeps_the_size_of_what_goes_in():
    params = autoencoder([400, 300, 200]).init(torch.Generator().manual_seed(0))
    assert abs(params["layer0.weight"].var() * 400 - 1) < 0.02
    assert abs(params["layer3.weight"].var() * 300 - 1) < 0.02
    assert not params["layer2.bias"].any()
