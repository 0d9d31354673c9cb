"""Extrapolation, its noise, and outer steps of several workers, against plain loops."""

import numpy as np
import pytest
import tiny
import torch
import torch.distributed as dist
from hypothesis import given
from hypothesis import strategies as st
from torch.distributed.algorithms.ddp_comm_hooks import post_localSGD_hook as post_local
from torch.distributed.algorithms.model_averaging.averagers import PeriodicModelAverager
from torch.distributed.optim import PostLocalSGDOptimizer
from torch.nn.functional import cross_entropy

from batchscaling.training import (
    OPTIMIZERS,
    Trials,
    adam,
    batches,
    chain,
    ema_nesterov,
    extrap_adam,
    extrap_sgd,
    fix,
    gradient_perturbed,
    grid,
    heavy_ball,
    local_steps,
    mlp,
    nesterov,
    nesterov_lookahead,
    outer_steps,
    perturbation,
    sgd,
    step_drops,
    synchronous,
    train,
    weight_decay,
    weights_only,
)
from batchscaling.training.data import generator
from batchscaling.training.program import Program
from batchscaling.training.rows import Pieces

ADAM = {"beta1": 0.8, "beta2": 0.95, "epsilon": 1e-4}
ROWS = [(3, 0.02), (5, 0.02), (3, 0.1), (5, 0.1)]


def slopes(model, point, data, index):
    leaves = {name: p.clone().requires_grad_() for name, p in point.items()}
    loss = cross_entropy(model.apply(leaves, data.train_inputs[index]), data.train_labels[index])
    return dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True))


def loss_of(model, params, data):
    outputs = model.apply(params, data.validation_inputs)
    return cross_entropy(outputs, data.validation_labels).item()


def mean(trees):
    return {name: sum(tree[name] for tree in trees) / len(trees) for name in trees[0]}


def zeros(params):
    return {name: torch.zeros_like(p) for name, p in params.items()}


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("drops, decay", [((), 0.0), ((4,), 0.0), ((), 0.2)])
def test_each_worker_extrapolates_along_its_own_gradient(data, model, workers, drops, decay):
    trials = grid([3, 5], lr=[0.02, 0.1], momentum=0.7, extrapolation=0.3)
    options = {"batch_size": 24, "max_steps": 8, "spacing": 1e-6}
    options |= {"exchange": synchronous(workers), "schedule": step_drops(drops or (100,), 0.1)}
    optimizer = chain(weights_only(fix(weight_decay, weight_decay=decay)), extrap_sgd)
    found = train(data, model, optimizer, trials, **options)
    for row, (seed, lr) in enumerate(ROWS):
        w = model.init(generator(seed, "init"))
        v, before = zeros(w), [zeros(w)] * workers
        stream = batches(seed, len(data.train_inputs), 24)
        for step in range(9):
            assert found.loss[row, step] == pytest.approx(loss_of(model, w, data), rel=1e-4)
            factor = 0.1 ** sum(step >= drop for drop in drops)
            points = [{n: w[n] + 0.7 * v[n] - 0.3 * factor * g[n] for n in w} for g in before]
            shards = next(stream).chunk(workers)
            before = [slopes(model, p, data, s) for p, s in zip(points, shards, strict=True)]
            at = mean(points)  # the decay of weights is where gradients are
            g = {n: g + decay * (g.ndim > 1) * at[n] for n, g in mean(before).items()}
            v = {n: 0.7 * v[n] - factor * lr * g[n] for n in w}
            w = {n: w[n] + v[n] for n in w}


def test_what_a_worker_extrapolates_along_matters(data, model):
    trials = grid([3, 5], lr=0.1, momentum=0.7, extrapolation=0.3)
    options = {"batch_size": 24, "max_steps": 8}
    one, three = (
        train(data, model, extrap_sgd, trials, exchange=synchronous(k), **options).loss[:, -1]
        for k in (1, 3)
    )
    assert np.abs(three / one - 1).min() > 1e-3


