"""The explorers' arithmetic in a browser against the library, and the words that state it."""

import itertools
import re

import mpmath
import numpy as np
import pytest

from batchscaling.curves import fit_power
from batchscaling.noise import (
    OrnsteinUhlenbeck,
    diffusion_constant,
    stationary_density,
    stationary_variance,
)
from batchscaling.nqm import (
    SGD,
    HeavyBall,
    NoisyQuadratic,
    convergence_rate,
    critical_batch_size,
    is_stable,
    risk,
    steady_state_risk,
    steps_to_target,
    tune,
)

FIELDS = ("curvature", "noise", "second_moment", "counts")
PROBLEM = NoisyQuadratic.harmonic(10_000).quantize(20)
STEPS = [0, 1, 2, 3, 10, 57, 1000, 31_623, 10**6]


@pytest.fixture(scope="module")
def run(visit, address):
    """Return a function that runs JavaScript with the explorers' modules of arithmetic."""

    def call(body, argument):
        code = f"""
        async (argument) => {{
            const nqm = await import("{address}/_static/nqm.js");
            const tuning = await import("{address}/_static/tuning.js");
            const plane = await import("{address}/_static/plane.js");
            const thermometer = await import("{address}/_static/thermometer.js");
            {body}
        }}
        """
        return seen.page.evaluate(code, argument)

    with visit("chapters/intro.html") as seen:
        yield call


def data_of(problem):
    return {name: getattr(problem, name).tolist() for name in FIELDS}


def test_risk_and_floor_agree_with_the_library(run):
    cases, expected, floors = [], [], []
    grid = itertools.product((0, 0.5, 0.9, 0.999), (0, 0.75))
    for momentum, power in grid:
        equivalent = PROBLEM.precondition(power)
        limit = 2 * (1 + momentum) / equivalent.curvature.max()
        rates = [1e-3, 0.1, 0.5, 0.9 * limit, (1 - 1e-6) * limit, (1 - 1e-9) * limit]
        if momentum > 0:  # the double root of one eigenvalue, where the matrix is defective
            rates.append((1 - momentum**0.5) ** 2 / equivalent.curvature[3])
        for lr, batch_size in itertools.product(rates, (1, 1024)):
            method = HeavyBall(float(lr), momentum)
            cases.append([float(lr), momentum, batch_size, power])
            expected.append(risk(equivalent, method, batch_size, STEPS))
            floors.append(steady_state_risk(equivalent, method, batch_size))
    body = """
    const { problem, cases, steps } = argument;
    return cases.map(([lr, momentum, batchSize, power]) => {
        const equivalent = nqm.precondition(problem, power);
        const method = nqm.heavyBall(lr, momentum);
        const floor = nqm.steadyStateRisk(equivalent, method, batchSize);
        return [...nqm.risk(equivalent, method, batchSize, steps), floor];
    });
    """
    found = np.array(run(body, {"problem": data_of(PROBLEM), "cases": cases, "steps": STEPS}))
    assert len(cases) == 108
    np.testing.assert_allclose(found[:, :-1], expected, rtol=1e-9)
    np.testing.assert_allclose(found[:, -1], floors, rtol=1e-9)


def test_steps_to_target_are_those_of_the_library(run):
    rng = np.random.default_rng(0)
    cases = []
    for _ in range(60):
        momentum = float(rng.choice([0, 0.5, 0.9, 0.99, 0.999]))
        lr = 2 * (1 + momentum) * float(10 ** rng.uniform(-3, -0.01))
        cases.append([lr, momentum, 2 ** int(rng.integers(0, 13)), float(10 ** rng.uniform(-3, 0))])
    body = """
    return argument.cases.map(([lr, momentum, batchSize, target]) => {
        const method = nqm.heavyBall(lr, momentum);
        return nqm.stepsToTarget(argument.problem, method, batchSize, target, 1e6);
    });
    """
    found = run(body, {"problem": data_of(PROBLEM), "cases": cases})
    expected = [
        steps_to_target(PROBLEM, HeavyBall(lr, momentum), batch_size, target)
        for lr, momentum, batch_size, target in cases
    ]
    assert found == [None if steps is None or steps > 10**6 else steps for steps in expected]
    assert 20 < sum(steps is not None for steps in found) < 60


