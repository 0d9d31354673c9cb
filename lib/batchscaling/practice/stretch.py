"""The noise scale over a short stretch of a run, from probes of several of its states.

In a single state the gradient is that of where the run happens to be: with a good rate it jumps
about in the steepest directions, and the signal goes up and down with it, by a factor of two and
more. So a copy of the run goes on a little, is probed on its way, and trace and signal are averaged
before they are divided. The interval then holds what states differ by, too.
"""

from dataclasses import replace

from batchscaling.noise import ratio_estimate
from batchscaling.practice.kept import copied, gradient
from batchscaling.practice.memory import fitting
from batchscaling.practice.meter import NoiseMeter
from batchscaling.practice.probe import GRADIENTS
from batchscaling.practice.reading import nothing, read
from batchscaling.training.data import batches

STATES = 8
"""States of a stretch."""

FEWEST = 3 * STATES
"""Examples that the probes of all states take together, at least."""


def stretch(model, loss, examples, optimizer, *, batch_size, probed, most, confidence, seed):
    """Measure the noise scale in the states of a copy that trains on.

    Before each probe the copy trains with about as many examples as a probe has, in whole batches,
    at least one. Where noise or signal is not clear of zero it goes on, with probes twice as large
    each time. The interval is for the states of this stretch: states near each other are alike, so
    it is too narrow for the run as a whole. Where the signal is weak, few measurements tell, and
    those that do give a noise scale that is too small.

    Parameters
    ----------
    model, loss, optimizer, batch_size
        As for `branch`.
    examples : Examples
    probed : int
        Examples of the first probes together, at least `FEWEST`.
    most : float
        Gradients of single examples that all must not exceed, but for the first probes.
    confidence : float
    seed : int
        Of the order of examples.

    Returns
    -------
    NoiseReading
        Its `measured` are the examples of the last probes, its `taken` the gradients of all.

    Raises
    ------
    ValueError
        If the model cannot be copied, memory is short, or there are fewer than `FEWEST` examples.
    """
    examples.check_count(FEWEST, f"three for each of {STATES} states that are probed")
    model, optimizer, loss = copied(model, optimizer, loss)
    walk = _Walk(model, loss, examples, optimizer, min(batch_size, examples.count), seed)
    geometry = "adam" if "betas" in optimizer.defaults else "euclidean"
    meter = NoiseMeter(model, optimizer, geometry=geometry)
    meter.close()  # a probe needs none of its hooks
    size, taken = max(FEWEST, min(probed, examples.count)) // STATES, 0
    while True:
        readings = [meter.probe(loss, *walk.on(size), confidence=confidence) for _ in range(STATES)]
        found, cost = pooled(readings, confidence), STATES * walk.cost(size)
        taken, size = taken + cost, 2 * size
        is_weak = found.batch_size is None and found.trace
        if not is_weak or size > examples.count or taken + STATES * walk.cost(size) > most:
            return replace(found, taken=taken)


class _Walk:
    """A copy of a run that trains on, with the examples of one order."""

    def __init__(self, model, loss, examples, optimizer, batch_size, seed):
        self._run, self._examples = (model, loss, optimizer), examples
        self._batch_size = self._next = batch_size
        self._order = batches(seed, examples.count, iter(lambda: self._next, None))

    def on(self, size):
        """Train with `size` examples, and return as many that come next."""
        for _ in range(self._steps(size)):
            self._step()
        return self._batch(size)

    def cost(self, size):
        """Return the gradients that training and a probe of `size` examples take."""
        return self._steps(size) * self._batch_size + GRADIENTS * size

    def _steps(self, size):
        return max(1, round(size / self._batch_size))

    def _step(self):
        model, loss, optimizer = self._run
        with fitting(self._batch_size):
            gradient(model, loss, self._batch(self._batch_size), optimizer)
        optimizer.step()

    def _batch(self, size):
        self._next = size
        return self._examples.batch(next(self._order))


def pooled(readings, confidence):
    """Return the reading of several together, or of the first that has none."""
    groups = {
        label: _pooled([reading.groups[label] for reading in readings], confidence)
        for label in readings[0].groups
    }
    return replace(_pooled(readings, confidence), groups=groups)


def _pooled(readings, confidence):
    for reading in readings:
        if reading.trace is None:
            return nothing(reading.measured, reading.left_out, reading.reason)
    columns = zip(*((reading.trace, reading.signal) for reading in readings), strict=True)
    estimate = ratio_estimate(*columns, confidence=confidence)
    return read(estimate, sum(reading.measured for reading in readings))
