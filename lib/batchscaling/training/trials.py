"""Trials that advance together: every trial is a row of every tensor.

A trial is one training run: a seed and a value of every hyperparameter. All trials of one batch
size take their steps in one program, by ``torch.func.vmap``. A trial that has reached the target
or has diverged leaves the program, so the others never meet its numbers.
"""

from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import pairwise, product

import numpy as np
import torch
from torch.func import grad, vmap
from tqdm import tqdm

from batchscaling._validation import array, integer, positive, reject
from batchscaling.training.curves import first_crossing
from batchscaling.training.data import batches, generator

PASS = 2**15
"""Training examples, over all trials, in one pass. It bounds memory; larger is not faster."""

DIVERGED = 1e3
"""A trial has diverged when its loss is not finite, or above this many times its loss at step 0."""


@dataclass(frozen=True)
class Trials:
    """A list of trials, one entry of every array a trial.

    Attributes
    ----------
    seeds : numpy.ndarray of int, shape (trials,)
        Each seed fixes its trial's initial parameters and data order.
    hyper : mapping of str to numpy.ndarray, each of shape (trials,)
        The hyperparameters.
    """

    seeds: np.ndarray
    hyper: Mapping[str, np.ndarray]


@dataclass(frozen=True)
class TrialResults:
    """What `train` measured.

    Attributes
    ----------
    batch_size : int
    trials : Trials
    steps : numpy.ndarray of int, shape (evaluations,)
        Steps at which the trials were evaluated; the first is 0.
    loss : numpy.ndarray, shape (trials, evaluations)
        Mean validation cross-entropy; NaN after a trial's end.
    accuracy : numpy.ndarray, shape (trials, evaluations)
        Part of the validation examples classified correctly; NaN after a trial's end.
    steps_to_target : numpy.ndarray of float, shape (trials,)
        First of `steps` at which the loss is at or below the target; ``inf`` where there is none.
    diverged : numpy.ndarray of bool, shape (trials,)
        Whether the loss was not finite, or above `DIVERGED` times its value at step 0.
    """

    batch_size: int
    trials: Trials
    steps: np.ndarray
    loss: np.ndarray
    accuracy: np.ndarray
    steps_to_target: np.ndarray
    diverged: np.ndarray


@dataclass(frozen=True)
class Summary:
    """Steps to the target for every setting of the hyperparameters, over the seeds.

    Attributes
    ----------
    batch_size : int
    hyper : mapping of str to numpy.ndarray, each of shape (settings,)
    median, low, high : numpy.ndarray, shape (settings,)
        Median, fewest and most steps over the seeds; ``inf`` for a trial that never arrived.
    best : int or None
        The setting with the fewest median steps; None if no setting's median is finite. Among
        equals it is the one with the fewest mean steps, then the first.
    at_border : mapping of str to bool, or None
        For each hyperparameter with more than one value: whether the best setting's value is the
        smallest or largest that was tried. Then the true best may lie outside. None if `best` is.
    """

    batch_size: int
    hyper: Mapping[str, np.ndarray]
    median: np.ndarray
    low: np.ndarray
    high: np.ndarray
    best: int | None
    at_border: Mapping[str, bool] | None


def grid(seeds, **hyper):
    """Return the trials of a full grid: every seed with every combination of hyperparameters.

    Parameters
    ----------
    seeds : sequence of int
        Zero or larger, each once.
    **hyper : number or sequence of numbers
        Values of each hyperparameter, such as ``lr=[0.1, 0.2], momentum=0.9``.

    Returns
    -------
    Trials
        The seed changes fastest, the first hyperparameter slowest.

    Raises
    ------
    ValueError
        If `seeds` or a list of values is empty, or holds a value that is not allowed.
    """
    seeds = [integer(f"seeds[{i}]", seed, 0) for i, seed in enumerate(np.atleast_1d(seeds))]
    if not seeds or len(set(seeds)) < len(seeds):
        reject("seeds", seeds, "a non-empty sequence of different non-negative integers")
    values = [array(name, np.atleast_1d(value)) for name, value in hyper.items()]
    *columns, seeds = zip(*product(*values, seeds), strict=True)
    columns = {name: np.array(column) for name, column in zip(hyper, columns, strict=True)}
    return Trials(np.array(seeds), columns)


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


