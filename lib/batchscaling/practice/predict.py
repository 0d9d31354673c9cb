r"""Steps, examples and time against batch size, and how hyperparameters move. Needs no torch.

With the critical batch size :math:`B_c`, of which the noise scale is an estimate,

.. math:: S(B) = S_\text{min} (1 + B_c/B), \qquad E(B) = E_\text{min} (1 + B/B_c) .

Time is steps times the seconds of a step. Of these, a line :math:`a + bB` holds on most devices:
then the fastest batch size is :math:`\sqrt{a B_c / b}`.
"""

from dataclasses import dataclass

import numpy as np

from batchscaling import _validation as check

METHODS = ("sgd", "adam")


@dataclass(frozen=True)
class Row:
    """What one batch size takes, each with its interval: (value, low, high).

    Steps, examples and time are of a run to the same loss, in units of the run as it is, or of its
    own if its number of steps was given.

    Attributes
    ----------
    batch_size : int
    steps, examples : tuple of float
    time : tuple of float or None
        On one device; None where no throughput was measured.
    cost : tuple of float or None
        Time by price.
    efficiency : tuple of float
        The fewest examples that any batch size takes, over those of this one.
    """

    batch_size: int
    steps: tuple
    examples: tuple
    time: tuple | None
    cost: tuple | None
    efficiency: tuple


@dataclass(frozen=True)
class Moved:
    """A hyperparameter at another batch size.

    Attributes
    ----------
    name : str
    value, moved : float
    rule : str
    valid : str
        Where the rule holds.
    """

    name: str
    value: float
    moved: float
    rule: str
    valid: str


def rate_factor(method, factor):
    """Return what the rate is multiplied with: k for SGD, the root of k for Adam."""
    factor = check.positive("factor", factor)
    return factor if check.one_of("method", method, METHODS) == "sgd" else float(np.sqrt(factor))


def half_life(decay, factor):
    """Return the decay that forgets half in as many examples, with batches `factor` as large.

    A decay of d halves what it remembers in log 2 / log(1/d) steps; d to the power of `factor` does
    so in a `factor`-th of them.
    """
    return check.below_one("decay", decay) ** check.positive("factor", factor)


def momentum_gain(momentum, *, nesterov=False):
    r"""Return about how many times the critical batch size of SGD that with momentum can be.

    While noise limits a run, momentum m acts like SGD with the effective rate
    :math:`\alpha/(1 - m)`: it takes as many examples. The largest stable effective rate is larger
    than that of SGD, by

    .. math:: \frac{1 + m}{1 - m}, \qquad \text{with Nesterov's momentum}\quad
        \frac{1 + m}{(1 - m)(1 + 2m)} .

    Large batches save up to so many steps more, if SGD would take many times the
    :math:`1/(1 - m)` steps that momentum remembers. Otherwise they save fewer, or take more.

    Parameters
    ----------
    momentum : float
        At least 0 and below 1.
    nesterov : bool

    Returns
    -------
    float
        At least 1.

    Raises
    ------
    ValueError
        If `momentum` is out of its range.
    """
    m = check.below_one("momentum", momentum)
    return (1 + m) / (1 - m) / (1 + 2 * m if nesterov else 1)


def steps_against(scale, batch_sizes, at):
    """Return steps and examples at batch sizes, over those at the batch size `at`.

    Parameters
    ----------
    scale : float
        Critical batch size.
    batch_sizes : array_like, shape (k,)
    at : float

    Returns
    -------
    steps, examples : numpy.ndarray, shape (k,)
    """
    scale, at = check.nonnegative("scale", scale), check.positive("at", at)
    sizes = check.array("batch_sizes", batch_sizes, positive=True)
    examples = (sizes + scale) / (at + scale)
    return examples * at / sizes, examples


def step_seconds(batch_sizes, seconds, wanted):
    """Return the seconds of a step at other batch sizes than those measured, which increase.

    Between measured sizes they are interpolated linearly; above, each example takes what it takes
    on average at the largest one; below the smallest, a step takes as long as that one.
    """
    sizes = _increasing("batch_sizes", check.array("batch_sizes", batch_sizes, positive=True))
    seconds = check.array("seconds", seconds, positive=True)
    check.same_shape("seconds", seconds, "batch_sizes", sizes.shape)
    wanted = check.array("wanted", wanted, positive=True)
    found = np.interp(wanted, sizes, seconds)
    return np.where(wanted > sizes[-1], seconds[-1] * wanted / sizes[-1], found)


def fastest(scale, batch_sizes, seconds, within=0.05):
    """Return the batch size that reaches a loss in the least time on one device.

    Parameters
    ----------
    scale : float
        Critical batch size.
    batch_sizes, seconds : array_like, shape (k,)
        Measured seconds of a step, at increasing batch sizes. Nothing is said beyond them.
    within : float
        Batch sizes that take up to so much more of the least time count as as fast.

    Returns
    -------
    best, low, high : float
        The fastest batch size, and the smallest and the largest that are as fast.
    """
    sizes = _increasing("batch_sizes", check.array("batch_sizes", batch_sizes, positive=True))
    within = check.nonnegative("within", within)
    grid = np.geomspace(sizes[0], sizes[-1], 512)
    time = steps_against(scale, grid, sizes[0])[0] * step_seconds(sizes, seconds, grid)
    fast = grid[time <= (1 + within) * time.min()]
    return float(grid[np.argmin(time)]), float(fast[0]), float(fast[-1])


