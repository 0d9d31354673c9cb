"""Gradient noise of networks against plain autograd, dense Hessians and `train`."""

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from batchscaling.curvature import gradient_products, hessian_product, per_example_gradients
from batchscaling.noise import (
    Phase,
    RunningNoise,
    gradient_noise,
    increase_batch,
    lanczos_spectrum,
    per_example_estimate,
    ratio_estimate,
    steps_by_phase,
    two_batch_estimates,
)
from batchscaling.training import (
    BatchSizes,
    Data,
    FlipCrop,
    batches,
    chain,
    grid,
    heavy_ball,
    lstm,
    measure_noise,
    mlp,
    nesterov,
    nesterov_lookahead,
    resnet,
    sgd,
    simple_cnn,
    train,
    weight_decay,
)
from batchscaling.training.data import generator
from batchscaling.training.from_phases import from_phases

SMALL = mlp([64, 4, 10])


@pytest.fixture(scope="module")
def params():
    return {name: p.double() for name, p in SMALL.init(generator(0, "init")).items()}


def plain_gradient(model, params, inputs, labels):
    """Return the flat gradient of the mean loss by backward()."""
    leaves = {name: p.clone().requires_grad_() for name, p in params.items()}
    cross_entropy(model.apply(leaves, inputs), labels).backward()
    return torch.cat([p.grad.flatten() for p in leaves.values()])


def dense_hessian(model, params, inputs, labels):
    sizes = [p.numel() for p in params.values()]

    def loss(flat):
        pieces = zip(params.items(), flat.split(sizes), strict=True)
        made = {name: piece.view_as(p) for (name, p), piece in pieces}
        return cross_entropy(model.apply(made, inputs), labels)

    flat = torch.cat([p.flatten() for p in params.values()])
    return torch.autograd.functional.hessian(loss, flat).numpy()


def test_per_example_gradients_are_those_of_single_examples(data, params):
    inputs, labels = data.train_inputs[:5], data.train_labels[:5]
    found = per_example_gradients(SMALL, params, inputs, labels)
    assert found.dtype == torch.float64
    for i in range(5):
        one = plain_gradient(SMALL, params, inputs[i : i + 1].double(), labels[i : i + 1])
        torch.testing.assert_close(found[i], one)


def test_per_example_gradients_of_images_and_of_text():
    rng = generator(1, "init")
    model = simple_cnn(8, filters=(2, 3), units=4, classes=3)
    params = model.init(rng)
    inputs, labels = torch.randn(4, 1, 8, 8, generator=rng), torch.tensor([0, 2, 1, 1])
    found = per_example_gradients(model, params, inputs, labels)
    whole = plain_gradient(model, params, inputs, labels)
    torch.testing.assert_close(found.mean(0), whole, rtol=1e-4, atol=1e-6)
    text = lstm(7, units=5, layers=1)
    params = text.init(rng)
    words = torch.randint(7, (3, 6), generator=rng)
    marked = words.clone()
    marked[0, 2:] = -1
    found = per_example_gradients(text, params, words, marked)
    leaves = {name: p.clone().requires_grad_() for name, p in params.items()}
    loss = cross_entropy(text.apply(leaves, words[:1])[0], marked[0], ignore_index=-1)
    loss.backward()
    one = torch.cat([p.grad.flatten() for p in leaves.values()])
    torch.testing.assert_close(found[0], one, rtol=1e-4, atol=1e-6)


def test_hessian_product_is_that_of_the_dense_hessian(data, params):
    inputs, labels = data.train_inputs[:50], data.train_labels[:50]
    product, dim = hessian_product(SMALL, params, inputs, labels)
    dense = dense_hessian(SMALL, params, inputs.double(), labels)
    assert dense.shape == (dim, dim)
    rows = np.random.default_rng(0).standard_normal((3, dim))
    np.testing.assert_allclose(product(rows), rows @ dense, atol=1e-10)
    np.testing.assert_allclose(product(rows[0]), dense @ rows[0], atol=1e-10)


