"""The branched check: short runs from one state, with batches of several sizes."""

from contextlib import nullcontext
from itertools import pairwise

import numpy as np
import torch

from batchscaling import _validation as check
from batchscaling.practice.examples import Examples
from batchscaling.practice.kept import check_network, copied, gradient, is_decoupled, mean_loss
from batchscaling.practice.losses import check_loss
from batchscaling.practice.memory import fitting, is_out_of_memory
from batchscaling.practice.options import OF_RUNS, checked
from batchscaling.practice.paired import KEPT, LOST, NO_MEMORY, concluded, judge, lost_share
from batchscaling.practice.predict import half_life, rate_factor
from batchscaling.practice.states import random_states_kept, seed_all
from batchscaling.practice.trial import tried
from batchscaling.training.data import batches

_MOMENTS = 4  # batches of the largest size whose squares Adam's average is scaled by


def branch(
    model,
    loss,
    data,
    optimizer,
    *,
    batch_size,
    factors=(2, 4, 8, 16),
    steps=8,
    repeats=16,
    evaluated=1024,
    tolerance=0.2,
    confidence=0.95,
    seed=0,
):
    r"""Find by short runs up to which batch size a training run loses nothing.

    From the state of model and optimizer, branches train with k times the batch, on the same
    examples in the same order, and so with a k-th of the steps. For SGD the rate is multiplied by
    k, for Adam by the root of k, with both betas to the power of k; weight decay apart from the
    gradient, as AdamW's, by k over the factor of the rate. At the end of the window their
    losses are compared, on examples that are the same for all. `lost_share` says what a branch
    loses of the run's progress; repetitions have other examples. The check ends at the first
    batch size at which something is lost.

    All runs are of copies: model, optimizer, data loader and random numbers are as before
    afterwards, also after an error, and so is a loss that is a `torch.nn.Module`. A model in the
    mode of evaluation is put into that of training; else each layer stays in its own, also where
    losses are compared. Random numbers are common to all branches, also those of generators that
    the data hold. Hooks on gradients of parameters act on the copies, too.

    Adam's running averages of squares belong to its batch size. Those of a branch are multiplied,
    tensor by tensor, with the ratio of the squares that gradients of both batch sizes have at the
    start. They would need thousands of steps to get there by themselves.

    Parameters
    ----------
    model : torch.nn.Module
        As it is in training. Gradients are not clipped, and there is no mixed precision.
    loss : callable
        ``loss(outputs, labels)`` is the mean over a batch. It sees the model by its outputs only,
        unless it is a `torch.nn.Module` that holds it.
    data : pair of torch.Tensor, Dataset or DataLoader
        Inputs and labels; of a loader its data set and ``collate_fn``, and which examples a
        `SubsetRandomSampler` takes. A list of pairs is a data set.
    optimizer : torch.optim.Optimizer
        SGD, or Adam or a relative of it, of parameters of `model`, in the state that training is
        in.
    batch_size : int
        Of the run.
    factors : sequence of int
        k, increasing, from 2 on; each divides the largest.
    steps : int
        Of the branch with the largest batches, at most 100,000. The window has so many times its
        batch of examples. A short window does not see that a rate is unstable in the long run.
    repeats : int
        From 3 to 100,000. On the noisy quadratic model, 95 % intervals of 16 hold the truth 93
        times in 100, and of 8 92 times, refusals aside.
    evaluated : int
        Examples that losses are compared on, in each repetition others; they come after those of
        the window where the data has as many.
    tolerance : float
        The share of the progress that counts as nothing.
    confidence : float
        Of the intervals.
    seed : int
        Of the order of examples.

    Returns
    -------
    BranchedCheck

    Raises
    ------
    ValueError
        If an argument is out of its range, the model cannot be copied, the run's own batches fail
        or do not fit into memory, or its loss is not finite.

    References
    ----------
    Merrill et al., "Critical batch size revisited", 2025, who compare smoothed losses of branches.
    Malladi et al., "On the SDEs and scaling rules for adaptive gradient algorithms", 2022.
    """
    check_network(model, optimizer)
    check_loss(loss)
    batch_size = check.integer("batch_size", batch_size, 1)
    options = check_options(
        factors=factors,
        steps=steps,
        repeats=repeats,
        evaluated=evaluated,
        tolerance=tolerance,
        confidence=confidence,
        seed=seed,
    )
    factors, tolerance = options["factors"], options["tolerance"]
    examples = Examples(data, next(model.parameters()).device)
    largest = batch_size * factors[-1]
    check.integer("batch_size times the largest of factors", largest, 1, examples.count)
    with tried(model, optimizer, loss, examples, batch_size):
        runs = _Runs((model, optimizer, loss), examples, batch_size, options)
        start, base = runs.losses(0), runs.losses(1)
        if not (np.isfinite(start).all() and np.isfinite(base).all()):
            check.reject("loss", "not finite", "finite numbers at the run's own batch size")
        shares, verdicts = [(0.0, 0.0, 0.0)], [KEPT]
        for factor in factors:
            found = runs.losses(factor)
            share = (np.nan,) * 3
            if found is not None:
                share = lost_share(start, base, found, options["confidence"])
            shares.append(share)
            verdicts.append(NO_MEMORY if found is None else judge(share, tolerance))
            if verdicts[-1] in (NO_MEMORY, LOST):
                break
    sizes = [batch_size * factor for factor in (1, *factors)][: len(verdicts)]
    return concluded(sizes, shares, verdicts, tolerance, runs.taken)


