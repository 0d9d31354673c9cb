"""What test_processes.py runs in several processes; a case is a method and an exchange.

``torchrun distributed.py FOLDER`` trains all cases and stores the last parameters.
``python distributed.py FOLDER`` does so by the agent of torchrun and forks, which have imported
torch already: that takes longer than all else. Then forks die, start again, and disagree.
They are forks of a server without threads: one of a process whose other threads hold a lock at that
moment would wait for it forever, and the agent has such threads.
"""

import json
import multiprocessing
import os
import signal
import socket
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import tiny
import torch
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from batchscaling.__main__ import main
from batchscaling.training import (
    TASKS,
    adam,
    chain,
    decoupled_weight_decay,
    ema_nesterov,
    extrap_adam,
    extrap_sgd,
    gradient_perturbed,
    grid,
    heavy_ball,
    kfac,
    lars,
    local_steps,
    nesterov,
    nesterov_lookahead,
    outer_steps,
    perturbation,
    sgd,
    step_drops,
    synchronous,
)
from batchscaling.training.losses import smoothed_cross_entropy
from batchscaling.training.workers import job
from batchscaling.training.workers.group import process_group
from batchscaling.training.workers.processes import train_distributed

ADAM = {"beta1": 0.9, "beta2": 0.99, "epsilon": 1e-4}
KFAC = {"lr": 0.05, "momentum": 0.5, "damping": 0.1, "kl_clip": 0.01, "factor_decay": 0.9}
OUTER = {"outer_lr": 0.7, "outer_momentum": 0.6}
AHEAD = {"lr": 0.05, "momentum": 0.7, "extrapolation": 0.02}
NOISY = {"lr": 0.05, "momentum": 0.7, "radius": 0.1}
START = "forkserver"
"""How processes start that torchrun does not."""
LOCAL, POST, ROUNDS = (
    partial(local_steps, every=4),
    partial(local_steps, every=4, after=20),
    partial(outer_steps, every=5),
)

CASES = {
    "sgd": (sgd, {"lr": 0.1}, synchronous),
    "nesterov": (nesterov, {"lr": 0.05, "momentum": 0.7}, synchronous),
    "extrap_sgd": (extrap_sgd, AHEAD, synchronous),
    "normal": (chain(perturbation(), nesterov_lookahead), NOISY, synchronous),
    "uniform": (
        chain(perturbation("uniform", by_filter=True), nesterov_lookahead),
        NOISY,
        synchronous,
    ),
    "smooth_out": (
        chain(perturbation("uniform", shared=True), nesterov_lookahead),
        NOISY,
        synchronous,
    ),
    "of_another_batch": (chain(gradient_perturbed, nesterov_lookahead), AHEAD, synchronous),
    "extrap_adam": (extrap_adam, {"lr": 0.01, "extrapolation": 0.01, **ADAM}, synchronous),
    "ema_nesterov": (
        ema_nesterov,
        {"lr": 0.05, "look_ahead": 3.0, "update_decay": 0.8},
        synchronous,
    ),
    "lars": (
        lars,
        {"lr": 0.5, "momentum": 0.7, "trust": 0.02, "weight_decay": 1e-3},
        synchronous,
    ),
    "kfac": (kfac, KFAC, synchronous),
    "local_sgd": (heavy_ball, {"lr": 0.05, "momentum": 0.7}, LOCAL),
    "post_local_sgd": (heavy_ball, {"lr": 0.05, "momentum": 0.7}, POST),
    "extrap_sgd_then_local": (extrap_sgd, AHEAD, POST),
    "local_adam": (adam, {"lr": 0.01, **ADAM}, LOCAL),
    "lookahead": (sgd, {"lr": 0.05, **OUTER}, ROUNDS),
    "diloco": (
        chain(adam, decoupled_weight_decay),
        {"lr": 0.01, "weight_decay": 0.1, **ADAM, **OUTER},
        ROUNDS,
    ),
}
STEPS, BATCH_SIZE = 50, 16