def test_log_determinant_of_a_network(data, params):
    inputs, labels = data.train_inputs[:50], data.train_labels[:50]
    product, dim = hessian_product(SMALL, params, inputs, labels)
    spectrum = lanczos_spectrum(product, dim, steps=40, probes=8, seed=0)
    shift = 1.5  # the Hessian of random parameters has negative eigenvalues
    exact = np.linalg.slogdet(
        dense_hessian(SMALL, params, inputs.double(), labels) + shift * np.eye(dim)
    )[1]
    estimate, error = spectrum.log_det(shift)
    assert abs(estimate - exact) < 4 * error < 0.1 * abs(exact)


def test_products_are_those_of_all_gradients_at_once(data, params):
    inputs, labels = data.train_inputs[:40], data.train_labels[:40]
    gradients = per_example_gradients(SMALL, params, inputs, labels).numpy()
    simple = per_example_estimate(*gradient_products(SMALL, params, inputs, labels, chunk=7))
    direct = gradient_noise(gradients)
    assert simple.batch_size == pytest.approx(direct.batch_size)
    assert (simple.low, simple.high) == pytest.approx((direct.low, direct.high))
    product, _ = hessian_product(SMALL, params, inputs, labels)
    curved = per_example_estimate(
        *gradient_products(SMALL, params, inputs, labels, hessian=product, chunk=16)
    )
    dense = dense_hessian(SMALL, params, inputs.double(), labels)
    assert curved.trace == pytest.approx(np.trace(dense @ np.cov(gradients.T)))
    assert curved.batch_size == pytest.approx(gradient_noise(gradients, dense).batch_size)


@pytest.mark.parametrize("optimizer, extra", [(sgd, {}), (heavy_ball, {"momentum": 0.9})])
def test_measured_training_is_train(data, model, optimizer, extra):
    trials = grid([0, 1, 2], lr=[0.05, 0.2], **extra)
    settings = dict(batch_size=32, max_steps=30)
    measured = measure_noise(data, model, optimizer, trials, **settings, parts=4)
    usual = train(data, model, optimizer, trials, **settings)
    np.testing.assert_array_equal(measured.steps, usual.steps)
    np.testing.assert_allclose(measured.loss, usual.loss, rtol=1e-3)
    np.testing.assert_allclose(measured.accuracy, usual.accuracy, atol=0.02)
    assert measured.small_norm.shape == measured.large_norm.shape == (6, 30)
    assert (measured.small, measured.large) == (8, 32)


def test_norms_are_those_of_plain_gradients(data, model):
    """Also when the rows go through in several parts, and a lone row doubled."""
    for seeds, at_once in (([3], 2**15), ([3, 4, 5, 6, 7], 100)):
        measured = measure_noise(
            data, model, sgd, grid(seeds, lr=0.1), batch_size=16, max_steps=1, at_once=at_once
        )
        for row, seed in enumerate(seeds):
            index = next(batches(seed, len(data.train_inputs), 16))
            start = model.init(generator(seed, "init"))
            grads = [
                plain_gradient(model, start, data.train_inputs[part], data.train_labels[part])
                for part in index.split(8)
            ]
            small = np.mean([float(g @ g) for g in grads])
            mean = sum(grads) / 2
            assert measured.small_norm[row, 0] == pytest.approx(small, rel=1e-4)
            assert measured.large_norm[row, 0] == pytest.approx(float(mean @ mean), rel=1e-4)