def adam_way(g, moments, hyper):
    """Return g, scaled as Adam scales it after so many steps."""
    square, steps = moments
    return {
        n: g[n] / ((square[n] / (1 - hyper["beta2"] ** steps)).sqrt() + hyper["epsilon"]) for n in g
    }


def test_extrapolated_adam_is_that_of_a_plain_loop(data, model):
    trials = grid([3], lr=[0.01], extrapolation=0.02, **ADAM)
    options = {"batch_size": 24, "max_steps": 8, "spacing": 1e-6, "exchange": synchronous(2)}
    found = train(data, model, extrap_adam, trials, **options)
    w = model.init(generator(3, "init"))
    m, s, before = zeros(w), zeros(w), [zeros(w)] * 2
    stream = batches(3, len(data.train_inputs), 24)
    for step in range(9):
        assert found.loss[0, step] == pytest.approx(loss_of(model, w, data), rel=1e-4)
        ways = [adam_way(g, (s, step), ADAM) if step else g for g in before]
        points = [{n: w[n] - 0.02 * way[n] for n in w} for way in ways]
        shards = next(stream).chunk(2)
        before = [slopes(model, p, data, x) for p, x in zip(points, shards, strict=True)]
        g = mean(before)
        m = {n: 0.8 * m[n] + 0.2 * g[n] for n in w}
        s = {n: 0.95 * s[n] + 0.05 * g[n] ** 2 for n in w}
        way = adam_way(m, (s, step + 1), ADAM)
        w = {n: w[n] - 0.01 * way[n] / (1 - 0.8 ** (step + 1)) for n in w}


def test_without_extrapolation_it_is_adam(data, model):
    options = {"batch_size": 16, "max_steps": 20}
    plain = train(data, model, adam, grid([0, 1], lr=0.01, **ADAM), **options)
    still = grid([0, 1], lr=0.01, extrapolation=0.0, **ADAM)
    np.testing.assert_allclose(
        train(data, model, extrap_adam, still, **options).loss, plain.loss, rtol=1e-6
    )


def test_look_ahead_along_average_updates_is_that_of_a_plain_loop(data, model):
    trials = grid([3, 5], lr=[0.02, 0.1], look_ahead=4.0, update_decay=0.8)
    options = {"batch_size": 24, "max_steps": 8, "spacing": 1e-6}
    found = train(data, model, ema_nesterov, trials, **options)
    for row, (seed, lr) in enumerate(ROWS):
        w = model.init(generator(seed, "init"))
        m, stream = zeros(w), batches(seed, len(data.train_inputs), 24)
        for step in range(9):
            assert found.loss[row, step] == pytest.approx(loss_of(model, w, data), rel=1e-4)
            g = slopes(model, {n: w[n] + 4 * m[n] for n in w}, data, next(stream))
            m = {n: 0.8 * m[n] - 0.2 * lr * g[n] for n in w}
            w = {n: w[n] - lr * g[n] for n in w}


def of_another(model, w, data, rng, size):
    """Return the gradient of the examples that a generator draws."""
    places = torch.rand(size, generator=rng)
    return slopes(model, w, data, (places * len(data.train_inputs)).long())


@pytest.mark.parametrize("workers", [1, 3])
def test_a_step_ahead_along_another_batch_is_that_of_a_plain_loop(data, model, workers):
    method = chain(gradient_perturbed, nesterov_lookahead)
    trials = grid([3, 5], lr=[0.02, 0.1], momentum=0.7, extrapolation=0.3)
    options = {"batch_size": 24, "max_steps": 8, "spacing": 1e-6}
    found = train(data, model, method, trials, exchange=synchronous(workers), **options)
    for row, (seed, lr) in enumerate(ROWS):
        w = model.init(generator(seed, "init"))
        v, rng = zeros(w), generator(seed, "optimizer")
        stream = batches(seed, len(data.train_inputs), 24)
        for step in range(9):
            assert found.loss[row, step] == pytest.approx(loss_of(model, w, data), rel=1e-4)
            grads = []
            for shard in next(stream).chunk(workers):
                other = of_another(model, w, data, rng, len(shard))
                point = {n: w[n] - 0.3 * other[n] + 0.7 * v[n] for n in w}
                grads.append(slopes(model, point, data, shard))
            g = mean(grads)
            v = {n: 0.7 * v[n] - lr * g[n] for n in w}
            w = {n: w[n] + v[n] for n in w}


