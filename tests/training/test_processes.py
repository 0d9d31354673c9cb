"""Workers that are processes: against simulated ones, when they die, and when they disagree."""

import json
import re
import subprocess
import sys
from functools import partial

import distributed
import numpy as np
import pytest
import tiny
import torch
from distributed import BATCH_SIZE, CASES, STEPS, options

from batchscaling.training import (
    fix,
    grid,
    heavy_ball,
    kfac_adaptive_damping,
    kfac_without_momentum,
    nesterov,
    process_group,
    step_drops,
    synchronous,
    train,
    train_distributed,
)
from batchscaling.training.device import check_device
from batchscaling.training.loop import check_hyper
from batchscaling.training.losses import smoothed_cross_entropy
from batchscaling.training.program import Program
from batchscaling.training.rows import Pieces
from batchscaling.training.workers import job
from batchscaling.training.workers.group import LONGEST

pytestmark = pytest.mark.timeout(600)  # the first waits for all that processes do


@pytest.fixture(scope="module")
def forks(tmp_path_factory):
    """Return the folder of what forks have left."""
    return ran(tmp_path_factory.mktemp("forks"), sys.executable)


@pytest.fixture(scope="module")
def torchrun(tmp_path_factory):
    """Return the folder of what two processes of torchrun have left."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    return ran(tmp_path_factory.mktemp("torchrun"), *command, "--nproc-per-node=2")


def ran(folder, *command):
    done = subprocess.run(
        [*command, distributed.__file__, str(folder)], capture_output=True, text=True, timeout=550
    )
    assert done.returncode == 0, done.stderr
    return folder


def simulated(name, workers):
    """Return the last parameters of a case with simulated workers, and how often they meet."""
    optimizer, trials, how = options(name, workers)
    hyper = check_hyper(optimizer, how["schedule"], trials, check_device("cpu"), how["exchange"])
    program = Program(tiny.load(), tiny.TINY.model, optimizer, Pieces(2**15, 1), **how)
    program.start(trials.seeds, hyper, BATCH_SIZE)
    for step in range(STEPS):
        program.step(step)
    return {part: tensor.numpy() for part, tensor in program.readout().items()}


def assert_same(folder, name, workers):
    with np.load(folder / "params.npz") as stored:
        for part, values in simulated(name, workers).items():
            np.testing.assert_allclose(stored[f"{name}/{part}"], values, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", CASES)
def test_two_processes_of_torchrun_are_two_simulated_workers(torchrun, name):
    assert_same(torchrun, name, 2)


@pytest.mark.parametrize("name", CASES)
def test_four_processes_are_four_simulated_workers(forks, name):
    assert_same(forks / "4", name, 4)


MEANS = {"local_sgd": 12, "local_adam": 12, "lookahead": 10, "diloco": 10}
MEANS |= dict.fromkeys(["post_local_sgd", "extrap_sgd_then_local"], 20 + 7)


@pytest.mark.parametrize("folder", ["forks", "torchrun"])
def test_a_step_takes_one_mean_where_workers_meet_and_extrapolation_none(request, folder):
    folder = request.getfixturevalue(folder)
    folder = folder / "4" if (folder / "4").exists() else folder
    counts = json.loads((folder / "counts.json").read_text())
    numbers = 6 * 8 + 8 + 8 * 3 + 3
    for name, (means, sent) in counts.items():
        trials = len(options(name, 2)[1].seeds)
        assert means == MEANS.get(name, STEPS)
        assert sent == means * trials * numbers * 4


def said(folder, log, rank=0):
    """Return what a worker has written to its standard error."""
    return (folder / f"{log}.log.{rank}").read_text("utf-8")


@pytest.mark.parametrize("name", ["optimizer", "schedule", "loss"])
def test_workers_that_disagree_are_told(torchrun, name):
    found = json.loads((torchrun / "differ.json").read_text())[name]
    start = f"{name} (digest) of worker 1 is '"
    assert found.startswith(start)
    assert "'; allowed: '" in found and found.endswith("', as of worker 0")


def test_a_worker_that_is_killed_ends_the_others_with_an_error(forks):
    ended = json.loads((forks / "ended.json").read_text())
    assert ended["whole"] == [0, 0]
    assert ended["killed"] == [1, -9]
    last = said(forks, "killed").splitlines()[-1]
    assert last.startswith("batchscaling: another worker has ended or does not answer, at mean 6: ")
    assert not (forks / "killed.json").exists()
    with np.load(forks / "killed.json.checkpoint.npz") as held:
        assert held["step"] == 16


def test_a_checkpoint_that_was_being_written_is_none(forks):
    ended = json.loads((forks / "ended.json").read_text())
    assert ended["written"] == [-9, 1]
    with np.load(forks / "left.npz") as held:
        assert held["step"] == 8
    assert ended["written again"] == [0, 0]
    assert curve(forks, "written") == curve(forks, "whole")


def curve(folder, name):
    """Return all that a job's file holds, but for what tells jobs apart."""
    record = json.loads((folder / f"{name}.json").read_text())
    assert record.pop("provenance")["seconds"] >= 0
    record["job"].pop("timing")
    return record


