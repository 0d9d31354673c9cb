"""K-FAC against dense matrices, Newton's step and what damping, averages and the clip promise."""

from functools import partial

import numpy as np
import pytest
import torch
from torch.func import grad, vmap
from torch.utils._pytree import tree_leaves

from batchscaling.training import (
    Data,
    Trials,
    digits,
    grid,
    mlp,
    sgd,
    simple_cnn,
    squared_error,
    train,
    with_fisher,
)
from batchscaling.training.losses import cross_entropy
from batchscaling.training.models.taps import Diagonal, Kronecker, layer_moments
from batchscaling.training.optimizers import (
    Taken,
    adaptive_kfac_preconditioner,
    chain,
    kfac,
    kfac_adaptive_damping,
    kfac_preconditioner,
    kfac_without_momentum,
)
from batchscaling.training.optimizers.kfac import EVERY, EVERY_OUTCOME
from batchscaling.training.program import Program
from batchscaling.training.rows import Pieces

(LOOK,) = kfac_preconditioner.looks
OPEN = {"lr": 1.0, "kl_clip": 1e30, "factor_decay": 0.9}  # the clip lets everything through


def scalars(dtype=torch.float64, **hyper):
    return {name: torch.tensor(value, dtype=dtype) for name, value in hyper.items()}


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def directions(moments, grads, looks=1, **hyper):
    """Return K-FAC's direction after so many equal looks."""
    hyper = scalars(next(iter(grads.values())).dtype, **{**OPEN, **hyper})
    state = kfac_preconditioner.init(grads)
    for _ in range(looks):
        state = LOOK.fold(moments, state, hyper)
    return kfac_preconditioner.update(grads, state, grads, hyper)[0]


def spread(matrix, damping, other):
    """Return a factor with its share of the damping, by its mean eigenvalue and the other's."""
    share = np.trace(matrix) / len(matrix) / (np.trace(other) / len(other))
    return matrix + np.sqrt(share * damping) * np.eye(len(matrix))


def test_the_direction_of_a_network_is_that_of_dense_matrices():
    """Factors from a loop over examples, and one large system of equations for each layer."""
    model, damping = mlp([5, 4, 3]), 0.01
    params = {n: p.double() for n, p in model.init(torch.Generator().manual_seed(0)).items()}
    inputs, labels = normal(7, 5), torch.arange(7) % 3

    def loss(params, example, label):
        return torch.nn.functional.cross_entropy(model.apply(params, example[None]), label[None])

    each = vmap(grad(loss), in_dims=(None, 0, 0))(params, inputs, labels)
    grads = {name: g.mean(0) for name, g in each.items()}
    rows = {name: p[None] for name, p in params.items()}
    moments = layer_moments(
        model, rows, inputs[None], lambda outputs: [cross_entropy.slope(outputs, labels[None])]
    )
    means = {n: Kronecker(*(factor[0] / 7 for factor in m)) for n, m in moments.items()}
    found = directions(means, grads, damping=damping)
    hidden = torch.relu(inputs @ params["layer0.weight"] + params["layer0.bias"])
    for name, below in (("layer0", inputs), ("layer1", hidden)):
        a = np.column_stack([below, np.ones(7)])
        g = each[f"{name}.bias"].numpy()
        first, second = a.T @ a / 7, g.T @ g / 7
        block = np.kron(spread(first, damping, second), spread(second, damping, first))
        gradient = np.vstack([grads[f"{name}.weight"], grads[f"{name}.bias"][None]])
        expected = np.linalg.solve(block, gradient.ravel()).reshape(gradient.shape)
        np.testing.assert_allclose(found[f"{name}.weight"], expected[:-1], rtol=1e-9)
        np.testing.assert_allclose(found[f"{name}.bias"], expected[-1], rtol=1e-9)


