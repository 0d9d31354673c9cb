"""Numbers of every type: equal ones give equal results, and what is none is refused by name."""

from dataclasses import fields, is_dataclass
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from batchscaling import noise, nqm, training
from batchscaling.training.data import FlipCrop
from batchscaling.training.optimizers import adam
from batchscaling.training.search import draw

P = nqm.NoisyQuadratic([1.0, 0.5, 0.1])
SGD, OU = nqm.SGD(0.3), noise.OrnsteinUhlenbeck([1.0, 0.5], [1.0, 2.0], 0.1)
PIECES = [nqm.Piece(SGD, 8, 5), nqm.Piece(nqm.SGD(0.1), 8, 5)]
PHASES = noise.decay_lr([3, 3], 0.3, 8)
RANGE = training.Range(2**-6, 2**4)
SIZES = training.BatchSizes([(10, 8), (10, 16)])
MATRIX = np.diag([1.0, 2.0, 4.0])
SPECTRUM = noise.lanczos_spectrum(lambda v: MATRIX @ v, 3, steps=3, probes=2, seed=0)
TRACES, SIGNALS = [3.0, 4.0, 2.5, 3.5], [1.0, 1.5, 1.25, 0.75]


def running(decay=0.9, trace=3.0, signal=1.5, confidence=0.9):
    start = noise.RunningNoise(decay).update(2.0, 1.0).update(2.5, 0.5)
    return start.update(trace, signal).estimate(confidence)


def paths(run, **more):
    return lambda **changed: run(
        lambda theta: theta, [1.0, 2.0], [1.0, 0.0], seed=0, **more, **changed
    )


def factor(schedule):
    return [float(schedule.factor(step, {})) for step in range(6)]


