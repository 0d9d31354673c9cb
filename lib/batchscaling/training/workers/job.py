"""Jobs: a task trained with one setting by several processes, ending in one file."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np

from batchscaling import _validation as check
from batchscaling.training import optimizers
from batchscaling.training.files import write_record
from batchscaling.training.loop import check_complete
from batchscaling.training.optimizers import Optimizer, chain
from batchscaling.training.provenance import provenance
from batchscaling.training.tasks import TASKS
from batchscaling.training.trials import grid
from batchscaling.training.workers.exchange import local_steps, outer_steps, synchronous
from batchscaling.training.workers.group import process_group
from batchscaling.training.workers.processes import train_distributed

PARTS = {name: part for name, part in vars(optimizers).items() if isinstance(part, Optimizer)}
"""Optimizers, and parts of a chain, by name."""

EXCHANGES = {
    "synchronous": (synchronous, ()),
    "local_steps": (local_steps, ("every", "after")),
    "outer_steps": (outer_steps, ("every",)),
}
"""Exchanges by name, and the names of their settings."""


_COUNTS = ("batch_size", "steps")


@dataclass(frozen=True)
class Job:
    """A task, a method with its hyperparameters, and what workers exchange.

    Parameters
    ----------
    task : str
        One of `TASKS`.
    optimizer : sequence of str
        Of `PARTS`, applied in turn; at least one, and one with a rate ``lr``.
    hyper : mapping of str to float
        Of the optimizers, the exchange and the task's schedule.
    batch_size : int
        Of all workers together.
    steps : int
        At least 1.
    seeds : sequence of int
        One trial for each.
    exchange : str
        One of `EXCHANGES`.
    timing : mapping of str to int
        The settings of the exchange, such as ``every``.

    Raises
    ------
    ValueError
        If a value is not allowed.
    """

    task: str
    optimizer: Sequence[str]
    hyper: Mapping[str, float]
    batch_size: int
    steps: int
    seeds: Sequence[int] = (0,)
    exchange: str = "synchronous"
    timing: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self):
        for name in self.optimizer:
            check.one_of("optimizer", name, PARTS)
        check.one_of("task", self.task, TASKS)
        _, names = EXCHANGES[check.one_of("exchange", self.exchange, EXCHANGES)]
        for name in set(self.timing) - set(names):
            check.reject(name, self.timing[name], f"nothing, for {self.exchange}")
        if "every" in names and "every" not in self.timing:
            check.reject("every", None, f"an integer of at least 1, for {self.exchange}")
        whole = {name: check.integer(name, getattr(self, name), 1) for name in _COUNTS}
        seeds = tuple(check.integer("seeds", seed, 0) for seed in self.seeds)
        timing = {name: check.integer(name, value) for name, value in self.timing.items()}
        rules = self._rules(timing)
        hyper = {n: rules.get(n, check.real)(n, value) for n, value in self.hyper.items()}
        lists = {"optimizer": tuple(self.optimizer), "seeds": seeds}
        check.store(self, **whole, **lists, hyper=hyper, timing=timing)

    def _rules(self, timing):
        """Return the checks of hyperparameters, each by its owner."""
        optimizer = chain(*(PARTS[name] for name in self.optimizer))
        check_complete(optimizer)
        build, _ = EXCHANGES[self.exchange]
        owners = optimizer, TASKS[self.task].schedule, build(1, **timing)
        return {name: rule for owner in owners for name, rule in owner.hyper.items()}

    @property
    def command(self):
        """The arguments of the command line that make the job's file, but for its name."""
        numbers = [f"{name}={value!r}" for name, value in self.hyper.items()]
        timing = [f"--{name} {value}" for name, value in self.timing.items()]
        return " ".join(
            [
                f"train-distributed --task {self.task} --optimizer {' '.join(self.optimizer)}",
                f"--hyper {' '.join(numbers)} --batch-size {self.batch_size} --steps {self.steps}",
                f"--seeds {' '.join(map(str, self.seeds))} --exchange {self.exchange}",
                *timing,
            ]
        )


def run_job(job, path, *, device="cpu", checkpoint_every=1000, timeout=600, progress=True):
    """Run a job in the processes that torchrun started, unless its file exists.

    While it runs, a checkpoint is beside the file, with ``.checkpoint.npz`` at its end.

    Parameters
    ----------
    job : Job
    path : pathlib.Path
        The file, of JSON; all processes must see it.
    device, timeout
        As for `process_group`.
    checkpoint_every, progress
        As for `train_distributed`.

    Returns
    -------
    str
        What to tell: empty, but in process 0.

    Raises
    ------
    ValueError
        If an argument is not allowed, processes have different ones, or the file is another job's
        or no job's.
    Failure
        If another process ends or does not answer.
    """
    start = time.perf_counter()
    checkpoint = path.with_name(f"{path.name}.checkpoint.npz")
    with process_group(device, timeout=timeout) as group:
        asked = json.loads(json.dumps(asdict(job) | {"workers": group.workers}))
        done = _is_done(path, asked)
        group.require_same({**asked, "a file that is there": done})
        if not done:
            record = _trained(job, group, asked, checkpoint, checkpoint_every, progress)
            if group.rank == 0:
                seconds = time.perf_counter() - start
                command = f"torchrun --nproc-per-node {group.workers} -m batchscaling {job.command}"
                record["provenance"] = provenance(command, str(group.device), seconds)
                write_record(path, record)
                checkpoint.unlink(missing_ok=True)
        if group.rank:
            return ""
    return summary(json.loads(path.read_text("utf-8")), path)


def summary(record, path):
    """Return a line that says what a job's file holds."""
    final = [losses[-1] for losses in record["losses"]]
    shown = ", ".join("diverged" if loss is None else f"{loss:.4g}" for loss in final)
    means, sent = record["means"][-1], record["sent"][-1]
    return f"validation loss {shown}; {means} means of {sent:,} bytes in all; {path}"


def _trained(job, group, asked, checkpoint, checkpoint_every, progress):
    """Return the record of the job."""
    task, (build, _) = TASKS[job.task], EXCHANGES[job.exchange]
    run = train_distributed(
        task.load(),
        task.model,
        chain(*(PARTS[name] for name in job.optimizer)),
        grid(job.seeds, **job.hyper),
        group=group,
        exchange=build(group.workers, **job.timing),
        batch_size=job.batch_size,
        max_steps=job.steps,
        loss=task.loss,
        schedule=task.schedule,
        checkpoint=checkpoint,
        checkpoint_every=checkpoint_every,
        settings={"task": job.task, "optimizer": list(job.optimizer)},
        progress=progress,
    )
    return {
        "job": asked,
        "steps": run.results.steps.tolist(),
        "losses": _numbers(run.results.loss),
        "accuracy": _numbers(run.results.accuracy),
        "means": run.means.tolist(),
        "sent": run.sent.tolist(),
    }


def _is_done(path, asked):
    """Return whether the job's file exists; refuse another one."""
    if not path.exists():
        if not path.parent.is_dir():
            check.reject("out", str(path), "a file in a folder that exists")
        return False
    try:
        record = json.loads(path.read_bytes())
        held, _ = record["job"], summary(record, path)
    except (OSError, ValueError, LookupError, TypeError):
        check.reject("out", str(path), "no file, or one that a job has written")
    if held != asked:
        check.reject("out", str(path), f"no file of another job, {held}")
    return True


def _numbers(array):
    """Return lists of numbers; None for what is not finite."""
    return [[float(x) if np.isfinite(x) else None for x in row] for row in array]
