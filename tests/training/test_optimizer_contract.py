"""What an optimizer may ask for beside a gradient: a point, random numbers, a look at layers."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy, one_hot

from batchscaling.nqm import ExtrapSGD
from batchscaling.training import (
    FlipCrop,
    Look,
    Model,
    Optimizer,
    Outcome,
    Taken,
    Trials,
    batches,
    chain,
    diagonal_fisher,
    extrap_sgd,
    fix,
    grid,
    heavy_ball,
    mlp,
    nesterov,
    nesterov_lookahead,
    perturbed,
    sgd,
    softmax_regression,
    synchronous,
    train,
    weight_decay,
    weights_only,
)
from batchscaling.training.data import generator
from batchscaling.training.models.taps import Diagonal
from batchscaling.training.optimizers.base import no_state
from batchscaling.training.program import Program
from batchscaling.training.rows import Pieces

SOFTMAX = softmax_regression(64, 10)


def numbers(**values):
    return {name: torch.tensor(value, dtype=torch.float64) for name, value in values.items()}


def trajectory(optimizer, curvature, steps, hyper):
    """Return the parameters after each step on a quadratic, and where gradients were taken."""
    params = {"w": torch.ones(len(curvature), dtype=torch.float64)}
    state, path, points = optimizer.init(params), [], []
    for _ in range(steps):
        point = params
        if optimizer.query is not None:
            point = optimizer.query(params, state, hyper, ())
        grads = {"w": torch.tensor(curvature, dtype=torch.float64) * point["w"]}
        if optimizer.own is not None:
            state = optimizer.own(grads, state)
        updates, state = optimizer.update(grads, state, params, hyper)
        params = {"w": params["w"] + updates["w"]}
        path.append(params["w"].numpy())
        points.append(point["w"].numpy())
    return np.array(path), np.array(points)


@given(
    lr=st.floats(0.01, 1.0),
    momentum=st.floats(0, 0.95),
    curvature=st.lists(st.floats(0.01, 1.0), min_size=1, max_size=3),
)
def test_both_forms_of_nesterov_take_the_same_gradients(lr, momentum, curvature):
    hyper = numbers(lr=lr, momentum=momentum)
    path, _ = trajectory(nesterov, curvature, 12, hyper)
    _, points = trajectory(nesterov_lookahead, curvature, 13, hyper)
    np.testing.assert_allclose(points[1:], path, rtol=1e-9, atol=1e-12)


@given(
    lr=st.floats(0.01, 1.0),
    momentum=st.floats(0, 0.9),
    extrapolation=st.floats(0, 1.0),
    h=st.floats(0.01, 1.0),
)
def test_extrap_sgd_is_the_models(lr, momentum, extrapolation, h):
    method = ExtrapSGD(lr, momentum, extrapolation).method()
    state, expected = method.start, []
    for _ in range(12):
        state = method.A @ state + method.b * h * (method.query @ state)
        expected.append(method.readout @ state)
    hyper = numbers(lr=lr, momentum=momentum, extrapolation=extrapolation)
    path, _ = trajectory(extrap_sgd, [h], 12, hyper)
    np.testing.assert_allclose(path[:, 0], expected, rtol=1e-9, atol=1e-12)


def slopes(model, point, data, index):
    leaves = {name: p.clone().requires_grad_() for name, p in point.items()}
    outputs = model.apply(leaves, data.train_inputs[index])
    loss = cross_entropy(outputs, data.train_labels[index])
    return dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True))


def test_perturbed_nesterov_is_that_of_a_plain_loop(data, model):
    """The chain's queries follow each other, and each seed draws its own numbers."""
    method = chain(perturbed, nesterov_lookahead)
    trials = grid([3, 5], lr=0.1, momentum=0.8, radius=[0.0, 0.05])
    results = train(data, model, method, trials, batch_size=32, max_steps=12, spacing=1e-6)
    for row, (seed, radius) in enumerate([(3, 0.0), (5, 0.0), (3, 0.05), (5, 0.05)]):
        params, noise = model.init(generator(seed, "init")), generator(seed, "optimizer")
        u = {name: torch.zeros_like(p) for name, p in params.items()}
        stream = batches(seed, len(data.train_inputs), 32)
        for step in range(13):
            outputs = model.apply(params, data.validation_inputs)
            loss = cross_entropy(outputs, data.validation_labels).item()
            assert results.loss[row, step] == pytest.approx(loss, rel=1e-4)
            z = {name: torch.randn(p.shape, generator=noise) for name, p in params.items()}
            point = {name: p + radius * z[name] + 0.8 * u[name] for name, p in params.items()}
            grads = slopes(model, point, data, next(stream))
            u = {name: 0.8 * u[name] - 0.1 * g for name, g in grads.items()}
            params = {name: p + u[name] for name, p in params.items()}
    assert not np.allclose(results.loss[0, -1], results.loss[2, -1], rtol=1e-3)