# A call, and its numbers. All are inexact in short types, so that these give other results.
CALLS = {
    "SGD": (nqm.SGD, dict(lr=0.3)),
    "HeavyBall": (nqm.HeavyBall, dict(lr=0.3, momentum=0.7)),
    "Nesterov": (nqm.Nesterov, dict(lr=0.3, momentum=0.7)),
    "ExtrapSGD": (nqm.ExtrapSGD, dict(lr=0.3, momentum=0.7, extrapolation=0.3)),
    "Averaged": (lambda decay: nqm.Averaged(SGD, decay), dict(decay=0.9)),
    "with_lr": (nqm.ExtrapSGD(0.1, 0.7, 0.1).with_lr, dict(lr=0.3)),
    "transition": (nqm.HeavyBall(0.1, 0.7).transition, dict(curvature=0.3)),
    "NoisyQuadratic": (
        lambda second_moment: nqm.NoisyQuadratic([1.0], [1.0], second_moment),
        dict(second_moment=3.3),
    ),
    "harmonic": (nqm.NoisyQuadratic.harmonic, dict(dim=5, second_moment=3.3)),
    "power_law": (nqm.NoisyQuadratic.power_law, dict(dim=5, exponent=1.3, second_moment=1)),
    "quantize": (P.quantize, dict(bins=2)),
    "precondition": (P.precondition, dict(power=0.3)),
    "local_steps": (P.local_steps, dict(lr=0.3, steps=5)),
    "extragradient": (P.extragradient, dict(extrapolation=0.3)),
    "smooth": (P.smooth, dict(std=0.3, local_batch_size=3.3)),
    "risk": (lambda **n: nqm.risk(P, SGD, **n), dict(batch_size=3, steps=20)),
    "risk of a rate": (lambda lr: nqm.risk(P, nqm.SGD(lr), 2, [5]), dict(lr=1)),
    "steady_state_risk": (
        lambda **n: nqm.steady_state_risk(P, SGD, **n),
        dict(batch_size=3.3),
    ),
    "steps_to_target": (
        lambda **n: nqm.steps_to_target(P, SGD, **n),
        dict(batch_size=33, target=0.1),
    ),
    "tail_average_risk": (
        lambda **n: nqm.tail_average_risk(P, SGD, **n),
        dict(batch_size=3, start=2, steps=9),
    ),
    "sample_paths": (
        lambda **n: nqm.sample_paths(P, SGD, **n),
        dict(batch_size=3, steps=4, paths=2, seed=1),
    ),
    "Piece": (lambda **n: nqm.Piece(SGD, **n), dict(batch_size=8, steps=3)),
    "schedule_risk": (lambda steps: nqm.schedule_risk(P, PIECES, steps), dict(steps=7)),
    "schedule_risk of a piece": (
        lambda **n: nqm.schedule_risk(P, [nqm.Piece(SGD, **n)], 2),
        dict(batch_size=8, steps=3),
    ),
    "optimal_lr_schedule": (
        lambda **n: nqm.optimal_lr_schedule(P, **n),
        dict(batch_size=3, steps=9, pieces=2),
    ),
    "fewest_steps_schedule": (
        lambda **n: nqm.fewest_steps_schedule(P, **n),
        dict(batch_size=30, target=0.3, pieces=2),
    ),
    "optimal_batch_sizes": (
        lambda **n: nqm.optimal_batch_sizes(P, **n),
        dict(lr=0.3, steps=9, examples=99, pieces=2),
    ),
    "tune": (
        lambda target, momentum: nqm.tune(P, nqm.HeavyBall, [8], target, momentum=momentum),
        dict(target=0.3, momentum=0.7),
    ),
    "tune at a rate": (
        lambda lr: nqm.tune(P, nqm.HeavyBall, [8], 0.3, lr=lr),
        dict(lr=0.3),
    ),
    "critical_batch_size": (
        lambda **n: nqm.critical_batch_size(P, nqm.SGD, **n),
        dict(target=0.3, small=1, large=2**14),
    ),
    "maximum_likelihood_risk": (
        lambda examples: nqm.maximum_likelihood_risk(P, examples),
        dict(examples=30),
    ),
    "bayes_risk": (lambda examples: nqm.bayes_risk(P, examples), dict(examples=30)),
    "lower_bound_steps": (
        lambda **n: nqm.lower_bound_steps(P, **n),
        dict(batch_size=3.3, target=0.3),
    ),
    "diffusion_constant": (noise.diffusion_constant, dict(lr=0.3, batch_size=7, momentum=0.7)),
    "OrnsteinUhlenbeck": (
        lambda diffusion: noise.OrnsteinUhlenbeck([1.0], [1.0], diffusion),
        dict(diffusion=0.3),
    ),
    "mean": (lambda times: OU.mean([1.0, 2.0], times), dict(times=0.3)),
    "variance": (lambda times: OU.variance(times), dict(times=0.3)),
    "sample": (lambda **n: OU.sample([1.0, 2.0], [0.1, 1], **n), dict(paths=2, seed=1)),
    "stationary_variance": (
        lambda **n: noise.stationary_variance([1.0, 0.5], [1.0, 2.0], **n),
        dict(lr=0.3, batch_size=7, momentum=0.7),
    ),
    "sgd_paths": (
        paths(noise.sgd_paths),
        dict(lr=0.3, batch_size=7, momentum=0.7, steps=4, paths=2, every=2),
    ),
    "sde_paths": (
        paths(noise.sde_paths),
        dict(diffusion=0.3, dt=0.1, steps=4, paths=2, every=2),
    ),
    "stationary_density": (
        lambda diffusion: noise.stationary_density([-1, 0, 1], [1, 1, 1], [-1, 0, 1], diffusion),
        dict(diffusion=0.3),
    ),
    "ratio_estimate": (
        lambda **n: noise.ratio_estimate(TRACES, SIGNALS, **n),
        dict(confidence=0.9, blocks=3),
    ),
    "two_batch_estimates": (
        noise.two_batch_estimates,
        dict(small_norm=3.3, large_norm=2.1, small=5, large=10),
    ),
    "per_example_estimate": (
        lambda confidence: noise.per_example_estimate(TRACES, SIGNALS, confidence=confidence),
        dict(confidence=0.9),
    ),
    "gradient_noise": (
        lambda confidence: noise.gradient_noise(np.eye(4) + 1, confidence=confidence),
        dict(confidence=0.9),
    ),
    "RunningNoise": (running, dict(decay=0.9, trace=3.3, signal=1.3, confidence=0.9)),
    "quadratic_noise_scales": (
        lambda **n: noise.quadratic_noise_scales(P, **n),
        dict(second_moment=0.7),
    ),
    "laplace_evidence": (
        lambda **n: noise.laplace_evidence(hessian=[1.0, 2.0], **n),
        dict(cost=3.3, prior_precision=0.3),
    ),
    "laplace_evidence_from_log_det": (
        noise.laplace_evidence_from_log_det,
        dict(cost=3.3, log_det=7.7, dim=3, prior_precision=0.3),
    ),
    "lanczos_spectrum": (
        lambda steps, probes, seed: noise.lanczos_spectrum(
            lambda v: MATRIX @ v, 3, steps=steps, probes=probes, seed=seed
        ),
        dict(steps=2, probes=2, seed=1),
    ),
    "log_det": (SPECTRUM.log_det, dict(shift=0.3)),
    "density": (lambda width: SPECTRUM.density([1.0, 2.0], width), dict(width=0.3)),
    "noise_scale": (
        noise.noise_scale,
        dict(lr=0.3, examples=200, batch_size=7, momentum=0.7),
    ),
    "Phase": (noise.Phase, dict(epochs=3, lr=0.3, batch_size=8, momentum=0.7)),
    "decay_lr": (
        lambda **n: noise.decay_lr([3, 3], **n),
        dict(lr=0.3, batch_size=8, momentum=0.7, factor=3.3),
    ),
    "increase_batch": (
        lambda **n: noise.increase_batch([3, 3], **n),
        dict(lr=0.3, batch_size=8, momentum=0.7, factor=3.3, max_batch_size=20),
    ),
    "hybrid": (
        lambda **n: noise.hybrid([3, 3], **n),
        dict(lr=0.3, batch_size=8, momentum=0.7, factor=3.3, increases=1),
    ),
    "matched_batch_size": (
        lambda **n: noise.matched_batch_size(PHASES[0], **n),
        dict(lr=0.7, momentum=0.3),
    ),
    "updates": (lambda examples: noise.updates(PHASES, examples), dict(examples=200)),
    "steps_by_phase": (lambda examples: noise.steps_by_phase(PHASES, examples), dict(examples=200)),
    "examples_by_step": (
        lambda examples: noise.examples_by_step(PHASES, examples),
        dict(examples=200),
    ),
    "Range": (training.Range, dict(low=0.3, high=7.7)),
    "position": (RANGE.position, dict(value=0.3)),
    "border": (RANGE.border, dict(value=0.3)),
    "values": (RANGE.values, dict(unit=0.3)),
    "draw": (lambda **n: draw({"lr": RANGE}, **n), dict(count=3, seed=1, skip=2)),
    "FlipCrop": (FlipCrop, dict(padding=3)),
    "at": (SIZES.at, dict(step=11)),
    "examples": (SIZES.examples, dict(step=11)),
    "steps_for": (SIZES.steps_for, dict(examples=99)),
    "step_drops": (
        lambda **n: factor(training.step_drops([2, 4], **n)),
        dict(factor=0.3),
    ),
    "linear_scaling": (
        lambda **n: factor(training.linear_scaling(**n)),
        dict(batch_size=70, reference=30, warm_up=3),
    ),
    "grid": (training.grid, dict(seeds=3, lr=0.3)),
    "fix": (
        lambda beta2: sorted(training.fix(adam, beta2=beta2).hyper),
        dict(beta2=0.9),
    ),
}

