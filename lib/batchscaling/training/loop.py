"""Train many trials together: every trial is a row of every tensor.

All trials of one batch size take their steps in one program, by ``torch.func.vmap``. A trial that
has reached its targets or has diverged leaves the program, so the others never meet its numbers.
"""

from collections.abc import Iterable, Mapping
from functools import partial

import numpy as np
import torch
from tqdm import tqdm

from batchscaling import _validation as check
from batchscaling.training._process import kept_memory
from batchscaling.training._torch_state import undisturbed
from batchscaling.training.device import PRECISIONS, check_device, one_thread, products_in
from batchscaling.training.evaluation import MEASURES, Evaluation
from batchscaling.training.fit import check_fit
from batchscaling.training.kinds import check_kinds
from batchscaling.training.losses import cross_entropy, smoothed_cross_entropy
from batchscaling.training.optimizers.base import check_single
from batchscaling.training.program import Program
from batchscaling.training.rows import Pieces
from batchscaling.training.schedules import BatchSizes, constant
from batchscaling.training.trials import TrialResults

AT_ONCE = 2**15
"""Examples, over all trials, in one pass. It bounds memory; larger is not faster on a CPU."""

DIVERGED = 1e3
"""A trial has diverged when a loss is not finite, or above this many times itself at step 0."""


def evaluation_steps(max_steps, *, spacing=0.05):
    """Return the steps at which trials are evaluated: 0, `max_steps`, and a grid between.

    Neighbours differ by one step, or by the factor ``1 + spacing`` where that is more.

    Parameters
    ----------
    max_steps : int
        Last step, 1 or larger.
    spacing : float
        Positive.

    Returns
    -------
    numpy.ndarray of int

    Raises
    ------
    ValueError
        If an argument is outside its range.
    """
    max_steps = check.integer("max_steps", max_steps, 1)
    factor = 1 + check.positive("spacing", spacing)
    steps = [0]
    while steps[-1] < max_steps:
        steps.append(min(max(steps[-1] + 1, int(steps[-1] * factor)), max_steps))
    return np.array(steps)


@undisturbed
@kept_memory()
def train(
    data,
    model,
    optimizer,
    trials,
    *,
    batch_size,
    max_steps,
    target=None,
    measures=("validation",),
    objective=None,
    loss=cross_entropy,
    exchange=None,
    schedule=constant,
    label_smoothing=0.0,
    spacing=0.05,
    evaluate_at=None,
    patience=None,
    exact=True,
    device="cpu",
    precision="float32",
    compiled=False,
    at_once=AT_ONCE,
    progress=False,
):
    """Train all `trials` together, and evaluate them as they go.

    A trial ends when all its targets are reached, when it diverges, or at `max_steps`; the call
    ends with the last trial. A trial's numbers depend on its own seed and hyperparameters, not on
    the trials beside it: the same seed means the same initial parameters and the same order of
    the examples. Only when it ends depends on the others, and only if `patience` is given.
    What the process has set in torch, such as a default dtype, changes nothing and stays set.

    Parameters
    ----------
    data : Data
    model : Model
    optimizer : Optimizer
    trials : Trials
        With a column for every hyperparameter of `optimizer` and `schedule`. A further column
        ``decay``, from 0 to below 1, asks for a running average of the parameters:
        ``average' = decay * average + (1 - decay) * params'``, from the initial ones on.
    batch_size : int or BatchSizes
        From 1 to the number of training examples. Batches are drawn as `batches` describes.
    max_steps : int
        Steps after which every trial ends.
    target : float or mapping of str to float, optional
        Loss to reach, positive: of the validation set, or for each of several measures. Without
        it, trials run to `max_steps`.
    measures : sequence of str
        What to evaluate beside "validation": "training" is the loss of the first training
        examples, as many as there are for validation; "averaged" is the validation loss of the
        averaged parameters; "objective" is the excess of the whole training objective, and
        "averaged_objective" that of the averaged parameters. Measures with a target are evaluated
        in any case.
    objective : Objective, optional
        What the last two measures need.
    loss : Loss
        What is trained and evaluated: `cross_entropy`, `squared_error`, `bernoulli_cross_entropy`,
        or your own.
    exchange : Exchange, optional
        Lets simulated workers share each batch, such as `local_steps`. It divides every batch
        size, and slices tear no ghost batch.
    schedule : Schedule
        How the learning rate changes.
    label_smoothing : float
        From 0 to below 1: this part of a training label is spread evenly over all classes.
        Evaluations are without it.
    spacing : float
        Distance of evaluations, as `evaluation_steps` describes.
    evaluate_at : sequence of int, optional
        The steps at which to evaluate instead: increasing, the first 0, the last `max_steps`. They
        let programs of different batch sizes be evaluated after the same examples.
    patience : float, optional
        At least 1. A trial also ends once it has taken this many times the steps of the fastest
        trial to every target that it has not reached.
    exact : bool
        Whether every loss is that of all examples. Otherwise, after step 0, nothing is evaluated
        that does not bear on a target: the sum over the examples stops once it is above the
        target, and a loss is left out once its target is reached. The steps to the targets are
        the same, but for rounding, in less time. `losses` holds infinity for a sum that stopped,
        as it is above the target, and NaN for what was left out; `accuracy`, and whether a trial
        has diverged, go by the examples that were looked at. Losses of examples must not be
        negative then.
    device : str or torch.device
        Where to train.
    precision : {"float32", "tf32", "bf16"}
        Of the matrix products. Parameters are float32 always.
    compiled : bool
        Whether to run gradient and update through ``torch.compile``, which joins many small
        operations. It pays in programs of some minutes, of many trials of a small network on a
        CPU or any on a GPU: compiling takes up to half a minute, and needs a C++ compiler. Results
        differ by rounding.
    at_once : int
        Examples in one pass, over all trials; at least three ghost batches. It bounds memory:
        larger programs go in parts, of fewer trials first and then of smaller batches, whose
        gradients are added.
    progress : bool
        Whether to show a progress bar.

    Returns
    -------
    TrialResults

    Raises
    ------
    ValueError
        If an argument is outside its range, or `optimizer` a part of one, or a hyperparameter is
        missing or unknown, or without a target not everything is to be `exact`; if the parts of
        the data do not fit each other or the model; if steps cannot be `compiled` here.
    """
    steps = _check_steps(max_steps, spacing, evaluate_at)
    kinds = {"data": data, "model": model, "optimizer": optimizer, "trials": trials, "loss": loss}
    kinds |= {"exchange": exchange, "schedule": schedule, "objective": objective}
    check_kinds(**kinds, optional=("exchange", "objective"))
    batch_size = check_batch_size(batch_size, max_steps, data, model, exchange)
    measured = Measured(trials, steps, *check_targets(target, measures, trials), patience, exact)
    if objective is None and any(name.endswith("objective") for name in measured.losses):
        check.reject(
            "objective", objective, "an Objective for the measures that are named after it"
        )
    loss = _check_smoothing(loss, label_smoothing)
    check.one_of("precision", precision, PRECISIONS)
    device, compiled = check_device(device), check.flag("compiled", compiled)
    pieces = check_pieces(at_once, model)
    hyper = check_hyper(optimizer, schedule, trials, device, exchange)
    check_fit(data, model, loss, measured.losses)

    data = data.to(device)
    how = {"loss": loss, "schedule": schedule, "exchange": exchange, "compiled": compiled}
    program = Program(data, model, optimizer, pieces, **how)
    program.start(trials.seeds, hyper, batch_size)
    evaluation = Evaluation(data, model, loss, pieces, objective)
    bar = tqdm(total=steps[-1], desc=f"batch size {batch_size}", disable=not progress)
    with bar, one_thread(), products_in(precision, device):
        for step in program.visit(steps.tolist(), bar):
            running = measured.evaluate(step, program, evaluation)
            if not running.any():
                break
            if not running.all():
                program.keep(np.flatnonzero(running))
    return measured.results(batch_size)