def test_without_extrapolation_another_batch_changes_nothing(data, model):
    options = {"batch_size": 24, "max_steps": 8}
    plain = train(data, model, nesterov_lookahead, grid([3], lr=0.1, momentum=0.7), **options)
    method = chain(gradient_perturbed, nesterov_lookahead)
    still = grid([3], lr=0.1, momentum=0.7, extrapolation=0.0)
    np.testing.assert_array_equal(train(data, model, method, still, **options).loss, plain.loss)


@given(
    noise=st.sampled_from(["normal", "uniform"]),
    shape=st.sampled_from([(5, 4), (6, 3, 2, 2)]),
    radius=st.floats(1e-6, 10),
    scale=st.floats(1e-6, 1e6),
)
def test_filters_move_by_a_part_of_their_norm(noise, shape, radius, scale):
    part, rng = perturbation(noise, by_filter=True), torch.Generator().manual_seed(0)
    params = {"w": scale * torch.randn(shape, generator=rng), "b": torch.ones(3)}
    drawn = part.draw(rng, params, 1)
    point = part.query(params, (), {"radius": torch.tensor(radius)}, drawn)
    filters = [t.flatten(1).mT if len(shape) > 2 else t for t in (params["w"], point["w"])]
    moved = (filters[1] - filters[0]).norm(dim=0) / filters[0].norm(dim=0)
    np.testing.assert_allclose(moved, radius, rtol=max(1e-3, 1e-5 / radius))
    assert torch.equal(point["b"], params["b"])


def test_numbers_have_the_distribution_that_is_asked_for():
    rng, params = torch.Generator().manual_seed(0), {"w": torch.zeros(100, 200)}
    normal = perturbation().draw(rng, params, 1)["w"]
    uniform = perturbation("uniform").draw(rng, params, 1)["w"]
    assert abs(normal.mean()) < 0.03 and abs(normal.var() - 1) < 0.05
    assert abs(uniform.mean()) < 0.02 and abs(uniform.var() - 1 / 3) < 0.01
    assert -1 <= uniform.min() < -0.99 and 0.99 < uniform.max() < 1


@pytest.mark.parametrize("shared", [True, False])
def test_workers_share_the_noise_of_smooth_out_only(data, model, shared):
    method = chain(perturbation("uniform", shared=shared), sgd)
    program = Program(data, model, method, Pieces(2**15, 1), exchange=synchronous(3))
    hyper = {"radius": torch.full((2,), 0.1), "lr": torch.full((2,), 0.1)}
    program.start(np.array([0, 1]), hyper, 12)
    drawn = program._batch([])["drawn"][0]["layer0.weight"].unflatten(0, (2, 3))
    assert not torch.equal(drawn[0, 0], drawn[1, 0])
    assert torch.equal(drawn[:, 0], drawn[:, 1]) == shared


NOISE = {
    "extrap_gaussian": perturbation("normal", by_filter=True),
    "extrap_uniform": perturbation("uniform", by_filter=True),
    "smoothout": perturbation("uniform", by_filter=True, shared=True),
    "extrap_gradient": gradient_perturbed,
}