def options(name, workers):
    """Return what both ways to train a case have in common: arguments and options."""
    optimizer, hyper, exchange = CASES[name]
    seeds = [3, 5] if name in ("extrap_sgd", "diloco") else [3]
    # A lone trial, or two.
    trials = grid(seeds, **hyper)
    schedule = step_drops([30], 0.2)
    return optimizer, trials, {"exchange": exchange(workers), "schedule": schedule}


DIFFERENT = {
    "optimizer": [{"optimizer": heavy_ball}, {"optimizer": nesterov}],
    "schedule": [{"schedule": step_drops([41], 0.5)}, {"schedule": step_drops([42], 0.5)}],
    "loss": [{}, {"loss": smoothed_cross_entropy(0.1)}],
}
"""Arguments of worker 0, and of others; no evaluation is between the drops."""


def differ(group):
    """Train with arguments that are not the same; return what is told."""
    told, trials = {}, grid([3], **CASES["nesterov"][1])
    how = {"exchange": synchronous(group.workers), "batch_size": BATCH_SIZE, "spacing": 9}
    for name, each in DIFFERENT.items():
        mine = {"optimizer": heavy_ball, **each[min(group.rank, 1)]}
        optimizer = mine.pop("optimizer")
        common = tiny.load(), tiny.TINY.model, optimizer, trials
        try:
            train_distributed(*common, group=group, max_steps=STEPS, **how, **mine)
        except ValueError as error:
            told[name] = str(error)
    return told


def train_all(folder):
    """Train all cases in the processes of torchrun."""
    data, found, counts = tiny.load(), {}, {}
    with process_group(timeout=60) as group:
        for name in CASES:
            optimizer, trials, how = options(name, group.workers)
            run = train_distributed(
                data,
                tiny.TINY.model,
                optimizer,
                trials,
                group=group,
                batch_size=BATCH_SIZE,
                max_steps=STEPS,
                spacing=9,
                **how,
            )
            counts[name] = [int(run.means[-1]), int(run.sent[-1])]
            for part, tensor in run.params.items():
                found[f"{name}/{part}"] = tensor.numpy()
        told = differ(group)
        if group.rank == 0:
            np.savez(folder / "params.npz", **found)
            (folder / "differ.json").write_text(json.dumps(told))
            (folder / "counts.json").write_text(json.dumps(counts))


COMMAND = (
    "train-distributed --task tiny --optimizer extrap_sgd --batch-size 16 --steps 60 --seeds 3 4 "
    "--hyper lr=0.05 momentum=0.7 extrapolation=0.02 --checkpoint-every 8 --timeout 20"
)


def local_steps_that_end(workers, every, *, after):
    """Return local steps in which worker 1 is killed at a step, at the first start."""
    exchange = local_steps(workers, every)

    def params(params, state, hyper, step, mean):
        first = os.environ["TORCHELASTIC_RESTART_COUNT"] == "0"
        if step == after and os.environ["RANK"] == "1" and first:
            os.kill(os.getpid(), signal.SIGKILL)
        return exchange.params(params, state, hyper, step, mean)

    return replace(exchange, params=params, name="local_steps that end")


job.EXCHANGES["mortal"] = local_steps_that_end, ("every", "after")