class Measured:
    """What was measured on the trials of a program, and what ends a trial.

    A trial ends when it has reached all its targets, or has no patience for those that it has not,
    or has diverged.

    Attributes
    ----------
    losses : dict of str to numpy.ndarray, each of shape (trials, evaluations)
    accuracy : numpy.ndarray, shape (trials, evaluations)
    diverged : numpy.ndarray of bool, shape (trials,)
    rows : numpy.ndarray of int
        The trials that run.
    """

    def __init__(self, trials, steps, targets, measures, patience, exact):
        if not check.flag("exact", exact) and not targets:
            check.reject("exact", exact, "True without a target")
        self.patience = np.inf if patience is None else check.real("patience", patience, 1)
        self.trials, self.steps, self.targets, self.exact = trials, steps, targets, exact
        count = len(trials.seeds)
        self.rows = np.arange(count)
        self.losses = {name: np.full((count, len(steps)), np.nan) for name in measures}
        self.accuracy = np.full((count, len(steps)), np.nan)
        self.diverged = np.zeros(count, dtype=bool)
        self._waiting = {name: np.ones(count, dtype=bool) for name in targets}
        self._deadline = dict.fromkeys(targets, np.inf)

    def evaluate(self, step, program, evaluation):
        """Evaluate the trials that run, at a step; return which of them go on."""
        column = np.searchsorted(self.steps, step)
        for name in self.losses if self.exact or step == 0 else self.targets:
            needed = np.arange(len(self.rows))
            if not self.exact and step > 0:
                needed = np.flatnonzero(self._waiting[name][self.rows])
            if len(needed):
                self._measure(name, column, needed, program, evaluation)
        running = self._running(column, step)
        self.rows = self.rows[running]
        return running

    def results(self, batch_size):
        """Return the `TrialResults`."""
        found = self.losses, self.accuracy, self.diverged
        return TrialResults(batch_size, self.trials, self.steps, *found, self.targets)

    def _measure(self, name, column, needed, program, evaluation):
        goal = np.inf if self.exact or column == 0 else self.targets[name]
        params = program.readout(averaged=name.startswith("averaged"))
        trials = self.rows[needed]
        found = evaluation.mean(params, name, needed, goal)
        self.losses[name][trials, column], seen, right = found
        self.diverged[trials] |= ~(seen <= DIVERGED * self.losses[name][trials, 0])
        if name == "validation":
            self.accuracy[trials, column] = right

    def _running(self, column, step):
        """Return which of the trials that run go on."""
        rows = self.rows
        for name, goal in self.targets.items():
            reached = self.losses[name][rows, column] <= goal
            self._waiting[name][rows] &= ~reached
            if reached.any():
                self._deadline[name] = min(self._deadline[name], self.patience * step)
        waits = [self._waiting[name][rows] & (step < self._deadline[name]) for name in self.targets]
        return ~self.diverged[rows] & (np.any(waits, axis=0) if waits else True)


