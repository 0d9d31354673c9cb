"""The search's fast risk against the exact one."""

import itertools

import numpy as np
import pytest

from batchscaling.nqm import (
    SGD,
    Averaged,
    ExtrapSGD,
    HeavyBall,
    Nesterov,
    NoisyQuadratic,
    risk_parts,
    steps_to_target,
)
from batchscaling.nqm._lanes import Lanes
from batchscaling.nqm.moments import stack

PROBLEM = NoisyQuadratic.power_law(60, 1.2)
RATES = np.array([0.003, 0.1, 0.7])
KINDS = [
    SGD(1.0),
    HeavyBall(1.0, 0.9),
    Nesterov(1.0, 0.7),
    Averaged(SGD(1.0), 0.95),
    Averaged(HeavyBall(1.0, 0.6), 0.9),
    ExtrapSGD(1.0, 0.5, 0.3),
]


def lanes_of(unit):
    methods = stack([unit.method()])
    return Lanes(PROBLEM, methods, np.zeros(len(RATES), dtype=int), RATES)


@pytest.mark.parametrize("unit", KINDS, ids=lambda unit: type(unit).__name__)
def test_risk_at_powers_of_two_is_the_exact_one(unit):
    steps = 2 ** np.arange(12)
    table = list(itertools.islice(lanes_of(unit).at_powers_of_two(), len(steps)))
    for lane, lr in enumerate(RATES):
        exact = [part.sum(axis=1) for part in risk_parts(PROBLEM, unit.with_lr(lr), steps)]
        for part in range(2):
            ours = np.array([row[part][lane] for row in table])
            scale = np.maximum(np.abs(exact[part]), 1e-9)
            assert np.all(np.abs(ours - exact[part]) <= 1e-6 * scale), (lr, part)


@pytest.mark.parametrize("unit", KINDS, ids=lambda unit: type(unit).__name__)
def test_crossings_are_close_to_the_exact_ones(unit):
    size, target = 50, 0.03
    exact = [steps_to_target(PROBLEM, unit.with_lr(lr), size, target) for lr in RATES]
    found = lanes_of(unit).crossings(slice(None), size, target, 1, 1, max(filter(None, exact)) + 2)
    for ours, steps in zip(found, exact, strict=True):
        if steps is not None:
            assert steps - 1 <= ours <= steps
        else:
            assert ours > max(filter(None, exact))


def test_times_after_the_window_keep_their_order():
    lanes = lanes_of(SGD(1.0))
    exact = [steps_to_target(PROBLEM, SGD(lr), 1e9, 0.03) for lr in RATES]
    found = lanes.crossings(slice(None), 1e9, 0.03, 1, 1, 3)
    assert min(found) > 3
    np.testing.assert_array_equal(np.argsort(found), np.argsort(exact))
