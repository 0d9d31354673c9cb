"""Compiled steps: the same results up to rounding, whatever the number of rows left."""

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from torch._dynamo.utils import counters

from batchscaling.training import OPTIMIZERS, digits, grid, heavy_ball, mlp, sgd, train
from batchscaling.training.loop import AT_ONCE
from batchscaling.training.program import Program
from batchscaling.training.rows import Pieces

COMPILER = any(map(shutil.which, ("g++", "clang++", "c++")))
compiles = pytest.mark.skipif(not COMPILER, reason="no C++ compiler")


@compiles
def test_compiled_steps_differ_by_rounding_only():
    trials = grid(seeds=range(2), lr=np.geomspace(0.02, 0.2, 4), momentum=0.9)
    task = {"batch_size": 64, "max_steps": 60, "target": 0.5}
    counters.clear()  # of other tests
    plain, compiled = (
        train(digits(), mlp([64, 64, 10]), heavy_ball, trials, **task, compiled=compiled)
        for compiled in (False, True)
    )
    crossing = plain.steps_to_target
    assert len(np.unique(crossing)) > 2  # rows leave one after the other
    np.testing.assert_array_equal(compiled.steps_to_target, crossing)
    np.testing.assert_allclose(compiled.loss, plain.loss, rtol=1e-4)
    assert counters["stats"]["unique_graphs"] >= 2 and not counters["graph_break"]


HYPER = {
    "adam": {"beta1": 0.9, "decay": 0.8},
    "extrap_sgd": {"momentum": 0.9, "extrapolation": 0.02},  # takes its gradient elsewhere
}


@compiles
@pytest.mark.parametrize("name", HYPER)
def test_compiled_steps_of_every_kind_of_optimizer(name):
    trials = grid(seeds=range(2), lr=[0.005, 0.01], **HYPER[name])
    task = {"batch_size": 32, "max_steps": 12, "evaluate_at": [0, 6, 12]}
    plain, compiled = (
        train(digits(), mlp([64, 10]), OPTIMIZERS[name], trials, **task, compiled=compiled)
        for compiled in (False, True)
    )
    assert (plain.loss[:, -1] < plain.loss[:, 0]).all()
    np.testing.assert_allclose(compiled.loss, plain.loss, rtol=1e-4)


@compiles
def test_two_programs_in_turns_do_not_take_each_others_steps():
    def halved(model):
        return replace(model, apply=lambda params, inputs: model.apply(params, inputs) / 2)

    models = mlp([64, 10]), halved(mlp([64, 10]))
    programs = [
        Program(digits(), model, sgd, Pieces(AT_ONCE, 1), compiled=compiled)
        for compiled in (False, True)
        for model in models
    ]
    for program in programs:
        program.start(np.zeros(2, int), {"lr": torch.tensor([0.1, 0.2])}, 16)
    for step, program in product(range(3), programs):
        program.step(step)
    weights = [program.readout()["layer0.weight"] for program in programs]
    for plain, compiled in zip(weights[:2], weights[2:], strict=True):
        torch.testing.assert_close(compiled, plain, rtol=1e-4, atol=1e-6)
    assert (weights[0] - weights[1]).abs().max() > 1e-3


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
