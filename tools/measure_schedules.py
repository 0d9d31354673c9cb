"""Train a residual network with schedules of equal noise, and none, and store its training curves.

    python -m tools.measure_schedules --small              # minutes on one core of a CPU
    python -m tools.measure_schedules --device cuda        # the paper's setting, on a GPU

The default is the setting of Smith et al. (2018), section 5.1: a wide residual network 16-4 with
ghost batches of 128 on CIFAR-10. ``--small`` is a narrow ResNet-8 on 8,000 images of 16 by 16
pixels out of the 20,000 that this project keeps. Each has a file of its own.
"""

import argparse
import json
import time
from dataclasses import asdict, replace
from pathlib import Path

from batchscaling.noise import (
    Phase,
    decay_lr,
    hybrid,
    increase_batch,
    matched_batch_size,
    updates,
)
from batchscaling.training import (
    FlipCrop,
    chain,
    cifar10,
    from_phases,
    grid,
    heavy_ball,
    resnet,
    train,
    weight_decay,
    wide_resnet,
)
from batchscaling.training.provenance import provenance

AT_ONCE = 3 * 2**11
"""Images in one pass, over all seeds: the wide network keeps about 6 MB for each."""

FACTOR = 5
FOLDER = Path(__file__).parents[1] / "data" / "noise"


def setting(small):
    """Return data, network, phases' epochs and the first phase."""
    if small:
        data = cifar10(source="subset", validation=500, examples=8000, size=16)
        return data, resnet(8, width=8, ghost_size=32), (9, 6, 5), Phase(9, 0.1, 32, 0.9)
    data = cifar10(augment=FlipCrop())
    return data, wide_resnet(16, 4, ghost_size=128), (60, 60, 40, 40), Phase(60, 0.1, 128, 0.9)


def schedules(epochs, first, examples):
    """Return schedules of equal noise by name, as `published_schedules` has them; and none."""
    most = examples // 10
    start = first.lr, first.batch_size, first.momentum
    fast = round(matched_batch_size(first, lr=FACTOR * first.lr))
    return {
        "decay the rate": decay_lr(epochs, *start, factor=FACTOR),
        "hybrid": hybrid(epochs, *start, factor=FACTOR),
        "increase the batch": increase_batch(epochs, *start, factor=FACTOR),
        "higher rate": increase_batch(
            epochs, FACTOR * first.lr, fast, first.momentum, factor=FACTOR, max_batch_size=most
        ),
        "no schedule": (replace(first, epochs=sum(epochs)),),
    }


def run(schedule, data, model, seeds, device):
    """Train with one schedule, and return its curves, with two evaluations an epoch."""
    examples = len(data.train_inputs)
    sizes, rate = from_phases(schedule, examples)
    halves = range(1, 2 * sum(phase.epochs for phase in schedule) + 1)
    evaluate_at = sorted({0, sizes.steps, *(sizes.steps_for(k * examples // 2) for k in halves)})
    hyper = {"lr": schedule[0].lr, "momentum": schedule[0].momentum, "weight_decay": 5e-4}
    results = train(
        data,
        model,
        chain(weight_decay, heavy_ball),
        grid(seeds, **hyper),
        batch_size=sizes,
        max_steps=sizes.steps,
        schedule=rate,
        measures=("training",),
        evaluate_at=evaluate_at,
        device=device,
        at_once=AT_ONCE,
        progress=True,
    )
    return {
        "phases": [asdict(phase) for phase in schedule],
        "updates": updates(schedule, examples),
        "steps": results.steps.tolist(),
        "epochs": [sizes.examples(step) / examples for step in results.steps.tolist()],
        "training": results.losses["training"].tolist(),
        "validation": results.loss.tolist(),
        "accuracy": results.accuracy.tolist(),
    }


def main():
    """Read the options, train, and write the file."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    chosen = parser.parse_args()
    began = time.monotonic()
    data, model, epochs, first = setting(chosen.small)
    planned = schedules(epochs, first, len(data.train_inputs))
    curves = {
        name: run(schedule, data, model, range(chosen.seeds), chosen.device)
        for name, schedule in planned.items()
    }
    command = f"python -m tools.measure_schedules --seeds {chosen.seeds} --device {chosen.device}"
    record = {
        "examples": len(data.train_inputs),
        "curves": curves,
        "provenance": provenance(
            command + " --small" * chosen.small, chosen.device, time.monotonic() - began
        ),
    }
    FOLDER.mkdir(parents=True, exist_ok=True)
    path = FOLDER / f"schedules_cifar10{'_small' * chosen.small}.json"
    path.write_text(json.dumps(record) + "\n", "utf-8")


if __name__ == "__main__":
    main()
