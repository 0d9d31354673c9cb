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
    """
    values = {name: check.array(name, column) for name, column in values.items()}
    if "effective_lr" in values:
        values["lr"] = values.pop("effective_lr") * (1 - values["momentum"])
    if "relative_extrapolation" in values:
        values["extrapolation"] = values.pop("relative_extrapolation") * values["lr"]
    return values
