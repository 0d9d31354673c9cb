"""The explorers' Python side: arguments, representations, the composed module."""

import json
import re

import numpy as np
import pytest

from batchscaling.nqm import NoisyQuadratic
from batchscaling.widgets import (
    GeometryExplorer,
    MeasuredStepsExplorer,
    MomentumExplorer,
    PlaneExplorer,
    PreconditioningExplorer,
    RiskExplorer,
    StepsExplorer,
    ThermometerExplorer,
)
from batchscaling.widgets._module import FOLDER, classic, compose

PROBLEM = NoisyQuadratic.harmonic(1000).quantize(20)
AT_REST = NoisyQuadratic([1.0, 0.5], second_moment=0.0)


def state_of(explorer):
    markup = explorer._repr_mimebundle_()[0]["text/html"]
    return json.loads(re.search(r'<script type="application/json">(.*)</script>', markup)[1])


POINTS = [[16, 90.0, 100.0, 120.0], [64, 30.0, 40.0, 45.0]]


def measured(target=0.01, **settings):
    """Return an explorer of measured steps; methods' points among the settings replace `POINTS`."""
    points = {name: settings.pop(name, POINTS) for name in ("sgd", "heavy_ball")}
    return MeasuredStepsExplorer(PROBLEM, points, target, **settings)


DIRECTIONS = {
    step: {"layer0": [[3.0, 1.0], [step + 1.0, 0.5]], "layer1": [[2.0, 0.0], [1.0, 0.0]]}
    for step in (0, 10)
}


def geometry(step=0, layer=0, **changed):
    """Return an explorer of directions; `changed` layers replace those of step 10."""
    return GeometryExplorer(
        {**DIRECTIONS, 10: {**DIRECTIONS[10], **changed}}, step=step, layer=layer
    )


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
    ("measured", lambda: MeasuredStepsExplorer(PROBLEM, None, 0.01), "None", "heavy_ball"),
    (
        "measured",
        lambda: MeasuredStepsExplorer(PROBLEM, {"sgd": POINTS}, 0.01),
        "sgd",
        "heavy_ball",
    ),
    ("measured['sgd']", lambda: measured(sgd=[[4, 90, 100]]), "(1, 3)", "(k, 4)"),
    ("measured['sgd']", lambda: measured(sgd=[[4, 90, 100, np.inf]]), "inf", "finite"),
    ("measured['heavy_ball']", lambda: measured(heavy_ball=[[0, 1, 2, 3]]), "0", "positive"),
    ("target", lambda: measured(target=0), "0", "(0, inf)"),
    ("momentum", lambda: measured(momentum=1), "1", "[0, 1)"),
    ("noise_factor", lambda: measured(noise_factor=0), "0", "(0, inf)"),
    ("start_factor", lambda: setattr(measured(), "start_factor", -1), "-1", "(0, inf)"),
    ("measured", lambda: GeometryExplorer([]), "[]", "dict of steps"),
    ("measured", lambda: GeometryExplorer({}), "{}", "dict of steps"),
    ("step of measured", lambda: GeometryExplorer({-1: {}}), "-1", "[0, inf)"),
    ("measured[3]", lambda: GeometryExplorer({3: {}}), "[]", "layers"),
    ("measured[10]", lambda: geometry(more=[[1], [1]]), "more", "['layer0', 'layer1']"),
    ("measured[10]['layer1']", lambda: geometry(layer1=[[1], [-1]]), "-1", "negative"),
    ("measured[10]['layer1']", lambda: geometry(layer1=[[1], [1], [1]]), "(3, 1)", "(2, k)"),
    ("measured[10]['layer1']", lambda: geometry(layer1=[[0], [1]]), "(2, 1)", "above zero"),
    ("measured[10]['layer1']", lambda: geometry(layer1=[[1, 0], [0, 1]]), "(2, 2)", "left out"),
    ("measured[0]", lambda: GeometryExplorer({0: 5}), "5", "a dict of layers"),
    ("measured[0]", lambda: GeometryExplorer({0: [[1, 2], [3, 4]]}), "[[1, 2]", "a dict of layers"),
    ("step", lambda: geometry(step=3), "3", "10"),
    ("layer", lambda: geometry(layer=-1), "-1", "[0, inf)"),
    ("layer", lambda: setattr(geometry(), "layer", 0.5), "0.5", "integer"),
    ("lr", lambda: ThermometerExplorer(lr=0), "0", "(0, inf)"),
    ("batch_size", lambda: ThermometerExplorer(batch_size=1.5), "1.5", "integer"),
    ("momentum", lambda: ThermometerExplorer(momentum=1), "1", "[0, 1)"),
    ("lr", lambda: PlaneExplorer(lr=0), "0", "(0, inf)"),
    ("momentum", lambda: PlaneExplorer(momentum=-0.1), "-0.1", "[0, 1)"),
    ("extrapolation", lambda: PlaneExplorer(extrapolation=-1), "-1", "[0, inf)"),
    ("roundness", lambda: PlaneExplorer(roundness=0), "0", "(0, inf)"),
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
    (MeasuredStepsExplorer, "momentum=0.9, noise_factor=1.0, start_factor=1.0"),
    (GeometryExplorer, "step=0, layer=0"),
    (ThermometerExplorer, "lr=0.01, batch_size=16, momentum=0.0"),
    (PlaneExplorer, "lr=0.5, momentum=0.8, extrapolation=0.25, roundness=1.0"),
]
WITHOUT_PROBLEM = (GeometryExplorer, StepsExplorer, ThermometerExplorer, PlaneExplorer)
MEASURED = {MeasuredStepsExplorer: measured, GeometryExplorer: geometry}