SCALARS = [
    *(np.dtype(code).type for code in "bBhHiIqQefdg"),
    *(lambda value, code=code: np.array(value, dtype=code) for code in ("i4", ">i4", ">f8", "f4")),
    lambda value: np.array(value, dtype=object),
    np.ma.array,
    Fraction,
    Decimal,
    torch.tensor,
    lambda value: torch.tensor(value, dtype=torch.bfloat16),
    lambda value: torch.tensor(value, dtype=torch.int16),
]
NO_NUMBERS = [
    True,
    np.True_,
    np.array(True),
    torch.tensor(True),
    "0.5",
    np.str_("0.5"),
    b"1",
    0.5 + 0j,
    np.complex64(1),
    np.timedelta64(1, "s"),
    np.array(1, "m8[s]"),
    np.datetime64(1, "s"),
    np.ma.masked,
    np.ma.array(1.0, mask=True),
    np.array([[1.0, 0.5]], dtype=object)[0, :0],
    float("nan"),
    np.float32("nan"),
    Decimal("sNaN"),
    Decimal("1e400"),
    10**400,
    -(10**5000),
    Fraction(10**5000, 3),
    np.longdouble("1e4000"),
    {},
]


def plain(number):
    """Return the Python number with the value of one of any type."""
    number = number.item() if hasattr(number, "item") else number
    is_whole = isinstance(number, (int, np.integer))
    return int(number) if is_whole else float(number)