def test_one_undamped_step_on_a_linear_gaussian_model_is_newtons():
    inputs, targets = normal(30, 4, seed=1), normal(30, 2, seed=2)
    design = torch.cat([inputs, torch.ones(30, 1, dtype=torch.float64)], 1)
    start = normal(5, 2, seed=3)
    gradient = design.T @ (design @ start - targets) / 30
    # The slopes of normal labels of variance 1 have the identity as covariance.
    moments = {"only": Kronecker(design.T @ design / 30, torch.eye(2, dtype=torch.float64))}
    grads = {"only.weight": gradient[:-1], "only.bias": gradient[-1]}
    step = directions(moments, grads, damping=1e-20)
    best = torch.linalg.lstsq(design, targets).solution
    torch.testing.assert_close(start[:-1] - step["only.weight"], best[:-1])
    torch.testing.assert_close(start[-1] - step["only.bias"], best[-1])


def some_moments(dtype=torch.float64, seed=0):
    a, g = normal(9, 4, seed=seed, dtype=dtype), normal(9, 3, seed=seed + 1, dtype=dtype)
    return {"dense": Kronecker(a.T @ a, g.T @ g), "norm.scale": Diagonal(g.square().sum(0))}


def some_gradients(dtype=torch.float64):
    shapes = {"dense.weight": (3, 3), "dense.bias": (3,), "norm.scale": (3,)}
    return {name: normal(*shape, seed=5, dtype=dtype) for name, shape in shapes.items()}


def test_a_diagonal_is_damped_and_divided_by():
    moments, grads = some_moments(), some_gradients()
    found = directions(moments, grads, damping=0.5)["norm.scale"]
    expected = grads["norm.scale"] / (moments["norm.scale"].squares + 0.5)
    torch.testing.assert_close(found, expected)


def test_the_state_holds_averages_and_inverses_of_the_factors():
    words = Kronecker(torch.rand(7), torch.eye(3))
    state = LOOK.fold(
        {**some_moments(torch.float32), "words": words},
        {"looks": torch.zeros(())},
        scalars(torch.float32, **OPEN, damping=0.1),
    )
    held = sum(tensor.numel() for tensor in tree_leaves(state)) - 1  # the number of looks
    dense, scale = 4**2 + 3**2, 3
    assert held == 2 * (dense + scale + 7 + 3**2)


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.99])
def test_equal_looks_average_to_themselves(decay):
    moments, grads = some_moments(), some_gradients()
    once = directions(moments, grads, damping=0.1, factor_decay=0.0)
    for looks in (1, 2, 30):
        found = directions(moments, grads, looks=looks, damping=0.1, factor_decay=decay)
        torch.testing.assert_close(found, once)


def test_looks_are_averaged_with_their_weights():
    first, second, grads = some_moments(), some_moments(seed=7), some_gradients()
    hyper = scalars(**OPEN, damping=0.1)
    state = LOOK.fold(second, LOOK.fold(first, kfac_preconditioner.init(grads), hyper), hyper)
    mean = {
        name: type(pair[0])(*((0.09 * a + 0.1 * b) / 0.19 for a, b in zip(*pair, strict=True)))
        for name, pair in {name: (first[name], second[name]) for name in first}.items()
    }
    found = kfac_preconditioner.update(grads, state, grads, hyper)[0]
    torch.testing.assert_close(found, directions(mean, grads, damping=0.1))


def test_a_vocabularys_side_is_a_diagonal():
    words, width = torch.rand(6, dtype=torch.float64) + 0.1, normal(8, 3)
    moments = {"embedding": Kronecker(words, width.T @ width)}
    grads = {"embedding.weight": normal(6, 3, seed=4)}
    dense = {"embedding": Kronecker(torch.diag(words), width.T @ width)}
    found = directions(moments, grads, damping=0.1)
    torch.testing.assert_close(found, directions(dense, grads, damping=0.1))


@pytest.mark.parametrize("lr", [0.1, 3.0])
def test_the_clip_bounds_the_change(lr):
    moments, grads = some_moments(), some_gradients()
    free = directions(moments, grads, damping=0.1, lr=lr)
    size = float(lr**2 * sum((free[name] * g).sum() for name, g in grads.items()))
    same = directions(moments, grads, damping=0.1, lr=lr, kl_clip=1.01 * size)
    torch.testing.assert_close(same, free)
    clipped = directions(moments, grads, damping=0.1, lr=lr, kl_clip=size / 4)
    torch.testing.assert_close(clipped, {name: d / 2 for name, d in free.items()})


