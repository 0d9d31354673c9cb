"""What tells runs from others: methods have digests of their own, and rounding changes none."""

from dataclasses import replace

import pytest
import torch

from batchscaling.training import (
    FlipCrop,
    Model,
    Schedule,
    adam,
    chain,
    constant,
    decoupled_weight_decay,
    digits,
    fix,
    grid,
    kfac,
    nesterov,
    nesterov_lookahead,
    perturbation,
    resnet,
    sgd,
    step_drops,
    synchronous,
    tiny_shakespeare,
    transformer_lm,
    weights_only,
    with_fisher,
)
from batchscaling.training.losses import cross_entropy, smoothed_cross_entropy
from batchscaling.training.optimizers import weight_decay
from batchscaling.training.workers.fingerprint import fingerprint
from batchscaling.training.workers.job import PARTS

STEPS = 50


def told(data, model, optimizer=sgd, loss=cross_entropy, schedule=constant):
    """Return what `fingerprint` tells of two trials."""
    how = {"loss": loss, "schedule": schedule, "exchange": synchronous(1)}
    hyper = {"lr": torch.tensor([0.1, 0.2])}
    trials = grid([3], lr=[0.1, 0.2])
    return fingerprint(data, model, optimizer, trials, **how, hyper=hyper, max_steps=STEPS)


OTHERS = {
    "shared": chain(perturbation("uniform", shared=True), sgd),
    "own": chain(perturbation("uniform"), sgd),
    "by_filter": chain(perturbation("uniform", by_filter=True), sgd),
    "empirical": with_fisher(kfac, "empirical"),
    "seldom": replace(kfac, looks=(replace(kfac.looks[0], every=20),)),
    "fixed": fix(nesterov, momentum=0.5),
    "fixed elsewhere": fix(nesterov, momentum=0.6),
    "coupled": chain(weight_decay, sgd),
    "of weights": chain(weights_only(weight_decay), sgd),
    "decoupled": chain(nesterov, decoupled_weight_decay),
    "ahead": chain(fix(weight_decay, weight_decay=0.1), nesterov_lookahead),
    "more ahead": chain(fix(weight_decay, weight_decay=0.2), nesterov_lookahead),
}


def test_each_optimizer_has_a_digest_of_its_own(data, model):
    methods = {name: part for name, part in PARTS.items() if "lr" in part.hyper} | OTHERS
    digests = {name: told(data, model, m)["optimizer (digest)"] for name, m in methods.items()}
    assert len(set(digests.values())) == len(digests) > 20


@pytest.mark.parametrize("optimizer", [adam, kfac])
def test_rounding_changes_no_digest(data, model, optimizer):
    def update(grads, state, params, hyper):
        updates, state = optimizer.update(grads, state, params, hyper)
        return {name: u * (1 + 3e-16) - 1e-17 for name, u in updates.items()}, state

    other = replace(optimizer, update=update)
    assert told(data, model, other) == told(data, model, optimizer)


def test_places_that_are_drawn_stay_integers(data, model):
    def draw(rng, params, batch_size):
        return {name: torch.randperm(len(p), generator=rng) for name, p in params.items()}

    def query(params, state, hyper, drawn):
        return {name: p[drawn[name]] for name, p in params.items()}

    digests = {
        told(data, model, replace(sgd, **changed))["optimizer (digest)"]
        for changed in ({}, {"query": query, "draw": draw})
    }
    assert len(digests) == 2


def test_each_schedule_has_a_digest_of_its_own_and_rounding_changes_none(data, model):
    def digest(schedule):
        return told(data, model, schedule=schedule)["schedule (digest)"]

    drops = [step_drops([step], 0.5) for step in range(1, STEPS)]
    assert len({digest(schedule) for schedule in (*drops, constant)}) == STEPS
    assert digest(step_drops([STEPS], 0.5)) == digest(constant)  # the last step is the one before
    ends = [Schedule(lambda step, hyper, end=end: end, {}) for end in (0.0, 1e-17)]
    assert digest(ends[0]) == digest(ends[1])
    near = Schedule(lambda step, hyper: 1 + 3e-16 + 0 * hyper["lr"], {})
    assert digest(near) == digest(constant)
    assert digest(Schedule(lambda step, hyper: 1 + hyper["lr"], {})) != digest(constant)


def test_each_loss_has_a_digest_of_its_own(data, model):
    losses = cross_entropy, smoothed_cross_entropy(0.1), smoothed_cross_entropy(0.2)
    assert len({told(data, model, loss=loss)["loss (digest)"] for loss in losses}) == 3


def test_a_network_with_the_same_parameters_and_another_function_is_told():
    text = tiny_shakespeare(length=8, validation=20, examples=100)
    two, four = (transformer_lm(65, width=8, heads=n, units=8, layers=1) for n in (2, 4))
    assert told(text, two)["outputs (digest)"] != told(text, four)["outputs (digest)"]
    assert told(text, two) == told(text, replace(two))


def test_augmentation_and_ghost_batches_are_told():
    data = digits(validation=60)
    data = replace(
        data,
        train_inputs=data.train_inputs.view(-1, 1, 8, 8),
        validation_inputs=data.validation_inputs.view(-1, 1, 8, 8),
    )
    small, large = (resnet(8, ghost_size=n, width=2, channels=1) for n in (4, 8))
    assert told(data, small)["ghost batch"] != told(data, large)["ghost batch"]
    kinds = [None, FlipCrop(1), FlipCrop(2)]
    digests = [told(replace(data, augment=kind), small)["augmentation (digest)"] for kind in kinds]
    assert len(set(digests)) == 3 and digests[0] == ""


def test_a_network_that_computes_in_float32_only_is_told_by_the_rest(data):
    def apply(params, inputs):
        return inputs.float() @ params["w"]

    narrow = Model(lambda rng: {"w": torch.randn(64, 10, generator=rng)}, apply)
    assert told(data, narrow)["outputs (digest)"] == ""