@pytest.mark.parametrize("name", NOISE)
def test_noise_variants_of_sweeps_put_their_noise_before_nesterov(data, model, name):
    strength = "extrapolation" if name == "extrap_gradient" else "radius"
    trials = grid([3], lr=0.1, momentum=0.7, **{strength: 0.3})
    options = {"batch_size": 24, "max_steps": 4, "exchange": synchronous(3)}

    def end(method):
        return train(data, model, method, trials, **options).loss[0, -1]

    found = end(OPTIMIZERS[name])
    for key, part in NOISE.items():
        method = chain(part, nesterov_lookahead)
        if strength in method.hyper:
            assert (end(method) == found) == (key == name)


def with_workers(data, model, seed, step_of, meet, *, workers, steps):
    """Return the loss of the workers' mean after each step of a plain loop.

    ``step_of(k, params, grads)`` returns a worker's new parameters, ``meet(step, all)`` those of
    all workers.
    """
    params = [model.init(generator(seed, "init"))] * workers
    stream, losses = batches(seed, len(data.train_inputs), 24), []
    for step in range(steps + 1):
        losses.append(loss_of(model, mean(params), data))
        shards = next(stream).chunk(workers)
        grads = [slopes(model, p, data, s) for p, s in zip(params, shards, strict=True)]
        params = meet(step + 1, [step_of(k, step, params[k], grads) for k in range(workers)])
    return losses


def test_post_local_steps_are_those_of_a_plain_loop(data, model):
    trials = grid([3, 5], lr=[0.02, 0.1], momentum=0.5)
    options = {"batch_size": 24, "max_steps": 12, "spacing": 1e-6}
    exchange = local_steps(3, 4, after=5)
    found = train(data, model, heavy_ball, trials, exchange=exchange, **options)
    for row, (seed, lr) in enumerate(ROWS):
        velocity = [zeros(model.init(generator(0, "init"))) for _ in range(3)]

        def step_of(k, step, params, grads, velocity=velocity, lr=lr):
            g = mean(grads) if step < 5 else grads[k]
            velocity[k] = {n: 0.5 * velocity[k][n] + g[n] for n in g}
            return {n: params[n] - lr * velocity[k][n] for n in g}

        def meet(step, params):
            return [mean(params)] * 3 if step in (9, 13) else params

        expected = with_workers(data, model, seed, step_of, meet, workers=3, steps=12)
        np.testing.assert_allclose(found.loss[row], expected, rtol=1e-4)


def worker_of_torch(rank, folder, inputs, labels, start, index):
    """Train with torch's own post-local SGD, and store the parameters after each step."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{folder}/rendezvous", rank=rank, world_size=2)
    alone = [dist.new_group([k]) for k in range(2)][rank]
    net = torch.nn.Sequential(torch.nn.Linear(64, 16), torch.nn.ReLU(), torch.nn.Linear(16, 10))
    names = [f"layer{k}.{part}" for k in (0, 1) for part in ("weight", "bias")]
    for p, name in zip(net.parameters(), names, strict=True):
        p.data = (start[name].mT if p.ndim == 2 else start[name]).contiguous().clone()
    wrapped = torch.nn.parallel.DistributedDataParallel(net)
    state = post_local.PostLocalSGDState(None, alone, start_localSGD_iter=3)
    wrapped.register_comm_hook(state, post_local.post_localSGD_hook)
    optimizer = PostLocalSGDOptimizer(
        torch.optim.SGD(wrapped.parameters(), lr=0.1, momentum=0.6),
        PeriodicModelAverager(period=4, warmup_steps=6),
    )
    path = []
    for batch in index:
        mine = batch.chunk(2)[rank]
        optimizer.zero_grad()
        cross_entropy(wrapped(inputs[mine]), labels[mine]).backward()
        optimizer.step()
        path.append(torch.cat([p.detach().flatten() for p in net.parameters()]))
    torch.save(torch.stack(path), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_post_local_sgd_is_torchs(data, tmp_path):
    """Torch's averager counts its steps from 0, and averages first after `warmup_steps`."""
    model = mlp([64, 16, 10])
    stream = batches(3, len(data.train_inputs), 24)
    index = [next(stream) for _ in range(15)]
    start = model.init(generator(3, "init"))
    arguments = (str(tmp_path), data.train_inputs, data.train_labels, start, index)
    torch.multiprocessing.spawn(worker_of_torch, arguments, nprocs=2)
    paths = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    apart = (paths[0] - paths[1]).abs().amax(1).numpy() > 1e-6
    assert apart.tolist() == [False] * 3 + [True] * 3 + [False] + ([True] * 3 + [False]) * 2
    losses = []
    for step in range(15):
        middle = (paths[0][step] + paths[1][step]) / 2
        parts = dict(zip(start, middle.split([p.numel() for p in start.values()]), strict=True))
        shaped = {
            n: p.view(start[n].mT.shape).mT if start[n].ndim == 2 else p for n, p in parts.items()
        }
        losses.append(loss_of(model, shaped, data))
    exchange = local_steps(2, 4, after=3)
    options = {"batch_size": 24, "max_steps": 15, "spacing": 1e-6, "exchange": exchange}
    found = train(data, model, heavy_ball, grid(3, lr=0.1, momentum=0.6), **options)
    np.testing.assert_allclose(found.loss[0, 1:], losses, rtol=1e-4)


