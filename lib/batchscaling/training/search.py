"""Quasi-random search of hyperparameters."""

from collections.abc import Mapping

from scipy.stats import qmc

from batchscaling import _validation as check
from batchscaling.ranges import Range


def draw(space, count, *, seed, skip=0):
    """Return quasi-random settings: points of a scrambled Halton sequence.

    Parameters
    ----------
    space : mapping of str to Range
    count : int
        Number of settings, at least 1.
    seed : int
        Of the scrambling.
    skip : int
        Points of the sequence to leave out first, so that a search can go on.

    Returns
    -------
    dict of str to numpy.ndarray, each of shape (count,)
        Values of the ranges by name.

    Raises
    ------
    ValueError
        If an argument is outside its range.

    References
    ----------
    .. [1] Bousquet, Gelly, Kurach, Teytaud and Vincent (2017), Critical hyper-parameters: no
       random, no cry.
    """
    ranges = space.values() if isinstance(space, Mapping) else ()
    if not ranges or not all(isinstance(each, Range) for each in ranges):
        check.reject("space", space, "a mapping of names to Range, not empty")
    sequence = qmc.Halton(len(space), seed=check.integer("seed", seed, 0))
    skip, count = check.integer("skip", skip, 0), check.integer("count", count, 1)
    points = sequence.random(skip + count)[skip:]
    return {name: space[name].values(column) for name, column in zip(space, points.T, strict=True)}


def hyperparameters(values):
    """Return the hyperparameters of searched values.

    ``effective_lr`` is ``lr / (1 - momentum)``, at which different momenta share their best rate
    while noise is the limit: so searching it needs fewer trials. ``relative_extrapolation`` is
    ``extrapolation / lr``. All others go by their names.

    Parameters
    ----------
    values : mapping of str to numpy.ndarray

    Returns
    -------
    dict of str to numpy.ndarray

    Raises
    ------
    ValueError
        If a column is none, or the momentum or rate that one refers to is missing.
    """
    values = {name: check.array(name, column) for name, column in values.items()}
    if "effective_lr" in values:
        values["lr"] = values.pop("effective_lr") * (
            1 - _beside("effective_lr", "momentum", values)
        )
    if "relative_extrapolation" in values:
        relative = values.pop("relative_extrapolation")
        values["extrapolation"] = relative * _beside("relative_extrapolation", "lr", values)
    return values


def _beside(name, other, values):
    """Return the values of another hyperparameter that one is given by."""
    if other not in values:
        check.reject("values", sorted({name, *values}), f"{other!r} beside {name!r}")
    return values[other]
