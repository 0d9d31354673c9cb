"""The labels of the Fisher matrix that an optimizer looks at, against a loop over labels."""

import numpy as np
import pytest
import torch

from batchscaling.training import Data, grid, kfac, mlp, sgd, train, with_fisher
from batchscaling.training.fisher import slopes_of
from batchscaling.training.losses import cross_entropy
from batchscaling.training.optimizers import Look, chain, kfac_preconditioner
from batchscaling.training.optimizers.base import Optimizer, no_state
from batchscaling.training.program import Program
from batchscaling.training.rows import Pieces

MODEL = mlp([4, 5, 3])


def some_data(examples=8):
    rng = torch.Generator().manual_seed(3)
    inputs = torch.randn(2 * examples, 4, generator=rng)
    labels = torch.randint(3, (2 * examples,), generator=rng)
    half = slice(examples), slice(examples, None)
    return Data(inputs[half[0]], labels[half[0]], inputs[half[1]], labels[half[1]])


def keeper(fisher):
    """Return an optimizer that keeps the moments that it was shown."""

    def update(grads, state, params, hyper):
        return {name: -hyper["lr"] * g for name, g in grads.items()}, state

    look = Look(1, lambda moments, state, hyper: moments, fisher)
    return Optimizer(no_state, update, {"lr": lambda name, value: float(value)}, looks=(look,))


def moments_of(optimizer, data, seeds=(0, 1)):
    """Return parameters at the start, and the optimizer's state after a step on all examples."""
    program = Program(data, MODEL, optimizer, Pieces(2**15, 1))
    hyper = {"lr": torch.full((len(seeds),), 0.1)}
    program.start(np.array(seeds), hyper, len(data.train_inputs))
    params = {name: p.clone() for name, p in program.rows.params.items()}
    program.step(0)
    return params, program.rows.state


def slopes(params, inputs, label):
    """Return the slopes of both layers for a label of every example: gradients of the biases."""
    found = []
    for example in inputs:
        leaves = {name: p.clone().requires_grad_() for name, p in params.items()}
        logits = MODEL.apply(leaves, example[None])[0]
        biases = [leaves["layer0.bias"], leaves["layer1.bias"]]
        found.append(torch.autograd.grad(-logits.log_softmax(0)[label], biases))
    return [torch.stack(parts) for parts in zip(*found, strict=True)]


def expected(params, data, weights):
    """Return the moments of slopes, each label with its weight, shape (examples, labels)."""
    total = [0.0, 0.0]
    for label in range(3):
        for k, rows in enumerate(slopes(params, data.train_inputs, label)):
            total[k] = total[k] + rows.T @ (weights[:, label, None] * rows)
    return [moment / len(weights) for moment in total]


@pytest.mark.parametrize("fisher", ["exact", "empirical"])
def test_moments_are_those_of_a_loop_over_examples_and_labels(fisher):
    data = some_data()
    params, state = moments_of(keeper(fisher), data)
    for trial in range(2):
        own = {name: p[trial] for name, p in params.items()}
        weights = torch.nn.functional.one_hot(data.train_labels, 3).float()
        if fisher == "exact":
            weights = MODEL.apply(own, data.train_inputs).softmax(1)
        for layer, moment in zip(("layer0", "layer1"), expected(own, data, weights), strict=True):
            torch.testing.assert_close(state[layer].outputs[trial], moment, rtol=1e-4, atol=1e-6)


def test_sampled_moments_have_the_exact_ones_as_their_mean():
    """On one example repeated: each copy draws its own label."""
    data = some_data(2)
    many = Data(data.train_inputs[:1].expand(4000, 4), data.train_labels[:1].expand(4000),
                data.train_inputs, data.train_labels)  # fmt: skip
    _, exact = moments_of(keeper("exact"), many, seeds=(0, 1))
    _, sampled = moments_of(keeper("sampled"), many, seeds=(0, 1))
    _, empirical = moments_of(keeper("empirical"), many, seeds=(0, 1))
    scale = exact["layer1"].outputs.abs().max()
    assert (sampled["layer1"].outputs - exact["layer1"].outputs).abs().max() < 0.1 * scale
    assert (empirical["layer1"].outputs - exact["layer1"].outputs).abs().max() > 0.3 * scale


def test_parts_of_a_chain_each_get_their_kind():
    both = chain(part("exact"), keeper("empirical"))
    data = some_data()
    _, (first, second) = moments_of(both, data)
    for fisher, state in (("exact", first), ("empirical", second)):
        _, alone = moments_of(keeper(fisher), data)
        torch.testing.assert_close(state["layer0"].outputs, alone["layer0"].outputs)


def part(fisher):
    look = Look(1, lambda moments, state, hyper: moments, fisher)
    return Optimizer(no_state, lambda grads, state, params, hyper: (grads, state), {},
                     looks=(look,))  # fmt: skip


@pytest.mark.parametrize("fisher", ["exact", "empirical"])
def test_trials_of_each_kind_do_not_depend_on_their_neighbours(fisher):
    optimizer = with_fisher(kfac, fisher)
    common = {"momentum": 0.5, "damping": 0.01, "kl_clip": 0.01, "factor_decay": 0.9}
    options = {"batch_size": 5, "max_steps": 13}
    rates = [0.05, 0.2, 0.4]
    together = train(some_data(), MODEL, optimizer, grid([0, 1], lr=rates, **common), **options)
    alone = train(some_data(), MODEL, optimizer, grid([1], lr=0.2, **common), **options)
    np.testing.assert_array_equal(alone.loss[0], together.loss[3])
    sampled = train(some_data(), MODEL, kfac, grid([1], lr=0.2, **common), **options)
    assert not np.array_equal(sampled.loss, alone.loss)


@pytest.mark.parametrize("fisher", ["all", None, 1])
def test_unknown_kinds_are_refused(fisher):
    with pytest.raises(ValueError, match="fisher"):
        with_fisher(kfac, fisher)
    with pytest.raises(ValueError, match="fisher"):
        Look(1, lambda moments, state, hyper: state, fisher)


def test_an_optimizer_without_looks_has_no_kind():
    with pytest.raises(ValueError, match="optimizer"):
        with_fisher(sgd, "exact")
    assert [look.fisher for look in with_fisher(kfac_preconditioner, "exact").looks] == ["exact"]
    assert [look.fisher for look in kfac_preconditioner.looks] == ["sampled"]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.half])
def test_exact_slopes_of_half_precision(dtype):
    rng = torch.Generator().manual_seed(0)
    outputs, labels = torch.randn(2, 3, 4, generator=rng), torch.zeros(2, 3).long()
    found, expected = (
        sum(slope.double().square() for slope in slopes_of("exact", cross_entropy, given, labels))
        for given in (outputs.to(dtype), outputs.to(dtype).float())
    )
    torch.testing.assert_close(found, expected, rtol=0.05, atol=0.01)
