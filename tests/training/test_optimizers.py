import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.func import vmap

from batchscaling.training import heavy_ball, sgd


def run(optimizer, params, grads, hyper):
    """Return the parameters after each of the given gradients."""
    state, path = optimizer.init(params), []
    for grad in grads:
        updates, state = optimizer.update(grad, state, params, hyper)
        params = {name: params[name] + updates[name] for name in params}
        path.append(params)
    return path


def draw(seed, steps=6):
    rng = torch.Generator().manual_seed(seed)
    params = {"weight": torch.randn(3, 2, generator=rng), "bias": torch.randn(2, generator=rng)}
    grads = [
        {name: torch.randn(p.shape, generator=rng) for name, p in params.items()}
        for _ in range(steps)
    ]
    return params, grads


@settings(deadline=None, max_examples=60)
@given(lr=st.floats(1e-4, 2), momentum=st.floats(0, 0.999), seed=st.integers(0, 1000))
def test_heavy_ball_is_torch_optims_step_by_step(lr, momentum, seed):
    params, grads = draw(seed)
    hyper = {"lr": torch.tensor(lr), "momentum": torch.tensor(momentum)}
    theirs = {name: p.clone().requires_grad_() for name, p in params.items()}
    oracle = torch.optim.SGD(theirs.values(), lr=lr, momentum=momentum)
    for ours, grad in zip(run(heavy_ball, params, grads, hyper), grads, strict=True):
        for name, p in theirs.items():
            p.grad = grad[name].clone()
        oracle.step()
        for name, p in theirs.items():
            torch.testing.assert_close(ours[name], p.detach(), rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("lr", [0.01, 0.5])
def test_sgd_is_torch_optims_and_heavy_ball_without_momentum(lr):
    params, grads = draw(0)
    ours = run(sgd, params, grads, {"lr": torch.tensor(lr)})
    ball = run(heavy_ball, params, grads, {"lr": torch.tensor(lr), "momentum": torch.tensor(0.0)})
    theirs = {name: p.clone().requires_grad_() for name, p in params.items()}
    oracle = torch.optim.SGD(theirs.values(), lr=lr)
    for i, grad in enumerate(grads):
        for name, p in theirs.items():
            p.grad = grad[name].clone()
        oracle.step()
        for name, p in theirs.items():
            torch.testing.assert_close(ours[i][name], p.detach())
            assert torch.equal(ours[i][name], ball[i][name])


def test_each_row_has_its_own_hyperparameters():
    params, grads = draw(1, steps=2)
    lr, momentum = torch.tensor([0.1, 0.2, 0.4]), torch.tensor([0.0, 0.5, 0.9])

    def two_steps(lr, momentum):
        return run(heavy_ball, params, grads, {"lr": lr, "momentum": momentum})[-1]

    rows = vmap(two_steps)(lr, momentum)
    for row in range(3):
        alone = two_steps(lr[row], momentum[row])
        for name, p in alone.items():
            torch.testing.assert_close(rows[name][row], p)
