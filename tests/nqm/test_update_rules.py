"""Every optimizer's coefficients against its update rule, written out."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import recursion

from batchscaling.nqm import (
    SGD,
    Averaged,
    ExtrapSGD,
    HeavyBall,
    Nesterov,
    NoisyQuadratic,
    convergence_rate,
    is_stable,
    risk,
    risk_parts,
    steady_state_risk,
    steps_to_target,
)


def sgd(optimizer, gradient, theta):
    while True:
        yield theta
        theta = theta - optimizer.lr * gradient(theta)


def heavy_ball(optimizer, gradient, theta):
    v = 0.0
    while True:
        yield theta
        v = optimizer.momentum * v + gradient(theta)
        theta = theta - optimizer.lr * v


def nesterov(optimizer, gradient, theta):
    v = 0.0
    while True:
        yield theta
        v = optimizer.momentum * v - optimizer.lr * gradient(theta + optimizer.momentum * v)
        theta = theta + v


def extrap_sgd(optimizer, gradient, theta):
    v = past = 0.0
    while True:
        yield theta
        past = gradient(theta + optimizer.momentum * v - optimizer.extrapolation * past)
        v = optimizer.momentum * v - optimizer.lr * past
        theta = theta + v


def averaged(optimizer, gradient, theta):
    average = theta
    parameters = RULES[type(optimizer.base)](optimizer.base, gradient, theta)
    next(parameters)
    for theta in parameters:
        yield average
        average = optimizer.decay * average + (1 - optimizer.decay) * theta


RULES = {
    SGD: sgd,
    HeavyBall: heavy_ball,
    Nesterov: nesterov,
    ExtrapSGD: extrap_sgd,
    Averaged: averaged,
}


def response(optimizer, curvature, theta, hit, last):
    """Run the rule; add one to the gradient of step `hit` only. Return the last parameter."""
    step = -1

    def gradient(query):
        nonlocal step
        step += 1
        return curvature * query + (step == hit)

    path = RULES[type(optimizer)](optimizer, gradient, theta)
    for _ in range(last):
        next(path)
    return next(path)


OPTIMIZERS = [
    SGD(0.7),
    HeavyBall(0.3, 0.8),
    HeavyBall(2.5, 0.9),
    Nesterov(0.3, 0.8),
    Nesterov(1.2, 0.5),
    ExtrapSGD(0.3, 0.8, 0.1),
    ExtrapSGD(0.5, 0.9, 0.3),
    Averaged(SGD(0.7), 0.9),
    Averaged(HeavyBall(0.3, 0.8), 0.95),
    Averaged(ExtrapSGD(0.3, 0.8, 0.1), 0.5),
    Averaged(Averaged(SGD(0.7), 0.5), 0.5),
]


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=repr)
@pytest.mark.parametrize("curvature", [1.0, 0.05])
def test_coefficients_are_those_of_the_rule(optimizer, curvature):
    last = 12
    decay, noise = risk_parts(NoisyQuadratic([curvature], [1.0], 1.0), optimizer, last)
    phi = response(optimizer, curvature, 1.0, -1, last)
    psi = [response(optimizer, curvature, 0.0, step, last) for step in range(last)]
    assert decay[0] == pytest.approx(curvature / 2 * phi**2, rel=1e-11)
    assert noise[0] == pytest.approx(curvature / 2 * np.sum(np.square(psi)), rel=1e-11)


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=repr)
def test_limit_of_stability(optimizer):
    limit = optimizer.curvature_limit
    assert convergence_rate(NoisyQuadratic([limit * 0.999]), optimizer) < 1
    assert convergence_rate(NoisyQuadratic([limit * 1.001]), optimizer) > 1
    for fraction in np.linspace(1e-3, 0.999, 200):
        assert convergence_rate(NoisyQuadratic([limit * fraction]), optimizer) < 1


@settings(deadline=None, max_examples=60)
@given(
    lr=st.floats(0.01, 2),
    momentum=st.floats(0, 0.99),
    extrapolation=st.floats(0, 2),
    curvature=st.floats(0.01, 3),
)
def test_extrapolation_is_stable_exactly_below_its_limit(lr, momentum, extrapolation, curvature):
    optimizer = ExtrapSGD(lr, momentum, extrapolation)
    problem = NoisyQuadratic([curvature])
    radius = convergence_rate(problem, optimizer)
    if abs(radius - 1) > 1e-6:
        assert is_stable(problem, optimizer) == (radius < 1)


@pytest.mark.parametrize("unit", [1e-300, 1e-160, 1e160, 1e300])
@pytest.mark.parametrize("rates", [(0.1, 0.3), (0.3, 0.1), (0.1, 0.0)])
def test_the_limit_has_no_unit(rates, unit):
    lr, ahead = rates
    limit = ExtrapSGD(lr, 0.9, ahead).curvature_limit
    assert ExtrapSGD(unit * lr, 0.9, unit * ahead).curvature_limit * unit == pytest.approx(limit)
    problem = NoisyQuadratic.harmonic(10)
    with pytest.raises(ValueError, match=r"^lr is .*; allowed: below .* is stable"):
        risk(problem, ExtrapSGD(1e200, 0.9, ahead * unit), 1, 5)


def test_special_cases():
    problem, steps = NoisyQuadratic.harmonic(30), [0, 1, 5, 100]
    pairs = [
        (Nesterov(0.4, 0.0), SGD(0.4)),
        (ExtrapSGD(0.4, 0.7, 0.0), Nesterov(0.4, 0.7)),
        (Averaged(HeavyBall(0.4, 0.7), 0.0), HeavyBall(0.4, 0.7)),
    ]
    for optimizer, same in pairs:
        np.testing.assert_allclose(
            risk(problem, optimizer, 3, steps), risk(problem, same, 3, steps), rtol=1e-12
        )
        assert optimizer.curvature_limit == pytest.approx(same.curvature_limit)


@settings(deadline=None, max_examples=40)
@given(lr=st.floats(0.01, 1.2), momentum=st.floats(0, 0.95))
def test_nesterov_floor(lr, momentum):
    h, c, batch_size = 1.0, 2.0, 4
    x, a = lr * h, 1 - lr * h
    optimizer = Nesterov(lr, momentum)
    if x >= 0.999 * optimizer.curvature_limit * lr:
        return
    top = lr**2 * c / batch_size * (1 + momentum * a)
    bottom = (1 - momentum * a) * x * (2 * (1 + momentum) - (1 + 2 * momentum) * x)
    floor = steady_state_risk(NoisyQuadratic([h], [c]), optimizer, batch_size)
    assert floor == pytest.approx(h / 2 * top / bottom, rel=1e-9)


@settings(deadline=None, max_examples=40)
@given(lr=st.floats(0.01, 1.9), decay=st.floats(0, 0.999), t=st.integers(0, 500))
def test_average_is_that_of_theorem_2(lr, decay, t):
    a, c, batch_size = 1 - lr, 3.0, 4
    if abs(a - decay) < 1e-3:
        return
    phi = ((1 - decay) * a ** (t + 1) - (1 - a) * decay ** (t + 1)) / (a - decay)

    def terms(q):
        return t if q == 1 else (1 - q**t) / (1 - q)

    psi = a**2 * terms(a**2) - 2 * a * decay * terms(a * decay) + decay**2 * terms(decay**2)
    variance = lr**2 * c / batch_size * (1 - decay) ** 2 / (a - decay) ** 2 * psi
    found = risk(NoisyQuadratic([1.0], [c], 2.0), Averaged(SGD(lr), decay), batch_size, t)
    assert found == pytest.approx(0.5 * (2 * phi**2 + variance), rel=1e-7)


@settings(deadline=None, max_examples=120)
@given(data=st.data())
def test_first_crossing_of_every_optimizer(data):
    draw = data.draw
    size = draw(st.integers(1, 5))
    curvature = draw(st.lists(st.floats(1e-2, 1), min_size=size, max_size=size))
    noise = draw(st.lists(st.floats(0, 5), min_size=size, max_size=size))
    problem = NoisyQuadratic(curvature, noise, 1.0)
    momentum = draw(st.sampled_from([0.0, 0.5, 0.9, 0.99]))
    base = draw(st.sampled_from([SGD(1), Nesterov(1, momentum), ExtrapSGD(1, momentum, 0.3)]))
    fraction = draw(st.floats(1e-2, 0.999))
    optimizer = base.with_lr(fraction * base.curvature_limit / max(curvature))
    if draw(st.booleans()):
        optimizer = Averaged(optimizer, draw(st.sampled_from([0.5, 0.9, 0.99])))
    batch_size, last = draw(st.floats(0.1, 1e4)), 600
    risks = np.array(list(recursion(problem, optimizer, batch_size, last)))
    target = risks[draw(st.integers(0, last))] * draw(st.sampled_from([0.99, 1 + 1e-6, 1.1]))
    if target <= 0:
        return
    below = np.flatnonzero(risks <= target)
    found = steps_to_target(problem, optimizer, batch_size, target)
    if below.size:
        assert found == below[0]
    else:
        assert found is None or found > last


def test_with_lr_scales_every_step():
    assert ExtrapSGD(0.25, 0.5, 0.125).with_lr(0.5) == ExtrapSGD(0.5, 0.5, 0.25)
    assert Averaged(SGD(0.1), 0.5).with_lr(0.2) == Averaged(SGD(0.2), 0.5)
    assert Averaged(HeavyBall(0.1, 0.9), 0.5).momentum == 0.9
    assert Averaged(SGD(0.1), 0.5).lr == 0.1