def make(kind, **settings):
    if kind in MEASURED:
        return MEASURED[kind](**settings)
    return kind(**settings) if kind in WITHOUT_PROBLEM else kind(PROBLEM, **settings)


@pytest.mark.parametrize(("kind", "defaults"), EXPLORERS)
def test_state_is_the_whole_setting(kind, defaults):
    one = {"layer": 2} if kind is GeometryExplorer else {"momentum": 0.25}
    state = state_of(make(kind, **one))
    problem = state.pop("problem", None)
    if kind is GeometryExplorer:
        found = state.pop("measured")
        assert found["steps"] == [0, 10] and found["layers"] == ["layer0", "layer1"]
        assert found["points"][1] == [[[3.0, 11.0], [1.0, 0.5]], [[2.0, 1.0], [0.0, 0.0]]]
    if kind is MeasuredStepsExplorer:
        assert state.pop("measured") == {"sgd": POINTS, "heavy_ball": POINTS}
        assert state.pop("target") == 0.01
    settings = ", ".join(f"{name}={value}" for name, value in state.items())
    (name, value) = one.popitem()
    assert settings == re.sub(rf"{name}=[\d.]+", f"{name}={value}", defaults)
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


@pytest.mark.parametrize("file", sorted(FOLDER.glob("*_explorer.js")), ids=lambda file: file.name)
def test_classic_script_is_no_module(file):
    text = classic(file.name)
    assert not re.search(r"^\s*(import|export)\b", text, re.MULTILINE)
    assert text.count("return { render };") == 1 and f'["{file.name}"] = ' in text


PAGE = """
<div id="place"></div><script>{script}</script>
<script>
  const state = {state};
  const nothing = () => {{}};
  const model = {{
    get: (name) => state[name], set: nothing, on: nothing, off: nothing, save_changes: nothing,
  }};
  batchscalingExplorers["{module}"].render({{ model, el: document.getElementById("place") }});
</script>
"""
NARROW = NoisyQuadratic.power_law(10_000, 2.0).quantize(32)
EDGES = {
    "one direction": (lambda: GeometryExplorer({0: {"a": [[1], [1]]}}), "no two directions"),
    "no spread": (lambda: GeometryExplorer({0: {np.int64(3): [[1, 1], [1, 1]]}}), "Step 0, all"),
    "tiny steps": (
        lambda: PreconditioningExplorer(NARROW, lr_fraction=1e-12, power=0.0),
        "factor e in 3.75×10¹⁹ steps",
    ),
    "much momentum": (
        lambda: MomentumExplorer(PROBLEM, momentum=1 - 1e-16),
        "factor e in 1.8×10¹⁶ steps",
    ),
    "there at once": (lambda: measured(target=1e3), "starts at or below the target"),
}


@pytest.mark.parametrize("name", EDGES)
def test_at_the_edge_an_explorer_still_has_numbers(name, browser):
    make_explorer, words = EDGES[name]
    explorer, page, troubles = make_explorer(), browser.new_page(), []
    page.on("pageerror", lambda error: troubles.append(str(error)))
    state, module = json.dumps(state_of(explorer)), explorer._module
    page.set_content(PAGE.format(script=classic(module), state=state, module=module))
    status = page.locator("[role=status]:not([aria-busy])")
    status.filter(has_text=words).wait_for(timeout=20_000)
    drawn = page.locator("#place").inner_html()
    assert troubles == [] and not re.search("NaN|undefined|Infinity", drawn)
    page.close()