def test_torchrun_starts_a_dead_worker_again_and_the_curve_goes_on(forks):
    log = said(forks, "restarted")
    assert "another worker has ended" in log or "SignalException" in log
    assert log.count(" 0/60 [") == log.count(" 16/60 [00:00<?") == 1
    assert curve(forks, "restarted") == curve(forks, "whole")
    assert not (forks / "restarted.json.checkpoint.npz").exists()


def test_a_job_that_is_done_is_not_done_again(forks):
    assert json.loads((forks / "ended.json").read_text())["again"] == [0, 0]
    assert said(forks, "again") == ""


LR = "{'lr': %s, 'momentum': 0.7, 'extrapolation': 0.02}"
TOLD = {
    "batch_size": "batch_size is 2; allowed: a multiple of 4 workers times 1, the ghost batch",
    "lr": f"hyper of worker 1 is {LR % 0.1}; allowed: {LR % 0.05}, as of worker 0",
    "optimizer": "optimizer of worker 1 is ['extrap_sgd']; allowed: ['nesterov'], as of worker 0",
    "exchange": "exchange of worker 1 is 'local_steps'; allowed: 'synchronous', as of worker 0",
    "steps": "steps of worker 1 is 61; allowed: 60, as of worker 0",
    "checkpoint": "checkpoint of worker 1 is [True, 9, 0]; allowed: [True, 8, 0], as of worker 0",
    "one_alone": "another worker has ended or does not answer, before the start: ",
    "every": "every is 9; allowed: nothing, for synchronous",
    "no_folder": "out is ",
    "other_job": "out is ",
    "lr_missing": "trials.hyper is ['extrapolation', 'momentum']; allowed: exactly ",
}


@pytest.mark.parametrize("name", distributed.BAD)
def test_what_is_wrong_is_told_by_each_worker_in_a_line(forks, name):
    codes = json.loads((forks / "ended.json").read_text())[name]
    assert codes == [1 if name == "one_alone" else 2] + [2] * (len(codes) - 1)
    for rank in range(1 if name == "one_alone" else len(codes)):
        lines = [s for s in said(forks, f"bad-{name}", rank).splitlines() if "c10d" not in s]
        assert lines[0].startswith(f"batchscaling: {TOLD[name]}")
        assert len(lines) == 1
    assert not (forks / "bad.json").exists()


@pytest.mark.parametrize(
    "text",
    ["", '{"job": {"task"', "[1]", '"job"', "{}", "\0", '{"job": {}}', '{"job": {}, "losses": 1}'],
)
def test_a_result_that_no_job_has_written_is_refused(tmp_path, text):
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"^out is '.*a\.json'; allowed: no file, or one that a j"):
        job._is_done(path, {})


@pytest.fixture(scope="module")
def alone():
    """Return how to train in a group of one process, this one, and the same without a group."""
    variables = {"RANK": 0, "LOCAL_RANK": 0, "WORLD_SIZE": 1, "MASTER_PORT": 0}
    with pytest.MonkeyPatch.context() as patch:
        for name, number in variables.items():
            patch.setenv(name, str(number))
        patch.setenv("MASTER_ADDR", "localhost")
        with process_group(timeout=LONGEST) as group:  # torch takes it
            common = tiny.load(), tiny.TINY.model, fix(heavy_ball, momentum=0.5)
            how = {"batch_size": 16, "max_steps": 30, "exchange": synchronous(1)}
            yield (
                partial(train_distributed, *common, group=group, **how),
                partial(train, *common, **how),
            )


TRIALS = grid([0, 1], lr=[0.1, 1e20], decay=0.9)


def assert_same_results(found, expected):
    assert found.losses.keys() == expected.losses.keys()
    for name, losses in expected.losses.items():
        np.testing.assert_array_equal(found.losses[name], losses)
    np.testing.assert_array_equal(found.accuracy, expected.accuracy)
    np.testing.assert_array_equal(found.diverged, expected.diverged)


