"""Every figure is drawn alone, of made-up numbers: without a warning, and with its axes named.

What the figures show is asserted in the chapters.
"""

import functools
import importlib
import inspect
import pkgutil
import warnings
from dataclasses import replace
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pytest

import batchscaling.figures
from batchscaling.curves import BatchSizeCurve, load_results, measured
from batchscaling.figures import use_style
from batchscaling.figures.networks import curves
from batchscaling.noise import published_schedules
from batchscaling.nqm import CriticalBatchSize, NoisyQuadratic
from batchscaling.practice.contest import Race
from batchscaling.registry import METHODS as METHODS_OF_SWEEPS

SIZES = 2.0 ** np.arange(10)
GOES = np.linspace(0.1, 0.9, 10)
FALLS = 1000 / SIZES + 3
BAND = (0.9 * FALLS, FALLS, 1.2 * FALLS)
TWO = np.array([FALLS, 2 * FALLS])
METHODS = {"SGD": FALLS, "HeavyBall": 2 * FALLS}
LINES = {name: (SIZES, np.array(BAND)) for name in ("sgd", "heavy_ball")}
PREDICTED = ("sgd", "averaged", "newton", "root_newton")
MOMENTA = {0.5: FALLS, 0.9: 2 * FALLS, 0.99: 3 * FALLS}
NAMED = {"one": FALLS, "other": 2 * FALLS}
POWERS = {0: FALLS, 0.5: 2 * FALLS}
QUARTERS = {power / 4: FALLS for power in range(4)}
LABELS = {"true": FALLS, "random": 2 * FALLS}
WITH_ERRORS = {"one": {"a": (FALLS, 0.1 * FALLS), "b": (2 * FALLS, 0.1 * FALLS)}}
PROBLEM = NoisyQuadratic.harmonic(10)
MINIMUM = {"place": 4, "cost": 1, "curvature": 1, "evidence": 0.5, "inside": SIZES < 20}
RUN = SimpleNamespace(steps=SIZES, loss=TWO)


@functools.cache
def cells():
    """Return a few measured cells of one task."""
    found = [cell for cell in load_results(measured()) if cell.task == "digits-mlp"]
    return [cell for cell in found if cell.optimizer in LINES][:6]