def test_drawn_numbers_are_each_trials_own(data, model):
    trials = grid([0, 1, 2], lr=[0.05, 0.2], radius=0.1)
    run = partial(train, data, model, chain(perturbed, sgd), batch_size=16, max_steps=15)
    together = run(trials)
    some = Trials(trials.seeds[[4, 1]], {n: v[[4, 1]] for n, v in trials.hyper.items()})
    np.testing.assert_array_equal(run(some).loss, together.loss[[4, 1]])
    plain = train(data, model, sgd, grid([0, 1, 2], lr=[0.05, 0.2]), batch_size=16, max_steps=15)
    still = run(grid([0, 1, 2], lr=[0.05, 0.2], radius=0.0))
    np.testing.assert_array_equal(still.loss, plain.loss)


def test_queries_of_a_chain_follow_each_other_from_the_parameters():
    def moved(query):
        return Optimizer(no_state, lambda g, s, p, h: (g, s), {}, query=query)

    doubled = moved(lambda params, state, hyper, drawn: {n: 2 * p for n, p in params.items()})
    shifted = moved(lambda params, state, hyper, drawn: {n: p + 1 for n, p in params.items()})
    point = chain(doubled, shifted).query({"w": torch.ones(2)}, ({}, {}), {}, ((), ()))
    assert torch.equal(point["w"], torch.full((2,), 3.0))


def test_weights_only_passes_query_and_draw_of_weights():
    part = weights_only(perturbed)
    params = {"weight": torch.ones(2, 3), "bias": torch.ones(3)}
    drawn = part.draw(torch.Generator().manual_seed(0), params, 4)
    assert list(drawn) == ["weight"]
    point = part.query(params, part.init(params), numbers(radius=0.5), drawn)
    assert torch.equal(point["bias"], params["bias"])
    torch.testing.assert_close(point["weight"], 1 + 0.5 * drawn["weight"])


def test_fix_passes_query_draw_and_looks():
    fixed = fix(chain(perturbed, sgd), radius=0.5)
    params, rng = {"w": torch.ones(3)}, torch.Generator().manual_seed(0)
    drawn = fixed.draw(rng, params, 4)
    point = fixed.query(params, fixed.init(params), {"lr": torch.tensor(0.1)}, drawn)
    torch.testing.assert_close(point["w"], 1 + 0.5 * drawn[0]["w"])
    (look,) = fix(chain(diagonal_fisher, sgd), fisher_decay=0.0).looks
    assert look.every == diagonal_fisher.looks[0].every
    part = {"w": Diagonal(torch.full((3,), 4.0))}
    (state, _), hyper = chain(diagonal_fisher, sgd).init(params), {"lr": torch.tensor(0.1)}
    state, rest = look.fold(part, (state, {}), hyper)  # with decay 0 it is what was seen
    assert rest == {} and state["weight"] == 1
    assert torch.equal(state["fisher"]["w"], part["w"].squares)


def recording(every, seen):
    """Return a part that counts its looks in its state and keeps the moments it saw."""

    def fold(moments, state, hyper):
        seen.append(moments)
        return {"looks": state["looks"] + 1}

    def update(grads, state, params, hyper):
        return {name: g * (state["looks"] + 1) for name, g in grads.items()}, state

    init = lambda params: {"looks": next(iter(params.values())).new_zeros(())}  # noqa: E731
    return Optimizer(init, update, {}, looks=(Look(every, fold),))


def test_parts_of_a_chain_look_when_they_want_to(data):
    """The factor of the rate counts looks: at steps 0, 2, 4, and at steps 0, 3."""
    method = chain(recording(2, []), recording(3, []), sgd)
    options = {"batch_size": 16, "max_steps": 5, "spacing": 1e-6}
    results = train(data, SOFTMAX, method, grid([0, 1], lr=0.01), **options)
    params, stream = SOFTMAX.init(generator(1, "init")), batches(1, len(data.train_inputs), 16)
    for step, factor in enumerate([2 * 2, 2 * 2, 3 * 2, 3 * 3, 4 * 3]):
        grads = slopes(SOFTMAX, params, data, next(stream))
        params = {name: p - 0.01 * factor * grads[name] for name, p in params.items()}
        outputs = SOFTMAX.apply(params, data.validation_inputs)
        loss = cross_entropy(outputs, data.validation_labels).item()
        assert results.loss[1, step + 1] == pytest.approx(loss, rel=1e-5)