def outcome(call, arguments):
    """Return what a call gives, or the parameter that it refuses."""
    try:
        return call(**arguments)
    except ValueError as error:
        assert "; allowed: " in str(error), error
        return "refused", str(error).split(" is ")[0]


def assert_same(one, other):
    if is_dataclass(one):
        assert type(one) is type(other)
        for field in fields(one):
            assert_same(getattr(one, field.name), getattr(other, field.name))
    elif isinstance(one, dict):
        assert list(one) == list(other)
        assert_same(list(one.values()), list(other.values()))
    elif isinstance(one, (list, tuple)) and any(map(is_dataclass, one)):
        assert len(one) == len(other)
        for pair in zip(one, other, strict=True):
            assert_same(*pair)
    elif callable(one):
        pass
    else:
        np.testing.assert_array_equal(one, other)
        assert np.asarray(one).dtype == np.asarray(other).dtype


@pytest.mark.parametrize("name", CALLS)
@settings(max_examples=20)
@given(data=st.data())
def test_equal_numbers_give_equal_results(name, data):
    call, arguments = CALLS[name]
    parameter = data.draw(st.sampled_from(list(arguments)))
    kind = data.draw(st.sampled_from(SCALARS))
    try:
        number = kind(arguments[parameter])
    except OverflowError:  # numpy's: too large for the type
        return
    found = outcome(call, arguments | {parameter: number})
    assert_same(found, outcome(call, arguments | {parameter: plain(number)}))


PARAMETERS = [(name, parameter) for name, (_, numbers) in CALLS.items() for parameter in numbers]
IDS = [" ".join(pair) for pair in PARAMETERS]


@pytest.mark.parametrize(("name", "parameter"), PARAMETERS, ids=IDS)
def test_what_is_no_number_is_refused_by_name(name, parameter):
    call, arguments = CALLS[name]
    for value in NO_NUMBERS:
        found = outcome(call, arguments | {parameter: value})
        assert found[0] == "refused" and found[1].startswith(parameter), (value, found)


# By the name of its one array: a call, and the array's numbers.
ARRAYS = {
    "curvature": (nqm.NoisyQuadratic, [4, 2, 1]),
    "noise": (lambda noise: nqm.NoisyQuadratic([4, 2, 1], noise), [4, 2, 1]),
    "second_moment": (
        lambda second_moment: nqm.NoisyQuadratic([4, 2, 1], None, second_moment),
        [1, 2, 3],
    ),
    "counts": (lambda counts: nqm.NoisyQuadratic([4, 2, 1], counts=counts), [1, 2, 3]),
    "steps": (lambda steps: nqm.risk(P, SGD, 8, steps), [0, 3, 9]),
    "batch_size": (lambda batch_size: nqm.steps_to_target(P, SGD, batch_size, 0.3), [1, 8, 64]),
    "target": (lambda target: nqm.steps_to_target(P, SGD, 8, target), [1, 2, 3]),
    "batch_sizes": (lambda batch_sizes: nqm.tune(P, nqm.SGD, batch_sizes, 0.3), [8, 64]),
    "start": (lambda start: nqm.optimal_lr_schedule(P, 8, 9, pieces=3, start=start), [1, 1, 1]),
    "examples": (lambda examples: nqm.bayes_risk(P, examples), [1, 10, 100]),
    "hessian": (lambda hessian: noise.OrnsteinUhlenbeck(hessian, [1, 2, 3], 0.1), [1, 2, 3]),
    "covariance": (
        lambda covariance: noise.stationary_variance([1, 1], covariance, 0.1, 8),
        [1, 2],
    ),
    "times": (lambda times: OU.variance(times), [0, 1, 2]),
    "grid": (lambda grid: noise.stationary_density([1, 0, 1], [1, 1, 1], grid, 0.1), [0, 1, 2]),
    "trace": (lambda trace: noise.ratio_estimate(trace, SIGNALS), [3, 4, 2, 5]),
    "small_norm": (lambda small_norm: noise.two_batch_estimates(small_norm, [2, 3], 5, 10), [3, 4]),
    "norms": (lambda norms: noise.per_example_estimate(norms, SIGNALS), [3, 4, 2, 5]),
    "gradients": (noise.gradient_noise, [[1, 2], [2, 1], [1, 1], [3, 2]]),
    "momentum": (lambda momentum: noise.noise_scale(0.1, 100, 8, momentum), [0, 0]),
    "lr": (lambda lr: training.grid([0, 1], lr=lr), [1, 2, 4]),
    "seeds": (lambda seeds: training.grid(seeds, lr=1), [1, 2, 4]),
    "unit": (RANGE.values, [0, 1]),
}
ENTRIES = [*"bBhHiIqQefdg", ">i2", ">i8", ">f4", ">f8", object, "masked", "list", "torch"]