@pytest.mark.parametrize(("workers", "momentum"), [(3, 0.6), (1, 0.0), (2, 0.9)])
def test_outer_steps_are_torchs_sgd_on_the_way_of_the_workers(data, model, workers, momentum):
    trials = grid([3, 5], lr=[0.02, 0.1], outer_lr=0.7, outer_momentum=momentum)
    options = {"batch_size": 24, "max_steps": 12, "spacing": 1e-6}
    found = train(data, model, sgd, trials, exchange=outer_steps(workers, 4), **options)
    for row, (seed, lr) in enumerate(ROWS):
        outer = model.init(generator(seed, "init"))
        optimizer = torch.optim.SGD(
            outer.values(), lr=0.7, momentum=momentum, nesterov=momentum > 0
        )

        def step_of(k, step, params, grads, lr=lr):
            return {n: params[n] - lr * g for n, g in grads[k].items()}

        def meet(step, params, outer=outer, optimizer=optimizer):
            if step % 4:
                return params
            for name, p in outer.items():
                p.grad = p - mean(params)[name]
            optimizer.step()
            return [{n: p.clone() for n, p in outer.items()}] * len(params)

        how = {"workers": workers, "steps": 12}
        expected = with_workers(data, model, seed, step_of, meet, **how)
        np.testing.assert_allclose(found.loss[row], expected, rtol=1e-4)


def test_an_outer_step_to_the_mean_is_local_sgd(data, model):
    options = {"batch_size": 24, "max_steps": 20}
    trials = grid([3, 5], lr=[0.02, 0.1], outer_lr=1.0, outer_momentum=0.0)
    outer = train(data, model, sgd, trials, exchange=outer_steps(2, 5), **options)
    local = train(
        data, model, sgd, grid([3, 5], lr=[0.02, 0.1]), exchange=local_steps(2, 5), **options
    )
    np.testing.assert_allclose(outer.loss, local.loss, rtol=1e-5)


def test_meeting_after_each_step_of_sgd_is_the_whole_batch(data, model):
    options = {"batch_size": 24, "max_steps": 20}
    trials = grid([3, 5], lr=[0.02, 0.1])
    whole = train(data, model, sgd, trials, **options)
    local = train(data, model, sgd, trials, exchange=local_steps(3, 1), **options)
    np.testing.assert_allclose(local.loss, whole.loss, rtol=1e-4)


