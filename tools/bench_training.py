"""Time many trials at once against the ordinary training loop, in one run.

    python -m tools.bench_training

The ordinary loop is an nn.Module and torch.optim, one trial at a time, with the data in memory.
Both take turns, on one thread, and the ratio is the median over the turns. Rows of the MLP are also
timed as compiled programs: ours, and that of JAX where it is installed.
"""

import resource
import time
from unittest import mock

import numpy as np
import torch
from torch import nn
from tqdm.auto import tqdm

from batchscaling.training import (
    Cell,
    Data,
    Trials,
    batches,
    digits,
    grid,
    heavy_ball,
    local_steps,
    mlp,
    run_cell,
    simple_cnn,
    train,
)
from batchscaling.training._process import kept_memory
from batchscaling.training.evaluation import Evaluation
from batchscaling.training.loop import AT_ONCE
from batchscaling.training.program import Program
from batchscaling.training.rows import Pieces
from tools import bench_jax

TURNS = 7
TRIALS = 64
MLP = ((16, TRIALS, 200), (64, TRIALS, 100), (256, TRIALS, 40), (16, 384, 60), (64, 384, 30))
"""Batch sizes, trials and steps of the rows of the MLP."""
NEVER = 1e9  # spacing of evaluations that leaves none between start and end