def as_array(values, kind):
    if kind == "list":
        return values
    if kind == "masked":
        return np.ma.array(values)
    return torch.tensor(values) if kind == "torch" else np.array(values, dtype=kind)


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_of_equal_numbers_give_equal_results(name):
    call, values = ARRAYS[name]
    whole = name == "seeds"
    for kind in ENTRIES:
        found = run(call, as_array(values, kind))
        if whole and np.asarray(as_array(values, kind)).dtype.kind == "f":
            assert found[0] == "refused" and found[1].startswith(name)
        else:
            assert_same(found, call(values))


def run(call, value):
    return outcome(lambda: call(value), {})


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_of_other_things_are_refused_by_name(name):
    call, values = ARRAYS[name]
    flat = np.ravel(values)
    first = np.zeros(np.shape(values), bool)
    first.flat[0] = True
    others = [
        np.array(values).astype(bool),
        np.array(values).astype(str),
        np.array(values).astype(bytes),
        np.array(values).astype(complex),
        np.array(values).astype("m8[s]"),
        np.ma.array(values, mask=first),
        np.where(first, None, values),
        np.where(first, True, np.array(values, dtype=object)),
        [True, *flat[1:].tolist()],
        [np.ma.masked, *flat[1:].tolist()],
        [10**400, *flat[1:].tolist()],
        [float("nan"), *flat[1:].tolist()],
        [[1], [1, 2]],
        "text",
        torch.tensor(values, dtype=torch.float32, requires_grad=True),
        torch.tensor(values, dtype=torch.bool),
    ]
    for value in others:
        found = run(call, value)
        assert found[0] == "refused" and found[1].startswith(name), (value, found)


def test_the_examples_that_failed_once():
    lr = np.linspace(0, 0.9, 4)[3]
    assert nqm.risk(P, nqm.ExtrapSGD(0.1, lr, 0.1), 8, [10]) == nqm.risk(
        P, nqm.ExtrapSGD(0.1, 0.9, 0.1), 8, [10]
    )
    pieces = [nqm.Piece(nqm.SGD(0.1), 8, n) for n in np.diff([0, 50, 100])]
    assert nqm.schedule_risk(P, pieces, 100) == pytest.approx(nqm.risk(P, nqm.SGD(0.1), 8, 100))
    short = nqm.NoisyQuadratic([1.0, 0.5])
    assert nqm.risk(short, nqm.SGD(np.uint8(1)), 2, [5])[0] == pytest.approx(0.3335, abs=1e-4)
    assert not nqm.is_stable(nqm.NoisyQuadratic([1e9]), nqm.SGD(np.float16(1e-5)))


def test_an_array_of_the_caller_is_copied():
    hessian, sizes = np.array([1.0, 2.0]), np.array([1.0, 2.0])
    process = noise.OrnsteinUhlenbeck(hessian, [1.0, 1.0], 0.1)
    curve = training.BatchSizeCurve(sizes, np.ones((2, 3)))
    hessian[0] = sizes[0] = 7
    assert process.hessian[0] == curve.batch_sizes[0] == 1
    with pytest.raises(ValueError, match="read-only"):
        process.hessian[0] = 7
