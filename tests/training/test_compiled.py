"""Compiled steps: the same results up to rounding, whatever the number of rows left."""

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from torch._dynamo.utils import counters

from batchscaling.training import digits, grid, heavy_ball, mlp, train


@pytest.mark.skipif(not any(map(shutil.which, ("g++", "clang++", "c++"))), reason="no C++ compiler")
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


WITHOUT = """
import torch
from batchscaling.training import digits, grid, mlp, sgd, train
try:
    train(digits(), mlp([64, 10]), sgd, grid(0, lr=.1), batch_size=8, max_steps=2, compiled=True)
except ValueError as error:
    print(error)
"""


def test_without_a_compiler_the_error_names_the_argument(tmp_path):
    cache = {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path), "CXX": "/none", "PATH": str(tmp_path)}
    run = subprocess.run(
        [sys.executable, "-c", WITHOUT], env={**os.environ, **cache}, capture_output=True, text=True
    )
    assert run.stdout.startswith("compiled is True; allowed: False"), run.stderr
    assert "compiler" in run.stdout
