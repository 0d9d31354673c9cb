"""Workers against the whole batch, and against a plain loop over each worker."""

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from batchscaling.training import (
    BatchSizes,
    Exchange,
    Trials,
    adam,
    batches,
    fix,
    grid,
    heavy_ball,
    local_steps,
    resnet32,
    sgd,
    synchronous,
    train,
)
from batchscaling.training.data import generator

ADAM = fix(adam, beta2=0.99, epsilon=1e-6)


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_synchronous_workers_are_the_whole_batch(data, model, workers):
    trials = grid([0, 1], lr=[0.003, 0.01], beta1=0.9, decay=0.5)
    options = {"batch_size": 48, "max_steps": 30, "measures": ["training", "averaged"]}
    whole = train(data, model, ADAM, trials, **options)
    shared = train(data, model, ADAM, trials, exchange=synchronous(workers), **options)
    for name, losses in whole.losses.items():
        np.testing.assert_allclose(shared.losses[name], losses, rtol=1e-3)


def plain(data, model, seed, lr, momentum, *, workers, every, batch_size, steps):
    """Return the validation loss of the mean of the workers' parameters after each step."""
    params = [model.init(generator(seed, "init")) for _ in range(workers)]
    velocity = [{name: torch.zeros_like(p) for name, p in params[0].items()} for _ in params]
    stream, losses = batches(seed, len(data.train_inputs), batch_size), []
    for step in range(steps + 1):
        mean = {name: sum(p[name] for p in params) / workers for name in params[0]}
        outputs = model.apply(mean, data.validation_inputs)
        losses.append(cross_entropy(outputs, data.validation_labels).item())
        for k, index in enumerate(next(stream).chunk(workers)):
            leaves = {name: p.clone().requires_grad_() for name, p in params[k].items()}
            outputs = model.apply(leaves, data.train_inputs[index])
            cross_entropy(outputs, data.train_labels[index]).backward()
            for name, leaf in leaves.items():
                velocity[k][name] = momentum * velocity[k][name] + leaf.grad
                params[k][name] = params[k][name] - lr * velocity[k][name]
        if (step + 1) % every == 0:
            mean = {name: sum(p[name] for p in params) / workers for name in params[0]}
            params = [dict(mean) for _ in params]
    return losses


@pytest.mark.parametrize("at_once", [64, 2**15])
def test_local_steps_are_those_of_a_plain_loop(data, model, at_once):
    trials = grid([3, 5], lr=[0.02, 0.1], momentum=0.5)
    options = {"batch_size": 24, "max_steps": 10, "spacing": 1e-6, "at_once": at_once}
    results = train(data, model, heavy_ball, trials, exchange=local_steps(3, 4), **options)
    for row, (seed, lr) in enumerate([(3, 0.02), (5, 0.02), (3, 0.1), (5, 0.1)]):
        how = {"workers": 3, "every": 4, "batch_size": 24, "steps": 10}
        expected = plain(data, model, seed, lr, 0.5, **how)
        np.testing.assert_allclose(results.loss[row], expected, rtol=1e-4)


def test_a_trial_with_workers_does_not_depend_on_its_neighbours(data, model):
    options = {"batch_size": 24, "max_steps": 40, "exchange": local_steps(2, 3)}
    lr = [0.02, 0.05, 0.3, 1e20]
    together = train(data, model, sgd, grid([0, 1], lr=lr), target=0.7, **options)
    assert together.diverged.any() and np.isfinite(together.steps_to_target).any()
    for row in (0, 5):
        alone = Trials(together.trials.seeds[[row]], {"lr": together.trials.hyper["lr"][[row]]})
        found = train(data, model, sgd, alone, target=0.7, **options)
        np.testing.assert_array_equal(found.loss[0], together.loss[row])


BAD = [
    (lambda: synchronous(0), "workers is 0"),
    (lambda: synchronous(2.5), "workers is 2.5"),
    (lambda: local_steps(2, 0), "every is 0"),
    (lambda: Exchange(-1, None), "workers is -1"),
]


@pytest.mark.parametrize(("call", "message"), BAD, ids=[message for _, message in BAD])
def test_bad_exchanges_are_told(call, message):
    with pytest.raises(ValueError, match=f"^{message}; allowed"):
        call()


@pytest.mark.parametrize("batch_size", [25, BatchSizes([(2, 24), (2, 25)])])
def test_workers_divide_every_batch_size(data, model, batch_size):
    options = {"batch_size": batch_size, "max_steps": 4, "exchange": synchronous(2)}
    with pytest.raises(ValueError, match=r"^batch_size is .*; allowed: a multiple of 2 workers"):
        train(data, model, sgd, grid(0, lr=0.1), **options)
    options["batch_size"] = 24
    with pytest.raises(
        ValueError, match=r"^batch_size is 24; allowed: .* times 16, the ghost batch"
    ):
        train(data, resnet32(ghost_size=16), sgd, grid(0, lr=0.1), **options)
