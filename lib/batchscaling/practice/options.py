"""Options of what trains copies of a run again and again, and their checks."""

from functools import partial

from batchscaling import _validation as check

_MOST = 100_000  # steps and repetitions: more would take weeks, and memory to list them

OF_RUNS = {
    "steps": partial(check.integer, low=1, high=_MOST),
    "repeats": partial(check.integer, low=3, high=_MOST),
    "evaluated": partial(check.integer, low=1),
    "tolerance": check.positive,
    "confidence": partial(check.real, low=0, high=1, low_open=True, high_open=True),
    "seed": partial(check.integer, low=0),
}
"""The check of each option of branches and of races: ``check(name, value)``."""


def checked(kind, checks, options):
    """Return options, some or all, once they are checked.

    Parameters
    ----------
    kind : str
        Whose options they are.
    checks : dict of str to callable
    options : dict

    Returns
    -------
    dict

    Raises
    ------
    ValueError
        If one is out of its range, or there is none of this name.
    """
    for name in options:
        check.one_of(f"an option of {kind}", name, checks)
    return {name: checks[name](name, option) for name, option in options.items()}