@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_one_worker_without_extrapolation_is_torchs_nesterov(data, model, decay):
    """Evaluated at w + momentum v, where torch's form stands."""
    hyper = {"lr": 0.05, "momentum": 0.8, "weight_decay": decay}
    options = {"batch_size": 24, "max_steps": 9, "spacing": 1e-6}
    ours = train(data, model, chain(weight_decay, nesterov), grid([3], **hyper), **options)
    still = grid([3], **hyper, extrapolation=0.0)
    ahead = train(data, model, chain(weight_decay, extrap_sgd), still, **options)
    params = model.init(generator(3, "init"))
    settings = {"lr": 0.05, "momentum": 0.8, "nesterov": True, "weight_decay": decay}
    optimizer = torch.optim.SGD(params.values(), **settings)
    stream, losses, points = batches(3, len(data.train_inputs), 24), [], []
    for _ in range(10):
        losses.append(loss_of(model, params, data))
        for p, g in zip(
            params.values(), slopes(model, params, data, next(stream)).values(), strict=True
        ):
            p.grad = g
        u = {n: optimizer.state[p].get("momentum_buffer", 0) for n, p in params.items()}
        points.append({n: p + 0.05 * 0.8 * u[n] for n, p in params.items()})
        optimizer.step()
    np.testing.assert_allclose(ours.loss[0], losses, rtol=1e-4)
    expected = [loss_of(model, point, data) for point in points]
    np.testing.assert_allclose(ahead.loss[0], expected, rtol=1e-4)


def test_outer_steps_of_a_trial_do_not_depend_on_its_neighbours(data, model):
    options = {"batch_size": 24, "max_steps": 40, "exchange": outer_steps(2, 3)}
    trials = grid([0, 1], lr=[0.02, 0.05, 0.3, 1e20], outer_lr=0.8, outer_momentum=0.5)
    together = train(data, model, sgd, trials, target=0.7, **options)
    assert together.diverged.any() and np.isfinite(together.steps_to_target).any()
    for row in (0, 5):
        some = {name: values[[row]] for name, values in trials.hyper.items()}
        alone = train(data, model, sgd, Trials(trials.seeds[[row]], some), target=0.7, **options)
        np.testing.assert_array_equal(alone.loss[0], together.loss[row])


BAD = [
    (lambda: outer_steps(0, 2), "workers is 0"),
    (lambda: outer_steps(2, 0.5), "every is 0.5"),
    (lambda: local_steps(2, 3, after=-1), "after is -1"),
    (lambda: perturbation("cauchy"), "noise is 'cauchy'"),
    (lambda: perturbation(by_filter=2), "by_filter is 2"),
    (lambda: perturbation(shared=None), "shared is None"),
]


@pytest.mark.parametrize(("call", "message"), BAD, ids=[message for _, message in BAD])
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=f"^{message}; allowed"):
        call()


def test_a_chain_shares_all_draws_or_none():
    with pytest.raises(ValueError, match=r"^optimizers is .*; allowed: parts whose draws"):
        chain(perturbation(), fix(perturbation(shared=True), radius=0.1), sgd)


@pytest.mark.parametrize(
    ("name", "value"), [("outer_lr", 0.0), ("outer_momentum", 1.0), ("outer_momentum", -0.1)]
)
def test_outer_hyperparameters_are_checked(data, model, name, value):
    hyper = {"lr": 0.1, "outer_lr": 0.7, "outer_momentum": 0.9} | {name: value}
    options = {"batch_size": 24, "max_steps": 3, "exchange": outer_steps(2, 2)}
    with pytest.raises(ValueError, match=f"^{name} is {value}; allowed"):
        train(data, model, sgd, grid(0, **hyper), **options)
    hyper.pop(name)
    with pytest.raises(ValueError, match=r"^trials.hyper is .*; allowed"):
        train(data, model, sgd, grid(0, **hyper), **options)


def test_adam_without_memory_of_squares_extrapolates_from_the_first_step_on():
    hyper = {"lr": 0.01, "beta1": 0.9, "beta2": 0.0, "epsilon": 1e-8, "extrapolation": 0.01}
    how = {"batch_size": 16, "max_steps": 4, "evaluate_at": range(5)}
    found = train(tiny.load(), tiny.TINY.model, extrap_adam, grid(0, **hyper), **how)
    assert np.isfinite(found.loss).all() and not found.diverged.any()
