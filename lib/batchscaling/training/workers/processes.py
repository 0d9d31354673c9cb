"""Training with workers that are processes: torchrun starts them, torch.distributed joins them.

Each draws the trial's own batches and takes its slice, so that they are the workers of `train` with
the same exchange: nothing but means is sent.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from tqdm import tqdm

from batchscaling import _validation as check
from batchscaling.training._process import kept_memory
from batchscaling.training._torch_state import undisturbed
from batchscaling.training.device import one_thread
from batchscaling.training.evaluation import Evaluation
from batchscaling.training.fit import check_fit
from batchscaling.training.kinds import check_kinds
from batchscaling.training.loop import (
    AT_ONCE,
    Measured,
    check_batch_size,
    check_hyper,
    check_pieces,
    check_targets,
    evaluation_steps,
)
from batchscaling.training.losses import cross_entropy
from batchscaling.training.program import Program
from batchscaling.training.rows import take
from batchscaling.training.schedules import constant
from batchscaling.training.trials import TrialResults
from batchscaling.training.workers.checkpoint import Checkpoint
from batchscaling.training.workers.exchange import Held
from batchscaling.training.workers.fingerprint import fingerprint
from batchscaling.training.workers.group import Group


@dataclass(frozen=True)
class DistributedRun:
    """What `train_distributed` measured, the same in every process.

    Attributes
    ----------
    results : TrialResults
    params : dict of torch.Tensor, each of shape (trials, ...)
        What was evaluated last, for the trials that have not diverged.
    means, sent : numpy.ndarray of int, shape (evaluations,)
        The communications of the steps up to each evaluation, and the bytes that one process gave
        for them. What evaluations and checkpoints take is not among them.
    """

    results: TrialResults
    params: Mapping[str, torch.Tensor]
    means: np.ndarray
    sent: np.ndarray


@undisturbed
@kept_memory()
def train_distributed(
    data,
    model,
    optimizer,
    trials,
    *,
    group,
    exchange,
    batch_size,
    max_steps,
    measures=("validation",),
    loss=cross_entropy,
    schedule=constant,
    spacing=0.05,
    checkpoint=None,
    checkpoint_every=1000,
    settings=None,
    progress=False,
):
    """Train all `trials` with one process for each worker, to the end or until all have diverged.

    Every process calls it with the same arguments, which is checked at the start, and returns the
    same. The steps are those of `train` with the same exchange, up to rounding. A step of one trial
    takes one communication where the exchange takes a mean, and none elsewhere.

    Parameters
    ----------
    data, model, optimizer, trials, max_steps, measures, loss, schedule, spacing, progress
        As for `train`.
    group : Group
        Of `process_group`.
    exchange : Exchange
        With as many workers as there are processes, such as ``local_steps(group.workers, 8)``. It
        looks at other workers by ``mean`` only.
    batch_size : int or BatchSizes
        Of all workers together; a multiple of their number.
    checkpoint : path-like, optional
        A file. If it exists, training goes on from there, else from the start; it is written now
        and then, by process 0, and all processes must be able to read it.
    checkpoint_every : int
        Steps from one writing to the next, at least 1.
    settings : mapping of str to what JSON knows, optional
        Further settings that must be the same in all processes, and for a checkpoint. Others are
        compared in any case: hyperparameters, data and initial parameters; what the first steps
        of the optimizer make of fixed numbers, in double precision; the loss's slope at two
        examples; the schedule's factors in all steps; the exchange's name; what the network
        makes of a ghost batch in double precision, if it can, and augmentation of 64 images.

    Returns
    -------
    DistributedRun

    Raises
    ------
    ValueError
        If an argument is outside its range, as for `train`; if processes have different settings;
        if the checkpoint is no complete one, or one of other settings.
    Failure
        If another process ends, or does not answer in time.
    """
    steps, settings = evaluation_steps(max_steps, spacing=spacing), _check_settings(settings)
    if not isinstance(group, Group):
        check.reject("group", group, "a Group, such as process_group gives")
    method = {"loss": loss, "schedule": schedule, "exchange": exchange}
    check_kinds(data=data, model=model, optimizer=optimizer, trials=trials, **method)
    if exchange.workers != group.workers:
        allowed = f"the number of processes, {group.workers}"
        check.reject("exchange.workers", exchange.workers, allowed)
    batch_size = check_batch_size(batch_size, max_steps, data, model, exchange)
    every = check.integer("checkpoint_every", checkpoint_every, 1)
    measured = Measured(trials, steps, *check_targets(None, measures, trials), None, exact=True)
    hyper = check_hyper(optimizer, schedule, trials, group.device, exchange)
    pieces = check_pieces(AT_ONCE, model)
    check_fit(data, model, loss, measured.losses)

    ours = {"batch_size": str(batch_size), "steps": steps.tolist(), "measures": [*measured.losses]}
    known = {"hyper": hyper, "max_steps": max_steps}
    ours = settings | ours | fingerprint(data, model, optimizer, trials, **method, **known)
    file = None if checkpoint is None else Checkpoint(checkpoint, group, ours)
    done, found = (0, None) if file is None else file.read(max_steps)
    group.require_same({**ours, "checkpoint": [checkpoint is not None, every, done]})

    data, held = data.to(group.device), Held(slice(group.rank, group.rank + 1), group.mean)
    program = Program(data, model, optimizer, pieces, **method, held=held)
    program.start(trials.seeds, hyper, batch_size)
    run = _Run(program, Evaluation(data, model, loss, pieces), measured, group)
    if found is not None:
        run.restore(file, done, found)
    stops = {*ours["steps"], *range(every, max_steps * (file is not None), every)}
    stops = sorted(step for step in stops if step > done or done == 0)
    bar = tqdm(total=max_steps, initial=done, disable=not progress or group.rank > 0)
    with bar, one_thread():
        for step in program.visit(stops, bar, done):
            if step in steps and not run.evaluate(step):
                break
            if file is not None and step % every == 0 < step < max_steps:
                file.write(step, program.rows, run.state())
        return run.results(batch_size)


def _check_settings(settings):
    """Return what JSON makes of further settings."""
    allowed = "a mapping of str to what JSON knows"
    if settings is not None and not isinstance(settings, Mapping):
        check.reject("settings", settings, allowed)
    try:
        return json.loads(json.dumps({**(settings or {})}))
    except (TypeError, ValueError):
        check.reject("settings", settings, allowed)


class _Run:
    """What the processes measure together.

    Parameters
    ----------
    program : Program
    evaluation : Evaluation
    measured : Measured
        Without a target.
    group : Group
    """

    def __init__(self, program, evaluation, measured, group):
        self.program, self.evaluation, self.measured = program, evaluation, measured
        self.group = group
        group.means = group.sent = 0
        self.means, self.sent = (np.zeros(len(measured.steps), dtype=np.int64) for _ in range(2))

    def evaluate(self, step):
        """Evaluate the trials that run; return whether any goes on."""
        column = np.searchsorted(self.measured.steps, step)
        self.means[column:], self.sent[column:] = self.group.means, self.group.sent
        with self.group.uncounted():
            running = self.measured.evaluate(step, self.program, self)
        if running.any() and not running.all():
            self.program.keep(np.flatnonzero(running))
        return running.any()

    def mean(self, *arguments):
        """Return what an `Evaluation` does, and the same in all processes: they end together."""
        found = np.stack(self.evaluation.mean(*arguments))
        return tuple(self.group.mean_of_numbers(found))

    def state(self):
        """Return what was measured, arrays by name."""
        measured = self.measured
        losses = {f"loss.{name}": values for name, values in measured.losses.items()}
        counted = np.array([self.group.means, self.group.sent])
        counts = {"means": self.means, "sent": self.sent, "counted": counted}
        running = np.zeros(len(measured.diverged), dtype=bool)
        running[measured.rows] = True
        found = {name: getattr(measured, name) for name in ("accuracy", "diverged")}
        return {**losses, **counts, **found, "running": running}

    def restore(self, file, step, arrays):
        """Go on from a checkpoint."""
        self.program.step(0)  # in which the state of an optimizer may grow
        state, measured = file.measured(arrays, self.state()), self.measured
        self.means, self.sent = state["means"], state["sent"]
        self.group.means, self.group.sent = state["counted"].tolist()
        measured.accuracy, measured.diverged = state["accuracy"], state["diverged"]
        measured.losses = {name: state[f"loss.{name}"] for name in measured.losses}
        measured.rows = np.flatnonzero(state["running"])
        if len(measured.rows) < len(measured.trials.seeds):
            self.program.keep(measured.rows)
        self.program.resume(step, file.rows(arrays, self.program.rows))

    def results(self, batch_size):
        """Return the `DistributedRun`."""
        with self.group.uncounted():
            params = take(self.program.readout(), slice(len(self.measured.rows)))
        found = self.measured.results(batch_size)
        return DistributedRun(found, params, self.means, self.sent)
