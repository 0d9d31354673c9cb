"""What a process has set in torch changes no result, and stays as it was."""

import itertools
import subprocess
import sys
import threading
from contextlib import contextmanager, nullcontext

import numpy as np
import pytest
import torch

from batchscaling.training import (
    Objective,
    Schedule,
    digits,
    gradient_products,
    grid,
    heavy_ball,
    hessian_product,
    measure_noise,
    mlp,
    per_example_gradients,
    softmax_regression,
    train,
)
from batchscaling.training._torch_state import matrix_products
from batchscaling.training.data import generator

NEW = hasattr(torch._C, "_get_fp32_precision_getter")
NEEDS_NEW = pytest.mark.skipif(not NEW, reason="torch before 2.9")
MODEL = mlp([64, 8, 10])


def readings():
    """Return what can be read of torch's settings; an error is a reading too."""

    def read(getter):
        try:
            return getter()
        except RuntimeError:
            return "error"

    getters = {
        "matmul": torch.get_float32_matmul_precision,
        "cublas": lambda: torch.backends.cuda.matmul.allow_tf32,
        "cudnn": lambda: torch.backends.cudnn.allow_tf32,
        "dtype": torch.get_default_dtype,
        "device": lambda: torch.empty(0).device,
        "grad": torch.is_grad_enabled,
        "inference": torch.is_inference_mode_enabled,
        "autocast": lambda: (torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")),
        "cache": torch.is_autocast_cache_enabled,
        "anomaly": lambda: (torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled()),
        "deterministic": torch.are_deterministic_algorithms_enabled,
        "threads": torch.get_num_threads,
        "random": lambda: torch.get_rng_state().sum().item(),
    }
    if NEW:
        for leaf in itertools.product(("cuda", "mkldnn"), ("all", "matmul", "conv", "rnn")):
            getters[leaf] = lambda leaf=leaf: torch._C._get_fp32_precision_getter(*leaf)
    return {name: read(getter) for name, getter in getters.items()}


@contextmanager
def set_to(setter, value, before):
    setter(value)
    try:
        yield
    finally:
        setter(before)


def precision(backend, operation, value, before="none"):
    def setter(value):
        torch._C._set_fp32_precision_setter(backend, operation, value)

    return set_to(setter, value, before)


STATES = {
    "medium": lambda: set_to(torch.set_float32_matmul_precision, "medium", "highest"),
    "float64": lambda: set_to(torch.set_default_dtype, torch.float64, torch.float32),
    "a default device": lambda: set_to(torch.set_default_device, "meta", None),
    "a device": lambda: torch.device("meta"),
    "no_grad": torch.no_grad,
    "inference": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "anomaly": lambda: torch.autograd.set_detect_anomaly(True),
    "deterministic": lambda: set_to(torch.use_deterministic_algorithms, True, False),
    "threads": lambda: set_to(torch.set_num_threads, 2, 1),
}
NEW_STATES = {
    "cuda tf32": lambda: precision("cuda", "matmul", "tf32"),
    "mkldnn bf16": lambda: precision("mkldnn", "matmul", "bf16"),
    "all tf32": lambda: precision("generic", "all", "tf32"),
    "mkldnn all": lambda: precision("mkldnn", "all", "tf32"),
}
ALL = [*STATES, *(pytest.param(name, marks=NEEDS_NEW) for name in NEW_STATES)]


def numbers(data):
    """Return numbers of every function that computes with networks."""
    trials = grid([0, 1], lr=[0.1, 1e20], momentum=0.9)  # half of them diverge
    run = {"batch_size": 8, "max_steps": 6}
    trained = [train(data, MODEL, heavy_ball, trials, **run, precision=p) for p in ("tf32", "bf16")]
    trained.append(train(data, MODEL, heavy_ball, trials, **run))
    noise = measure_noise(data, MODEL, heavy_ball, trials, **run)
    params = START
    some = data.train_inputs[:6], data.train_labels[:6]
    product, dim = hessian_product(MODEL, params, *some)
    return [
        *(result.loss for result in trained),
        *(noise.small_norm, noise.loss),
        per_example_gradients(MODEL, params, *some).numpy(),
        *gradient_products(MODEL, params, *some),
        product(np.ones(dim)),
    ]


START = MODEL.init(generator(0, "init"))


@pytest.fixture(scope="module")
def usual(data):
    return numbers(data)


@pytest.mark.parametrize("name", ALL)
def test_no_setting_changes_a_number_and_all_stay(data, usual, name):
    with {**STATES, **NEW_STATES}[name]():
        before = readings()
        found = numbers(data)
        assert readings() == before
    for ours, theirs in zip(found, usual, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@NEEDS_NEW
def test_settings_stay_those_of_their_parents():
    train(digits(), MODEL, heavy_ball, grid(0, lr=0.1, momentum=0), batch_size=8, max_steps=1)
    for backend in ("cuda", "mkldnn"):
        with precision(backend, "all", "ieee"):
            inside = readings()
        assert inside[backend, "matmul"] == inside[backend, "conv"] == "ieee"


@NEEDS_NEW
@pytest.mark.parametrize("tf32", [False, True])
@pytest.mark.parametrize("parent", ["ieee", "tf32"])
def test_every_product_of_a_gpu_has_the_precision_that_was_asked_for(monkeypatch, parent, tf32):
    """The settings exist without a GPU, too."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with precision("cuda", "all", parent):
        before = readings()
        with matrix_products(tf32=tf32):
            inside = readings()
        assert readings() == before
    torch.backends.cudnn.allow_tf32 = True  # as torch begins
    assert inside["cublas"] is inside["cudnn"] is tf32
    assert inside["matmul"] == ("high" if tf32 else "highest")
    for operation in ("matmul", "conv", "rnn"):
        assert inside["cuda", operation] == ("tf32" if tf32 else "ieee")
        assert inside["mkldnn", operation] == "ieee"


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_settings_stay_after_an_error(data, error):
    def fail(step, hyper):
        inside.append(readings())
        raise error

    inside, trials = [], grid(0, lr=0.1, momentum=0.5)
    for name, state in STATES.items():
        with state():
            before = readings()
            with pytest.raises(error):
                train(data, MODEL, heavy_ball, trials, batch_size=8, max_steps=2,
                      schedule=Schedule(fail, {}))  # fmt: skip
            assert readings() == before, name
    read = {(r["dtype"], r["device"].type, r["grad"], r["autocast"][0]) for r in inside}
    assert read == {(torch.float32, "cpu", True, False)}
    assert {r["matmul"] for r in inside} == {"highest"}


@pytest.mark.parametrize("where", [torch.inference_mode, nullcontext])
def test_tensors_made_in_inference_mode_are_taken(where):
    with where():
        data, params = digits(), MODEL.init(generator(0, "init"))
    some = data.train_inputs[:4], data.train_labels[:4]
    assert per_example_gradients(MODEL, params, *some).abs().sum() > 0
    assert np.isfinite(hessian_product(MODEL, params, *some)[0](np.ones(610))).all()
    trials = grid(0, lr=0.1, momentum=0)
    assert not train(data, MODEL, heavy_ball, trials, batch_size=8, max_steps=2).diverged.any()


MEMORY = """
import numpy as np, psutil
from batchscaling.training import digits, grid, mlp, sgd, train
{training}
rss = lambda: psutil.Process().memory_info().rss / 2**20
before = rss()
large = [np.ones(2**17) for _ in range(600)]
small = np.ones(100)
assert rss() - before > 500
del large
print(rss() - before)
"""
TRAINING = "train(digits(), mlp([64, 10]), sgd, grid([0, 1], lr=0.1), batch_size=8, max_steps=5)"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the settings are glibc's")
@pytest.mark.parametrize("training", ["", TRAINING], ids=["imported", "trained"])
def test_the_process_returns_memory(training):
    script = MEMORY.format(training=training)
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert float(run.stdout) < 100


def test_trainings_in_threads_leave_the_default_as_it_was():
    data, trials = digits(), grid([0, 1], lr=0.1, momentum=0.5)
    inside, go_on = threading.Event(), threading.Event()

    def factor(step, hyper):
        inside.set()
        go_on.wait(60)
        return 1.0

    def run(schedule):
        train(data, MODEL, heavy_ball, trials, schedule=schedule, batch_size=8, max_steps=2)

    torch.set_default_dtype(torch.float64)
    try:
        first = threading.Thread(target=run, args=(Schedule(factor, {}),))
        first.start()
        assert inside.wait(60)
        second = threading.Thread(target=run, args=(Schedule(lambda step, hyper: 1.0, {}),))
        second.start()
        second.join()
        assert torch.get_default_dtype() == torch.float32  # the first one still trains
        go_on.set()
        first.join()
        assert torch.get_default_dtype() == torch.float64
    finally:
        go_on.set()
        torch.set_default_dtype(torch.float32)


def test_a_default_device_changes_no_data_set(monkeypatch):
    expected = digits()
    objective = Objective.of(expected, softmax_regression(64, 10), 0.1)
    torch.set_default_device("meta")
    try:
        found = digits()
        with torch.no_grad():
            again = Objective.of(expected, softmax_regression(64, 10), 0.1)
    finally:
        torch.set_default_device(None)
    assert found.train_inputs.device.type == "cpu" and again == objective
    assert torch.equal(found.train_inputs, expected.train_inputs)