def test_range_of_a_swinging_risk_is_inside_the_true_one_and_nearly_as_wide(run):
    method = HeavyBall(0.5, 0.999)
    body = """
    const steps = nqm.stepGrid(1e4);
    const method = nqm.heavyBall(0.5, 0.999);
    return { steps, ...nqm.riskParts(argument, method, steps) };
    """
    found = run(body, data_of(PROBLEM))
    first = np.searchsorted(found["steps"], 256)
    np.testing.assert_array_equal(
        np.diff(found["steps"])[first : first + 32], [16] * 16 + [32] * 16
    )
    widths = []
    for k in range(first, first + 32):
        every = np.arange(found["steps"][k], found["steps"][k + 1])
        decay = risk(PROBLEM, method, 1e300, every)
        low, mean, high = (found[name][k] for name in ("low", "mean", "high"))
        assert decay.min() * (1 - 1e-9) <= low <= mean <= high <= decay.max() * (1 + 1e-9)
        assert mean == pytest.approx(decay.mean(), rel=0.05)
        widths.append((high - low) / np.ptp(decay))
    assert np.median(widths) > 0.9
    assert found["low"][3] == found["mean"][3] == found["high"][3] == found["decay"][3]


@pytest.mark.parametrize("bins", [1, 32, 40])
def test_spectrum_and_bins_are_those_of_the_library(run, bins):
    exponents = [0, 0.35, 1, 1.5, 2]
    body = """
    return argument.exponents.map((s) => nqm.quantize(nqm.powerLaw(10_000, s), argument.bins));
    """
    for exponent, found in zip(
        exponents, run(body, {"exponents": exponents, "bins": bins}), strict=True
    ):
        expected = NoisyQuadratic.power_law(10_000, exponent).quantize(bins)
        for name in FIELDS:
            np.testing.assert_allclose(found[name], getattr(expected, name), rtol=1e-12)


def test_roots_and_convergence_rate_agree_with_the_library(run):
    rng = np.random.default_rng(1)
    momenta = [0.0, 0.25, 0.5, 0.9, 0.99, 0.999]
    cases = [
        (float(x), momentum)
        for momentum in momenta
        for x in [*2.4 * rng.random(20), 1e-6, (1 - momentum**0.5) ** 2, (1 + momentum**0.5) ** 2]
    ]
    found = run("return argument.map(([x, beta]) => nqm.roots(x, beta));", cases)
    kinds = set()
    with mpmath.workdps(50):
        for (x, momentum), pair in zip(cases, found, strict=True):
            half = (1 - mpmath.mpf(x) + momentum) / 2
            gap = mpmath.sqrt(mpmath.mpc(half**2 - momentum))
            expected = sorted((half + gap, half - gap), key=lambda r: (abs(r), r.imag))[::-1]
            # Near a double root the roots themselves move with the square root of the rounding.
            margin = 1e-9 if abs(gap) > 1e-6 else 1e-7
            for root, (real, imaginary) in zip(expected, pair, strict=True):
                assert abs(root - mpmath.mpc(real, imaginary)) < margin, (x, momentum)
            kinds.add(pair[0][1] == 0)
    assert kinds == {True, False}
    settings = [(0.01 * 3**k, momentum) for k in range(5) for momentum in momenta]
    body = """
    return argument.settings.map(([lr, momentum]) => {
        return nqm.convergenceRate(argument.problem, lr, momentum);
    });
    """
    rates = run(body, {"settings": settings, "problem": data_of(PROBLEM)})
    expected = [convergence_rate(PROBLEM, HeavyBall(*setting)) for setting in settings]
    np.testing.assert_allclose(rates, expected, rtol=1e-9)


