import pytest
import torch
from torch import nn


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    torch.set_num_threads(1)


class Copies(nn.Module):
    """Independent noisy quadratics side by side, each a layer of its own.

    An input is the noise of one example's gradient, for each copy: the gradient of a batch is
    ``h * theta`` and the mean of its inputs.
    """

    def __init__(self, curvature, theta, copies):
        super().__init__()
        self.register_buffer("curvature", torch.as_tensor(curvature))
        start = torch.as_tensor(theta)
        self.runs = nn.ModuleList(nn.ParameterList([start.clone()]) for _ in range(copies))

    def forward(self, inputs):
        theta = torch.stack([run[0] for run in self.runs])
        return (self.curvature * theta**2).sum() / 2 + (inputs * theta).sum((1, 2))


@pytest.fixture(scope="session")
def copies():
    return Copies