@pytest.mark.parametrize("at_once", [3 * 5, 2**15])
def test_moments_are_means_of_the_batch_with_sampled_labels(data, at_once):
    """Against a plain computation, of a batch in parts and in one."""

    def fold(moments, state, hyper):
        (layer,) = moments.values()
        return {"inputs": layer.inputs, "outputs": layer.outputs}

    def init(params):
        return {"inputs": torch.zeros(65, 65), "outputs": torch.zeros(10, 10)}

    def update(grads, state, params, hyper):
        return grads, state

    optimizer = Optimizer(init, update, sgd.hyper, looks=(Look(1, fold),))
    program = Program(data, SOFTMAX, optimizer, Pieces(at_once, 1))
    program.start(np.array([4, 7, 4]), {"lr": torch.full((3,), 0.1)}, 16)
    program.step(0)
    for row, seed in enumerate([4, 7, 4]):
        index = next(batches(seed, len(data.train_inputs), 16))
        inputs = torch.cat([data.train_inputs[index], torch.ones(16, 1)], 1)
        uniform = torch.rand(16, 10, generator=generator(seed, "labels"))
        chosen = (-(-uniform.log()).log()).argmax(-1)  # all classes are equally likely at first
        g = 0.1 - one_hot(chosen, 10)
        state = program.rows.state
        torch.testing.assert_close(state["inputs"][row], inputs.T @ inputs / 16)
        torch.testing.assert_close(state["outputs"][row], g.T @ g / 16)


def test_diagonal_fisher_is_the_plain_one_on_softmax_regression(data):
    """In one step; the diagonal of A ⊗ G is the product of both diagonals."""
    method = chain(diagonal_fisher, sgd)
    trials = grid([0, 2], lr=0.001, damping=0.01, fisher_decay=0.9)
    results = train(data, SOFTMAX, method, trials, batch_size=32, max_steps=1)
    index = next(batches(2, len(data.train_inputs), 32))
    inputs = torch.cat([data.train_inputs[index], torch.ones(32, 1)], 1)
    uniform = torch.rand(32, 10, generator=generator(2, "labels"))
    g = 0.1 - one_hot((-(-uniform.log()).log()).argmax(-1), 10)
    fisher = torch.outer(inputs.square().mean(0), g.square().mean(0))
    slope = inputs.T @ (0.1 - one_hot(data.train_labels[index], 10)) / 32
    matrix = -0.001 * slope / (fisher + 0.01)
    outputs = data.validation_inputs @ matrix[:-1] + matrix[-1]
    loss = cross_entropy(outputs, data.validation_labels).item()
    assert results.loss[1, 1] == pytest.approx(loss, rel=1e-5)


def test_diagonal_fisher_trains_a_network_and_rows_do_not_meet(data, model):
    method = chain(diagonal_fisher, heavy_ball)
    trials = grid([0, 1], lr=[1e-4, 1e-3], momentum=0.9, damping=1e-2, fisher_decay=0.5)
    run = partial(train, data, model, method, batch_size=64, max_steps=25)
    together = run(trials)
    assert (together.loss[:, -1] < 0.7 * together.loss[:, 0]).any()
    one = Trials(trials.seeds[[2]], {n: v[[2]] for n, v in trials.hyper.items()})
    np.testing.assert_allclose(run(one).loss[0], together.loss[2], rtol=1e-5)


def test_a_look_at_a_layer_that_is_not_seen_is_told(data):
    model = Model(
        lambda rng: {"w": torch.zeros(64, 10)}, lambda params, inputs: inputs @ params["w"]
    )
    trials = grid(0, lr=0.1, damping=0.1, fisher_decay=0.5)
    with pytest.raises(ValueError, match=r'^model is .one whose parameter "w" belongs to no layer'):
        train(data, model, chain(diagonal_fisher, sgd), trials, batch_size=8, max_steps=2)


@pytest.mark.parametrize("every", [0, -1, 1.5, None])
def test_looks_come_every_so_many_steps(every):
    with pytest.raises(ValueError, match=r"^every is .*; allowed: "):
        Look(every, lambda moments, state, hyper: state)


def keeping(every):
    """Return a part that keeps the last step that it was told of."""

    def init(params):
        zeros = {name: torch.zeros_like(p) for name, p in params.items()}
        return {"change": torch.zeros(()), "grads": zeros, "updates": zeros}

    def fold(taken, state, hyper):
        return taken._asdict()

    update = lambda grads, state, params, hyper: (grads, state)  # noqa: E731
    return Optimizer(init, update, {}, outcomes=(Outcome(every, fold),))