def test_trials_that_diverge_leave_also_when_it_goes_on_from_a_checkpoint(alone, tmp_path):
    distributed_run, plain = alone
    expected = plain(TRIALS, measures=["averaged"])
    assert expected.diverged.tolist() == [False, False, True, True]
    how = {"measures": ["averaged"], "checkpoint": tmp_path / "a.npz", "checkpoint_every": 8}
    for _ in range(2):
        run = distributed_run(TRIALS, **how)
        assert_same_results(run.results, expected)
        assert all(len(p) == 2 for p in run.params.values())
        assert run.means[-1] == 30
    with np.load(tmp_path / "a.npz") as held:
        assert held["step"] == 24
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]


def test_all_that_diverge_end_it(alone):
    run = alone[0](grid([0], lr=1e20))
    assert run.results.diverged.all()
    assert all(len(p) == 0 for p in run.params.values())


def test_numbers_of_numpy_and_torchs_defaults_change_nothing(alone, tmp_path):
    expected = alone[1](grid([3], lr=0.1))
    torch.set_default_dtype(torch.float64)
    try:
        numbers = {"batch_size": np.int64(16), "max_steps": np.int16(30)}
        every = {"checkpoint": str(tmp_path / "a.npz"), "checkpoint_every": np.uint8(9)}
        run = alone[0](grid(np.array([3], ">i8"), lr=np.float32(0.1)), **numbers, **every)
    finally:
        torch.set_default_dtype(torch.float32)
    np.testing.assert_allclose(run.results.loss, expected.loss, rtol=1e-6)


def test_a_checkpoint_of_something_else_is_refused(alone, tmp_path):
    path, trials = tmp_path / "a.npz", grid([0], lr=0.1)
    how = {"checkpoint": path, "checkpoint_every": 8}
    alone[0](trials, **how)
    for changed, name in [
        ({"trials": grid([0], lr=0.2)}, "lr, "),
        ({"trials": grid([1], lr=0.1)}, "seeds, "),
        ({"batch_size": 32}, "batch_size, '32'"),
        ({"settings": {"task": "other"}}, "task, 'other'"),
        ({"schedule": step_drops([29], 0.5)}, r"schedule \(digest\), "),
        ({"loss": smoothed_cross_entropy(0.1)}, r"loss \(digest\), "),
    ]:
        with pytest.raises(ValueError, match=f"^checkpoint is .*; allowed: .* this {name}"):
            alone[0](**{"trials": trials, **how, **changed})
    np.savez(path, step=np.array([object()], dtype=object))
    for junk in (path.read_bytes(), b"junk", b""):
        path.write_bytes(junk)
        with pytest.raises(ValueError, match=r"^checkpoint is .*; allowed: a file that a run has"):
            alone[0](trials, **how)


def test_a_checkpoint_of_another_optimizer_or_of_none_that_is_named_is_refused(alone, tmp_path):
    """Momenta have equal states, so that one could go on from the other's."""
    path, trials = tmp_path / "a.npz", grid([0], lr=0.1)
    how = {"checkpoint": path, "checkpoint_every": 8}
    alone[0](trials, **how)
    other = partial(train_distributed, *alone[0].args[:2], fix(nesterov, momentum=0.5))
    with pytest.raises(ValueError, match=r"a run with this optimizer \(digest\), '\w+'; it has '"):
        other(trials, **alone[0].keywords, **how)
    with np.load(path) as held:
        arrays = dict(held)
    settings = json.loads(str(arrays.pop("settings")))
    del settings["optimizer (digest)"]
    np.savez(path, settings=np.array(json.dumps(settings)), **arrays)
    with pytest.raises(ValueError, match=r"this optimizer \(digest\), '\w+'; it has None"):
        alone[0](trials, **how)


def settings_that_are_a_list(arrays):
    arrays["settings"] = np.array("[1, 2]")


FORGED = {
    "settings": (settings_that_are_a_list, "'list' object is not a mapping"),
    "step before": (
        lambda a: a.update(step=np.array(-5)),
        "step is -5; allowed: an integer in [1, 29]",
    ),
    "step zero": (lambda a: a.update(step=np.array(0)), "step is "),
    "last step": (lambda a: a.update(step=np.array(30)), "step is "),
    "half a step": (lambda a: a.update(step=np.array(8.5)), "step is "),
    "two steps": (lambda a: a.update(step=np.array([8, 9])), "step is "),
    "no rows": (lambda a: a.pop("held.0"), "held.0 is nothing, not float32 of shape "),
    "no accuracy": (lambda a: a.pop("measured.accuracy"), "measured.accuracy is nothing, not "),
    "short": (lambda a: a.update({"held.0": a["held.0"][..., :1]}), "held.0 is float32 of shape "),
    "text": (lambda a: a.update({"held.1": a["held.1"].astype(str)}), "held.1 is <U32 of shape "),
    "other trials": (
        lambda a: a.update({"measured.diverged": np.zeros(3, dtype=bool)}),
        "measured.diverged is bool of shape (3,), not bool of shape (1,)",
    ),
}