def run(log, arguments):
    """Run the command line in a worker, and keep what it says."""
    file = os.open(f"{log}.{os.environ['RANK']}", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.dup2(file, 2)
    main([*COMMAND.split(), *arguments])


def die_at_the_second_writing():
    """Let process 0 be killed while it writes its second file."""
    sync, calls = os.fsync, []

    def fsync(file):
        calls.append(file)
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        sync(file)

    os.fsync = fsync


def run_alone(rank, workers, port, log, arguments, before):
    """Run the command line as torchrun would start it, without its agent."""
    before()
    variables = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": workers, "MASTER_PORT": port}
    os.environ.update({name: str(number) for name, number in variables.items()})
    os.environ.update({"MASTER_ADDR": "localhost", "TORCHELASTIC_RESTART_COUNT": "0"})
    run(log, arguments)


def prepared(function, *arguments):
    """Call a function in a new process, on one thread and with the small task."""
    torch.set_num_threads(1)
    TASKS["tiny"] = tiny.TINY
    return function(*arguments)


def forked(log, *arguments, workers=2, changes=None, before=bool):
    """Run the command line in forks, which nobody ends; return the exit codes.

    `changes` are further arguments of some, by rank; ``before()`` is called first.
    """
    with socket.socket() as one:
        one.bind(("localhost", 0))
        port = one.getsockname()[1]
    fork = multiprocessing.get_context(START)
    each = [[*arguments, *(changes or {}).get(rank, ())] for rank in range(workers)]
    processes = [
        fork.Process(target=prepared, args=(run_alone, rank, workers, port, log, mine, before))
        for rank, mine in enumerate(each)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    return [process.exitcode for process in processes]


def agent(function, *arguments, workers=2, restarts=0):
    """Let the agent of torchrun run a function in forks."""
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=workers,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=restarts,
        monitor_interval=0.1,
        start_method=START,
    )
    elastic_launch(config, prepared)(function, *arguments)


BAD = {
    "batch_size": (["--batch-size=2"], {}, 4),
    "lr": ([], {1: ["--hyper", "lr=0.1", "momentum=0.7", "extrapolation=0.02"]}, 2),
    "optimizer": ([], {0: ["--optimizer=nesterov", "--hyper", "lr=0.1", "momentum=0"]}, 2),
    "exchange": ([], {1: ["--exchange=local_steps", "--every=3"]}, 2),
    "steps": ([], {1: ["--steps=61"]}, 2),
    "checkpoint": ([], {1: ["--checkpoint-every=9"]}, 2),
    "one_alone": (["--timeout=3"], {1: ["--every=9"]}, 2),
    "every": (["--every=9"], {}, 1),
    "other_job": (["--seeds=9", "--out={folder}/whole.json"], {}, 2),
    "no_folder": (["--out={folder}/none/a.json"], {}, 1),
    "lr_missing": (["--hyper", "momentum=0.7", "extrapolation=0.02"], {}, 1),
}
"""Arguments of all workers, further ones of some, and how many there are."""


def die_and_disagree(folder):
    """Train in forks that die, go on, and disagree; store how they ended."""
    (folder / "4").mkdir()
    agent(train_all, folder / "4", workers=4)
    local, late = ("--exchange=mortal", "--every=4", "--after=22"), "--after=99"
    ended = {"whole": forked(folder / "whole.log", *local, late, f"--out={folder}/whole.json")}
    ended["killed"] = forked(folder / "killed.log", *local, f"--out={folder}/killed.json")
    written = *local, late, f"--out={folder}/written.json"
    ended["written"] = forked(folder / "written.log", *written, before=die_at_the_second_writing)
    os.link(folder / "written.json.checkpoint.npz", folder / "left.npz")
    ended["written again"] = forked(folder / "written.log", *written)
    ended["again"] = forked(folder / "again.log", *local, late, f"--out={folder}/whole.json")
    agent(run, folder / "restarted.log", [*local, f"--out={folder}/restarted.json"], restarts=1)
    for name, (arguments, changes, workers) in BAD.items():
        arguments = [f"--out={folder}/bad.json", *(a.format(folder=folder) for a in arguments)]
        log = folder / f"bad-{name}.log"
        ended[name] = forked(log, *arguments, workers=workers, changes=changes)
    (folder / "ended.json").write_text(json.dumps(ended))


if __name__ == "__main__":
    if "RANK" in os.environ:
        prepared(train_all, Path(sys.argv[1]))
    else:
        multiprocessing.set_forkserver_preload(["torch.distributed", "batchscaling.training"])
        die_and_disagree(Path(sys.argv[1]))