def train_step(model, optimizer, params, state, hyper, inputs, labels):
    """Advance one trial by one step on the mean cross-entropy of one batch.

    Parameters
    ----------
    model : Model
    optimizer : Optimizer
    params, state : dict of torch.Tensor
        One trial's parameters, and its state as `optimizer` keeps it.
    hyper : dict of torch.Tensor
        One trial's hyperparameters, as scalars.
    inputs, labels : torch.Tensor, shapes (batch_size, features) and (batch_size,)

    Returns
    -------
    params, state : dict of torch.Tensor
    """

    def loss(params):
        return _cross_entropy(model.apply(params, inputs), labels)

    updates, state = optimizer.update(grad(loss)(params), state, params, hyper)
    return {name: params[name] + updates[name] for name in params}, state


def train(
    data,
    model,
    optimizer,
    trials,
    *,
    batch_size,
    max_steps,
    target=None,
    spacing=0.05,
    progress=False,
):
    """Train all `trials` together, and evaluate them on the validation set.

    A trial ends when its validation loss is at or below `target`, when it diverges, or at
    `max_steps`; the call ends with the last trial. A trial's numbers depend on its own seed and
    hyperparameters, not on the trials beside it: the same seed means the same initial parameters
    and the same order of the examples.

    Parameters
    ----------
    data : Data
    model : Model
    optimizer : Optimizer
    trials : Trials
        With a column for every hyperparameter of `optimizer`, and no other.
    batch_size : int
        From 1 to the number of training examples. Batches are drawn as `batches` describes.
    max_steps : int
        Steps after which every trial ends.
    target : float, optional
        Validation loss to reach, positive. Without it, trials run to `max_steps`.
    spacing : float
        Distance of evaluations, as `evaluation_steps` describes.
    progress : bool
        Whether to show a progress bar.

    Returns
    -------
    TrialResults

    Raises
    ------
    ValueError
        If an argument is outside its range, or a hyperparameter is missing or unknown.
    """
    examples = len(data.train_inputs)
    batch_size = integer("batch_size", batch_size, 1, examples)
    goal = -np.inf if target is None else positive("target", target)
    steps = evaluation_steps(max_steps, spacing=spacing)
    hyper = _check_hyper(optimizer, trials)

    advance = partial(_advance, vmap(partial(train_step, model, optimizer)), data)
    evaluate = vmap(partial(_evaluate, model, data))
    streams = {seed: batches(seed, examples, batch_size) for seed in trials.seeds.tolist()}
    rows = _in_company(np.arange(len(trials.seeds)))
    params = _stack([model.init(generator(seed, "init")) for seed in trials.seeds[rows].tolist()])
    state = optimizer.init(params)
    hyper = _take(hyper, rows)

    loss = np.full((len(trials.seeds), len(steps)), np.nan)
    accuracy = loss.copy()
    diverged = np.zeros(len(trials.seeds), dtype=bool)
    now = 0
    bar = tqdm(total=steps[-1], desc=f"batch size {batch_size}", disable=not progress)
    with bar, _one_thread():
        for column, end in enumerate(steps.tolist()):
            seeds = trials.seeds[rows].tolist()
            for _ in range(now, end):
                batch = {seed: next(streams[seed]) for seed in set(seeds)}
                index = torch.stack([batch[seed] for seed in seeds])
                params, state = advance(params, state, hyper, index)
            bar.update(end - now)
            now = end
            loss[rows, column], accuracy[rows, column] = evaluate(params)
            diverged[rows] = ~(loss[rows, column] <= DIVERGED * loss[rows, 0])
            running = ~diverged[rows] & (loss[rows, column] > goal)
            if not running.any():
                break
            if not running.all():
                keep = _in_company(np.flatnonzero(running))
                rows, hyper = rows[keep], _take(hyper, keep)
                params, state = _take(params, keep), _take(state, keep)

    first = np.full(len(loss), np.inf) if target is None else first_crossing(steps, loss, target)
    return TrialResults(batch_size, trials, steps, loss, accuracy, first, diverged)


