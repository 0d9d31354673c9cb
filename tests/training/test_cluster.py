"""Sweeps on a real Ray cluster on this machine: a worker is killed, a node dies, Ctrl-C."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from batchscaling.training import Cell, load_task, run_sweep
from batchscaling.training import sweeps as module

ray = pytest.importorskip("ray")

pytestmark = [pytest.mark.usefixtures("tiny_task"), pytest.mark.timeout(600)]

SMALL = {"trials": 4, "seeds": 2, "finalists": 2, "final_seeds": 3, "fresh": 4}
SIZES = [16, 32, 64, 96]


@pytest.fixture(scope="module")
def cluster():
    """Start a cluster of two nodes, each with room for one cell."""
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        # So that workers and the command find `tiny`.
        patch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
        head = {"num_cpus": 1, "include_dashboard": False}
        cluster = Cluster(initialize_head=True, head_node_args=head)
        cluster.add_node(num_cpus=1)
        cluster.wait_for_nodes()
        yield cluster
        cluster.shutdown()
    assert not ray.is_initialized()


@pytest.fixture
def address(cluster):
    return cluster.address


@pytest.fixture
def cells(tiny_task):
    return [Cell("tiny", "sgd", size, **SMALL) for size in SIZES]


def logged(log, hang, head=None):
    """Return `run_cell` for workers, that writes down what it does.

    Parameters
    ----------
    log : Path
        Folder that gets an empty file for every start of a cell, named by time, process and cell.
    hang : Cell
        When it starts first, it stops in the middle of its work.
    head : str, optional
        Id of the node on which it does not.
    """

    def run(cell, *, device):
        import tiny

        from batchscaling.training import cells

        train, trained = cells.train, []
        first = not list(log.glob(f"*-{cell.file}"))
        (log / f"{time.time_ns()}-{os.getpid()}-{cell.file}").touch()

        def slow_train(*arguments, **options):
            trained.append(1)
            here = ray.get_runtime_context().get_node_id()
            if cell == hang and here != head and first and len(trained) == 2:
                (log / f"hangs-{os.getpid()}").touch()
                time.sleep(600)
            return train(*arguments, **options)

        cells.train = slow_train
        try:
            return tiny.run_cell(cell, device=device)
        finally:
            cells.train = train

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
    names, write = [], module.write_record

    def counted(path, result):
        names.append(path.name)
        write(path, result)

    monkeypatch.setattr(module, "write_record", counted)
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


def test_a_cell_goes_on_elsewhere_when_its_node_dies(cluster, cells, tmp_path, monkeypatch):
    log, folder = tmp_path / "log", tmp_path / "sweep"
    log.mkdir()
    # Which node gets which cell is open: with two cells, one runs beside the head.
    pair, head = cells[:2], cluster.head_node.node_id
    node = next(iter(cluster.worker_nodes))
    runs = [logged(log, cell, head) for cell in pair]

    def remove():
        while not list(log.glob("hangs-*")):
            time.sleep(0.01)
        cluster.remove_node(node, allow_graceful=False)

    thread = threading.Thread(target=remove, daemon=True)
    thread.start()
    both = dict(zip(pair, runs, strict=True))
    monkeypatch.setattr(module, "run_cell", lambda cell, *, device: both[cell](cell, device=device))
    try:
        paths = run_sweep(pair, folder, ray=cluster.address, progress=False)
        thread.join(timeout=30)
        assert not thread.is_alive()
    finally:
        cluster.add_node(num_cpus=1)
    assert [path.name for path in paths] == [cell.file for cell in pair]
    assert sorted(len(starts(log, cell)) for cell in pair) == [1, 2]


COMMAND = """
import tiny
from batchscaling.training import sweeps

sweeps.run_cell = tiny.run_cell
tiny.TASKS["tiny"] = tiny.TINY
tiny.main()
"""


def test_ctrl_c_loses_only_cells_in_flight(address, cells, tmp_path):
    options = [f"--{name.replace('_', '-')}={value}" for name, value in SMALL.items()]
    command = [sys.executable, "-c", COMMAND, "sweep", "--task=tiny", "--optimizer=sgd"]
    command += ["--batch-size", *map(str, SIZES), *options, f"--out={tmp_path}"]
    process = subprocess.Popen(
        [*command, f"--ray={address}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with process:
        while not list(tmp_path.glob("*.json")):
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.splitlines()[-1].startswith("batchscaling: interrupted;")
    assert "Traceback" not in out + err

    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    assert 1 <= len(before) < len(SIZES), "the sweep was over before it could be stopped"
    paths = run_sweep(cells, tmp_path, progress=False)
    assert sorted(paths) == sorted(tmp_path.iterdir())
    assert all(path.read_bytes() == content for path, content in before.items())


def test_an_address_without_a_cluster_is_told(cells, tmp_path):
    with pytest.raises(ValueError, match=r"^ray is 'nowhere'; allowed: the address of a cluster"):
        run_sweep(cells, tmp_path, ray="nowhere", progress=False)


def test_an_error_in_a_worker_is_told(address, tmp_path):
    cell = Cell("digits-mlp", "sgd", 16)
    with pytest.raises(ValueError, match=r"^device is 'toaster'; allowed: "):
        run_sweep([cell], tmp_path, device="toaster", ray=address, progress=False)
    assert not ray.is_initialized()
    assert list(tmp_path.iterdir()) == []


def test_tasks_of_ones_own_run_in_workers(address, folder, own, tmp_path, monkeypatch):
    """By file, by module and as an object, from a folder that holds none of them."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    by_file = load_task("mine/net_of_mine.py:net", folder.parent)
    by_module = load_task("net_of_mine:net", folder)
    tasks = [(by_file, 8), (by_module, 16), (own, 16)]
    cells = [Cell(task, "sgd", size, **SMALL) for task, size in tasks]
    paths = run_sweep(cells, "out", ray=address, progress=False)
    assert [path.name for path in paths] == [
        "net-sgd-00008.json",
        "net-sgd-00016.json",
        "own-sgd-00016.json",
    ]
    for path, same in zip(paths, run_sweep(cells, "here", progress=False), strict=True):
        found, expected = (json.loads(one.read_text("utf-8")) for one in (path, same))
        found["provenance"] = expected["provenance"] = None
        assert found == expected
