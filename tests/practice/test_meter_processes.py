"""Two processes that average their gradients, as `DistributedDataParallel` does."""

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from batchscaling.practice import NoiseMeter

# Geometry, the sizes of each process's parts, and whether these weigh by their sizes.
CASES = [("euclidean", [6, 6], False), ("adam", [6], False), ("euclidean", [6, 2], True)]


def measured(geometry, sizes, by_size, rank=None):
    """Train on the parts of one process of two, or on those of both; return what was measured."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 5))
    own = slice(None)
    if rank is not None:
        model, own = nn.parallel.DistributedDataParallel(model), slice(rank, rank + 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    meter = NoiseMeter(model, optimizer, geometry=geometry, every=1)
    for _ in range(5):
        inputs = torch.randn(2, sum(sizes), 5)[own]
        parts = [part for process in inputs for part in process.split(sizes)]
        optimizer.zero_grad()
        for number, part in enumerate(parts):
            model.require_backward_grad_sync = number == len(parts) - 1  # as `no_sync` does
            share = len(part) / sum(map(len, parts)) if by_size else 1 / len(parts)
            (share * cross_entropy(model(part), part.argmax(1))).backward()
        meter.step([len(part) for part in parts], by_size=by_size)
        optimizer.step()
    return meter.estimate()


def process(rank, folder):
    torch.set_num_threads(1)
    store = f"file://{folder}/store"
    torch.distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=2)
    torch.save([vars(measured(*case, rank)) for case in CASES], f"{folder}/{rank}")
    torch.distributed.destroy_process_group()


def test_two_processes_measure_what_one_does(tmp_path):
    torch.multiprocessing.start_processes(process, (tmp_path,), nprocs=2, start_method="spawn")
    found = [torch.load(f"{tmp_path}/{rank}", weights_only=False) for rank in range(2)]
    for case, ours, theirs in zip(CASES, *found, strict=True):
        alone = measured(*case)
        for name in ("trace", "signal"):
            assert ours[name] == theirs[name]
            assert ours[name] == pytest.approx(getattr(alone, name), rel=1e-4)
        assert ours["groups"]["2"].trace == pytest.approx(alone.groups["2"].trace, rel=1e-4)
        assert ours["measured"] == alone.measured == (4 if case[0] == "adam" else 5)