def table(scale, batch_sizes, at, *, seconds=None, steps=1, price=1):
    """Return what each batch size takes, a `Row` for each.

    Parameters
    ----------
    scale : tuple of float
        Critical batch size: value, low, high.
    batch_sizes : sequence of int
    at : int
        Batch size of the run.
    seconds : tuple of array_like, optional
        Of a step at each batch size: value, low, high.
    steps : float
        Of the run.
    price : float
        Of a second on the device.

    Returns
    -------
    list of Row
    """
    sizes = check.array("batch_sizes", batch_sizes, positive=True)
    steps, price = check.positive("steps", steps), check.nonnegative("price", price)
    against = [np.array(steps_against(one, sizes, at)) * steps for one in scale]
    taken, seen = (_interval([pair[k] * unit for pair in against]) for k, unit in ((0, 1), (1, at)))
    efficiency = _interval([one / (one + sizes) for one in scale])
    time = cost = [None] * len(sizes)
    if seconds is not None:
        clock = _sorted(seconds)
        time = _interval([column * of for column, of in zip(taken.T, clock, strict=True)])
        cost = time * price
    rows = zip(sizes, taken, seen, time, cost, efficiency, strict=True)
    return [Row(int(size), *map(_plain, columns)) for size, *columns in rows]


def transfer(method, hyper, batch_size, to, *, scale=None):
    """Return the hyperparameters of a run at another batch size.

    Parameters
    ----------
    method : {"sgd", "adam"}
    hyper : dict of str to float
        Of ``lr``, ``momentum``, ``beta1``, ``beta2``, ``weight_decay`` (coupled),
        ``decoupled_weight_decay`` and ``warm_up`` (in steps), those that there are.
    batch_size, to : int
    scale : float, optional
        Critical batch size, for the range of validity.

    Returns
    -------
    list of Moved

    Raises
    ------
    ValueError
        If an argument is out of its range, or a name is not known.

    References
    ----------
    Malladi et al. (2022) on the root; Marek et al., "Small batch size training for language
    models", 2025, on the half-life of beta2.
    """
    k = check.integer("to", to, 1) / check.integer("batch_size", batch_size, 1)
    rate = rate_factor(method, k)
    limit = "while the batch is well below the critical batch size"
    if scale is not None:
        inside = "inside" if max(to, batch_size) <= np.ceil(scale) else "OUTSIDE"
        limit = f"up to about the critical batch size, {scale:.3g}: {inside}"
    root = {"sgd": "k", "adam": "√k"}[method]
    half = "half-life in examples stays: power of k"
    rules = {
        "lr": (lambda v: v * rate, f"times {root}", limit),
        "momentum": (lambda v: v, "stays", "time scale in examples grows by k; " + limit),
        "beta1": (lambda v: half_life(v, k), half, "while momentum is of little use; " + limit),
        "beta2": (
            lambda v: half_life(v, k),
            half,
            "down to B = 1, and up to k of about 1 / (1 - beta2)",
        ),
        "weight_decay": (lambda v: v, "stays: the rate moves it", limit),
        "decoupled_weight_decay": (
            lambda v: v * k / rate,
            "times k over the factor of the rate",
            limit,
        ),
        "warm_up": (lambda v: v / k, "as many examples: steps over k", "as for the rate"),
    }
    for name in hyper:
        check.one_of("hyper", name, rules)
    found = {name: check.nonnegative(name, value) for name, value in hyper.items()}
    return [Moved(n, v, rules[n][0](v), *rules[n][1:]) for n, v in found.items()]


def warm_up(examples, sizes, start):
    """Return batch sizes over a run, from sizes that were advised along it.

    Batch sizes are powers of two times the first, never above what was advised, and never fall.

    Parameters
    ----------
    examples : array_like, shape (k,)
        How many examples the run had seen, increasing.
    sizes : array_like, shape (k,)
        What was advised there.
    start : int
        The run's first batch size.

    Returns
    -------
    list of tuple of int
        Examples from which on, and the batch size.
    """
    examples = _increasing("examples", check.array("examples", examples, nonnegative=True))
    sizes = check.array("sizes", sizes, positive=True)
    check.same_shape("sizes", sizes, "examples", examples.shape)
    current = check.integer("start", start, 1)
    schedule = [(0, current)]
    for seen, size in zip(examples, sizes, strict=True):
        grown = current * 2 ** max(0, int(np.log2(size / current)))
        if grown > current:
            if schedule[-1][0] == int(seen):
                schedule.pop()  # it would hold for no example
            schedule.append((int(seen), grown))
            current = grown
    return schedule


def _increasing(name, numbers):
    if (np.diff(numbers) <= 0).any():
        check.reject(name, numbers.tolist(), "increasing numbers")
    return numbers


def _sorted(three):
    value, *ends = (np.asarray(part, dtype=float) for part in three)
    return value, np.minimum(*ends), np.maximum(*ends)


def _interval(three):
    """Return value, low and high as columns."""
    return np.stack(_sorted(three), axis=-1)


def _plain(values):
    return None if values is None else tuple(float(value) for value in values)
