import pytest
import tiny
import torch
from torch import nn

from batchscaling.training import TASKS, digits, mlp


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def data():
    return digits()


@pytest.fixture(scope="session")
def model():
    return mlp([64, 16, 10])


@pytest.fixture(scope="module")
def tiny_task():
    """Add the task "tiny" to those of sweeps, and return it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(TASKS, "tiny", tiny.TINY)
        yield tiny.TINY


@pytest.fixture(scope="session")
def as_module():
    """Return the function that builds the ordinary network with given parameters."""

    def build(params):
        layers = []
        for layer in range(len(params) // 2):
            weight, bias = params[f"layer{layer}.weight"], params[f"layer{layer}.bias"]
            linear = nn.Linear(*weight.shape)
            linear.weight.data, linear.bias.data = weight.T.clone(), bias.clone()
            layers += [linear, nn.ReLU()]
        return nn.Sequential(*layers[:-1])

    return build