@pytest.mark.parametrize(
    ("exponent", "power", "momentum", "target", "margin"),
    [
        (1, 0, 0, 0.01, 0.005),
        (1, 0, 0.9, 0.01, 0.01),
        (1, 0.75, 0.9, 0.01, 0.01),
        (0.5, 0.5, 0.5, 1, 0.01),
        (2, 0, 0.99, 0.1, 0.15),  # here the risk swings
    ],
)
def test_tuned_steps_are_exact_and_nearly_the_fewest(
    run, exponent, power, momentum, target, margin
):
    problem = NoisyQuadratic.power_law(10_000, exponent).quantize(32).precondition(power)
    batch_sizes = [1, 64, 4096, 2**20, 2**40]
    body = """
    const { problem, momentum, batchSizes, target } = argument;
    const search = tuning.tuneRate(problem, momentum, batchSizes, target);
    for (;;) {
        const { done, value } = search.next();
        if (done) return value;
    }
    """
    argument = {
        "problem": data_of(problem),
        "momentum": momentum,
        "batchSizes": batch_sizes,
        "target": target,
    }
    found = run(body, argument)
    for batch_size, best in zip(batch_sizes, found, strict=True):
        method = HeavyBall(best["lr"], momentum)
        assert best["steps"] == steps_to_target(problem, method, batch_size, target)
    assert np.all(np.diff([best["steps"] for best in found]) <= 0)
    tuned = tune(problem, HeavyBall, batch_sizes, target, momentum=momentum)
    for best, fewest in zip(found, tuned.steps, strict=True):
        assert best["steps"] <= max((1 + margin) * fewest, fewest + 1)


