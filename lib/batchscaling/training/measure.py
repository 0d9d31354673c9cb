"""Gradient noise during training, from the norms of workers' gradients.

What is measured here goes to the estimators of `batchscaling.noise`.
"""

from dataclasses import dataclass

import numpy as np
import torch
from tqdm import tqdm

from batchscaling import _validation as check
from batchscaling.noise import two_batch_estimates
from batchscaling.training._process import kept_memory
from batchscaling.training._torch_state import undisturbed
from batchscaling.training.device import check_device, one_thread
from batchscaling.training.evaluation import Evaluation
from batchscaling.training.fit import check_fit
from batchscaling.training.kinds import check_kinds
from batchscaling.training.loop import AT_ONCE, check_hyper, check_pieces, evaluation_steps
from batchscaling.training.losses import cross_entropy
from batchscaling.training.program import Program
from batchscaling.training.schedules import constant
from batchscaling.training.workers import synchronous


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
    measurement costs no further gradients. They are those of the loss, without weight decay.

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
    kinds = {"data": data, "model": model, "optimizer": optimizer, "trials": trials}
    check_kinds(**kinds, schedule=schedule)
    batch_size = check.integer("batch_size", batch_size, 2, len(data.train_inputs))
    parts = check.integer("parts", parts, 2, batch_size)
    if batch_size % (parts * model.ghost_size):
        allowed = f"a divisor of batch_size, {batch_size}, that tears no ghost batch"
        check.reject("parts", parts, allowed)
    device, pieces = check_device(device), check_pieces(at_once, model)
    hyper = check_hyper(optimizer, schedule, trials, device)
    check_fit(data, model)

    data, norms = data.to(device), _Norms()
    how = {"schedule": schedule, "exchange": synchronous(parts), "watch": norms.add}
    program = Program(data, model, optimizer, pieces, **how)
    program.start(trials.seeds, hyper, batch_size)
    evaluation = Evaluation(data, model, cross_entropy, pieces)
    scores, observed, rows = [], [], np.arange(len(trials.seeds))
    with one_thread():
        for step in program.visit(steps.tolist(), tqdm(disable=True)):
            params = program.readout()
            scores.append(evaluation.mean(params, "validation", rows))
            if observe is not None:
                observed.append(observe(step, {name: p.clone() for name, p in params.items()}))
    loss, _, accuracy = np.stack(scores, axis=-1)
    small, large = norms.by_step(len(rows), max_steps)
    return NoiseHistory(
        batch_size // parts, batch_size, small, large, steps, loss, accuracy, observed
    )


class _Norms:
    """Records squared norms of the workers' gradients, and of their means."""

    def __init__(self):
        self._small, self._large = [], []

    def add(self, grads):
        """Record the norm of the mean over the workers, and the mean of their norms."""
        self._small.append(_square(grads).mean(1))
        means = {name: g.mean(1, keepdim=True) for name, g in grads.items()}
        self._large.append(_square(means)[:, 0])

    def by_step(self, trials, steps):
        """Return both norms, each of shape (trials, steps): parts of trials came in turn."""
        for norms in (self._small, self._large):
            yield torch.cat(norms).reshape(steps, -1)[:, :trials].T.cpu().numpy()


def _square(grads):
    """Return each worker's squared norm over all tensors, in double precision."""
    return sum(g.double().square().flatten(2).sum(2) for g in grads.values())
