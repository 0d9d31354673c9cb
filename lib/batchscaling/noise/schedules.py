r"""The noise scale of SGD, and schedules that lower it in the same way by different means.

Smith and Le write the update of SGD as
:math:`\Delta\omega = -\frac{\epsilon}{N}\bigl(\frac{dC}{d\omega} + \alpha\bigr)`, with the cost C
summed over N examples and :math:`\alpha` the noise of the batch. Read as a step of length
:math:`\epsilon/N` of a stochastic differential equation, its noise has the strength g: the noise
scale. Halving the rate and doubling the batch lower it alike.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from batchscaling import _validation as check


def noise_scale(lr, examples, batch_size, momentum=0.0, *, replacement=False):
    r"""Return the noise scale g of SGD, with or without momentum.

    For batches drawn without replacement it is
    :math:`g = \frac{\epsilon}{1 - m}\left(\frac{N}{B} - 1\right)`, which is zero for the full
    batch. It is exact for a single batch, if the covariance of the gradients has N - 1 in its
    denominator. For batches drawn with replacement, or from endless data, the noise of a batch
    does not shrink as B comes close to N, and :math:`g = \frac{\epsilon N}{B (1 - m)}`. This is
    also the approximation of the first for B much smaller than N. The schedules of this module
    keep the second one equal, as the paper does.

    Neither knows that the batches of one epoch balance each other, if no example comes twice.

    Parameters
    ----------
    lr : float or array_like
        Learning rate :math:`\epsilon` of the mean loss, positive.
    examples : int
        N, the number of training examples, at least 1.
    batch_size : float or array_like
        B, positive; at most N without replacement.
    momentum : float or array_like
        m, at least 0 and below 1.
    replacement : bool
        Whether the examples of a batch are drawn with replacement.

    Returns
    -------
    float or ndarray
        Of the common shape of `lr`, `batch_size` and `momentum`.

    Raises
    ------
    ValueError
        If an argument is out of its range.

    References
    ----------
    Smith and Le, "A Bayesian perspective on generalization and stochastic gradient descent",
    2018, section 5. The momentum factor is a limit of small rates: see
    `stationary_variance` for what it leaves out.

    Examples
    --------
    >>> noise_scale(0.5, 1000, 100)
    4.5
    >>> round(noise_scale(0.5, 1000, 100, momentum=0.9, replacement=True), 6)
    50.0
    """
    lr = check.positive_numbers("lr", lr)
    examples = check.integer("examples", examples, 1)
    batch_size = check.positive_numbers("batch_size", batch_size)
    replacement = check.flag("replacement", replacement)
    if not replacement and np.any(batch_size > examples):
        check.reject("batch_size", batch_size.max(), f"at most {examples} without replacement")
    if check.dimensions(momentum) == 0:
        momentum = check.below_one("momentum", momentum)
    momentum = check.array("momentum", momentum, ndim=None, nonnegative=True)
    check.below_one("momentum", momentum.max())
    lr, batch_size, momentum = check.broadcast(lr=lr, batch_size=batch_size, momentum=momentum)
    ratio = examples / batch_size
    scale = lr / (1 - momentum) * (ratio if replacement else ratio - 1)
    return float(scale) if np.ndim(scale) == 0 else scale


@dataclass(frozen=True)
class Phase:
    """Some epochs of training with constant settings.

    A schedule is a sequence of phases.

    Parameters
    ----------
    epochs : float
        Positive.
    lr : float
        Positive.
    batch_size : float
        Positive. Networks need an integer, the noisy quadratic model does not.
    momentum : float
        At least 0 and below 1.
    """

    epochs: float
    lr: float
    batch_size: float
    momentum: float = 0.0

    def __post_init__(self):
        check.fields(
            self,
            epochs=check.positive_amount,
            lr=check.positive,
            batch_size=check.positive_amount,
            momentum=check.below_one,
        )

    def noise_scale(self, examples):
        r"""Return :math:`\epsilon N / (B (1 - m))`, which equal schedules share."""
        return noise_scale(self.lr, examples, self.batch_size, self.momentum, replacement=True)


def decay_lr(epochs, lr, batch_size, momentum=0.0, *, factor=5.0):
    """Return the usual schedule: from phase to phase the rate is divided by `factor`.

    Parameters
    ----------
    epochs : sequence of float
        Length of each phase, positive.
    lr : float
        Rate of the first phase, positive.
    batch_size : float
        Positive.
    momentum : float
        At least 0 and below 1.
    factor : float
        By which the noise scale falls from phase to phase; above 1.

    Returns
    -------
    tuple of Phase

    Raises
    ------
    ValueError
        If an argument is out of its range.

    References
    ----------
    Smith, Kindermans, Ying and Le, "Don't decay the learning rate, increase the batch size", 2018,
    section 5.1.
    """
    return _lower_noise(epochs, lr, batch_size, momentum, factor, batch_size)


def increase_batch(epochs, lr, batch_size, momentum=0.0, *, factor=5.0, max_batch_size=None):
    """Return the schedule with the same noise scale that multiplies the batch size instead.

    Parameters
    ----------
    epochs, lr, batch_size, momentum, factor
        As for `decay_lr`; `batch_size` is that of the first phase.
    max_batch_size : float, optional
        At least `batch_size`. The batch grows up to it; what is left of the factor divides the
        rate. The paper's counts of updates come out with a tenth of the training set.

    Returns
    -------
    tuple of Phase

    Raises
    ------
    ValueError
        If an argument is out of its range.

    References
    ----------
    Smith et al. (2018), sections 5.1 and 5.2.

    Examples
    --------
    >>> [(p.lr, p.batch_size) for p in increase_batch([60, 60, 40], 0.1, 128)]
    [(0.1, 128), (0.1, 640), (0.1, 3200)]
    """
    limit = np.inf
    if max_batch_size is not None:
        batch_size = check.positive("batch_size", batch_size)
        limit = check.real("max_batch_size", max_batch_size, batch_size)
    return _lower_noise(epochs, lr, batch_size, momentum, factor, limit)


def hybrid(epochs, lr, batch_size, momentum=0.0, *, factor=5.0, increases=1):
    """Return the schedule that first multiplies the batch size and then divides the rate.

    Parameters
    ----------
    epochs, lr, batch_size, momentum, factor
        As for `decay_lr`.
    increases : int
        How often the batch size is multiplied before the rate is divided; at least 0. The paper
        has 1.

    Returns
    -------
    tuple of Phase

    Raises
    ------
    ValueError
        If an argument is out of its range.

    References
    ----------
    Smith et al. (2018), section 5.1.
    """
    batch_size = check.positive("batch_size", batch_size)
    factor = check.real("factor", factor, 1, low_open=True)
    increases = check.integer("increases", increases, 0)
    try:
        limit = batch_size * factor**increases
    except OverflowError:
        check.reject("increases", increases, "fewer, so that the batch size is a finite number")
    return _lower_noise(epochs, lr, batch_size, momentum, factor, limit)


def _lower_noise(epochs, lr, batch_size, momentum, factor, limit):
    """Return phases whose noise falls by `factor`, by the batch size up to `limit`."""
    is_sequence = isinstance(epochs, Iterable) and getattr(epochs, "ndim", 1)
    if not is_sequence or not (lengths := tuple(epochs)):
        check.reject("epochs", epochs, "a non-empty sequence of positive numbers")
    lr, batch_size = check.positive("lr", lr), check.positive_amount("batch_size", batch_size)
    factor = check.real("factor", factor, 1, low_open=True)
    _check_last(factor, lr, batch_size, limit, len(lengths))
    phases = []
    for k, length in enumerate(lengths):
        size = min(batch_size * factor**k, limit)
        size = int(size) if float(size).is_integer() else size
        # An exact 1 keeps a rate that does not fall free of rounding.
        left = batch_size * factor**k / size
        phases.append(Phase(length, lr / left, size, momentum))
    return tuple(phases)


def _check_last(factor, lr, batch_size, limit, phases):
    """Check that the last phase has a finite batch size, and a rate above zero."""
    try:
        size = float(batch_size * factor ** (phases - 1))
    except OverflowError:
        size = np.inf
    if size == np.inf or lr / (size / min(size, limit)) == 0:
        allowed = f"a smaller one, with which {phases} phases stay within floats"
        check.reject("factor", factor, allowed)


def matched_batch_size(phase, *, lr=None, momentum=None):
    r"""Return the batch size at which other settings have the noise scale of a phase.

    :math:`B' = B\,\frac{\epsilon'}{\epsilon}\,\frac{1 - m}{1 - m'}`: the batch grows with the
    rate, and with the memory of momentum.

    Parameters
    ----------
    phase : Phase
    lr : float, optional
        The other rate, positive. The default is the phase's own.
    momentum : float, optional
        The other momentum, at least 0 and below 1. The default is the phase's own.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        If an argument is out of its range.

    References
    ----------
    Smith et al. (2018), sections 4 and 5.2.

    Examples
    --------
    >>> round(matched_batch_size(Phase(200, 0.1, 128, 0.9), lr=0.5, momentum=0.98), 6)
    3200.0
    """
    if not isinstance(phase, Phase):
        check.reject("phase", phase, "a Phase")
    lr = phase.lr if lr is None else check.positive("lr", lr)
    if momentum is None:
        momentum = phase.momentum
    momentum = check.below_one("momentum", momentum)
    return phase.batch_size * lr / phase.lr * (1 - phase.momentum) / (1 - momentum)


def updates(schedule, examples):
    r"""Return the number of parameter updates, :math:`\sum N \cdot \text{epochs} / B`.

    It is a real number, as in the paper's counts; `steps_by_phase` has the whole steps.

    Parameters
    ----------
    schedule : sequence of Phase
    examples : int
        N, the number of training examples, at least 1.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        If an argument is out of its range.

    Examples
    --------
    >>> updates(decay_lr([60, 60, 40, 40], 0.1, 128), 50_000)
    78125.0
    """
    schedule, examples = _checked(schedule, examples)
    return float(sum(examples * phase.epochs / phase.batch_size for phase in schedule))


def steps_by_phase(schedule, examples):
    """Return the whole steps of each phase.

    A phase ends with the step that uses up its last epoch. What this step takes too much is the
    next phase's, so schedules stay aligned by examples.

    Parameters
    ----------
    schedule : sequence of Phase
    examples : int
        N, the number of training examples, at least 1.

    Returns
    -------
    list of int

    Raises
    ------
    ValueError
        If an argument is out of its range, or a phase is so short that no step is left to it.
    """
    schedule, examples = _checked(schedule, examples)
    pairs = [(phase.epochs, phase.batch_size) for phase in schedule]
    return steps_of_epochs(pairs, examples, "schedule[{}].epochs")


def steps_of_epochs(pairs, examples, name):
    """Return the whole steps of pairs of epochs and batch size, as `steps_by_phase` says.

    Parameters
    ----------
    pairs : sequence of (float, float)
        Positive.
    examples : int
    name : str
        That of a pair's epochs in errors, with ``{}`` for its place.
    """
    steps, used, end = [], 0, 0
    for i, (epochs, batch_size) in enumerate(pairs):
        end += round(epochs * examples)
        if isinstance(batch_size, int) and isinstance(used, int):
            steps.append(-(-(end - used) // batch_size))
        else:  # without the small number, rounding of a real batch size could add a step
            steps.append(int(np.ceil((end - used) / batch_size - 1e-9)))
        if steps[-1] < 1:
            check.reject(name.format(i), epochs, "epochs enough for one more step")
        used += steps[-1] * batch_size
    return steps


def examples_by_step(schedule, examples):
    """Return the examples used after 0, 1, 2, ... steps, to draw a curve against epochs.

    Parameters
    ----------
    schedule : sequence of Phase
    examples : int
        N, the number of training examples, at least 1.

    Returns
    -------
    ndarray, shape (steps + 1,)
        Divide by `examples` for epochs.

    Raises
    ------
    ValueError
        As `steps_by_phase`.
    """
    steps = steps_by_phase(schedule, examples)
    sizes = np.repeat([float(phase.batch_size) for phase in schedule], steps)
    return np.concatenate([[0.0], np.cumsum(sizes)])


def published_schedules():
    """Return the five schedules of the paper for a wide ResNet on CIFAR-10.

    Training has 50,000 images and 200 epochs; the noise falls by 5 after 60, 120 and 160. All five
    begin with the same noise scale and lower it alike. `updates` gives 78,125, 34,375, 28,875,
    6,406 and 2,305 (rounded); the paper writes about 80,000, 29,000, 6,500 and 2,500 for all but
    the second.

    The batch of the third grows without a limit, up to 16,000. The last two counts come out only
    if the batch stops at 5,120, a tenth of the training set, and the rate is divided from there
    on. With this limit the third would need 29,141 updates.

    Returns
    -------
    dict of str to tuple of Phase

    References
    ----------
    Smith et al. (2018), sections 5.1 and 5.2.
    """
    epochs = (60, 60, 40, 40)
    first = Phase(epochs[0], 0.1, 128, 0.9)
    fast = round(matched_batch_size(first, lr=0.5))
    heavy = round(matched_batch_size(first, lr=0.5, momentum=0.98))
    return {
        "decay the rate": decay_lr(epochs, 0.1, 128, 0.9),
        "hybrid": hybrid(epochs, 0.1, 128, 0.9),
        "increase the batch": increase_batch(epochs, 0.1, 128, 0.9),
        "higher rate": increase_batch(epochs, 0.5, fast, 0.9, max_batch_size=5120),
        "higher rate and momentum": increase_batch(epochs, 0.5, heavy, 0.98, max_batch_size=5120),
    }


def _checked(schedule, examples):
    schedule = tuple(schedule) if isinstance(schedule, Iterable) else ()
    if not schedule or not all(isinstance(phase, Phase) for phase in schedule):
        check.reject("schedule", schedule, "a non-empty sequence of Phase")
    return schedule, check.integer("examples", examples, 1)