def check_pieces(at_once, model):
    """Return how a program of the model is cut; refuse fewer examples than three ghost batches."""
    return Pieces(check.integer("at_once", at_once, 3 * model.ghost_size), model.ghost_size)


def _check_steps(max_steps, spacing, evaluate_at):
    """Return the steps of evaluations."""
    steps = evaluation_steps(max_steps, spacing=spacing)
    return steps if evaluate_at is None else _check_evaluations(evaluate_at, max_steps)


def check_batch_size(batch_size, max_steps, data, model, exchange):
    """Return the batch size, where workers share it evenly and tear no ghost batch."""
    examples = len(data.train_inputs)
    if not isinstance(batch_size, BatchSizes):
        batch_size = check.integer("batch_size", batch_size, 1, examples)
        sizes = [batch_size]
    else:
        sizes = [size for _, size in batch_size.pieces]
        if batch_size.steps < max_steps or max(sizes) > examples:
            allowed = f"{max_steps} steps or more, of at most {examples} examples each"
            check.reject("batch_size", batch_size, allowed)
    if exchange is not None and any(s % (exchange.workers * model.ghost_size) for s in sizes):
        allowed = f"a multiple of {exchange.workers} workers times {model.ghost_size}"
        check.reject("batch_size", batch_size, f"{allowed}, the ghost batch")
    return batch_size


def _check_smoothing(loss, label_smoothing):
    """Return the loss of training, its labels smoothed."""
    label_smoothing = check.real("label_smoothing", label_smoothing, 0, 1, high_open=True)
    if not label_smoothing:
        return loss
    if loss is not cross_entropy:
        check.reject("label_smoothing", label_smoothing, "0 for a loss other than cross_entropy")
    return smoothed_cross_entropy(label_smoothing)


def _check_evaluations(evaluate_at, max_steps):
    steps = check.array("evaluate_at", evaluate_at)
    ends = steps[0] == 0 and steps[-1] == max_steps
    if not ends or (np.diff(steps) <= 0).any() or (steps % 1).any():
        check.reject("evaluate_at", evaluate_at, f"increasing integers, from 0 to {max_steps}")
    return steps.astype(int)


def check_targets(target, measures, trials):
    """Return the target of each measure, and all measures, the validation loss first."""
    if target is None:
        target = {}
    elif not isinstance(target, Mapping):
        target = {"validation": target}
    if isinstance(measures, str) or not isinstance(measures, Iterable):
        check.reject("measures", measures, f"a sequence of {', '.join(MEASURES)}")
    named = [check.one_of("measure", name, MEASURES) for name in (*target, *measures)]
    averaged = [name for name in named if name.startswith("averaged")]
    if averaged and "decay" not in trials.hyper:
        allowed = f'a column "decay" for the measure "{averaged[0]}"'
        check.reject("trials.hyper", sorted(trials.hyper), allowed)
    goals = {name: check.positive("target", value) for name, value in target.items()}
    return goals, list(dict.fromkeys(["validation", *named]))


def check_complete(optimizer):
    """Refuse a part of an optimizer, which has no rate."""
    if "lr" not in optimizer.hyper:
        allowed = 'a complete optimizer, with "lr", or a chain of parts and one such as sgd'
        check.reject("optimizer", f"a part, with {sorted(optimizer.hyper)}", allowed)


def check_hyper(optimizer, schedule, trials, device, exchange=None):
    """Return the hyperparameters as float32 tensors, each value checked by its owner."""
    check_complete(optimizer)
    rules = {}
    for part in (optimizer, schedule, *[exchange] * (exchange is not None)):
        for name, rule in part.hyper.items():
            if rules.setdefault(name, rule) != rule:
                found = f"with {name!r} of another kind than another part"
                check.reject("optimizer, schedule or exchange", found, "a name of its own")
    if "decay" in trials.hyper:
        rules.setdefault("decay", partial(check.real, low=0, high=1, high_open=True))
    if set(trials.hyper) != set(rules):
        check.reject("trials.hyper", sorted(trials.hyper), f"exactly {sorted(rules)}")
    tensors = {}
    for name, rule in rules.items():
        values = check.array(name, trials.hyper[name])
        if values.shape != trials.seeds.shape:
            check.reject(name, f"an array of shape {values.shape}", f"shape {trials.seeds.shape}")
        for value in np.unique(values).tolist():
            check_single(name, value, rule)
        tensors[name] = torch.tensor(values, dtype=torch.float32, device=device)
    return tensors