def numbers_in(words):
    """Return the numbers of a sentence, such as 1,234 or 6.1×10⁻⁵."""
    plain = re.sub(r"(?<=\d),(?=\d{3})", "", words)
    plain = plain.replace("∞", "inf")
    power = re.sub(
        r"×10([⁰¹²³⁴⁵⁶⁷⁸⁹⁻]+)",
        lambda match: "e" + match[1].translate(str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")),
        plain,
    )
    return [float(number) for number in re.findall(r"inf|\d+(?:\.\d+)?(?:e-?\d+)?", power)]


def value(explorer, label):
    return numbers_in(explorer.values()[label])[0]


def test_risk_explorer_states_the_library_s_numbers(open_explorer):
    explorer = open_explorer("risk_explorer.js")
    problem = NoisyQuadratic(**explorer.start["problem"])
    for name, keys in [("Batch size", ["End"]), ("Momentum", ["PageUp"] * 3), ("Momentum", [])]:
        explorer.press(name, *keys)
        labels = ("Learning rate", "Momentum", "Batch size", "Preconditioning power", "Target risk")
        lr, momentum, batch_size, power, target = (value(explorer, label) for label in labels)
        equivalent, method = problem.precondition(power), HeavyBall(lr, momentum)
        start, *_, floor = numbers_in(explorer.words().split("This floor")[0])
        assert start == pytest.approx(problem.initial_risk, rel=5e-3)
        expected = steady_state_risk(equivalent, method, batch_size)
        assert floor == pytest.approx(expected, rel=5e-3)
        steps = steps_to_target(equivalent, method, batch_size, target)
        assert (steps is None) == ("not reached" in explorer.words())
        assert steps is None or f"after {steps:,} steps" in explorer.words()
    explorer.press("Learning rate", "End")
    assert "Unstable" in explorer.words() and "must be below" in explorer.words()


def test_risk_explorer_keeps_a_curve(open_explorer):
    explorer = open_explorer("risk_explorer.js")
    explorer.press("Learning rate", "Home")
    compared = explorer.picture()
    explorer.click("Keep this curve")
    assert explorer.picture() != compared


def test_momentum_explorer_states_the_library_s_numbers(open_explorer):
    explorer = open_explorer("momentum_explorer.js")
    problem = NoisyQuadratic(**explorer.start["problem"])
    for name, key in [("Momentum", "Home"), ("Momentum", "End"), ("Learning rate", "End")]:
        explorer.press(name, key)
        lr, momentum = value(explorer, "Learning rate"), value(explorer, "Momentum")
        method = HeavyBall(lr, momentum)
        x = lr * problem.curvature
        real = np.abs(1 - np.sqrt(x)) >= np.sqrt(momentum)
        slowest = convergence_rate(problem, method)
        stable = is_stable(problem, method)
        assert stable == ("Unstable" not in explorer.words())
        expected = [
            problem.counts[real].sum(),
            problem.dim,
            slowest,
            *([-1 / np.log(slowest)] if stable else []),
            lr / (1 - momentum),
        ]
        found = numbers_in(explorer.words())
        if not stable:
            expected.insert(0, 2 * (1 + momentum) / problem.curvature.max())
        assert found == pytest.approx(expected, rel=6e-3)
        marks = explorer.root.locator(".plot .mark").count()
        assert marks == 2 * problem.curvature.size


def test_preconditioning_explorer_states_the_library_s_numbers(open_explorer):
    explorer = open_explorer("preconditioning_explorer.js")
    problem = NoisyQuadratic(**explorer.start["problem"])
    labels = ("Preconditioning power", "Learning rate / largest", "Momentum", "Batch size")
    for name, keys in [(labels[1], ["PageUp"]), (labels[2], ["PageUp"] * 3), (labels[3], ["Home"])]:
        explorer.press(name, *keys)
        power, fraction, momentum, batch_size = (value(explorer, label) for label in labels)
        folding, floors, rates = [], [], []
        for p in (power, 0):
            equivalent = problem.precondition(p)
            rates.append(fraction * 2 * (1 + momentum) / equivalent.curvature.max())
            method = HeavyBall(rates[-1], momentum)
            folding.append(-1 / np.log(convergence_rate(equivalent, method)))
            floors.append(steady_state_risk(equivalent, method, batch_size))
        found = numbers_in(explorer.words())
        expected = [power, rates[0], folding[0], floors[0], 0]
        assert found[:5] == pytest.approx(expected, rel=6e-3)
        ratios = [folding[1] / folding[0], floors[0] / floors[1]]
        assert found[5:] == pytest.approx([ratio for ratio in ratios if ratio > 1.005], rel=6e-3)


def test_steps_explorer_states_the_library_s_numbers(open_explorer):
    explorer = open_explorer("steps_explorer.js")
    labels = ("Spectrum exponent", "Preconditioning power", "Momentum", "Target risk")
    exponent, power, momentum, target = (value(explorer, label) for label in labels)
    problem = NoisyQuadratic.power_law(10_000, exponent).quantize(32).precondition(power)
    plain = critical_batch_size(problem, SGD, target)
    heavy = critical_batch_size(problem, HeavyBall, target, momentum=momentum)
    expected = [
        momentum,
        plain.examples / heavy.examples,
        1,
        plain.steps / heavy.steps,
        plain.steps,
        heavy.steps,
        plain.batch_size,
        heavy.batch_size,
    ]
    assert numbers_in(explorer.words()) == pytest.approx(expected, rel=0.03)


def test_measured_steps_explorer_states_the_library_s_numbers(open_explorer):
    explorer = open_explorer("measured_steps_explorer.js")
    state = explorer.start
    target, measured = state["target"], state["measured"]
    problem = NoisyQuadratic(**state["problem"])
    momentum = {"sgd": {}, "heavy_ball": {"momentum": value(explorer, "Momentum")}}
    factors = []
    for name, optimizer in {"sgd": SGD, "heavy_ball": HeavyBall}.items():
        sizes, _, steps, _ = np.transpose(measured[name])
        found = tune(problem, optimizer, sizes, target, **momentum[name]).steps
        factors.append(np.exp(np.mean(np.log(found / steps))))
    # Between the sizes that it computes the explorer draws straight lines.
    assert numbers_in(explorer.words()) == pytest.approx(factors, rel=0.05)


def landscape(theta):
    """Return slope and curvature of the thermometer explorer's loss."""
    away = (theta - 2.5) / 0.4
    dip = 2 * np.exp(-(away**2) / 2)
    return 0.5 * theta + dip * away / 0.4, 0.5 + dip * (1 - away**2) / 0.4**2


def test_thermometer_s_densities_and_variances_agree_with_the_library(run):
    rates, batch_sizes, momenta = (0.001, 0.02, 0.16, 1.0), (1, 16, 1024), (0.0, 0.9, 0.999)
    cases = [list(case) for case in itertools.product(rates, batch_sizes, momenta)]
    body = """
    const { BARRIER, VALLEYS, ...parts } = thermometer;
    const cases = argument.map(([lr, batchSize, momentum]) => {
        const temperature = parts.temperature(lr, momentum, batchSize);
        const grid = parts.gridAt(temperature);
        const density = parts.stationaryDensity(grid, temperature);
        return {
            temperature, grid, density,
            sharp: parts.sharpShare(grid, density),
            ratios: VALLEYS.map((valley) => {
                const ratio = parts.varianceRatio(lr, momentum, valley.curvature);
                return Number.isFinite(ratio) ? ratio : null;
            }),
        };
    });
    return { cases, barrier: BARRIER, valleys: VALLEYS };
    """
    found = run(body, cases)
    places = np.array([found["barrier"], *(valley["at"] for valley in found["valleys"])])
    slopes, curvatures = landscape(places)
    np.testing.assert_allclose(slopes, 0, atol=1e-12)
    assert curvatures[0] < 0 < curvatures[1] < curvatures[2]
    np.testing.assert_allclose(
        [valley["curvature"] for valley in found["valleys"]], curvatures[1:], rtol=1e-12
    )
    unstable = 0
    for (lr, batch_size, momentum), shown in zip(cases, found["cases"], strict=True):
        diffusion = diffusion_constant(lr, batch_size, momentum)
        assert shown["temperature"] == pytest.approx(400 * diffusion, rel=1e-12)
        grid = np.array(shown["grid"])
        noise = np.full_like(grid, 800.0)
        expected = stationary_density(landscape(grid)[0], noise, grid, diffusion)
        np.testing.assert_allclose(shown["density"], expected, rtol=1e-9, atol=1e-300)
        assert expected[[0, -1]].max() < 1e-12 * expected.max()  # the grid is wide enough
        right = grid > found["barrier"]
        cell = np.diff(grid[:2])[0] * expected.max()  # the barrier falls between grid points
        share = np.trapezoid(expected[right], grid[right])
        assert shown["sharp"] == pytest.approx(share, abs=cell)
        for h, ratio in zip(curvatures[1:], shown["ratios"], strict=True):
            if lr * h >= 2 * (1 + momentum):
                assert ratio is None
                unstable += 1
                continue
            exact = stationary_variance([h], [800.0], lr, batch_size, momentum)
            equation = OrnsteinUhlenbeck([h], [800.0], diffusion).stationary()
            assert ratio == pytest.approx(exact[0] / equation[0], rel=1e-9)
    assert 0 < unstable < len(cases)


def test_geometry_explorer_states_the_library_s_numbers(open_explorer):
    explorer = open_explorer("geometry_explorer.js")
    measured = explorer.start["measured"]
    for step, layer in ((0, 0), (2, 1), (4, len(measured["layers"]))):
        explorer.press("Step", "Home", *["ArrowRight"] * step)
        explorer.press("Layer", "Home", *["ArrowRight"] * layer)
        row = measured["points"][step]
        h, c = np.concatenate(row if layer == 0 else [row[layer - 1]]).T
        seen = (h > 1e-6 * h.max()) & (c > 0)
        words = explorer.words()
        assert words.startswith(f"Step {measured['steps'][step]:,}, ")
        assert f" {seen.sum()} directions" in words
        exponent, middle = numbers_in(words.partition("the power")[2])[:2]
        assert exponent == pytest.approx(fit_power(h[seen], c[seen]).exponent, abs=0.006)
        ratios = np.sort(c[seen] / h[seen])
        assert middle == pytest.approx(ratios[len(ratios) // 2], rel=0.006)


def test_thermometer_explorer_states_the_library_s_numbers(open_explorer):
    explorer = open_explorer("thermometer_explorer.js")
    grid = np.linspace(-60, 60, 40_001)
    slope, noise = landscape(grid)[0], np.full_like(grid, 800.0)
    wide, sharp = landscape(np.array([2.0586e-7, 2.400972]))[1]
    for name, keys in [("Batch size", ["ArrowRight"]), ("Momentum", ["PageUp"] * 2)]:
        explorer.press(name, *keys)
        labels = ("Learning rate", "Batch size", "Momentum")
        lr, batch_size, momentum = (value(explorer, label) for label in labels)
        diffusion = diffusion_constant(lr, batch_size, momentum)
        density = stationary_density(slope, noise, grid, diffusion)
        right = grid > 1.571852
        share = 100 * np.trapezoid(density[right], grid[right])
        ratios = [1 / (1 - lr * h / (2 * (1 + momentum))) for h in (wide, sharp)]
        expected = [400 * diffusion, 100 - share, share, *ratios]
        assert numbers_in(explorer.words()) == pytest.approx(expected, rel=6e-3)
    explorer.press("Learning rate", "End")
    assert "none in the sharp valley" in explorer.words()
    limit = 2 * (1 + value(explorer, "Momentum")) / sharp
    assert numbers_in(explorer.words())[-1] == pytest.approx(limit, rel=6e-3)


def valley_paths(lr, momentum, extrapolation, roundness):
    """Return the paths of the plane explorer's four methods, written out."""

    def slope(point):
        return np.array([point[0] / np.hypot(point[0], roundness), 0.1 * point[1]])

    found = {name: [np.array([1.5, 2.5])] for name in ("gradient", "nesterov", "fresh", "past")}
    velocity = last = np.zeros(2)
    for _ in range(60):
        plain, ahead, fresh, past = (points[-1] for points in found.values())
        found["gradient"].append(plain - lr * slope(plain))
        velocity = momentum * velocity - lr * slope(ahead + momentum * velocity)
        found["nesterov"].append(ahead + velocity)
        found["fresh"].append(fresh - lr * slope(fresh - extrapolation * slope(fresh)))
        last = slope(past - extrapolation * last)
        found["past"].append(past - lr * last)
    return {name: np.array(points) for name, points in found.items()}


def valley_loss(points, roundness):
    return np.hypot(points[..., 0], roundness) - roundness + 0.05 * points[..., 1] ** 2


def test_plane_s_paths_and_contours_are_those_of_the_update_rules(run):
    cases = [(0.5, 0.8, 0.25, 0.3), (0.01, 0.0, 0.0, 10.0), (1.5, 0.99, 2.0, 0.5)]
    body = """
    return argument.map(([lr, momentum, extrapolation, roundness]) => ({
        paths: plane.paths({ lr, momentum, extrapolation, roundness }),
        contour: plane.contour(0.6, roundness),
    }));
    """
    for case, shown in zip(cases, run(body, [list(case) for case in cases]), strict=True):
        np.testing.assert_allclose(valley_loss(np.array(shown["contour"]), case[-1]), 0.6)
        for name, points in valley_paths(*case).items():
            np.testing.assert_allclose(shown["paths"][name], points, rtol=1e-6, atol=1e-6)


def test_plane_explorer_states_the_losses(open_explorer):
    explorer = open_explorer("plane_explorer.js")
    labels = ("Learning rate", "Momentum", "Extrapolation rate", "Roundness")
    for label in labels:
        explorer.press(label, "ArrowLeft", "ArrowLeft")
        settings = [value(explorer, name) for name in labels]
        paths = valley_paths(*settings)
        losses = [valley_loss(points[-1], settings[-1]) for points in paths.values()]
        start = valley_loss(np.array([1.5, 2.5]), settings[-1])
        assert numbers_in(explorer.words()) == pytest.approx([60, *losses, start], rel=6e-3)
