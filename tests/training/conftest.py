import sys
from dataclasses import replace

import pytest
import tiny
import torch

from batchscaling.training import TASKS, digits, mlp

FILE = """
from beside import FEATURES
import torch
from torch import nn
from batchscaling.training import Data, Range, Task, from_module

def load():
    rng = torch.Generator().manual_seed(0)
    inputs = torch.randn(96, FEATURES, generator=rng)
    labels = (inputs[:, 0] > 0).long()
    return Data(inputs[:64], labels[:64], inputs[64:], labels[64:])

net = Task(
    load=lambda: load(),
    model=from_module(lambda: nn.Sequential(nn.Linear(FEATURES, 4), nn.Tanh(), nn.Linear(4, 2))),
    targets={"validation": 0.4},
    rates={"sgd": Range(2**-4, 2**3)},
    examples=800,
    steps=40,
)
number = 3
"""


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


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Return a folder with a task in it, which nobody can import from."""
    place = tmp_path / "mine"
    place.mkdir()
    (place / "net_of_mine.py").write_text(FILE)
    (place / "beside.py").write_text("FEATURES = 5\n")
    monkeypatch.setattr(sys, "path", [*sys.path])
    for name in ("net_of_mine", "beside"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return place


@pytest.fixture
def own():
    """Return a task without a file, of a function without a name."""
    return replace(tiny.TINY, name="own", load=lambda: tiny.load(), targets={"validation": 0.6})
