"""What a network is: pure functions over a dict of parameter tensors."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from batchscaling import _validation as check


@dataclass(frozen=True)
class Model:
    """A network as pure functions.

    All of them work under ``torch.func.vmap`` over parameters and inputs, and under
    ``torch.func.grad``. They depend on their arguments alone: training may record the operations
    of `apply` and `constrain` in one step, and repeat them in others.

    Attributes
    ----------
    init : callable
        ``init(rng)`` returns the parameters, a dict of float32 tensors, drawn from a
        `torch.Generator` on the CPU.
    apply : callable
        ``apply(params, inputs)`` returns the outputs: one row an example, or one row a position
        of an example.
    statistics : callable, optional
        Only of networks with ghost batch normalisation. ``statistics(params, inputs)`` returns
        means and variances of every normalised layer, a dict of tensors. For evaluation,
        ``apply(params, inputs, statistics)`` normalises with them; without them each ghost batch
        is normalised by its own, as in training. There are no running averages: statistics are
        taken anew from fixed training examples, for raw and averaged weights alike.
    constrain : callable, optional
        Only of networks with normalised weights. ``constrain(params)`` returns the parameters
        with these weights scaled back to norm 1. Training calls it after every step.
    ghost_size : int
        Examples in a ghost batch; 1 without ghost batch normalisation. Where memory is short,
        training cuts batches at multiples of it, so that no ghost batch is torn.
    """

    init: Callable
    apply: Callable
    statistics: Callable | None = None
    constrain: Callable | None = None
    ghost_size: int = 1

    def __post_init__(self):
        check.fields(self, ghost_size=partial(check.integer, low=1))


def positive_integers(name, values, count=None):
    """Return `values` as a tuple of positive int, `count` of them or at least one."""
    allowed = f"a sequence of {count or 'at least one'} positive integer(s)"
    try:
        values = tuple(values)
    except TypeError:
        check.reject(name, values, allowed)
    if not values or count not in (None, len(values)):
        check.reject(name, values, allowed)
    return tuple(check.integer(f"{name}[{i}]", value, 1) for i, value in enumerate(values))
