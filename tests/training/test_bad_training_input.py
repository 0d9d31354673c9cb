import re
from functools import partial

import numpy as np
import pytest

from batchscaling.training import (
    Trials,
    adam,
    autoencoder,
    batches,
    digits,
    evaluation_steps,
    fix,
    grid,
    heavy_ball,
    measure_noise,
    mlp,
    pixels_as_labels,
    sgd,
    synchronous,
    train,
    weight_decay,
)

nan, inf = float("nan"), float("inf")


def one(**hyper):
    return Trials(np.array([0]), {name: np.array([value]) for name, value in hyper.items()})


def run(data, model, optimizer=sgd, trials=None, **changes):
    trials = grid(0, lr=0.1) if trials is None else trials
    settings = {"batch_size": 8, "max_steps": 2} | changes
    return train(data, model, optimizer, trials, **settings)


TWO = {"batch_size": 8, "max_steps": 2}
BAD = [
    (lambda d, m: digits(validation=0), "validation is 0"),
    (lambda d, m: digits(validation=1797), "validation is 1797"),
    (lambda d, m: digits(validation=0.2), "validation is 0.2"),
    (lambda d, m: digits(seed=-1), "seed is -1"),
    (lambda d, m: digits(seed=True), "seed is True"),
    (lambda d, m: mlp([64]), "sizes is (64,)"),
    (lambda d, m: mlp(64), "sizes is 64"),
    (lambda d, m: mlp([64, 0, 10]), "sizes[1] is 0"),
    (lambda d, m: mlp([64, 10.0]), "sizes[1] is 10.0"),
    (lambda d, m: autoencoder([64]), "sizes is (64,)"),
    (lambda d, m: autoencoder([64, 0]), "sizes[1] is 0"),
    (lambda d, m: pixels_as_labels(d), "data is 'inputs of torch.float32 of shape (1437, 64)'"),
    (lambda d, m: next(batches(-2, 10, 5)), "seed is -2"),
    (lambda d, m: next(batches(0, 0, 5)), "examples is 0"),
    (lambda d, m: next(batches(0, 10, 11)), "batch_size is 11"),
    (lambda d, m: grid([], lr=0.1), "seeds is []"),
    (lambda d, m: grid([1, 1], lr=0.1), "seeds is [1, 1]"),
    (lambda d, m: grid([0, -1], lr=0.1), "seeds[1] is"),
    (lambda d, m: grid(0.5, lr=0.1), "seeds[0] is"),
    (lambda d, m: grid(0, lr=[]), "lr is"),
    (lambda d, m: grid(0, lr=[0.1, nan]), "lr is"),
    (lambda d, m: grid(0, lr="fast"), "lr is"),
    (lambda d, m: evaluation_steps(0), "max_steps is 0"),
    (lambda d, m: evaluation_steps(10, spacing=0), "spacing is 0"),
    (partial(run, batch_size=0), "batch_size is 0"),
    (partial(run, batch_size=1438), "batch_size is 1438"),
    (partial(run, batch_size=8.0), "batch_size is 8.0"),
    (partial(run, max_steps=0), "max_steps is 0"),
    (partial(run, max_steps=-3), "max_steps is -3"),
    (partial(run, target=0), "target is 0"),
    (partial(run, target=-1.0), "target is -1.0"),
    (partial(run, target=nan), "target is nan"),
    (partial(run, target=inf), "target is inf"),
    (partial(run, spacing=-0.1), "spacing is -0.1"),
    (partial(run, evaluate_at=[1, 2]), "evaluate_at is [1, 2]"),
    (partial(run, evaluate_at=[0, 1]), "evaluate_at is [0, 1]"),
    (partial(run, evaluate_at=[0, 2, 2]), "evaluate_at is [0, 2, 2]"),
    (partial(run, evaluate_at=[0, 0.5, 2]), "evaluate_at is [0, 0.5, 2]"),
    (partial(run, exchange="synchronous"), "exchange is 'synchronous'; allowed: an Exchange"),
    (partial(run, exchange=synchronous), "exchange is <function synchronous"),
    (partial(run, optimizer="sgd"), "optimizer is 'sgd'; allowed: an Optimizer such as sgd"),
    (partial(run, optimizer=None), "optimizer is None; allowed: an Optimizer"),
    (partial(run, optimizer=sgd.update), "optimizer is <function"),
    (partial(run, trials={"lr": [0.1]}), "trials is {'lr': [0.1]}; allowed: Trials such as"),
    (partial(run, loss="cross_entropy"), "loss is 'cross_entropy'; allowed: a Loss"),
    (partial(run, schedule=None), "schedule is None; allowed: a Schedule"),
    (partial(run, objective=3), "objective is 3; allowed: an Objective, or None"),
    (lambda d, m: run("digits", m), "data is 'digits'; allowed: a Data"),
    (lambda d, m: run(digits, m), "data is <function digits"),
    (lambda d, m: run(d, "mlp"), "model is 'mlp'; allowed: a Model"),
    (lambda d, m: measure_noise(d, None, sgd, grid(0, lr=0.1), **TWO), "model is None"),
    (lambda d, m: measure_noise(d, m, "sgd", grid(0, lr=0.1), **TWO), "optimizer is 'sgd'"),
    (partial(run, trials=one(lr=0.0)), "lr is"),
    (partial(run, trials=one(lr=-0.1)), "lr is"),
    (partial(run, trials=one(lr=inf)), "lr is"),
    (partial(run, trials=one(rate=0.1)), "trials.hyper is ['rate']"),
    (partial(run, trials=one(lr=0.1, momentum=0.5)), "trials.hyper is ['lr', 'momentum']"),
    (
        partial(run, trials=Trials(np.arange(2), {"lr": np.ones(3)})),
        "lr is 'an array of shape (3,)'",
    ),
    (partial(run, trials=one(lr=1e-50)), "lr is 1e-50; allowed: a finite number in (0, inf)"),
    (partial(run, trials=one(lr=1e300)), "lr is 1e+300"),
    (
        partial(run, optimizer=heavy_ball, trials=one(lr=0.1, momentum=0.999999999)),
        "momentum is 0.999999999",
    ),
    (partial(run, trials=one(lr=np.float32(0))), "lr is 0.0"),
    (lambda d, m: fix(adam, beta2=0.9999999999), "beta2 is 0.9999999999"),
    (lambda d, m: fix(adam, epsilon=1e-60), "epsilon is 1e-60"),
    (partial(run, optimizer=heavy_ball), "trials.hyper is ['lr']"),
    (
        partial(run, optimizer=weight_decay, trials=one(weight_decay=0.1)),
        "optimizer is \"a part, with ['weight_decay']\"; allowed: a complete optimizer",
    ),
    (partial(run, optimizer=heavy_ball, trials=one(lr=0.1, momentum=1.0)), "momentum is"),
    (partial(run, optimizer=heavy_ball, trials=one(lr=0.1, momentum=-0.1)), "momentum is"),
]


@pytest.mark.parametrize(("call", "message"), BAD, ids=[message for _, message in BAD])
def test_bad_input_names_parameter_value_and_what_is_allowed(data, model, call, message):
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        call(data, model)
    assert "allowed: " in str(error.value)