def test_a_gradient_of_zero_stays_zero():
    zero = {name: torch.zeros_like(g) for name, g in some_gradients().items()}
    found = directions(some_moments(), zero, damping=0.1)
    torch.testing.assert_close(found, zero)


def test_a_factor_that_rounding_made_indefinite_is_inverted_by_its_eigenvalues():
    vectors = torch.linalg.qr(normal(5, 5))[0]
    values = torch.tensor([1.0, 1.0, 0.5, 0.1, -1e-6], dtype=torch.float64)
    factor = (vectors * values) @ vectors.T
    grads = {"dense.weight": normal(5, 5, seed=2)}
    moments = {"dense": Kronecker(factor, torch.eye(5, dtype=torch.float64))}
    found = directions(moments, grads, damping=1e-20)["dense.weight"]
    shift = 1e-10 * (values.sum() / 5).sqrt()
    inverse = (vectors / (values.clamp(min=0) + shift)) @ vectors.T
    expected = inverse @ grads["dense.weight"] / (1 + 1e-20 / shift)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=0)


def test_rows_of_the_inverse_do_not_meet():
    """One row is indefinite and one has diverged: the third is as it is alone."""
    grads = some_gradients(torch.float32)
    moments = [some_moments(torch.float32, seed) for seed in range(3)]
    moments[0]["dense"].inputs.fill_diagonal_(-1.0)
    moments[1]["dense"].inputs.fill_(torch.nan)
    hyper = {name: v.repeat(3) for name, v in scalars(torch.float32, **OPEN, damping=0.1).items()}
    rows = {name: torch.stack([g] * 3) for name, g in grads.items()}
    stacked = {
        name: type(moments[0][name])(
            *(torch.stack(parts) for parts in zip(*(m[name] for m in moments), strict=True))
        )
        for name in moments[0]
    }
    state = vmap(kfac_preconditioner.init)(rows)
    state = vmap(LOOK.fold)(stacked, state, hyper)
    found = vmap(kfac_preconditioner.update)(rows, state, rows, hyper)[0]
    alone = directions(moments[2], grads, damping=0.1)
    for name, expected in alone.items():
        torch.testing.assert_close(found[name][2], expected)
        assert found[name][0].isfinite().all() and not found[name][1].isfinite().any()


def test_a_pivot_of_zero_in_one_row_is_no_error_for_all():
    """`torch.cholesky_inverse` raises one: damping is lost in rounding here."""
    ones, good = torch.ones(4, 4), 2 * torch.eye(4)
    moments = {"dense": Kronecker(torch.stack([ones, good]), torch.eye(4).expand(2, 4, 4))}
    grads = {"dense.weight": normal(4, 4, seed=2).float().expand(2, 4, 4)}
    hyper = {n: v.repeat(2) for n, v in scalars(torch.float32, **OPEN, damping=1e-20).items()}
    state = vmap(LOOK.fold)(moments, vmap(kfac_preconditioner.init)(grads), hyper)
    found = vmap(kfac_preconditioner.update)(grads, state, grads, hyper)[0]["dense.weight"]
    assert found[0].isfinite().all()
    torch.testing.assert_close(found[1], grads["dense.weight"][1] / 2)


def settings(seeds, **hyper):
    common = {"lr": 0.1, "momentum": 0.5, "damping": 0.01, "kl_clip": 0.01, "factor_decay": 0.9}
    return grid(seeds, **{**common, **hyper})


def test_trials_do_not_depend_on_their_neighbours(data, model):
    options = {"batch_size": 32, "max_steps": EVERY + 3}
    together = train(data, model, kfac, settings([0, 1], lr=[0.05, 0.2, 0.4]), **options)
    alone = train(data, model, kfac, settings([1], lr=0.2), **options)
    np.testing.assert_array_equal(alone.loss[0], together.loss[3])
    np.testing.assert_array_equal(together.trials.seeds, [0, 1, 0, 1, 0, 1])


def test_without_momentum_it_is_momentum_zero(data, model):
    options = {"batch_size": 32, "max_steps": 3}
    plain = settings([0])
    hyper = {name: v for name, v in plain.hyper.items() if name != "momentum"}
    without = train(data, model, kfac_without_momentum, grid([0], **hyper), **options)
    zero = train(data, model, kfac, settings([0], momentum=0.0), **options)
    np.testing.assert_allclose(without.loss, zero.loss, rtol=1e-5)