CASES = {
    "extrapolation.networks.by_momentum": lambda draw: draw(
        {name: {0.0: (3, 4, 6), 0.9: (1, 2, 3)} for name in LINES}
    ),
    "extrapolation.networks.relative_steps": lambda draw: draw(
        {title: dict.fromkeys(LINES, (0.8, 1.0, 1.3)) for title in NAMED}
    ),
    "extrapolation.networks.smoothness_along_the_way": lambda draw: draw(
        GOES, dict.fromkeys(LINES, TWO), dict.fromkeys(LINES, TWO)
    ),
    "extrapolation.noisy_quadratic.extragradient": lambda draw: draw(GOES, MOMENTA, SIZES, MOMENTA),
    "extrapolation.noisy_quadratic.local_steps": lambda draw: draw(
        SIZES, {1: FALLS, 8: 2 * FALLS}, SIZES, {"SGD": FALLS, "Nesterov": 2 * FALLS}
    ),
    "extrapolation.noisy_quadratic.numbers_of_workers": lambda draw: draw(
        SIZES, {1: FALLS, 8: 2 * FALLS}, FALLS
    ),
    "extrapolation.noisy_quadratic.outer_rates": lambda draw: draw(
        SIZES, {1: GOES, 8: 2 * GOES}, GOES, 0.3
    ),
    "extrapolation.noisy_quadratic.relative_steps": lambda draw: draw(SIZES, NAMED),
    "extrapolation.noisy_quadratic.stability": lambda draw: draw(GOES, {0.0: GOES, 0.9: 2 * GOES}),
    "extrapolation.processes.by_examples_and_rounds": lambda draw: draw(
        np.arange(10), {1: TWO, 4: 2 * TWO}, 32, 5.0
    ),
    "extrapolation.processes.curves_of_local_steps": lambda draw: draw(
        {4: {every: BatchSizeCurve(SIZES, np.outer(FALLS, [1, 2])) for every in (1, 4)}}
    ),
    "extrapolation.processes.processes_and_rows": lambda draw: draw(
        SIZES, FALLS, FALLS, np.array([3, 9])
    ),
    "extrapolation.smoothing.factors": lambda draw: draw(GOES, {"Nesterov": GOES}),
    "extrapolation.smoothing.gradients_to_converge": lambda draw: draw(
        SIZES,
        dict.fromkeys(("gradient descent", "Nesterov", "extragradient", "past gradient"), FALLS),
    ),
    "extrapolation.smoothing.kinked_valley": lambda draw: draw(
        FALLS, dict.fromkeys((1, 4, 16), FALLS)
    ),
    "extrapolation.smoothing.rotation": lambda draw: draw({"Nesterov": TWO.T}),
    "extrapolation.smoothing.smoothed_kink": lambda draw: draw(
        GOES, dict.fromkeys(range(4), GOES), dict.fromkeys(range(4), GOES)
    ),
    "extrapolation.theory.bound_by_batch_size": lambda draw: draw(
        SIZES, {0.0: FALLS, 0.5: FALLS, 0.9: FALLS}, dict.fromkeys((0.0, 0.5, 0.9), (8, 200))
    ),
    "extrapolation.theory.measured_and_bound": lambda draw: draw(
        {"one": GOES, "other": GOES}, NAMED, NAMED
    ),
    "networks.bridge.on_the_way": lambda draw: draw(
        SIZES - 1, TWO.T, TWO.T, FALLS, FALLS, ["a", "b"]
    ),
    "networks.bridge.predicted_and_measured": lambda draw: draw(
        SIZES,
        dict.fromkeys(PREDICTED, FALLS),
        {name: [c for c in cells() if c.optimizer == "sgd"] for name in PREDICTED},
    ),
    "networks.bridge.spectra": lambda draw: draw(
        {"model": PROBLEM},
    ),
    "networks.curves.beside_model": lambda draw: draw(
        cells(), {"digits-mlp": {name: (SIZES, FALLS) for name in {c.optimizer for c in cells()}}}
    ),
    "networks.curves.best_rates": lambda draw: draw(
        {"one": LINES},
    ),
    "networks.curves.claims": lambda draw: draw(
        {"faster": {"task": ((1, 2, 3), "holds")}},
    ),
    "networks.curves.critical_batch_sizes": lambda draw: draw(
        {"one": {"sgd": (1, 2, 3)}},
    ),
    "networks.curves.ratios": lambda draw: draw({"one": LINES}, "ratio"),
    "networks.curves.settings": lambda draw: draw(
        cells()[0],
    ),
    "networks.curves.sweep_curves": lambda draw: draw(
        cells(),
    ),
    "networks.digits.noise_against_batch_size": lambda draw: draw(SIZES, 1 / SIZES, 1000),
    "networks.digits.loss_curves": lambda draw: draw({"one": RUN, "kfac": RUN}, 0.2),
    "networks.digits.lr_against_batch_size": lambda draw: draw(
        SIZES, dict.fromkeys(METHODS, BAND), dict.fromkeys(METHODS, GOES)
    ),
    "networks.digits.steps_against_batch_size": lambda draw: draw(
        SIZES, dict.fromkeys(METHODS, BAND), dict.fromkeys(METHODS, 8)
    ),
    "networks.digits.steps_against_lr": lambda draw: draw(
        {"one": {"B = 8": (SIZES, FALLS)}}, "rate"
    ),
    "networks.geometry.layers": lambda draw: draw(
        {"one": {"in": 0.1, "out": 0.2}, "other": {"first": 1, "second": 3, "third": 2}}
    ),
    "networks.geometry.outputs": lambda draw: draw(
        {"one": (GOES, GOES), "other": (GOES, 2 * GOES)}
    ),
    "networks.geometry.over_training": lambda draw: draw(
        {"exponent": {"one": (SIZES, TWO)}, "noise / curvature": {"one": (SIZES, TWO)}}
    ),
    "networks.geometry.scatter": lambda draw: draw(
        {"one": {"layer0": (FALLS, 2 * FALLS), "layer1": (GOES, FALLS)}}
    ),
    "networks.geometry.spectra": lambda draw: draw(
        {"one": {"a": (SIZES, FALLS), "b": (SIZES, 2 * FALLS)}}
    ),
    "networks.geometry.temperatures": lambda draw: draw(
        GOES, {"drawn": FALLS, "learned": 2 * FALLS}
    ),
    "networks.kfac.blocks": lambda draw: draw(
        {"one": np.outer(GOES, GOES), "other": -np.outer(FALLS, FALLS)}
    ),
    "networks.kfac.distances": lambda draw: draw(
        [0, 40], {"first": TWO[:, :2] / 3000}, {"first": TWO[:, :2] / 4000}
    ),
    "networks.kfac.shares": lambda draw: draw(
        GOES, {"start": {"gradient": TWO / 3000, "K-FAC": TWO / 2000}}
    ),
    "networks.tuning.best_of_draws": lambda draw: draw(
        {"B = 8": {"sgd": np.array(BAND)}},
    ),
    "networks.tuning.good_settings": lambda draw: draw(
        {cell.optimizer: cell for cell in cells() if "momentum" in cell.hyper},
        {c.optimizer: c.hyper["lr"] > 0.01 for c in cells() if "momentum" in c.hyper},
    ),
    "networks.tuning.point_sets": lambda draw: draw(
        {"one": TWO.T / 3000, "other": TWO.T / 3000},
    ),
    "networks.tuning.procedures": lambda draw: draw(SIZES, BAND, {"poor": 2 * FALLS}),
    "networks.tuning.search_and_final": lambda draw: draw(SIZES, np.array(BAND)),
    "networks.tuning.valley": lambda draw: draw(
        {"one": cells()[0]},
    ),
    "noise.best_batch_size.accuracy_and_training_loss": lambda draw: draw(
        {"one": (SIZES, 100 * GOES, GOES, FALLS)}
    ),
    "noise.best_batch_size.accuracy_of_seeds": lambda draw: draw(
        {8: 95 + GOES, 16: 96 + GOES},
    ),
    "noise.best_batch_size.best_batch_sizes": lambda draw: draw(
        {name: (SIZES, dict.fromkeys("ab", (FALLS, FALLS / 2, 2 * FALLS, 1.0))) for name in "xy"}
    ),
    "noise.best_batch_size.gain_against_noise": lambda draw: draw(
        {key: {"one": (SIZES, GOES, 0.1 * GOES)} for key in "xy"}, "noise scale"
    ),
    "noise.best_batch_size.toy": lambda draw: draw(SIZES, NAMED),
    "noise.evidence.coin_ratio": lambda draw: draw(SIZES, FALLS, FALLS),
    "noise.evidence.coordinates": lambda draw: draw(
        dict.fromkeys("uv", (SIZES, FALLS, 4, 1, 1)),
    ),
    "noise.evidence.lanczos_error": lambda draw: draw(SIZES, NAMED, {"one": 0.1, "other": 0.2}),
    "noise.evidence.laplace_and_exact": lambda draw: draw(SIZES, LABELS, LABELS),
    "noise.evidence.laplace_error": lambda draw: draw(SIZES, NAMED),
    "noise.evidence.memorising": lambda draw: draw(
        SIZES,
        {key: {"train": TWO, "test": TWO} for key in LABELS},
        dict.fromkeys(LABELS, TWO),
        TWO,
        np.log(2),
    ),
    "noise.evidence.two_minima": lambda draw: draw(SIZES, FALLS / 100, 1.0, [MINIMUM, MINIMUM]),
    "noise.increase_batch_size.against_epochs_and_updates": lambda draw: draw(
        {"one": (SIZES, SIZES, *BAND)}, "loss"
    ),
    "noise.increase_batch_size.ever_fewer_updates": lambda draw: draw(
        {key: {"one": (SIZES, *BAND)} for key in "ab"}
    ),
    "noise.increase_batch_size.gap_against_rate": lambda draw: draw(GOES, NAMED, FALLS, 0.1),
    "noise.increase_batch_size.ratios_against_epochs": lambda draw: draw(
        {key: {"one": (SIZES, *BAND)} for key in "abcd"}, "ratio"
    ),
    "noise.increase_batch_size.settings_over_epochs": lambda draw: draw(
        published_schedules(), {key: [4.0, 3.0, 2.0, 1.0] for key in published_schedules()}
    ),
    "noise.measuring.measured_steps_and_examples": lambda draw: draw(
        {key: {"sgd": (SIZES, FALLS, 0.9 * FALLS, 1.2 * FALLS)} for key in "ab"}
    ),
    "noise.measuring.noise_against_loss": lambda draw: draw(
        {"one": (TWO.T, TWO.T)}, 5.0, (3.0, 4.0, 5.0)
    ),
    "noise.measuring.noise_along_runs": lambda draw: draw({"one": (GOES, FALLS, 2 * FALLS)}, 8.0),
    "noise.measuring.progress_of_the_best_step": lambda draw: draw(SIZES, GOES, GOES, 8.0),
    "noise.measuring.quality_of_estimators": lambda draw: draw(SIZES, NAMED, GOES, 0.95),
    "noise.measuring.scales_against_critical": lambda draw: draw(SIZES, NAMED),
    "noise.measuring.steps_and_examples": lambda draw: draw(
        {"one": (SIZES, FALLS)},
    ),
    "noise.momentum_cost.by_batch_size": lambda draw: draw(SIZES, GOES, WITH_ERRORS),
    "noise.momentum_cost.filling": lambda draw: draw(SIZES, MOMENTA, MOMENTA),
    "noise.momentum_cost.final_by_momentum": lambda draw: draw(GOES, WITH_ERRORS),
    "noise.momentum_cost.moving_target": lambda draw: draw(SIZES, FALLS, MOMENTA),
    "noise.momentum_cost.steps_lost": lambda draw: draw(GOES, MOMENTA, FALLS, MOMENTA),
    "noise.thermometer.batch_noise": lambda draw: draw(SIZES, NAMED, NAMED),
    "noise.thermometer.quadratic_histograms": lambda draw: draw(
        {"one": GOES}, GOES, {"one": FALLS}
    ),
    "noise.thermometer.share_by_rate": lambda draw: draw(GOES, POWERS, POWERS, 0.2),
    "noise.thermometer.shuffled_epochs": lambda draw: draw(
        GOES, dict.fromkeys("abc", FALLS), dict.fromkeys("abc", FALLS)
    ),
    "noise.thermometer.two_valleys": lambda draw: draw(
        GOES, FALLS, {"one": GOES}, {"one": FALLS}, barrier=0.5
    ),
    "noise.thermometer.variance_ratios": lambda draw: draw(
        dict.fromkeys(MOMENTA, GOES), MOMENTA, dict.fromkeys(MOMENTA, GOES), MOMENTA
    ),
    "nqm.averaging.exact_and_bound": lambda draw: draw(SIZES, POWERS, POWERS),
    "nqm.averaging.floor_by_curvature": lambda draw: draw(GOES, POWERS, POWERS),
    "nqm.averaging.kinds_of_average": lambda draw: draw(SIZES, NAMED, FALLS / 2),
    "nqm.averaging.run_and_average": lambda draw: draw(FALLS, FALLS, FALLS, FALLS, (FALLS, FALLS)),
    "nqm.averaging.tail_floor": lambda draw: draw(SIZES, NAMED, [1, 2], FALLS),
    "nqm.averaging.ways_to_a_floor": lambda draw: draw(SIZES, NAMED, 3.0),
    "nqm.critical.best_rates": lambda draw: draw(SIZES, POWERS, POWERS, POWERS),
    "nqm.critical.information": lambda draw: draw(
        SIZES, FALLS, FALLS / 2, {"SGD": (SIZES, 2 * FALLS)}
    ),
    "nqm.critical.map_of_choices": lambda draw: draw(
        SIZES,
        [1.0, 0.1],
        np.tile([0, 1], (2, 5)),
        TWO,
        {"plain SGD": ("S", "#ffffff"), "momentum": ("M", "#dddddd")},
        "a map",
    ),
    "nqm.critical.saving_of_momentum": lambda draw: draw(GOES, {1: GOES, 8: GOES}, 1e-3),
    "nqm.critical.steps_by_power": lambda draw: draw(SIZES, POWERS, POWERS, "momentum", FALLS / 2),
    "nqm.critical.steps_by_target": lambda draw: draw(
        SIZES, {0.1: FALLS}, {0.1: CriticalBatchSize(8.0, 80.0, 10)}
    ),
    "nqm.critical.two_lines": lambda draw: draw(SIZES, FALLS, 1000.0, 3.0),
    "nqm.momentum.bound_and_exact": lambda draw: draw(
        SIZES, dict.fromkeys("ab", (FALLS, 2 * FALLS, 1))
    ),
    "nqm.momentum.by_curvature": lambda draw: draw(
        GOES, *[dict.fromkeys(["HeavyBall", "Nesterov"], part) for part in (FALLS, FALLS, 0.5)]
    ),
    "nqm.momentum.factor_and_floor": lambda draw: draw(GOES, METHODS, METHODS, 0.5),
    "nqm.momentum.first_term": lambda draw: draw(SIZES, {10: FALLS}, {10: FALLS}),
    "nqm.momentum.paths": lambda draw: draw(
        {0.0: FALLS, 0.9: 2 * FALLS},
    ),
    "nqm.momentum.roots": lambda draw: draw(GOES, TWO / 2000 * (1 + 0.1j), 0.5),
    "nqm.momentum.tuned_risks": lambda draw: draw(
        {key: {"SGD": (SIZES, FALLS)} for key in "ab"}, 4.0
    ),
    "nqm.preconditioning.equal_floor": lambda draw: draw(GOES, GOES, SIZES, QUARTERS, 3.0),
    "nqm.preconditioning.floor_by_direction": lambda draw: draw(GOES, QUARTERS, QUARTERS, QUARTERS),
    "nqm.preconditioning.speed_and_floor": lambda draw: draw(GOES, METHODS, METHODS, FALLS),
    "nqm.preconditioning.steps_by_power": lambda draw: draw(
        list(GOES), dict.fromkeys("ab", METHODS), {"a": 3.0, "b": None}
    ),
    "nqm.preconditioning.two_directions": lambda draw: draw(
        np.array([1, 0.1]), *[dict.fromkeys((0, 0.5, 1), TWO.T)] * 2
    ),
    "nqm.schedules.frontier": lambda draw: draw(
        dict.fromkeys("abc", (1e4 * SIZES, FALLS)), 3.0, 1e4
    ),
    "nqm.schedules.last_rates": lambda draw: draw(SIZES, GOES, GOES, 2.0),
    "nqm.schedules.noise_levels": lambda draw: draw((SIZES, FALLS, SIZES), (SIZES, FALLS, SIZES)),
    "nqm.schedules.rates_over_training": lambda draw: draw({1: GOES, 8: GOES}, 2.0),
    "nqm.schedules.risk_and_rate": lambda draw: draw(
        dict.fromkeys("ab", FALLS), dict.fromkeys("ab", FALLS[1:]), 2.0
    ),
    "nqm.schedules.steps_with_schedules": lambda draw: draw(SIZES, NAMED, NAMED, FALLS / 2),
    "nqm.sgd.factor_and_floor": lambda draw: draw(GOES, GOES, {1: FALLS, 8: FALLS}, 2.0),
    "nqm.sgd.risk_by_batch_size": lambda draw: draw(SIZES, {1: FALLS}, {1: 3.0}, 4.0),
    "nqm.sgd.risk_by_coordinate": lambda draw: draw(SIZES, TWO.T, TWO.T, np.array([1, 0.1]), 8),
    "nqm.sgd.sampled_paths": lambda draw: draw(TWO, FALLS),
    "nqm.sgd.steps_against_batch_size": lambda draw: draw(SIZES, FALLS, GOES, 2.0),
    "nqm.trust.error_by_bins": lambda draw: draw(SIZES.astype(int), NAMED),
    "nqm.trust.gains": lambda draw: draw(
        GOES, {"momentum": FALLS}, {"momentum": FALLS}, "exponent"
    ),
    "nqm.trust.gains_by_angle": lambda draw: draw(SIZES, NAMED, NAMED),
    "nqm.trust.loss_spread": lambda draw: draw(SIZES, dict.fromkeys("ab", TWO), FALLS),
    "practice.advising.advice_against_best": lambda draw: draw(
        {"digits": {"sgd": GOES / 2, "adam": FALLS}, "softmax": {"sgd": GOES}}
    ),
    "practice.advising.limits_along": lambda draw: draw(
        SIZES.astype(int), np.array(BAND)[[1, 0, 2]].T, SIZES, 4 * SIZES
    ),
    "practice.advising.shares_lost": lambda draw: draw(
        SIZES, np.array(BAND)[[1, 0, 2]].T[: len(SIZES)], 0.2
    ),
    "practice.advising.times_and_advice": lambda draw: draw(
        {"sgd": (SIZES, FALLS), "adam": (SIZES, GOES)}, {"sgd": SIZES[:2], "adam": SIZES[1:3]}
    ),
    "practice.moving.loss_by_rule": lambda draw: draw(SIZES, {"linear": FALLS, "root": GOES}),
    "practice.racing.losses_in_race": lambda draw: draw(
        Race(8, (0, 1, 2), dict.fromkeys(("momentum", "adam"), TWO[:, :3]), {}, 0.1, 0.95)
    ),
    "practice.racing.races_against_sweeps": lambda draw: draw(
        dict.fromkeys("ab", (FALLS, np.array(BAND)[[1, 0, 2]].T))
    ),
    "practice.racing.saved_against_length": lambda draw: draw(SIZES, {4: FALLS, 64: GOES}),
    "practice.measuring.readings_along": lambda draw: draw(
        GOES, np.array(BAND)[[1, 0, 2]].T, np.array(BAND)[[1, 0, 2]].T
    ),
    "practice.measuring.readings_and_critical": lambda draw: draw(
        {"sgd": FALLS, "adam": np.where(GOES < 0.5, np.nan, FALLS)},
        {"sgd": (1, 2, 3), "adam": (4, 5, 6)},
    ),
    "practice.measuring.readings_by_layer": lambda draw: draw(
        dict.fromkeys(("first", "last"), np.array(BAND)[[1, 0, 2]].T)
    ),
}


