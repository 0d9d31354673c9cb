"""Every optimizer against torch's own, or against a plain loop, step by step in float64."""

import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from batchscaling.training.optimizers import (
    accumulator,
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

rates = st.floats(1e-4, 2)
fractions = st.floats(0, 0.999)
decays = st.floats(0, 0.5)
seeds = st.integers(0, 1000)
quick = settings(deadline=None, max_examples=30)


def scalars(**hyper):
    return {name: torch.tensor(value, dtype=torch.float64) for name, value in hyper.items()}


def run(optimizer, params, grads, hyper):
    """Return the parameters after each of the given gradients."""
    state, path = optimizer.init(params), []
    for grad in grads:
        updates, state = optimizer.update(grad, state, params, hyper)
        params = {name: params[name] + updates[name] for name in params}
        path.append(params)
    return path


def draw(seed, steps=6, dtype=torch.float64):
    rng = torch.Generator().manual_seed(seed)
    shapes = {"weight": (3, 2), "bias": (2,)}
    params, *grads = (
        {name: torch.randn(shape, generator=rng, dtype=dtype) for name, shape in shapes.items()}
        for _ in range(steps + 1)
    )
    return params, grads


def assert_is_torchs(optimizer, hyper, build, seed):
    params, grads = draw(seed)
    theirs = {name: param.clone().requires_grad_() for name, param in params.items()}
    oracle = build(theirs)
    for ours, grad in zip(run(optimizer, params, grads, scalars(**hyper)), grads, strict=True):
        for name, param in theirs.items():
            param.grad = grad[name].clone()
        oracle.step()
        torch.testing.assert_close(
            ours, {name: param.detach() for name, param in theirs.items()}, rtol=1e-9, atol=1e-9
        )


def assert_equal(one, other):
    """Bit for bit."""
    torch.testing.assert_close(one, other, rtol=0, atol=0)


@quick
@given(lr=rates, decay=decays, seed=seeds)
def test_sgd_is_torchs(lr, decay, seed):
    def build(params):
        return torch.optim.SGD(params.values(), lr=lr, weight_decay=decay)

    hyper = {"lr": lr, "weight_decay": decay}
    assert_is_torchs(chain(weight_decay, sgd), hyper, build, seed)
    # Without momentum it makes no difference where the decay acts.
    assert_is_torchs(chain(sgd, decoupled_weight_decay), hyper, build, seed)


@quick
@given(lr=rates, momentum=fractions, decay=decays, seed=seeds, form=st.booleans())
def test_momentum_is_torchs(lr, momentum, decay, seed, form):
    assert_is_torchs(
        chain(weight_decay, nesterov if form else heavy_ball),
        {"lr": lr, "momentum": momentum, "weight_decay": decay},
        lambda params: torch.optim.SGD(
            params.values(),
            lr=lr,
            momentum=momentum,
            weight_decay=decay,
            nesterov=form and momentum > 0,  # torch refuses momentum 0
        ),
        seed,
    )


@quick
@given(
    lr=rates,
    beta1=fractions,
    beta2=st.floats(0, 0.99999),
    epsilon=st.floats(1e-10, 1),
    decay=decays,
    seed=seeds,
)
def test_adam_and_its_weight_decays_are_torchs(lr, beta1, beta2, epsilon, decay, seed):
    hyper = {"lr": lr, "beta1": beta1, "beta2": beta2, "epsilon": epsilon, "weight_decay": decay}
    theirs = {"lr": lr, "betas": (beta1, beta2), "eps": epsilon, "weight_decay": decay}
    assert_is_torchs(
        chain(weight_decay, adam),
        hyper,
        lambda params: torch.optim.Adam(params.values(), **theirs),
        seed,
    )
    assert_is_torchs(
        chain(adam, decoupled_weight_decay),
        hyper,
        lambda params: torch.optim.AdamW(params.values(), **theirs),
        seed,
    )


@quick
@given(lr=rates, beta2=fractions, epsilon=st.floats(1e-10, 1), seed=seeds)
def test_adam_without_momentum_is_torchs_with_beta1_zero(lr, beta2, epsilon, seed):
    assert_is_torchs(
        adam_without_momentum,
        {"lr": lr, "beta2": beta2, "epsilon": epsilon},
        lambda params: torch.optim.Adam(params.values(), lr=lr, betas=(0.0, beta2), eps=epsilon),
        seed,
    )


def test_adam_in_float32_is_close_to_torchs_over_many_steps():
    params, grads = draw(3, steps=2000, dtype=torch.float32)
    values = {"lr": 0.01, "beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8}
    ours = run(adam, params, grads, {name: torch.tensor(v) for name, v in values.items()})
    theirs = {name: param.double().requires_grad_() for name, param in params.items()}
    oracle = torch.optim.Adam(theirs.values(), lr=0.01)
    for step, grad in enumerate(grads):
        for name, param in theirs.items():
            param.grad = grad[name].double()
        oracle.step()
        for name, param in theirs.items():
            gap = (ours[step][name] - param.detach()).abs().max()
            assert gap < 1e-4, step


STEEP = [torch.tensor([1.0, -1.0, 0.5, 0.0, 2e-3]) * (1 + i / 10) for i in range(5)]


def torchs(build, grads):
    """Return what torch's optimizer makes of ones in float32."""
    param = torch.ones(5, requires_grad=True)
    oracle = build([param])
    for grad in grads:
        param.grad = grad.clone()
        oracle.step()
    return param.detach()


def ours(optimizer, grads, **hyper):
    hyper = {name: torch.tensor(value) for name, value in hyper.items()}
    grads = [{"w": grad} for grad in grads]
    return run(optimizer, {"w": torch.ones(5)}, grads, hyper)[-1]["w"]


@pytest.mark.parametrize("beta2", [0.0, 0.5, 0.9, 0.999, 0.9999999])
@pytest.mark.parametrize("scale", [1e20, 1e22, 1e30, 1e38, 1e-20, 0.0])
def test_adams_are_numbers_wherever_torchs_are(beta2, scale):
    """In float32, in which the square of 2e19 overflows; ordinary gradients follow."""
    grads = [scale * grad for grad in STEEP] + STEEP[:3]
    decay = {"weight_decay": 0.1}
    hyper = {"lr": 0.1, "beta1": 0.9, "beta2": beta2, "epsilon": 1e-8}
    given = {"lr": 0.1, "betas": (0.9, beta2)}
    without = {name: value for name, value in hyper.items() if name != "beta1"}
    for found, theirs in (
        (ours(adam, grads, **hyper), torchs(lambda p: torch.optim.Adam(p, **given), grads)),
        (
            ours(chain(weight_decay, adam), grads, **hyper, **decay),
            torchs(lambda p: torch.optim.Adam(p, **given, **decay), grads),
        ),
        (
            ours(chain(adam, decoupled_weight_decay), grads, **hyper, **decay),
            torchs(lambda p: torch.optim.AdamW(p, **given, **decay), grads),
        ),
        (
            ours(adam_without_momentum, grads, **without),
            torchs(lambda p: torch.optim.Adam(p, lr=0.1, betas=(0.0, beta2)), grads),
        ),
    ):
        assert found.isfinite().all()
        if (1 - beta2) * (2 * scale) ** 2 < 3e38:  # else torch's own squares overflow
            torch.testing.assert_close(found, theirs, rtol=1e-4, atol=1e-6)


def test_the_least_epsilon_keeps_a_zero_gradient_from_nan():
    zeros = [torch.zeros(5)] * 3
    hyper = {"lr": 0.1, "beta1": 0.9, "beta2": 0.999, "epsilon": 1e-44}
    assert_equal(ours(adam, zeros, **hyper), torch.ones(5))


@pytest.mark.parametrize("optimizer", [sgd, heavy_ball, nesterov])
def test_momentum_takes_any_gradient_that_torchs_does(optimizer):
    grads = [1e37 * grad for grad in STEEP]
    hyper = {"lr": 0.1} if optimizer is sgd else {"lr": 0.1, "momentum": 0.5}
    given = hyper if optimizer is not nesterov else {**hyper, "nesterov": True}
    theirs = torchs(lambda p: torch.optim.SGD(p, **given), grads)
    torch.testing.assert_close(ours(optimizer, grads, **hyper), theirs)


@pytest.mark.parametrize("scale", [1e-10, 1e18, 1e20, 1e30, 1e37])
def test_lars_does_not_depend_on_the_scale_of_gradients(scale):
    hyper = {"lr": 0.1, "momentum": 0.9, "trust": 0.1, "weight_decay": 0.0}
    torch.testing.assert_close(
        ours(lars, [scale * grad for grad in STEEP], **hyper), ours(lars, STEEP, **hyper)
    )


@quick
@given(
    lr=rates,
    momentum=fractions,
    trust=st.floats(1e-4, 1),
    decay=decays,
    seed=seeds,
    zero=st.booleans(),
)
def test_lars_is_a_plain_loop(lr, momentum, trust, decay, seed, zero):
    params, grads = draw(seed)
    if zero:
        params["bias"] = torch.zeros_like(params["bias"])
    hyper = scalars(lr=lr, momentum=momentum, trust=trust, weight_decay=decay)
    path = run(lars, params, grads, hyper)
    for name in params:
        w = params[name].numpy().copy()
        velocity = np.zeros_like(w)
        for step, grad in enumerate(grads):
            g = grad[name].numpy()
            size = np.sqrt((w**2).sum())
            rate = trust * size / (np.sqrt((g**2).sum()) + decay * size) if size else 1
            velocity = momentum * velocity + rate * (g + decay * w)
            w = w - lr * velocity
            np.testing.assert_allclose(path[step][name].numpy(), w, rtol=1e-9, atol=1e-9)


def test_lars_leaves_a_tensor_without_gradient_or_decay_where_it_is():
    params, (grad,) = draw(0, steps=1)
    grad = {name: torch.zeros_like(g) for name, g in grad.items()}
    hyper = scalars(lr=0.1, momentum=0.9, trust=0.1, weight_decay=0.0)
    assert_equal(run(lars, params, [grad], hyper)[-1], params)


def test_nesterov_holds_the_point_where_the_books_form_takes_its_gradient():
    curvature = torch.tensor([0.1, 1.0, 3.0], dtype=torch.float64)
    lr, momentum = 0.3, 0.8
    theta, velocity = torch.ones(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    params = {"w": theta}
    state = nesterov.init(params)
    for _ in range(20):
        ahead = theta + momentum * velocity
        torch.testing.assert_close(params["w"], ahead)
        grads = {"w": curvature * params["w"]}
        updates, state = nesterov.update(grads, state, params, scalars(lr=lr, momentum=momentum))
        params = {"w": params["w"] + updates["w"]}
        velocity = momentum * velocity - lr * curvature * ahead
        theta = theta + velocity


@quick
@given(lr=rates, seed=seeds)
def test_without_momentum_all_are_sgd_bit_for_bit(lr, seed):
    params, grads = draw(seed)
    plain = run(sgd, params, grads, scalars(lr=lr))
    for optimizer in (heavy_ball, nesterov):
        assert_equal(run(optimizer, params, grads, scalars(lr=lr, momentum=0.0)), plain)


@quick
@given(power=st.integers(-20, 20), seed=seeds)
def test_adam_does_not_see_the_scale_of_the_gradients(power, seed):
    params, grads = draw(seed)
    scaled = [{name: 2.0**power * g for name, g in grad.items()} for grad in grads]
    for optimizer in (adam_without_momentum, adam):
        hyper = scalars(lr=0.1, beta1=0.8, beta2=0.9, epsilon=1e-60)
        assert_equal(run(optimizer, params, scaled, hyper), run(optimizer, params, grads, hyper))


@quick
@given(power=st.integers(-20, 20), trust=st.floats(1e-3, 0.5), seed=seeds)
def test_lars_first_step_is_a_part_of_the_weights_size(power, trust, seed):
    params, (grad,) = draw(seed, steps=1)
    grad = {name: 2.0**power * g for name, g in grad.items()}
    hyper = scalars(lr=0.5, momentum=0.9, trust=trust, weight_decay=0.0)
    updates, _ = lars.update(grad, lars.init(params), params, hyper)
    for name, update in updates.items():
        expected = 0.5 * trust * params[name].norm()
        torch.testing.assert_close(update.norm(), expected)


def test_chain_is_associative():
    params, grads = draw(5)
    hyper = scalars(lr=0.1, momentum=0.9, weight_decay=0.01, beta2=0.9, epsilon=1e-3)
    parts = weight_decay, adam_without_momentum, fix(layer_rate, trust=0.1, weight_decay=0)
    left = chain(chain(*parts[:2]), parts[2])
    right = chain(parts[0], chain(*parts[1:]))
    flat = run(chain(*parts), params, grads, hyper)
    assert_equal(run(left, params, grads, hyper), flat)
    assert_equal(run(right, params, grads, hyper), flat)
    assert set(left.hyper) == set(right.hyper) == {"weight_decay", "lr", "beta2", "epsilon"}


def test_fixed_is_given():
    params, grads = draw(6)
    asked = run(adam, params, grads, scalars(lr=0.1, beta1=0.5, beta2=0.9, epsilon=1e-8))
    fixed = fix(adam, beta2=0.9, epsilon=1e-8)
    assert set(fixed.hyper) == {"lr", "beta1"}
    assert_equal(run(fixed, params, grads, scalars(lr=0.1, beta1=0.5)), asked)
    # A value that was fixed is not asked for, and none in `hyper` replaces it.
    assert_equal(run(fixed, params, grads, scalars(lr=0.1, beta1=0.5, beta2=0.1)), asked)


def test_weights_only_leaves_vectors_alone():
    params, grads = draw(7)
    hyper = scalars(lr=0.1, momentum=0.9, weight_decay=0.2)
    some = run(chain(weights_only(weight_decay), heavy_ball), params, grads, hyper)[-1]
    every = run(chain(weight_decay, heavy_ball), params, grads, hyper)[-1]
    none = run(heavy_ball, params, grads, hyper)[-1]
    assert_equal(some, {"weight": every["weight"], "bias": none["bias"]})
    assert not torch.equal(every["bias"], none["bias"])


HYPER = [
    (sgd, {"lr"}),
    (heavy_ball, {"lr", "momentum"}),
    (nesterov, {"lr", "momentum"}),
    (adam, {"lr", "beta1", "beta2", "epsilon"}),
    (adam_without_momentum, {"lr", "beta2", "epsilon"}),
    (lars, {"lr", "momentum", "trust", "weight_decay"}),
    (weight_decay, {"weight_decay"}),
    (decoupled_weight_decay, {"weight_decay"}),
]


@pytest.mark.parametrize(("optimizer", "names"), HYPER)
def test_hyperparameters_are_named_and_checked(optimizer, names):
    assert set(optimizer.hyper) == names
    zero_allowed = {"momentum", "beta1", "beta2", "weight_decay"}
    for name, check in optimizer.hyper.items():
        assert check(name, np.float64(0.5)) == 0.5
        bad = [-0.1, float("nan"), float("inf"), "1"]
        bad += [1.0] if name in {"momentum", "beta1", "beta2"} else []
        bad += [] if name in zero_allowed else [0.0]
        for value in bad:
            with pytest.raises(ValueError, match=f"{name} is .*allowed: "):
                check(name, value)
        if name in zero_allowed:
            assert check(name, 0) == 0


BAD = [
    (lambda: chain(), "optimizers is ()"),
    (lambda: chain(sgd, "adam"), "optimizers[1] is 'adam'"),
    (lambda: chain(weight_decay, lars), "optimizers is"),
    (lambda: chain(sgd, sgd), "optimizers is"),
    (lambda: fix(adam), "values is []"),
    (lambda: fix(adam, momentum=0.9), "values is ['momentum']"),
    (lambda: fix(adam, lr=0.1), "values is ['lr']"),
    (lambda: fix(adam, beta2=1.0), "beta2 is 1.0"),
    (lambda: fix(adam, epsilon=0), "epsilon is 0"),
    (lambda: fix("adam", epsilon=1), "optimizer is 'adam'"),
    (lambda: weights_only(heavy_ball), "part is"),
    (lambda: chain(heavy_ball, weight_decay), 'optimizers[1] is "a penalty'),
    (lambda: chain(adam, weights_only(weight_decay)), 'optimizers[1] is "a penalty'),
    (lambda: weights_only(0.1), "part is 0.1"),
]


@pytest.mark.parametrize(("call", "message"), BAD, ids=[message for _, message in BAD])
def test_bad_input_names_parameter_value_and_what_is_allowed(call, message):
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        call()
    assert "allowed: " in str(error.value)


@given(lr=rates, momentum=fractions, seed=seeds)
@quick
def test_accumulator_of_a_mean_is_heavy_ball_at_the_effective_rate(lr, momentum, seed):
    params, grads = draw(seed)
    ball = run(heavy_ball, params, grads, scalars(lr=lr * (1 - momentum), momentum=momentum))
    mean = run(accumulator(), params, grads, scalars(lr=lr, momentum=momentum))
    total = run(accumulator(mean=False), params, grads, scalars(lr=lr, momentum=momentum))
    plain = run(heavy_ball, params, grads, scalars(lr=lr, momentum=momentum))
    for ours, theirs in zip(mean + total, ball + plain, strict=True):
        for name in params:
            torch.testing.assert_close(ours[name], theirs[name])


def test_accumulator_follows_its_momentum_and_scale():
    """Against a plain loop: steps count from 1, and the scale gets the step's momentum."""
    params, grads = draw(0)
    method = accumulator(lambda t, m: m * (t - 1) / 6, scale=lambda t, m: 1 + t * m)
    path = run(method, params, grads, scalars(lr=0.3, momentum=0.8))
    place, total = params["weight"], 0.0
    for step, grad in enumerate(grads, start=1):
        m = 0.8 * (step - 1) / 6
        total = m * total + (1 - m) * grad["weight"]
        place = place - 0.3 * (1 + step * m) * total
        torch.testing.assert_close(path[step - 1]["weight"], place)


def test_a_corrected_accumulator_takes_full_steps_at_once():
    gradient = {"weight": torch.ones(2, dtype=torch.float64)}
    method = accumulator(scale=lambda t, m: 1 / (1 - m**t))
    path = run(method, {"weight": torch.zeros(2, dtype=torch.float64)}, [gradient] * 4,
               scalars(lr=0.5, momentum=0.9))  # fmt: skip
    for step, params in enumerate(path, start=1):
        torch.testing.assert_close(params["weight"], -0.5 * step * gradient["weight"])


@pytest.mark.parametrize(
    ("name", "bad"), [("momentum", 0.9), ("scale", 2.0), ("mean", 1), ("mean", None)]
)
def test_accumulator_refuses(name, bad):
    with pytest.raises(ValueError, match=f"^{name} is"):
        accumulator(**{name: bad})


def test_a_part_that_changes_updates_comes_after_a_rate():
    for part in (decoupled_weight_decay, fix(decoupled_weight_decay, weight_decay=0.1)):
        with pytest.raises(ValueError, match=r"^optimizers\[0\] is .a part that changes updates"):
            chain(part, sgd)
