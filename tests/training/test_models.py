import torch

from batchscaling.training import mlp


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