def test_every_damping_and_batch_size_gives_finite_steps(data):
    """With next to no damping, steps along directions that a batch did not show may diverge."""
    model = mlp([64, 12, 10])
    trials = settings([0, 1, 2], damping=[1e-12, 1e-6, 1e-3, 1.0], kl_clip=1e-3)
    for batch_size in (1, 32, len(data.train_inputs)):
        result = train(data, model, kfac, trials, batch_size=batch_size, max_steps=2 * EVERY + 1)
        taken = np.isfinite(result.loss).sum(axis=1)
        ended = result.loss.max(axis=1, initial=0, where=np.isfinite(result.loss)) > 1e3
        assert ((taken == result.loss.shape[1]) | ended).all()
        assert not (result.diverged & (trials.hyper["damping"] > 1e-11)).any()


def test_it_needs_fewer_steps_than_sgd_could(data, model):
    """With large batches K-FAC reaches in 20 steps what SGD does not at any rate."""
    options = {"batch_size": 1024, "max_steps": 20, "spacing": 1e3}
    best = train(data, model, sgd, grid([0, 1], lr=[0.1, 0.3, 1.0, 3.0]), **options)
    ours = train(data, model, kfac, settings([0, 1], lr=0.3, momentum=0.0, kl_clip=0.1), **options)
    assert ours.loss[:, -1].max() < 0.8 * np.nanmin(best.loss[:, -1])


def test_convolutions_go_through(data):
    rng = torch.Generator().manual_seed(0)
    images = torch.randn(60, 1, 8, 8, generator=rng)
    labels = (images.mean((1, 2, 3)) > 0).long()
    small = Data(images[:40], labels[:40], images[40:], labels[40:])
    model = simple_cnn(8, filters=(2, 3), units=5, classes=2)
    options = {"batch_size": 40, "max_steps": 30, "measures": ["training"]}
    result = train(small, model, kfac, settings([0, 1], lr=0.2, damping=0.1), **options)
    loss = result.losses["training"]
    assert (loss[:, -1] < 0.5 * loss[:, 0]).all()


(OUTCOME,) = adaptive_kfac_preconditioner.outcomes
EASED = 0.95**5


def adapted(ratio, damping=0.5, momentum_leads=False):
    """Return the scale of the damping after a step that changed the loss by so much of the model's.

    The model is written out with dense matrices.
    """
    shapes = {"layer0.weight": (4, 3), "layer0.bias": (3,)}
    updates = {n: 0.1 * normal(*s, seed=k) for k, (n, s) in enumerate(shapes.items())}
    side = normal(5, 8, seed=7), normal(3, 8, seed=8)
    factors = [half @ half.T / 8 for half in side]
    moments = {"layer0": Kronecker(*factors)}
    hyper = scalars(**OPEN, damping=damping)
    state = adaptive_kfac_preconditioner.init(updates)
    (look,) = adaptive_kfac_preconditioner.looks
    for _ in range(2):
        state = look.fold(moments, state, hyper)
    delta = torch.cat([updates["layer0.weight"], updates["layer0.bias"][None]]).flatten()
    curved = torch.kron(*factors) @ delta + damping * delta
    sign = 1 if momentum_leads else -1
    grads = {name: sign * 3 * update for name, update in updates.items()}
    grad = torch.cat([grads["layer0.weight"], grads["layer0.bias"][None]]).flatten()
    foreseen = grad @ delta + delta @ curved / 2
    assert (foreseen > 0) == momentum_leads
    taken = Taken(ratio * foreseen, grads, updates)
    return OUTCOME.fold(taken, state, hyper)["scale"].item()


@pytest.mark.parametrize(
    ("ratio", "scale"),
    [(1.5, EASED), (0.751, EASED), (0.749, 1), (0.251, 1), (0.249, 1 / EASED), (-2, 1 / EASED),
     (np.inf, EASED), (-np.inf, 1 / EASED), (np.nan, 1)],
)  # fmt: skip
def test_damping_follows_how_well_the_model_foresaw_the_step(ratio, scale):
    assert adapted(ratio) == pytest.approx(scale)


