"""The explorers' Python side: arguments, representations, the composed module."""

import json
import re

import ipywidgets
import numpy as np
import pytest
from matplotlib.figure import Figure

from batchscaling.nqm import NoisyQuadratic
from batchscaling.widgets import (
    MomentumExplorer,
    PreconditioningExplorer,
    RiskExplorer,
    StepsExplorer,
    ThermometerExplorer,
    live,
)
from batchscaling.widgets._module import FOLDER, compose

PROBLEM = NoisyQuadratic.harmonic(1000).quantize(20)
AT_REST = NoisyQuadratic([1.0, 0.5], second_moment=0.0)


def draw(lr):
    if lr > 1.5:
        raise ValueError("lr is <too> large")
    figure = Figure()
    figure.subplots().plot([0, lr])
    return figure


def state_of(explorer):
    markup = explorer._repr_mimebundle_()[0]["text/html"]
    return json.loads(re.search(r'<script type="application/json">(.*)</script>', markup)[1])


BAD = [
    ("problem", lambda: RiskExplorer(None), "None", "a NoisyQuadratic"),
    ("problem", lambda: RiskExplorer(NoisyQuadratic.harmonic(401)), "401", "quantize"),
    ("problem", lambda: RiskExplorer(AT_REST), "dim=2", "initial risk above zero"),
    ("problem", lambda: MomentumExplorer(AT_REST), "dim=2", "initial risk above zero"),
    ("problem", lambda: PreconditioningExplorer(AT_REST), "dim=2", "initial risk above zero"),
    ("problem", lambda: PreconditioningExplorer(NoisyQuadratic([1], [0])), "dim=1", "noise"),
    ("lr", lambda: RiskExplorer(PROBLEM, lr=0), "0", "(0, inf)"),
    ("lr", lambda: RiskExplorer(PROBLEM, lr=-0.1), "-0.1", "(0, inf)"),
    ("lr", lambda: RiskExplorer(PROBLEM, lr=float("nan")), "nan", "finite"),
    ("lr", lambda: RiskExplorer(PROBLEM, lr="fast"), "'fast'", "finite"),
    ("momentum", lambda: RiskExplorer(PROBLEM, momentum=1), "1", "[0, 1)"),
    ("momentum", lambda: RiskExplorer(PROBLEM, momentum=-0.5), "-0.5", "[0, 1)"),
    ("batch_size", lambda: RiskExplorer(PROBLEM, batch_size=0), "0", "[1, inf)"),
    ("batch_size", lambda: RiskExplorer(PROBLEM, batch_size=2.5), "2.5", "integer"),
    ("power", lambda: RiskExplorer(PROBLEM, power=1.5), "1.5", "[0, 1]"),
    ("target", lambda: RiskExplorer(PROBLEM, target=0), "0", "(0, inf)"),
    ("lr", lambda: setattr(RiskExplorer(PROBLEM), "lr", -1), "-1", "(0, inf)"),
    ("batch_size", lambda: setattr(RiskExplorer(PROBLEM), "batch_size", 0), "0", "[1, inf)"),
    ("problem", lambda: MomentumExplorer([1.0, 0.1]), "[1.0, 0.1]", "a NoisyQuadratic"),
    ("problem", lambda: MomentumExplorer(NoisyQuadratic.harmonic(401)), "401", "quantize"),
    ("lr", lambda: MomentumExplorer(PROBLEM, lr=0), "0", "(0, inf)"),
    ("lr", lambda: MomentumExplorer(PROBLEM, lr=float("inf")), "inf", "finite"),
    ("momentum", lambda: MomentumExplorer(PROBLEM, momentum=1.0), "1.0", "[0, 1)"),
    ("momentum", lambda: MomentumExplorer(PROBLEM, momentum="0.9"), "'0.9'", "finite"),
    ("batch_size", lambda: MomentumExplorer(PROBLEM, batch_size=64.0), "64.0", "integer"),
    ("momentum", lambda: setattr(MomentumExplorer(PROBLEM), "momentum", 2), "2", "[0, 1)"),
    ("problem", lambda: PreconditioningExplorer(None), "None", "a NoisyQuadratic"),
    ("power", lambda: PreconditioningExplorer(PROBLEM, power=-0.1), "-0.1", "[0, 1]"),
    ("lr_fraction", lambda: PreconditioningExplorer(PROBLEM, lr_fraction=0), "0", "(0, 1)"),
    ("lr_fraction", lambda: PreconditioningExplorer(PROBLEM, lr_fraction=1), "1", "(0, 1)"),
    ("momentum", lambda: PreconditioningExplorer(PROBLEM, momentum=1), "1", "[0, 1)"),
    ("batch_size", lambda: PreconditioningExplorer(PROBLEM, batch_size=0), "0", "[1, inf)"),
    ("exponent", lambda: StepsExplorer(exponent=-1), "-1", "[0, 2]"),
    ("exponent", lambda: StepsExplorer(exponent=2.5), "2.5", "[0, 2]"),
    ("power", lambda: StepsExplorer(power=1.5), "1.5", "[0, 1]"),
    ("momentum", lambda: StepsExplorer(momentum=1), "1", "[0, 1)"),
    ("target", lambda: StepsExplorer(target=0), "0", "(0, inf)"),
    ("target", lambda: StepsExplorer(target=None), "None", "finite"),
    ("target", lambda: setattr(StepsExplorer(), "target", -1), "-1", "(0, inf)"),
    ("lr", lambda: ThermometerExplorer(lr=0), "0", "(0, inf)"),
    ("batch_size", lambda: ThermometerExplorer(batch_size=1.5), "1.5", "integer"),
    ("momentum", lambda: ThermometerExplorer(momentum=1), "1", "[0, 1)"),
    ("function", lambda: live(None, lr=(0.1, 1.0)), "None", "Figure"),
    ("function's result", lambda: live(lambda lr: lr, lr=(0.5, 1.5)), "1.0", "Figure"),
    ("controls", lambda: live(draw), "{}", "at least one"),
    ("lr", lambda: live(draw, lr="0.1"), "'0.1'", "(low, high)"),
    ("lr", lambda: live(draw, lr=(1, 2, 3, 4)), "(1, 2, 3, 4)", "(low, high)"),
    ("lr", lambda: live(draw, lr=ipywidgets.Button()), "Button", "(low, high)"),
]


