"""Real processes of ``batchscaling sweep`` that are killed, or stopped by Ctrl-C, at any moment."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import psutil
import pytest
import tiny

from batchscaling.curves import load_results
from batchscaling.training import Cell, run_sweep

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.usefixtures("tiny_task"),
    pytest.mark.skipif(sys.platform == "win32", reason="needs the signals of POSIX"),
]

SIZES = [16, 96]
SMALL = {"trials": 4, "seeds": 2, "finalists": 2, "final_seeds": 3, "fresh": 4}
OPTIONS = [f"--{name.replace('_', '-')}={value}" for name, value in SMALL.items()]
SWEEP = ["sweep", "--task=tiny", "--optimizer", "sgd", "adam", "--batch-size", *map(str, SIZES)]


@pytest.fixture(scope="module")
def cells(tiny_task):
    return [Cell("tiny", name, size, **SMALL) for size in SIZES for name in ("sgd", "adam")]


@pytest.fixture(scope="module")
def undisturbed(cells, tmp_path_factory):
    """Return the results of the whole sweep by file, without provenance."""
    return contents(run_sweep(cells, tmp_path_factory.mktemp("whole"), progress=False))


def contents(paths):
    records = {path.name: json.loads(path.read_text("utf-8")) for path in paths}
    for record in records.values():
        del record["provenance"]
    return records


def done(folder):
    return sorted(folder.glob("*.json"))


@contextmanager
def started(folder, *options, script=(tiny.__file__,)):
    """Start the sweep as a terminal does, in a process group of its own."""
    command = [sys.executable, *script, *SWEEP, *OPTIONS, f"--out={folder}", *options]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        yield process
    finally:
        with process:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def wait_for(condition, process, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < end
        time.sleep(0.002)


def family(process):
    """Return a process's descendants, which will be waited for."""
    return psutil.Process(process.pid).children(recursive=True)


def assert_ended(processes):
    _, alive = psutil.wait_procs(processes, timeout=20)
    assert alive == []


def assert_resumed(folder, cells, undisturbed):
    """Go on here: what was done stays, the rest is as if nothing had happened."""
    before = {path: path.stat().st_mtime_ns for path in done(folder)}
    assert contents(before).items() <= undisturbed.items()
    paths = run_sweep(cells, folder, progress=False)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert contents(paths) == undisturbed
    assert [path.name for path in done(folder)] == sorted(undisturbed)
    assert len(load_results(folder)) == len(cells)


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("kill", [signal.SIGKILL, signal.SIGINT], ids=["SIGKILL", "Ctrl-C"])
def test_a_sweep_that_is_stopped_loses_only_cells_in_flight(
    tmp_path, cells, undisturbed, kill, workers
):
    with started(tmp_path, f"--workers={workers}") as process:
        wait_for(lambda: done(tmp_path), process)
        children = family(process)
        assert len(children) >= (workers if workers > 1 else 0)
        time.sleep(random.uniform(0, 0.15))
        if kill == signal.SIGINT:
            os.killpg(process.pid, kill)  # a terminal sends it to all
        else:
            process.kill()
        held = len(done(tmp_path))
        out, err = process.communicate(timeout=60)
    assert_ended(children)
    assert len(done(tmp_path)) < len(cells), "the sweep was over before it could be stopped"
    # What was being written may have become complete, and nothing else.
    assert held <= len(done(tmp_path)) <= held + 1
    if kill == signal.SIGINT:
        assert process.returncode == 130, err
        assert err.splitlines()[-1].startswith("batchscaling: interrupted;")
        assert "Traceback" not in out + err
        assert "resource_tracker" not in err
        assert set(tmp_path.iterdir()) == set(done(tmp_path))
    else:
        assert process.returncode == -signal.SIGKILL
    assert_resumed(tmp_path, cells, undisturbed)


def test_a_worker_that_dies_is_told_in_a_line(tmp_path, cells, undisturbed):
    with started(tmp_path, "--workers=2") as process:
        wait_for(lambda: done(tmp_path), process)
        workers = [each for each in family(process) if "spawn_main" in " ".join(each.cmdline())]
        workers[0].kill()
        out, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert err.splitlines()[-1].startswith("batchscaling: a process has died")
    assert "Traceback" not in out + err
    assert_resumed(tmp_path, cells, undisturbed)


DIES_WHILE_IT_WRITES = f"""
import os, runpy, signal
sync, calls = os.fsync, []

def fsync(file):
    calls.append(file)
    if len(calls) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    sync(file)

os.fsync = fsync
runpy.run_path({tiny.__file__!r}, run_name="__main__")
"""


def test_a_file_that_was_being_written_is_no_result(tmp_path, cells, undisturbed):
    with started(tmp_path, script=("-c", DIES_WHILE_IT_WRITES)) as process:
        process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL
    assert len(done(tmp_path)) == 2
    (rubbish,) = set(tmp_path.iterdir()) - set(done(tmp_path))
    assert rubbish.name.startswith(".")
    assert_resumed(tmp_path, cells, undisturbed)


def test_two_processes_give_the_files_of_one(tmp_path, cells, undisturbed):
    with started(tmp_path, "--workers=2") as process:
        out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert f"{len(cells)} cells are in {tmp_path}" in out
    assert contents(done(tmp_path)) == undisturbed
    assert set(tmp_path.iterdir()) == set(done(tmp_path))