@pytest.mark.parametrize("ratio", [-1.0, 0.1, 1.0])
def test_damping_stays_where_the_model_foresees_no_gain(ratio):
    assert adapted(ratio, momentum_leads=True) == 1


def test_adapted_damping_is_that_of_the_next_inverse():
    """And it stays within its bounds, however often it is eased."""
    grads = {"layer0.weight": normal(4, 3), "layer0.bias": normal(3, seed=1)}
    moments = {"layer0": Kronecker(torch.eye(5).double(), torch.eye(3).double())}
    hyper = scalars(**OPEN, damping=0.2)
    (look,) = adaptive_kfac_preconditioner.looks
    state = {**adaptive_kfac_preconditioner.init(grads), "scale": torch.tensor(0.5).double()}
    state = look.fold(moments, state, hyper)
    assert state["scale"] == 0.5
    found = adaptive_kfac_preconditioner.update(grads, state, grads, hyper)[0]
    expected = directions(moments, grads, damping=0.1)
    for name, direction in expected.items():
        torch.testing.assert_close(found[name], direction)
    taken = Taken(torch.tensor(-1e9).double(), grads, {n: -1e-3 * g for n, g in grads.items()})
    for _ in range(100):
        state = OUTCOME.fold(taken, state, hyper)
    assert state["scale"].item() == pytest.approx(1e-8)


def test_on_a_quadratic_the_damping_falls_as_fast_as_it_may():
    """One linear layer and squared error: the factors are exact, and so is the model."""
    rng = torch.Generator().manual_seed(0)
    inputs = torch.randn(64, 6, generator=rng)
    labels = inputs @ torch.randn(6, 2, generator=rng)
    data = Data(inputs, labels, inputs, labels)
    hyper = {"lr": 0.2, "damping": 1e-3, "kl_clip": 1e9, "factor_decay": 0.0}
    steps = 3 * EVERY + 1
    method = with_fisher(chain(adaptive_kfac_preconditioner, sgd), "exact")
    program = Program(data, mlp([6, 2]), method, Pieces(2**15, 1), loss=squared_error)
    program.start(np.arange(2), {n: torch.full((2,), v) for n, v in hyper.items()}, 64)
    for step in range(steps):
        program.step(step)
    eased = 1 + (steps - 1) // EVERY_OUTCOME
    np.testing.assert_allclose(program.rows.state[0]["scale"], EASED**eased, rtol=1e-5)


def test_adaptive_damping_trains_and_rows_do_not_meet(data):
    hyper = {"lr": [0.05, 0.5], "momentum": 0.5, "damping": [1e-3, 10.0], "kl_clip": 1e-2}
    trials = grid([0, 1], **hyper, factor_decay=0.9)
    run = partial(train, data, mlp([64, 10]), kfac_adaptive_damping, batch_size=64, max_steps=30)
    together = run(trials)
    assert (together.loss[:, -1] < 0.7 * together.loss[:, 0]).any()
    fixed = train(data, mlp([64, 10]), kfac, trials, batch_size=64, max_steps=30)
    assert not np.array_equal(fixed.loss, together.loss)
    one = Trials(trials.seeds[[5]], {n: v[[5]] for n, v in trials.hyper.items()})
    np.testing.assert_allclose(run(one).loss[0], together.loss[5], rtol=1e-4)


def test_a_trial_that_goes_through_in_parts_is_the_trial_alone():
    """Inverses lie in memory column by column, also where those of parts are joined."""
    settings = {"batch_size": 256, "max_steps": 12, "evaluate_at": [0, 12], "at_once": 1024}
    hyper = {"lr": 0.05, "momentum": 0.5, "damping": 0.1, "kl_clip": 0.01, "factor_decay": 0.9}
    data, model, losses = digits(), mlp([64, 8, 10]), []
    for count in (1, 3, 9):
        trials = grid(range(count), **hyper)
        losses.append(train(data, model, kfac, trials, **settings).loss[0, -1])
    assert losses[0] == losses[1] == losses[2]