def figure_functions():
    """Yield each public function of the package that returns a figure, by its short name."""
    package = batchscaling.figures
    for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        module = importlib.import_module(found.name)
        for name, function in inspect.getmembers(module, inspect.isfunction):
            is_own = function.__module__ == found.name and not name.startswith("_")
            if is_own and "matplotlib.figure.Figure" in (function.__doc__ or ""):
                yield f"{found.name.removeprefix(package.__name__ + '.')}.{name}", function


FUNCTIONS = dict(figure_functions())


def test_every_figure_has_a_case():
    assert sorted(FUNCTIONS) == sorted(CASES)


@pytest.fixture
def style():
    """Set the book's style; close what a figure that fails leaves open."""
    with plt.rc_context():
        use_style()
        yield
    plt.close("all")


@pytest.mark.usefixtures("style")
@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_figure_is_drawn_with_named_axes(name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = CASES[name](FUNCTIONS[name])
        figure.canvas.draw()
    assert plt.get_fignums() == []
    for axes in figure.axes:
        assert axes.has_data()
        beside = axes.get_shared_x_axes().get_siblings(axes)
        assert any(other.get_xlabel() for other in beside)
        beside = axes.get_shared_y_axes().get_siblings(axes)
        rows = [label.get_text() for label in axes.get_yticklabels()]
        named = any(other.get_ylabel() for other in beside) or any(map(str.isalpha, rows))
        assert named or axes.get_title("left")


@pytest.mark.parametrize("before", ["dark_background", "classic", "bmh"])
def test_the_style_does_not_depend_on_what_was_set_before(before):
    with plt.rc_context():
        plt.style.use("default")
        use_style()
        expected = dict(plt.rcParams)
        plt.style.use(before)
        use_style()
        assert dict(plt.rcParams) == expected


def thin_line(axes):
    """Return where the line of perfect scaling starts."""
    (line,) = (line for line in axes.lines if line.get_linewidth() == 0.8)
    return line.get_xdata()[0]


def test_perfect_scaling_starts_at_the_smallest_batch_in_any_order_of_cells():
    one = [cell for cell in cells() if cell.optimizer == cells()[0].optimizer]
    figures = [curves.sweep_curves(iter(order)) for order in (one, one[::-1])]
    starts = [thin_line(figure.axes[0]) for figure in figures]
    assert starts == [min(cell.batch_size for cell in one)] * 2


def test_the_legend_names_the_optimizers_of_all_panels():
    others = [replace(cell, task="other", optimizer="adam") for cell in cells()]
    figure = curves.sweep_curves(cells() + others)
    texts = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    names = [*dict.fromkeys(cell.optimizer for cell in cells()), "adam"]
    assert sorted(texts) == sorted(METHODS_OF_SWEEPS[name].label for name in names)


INFINITE = {"one": {"sgd": (SIZES, np.full((3, 10), np.inf))}}


@pytest.mark.usefixtures("style")
@pytest.mark.parametrize(
    ("name", "draw"),
    [
        ("cells", lambda: curves.sweep_curves([])),
        ("optimizer", lambda: curves.sweep_curves([replace(cells()[0], optimizer="mine")])),
        ("measure", lambda: curves.sweep_curves(cells(), "foo")),
        ("measure", lambda: curves.settings(cells()[0], "foo")),
        ("panels", lambda: curves.critical_batch_sizes({})),
        ("panels", lambda: curves.critical_batch_sizes({"one": {}})),
        ("panels", lambda: curves.ratios({}, "ratio")),
        ("panels", lambda: curves.ratios(INFINITE, "ratio")),
        ("panels", lambda: curves.best_rates({})),
        ("model", lambda: curves.beside_model(cells(), {})),
        ("rows", lambda: curves.claims({})),
        ("verdict", lambda: curves.claims({"faster": {"task": ((1, 2, 3), "true")}})),
    ],
)
def test_what_cannot_be_drawn_is_named(name, draw):
    with pytest.raises(ValueError, match=rf"(?s){name} is .*; allowed: "):
        draw()


def test_claims_of_many_tasks_do_not_meet():
    found = {f"task {k}": ((1, 2, 3), "holds") for k in range(12)}
    axes = curves.claims({"faster": found, "same": found}).axes[0]
    heights = [bar.lines[0].get_ydata()[0] for bar in axes.containers]
    assert len(heights) == 24 and (np.diff(heights) > 0.05).all()
