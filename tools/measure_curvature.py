"""Measure the curvature of networks as they train: the data of chapters networks/06 and 07.

    python -m tools.measure_curvature digits-mlp         # or a task below, or several

A network is trained by heavy ball, with three seeds. At some steps, on fixed training examples:
the spectrum of the Gauss-Newton matrix by Lanczos' method, the spectrum of the product of K-FAC's
factors, and curvature and gradient noise along the eigenvectors of these factors. Each task takes
some minutes of one core.
"""

import argparse
import json
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from batchscaling.curvature import (
    along_eigenbasis,
    gauss_newton_product,
    kronecker_eigenvalues,
    kronecker_factors,
)
from batchscaling.curves import fit_power, load_results
from batchscaling.noise import lanczos_spectrum
from batchscaling.training import OPTIMIZERS, TASKS
from batchscaling.training.device import one_thread
from batchscaling.training.evaluation import Evaluation
from batchscaling.training.loop import AT_ONCE, check_pieces
from batchscaling.training.program import Program
from batchscaling.training.provenance import provenance

FOLDER = Path(__file__).parents[1] / "data" / "curvature"
SEEDS = (0, 1, 2)
STEPS = (0, 3, 10, 30, 100, 300, 1000, 3000)
BATCH_SIZE = 64
SHOWN = 60  # directions of each layer, of the first seed, whose numbers are kept
LARGEST = 20
FLAT = 1e-6  # of the largest curvature: directions below are left out of fits


class Setting(NamedTuple):
    """How a task is measured.

    Attributes
    ----------
    steps : tuple of int
        When.
    examples : int
        How many of the first training examples it looks at.
    probes, lanczos : int
        Random vectors, and steps for each.
    hyper : dict of str to float
        Of heavy ball; empty for those of the book's sweep.
    """

    steps: tuple
    examples: int
    probes: int
    lanczos: int
    hyper: dict


SETTINGS = {
    "digits-mlp": Setting(STEPS[:-1], 1437, 2, 60, {}),
    "fashion-cnn-small": Setting(STEPS, 2000, 1, 40, {}),
    "mnist-autoencoder": Setting(STEPS, 2000, 2, 60, {"lr": 2.0**-6, "momentum": 0.9}),
    "shakespeare-transformer": Setting(
        (*STEPS[:-2], 600, 1000), 1000, 1, 40, {"lr": 2.0**-3, "momentum": 0.9}
    ),
}


def rounded(values):
    """Return numbers as nested lists, with five digits."""
    if np.ndim(values):
        return [rounded(value) for value in values]
    return float(f"{values:.5g}")


def hyperparameters(name, setting):
    """Return heavy ball's learning rate and momentum."""
    if setting.hyper:
        return setting.hyper
    cells = [c for c in load_results(task=name) if c.optimizer == "heavy_ball"]
    (cell,) = (c for c in cells if c.batch_size == BATCH_SIZE)
    tuned = cell.tuned("validation")
    return {key: tuned[key] for key in ("lr", "momentum")}


def trained(task, data, hyper, steps):
    """Yield each of some steps, the validation losses and the parameters of all seeds there."""
    pieces = check_pieces(AT_ONCE, task.model)
    program = Program(data, task.model, OPTIMIZERS["heavy_ball"], pieces, loss=task.loss)
    columns = {name: torch.full((len(SEEDS),), value) for name, value in hyper.items()}
    program.start(np.array(SEEDS), columns, BATCH_SIZE)
    evaluation = Evaluation(data, task.model, task.loss, pieces)
    with one_thread():
        for step in program.visit(steps, tqdm(disable=True)):
            params = program.readout()
            losses = evaluation.mean(params, "validation", np.arange(len(SEEDS)))[0]
            yield step, losses, params


def gauss_newton(case, setting, seed, loss):
    """Return what the file keeps of the spectrum of the Gauss-Newton matrix."""
    product, dim = gauss_newton_product(*case, loss=loss)
    options = {"steps": setting.lanczos, "probes": setting.probes, "seed": seed}
    spectrum = lanczos_spectrum(product, dim, **options)
    return {
        "nodes": rounded(spectrum.nodes),
        "weights": rounded(spectrum.weights),
        "trace": rounded(spectrum.trace(lambda h: h)[0]),
        "largest": rounded(np.sort(spectrum.nodes[0])[: -LARGEST - 1 : -1]),
    }


