"""Compiled steps: the same results up to rounding, whatever the number of rows left."""

import shutil

import numpy as np
import pytest
from torch._dynamo.utils import counters

from batchscaling.training import digits, grid, heavy_ball, mlp, train

pytestmark = pytest.mark.skipif(
    not any(map(shutil.which, ("g++", "clang++", "c++"))), reason="no C++ compiler"
)


def test_compiled_steps_differ_by_rounding_only():
    trials = grid(seeds=range(2), lr=np.geomspace(0.02, 0.2, 4), momentum=0.9)
    task = {"batch_size": 64, "max_steps": 60, "target": 0.5}
    plain, compiled = (
        train(digits(), mlp([64, 64, 10]), heavy_ball, trials, **task, compiled=compiled)
        for compiled in (False, True)
    )
    crossing = plain.steps_to_target
    assert len(np.unique(crossing)) > 2  # rows leave one after the other
    np.testing.assert_array_equal(compiled.steps_to_target, crossing)
    np.testing.assert_allclose(compiled.loss, plain.loss, rtol=1e-4)
    assert counters["stats"]["unique_graphs"] >= 2 and not counters["graph_break"]