def test_two_batch_sizes_agree_with_single_examples_on_a_network(data, model):
    """At rate zero nothing moves, so both measure the same noise; many steps, one answer."""
    held = grid([0], lr=[1e-12])
    measured = measure_noise(data, model, sgd, held, batch_size=64, max_steps=300, parts=8)
    streamed = ratio_estimate(*(values[0] for values in measured.estimates()))
    start = model.init(generator(0, "init"))
    exact = per_example_estimate(
        *gradient_products(model, start, data.train_inputs, data.train_labels)
    )
    assert streamed.low < exact.batch_size < streamed.high
    assert streamed.high / streamed.low < 1.5
    running = RunningNoise(0.995)
    for trace, signal in zip(*(values.T for values in measured.estimates())):
        running = running.update(trace, signal)
    assert running.estimate().batch_size[0] == pytest.approx(exact.batch_size, rel=0.3)


def test_observers_see_the_parameters_of_all_trials(data, model):
    trials = grid([0, 1], lr=0.1)
    seen = measure_noise(
        data,
        model,
        sgd,
        trials,
        batch_size=8,
        max_steps=3,
        spacing=0.5,
        observe=lambda step, params: (step, params["layer0.weight"].clone()),
    ).observed
    assert [step for step, _ in seen] == [0, 1, 2, 3]
    assert seen[0][1].shape == (2, 64, 16)
    torch.testing.assert_close(seen[0][1][1], model.init(generator(1, "init"))["layer0.weight"])
    alone = []
    measure_noise(
        data,
        model,
        sgd,
        grid([0], lr=0.1),
        batch_size=8,
        max_steps=3,
        observe=lambda step, params: alone.append(params["layer0.weight"].clone()),
    )
    assert alone[-1].shape[0] == 1
    torch.testing.assert_close(alone[-1][0], seen[-1][1][0])


def test_augmented_images_and_ghost_batches():
    rng = generator(2, "init")
    images = torch.randn(48, 3, 8, 8, generator=rng)
    labels = torch.randint(4, (48,), generator=rng)
    data = Data(images[:32], labels[:32], images[32:], labels[32:], augment=FlipCrop(1))
    model = resnet(8, ghost_size=4, width=2, classes=4)
    measured = measure_noise(data, model, sgd, grid([0, 1], lr=0.05), batch_size=8, max_steps=3)
    usual = train(data, model, sgd, grid([0, 1], lr=0.05), batch_size=8, max_steps=3)
    np.testing.assert_allclose(measured.loss, usual.loss, rtol=1e-2)
    with pytest.raises(ValueError, match="ghost"):
        measure_noise(data, model, sgd, grid([0], lr=0.05), batch_size=8, max_steps=3, parts=4)
    with pytest.raises(ValueError, match="one with ghost batch"):
        per_example_gradients(model, model.init(rng), images, labels)


def test_phases_become_batch_sizes_and_rates():
    phases = increase_batch([1, 1, 1], 0.2, 8, 0.9, factor=5, max_batch_size=100)
    sizes, schedule = from_phases(phases, 1000)
    assert sizes == BatchSizes.of_epochs(1000, [(1, 8), (1, 40), (1, 100)])
    assert [steps for steps, _ in sizes.pieces] == steps_by_phase(phases, 1000) == [125, 25, 10]
    factors = [schedule.factor(step, {}) for step in (0, 124, 125, 149, 150, 159, 160)]
    assert factors == pytest.approx([1, 1, 1, 1, 0.5, 0.5, 0.5])


def test_whole_steps_of_phases_are_those_of_training():
    rng = np.random.default_rng(0)
    for _ in range(200):
        examples = int(rng.integers(300, 3000))
        phases = [
            Phase(float(rng.uniform(0.5, 5)), 0.1, int(rng.integers(1, 100))) for _ in range(4)
        ]
        sizes, _ = from_phases(phases, examples)
        assert [steps for steps, _ in sizes.pieces] == steps_by_phase(phases, examples)


def measure(data, model, **changed):
    settings = dict(batch_size=8, max_steps=2) | changed
    return measure_noise(data, model, sgd, grid([0], lr=0.1), **settings)