@pytest.mark.parametrize("at_once", [3 * 5, 2**15])
def test_an_outcome_is_what_a_step_did_to_its_own_batch(data, model, at_once):
    """Against a plain loop: steps 0 and 3 of five are told, whatever the parts of the work are."""
    method = chain(keeping(3), sgd)
    program = Program(data, model, method, Pieces(at_once, 1))
    program.start(np.array([4, 7, 4]), {"lr": torch.tensor([0.1, 0.2, 0.3])}, 16)
    for row, (seed, lr) in enumerate([(4, 0.1), (7, 0.2), (4, 0.3)]):
        params, stream = (
            model.init(generator(seed, "init")),
            batches(seed, len(data.train_inputs), 16),
        )
        for step in range(5):
            if row == 0:
                program.step(step)
            index = next(stream)
            grads = slopes(model, params, data, index)
            after = {name: p - lr * grads[name] for name, p in params.items()}
            if step == 3:
                expected = grads, index, params, after
            params = after
        grads, index, *ends = expected
        losses = [
            cross_entropy(model.apply(p, data.train_inputs[index]), data.train_labels[index])
            for p in ends
        ]
        (state, _) = program.rows.state
        torch.testing.assert_close(
            state["change"][row], losses[1] - losses[0], rtol=1e-3, atol=1e-6
        )
        for name, grad in grads.items():
            torch.testing.assert_close(state["grads"][name][row], grad, rtol=1e-4, atol=1e-6)
            update = state["updates"][name][row]
            torch.testing.assert_close(update, -lr * grad, rtol=1e-3, atol=1e-6)


def test_a_worker_is_told_of_its_own_part_of_the_batch(data, model):
    """Updates are those of all workers, gradients and losses their own."""
    program = Program(
        data, model, chain(keeping(1), sgd), Pieces(2**15, 1), exchange=synchronous(2)
    )
    program.start(np.array([3, 5]), {"lr": torch.tensor([0.1, 0.1])}, 16)
    program.step(0)
    (state, _) = program.rows.state
    params = model.init(generator(5, "init"))
    index = next(batches(5, len(data.train_inputs), 16))
    parts = [slopes(model, params, data, part) for part in index.chunk(2)]
    for worker, grads in enumerate(parts):
        row = 2 + worker
        for name, grad in grads.items():
            torch.testing.assert_close(state["grads"][name][row], grad, rtol=1e-4, atol=1e-6)
            mean = (parts[0][name] + parts[1][name]) / 2
            found = state["updates"][name][row]
            torch.testing.assert_close(found, -0.1 * mean, rtol=1e-3, atol=1e-6)
        index_of = index.chunk(2)[worker]
        after = {n: p - 0.05 * (parts[0][n] + parts[1][n]) for n, p in params.items()}
        losses = [
            cross_entropy(model.apply(p, data.train_inputs[index_of]), data.train_labels[index_of])
            for p in (params, after)
        ]
        found = state["change"][row]
        torch.testing.assert_close(found, losses[1] - losses[0], rtol=1e-3, atol=1e-6)


def test_fix_passes_outcomes():
    def fold(taken, state, hyper):
        return hyper["radius"] * taken.change

    part = Optimizer(lambda params: torch.zeros(()), sgd.update, perturbed.hyper,
                     outcomes=(Outcome(2, fold),))  # fmt: skip
    (outcome,) = fix(chain(part, sgd), radius=0.5).outcomes
    taken = Taken(torch.tensor(3.0), {}, {})
    state, rest = outcome.fold(taken, (torch.zeros(()), {}), {"lr": torch.tensor(0.1)})
    assert outcome.every == 2 and state == 1.5 and rest == {}


@pytest.mark.parametrize("every", [0, -1, 1.5, None])
def test_outcomes_come_every_so_many_steps(every):
    with pytest.raises(ValueError, match=r"^every is .*; allowed: "):
        Outcome(every, lambda taken, state, hyper: state)


def test_augmentation_and_optimizer_draw_from_streams_of_their_own(data):
    """What the optimizer draws leaves the changes of the images as they are."""
    images = (
        data.train_inputs.unflatten(1, (1, 8, 8)),
        data.validation_inputs.unflatten(1, (1, 8, 8)),
    )
    augmented = replace(
        data, train_inputs=images[0], validation_inputs=images[1], augment=FlipCrop(1)
    )
    flat = mlp([64, 10])
    model = Model(flat.init, lambda params, inputs: flat.apply(params, inputs.flatten(1)))
    run = partial(train, augmented, model, batch_size=16, max_steps=10)
    plain = run(sgd, grid([0, 1], lr=0.1))
    still = run(chain(perturbed, sgd), grid([0, 1], lr=0.1, radius=0.0))
    np.testing.assert_array_equal(still.loss, plain.loss)


def test_a_chain_without_queries_draws_nothing():
    assert chain(weight_decay, sgd).query is chain(weight_decay, sgd).draw is None
    assert chain(weight_decay, sgd).looks == ()