def seconds(function):
    """Return the wall time of one call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def images(size, examples=2048, validation=64):
    """Return random grey images: for timing, what they show does not matter."""
    rng = torch.Generator().manual_seed(0)
    count = examples + validation
    inputs = torch.randn(count, 1, size, size, generator=rng)
    labels = torch.randint(10, (count,), generator=rng)
    return Data(inputs[:examples], labels[:examples], inputs[examples:], labels[examples:])


def ordinary_mlp():
    """Return the MLP as an ordinary module."""
    return nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))


def ordinary_cnn(size, filters, units):
    """Return the Simple CNN as an ordinary module."""
    first, second = filters
    return nn.Sequential(
        *(nn.Conv2d(1, first, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(first, second, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(second * (size // 4) ** 2, units), nn.ReLU()),
        nn.Linear(units, 10),
    )


def ordinary_loop(network, data, batch_size, steps):
    """Train one trial in the ordinary way."""
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.5)
    stream = batches(0, len(data.train_inputs), batch_size)
    criterion = nn.CrossEntropyLoss()
    for _ in range(steps):
        index = next(stream)
        optimizer.zero_grad()
        criterion(network(data.train_inputs[index]), data.train_labels[index]).backward()
        optimizer.step()


def rate(network, model, data, batch_size, trials, steps):
    """Return microseconds of a trial's step in both ways, and the ratio, each a median."""
    settings = grid(0, lr=np.geomspace(0.001, 0.01, trials), momentum=0.5)
    short = {"batch_size": batch_size, "spacing": NEVER}
    ours, loops = [], []
    for _ in range(TURNS):
        whole = seconds(lambda: train(data, model, heavy_ball, settings, max_steps=steps, **short))
        start = seconds(lambda: train(data, model, heavy_ball, settings, max_steps=1, **short))
        ours.append((whole - start) / (steps - 1) / trials)
        turns = max(4, steps // 4)
        loops.append(seconds(lambda n=turns: ordinary_loop(network, data, batch_size, n)) / turns)
    ratio = np.median(np.array(loops) / np.array(ours))
    return 1e6 * np.median(ours), 1e6 * np.median(loops), ratio


def compiled_turns(model, data, batch_size, trials, steps):
    """Yield microseconds of a trial's step in a compiled program, without compiling, each turn."""
    rates = torch.logspace(-3, -2, trials)
    program = Program(data, model, heavy_ball, Pieces(AT_ONCE, model.ghost_size), compiled=True)
    hyper = {"lr": rates, "momentum": torch.full_like(rates, 0.5)}
    program.start(np.zeros(trials, int), hyper, batch_size)
    with kept_memory(), tqdm(disable=True) as bar:
        visits = program.visit([1, *range(1 + steps, 2 + TURNS * steps, steps)], bar)
        next(visits)
        for _ in range(TURNS):
            yield 1e6 * seconds(lambda: next(visits)) / steps / trials


def compiled_rates(task, batch_size, trials, steps):
    """Return microseconds of a compiled trial's step, of that in JAX, and the ratio, medians."""
    ours = compiled_turns(*task, batch_size, trials, steps)
    if not bench_jax.found():
        return np.median(list(ours)), np.nan, np.nan
    with bench_jax.one_core():
        pairs = list(zip(ours, bench_jax.turns(batch_size, trials), strict=False))
    ours, others = np.transpose(pairs)
    return np.median(ours), np.median(others), np.median(others / ours)


def workers_rate(workers=16, local=16, every=8, steps=160):
    """Return microseconds of a round's step of simulated workers and of a loop over them."""
    data, model, size = digits(), mlp([64, 64, 10]), workers * local
    # Two trials: a lone one would be computed twice.
    settings = grid([0, 1], lr=0.01, momentum=0.5)
    short = {"batch_size": size, "spacing": NEVER, "exchange": local_steps(workers, every)}
    ours, loops = [], []
    for _ in range(TURNS):
        whole = seconds(lambda: train(data, model, heavy_ball, settings, max_steps=steps, **short))
        start = seconds(lambda: train(data, model, heavy_ball, settings, max_steps=1, **short))
        ours.append((whole - start) / (steps - 1) / 2)
        loops.append(seconds(lambda: loop_over_workers(data, workers, local, every)) / every)
    return 1e6 * np.median(ours), 1e6 * np.median(loops), np.median(np.array(loops) / ours)


def loop_over_workers(data, workers, local, every):
    """Take a round of local steps, one worker after the other, and average the parameters."""
    networks = [ordinary_mlp() for _ in range(workers)]
    for network in networks:
        ordinary_loop(network, data, local, every)
    with torch.no_grad():
        for parts in zip(*(network.parameters() for network in networks), strict=True):
            mean = torch.stack(parts).mean(0)
            for part in parts:
                part.copy_(mean)


def evaluation_share(steps=1000, **options):
    """Return the part of a run's time that its evaluations take, a median, and that time."""
    trials = Trials(np.zeros(TRIALS, int), {"lr": np.full(TRIALS, 0.01), "momentum": np.zeros(64)})
    task = {"batch_size": 64, "max_steps": steps}
    data, model = digits(), mlp([64, 64, 10])
    shares = []
    for _ in range(3):
        with_them = seconds(lambda: train(data, model, heavy_ball, trials, **task, **options))
        without = seconds(lambda: train(data, model, heavy_ball, trials, spacing=NEVER, **task))
        shares.append(1 - without / with_them)
    return np.median(shares), with_them


def share_of_cells(batch_size):
    """Return the time of a search of digits with its final, and the part of its evaluations."""
    plain, spent = Evaluation.mean, []

    def timed(*arguments):
        start = time.perf_counter()
        result = plain(*arguments)
        spent.append(time.perf_counter() - start)
        return result

    with mock.patch.object(Evaluation, "mean", timed):
        whole = seconds(lambda: run_cell(Cell("digits-mlp", "heavy_ball", batch_size)))
    return whole, sum(spent) / whole


def main():
    """Print the tables."""
    torch.set_num_threads(1)
    print("microseconds of one step of one trial: together, ordinary loop, ratio")
    for batch_size, trials, steps in MLP:
        task = mlp([64, 64, 10]), digits(), batch_size, trials, steps
        name = f"digits MLP, {trials} trials, B = {batch_size:4}"
        print(f"{name}:  %7.1f %8.1f %6.2f x" % rate(ordinary_mlp(), *task))
        row = compiled_rates(task[:2], batch_size, trials, steps)
        print("  compiled, the same in JAX, ratio:  {:22.1f} {:8.1f} {:6.2f} x".format(*row))
    for size, filters, units, trials in ((14, (8, 16), 64, 24), (28, (32, 64), 1024, 8)):
        model, network = (
            simple_cnn(size, filters=filters, units=units),
            ordinary_cnn(size, filters, units),
        )
        for batch_size in (16, 64, 256):
            # The first steps of a run take new memory, which is slower than that of later ones.
            steps = max(5, 320 // batch_size)
            row = rate(network, model, images(size), batch_size, trials, steps)
            name = f"CNN {size} by {size}, filters {filters}, {trials} trials, B = {batch_size}"
            print(f"{name}:  %7.0f %8.0f %6.2f x" % row)
    name = "16 workers of the digits MLP, 16 examples each"
    print(f"{name}:  %7.0f %8.0f %6.2f x" % workers_rate())
    print(f"1,000 steps of {TRIALS} trials, B = 64, and the part of it that evaluations take")
    for name, options in (
        ("every loss", {}),
        ("as sweeps do", {"target": 0.05, "exact": False}),  # which none of them reaches
    ):
        share, whole = evaluation_share(**options)
        print(f"{name}: {whole:.1f} s, {share:.0%}")
    print("one digits cell with its final, three targets, and the part that evaluations take")
    for batch_size in (16, 64, 256, 1437):
        whole, share = share_of_cells(batch_size)
        print(f"B = {batch_size:4}: {whole:.1f} s, {share:.0%}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"peak memory of this process: {peak:.0f} MiB")


if __name__ == "__main__":
    main()