def check_options(**options):
    """Return options of `branch`, some or all, once they are checked.

    Raises
    ------
    ValueError
        If one is out of its range, or there is none of this name.
    """
    return checked("branches", _CHECKS, options)


def _check_factors(name, factors):
    allowed = "increasing integers from 2 on that divide the largest"
    if not np.iterable(factors) or isinstance(factors, str):
        check.reject(name, factors, allowed)
    values = [check.integer(name, k, 2) for k in factors]
    increasing = all(k < after for k, after in pairwise(values))
    if not values or not increasing or any(values[-1] % k for k in values):
        check.reject(name, factors, allowed)
    return values


_CHECKS = {"factors": _check_factors, **OF_RUNS}


class _Runs:
    """The branches of all repetitions; `taken` counts the examples that they took."""

    def __init__(self, run, examples, size, options):
        self._run, self._examples = run, examples
        self._size, self._largest = size, options["factors"][-1]
        self._chunks = max(1, min(options["evaluated"], examples.count) // size)
        self._window = options["steps"] * self._largest  # in batches of the run
        repeats = options["repeats"]
        self._seeds = [repeats * options["seed"] + number for number in range(repeats)]
        self._ratios = None
        self.taken = 0

    def losses(self, factor):
        """Return the losses at the end, shape (repeats,); at the start for 0; None without memory.

        Raises
        ------
        ValueError
            If memory is short at the run's own batch size.
        """
        try:
            with fitting(self._size) if factor <= 1 else nullcontext():
                return np.array([self._loss_after(factor, seed) for seed in self._seeds])
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            return None

    def _loss_after(self, factor, seed):
        model, optimizer, loss = copied(*self._run)
        window = [factor * self._size] * (self._window // factor) if factor else []
        skipped = [] if factor else [self._size] * self._window
        sizes = [*window, *skipped, *[self._size] * self._chunks]
        order = batches(seed, self._examples.count, sizes)
        if factor > 1:
            self._scale(optimizer, factor)
        seed_all(seed)
        with random_states_kept(*self._examples.holders):
            for _ in window:
                self._gradient(model, optimizer, loss, next(order))
                optimizer.step()
        for _ in skipped:
            next(order)
        with random_states_kept(*self._examples.holders):
            return self._evaluate(model, loss, order, seed)

    def _gradient(self, model, optimizer, loss, indices):
        gradient(model, loss, self._examples.batch(indices), optimizer)
        self.taken += len(indices)

    def _evaluate(self, model, loss, order, seed):
        """Return the mean loss over the batches that are left of an order."""
        held = [*order]
        self.taken += sum(map(len, held))
        seed_all(seed)
        return mean_loss(model, loss, (self._examples.batch(indices) for indices in held))

    def _scale(self, optimizer, factor):
        """Move an optimizer to batches `factor` times as large."""
        for number, group in enumerate(optimizer.param_groups):
            adaptive = "betas" in group
            growth = rate_factor("adam" if adaptive else "sgd", factor)
            group["lr"] = group["lr"] * growth
            if is_decoupled(optimizer, group):
                group["weight_decay"] = group["weight_decay"] * factor / growth
            if adaptive:
                group["betas"] = tuple(half_life(beta, factor) for beta in group["betas"])
                ratios = self._square_ratios()[factor]
                for place, param in enumerate(group["params"]):
                    scale_moments(optimizer.state.get(param), ratios[number][place], factor)

    def _square_ratios(self):
        """Return for each factor how much smaller squares of gradients are, for each parameter."""
        if self._ratios is None:
            model, optimizer, loss = copied(*self._run)
            seed_all(self._seeds[0])
            count = _MOMENTS * self._largest
            sizes = [self._size] * count
            squares = _Squares(optimizer, self._largest)
            for indices in batches(self._seeds[0], self._examples.count, sizes):
                self._gradient(model, optimizer, loss, indices)
                squares.add()
            self._ratios = squares.ratios()
        return self._ratios


class _Squares:
    """Mean squares of gradients of several batch sizes, from those of the smallest."""

    def __init__(self, optimizer, largest):
        self._params = [group["params"] for group in optimizer.param_groups]
        self._sums = {
            k: [[0.0] * len(params) for params in self._params]
            for k in range(1, largest + 1)
            if largest % k == 0
        }
        self._means = {k: [[0.0] * len(params) for params in self._params] for k in self._sums}
        self._count = 0

    def add(self):
        """Add the gradients that the parameters hold."""
        self._count += 1
        for k, sums in self._sums.items():
            for number, params in enumerate(self._params):
                for place, param in enumerate(params):
                    grad = 0.0 if param.grad is None else param.grad.to_dense()
                    whole = sums[number][place] + grad
                    if self._count % k == 0:
                        square = torch.as_tensor(whole / k).square().mean()
                        self._means[k][number][place] += float(square) * k
                        whole = 0.0
                    sums[number][place] = whole

    def ratios(self):
        """Return, for each factor, those to the squares of the smallest batch."""
        return {
            k: [
                [own / one if one > 0 else 1.0 for own, one in zip(*rows, strict=True)]
                for rows in zip(means, self._means[1], strict=True)
            ]
            for k, means in self._means.items()
        }


def scale_moments(state, ratio, factor):
    """Let Adam's state be that of larger batches: fewer steps, and smaller squares."""
    for name, power in (("exp_avg_sq", 1), ("max_exp_avg_sq", 1), ("exp_inf", 0.5)):
        if state and name in state:
            state[name].mul_(ratio**power)
    if state and "step" in state:
        state["step"] = state["step"] / factor