@pytest.mark.parametrize(("name", "call", "value", "allowed"), BAD)
def test_bad_input(name, call, value, allowed):
    with pytest.raises(ValueError) as error:
        call()
    message = str(error.value)
    assert message.startswith(f"{name} is ") and "; allowed: " in message
    given, rule = message.split("; allowed: ")
    assert value in given and allowed in rule


EXPLORERS = [
    (RiskExplorer, "lr=0.5, momentum=0.0, batch_size=1, power=0.0, target=0.01"),
    (MomentumExplorer, "lr=0.5, momentum=0.9, batch_size=1024"),
    (PreconditioningExplorer, "power=0.5, lr_fraction=0.5, momentum=0.0, batch_size=1024"),
    (StepsExplorer, "exponent=1.0, power=0.0, momentum=0.9, target=0.01"),
    (ThermometerExplorer, "lr=0.01, batch_size=16, momentum=0.0"),
]
WITHOUT_PROBLEM = (StepsExplorer, ThermometerExplorer)


def make(kind, **settings):
    return kind(**settings) if kind in WITHOUT_PROBLEM else kind(PROBLEM, **settings)


@pytest.mark.parametrize(("kind", "defaults"), EXPLORERS)
def test_state_is_the_whole_setting(kind, defaults):
    state = state_of(make(kind, momentum=0.25))
    problem = state.pop("problem", None)
    settings = ", ".join(f"{name}={value}" for name, value in state.items())
    assert settings == re.sub(r"momentum=[\d.]+", "momentum=0.25", defaults)
    assert (problem is None) == (kind in WITHOUT_PROBLEM)
    for name in problem or ():
        np.testing.assert_array_equal(problem[name], getattr(PROBLEM, name))


@pytest.mark.parametrize(("kind", "defaults"), EXPLORERS)
def test_explorer_outputs_are_the_same_in_every_run(kind, defaults):
    first, second = (make(kind)._repr_mimebundle_()[0] for _ in range(2))
    assert first["text/html"] == second["text/html"]
    assert first["text/plain"] == second["text/plain"] == f"{kind.__name__}({defaults})"
    assert "application/vnd.jupyter.widget-view+json" in first


@pytest.mark.parametrize(("kind", "defaults"), EXPLORERS)
def test_html_names_a_module_and_has_a_sentence_without_javascript(kind, defaults):
    markup = make(kind)._repr_mimebundle_()[0]["text/html"]
    module = re.search(r'class="batchscaling-mount" data-module="([^"]+)"', markup)[1]
    assert (FOLDER / module).is_file()
    assert re.search(r"<p>[^<]*JavaScript[^<]*</p>", markup)
    assert markup.count("</script>") == 1


def test_attributes_follow_valid_changes():
    explorer = StepsExplorer()
    explorer.momentum = 0.25
    assert explorer.momentum == 0.25 and state_of(explorer)["momentum"] == 0.25
    with pytest.raises(ValueError):
        explorer.momentum = 1
    assert explorer.momentum == 0.25
    assert "momentum" in explorer.keys  # what ipywidgets sends to the browser


@pytest.mark.parametrize("file", sorted(FOLDER.glob("*_explorer.js")), ids=lambda file: file.name)
def test_composed_module_stands_alone(file):
    text = compose(file.name)
    assert not re.search(r"^\s*import\b", text, re.MULTILINE)
    assert re.findall(r"^export .*$", text, re.MULTILINE) == ["export default { render };"]


def test_live_draws_and_redraws():
    control = live(draw, lr=(0.5, 2.0, 0.5))
    slider, picture = control.children
    assert (slider.min, slider.max, slider.step, slider.description) == (0.5, 2.0, 0.5, "lr")
    slider.value = 0.5
    assert 'alt="Figure at lr = 0.5"' in picture.value and "data:image/png;base64" in picture.value
    slider.value = 2.0
    assert picture.value == '<p role="alert">lr is &lt;too&gt; large</p>'
    slider.value = 1.0
    assert 'alt="Figure at lr = 1.0"' in picture.value


def test_live_accepts_controls_of_ipywidgets():
    log = ipywidgets.FloatLogSlider(value=0.1, min=-3, max=0, description="rate")
    control = live(draw, lr=log)
    assert control.children[0] is log and log.description == "rate"


def test_live_raises_an_error_at_the_start():
    with pytest.raises(ValueError, match="too"):
        live(draw, lr=[2.0, 1.0])


def test_live_shows_a_sentence_where_no_kernel_runs():
    first, second = (live(draw, lr=[0.5, 1.0])._repr_mimebundle_() for _ in range(2))
    assert first["text/plain"] == second["text/plain"] == "live(draw, lr)"
    assert first["text/html"] == second["text/html"]
    assert "needs a running notebook" in first["text/html"] and "<input" not in first["text/html"]
