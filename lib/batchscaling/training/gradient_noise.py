"""Gradient noise of real networks during training; `batchscaling.curvature` has it at a point.

What is measured here goes to the estimators of `batchscaling.noise`.
"""

from dataclasses import dataclass

import numpy as np
import torch

from batchscaling._validation import integer, reject
from batchscaling.noise import two_batch_estimates
from batchscaling.training._process import kept_memory
from batchscaling.training._torch_state import undisturbed
from batchscaling.training.fit import check_fit
from batchscaling.training.loop import (
    AT_ONCE,
    _check_device,
    _check_hyper,
    _draw,
    _in_company,
    _one_thread,
    _Program,
    _Stream,
    _take,
    evaluation_steps,
)
from batchscaling.training.schedules import constant


@dataclass(frozen=True)
class NoiseHistory:
    """What `measure_noise` recorded.

    Attributes
    ----------
    small, large : int
        The two batch sizes of a step: that of its parts, and the whole.
    small_norm, large_norm : numpy.ndarray, shape (trials, max_steps)
        Squared norms of the gradients in each step, before it was taken: the mean over the parts,
        and that of the whole batch.
    steps : numpy.ndarray of int, shape (evaluations,)
        Steps at which the trials were evaluated; the first is 0.
    loss, accuracy : numpy.ndarray, shape (trials, evaluations)
        On the validation set.
    observed : list
        What the caller's function returned, one entry an evaluation; empty without one.
    """

    small: int
    large: int
    small_norm: np.ndarray
    large_norm: np.ndarray
    steps: np.ndarray
    loss: np.ndarray
    accuracy: np.ndarray
    observed: list

    def estimates(self):
        """Return unbiased estimates of trace and signal, each of shape (trials, max_steps).

        They go to `RunningNoise` step by step, or to `ratio_estimate` over a range of steps.
        """
        return two_batch_estimates(self.small_norm, self.large_norm, self.small, self.large)


@undisturbed
@kept_memory()
def measure_noise(
    data,
    model,
    optimizer,
    trials,
    *,
    batch_size,
    max_steps,
    parts=2,
    schedule=constant,
    spacing=0.05,
    observe=None,
    device="cpu",
    at_once=AT_ONCE,
):
    """Train all `trials` to the end and record the norms of their gradients at two batch sizes.

    The steps are those of `train`, up to rounding. Each batch is cut into parts; their gradients
    have the small batch size, and their mean, which the optimizer takes, has the large one. So the
    measurement costs no further gradients.

    Parameters
    ----------
    data : Data
        Every position of the labels should count, so that parts weigh alike. The gradient of a
        part in which none counts is zero.
    model, optimizer, trials, max_steps, schedule, spacing, device, at_once
        As for `train`.
    batch_size : int
        At least 2.
    parts : int
        At least 2; it divides `batch_size`, and ghost batches must not be torn.
    observe : callable, optional
        ``observe(step, params)`` is called at each evaluation with the parameters of all trials, a
        dict of tensors whose first axis is the trial. What it returns is kept.

    Returns
    -------
    NoiseHistory

    Raises
    ------
    ValueError
        If an argument is outside its range, or the parts of the data do not fit each other or the
        model.
    """
    steps = evaluation_steps(max_steps, spacing=spacing)
    batch_size = integer("batch_size", batch_size, 2, len(data.train_inputs))
    parts = integer("parts", parts, 2, batch_size)
    if batch_size % (parts * model.ghost_size):
        allowed = f"a divisor of batch_size, {batch_size}, that tears no ghost batch"
        reject("parts", parts, allowed)
    device = _check_device(device)
    at_once = integer("at_once", at_once, 3 * model.ghost_size)
    hyper = _check_hyper(optimizer, schedule, trials, device)
    check_fit(data, model)

    program = _InParts(data.to(device), model, optimizer, 0.0, at_once, False)
    program.count, program.norms = parts, []
    count = len(trials.seeds)
    rows = _in_company(np.arange(count))
    program.start(trials.seeds[rows], _take(hyper, rows))
    streams = {seed: _Stream(seed, data, batch_size) for seed in trials.seeds.tolist()}
    norms = np.empty((2, count, max_steps))
    loss, accuracy = np.empty((2, count, len(steps)))
    observed, now = [], 0
    with _one_thread():
        for column, end in enumerate(steps.tolist()):
            for step in range(now, end):
                program.advance(_draw(streams, trials.seeds[rows], 1), step, schedule)
                norms[:, :, step] = torch.cat(program.norms, dim=1)[:, :count].cpu()
                program.norms.clear()
            now = end
            scores = program.evaluate("validation", np.arange(count))
            loss[:, column], _, accuracy[:, column] = scores
            if observe is not None:
                params = {name: p[:count].clone() for name, p in program.rows[0].items()}
                observed.append(observe(end, params))
    return NoiseHistory(
        batch_size // parts, batch_size, norms[0], norms[1], steps, loss, accuracy, observed
    )


class _InParts(_Program):
    """A program whose batches are cut into `count` parts, and which records in `norms`."""

    def _gradients(self, params, index, changes=None):
        cut = [index.chunk(self.count, dim=1)]
        if changes is not None:
            cut.append(changes.chunk(self.count, dim=1))
        each = [super(_InParts, self)._gradients(params, *part) for part in zip(*cut, strict=True)]
        mean = {name: sum(g[name] for g in each) / self.count for name in params}
        small = sum(_square(grads) for grads in each) / self.count
        self.norms.append(torch.stack([small, _square(mean)]))
        return mean


def _square(grads):
    """Return each row's squared norm over all tensors, in double precision."""
    return sum(g.double().square().flatten(1).sum(1) for g in grads.values())
