"""Every optimizer over the rows of many trials, as `torch.func.vmap` runs it."""

import math
import shutil

import numpy as np
import pytest
import tiny
import torch
from torch.func import vmap

from batchscaling.training import Optimizer, grid, mlp, train
from batchscaling.training.optimizers import (
    adam,
    adam_without_momentum,
    chain,
    decoupled_weight_decay,
    fix,
    heavy_ball,
    lars,
    layer_rate,
    nesterov,
    sgd,
    weight_decay,
    weights_only,
)

ROWS, STEPS = 5, 4
OPTIMIZERS = {
    "sgd": sgd,
    "heavy_ball": heavy_ball,
    "nesterov": nesterov,
    "adam": adam,
    "adam_without_momentum": adam_without_momentum,
    "adam_fixed": fix(adam, beta1=0.9, epsilon=1e-8),
    "adamw": chain(adam, decoupled_weight_decay),
    "l2": chain(weight_decay, nesterov),
    "lars": lars,
    "lars_of_weights": chain(weights_only(layer_rate), heavy_ball),
}
LOW_HIGH = {
    "lr": (0.01, 1),
    "momentum": (0, 0.99),
    "beta1": (0, 0.99),
    "beta2": (0, 0.999),
    "epsilon": (1e-8, 0.1),
    "trust": (0.001, 0.1),
    "weight_decay": (0, 0.1),
}

every_optimizer = pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)


def program(optimizer):
    """Return parameters, gradients of each step, and hyperparameters, all of them with rows."""
    rng = torch.Generator().manual_seed(0)
    shapes = {"weight": (ROWS, 3, 2), "bias": (ROWS, 2)}
    params, *grads = (
        {name: torch.randn(shape, generator=rng) for name, shape in shapes.items()}
        for _ in range(STEPS + 1)
    )
    params["bias"].zero_()
    hyper = {}
    for name in optimizer.hyper:
        low, high = LOW_HIGH[name]
        hyper[name] = low + (high - low) * torch.rand(ROWS, generator=rng)
        hyper[name][0] = low
    return params, grads, hyper


def run(optimizer, params, grads, hyper):
    init, update = vmap(optimizer.init), vmap(optimizer.update)
    state = init(params)
    for grad in grads:
        updates, state = update(grad, state, params, hyper)
        params = {name: params[name] + updates[name] for name in params}
    return params, state


def take(tensors, rows):
    """Return the given rows of every tensor in a nesting of dicts and tuples."""
    if isinstance(tensors, torch.Tensor):
        return tensors[rows]
    if isinstance(tensors, dict):
        return {name: take(tensor, rows) for name, tensor in tensors.items()}
    return tuple(take(tensor, rows) for tensor in tensors)


@every_optimizer
def test_a_row_is_the_trial_alone(optimizer):
    params, grads, hyper = program(optimizer)
    together = run(optimizer, params, grads, hyper)
    for row in range(ROWS):
        alone, state = take(params, row), optimizer.init(take(params, row))
        for grad in grads:
            updates, state = optimizer.update(take(grad, row), state, alone, take(hyper, row))
            alone = {name: alone[name] + updates[name] for name in alone}
        # Also their types, shapes and nesting are the same.
        torch.testing.assert_close(take(together, row), (alone, state), rtol=1e-6, atol=1e-6)


@every_optimizer
@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan, 3e38])
def test_a_row_that_diverges_leaves_the_others_bit_identical(optimizer, bad):
    params, grads, hyper = program(optimizer)
    before = run(optimizer, params, grads, hyper)
    for grad in grads[1:]:
        grad["weight"][2, 0] = bad
        grad["bias"][2] = bad
    after = run(optimizer, params, grads, hyper)
    others = [0, 1, 3, 4]
    torch.testing.assert_close(take(after, others), take(before, others), rtol=0, atol=0)
    assert not torch.equal(after[0]["weight"][2], before[0]["weight"][2])


@every_optimizer
def test_rows_that_leave_do_not_change_those_that_stay(optimizer):
    params, grads, hyper = program(optimizer)
    together, _ = run(optimizer, params, grads, hyper)
    rows = [1, 4]
    fewer, _ = run(optimizer, *(take(t, rows) for t in (params, tuple(grads), hyper)))
    torch.testing.assert_close(fewer, take(together, rows), rtol=1e-6, atol=1e-6)


@every_optimizer
def test_inputs_are_left_as_they_were(optimizer):
    params, grads, hyper = program(optimizer)
    again, grads_again, hyper_again = program(optimizer)
    run(optimizer, params, grads, hyper)
    torch.testing.assert_close(
        (params, grads, hyper), (again, grads_again, hyper_again), rtol=0, atol=0
    )


def test_adam_without_momentum_keeps_half_the_numbers():
    params, _, _ = program(adam)

    def numbers(state):
        return sum(
            tensor.numel() for name in state if name != "step" for tensor in state[name].values()
        )

    state, full = adam_without_momentum.init(params), adam.init(params)
    assert 2 * numbers(state) == numbers(full)


COMPILES = pytest.mark.skipif(
    not any(map(shutil.which, ("g++", "clang++", "c++"))), reason="no C++ compiler"
)


def of_differences(keep):
    """Return heavy ball whose state is the parameters before the step, as they are or copied."""

    def update(grads, state, params, hyper):
        steps = {name: p - state[name] for name, p in params.items()}
        updates = {n: hyper["momentum"] * steps[n] - hyper["lr"] * g for n, g in grads.items()}
        return updates, keep(params)

    return Optimizer(keep, update, heavy_ball.hyper)


@pytest.mark.parametrize(
    ("view", "compiled"),
    [(False, False), (True, False), *(pytest.param(v, True, marks=COMPILES) for v in (0, 1))],
)
def test_a_state_may_hold_the_parameters(view, compiled):
    data, model = tiny.load(), mlp([tiny.FEATURES, 8, tiny.CLASSES])
    trials = grid([0, 1], lr=0.05, momentum=0.9)
    how = {"batch_size": 16, "max_steps": 20, "evaluate_at": [0, 20], "compiled": compiled}
    held = of_differences(lambda params: {n: p[:] if view else p for n, p in params.items()})
    expected = train(data, model, heavy_ball, trials, **how).loss
    np.testing.assert_allclose(train(data, model, held, trials, **how).loss, expected, rtol=1e-4)


@pytest.mark.parametrize("keep", [dict, lambda params: {n: p.clone() for n, p in params.items()}])
def test_a_state_may_be_where_training_began(keep):
    """A pull towards the first parameters is weight decay of the distance from them."""
    data, model = tiny.load(), mlp([tiny.FEATURES, 8, tiny.CLASSES])

    def update(grads, state, params, hyper):
        pulls = {name: grads[name] + (p - state[name]) for name, p in params.items()}
        return {name: -hyper["lr"] * pull for name, pull in pulls.items()}, state

    how = {"batch_size": 16, "max_steps": 20, "evaluate_at": [0, 20]}
    anchored, free = (
        train(data, model, optimizer, grid([0, 1], lr=0.1), **how).loss[:, -1]
        for optimizer in (Optimizer(keep, update, sgd.hyper), sgd)
    )
    assert (anchored > free + 0.05).all()