BAD = [
    ("batch_size", lambda d, m: measure(d, m, batch_size=1), "1"),
    ("parts", lambda d, m: measure(d, m, parts=1), "1"),
    ("parts", lambda d, m: measure(d, m, parts=3), "3"),
    ("max_steps", lambda d, m: measure(d, m, max_steps=0), "0"),
    ("device", lambda d, m: measure(d, m, device="nowhere"), "nowhere"),
    ("at_once", lambda d, m: measure(d, m, at_once=1), "1"),
    ("labels", lambda d, m: per_example_gradients(
        m, m.init(generator(0, "init")), d.train_inputs[:3], d.train_labels[:2]), "2 labels"),
    ("labels", lambda d, m: hessian_product(
        m, m.init(generator(0, "init")), d.train_inputs[:0], d.train_labels[:0]), "0 labels"),
    ("chunk", lambda d, m: gradient_products(
        m, m.init(generator(0, "init")), d.train_inputs, d.train_labels, chunk=0), "0"),
    ("vectors", lambda d, m: hessian_product(
        m, m.init(generator(0, "init")), d.train_inputs[:2], d.train_labels[:2])[0](np.ones(3)),
     "(3,)"),
    ("phases", lambda d, m: from_phases([], 10), "()"),
    ("phases", lambda d, m: from_phases([(1, 0.1, 8)], 10), "(1, 0.1, 8)"),
    ("phases", lambda d, m: from_phases([Phase(1, 1, 2), Phase(1, 1, 2, 0.5)], 10), "0.5"),
    ("batch_size", lambda d, m: from_phases([Phase(1, 1, 2.5)], 10), "2.5"),
]  # fmt: skip


@pytest.mark.parametrize("name, call, value", BAD)
def test_bad_input(data, model, name, call, value):
    with pytest.raises(ValueError, match=name) as error:
        call(data, model)
    assert value in str(error.value) and "allowed" in str(error.value)


def test_unbiased_on_a_network(data, model):
    """Over random batches, the means of trace and signal are those of all pairs of examples."""
    start = model.init(generator(0, "init"))
    gradients = per_example_gradients(
        model, start, data.train_inputs[:300], data.train_labels[:300]
    ).double()
    exact = gradient_noise(gradients.numpy())
    rng = torch.Generator().manual_seed(0)
    picked = gradients[torch.randint(300, (4000, 2, 4), generator=rng)].mean(2)
    small = picked.square().sum(-1).mean(1).numpy()
    large = picked.mean(1).square().sum(-1).numpy()
    trace, signal = two_batch_estimates(small, large, 4, 8)
    # Drawn with replacement from 300 examples: the population's own moments.
    population = (gradients - gradients.mean(0)).square().sum(1).mean().item()
    squared = gradients.mean(0).square().sum().item()
    for values, wanted in ((trace, population), (signal, squared)):
        assert abs(values.mean() - wanted) < 4 * values.std() / np.sqrt(len(values))
    assert exact.trace == pytest.approx(population * 300 / 299)


def test_weight_decay_is_in_no_norm(data, model):
    """Whether an optimizer takes its gradient elsewhere decides where the decay is added."""
    trials = grid(0, lr=0.01, momentum=0.0, weight_decay=1.0)
    found = [
        measure_noise(data, model, chain(weight_decay, o), trials, batch_size=32, max_steps=3)
        for o in (heavy_ball, nesterov, nesterov_lookahead)
    ]
    plain = measure_noise(
        data, model, heavy_ball, grid(0, lr=0.01, momentum=0.0), batch_size=32, max_steps=1
    )
    for history in found:
        np.testing.assert_allclose(history.large_norm, found[0].large_norm, rtol=1e-5)
        np.testing.assert_allclose(history.small_norm, found[0].small_norm, rtol=1e-5)
        np.testing.assert_allclose(history.large_norm[:, 0], plain.large_norm[:, 0], rtol=1e-6)
