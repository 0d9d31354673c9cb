"""Draws from a known density: mean and variance of a skewed one, and of a correlated one."""

import numpy as np
import pytest
from scipy.special import digamma, polygamma

from batchscaling.noise import hamiltonian_draws

RATE = np.array([1.0, 4.0])  # shapes of two gamma variables; we draw their logarithms
CHAINS = np.zeros((200, 2))


def gamma_cost(u):
    return np.sum(np.exp(u) - RATE * u, axis=1)


def gamma_slope(u):
    return np.exp(u) - RATE


def test_logarithms_of_gamma_variables():
    draws, taken = hamiltonian_draws(gamma_cost, gamma_slope, CHAINS, moves=60, leaps=20, size=0.15)
    late = draws[20:].reshape(-1, 2)
    assert draws.shape == (60, 200, 2) and taken > 0.9
    np.testing.assert_allclose(late.mean(axis=0), digamma(RATE), atol=0.06)
    np.testing.assert_allclose(late.var(axis=0), polygamma(1, RATE), rtol=0.08)


def test_coarse_steps_are_refused_and_still_right():
    """Without the test of acceptance, steps this long give a variance that is far too large."""
    draws, taken = hamiltonian_draws(
        lambda u: np.sum(u**2, axis=1) / 2, lambda u: u, np.zeros((400, 3)), moves=80, leaps=3,
        size=1.4,
    )  # fmt: skip
    assert 0.3 < taken < 0.9
    np.testing.assert_allclose(draws[20:].var(axis=(0, 1)), 1, rtol=0.08)


def test_a_seed_fixes_the_draws():
    run = [
        hamiltonian_draws(gamma_cost, gamma_slope, CHAINS, moves=2, seed=seed)[0]
        for seed in (3, 3, 4)
    ]
    assert np.array_equal(run[0], run[1]) and not np.array_equal(run[0], run[2])


def test_functions_may_compute_in_place():
    def cost(u):
        return np.square(u, out=u).sum(axis=1) / 2

    def slope(u):
        u *= 2
        u /= 2
        return np.add(u, 0.5, out=u)

    pure = hamiltonian_draws(
        lambda u: (u**2).sum(axis=1) / 2, lambda u: u * 2 / 2 + 0.5, CHAINS, moves=3
    )
    assert np.array_equal(hamiltonian_draws(cost, slope, CHAINS, moves=3)[0], pure[0])


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("moves", 0),
        ("leaps", 1.5),
        ("size", 0.0),
        ("seed", -1),
        ("start", [0.0, 0.0]),
        ("cost", np.ones(200)),
        ("cost", lambda u: gamma_cost(u).sum()),
        ("slope", None),
        ("slope", lambda u: gamma_slope(u)[:1]),
    ],
)
def test_bad_input(name, bad):
    right = {"cost": gamma_cost, "slope": gamma_slope, "start": CHAINS, "moves": 2}
    with pytest.raises(ValueError, match=f"^{name} is"):
        hamiltonian_draws(**(right | {name: bad}))
