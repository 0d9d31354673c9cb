r"""Draws from a density :math:`p(u) \propto e^{-C(u)}` that is known up to its factor."""

import numpy as np

from batchscaling import _validation as check


def hamiltonian_draws(cost, slope, start, *, moves, leaps=40, size=0.12, seed=0):
    r"""Return draws from :math:`e^{-C}` by Hamiltonian Monte Carlo, many chains side by side.

    A move gives each chain a random velocity, follows the landscape for `leaps` steps of length
    about `size`, and takes the new place with the probability that keeps the density right. Choose
    coordinates in which the density is about one unit wide in every direction, such as those of
    Laplace's approximation.

    Parameters
    ----------
    cost, slope : callable
        Map places, shape (chains, d), to C, shape (chains,), and to its gradient, (chains, d).
        They get copies, so they may compute in place.
    start : array_like, shape (chains, d)
    moves, leaps : int
        At least 1.
    size : float
        Positive. Too large a step shows in moves that are refused.
    seed : int

    Returns
    -------
    draws : ndarray, shape (moves, chains, d)
        The first ones still remember the start.
    taken : float
        Part of the moves that were taken.

    Raises
    ------
    ValueError
        If an argument is out of its range, or a function returns another shape.

    References
    ----------
    Neal, "MCMC using Hamiltonian dynamics", 2011.
    """
    place, size = check.array("start", start, ndim=2), check.positive("size", size)
    cost = _on_copies("cost", cost, place, place.shape[:1])
    slope = _on_copies("slope", slope, place, place.shape)
    leaps, rng = (
        check.integer("leaps", leaps, 1),
        np.random.default_rng(check.integer("seed", seed, 0)),
    )
    draws, taken = [], 0
    for _ in range(check.integer("moves", moves, 1)):
        velocity = rng.standard_normal(place.shape)
        before = cost(place) + np.sum(velocity**2, axis=1) / 2
        step = size * rng.uniform(0.7, 1.3)  # so that no chain runs in circles
        there, velocity = _leapfrog(slope, place, velocity, step, leaps)
        after = cost(there) + np.sum(velocity**2, axis=1) / 2
        accepted = np.log(rng.random(len(place))) < before - after
        place = np.where(accepted[:, None], there, place)
        draws.append(place)
        taken += accepted.mean()
    return np.array(draws), float(taken / len(draws))


def _on_copies(name, function, place, shape):
    """Return a function of copies of its argument, the shape of what it returns checked once."""
    if not callable(function):
        check.reject(name, function, "a function of an array of shape (chains, d)")
    found = np.shape(function(place.copy()))
    if found != shape:
        check.reject(name, f"a function that returns shape {found}", f"the shape {shape}")
    return lambda place: function(place.copy())


def _leapfrog(slope, place, velocity, step, leaps):
    velocity = velocity - step / 2 * slope(place)
    for leap in range(leaps):
        place = place + step * velocity
        velocity = velocity - step * (0.5 if leap == leaps - 1 else 1) * slope(place)
    return place, velocity
