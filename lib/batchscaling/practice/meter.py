"""The noise scale of any network, measured in an ordinary training loop."""

from dataclasses import astuple, replace

import numpy as np
import torch
from torch.nn.parallel import DistributedDataParallel

from batchscaling import _validation as check
from batchscaling._errors import InputError
from batchscaling.noise import (
    NoiseEstimate,
    RunningNoise,
    per_example_estimate,
    two_batch_estimates,
)
from batchscaling.practice.geometry import geometry_of
from batchscaling.practice.groups import groups_of, trained
from batchscaling.practice.losses import check_loss
from batchscaling.practice.memory import is_out_of_memory
from batchscaling.practice.probe import GRADIENTS, example_products
from batchscaling.practice.reading import nothing, read
from batchscaling.practice.taps import Taps

_AT_ONCE = 32  # steps whose norms wait on the device, so that a GPU need not stop for each


class NoiseMeter:
    r"""Measures the gradient noise scale of a network while it trains.

    Two lines in a training loop with gradient accumulation, the first and that of `step`::

        meter = NoiseMeter(model, optimizer)
        for parts in batches:
            optimizer.zero_grad()
            for inputs, labels in parts:
                (loss(model(inputs), labels) / len(parts)).backward()
            meter.step(part_size=16)
            optimizer.step()
        print(meter.estimate())

    Each backward pass since the last `step` is a part of the batch. The norms of the parts'
    gradients and that of their sum are gradients of two batch sizes, from which
    `two_batch_estimates` makes trace and signal. The sum is what ``param.grad`` holds.

    The training itself does not change, to the last bit. A step whose gradients are not finite, or
    which has one part only, is left out, and counted as such. Hooks of your own that change
    gradients must be there before the meter is made, or it sees the parts without them.

    Parameters
    ----------
    model : torch.nn.Module
        Its parameters that are trained now are measured. One that is frozen later counts as without
        a gradient; for one that is trained only later, make a new meter. With a
        `DistributedDataParallel`, each process's gradients count before they are averaged: they are
        parts, too, so that one backward pass a step is enough. Pass the wrapped model, after
        wrapping it. Every process must call `step`.
    optimizer : torch.optim.Optimizer, optional
        If given, only the parameters that it updates count.
    geometry : {"euclidean", "adam", "sign"}
        How gradients are measured. ``"euclidean"`` is the plain norm, that of SGD. ``"adam"``
        divides squared gradients by the root of `exp_avg_sq`, as the optimizer's next step will;
        the first step of a parameter is left out. ``"sign"`` takes squares of sums of absolute
        values: these are not linear in one over the batch size, so its estimates are not
        unbiased. Where the noise is large the result is
        :math:`\sum \sigma_i / \sum (G_i^2/\sigma_i)`, with a standard deviation for each parameter;
        where it is small the result is too small.
    groups : {"layers", "optimizer"}
        What is measured apart, besides the total: every module that holds parameters, by its name,
        or the parameter groups of the optimizer, by their numbers.
    scaler : torch.amp.GradScaler, optional
        Its scale is divided out.
    every : int
        Measure the first step, and then one of so many. One of ten, in four parts, costs about 3 %
        of the time of a step on a CPU, with ``"adam"`` 6 %; 14 and 18 % where a step takes a
        millisecond.
    decay : float
        The running averages of trace and signal reach back about 1/(1 - decay) measured steps.

    Raises
    ------
    ValueError
        If an argument is not of its kind, or no parameter is trained.

    References
    ----------
    McCandlish et al., "An empirical model of large-batch training", 2018, appendix A.1. On the
    sign: Bernstein et al., "signSGD", 2018, section 3.
    """

    def __init__(
        self,
        model,
        optimizer=None,
        *,
        geometry="euclidean",
        groups="layers",
        scaler=None,
        every=10,
        decay=0.99,
    ):
        _check_kinds(model, optimizer, scaler)
        self._is_shared = isinstance(model, DistributedDataParallel)
        self._process_group = model.process_group if self._is_shared else None
        self._module = model.module if self._is_shared else model
        self._geometry = geometry_of(geometry, optimizer)
        self._groups = groups_of(self._module, optimizer, groups)
        self._scaler = scaler
        self._every = check.integer("every", every, 1)
        self._running = RunningNoise(decay)
        members = [list(group.values()) for group in self._groups.values()]
        self._taps = Taps(members, self._geometry, watch=not self._is_shared)
        self._seen = self._left_out = 0
        self._is_closed = False
        self._waiting = []

    def step(self, part_size, *, by_size=False):
        """Take note of a step: call it right after the last backward pass.

        That is before `GradScaler.unscale_`, before gradients are clipped, and before the
        optimizer's step. A step is left out where ``param.grad`` is not the sum of the gradients
        since the last call, be it that they were changed, not set to zero, or that a call is
        missing. One small parameter is looked at; with a `DistributedDataParallel` none is. A step
        is left out, too, if it has more than 1024 parts, or if with reentrant checkpoints it is not
        clear what the parts are.

        Parameters
        ----------
        part_size : int or sequence of int
            Examples in each part, or in each of them in turn. The losses of parts are means.
        by_size : bool
            Whether the loss of each part was multiplied with its share of the examples, its size
            over their sum, so that ``param.grad`` is the mean over all of them. If not, all parts
            weigh alike, each one over their number. Processes weigh alike.

        Raises
        ------
        ValueError
            If a size is less than 1, there are more or fewer sizes than parts, or `by_size` is
            neither true nor false.
        """
        sizes = check.integers("part_size", part_size, 1, 2**53)
        by_size = check.flag("by_size", by_size)
        self._seen += 1
        if self._taps.active:
            parts = self._taps.parts
            if sizes.ndim and parts is not None and sizes.shape != (parts,):
                found = f"an array of shape {sizes.shape}"
                check.reject("part_size", found, f"a number, or one for each of {parts} parts")
            self._waiting.append(self._row(sizes if parts else np.ones(1), by_size))
        if len(self._waiting) == _AT_ONCE:
            self._catch_up()
        self._taps.start(active=self._seen % self._every == 0 and not self._is_closed)

    def estimate(self, confidence=0.95):
        """Return what was measured, in total and for each group.

        Parameters
        ----------
        confidence : float
            Between 0 and 1.

        Returns
        -------
        NoiseReading
            It cannot tell after fewer than three steps, or where signal or noise is not clear of
            zero. The interval takes steps as independent, and unchanging within the reach of the
            averages. Where nearly all such readings cannot tell, those that can are a selection,
            and their intervals hold the truth less often.

        Raises
        ------
        ValueError
            If `confidence` is out of its range.
        """
        confidence = check.real("confidence", confidence, 0, 1, low_open=True, high_open=True)
        self._catch_up()
        counts = self._running.count, self._left_out
        if self._running.count < 3:
            reason = "it takes three steps of two parts or more; {} count, {} were left out"
            return nothing(*counts, reason.format(*counts), self._groups)
        found = np.transpose(astuple(self._running.estimate(confidence)))
        return self._reading(found.tolist(), *counts)

    def probe(self, loss, inputs, labels, *, chunk=32, confidence=0.95):
        """Measure at once, by the gradients of single examples; `estimate` does not change.

        Batch normalisation uses its running statistics, since an example alone has none; dropout
        drops as in training. Parameters, buffers, gradients, modes, optimizer and random numbers of
        torch, Python and numpy are as before afterwards; so are other attributes of modules, with
        what their lists and dicts hold. Parameters that are frozen now do not count.

        Parameters
        ----------
        loss : callable
            ``loss(outputs, labels)`` is the mean over a batch, such as
            `torch.nn.functional.cross_entropy`, in which all examples weigh alike: without weights
            of classes, and with as many labels that count in each. It sees the network by its
            outputs only: a penalty on parameters belongs into the optimizer.
        inputs, labels : torch.Tensor, shape (n, ...)
            Independent examples, n at least 3.
        chunk : int
            Examples whose gradients are kept at a time; fewer where memory is short. One, whatever
            is given, where the network draws random numbers of Python or numpy: examples of one
            chunk would share them.
        confidence : float
            Between 0 and 1.

        Returns
        -------
        NoiseReading

        Raises
        ------
        ValueError
            If an argument is out of its range, inputs and labels do not fit each other, the
            geometry is ``"sign"``, the loss depends on parameters otherwise than by the outputs or
            is no mean of those of single examples, the gradient of one example cannot be taken or
            does not fit into memory, or the model has no parameter to train now, a hook that
            changes a parameter's gradient, or batch normalisation without running statistics.

        Notes
        -----
        Where `torch.func` cannot take the gradients of a chunk together, as in a `torch.nn.GRU` or
        where the way through the network depends on the example, they are taken one after the
        other, which is slower.
        """
        check_loss(loss)
        batch = _check_batch(inputs, labels)
        chunk = check.integer("chunk", chunk, 1)
        confidence = check.real("confidence", confidence, 0, 1, low_open=True, high_open=True)
        if self._geometry.order != 2:
            check.reject("geometry", "sign", "'euclidean' or 'adam', for a probe")
        groups = trained(self._groups)
        if not any(self._geometry.knows(param) for group in groups for param in group.values()):
            return nothing(0, len(inputs), "the optimizer has made no step", self._groups)
        products = self._products(groups, loss, batch, chunk)
        if not np.isfinite(products).all():
            return nothing(0, len(inputs), "gradients are not finite", self._groups)
        found = [per_example_estimate(*rows, confidence=confidence) for rows in zip(*products)]
        reading = self._reading(map(astuple, found), len(inputs), 0)
        return replace(reading, taken=GRADIENTS * len(inputs))

    def close(self):
        """Take the meter off the network, as happens when nothing refers to it any more."""
        self._is_closed = True
        self._taps.start(active=False)

    def _products(self, groups, loss, batch, chunk):
        """Return products of gradients, in smaller chunks where memory is short."""
        while True:
            try:
                return example_products(self._module, groups, self._geometry, loss, batch, chunk)
            except InputError:
                raise
            except Exception as error:
                if not is_out_of_memory(error):
                    told = str(error).partition("\n")[0]
                    allowed = f"one whose gradients of single examples can be taken ({told})"
                    check.reject("model", type(self._module).__name__, allowed)
                if chunk == 1:
                    check.reject("model", "too large", f"one that fits into memory ({error})")
            chunk //= 2

    def _row(self, sizes, by_size):
        r"""Return one row for a step, from which `_catch_up` makes estimates.

        With shares :math:`w_k` of the parts, and their gradients :math:`w_k g_k`, the average
        :math:`\sum w_k |g_k|^2` is that of a batch size of one over :math:`\sum w_k/n_k`, and their
        sum that of one over :math:`\sum w_k^2/n_k`. The row is the number of processes, both sums,
        both kinds of norms. All but the last are added up over processes.
        """
        norms = self._taps.norms()
        if self._scaler is not None:
            norms = norms / self._scaler.scale(norms.new_ones(())) ** 2
        sizes = np.broadcast_to(sizes, len(norms) - 1)
        shares = sizes / sizes.sum() if by_size else np.full(len(sizes), 1 / len(sizes))
        counts = norms.new_tensor([1, np.sum(shares / sizes), np.sum(shares**2 / sizes)])
        averages = (norms[:-1] / norms.new_tensor(shares)[:, None]).sum(0)
        shared = torch.cat([counts, averages])
        if self._is_shared:
            torch.distributed.all_reduce(shared, group=self._process_group)
        return torch.cat([shared, norms[-1]])

    def _catch_up(self):
        """Take the steps that wait into the running averages."""
        rows = torch.stack(self._waiting).cpu().double().numpy() if self._waiting else []
        self._waiting = []
        for row in rows:
            processes, norms, norm = row[0], *np.split(row[3:], 2)
            small, large = processes / row[1], processes**2 / row[2]
            if not (small < large and np.isfinite(row).all()):
                self._left_out += 1
                continue
            estimates = two_batch_estimates(norms / processes, norm, small, large)
            self._running = self._running.update(*estimates)

    def _reading(self, rows, *counts):
        """Return the reading of estimates of all groups, the last that of the total."""
        *rows, total = (NoiseEstimate(*row) for row in rows)
        groups = {label: read(row, *counts) for label, row in zip(self._groups, rows, strict=True)}
        return read(total, *counts, groups)


def _check_kinds(model, optimizer, scaler):
    kinds = {
        "model": (model, torch.nn.Module, "a torch.nn.Module"),
        "optimizer": (optimizer, torch.optim.Optimizer, "a torch.optim.Optimizer, or None"),
        "scaler": (scaler, torch.amp.GradScaler, "a torch.amp.GradScaler, or None"),
    }
    for name, (value, kind, allowed) in kinds.items():
        if not isinstance(value, kind) and (name == "model" or value is not None):
            check.reject(name, value, allowed)


def _check_batch(inputs, labels):
    for name, value in (("inputs", inputs), ("labels", labels)):
        if not isinstance(value, torch.Tensor) or value.ndim == 0:
            check.reject(name, type(value).__name__, "a tensor with an entry an example")
    if len(labels) != len(inputs) or len(inputs) < 3:
        allowed = f"three or more, as many as inputs ({len(inputs)})"
        check.reject("labels", f"{len(labels)} labels", allowed)
    return inputs, labels
