"""Sweeps on a real Ray cluster on this machine, of two workers of which one is killed."""

import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from batchscaling.training import Cell, run_sweep
from batchscaling.training import sweeps as module

ray = pytest.importorskip("ray")

pytestmark = pytest.mark.usefixtures("tiny_task")

SMALL = {"trials": 4, "seeds": 2, "finalists": 2, "final_seeds": 3, "fresh": 4}
SIZES = [16, 32, 64, 96]


@pytest.fixture(scope="module")
def address():
    """Start a cluster of two nodes, each with room for one cell, and return its address."""
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent))  # so that workers find `tiny`
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
        cluster.add_node(num_cpus=1)
        cluster.wait_for_nodes()
    yield cluster.address
    cluster.shutdown()
    assert not ray.is_initialized()


@pytest.fixture
def cells(tiny_task):
    return [Cell("tiny", "sgd", size, **SMALL) for size in SIZES]


def logged(log, hang):
    """Return `run_cell` for workers, which know no task "tiny", that writes down what it does.

    Parameters
    ----------
    log : Path
        Folder that gets an empty file for every start of a cell, named by time, process and cell.
    hang : Cell
        When it starts first, it stops in the middle of its work.
    """

    def run(cell, *, device):
        import tiny

        from batchscaling.training import TASKS, sweeps

        TASKS["tiny"] = tiny.TINY
        train, trained = sweeps.train, []
        first = not list(log.glob(f"*-{cell.file}"))
        (log / f"{time.time_ns()}-{os.getpid()}-{cell.file}").touch()

        def slow_train(*arguments, **options):
            trained.append(1)
            if cell == hang and first and len(trained) == 2:
                (log / f"hangs-{os.getpid()}").touch()
                time.sleep(600)
            return train(*arguments, **options)

        sweeps.train = slow_train
        try:
            return sweeps.run_cell(cell, device=device)
        finally:
            sweeps.train = train

    return run


def killer(log):
    """Return a list that gets the id of the process that hangs, once it is killed."""
    killed = []

    def kill():
        while not (found := list(log.glob("hangs-*"))):
            time.sleep(0.01)
        killed.append(found[0].name.split("-")[1])
        os.kill(int(killed[0]), signal.SIGKILL)

    threading.Thread(target=kill, daemon=True).start()
    return killed


def starts(log, cell):
    """Return the ids of the processes that started a cell, in order."""
    return [path.name.split("-")[1] for path in sorted(log.glob(f"*-{cell.file}"))]


@pytest.fixture
def writes(monkeypatch):
    """Return the names of the files that were written, in order."""
    names, write = [], module._write

    def counted(path, result):
        names.append(path.name)
        write(path, result)

    monkeypatch.setattr(module, "_write", counted)
    return names


def test_all_cells_finish_once_though_a_worker_is_killed(
    address, cells, writes, tmp_path, monkeypatch
):
    log, folder, victim = tmp_path / "log", tmp_path / "sweep", cells[1]
    log.mkdir()
    monkeypatch.setattr(module, "run_cell", logged(log, victim))
    killed = killer(log)
    paths = run_sweep(cells, folder, ray=address, progress=False)
    assert not ray.is_initialized()
    monkeypatch.undo()

    assert [path.name for path in paths] == [cell.file for cell in cells]
    assert sorted(writes) == sorted(path.name for path in folder.iterdir())
    assert len(writes) == len(cells)
    # Only the cell in flight was started again, elsewhere.
    assert len(starts(log, victim)) == 2
    assert starts(log, victim)[0] == killed[0] != starts(log, victim)[1]
    assert all(len(starts(log, cell)) == 1 for cell in cells if cell != victim)
    assert len({pid for cell in cells for pid in starts(log, cell)}) >= 2

    expected = run_sweep(cells, tmp_path / "here", progress=False)
    for one, other in zip(paths, expected, strict=True):
        found, same = (json.loads(path.read_text("utf-8")) for path in (one, other))
        found["provenance"] = same["provenance"] = None
        assert found == same


def test_an_error_in_a_worker_is_told(address, tmp_path):
    cell = Cell("digits-mlp", "sgd", 16)
    with pytest.raises(ValueError, match=r"^device is 'toaster'; allowed: "):
        run_sweep([cell], tmp_path, device="toaster", ray=address, progress=False)
    assert not ray.is_initialized()
    assert list(tmp_path.iterdir()) == []