def summarise(results):
    """Return the steps to the target of every setting over the seeds, and the best setting.

    Parameters
    ----------
    results : TrialResults
        Of `train` with a target.

    Returns
    -------
    Summary
    """
    hyper = results.trials.hyper
    columns = np.column_stack(list(hyper.values()))
    settings, setting = np.unique(columns, axis=0, return_inverse=True)
    steps = [results.steps_to_target[setting.ravel() == i] for i in range(len(settings))]
    median = np.array([np.median(s) for s in steps])
    best = int(np.lexsort(([np.mean(s) for s in steps], median))[0])
    found = np.isfinite(median[best])
    ends = zip(settings[best], settings.min(axis=0), settings.max(axis=0), strict=True)
    border = [bool(low < high and value in (low, high)) for value, low, high in ends]
    return Summary(
        batch_size=results.batch_size,
        hyper=dict(zip(hyper, settings.T, strict=True)),
        median=median,
        low=np.array([s.min() for s in steps]),
        high=np.array([s.max() for s in steps]),
        best=best if found else None,
        at_border=dict(zip(hyper, border, strict=True)) if found else None,
    )


def _advance(step, data, params, state, hyper, index):
    """Advance all rows by one step, in as many parts as `PASS` asks for, none of a single row."""
    parts = min(-(-index.numel() // PASS), len(index) // 2)
    ends = [len(index) * i // parts for i in range(parts + 1)]
    done = []
    for part in (slice(*pair) for pair in pairwise(ends)):
        rows = [_take(tensors, part) for tensors in (params, state, hyper)]
        done.append(step(*rows, data.train_inputs[index[part]], data.train_labels[index[part]]))
    return done[0] if parts == 1 else tuple(map(_join, zip(*done, strict=True)))


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


def _check_hyper(optimizer, trials):
    """Return the hyperparameters as float32 tensors, each value checked by the optimizer."""
    if set(trials.hyper) != set(optimizer.hyper):
        reject("trials.hyper", sorted(trials.hyper), f"exactly {sorted(optimizer.hyper)}")
    tensors = {}
    for name, check in optimizer.hyper.items():
        values = array(name, trials.hyper[name])
        if values.shape != trials.seeds.shape:
            reject(name, f"an array of shape {values.shape}", f"shape {trials.seeds.shape}")
        for value in np.unique(values):
            check(name, value)
        tensors[name] = torch.tensor(values, dtype=torch.float32)
    return tensors


def _stack(dicts):
    return {name: torch.stack([d[name] for d in dicts]) for name in dicts[0]}


def _join(dicts):
    return {name: torch.cat([d[name] for d in dicts]) for name in dicts[0]}


def _take(tensors, rows):
    return {name: tensor[rows] for name, tensor in tensors.items()}


def _evaluate(model, data, params):
    outputs = model.apply(params, data.validation_inputs)
    correct = outputs.argmax(dim=1) == data.validation_labels
    return _cross_entropy(outputs, data.validation_labels), correct.float().mean()


def _cross_entropy(outputs, labels):
    """Return the mean of -log softmax(outputs)[label]; three times as fast here as torch's own."""
    return (outputs.logsumexp(dim=1) - outputs.gather(1, labels[:, None])[:, 0]).mean()


def _in_company(rows):
    """Return `rows`, a lone one twice.

    BLAS splits a single matrix product otherwise than each of many: the last bits of a lone row
    would differ from those of the same row among others.
    """
    return rows if len(rows) > 1 else rows.repeat(2)
