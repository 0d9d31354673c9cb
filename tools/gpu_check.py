"""Check a CUDA device against the CPU, then measure its throughput; under five minutes.

python -m tools.gpu_check [--device cuda]
"""

import argparse
import sys
import time

import numpy as np
import torch
from torch import nn

from batchscaling.training import (
    OPTIMIZERS,
    Trials,
    digits,
    grid,
    heavy_ball,
    mlp,
    simple_cnn,
    train,
)
from tools.bench_training import images, ordinary_cnn, ordinary_loop

TOLERANCE = {"float32": 2e-3, "tf32": 2e-2, "bf16": 0.1}
"""Largest relative difference of a validation loss to the CPU's over the first 30 steps."""


def curves(data, model, optimizer, device, precision="float32"):
    """Return the validation losses of eight trials over 30 steps."""
    hyper = {"lr": np.geomspace(0.001, 0.01, 8)}
    for name in ("momentum", "beta1"):
        if name in optimizer.hyper:
            hyper[name] = np.full(8, 0.9)
    trials = Trials(np.arange(8) % 2, hyper)
    task = {"batch_size": 64, "max_steps": 30, "device": device, "precision": precision}
    return train(data, model, optimizer, trials, **task).loss


def compare(device):
    """Print the differences between both devices; return whether all are small."""
    cases = [("digits MLP", digits(), mlp([64, 64, 10]), name) for name in OPTIMIZERS]
    for name, model in (("Simple CNN", simple_cnn(14, filters=(8, 16), units=64)),):
        cases.append((name, images(14), model, "heavy_ball"))
    good = True
    for name, data, model, optimizer in cases:
        reference = curves(data, model, OPTIMIZERS[optimizer], "cpu")
        for precision, tolerance in TOLERANCE.items():
            loss = curves(data, model, OPTIMIZERS[optimizer], device, precision)
            gap = np.abs(loss / reference - 1).max()
            good &= bool(gap <= tolerance)
            print(
                f"{name:12} {optimizer:22} {precision:8} differs by {gap:.1e} (at most {tolerance})"
            )
    return good


def throughput(device, trials=100, batch_size=64):
    """Print the trial-steps a second of the full Simple CNN, beside the ordinary loop there."""
    data, model = images(28), simple_cnn()
    settings = grid(0, lr=np.geomspace(0.001, 0.01, trials), momentum=0.9)
    task = {"batch_size": batch_size, "device": device, "spacing": 1e9, "at_once": 2**17}
    for precision, compiled in [*((name, False) for name in TOLERANCE), ("tf32", True)]:
        times = []
        for steps in (1, 1, 41):  # the first call compiles
            start = time.perf_counter()
            options = {"precision": precision, "compiled": compiled, "max_steps": steps}
            train(data, model, heavy_ball, settings, **options, **task)
            times.append(time.perf_counter() - start)
        ours = 40 * trials / (times[2] - times[1])
        how = f"{precision}, compiled" if compiled else precision
        print(f"Simple CNN, {trials} trials, B = {batch_size}, {how}: {ours:.0f} trial-steps/s")
    network = nn.Sequential(ordinary_cnn(28, (32, 64), 1024)).to(device)
    start = time.perf_counter()
    ordinary_loop(network, data.to(device), batch_size, 100)
    print(f"ordinary loop: {100 / (time.perf_counter() - start):.0f} trial-steps/s")


def main():
    """Check and measure; the exit status is 1 where the devices disagree."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cuda")
    device = parser.parse_args().device
    if device == "cuda" and not torch.cuda.is_available():
        sys.exit("no CUDA device: torch.cuda.is_available() is False")
    good = compare(device)
    throughput(device)
    sys.exit(0 if good else "the devices disagree")


if __name__ == "__main__":
    main()