@pytest.fixture(scope="module")
def stored(alone, tmp_path_factory):
    """Return the arrays of a checkpoint of step 24."""
    path = tmp_path_factory.mktemp("stored") / "a.npz"
    alone[0](grid([0], lr=0.1), checkpoint=path, checkpoint_every=8)
    with np.load(path) as held:
        return dict(held)


@pytest.mark.parametrize("name", FORGED)
def test_what_is_no_checkpoint_is_refused(alone, stored, tmp_path, name):
    change, reason = FORGED[name]
    path, arrays = tmp_path / "a.npz", dict(stored)
    change(arrays)
    np.savez(path, **arrays)
    told = r"^checkpoint is '.*a\.npz'; allowed: a file that a run has written \("
    with pytest.raises(ValueError, match=told + re.escape(reason)):
        alone[0](grid([0], lr=0.1), checkpoint=path)


def test_a_lone_array_is_no_checkpoint(alone, tmp_path):
    path = tmp_path / "a.npz"
    with path.open("wb") as file:
        np.save(file, np.ones(3))
    with pytest.raises(ValueError, match=r"^checkpoint is .*; allowed: a file that a run has"):
        alone[0](grid([0], lr=0.1), checkpoint=path)


BAD_ALONE = [
    ({"exchange": synchronous(2)}, "exchange.workers is 2; allowed: the number of processes, 1"),
    ({"exchange": None}, "exchange is None; allowed: an Exchange such as"),
    ({"loss": "squared"}, "loss is 'squared'; allowed: a Loss"),
    ({"exchange": synchronous}, "exchange is <function synchronous at .*; allowed: an Exchange"),
    ({"exchange": "synchronous"}, "exchange is 'synchronous'; allowed: an Exchange"),
    ({"checkpoint": 5}, "checkpoint is 5; allowed: the path of a file, or None"),
    ({"checkpoint": b"a.npz"}, "checkpoint is b'a.npz'; allowed: the path"),
    ({"checkpoint_every": 0}, "checkpoint_every is 0; allowed"),
    ({"settings": {"a": {1, 2}}}, "settings is {'a': {1, 2}}; allowed: a mapping of str to what"),
    ({"settings": ["a"]}, "settings is .'a'.; allowed: a mapping"),
    ({"group": None}, "group is None; allowed: a Group"),
    ({"checkpoint": "/no/such/folder/a.npz"}, "checkpoint is '/no/such/folder/a.npz'; allowed"),
    ({"batch_size": 97}, "batch_size is 97; allowed"),
    ({"max_steps": 0}, "max_steps is 0; allowed"),
    ({"measures": ["averaged"]}, "trials.hyper is .*; allowed"),
]


@pytest.mark.parametrize(("changed", "message"), BAD_ALONE, ids=[m for _, m in BAD_ALONE])
def test_bad_arguments_are_named(alone, changed, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        alone[0](grid([0], lr=0.1), **changed)


LOOKING = {"lr": 0.05, "damping": 0.1, "kl_clip": 0.01, "factor_decay": 0.9}


@pytest.mark.parametrize("optimizer", [kfac_without_momentum, kfac_adaptive_damping])
def test_a_state_that_grows_in_the_first_step_goes_on_from_a_checkpoint(alone, tmp_path, optimizer):
    hyper = LOOKING | ({"momentum": 0.5} if optimizer is kfac_adaptive_damping else {})
    train_on = partial(train_distributed, *alone[0].args[:2], optimizer, **alone[0].keywords)
    trials = grid([0, 1], **hyper)
    whole = train_on(trials)
    for _ in range(2):
        run = train_on(trials, checkpoint=tmp_path / "a.npz", checkpoint_every=11)
        assert_same_results(run.results, whole.results)
        np.testing.assert_array_equal(run.means, whole.means)
    with np.load(tmp_path / "a.npz") as held:
        assert held["step"] == 22


def test_a_damaged_file_of_any_kind_is_refused(alone, tmp_path, monkeypatch):
    path = tmp_path / "a.npz"
    alone[0](grid([0], lr=0.1), checkpoint=path, checkpoint_every=8)

    def broken(*args, **kwargs):
        raise NotImplementedError("compression type 9")

    monkeypatch.setattr(np, "load", broken)
    with pytest.raises(ValueError, match=r"^checkpoint is .*compression type 9"):
        alone[0](grid([0], lr=0.1), checkpoint=path)