def at_outputs(case, loss, seed, draws=20):
    """Return the mean square of the outputs' slopes, for the data's labels and the model's own."""
    model, params, inputs, labels = case
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        outputs = model.apply(params, inputs)
        own = [
            loss.sampled_slope(outputs, torch.rand(outputs.shape, generator=rng)).square()
            for _ in range(draws)
        ]
        slopes = loss.slope(outputs, labels).square(), torch.stack(own)
    return rounded([square.sum(-1).mean() for square in slopes])


def shown(found):
    """Return K-FAC's curvature, the true one and the noise of some directions of a layer."""
    order = np.argsort(found.kronecker.ravel())[::-1]
    picks = order[np.unique(np.geomspace(1, len(order), SHOWN).astype(int)) - 1]
    return rounded([getattr(found, name).ravel()[picks] for name in found._fields[:3]])


def measure(task, setting, seed, step, params, examples):
    """Return what the file keeps of one network at one step."""
    case = (task.model, params, *examples)
    factors = kronecker_factors(*case, samples=4, seed=seed, loss=task.loss)
    found = along_eigenbasis(*case, factors, samples=2, seed=seed + 100, loss=task.loss)
    h, c = (
        np.concatenate([getattr(layer, name).ravel() for layer in found.values()])
        for name in ("curvature", "noise")
    )
    kronecker = kronecker_eigenvalues(factors)
    rank = np.unique(np.geomspace(1, len(h), SHOWN).astype(int))
    layers = {
        name: {
            "curvature": rounded(along.curvature.sum()),
            "noise": rounded(along.noise.sum()),
            "kronecker": rounded(along.kronecker.sum()),
            "gradient": rounded(np.square(along.gradient).sum()),
            **summary(along.curvature.ravel(), along.noise.ravel()),
            **({"shown": shown(along)} if seed == SEEDS[0] else {}),
        }
        for name, along in found.items()
    }
    return {
        "rank": rank.tolist(),
        "kronecker": rounded(kronecker[rank - 1]),
        "diagonal": rounded(np.sort(h)[::-1][rank - 1]),
        "outputs": at_outputs(case, task.loss, seed),
        "gauss_newton": gauss_newton(case, setting, seed, task.loss),
        **summary(h, c),
        "layers": layers,
    }


def summary(h, c):
    """Return how noise goes with curvature over directions that are not flat."""
    seen = (h > FLAT * h.max()) & (c > 0)
    fit = fit_power(h[seen], c[seen])
    return {
        "seen": int(seen.sum()),
        "exponent": rounded(fit.exponent),
        "correlation": rounded(fit.correlation),
        "ratio": rounded(c.sum() / h.sum()),
        "ratios": rounded(np.quantile(c[seen] / h[seen], (0.05, 0.5, 0.95))),
    }


def main(name):
    """Measure a task and write its file."""
    began, task, setting = time.perf_counter(), TASKS[name], SETTINGS[name]
    data, hyper = task.load(), hyperparameters(name, setting)
    examples = data.train_inputs[: setting.examples], data.train_labels[: setting.examples]
    runs = []
    for step, losses, rows in trained(task, data, hyper, setting.steps):
        for place, seed in enumerate(SEEDS):
            params = {key: p[place].clone() for key, p in rows.items()}
            found = measure(task, setting, seed, step, params, examples)
            runs.append({"seed": seed, "step": step, "loss": rounded(losses[place]), **found})
            print(name, step, seed, runs[-1]["loss"], *runs[-1]["ratios"], flush=True)
    result = {
        "task": name,
        "optimizer": "heavy_ball",
        "batch_size": BATCH_SIZE,
        "hyper": hyper,
        "examples": len(examples[0]),
        "dim": sum(p[0].numel() for p in rows.values()),
        "sizes": {key: p[0].numel() for key, p in rows.items()},
        "flat": FLAT,
        "runs": runs,
        "provenance": provenance(
            f"python -m tools.measure_curvature {name}", "cpu", time.perf_counter() - began
        ),
    }
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / f"{name}.json").write_text(json.dumps(result) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("task", nargs="+", choices=SETTINGS)
    for name in parser.parse_args().task:
        main(name)
