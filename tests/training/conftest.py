import pytest
import tiny
import torch

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
