"""How long a step takes on this device, against the batch size."""

import time
from dataclasses import dataclass

import numpy as np
import torch

from batchscaling import _validation as check
from batchscaling._errors import InputError
from batchscaling.practice.kept import copied, gradient
from batchscaling.practice.memory import is_out_of_memory

_ENOUGH = 1.1  # two doublings in turn that gain less than this end the measurement
_STEPS = 5


@dataclass(frozen=True)
class Throughput:
    """Seconds of a step at several batch sizes.

    Attributes
    ----------
    batch_sizes : tuple of int
        Increasing.
    seconds, low, high : tuple of float
        The fastest of some steps, which other work on the machine disturbs least, the same again,
        and the median. None takes longer than one of a larger batch.
    ended : str
        Why no larger batch was measured.
    """

    batch_sizes: tuple
    seconds: tuple
    low: tuple
    high: tuple
    ended: str

    @property
    def examples_per_second(self):
        """Of each batch size."""
        pairs = zip(self.batch_sizes, self.seconds, strict=True)
        return tuple(size / seconds for size, seconds in pairs)


def throughput(model, loss, examples, optimizer, *, largest, most_seconds=2.0):
    """Measure steps of a copy, at powers of two, until larger batches gain nothing more.

    They begin at 1, or, where a step of the smallest batches fails, at the first that does not: an
    example alone has no batch normalisation, for one.

    Parameters
    ----------
    model, loss, optimizer
        As for `branch`.
    examples : Examples
    largest : int
        No larger batch is measured.
    most_seconds : float
        A step that takes as long is the last one.

    Returns
    -------
    Throughput

    Raises
    ------
    ValueError
        If no step works, or the smallest batch does not fit into memory.
    """
    largest = check.integer("largest", largest, 1)
    run = copied(model, optimizer, loss)
    sizes, rows, failed = [], [], None
    ended = "no more examples, or larger sizes were not asked for"

    def timed(size):
        return _steps(*run, examples.first(size))

    for size in (2**power for power in range(largest.bit_length())):
        try:
            seconds = timed(size)
        except Exception as error:
            short = is_out_of_memory(error)
            if not sizes and short:
                check.reject("model", "too large", f"one that fits into memory ({error})")
            failed = error if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
            if not sizes:
                continue
            ended = f"a step with a batch of {size} fails: {failed}"
            if short:
                ended = f"a batch of {size} does not fit into memory"
            break
        sizes.append(size)
        rows.append(seconds)
        if min(seconds) > most_seconds:
            ended = f"a step takes more than {most_seconds:g} seconds"
            break
        if _is_flat(sizes, rows):
            # Other work on the machine may have disturbed them.
            for place in (-2, -1):
                rows[place] += timed(sizes[place])
        if _is_flat(sizes, rows):
            ended = "larger batches take as long an example"
            break
    if not sizes:
        check.reject("model", f"one whose steps all fail: {failed}", "one with a batch that works")
    best, middle = (_rising([statistic(row) for row in rows]) for statistic in (np.min, np.median))
    return Throughput(tuple(sizes), best, best, middle, ended)


def _rising(seconds):
    """Return seconds none of which is above one of a larger batch."""
    return tuple(np.minimum.accumulate(seconds[::-1])[::-1].tolist())


def _is_flat(sizes, rows):
    rates = np.divide(sizes, [min(row) for row in rows])
    return len(rates) > 2 and (rates[-2:] < _ENOUGH * rates[-3:-1]).all()


def _steps(model, optimizer, loss, batch):
    """Return the seconds of some steps, after one that does not count."""
    found = []
    for _ in range(_STEPS + 1):
        start = _now(batch[0])
        gradient(model, loss, batch, optimizer)
        optimizer.step()
        found.append(_now(batch[0]) - start)
    return found[1:]


def _now(inputs):
    if isinstance(inputs, torch.Tensor) and inputs.device.type == "cuda":
        torch.cuda.synchronize(inputs.device)
    return time.perf_counter()
