"""Train many trials together: every trial is a row of every tensor.

All trials of one batch size take their steps in one program, by ``torch.func.vmap``. A trial that
has reached its targets or has diverged leaves the program, so the others never meet its numbers.
"""

from collections.abc import Iterable, Mapping
from contextlib import contextmanager, nullcontext
from functools import partial
from itertools import pairwise

import numpy as np
import torch
from torch.func import vmap
from torch.utils._pytree import tree_leaves, tree_map
from tqdm import tqdm

from batchscaling._validation import array, integer, one_of, positive, real, reject
from batchscaling.training._process import kept_memory
from batchscaling.training._torch_state import matrix_products, undisturbed
from batchscaling.training.data import batches, generator
from batchscaling.training.fit import check_fit
from batchscaling.training.optimizers.base import check_single
from batchscaling.training.schedules import BatchSizes, constant
from batchscaling.training.trials import TrialResults

AT_ONCE = 2**15
"""Examples, over all trials, in one pass. It bounds memory; larger is not faster on a CPU."""

DIVERGED = 1e3
"""A trial has diverged when a loss is not finite, or above this many times itself at step 0."""

MEASURES = ("validation", "training", "averaged", "objective", "averaged_objective")
PRECISIONS = ("float32", "tf32", "bf16")
_LOOKS = (6, 3, 2, 1)  # a sum that may stop does so after this part of the examples
_STATISTICS = 512  # training examples that give the statistics of normalised layers
_AHEAD = 64  # steps whose batches are drawn at once


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
    max_steps = integer("max_steps", max_steps, 1)
    factor = 1 + positive("spacing", spacing)
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
        the same, but for rounding, in less time. `losses` holds a lower bound, above the target,
        for a sum that stopped, and NaN for what was left out; `accuracy`, and whether a trial has
        diverged, go by the examples that were looked at.
    device : str or torch.device
        Where to train.
    precision : {"float32", "tf32", "bf16"}
        Of the matrix products. Parameters are float32 always.
    compiled : bool
        Whether to run network and optimizer through ``torch.compile``, which joins many small
        operations. It pays on a GPU, in programs of more than a minute: compiling takes a while,
        and needs a C++ compiler. Results differ by rounding.
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
        If an argument is outside its range, or a hyperparameter is missing or unknown, or without
        a target not everything is to be `exact`; if the parts of the data do not fit each other or
        the model; if steps cannot be `compiled` here.
    """
    examples = len(data.train_inputs)
    steps = evaluation_steps(max_steps, spacing=spacing)
    if evaluate_at is not None:
        steps = _check_evaluations(evaluate_at, max_steps)
    if not isinstance(batch_size, BatchSizes):
        batch_size = integer("batch_size", batch_size, 1, examples)
    elif batch_size.steps < max_steps or max(s for _, s in batch_size.pieces) > examples:
        allowed = f"{max_steps} steps or more, of at most {examples} examples each"
        reject("batch_size", batch_size, allowed)
    targets, measures = _check_targets(target, measures, trials)
    if objective is None and any(name.endswith("objective") for name in measures):
        reject("objective", objective, "an Objective for the measures that are named after it")
    if not exact and not targets:
        reject("exact", exact, "True without a target")
    patience = np.inf if patience is None else real("patience", patience, 1)
    real("label_smoothing", label_smoothing, 0, 1, high_open=True)
    one_of("precision", precision, PRECISIONS)
    device = _check_device(device)
    at_once = integer("at_once", at_once, 3 * model.ghost_size)
    hyper = _check_hyper(optimizer, schedule, trials, device)
    check_fit(data, model, measures)

    data = data.to(device)
    program = _Program(data, model, optimizer, label_smoothing, at_once, compiled, objective)
    rows = _in_company(np.arange(len(trials.seeds)))
    program.start(trials.seeds[rows], _take(hyper, rows))
    streams = {seed: _Stream(seed, data, batch_size) for seed in trials.seeds.tolist()}
    losses = {name: np.full((len(trials.seeds), len(steps)), np.nan) for name in measures}
    accuracy = losses["validation"].copy()
    diverged = np.zeros(len(trials.seeds), dtype=bool)
    waiting = {name: np.ones(len(trials.seeds), dtype=bool) for name in targets}
    deadline = dict.fromkeys(targets, np.inf)
    now = 0
    bar = tqdm(total=steps[-1], desc=f"batch size {batch_size}", disable=not progress)
    with bar, _one_thread(), _precision(precision, device):
        for column, end in enumerate(steps.tolist()):
            while now < end:
                ahead = min(end - now, _AHEAD)
                program.advance(_draw(streams, trials.seeds[rows], ahead), now, schedule)
                now += ahead
                bar.update(ahead)
            for name in measures if exact or end == 0 else targets:
                looked, goal = np.arange(len(rows)), np.inf
                if not exact and end > 0:
                    looked, goal = np.flatnonzero(waiting[name][rows]), targets[name]
                    if not len(looked):
                        continue
                which = rows[looked]
                losses[name][which, column], seen, right = program.evaluate(name, looked, goal)
                diverged[which] |= ~(seen <= DIVERGED * losses[name][which, 0])
                if name == "validation":
                    accuracy[which, column] = right
            for name, goal in targets.items():
                reached = losses[name][rows, column] <= goal
                waiting[name][rows] &= ~reached
                if reached.any():
                    deadline[name] = min(deadline[name], patience * end)
            open_ = [waiting[name][rows] & (end < deadline[name]) for name in targets]
            running = ~diverged[rows] & (np.any(open_, axis=0) if targets else True)
            if not running.any():
                break
            if not running.all():
                keep = _in_company(np.flatnonzero(running))
                rows = rows[keep]
                program.keep(keep)
    return TrialResults(batch_size, trials, steps, losses, accuracy, diverged, targets)


class _Program:
    """The rows that are still running, and how they advance and are evaluated.

    Rows go through in parts of at least two, of at most `at_once` examples. A batch that is too
    large for three rows goes in parts too. Their size does not depend on the number of rows: sums
    in another order would differ in their last bits.
    """

    def __init__(self, data, model, optimizer, label_smoothing, at_once, compiled, objective=None):
        self.data, self.model, self.objective = data, model, objective
        self.at_once = at_once
        self.device = data.train_inputs.device
        self.init = vmap(optimizer.init)
        self.update = vmap(optimizer.update)
        self.apply = vmap(model.apply)
        if compiled:
            torch.compiler.reset()  # it keeps a few versions of a function only, then gives up
            # The number of rows falls as trials end: one program should serve all numbers.
            self.update = _compiled(self.update)
            self.apply = _compiled(self.apply)
        self.label_smoothing = label_smoothing

    def start(self, seeds, hyper):
        """Initialise one row for each seed."""
        initial = [self.model.init(generator(seed, "init")) for seed in seeds.tolist()]
        params = {name: torch.stack([p[name] for p in initial]) for name in initial[0]}
        params = {name: p.to(self.device) for name, p in params.items()}
        average = tree_map(torch.clone, params) if "decay" in hyper else {}
        self.rows = params, self.init(params), average, hyper

    def keep(self, rows):
        """Go on with some of the rows only."""
        self.rows = _take(self.rows, torch.as_tensor(rows, device=self.device))

    def advance(self, drawn, first, schedule):
        """Take a step for each batch that was drawn; `first` is the number of the first one."""
        which, drawn = drawn
        hyper = self.rows[3]
        for step, batch in enumerate(drawn, first):
            now = {**hyper, "lr": hyper["lr"] * schedule.factor(step, hyper)}
            batch = tree_map(lambda tensor: tensor.to(self.device)[which], batch)
            rows = self.rows[:3], now, batch
            parts = self._parts(len(which), self._micro(tree_leaves(batch)[0].shape[1]))
            done = [self._step(*_take(rows, part)) for part in parts]
            params, state, average = done[0] if len(done) == 1 else _join(done)
            self.rows = params, state, average, hyper

    def _step(self, rows, hyper, batch):
        params, state, average = rows
        grads = self._gradients(params, *tree_leaves(batch))
        with torch.no_grad():
            updates, state = self.update(grads, state, params, hyper)
            for name, p in params.items():
                p.add_(updates[name])  # in place: new memory costs a CPU more than the sum
            if self.model.constrain is not None:
                params = vmap(self.model.constrain)(params)
            if average:
                rest = 1 - hyper["decay"]
                average = {
                    name: torch.lerp(old, params[name], _column(rest, old))
                    for name, old in average.items()
                }
        return params, state, average

    def _gradients(self, params, index, changes=None):
        """Return every row's gradient of its mean loss, zero where no label counts.

        Rows do not meet, so one backward pass gives each row its own gradient.
        """
        leaves = {name: p.detach().requires_grad_() for name, p in params.items()}
        labels = self.data.train_labels[index]
        counted = (labels >= 0).flatten(1).sum(1).clamp_(min=1)
        total = None
        size = self._micro(index.shape[1])
        for first in range(0, index.shape[1], size):
            part = slice(first, first + size)
            inputs = self.data.train_inputs[index[:, part]]
            if changes is not None:
                inputs = vmap(self.data.augment.apply)(inputs, changes[:, part])
            outputs = self.apply(leaves, inputs).float()
            slope = _slope(outputs.detach(), labels[:, part], self.label_smoothing)
            slope /= _column(counted, slope)
            grads = torch.autograd.grad(outputs, list(leaves.values()), slope)
            total = grads if total is None else [a + b for a, b in zip(total, grads, strict=True)]
        return dict(zip(leaves, total, strict=True))

    @torch.no_grad()
    def evaluate(self, measure, rows, goal=np.inf):
        """Return the mean loss of some rows, that of the examples looked at, and their accuracy.

        The sums of a row stop when its mean loss is above a finite `goal`, whatever the other
        examples are: the first of the three is a lower bound then, otherwise equal to the second.
        Each is of shape (rows,).
        """
        data, params = self.data, self.rows[2 if measure.startswith("averaged") else 0]
        inputs, labels = self._examples(measure)
        beside = torch.zeros(len(tree_leaves(params)[0]), dtype=torch.double, device=self.device)
        if measure.endswith("objective"):
            beside = self.objective.beside_loss(params)
        counted = (labels >= 0).reshape(len(labels), -1).sum(1).cumsum(0).double()
        parts = _LOOKS if goal < np.inf else (1,)
        looks = sorted({0, *(-(-len(inputs) // part) for part in parts)})
        size = self._micro(max(end - first for first, end in pairwise(looks)))
        shown = data.train_inputs[:0]
        if self.model.statistics is not None:
            shown = data.train_inputs[:_STATISTICS]
        count = len(tree_leaves(params)[0])
        sums = counted.new_zeros(3, count)  # of losses, of right labels, of labels
        places = torch.as_tensor(_in_company(rows), device=self.device)
        for part in self._parts(len(places), max(size, len(shown))):
            held = places[part]
            some = (_take(params, part if len(rows) == count else held),)
            if self.model.statistics is not None:
                some += (vmap(partial(self.model.statistics, inputs=shown))(*some),)
            for first, end in pairwise(looks):
                each = (whole[first:end].split(size) for whole in (inputs, labels))
                for pair in zip(*each, strict=True):
                    sums[:2, held] += self._scores(some, *pair)
                sums[2, held] = counted[end - 1]
                below = (sums[0, held] <= (goal - beside[held]) * counted[-1]).cpu().numpy()
                if not below.any():
                    break
                if not below.all():
                    keep = torch.as_tensor(_in_company(np.flatnonzero(below)), device=self.device)
                    held, some = held[keep], _take(some, keep)
        rows = torch.as_tensor(rows, device=self.device)
        loss, right, looked = sums[:, rows]
        found = loss / counted[-1] + beside[rows], loss / looked + beside[rows], right / looked
        return tuple(numbers.cpu().numpy() for numbers in found)

    def _examples(self, measure):
        """Return the inputs and labels that a measure looks at."""
        data = self.data
        if measure in ("validation", "averaged"):
            return data.validation_inputs, data.validation_labels
        first = len(data.validation_labels) if measure == "training" else len(data.train_labels)
        return data.train_inputs[:first], data.train_labels[:first]

    def _scores(self, rows, inputs, labels):
        """Return the sum of losses and the number of correct labels, shape (2, rows)."""

        def scores(params, *statistics):
            outputs = self.model.apply(params, inputs, *statistics)
            loss, right = _cross_entropy(outputs.float(), labels)
            return torch.stack([loss.sum(), right.sum()])

        return vmap(scores, out_dims=1)(*rows)

    def _micro(self, batch_size):
        """Return the size of a batch's parts, which tear no ghost batch."""
        ghost = self.model.ghost_size
        return min(batch_size, self.at_once // 3 // ghost * ghost)

    def _parts(self, rows, examples):
        """Return slices of rows with at most `at_once` examples, none of a single row.

        The examples of normalised layers' statistics cannot go in parts. Where even those of three
        rows are more than `at_once`, they go together: without gradients they need little memory.
        """
        parts = -(-rows // max(self.at_once // examples, 3))
        ends = [rows * i // parts for i in range(parts + 1)]
        return [slice(*pair) for pair in pairwise(ends)]


class _Stream:
    """The batches of one seed, and the changes of their examples."""

    def __init__(self, seed, data, batch_size):
        sizes = batch_size
        if isinstance(batch_size, BatchSizes):
            sizes = (size for steps, size in batch_size.pieces for _ in range(steps))
        self.batches = batches(seed, len(data.train_inputs), sizes)
        self.augment, self.rng = data.augment, generator(seed, "augment")

    def draw(self):
        """Return the next batch's indices, and the changes if the data are augmented."""
        index = next(self.batches)
        return index if self.augment is None else (index, self.augment.draw(self.rng, len(index)))


def _draw(streams, seeds, steps):
    """Return the next batches, which rows of one seed share.

    Returns which of the distinct seeds a row has, and for each step what `_Stream.draw` returns,
    with the seeds as its first axis.
    """
    distinct = list(dict.fromkeys(seeds.tolist()))
    which = torch.tensor([distinct.index(seed) for seed in seeds.tolist()])
    drawn = [[streams[seed].draw() for seed in distinct] for _ in range(steps)]
    return which, [tree_map(lambda *parts: torch.stack(parts), *batch) for batch in drawn]


def _slope(outputs, labels, smoothing):
    """Return the derivative of the sum of all cross-entropies by the outputs: softmax - label."""
    slope = (outputs - outputs.logsumexp(-1, keepdim=True)).exp_()
    if smoothing:
        slope -= smoothing / outputs.shape[-1]
    label = labels.clamp(min=0)[..., None]
    slope.scatter_add_(-1, label, torch.full_like(slope[..., :1], smoothing - 1))
    return slope.mul_((labels >= 0)[..., None])


def _cross_entropy(outputs, labels):
    """Return -log softmax(outputs)[label], and whether no other output is as large.

    Zeros for label -1. Three times as fast here as torch's own under `vmap`.
    """
    counted = labels >= 0
    picked = outputs.gather(-1, labels.clamp(min=0)[..., None])
    right = ((outputs >= picked).sum(-1) == 1) & counted
    return (outputs.logsumexp(-1) - picked[..., 0]) * counted, right.to(outputs.dtype)


@contextmanager
def _one_thread():
    """Keep torch on one thread.

    The operations are many and small: more threads would mostly wait for each other, and for very
    long where other programs use the cores. It also makes results independent of their number.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def _precision(precision, device):
    cast = nullcontext()
    if precision == "bf16":
        # The cache would keep a copy of the parameters of every step.
        cast = torch.autocast(device.type, torch.bfloat16, cache_enabled=False)
    with matrix_products(tf32=precision == "tf32"), cast:
        yield


def _compiled(function):
    """Return the function through ``torch.compile``; an error says that it cannot be compiled."""
    try:
        run = torch.compile(function, dynamic=True)
    except RuntimeError as error:  # as in a version of Python that torch cannot compile
        _not_compiled(error)

    def attempt(*args):
        try:
            return run(*args)
        except torch._dynamo.exc.BackendCompilerFailed as error:
            _not_compiled(error)

    return attempt


def _not_compiled(error):
    reject("compiled", True, f"False where torch cannot compile; it says: {error}")


def _check_device(device):
    allowed = "the name of a device that torch finds here, such as 'cpu'"
    try:
        torch.empty(0, device=device)
    except (AssertionError, RuntimeError, TypeError):
        reject("device", device, allowed)
    return torch.device(device)


def _check_evaluations(evaluate_at, max_steps):
    steps = array("evaluate_at", evaluate_at)
    ends = steps[0] == 0 and steps[-1] == max_steps
    if not ends or (np.diff(steps) <= 0).any() or (steps % 1).any():
        reject("evaluate_at", evaluate_at, f"increasing integers, from 0 to {max_steps}")
    return steps.astype(int)


def _check_targets(target, measures, trials):
    """Return the target of each measure, and all measures, the validation loss first."""
    if target is None:
        target = {}
    elif not isinstance(target, Mapping):
        target = {"validation": target}
    if isinstance(measures, str) or not isinstance(measures, Iterable):
        reject("measures", measures, f"a sequence of {', '.join(MEASURES)}")
    named = [one_of("measure", name, MEASURES) for name in (*target, *measures)]
    averaged = [name for name in named if name.startswith("averaged")]
    if averaged and "decay" not in trials.hyper:
        allowed = f'a column "decay" for the measure "{averaged[0]}"'
        reject("trials.hyper", sorted(trials.hyper), allowed)
    goals = {name: positive("target", value) for name, value in target.items()}
    return goals, list(dict.fromkeys(["validation", *named]))


def _check_hyper(optimizer, schedule, trials, device):
    """Return the hyperparameters as float32 tensors, each value checked by its owner."""
    checks = {**optimizer.hyper, **schedule.hyper}
    if "decay" in trials.hyper:
        checks.setdefault("decay", partial(real, low=0, high=1, high_open=True))
    if set(trials.hyper) != set(checks):
        reject("trials.hyper", sorted(trials.hyper), f"exactly {sorted(checks)}")
    tensors = {}
    for name, check in checks.items():
        values = array(name, trials.hyper[name])
        if values.shape != trials.seeds.shape:
            reject(name, f"an array of shape {values.shape}", f"shape {trials.seeds.shape}")
        for value in np.unique(values).tolist():
            check_single(name, value, check)
        tensors[name] = torch.tensor(values, dtype=torch.float32, device=device)
    return tensors


def _take(tree, rows):
    return tree_map(lambda tensor: tensor[rows], tree)


def _join(trees):
    return tree_map(lambda *parts: torch.cat(parts), *trees)


def _column(numbers, like):
    """Return one number for each row, with the axes of `like`."""
    return numbers.reshape(-1, *[1] * (like.ndim - 1))


def _in_company(rows):
    """Return `rows`, a lone one twice.

    BLAS splits a single matrix product otherwise than each of many: the last bits of a lone row
    would differ from those of the same row among others.
    """
    return rows if len(rows) > 1 else rows.repeat(2)
