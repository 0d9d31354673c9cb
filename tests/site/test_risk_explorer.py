"""The risk explorer in the built site: its numbers, its knobs, its looks."""

import itertools
import json
import re

import numpy as np
import pytest

from batchscaling.nqm import HeavyBall, NoisyQuadratic, risk, steady_state_risk, steps_to_target
from batchscaling.widgets import RiskExplorer
from batchscaling.widgets._module import compose

PAGE = "chapters/nqm/01_sgd.html"
FIELDS = ("curvature", "noise", "second_moment", "counts")
KNOBS = ("Learning rate", "Momentum", "Batch size", "Preconditioning power", "Target risk")
STEPS = [0, 1, 2, 3, 10, 57, 1000, 31_623, 10**6]
WIDTHS = (1280, 768, 390)

# The colour that a CSS colour paints, as red, green and blue.
PAINT = """
(node, property) => {
    const pen = Object.assign(document.createElement("canvas"), { width: 1, height: 1 })
        .getContext("2d", { willReadFrequently: true });
    pen.fillStyle = getComputedStyle(node)[property];
    pen.fillRect(0, 0, 1, 1);
    return [...pen.getImageData(0, 0, 1, 1).data].slice(0, 3);
}
"""


class Explorer:
    """The explorer of a page, as a reader meets it."""

    def __init__(self, page):
        self.page = page
        self.root = page.locator(".batchscaling-explorer")
        self.status = self.root.get_by_role("status")
        self.rest()
        self.start = json.loads(page.request.get(page.url).text().split(STATE)[1].split("</")[0])
        self.problem = NoisyQuadratic(**{name: self.start["problem"][name] for name in FIELDS})

    def slider(self, name):
        return self.root.get_by_role("slider", name=name, exact=True)

    def press(self, name, *keys):
        self.slider(name).focus()
        for key in keys:
            self.page.keyboard.press(key)
        self.rest()

    def rest(self):
        self.root.locator(".status:not([aria-busy]):not(:empty)").wait_for()

    def picture(self):
        return self.root.locator(".plot").inner_html()

    def value(self, name):
        return float(self.slider(name).get_attribute("aria-valuetext").replace(",", ""))

    def shown(self):
        """Return the method and the problem that the knobs stand at, the batch size and target."""
        lr, momentum, batch_size, power, target = map(self.value, KNOBS)
        return self.problem.precondition(power), HeavyBall(lr, momentum), batch_size, target


STATE = '<script type="application/json">'


@pytest.fixture
def explorer(visit):
    return Explorer(visit(PAGE).page)


def test_numbers_agree_with_the_library(visit):
    problem = NoisyQuadratic.harmonic(10_000).quantize(20)
    cases, expected, floors = [], [], []
    grid = itertools.product((0, 0.5, 0.9, 0.999), (0, 0.75))
    for momentum, power in grid:
        equivalent = problem.precondition(power)
        limit = 2 * (1 + momentum) / equivalent.curvature.max()
        rates = [1e-3, 0.1, 0.5, 0.9 * limit, (1 - 1e-6) * limit, (1 - 1e-9) * limit]
        if momentum > 0:  # the double root of one eigenvalue, where the matrix is defective
            rates.append((1 - momentum**0.5) ** 2 / equivalent.curvature[3])
        for lr, batch_size in itertools.product(rates, (1, 1024)):
            method = HeavyBall(float(lr), momentum)
            cases.append([float(lr), momentum, batch_size, power])
            expected.append(risk(equivalent, method, batch_size, STEPS))
            floors.append(steady_state_risk(equivalent, method, batch_size))
    code = """
    async ({ problem, cases, steps }) => {
        const nqm = await import(new URL("../../_static/nqm.js", location.href));
        return cases.map(([lr, momentum, batchSize, power]) => {
            const equivalent = nqm.precondition(problem, power);
            const method = nqm.heavyBall(lr, momentum);
            const floor = nqm.steadyStateRisk(equivalent, method, batchSize);
            return [...nqm.risk(equivalent, method, batchSize, steps), floor];
        });
    }
    """
    data = {name: getattr(problem, name).tolist() for name in FIELDS}
    argument = {"problem": data, "cases": cases, "steps": STEPS}
    found = np.array(visit(PAGE).page.evaluate(code, argument))
    assert len(cases) == 108
    np.testing.assert_allclose(found[:, :-1], expected, rtol=1e-9)
    np.testing.assert_allclose(found[:, -1], floors, rtol=1e-9)


def test_steps_to_target_are_those_of_the_library(visit):
    problem = NoisyQuadratic.harmonic(10_000).quantize(20)
    rng = np.random.default_rng(0)
    cases = []
    for _ in range(60):
        momentum = float(rng.choice([0, 0.5, 0.9, 0.99, 0.999]))
        lr = 2 * (1 + momentum) * float(10 ** rng.uniform(-3, -0.01))
        cases.append([lr, momentum, 2 ** int(rng.integers(0, 13)), float(10 ** rng.uniform(-3, 0))])
    code = """
    async ({ problem, cases }) => {
        const nqm = await import(new URL("../../_static/nqm.js", location.href));
        return cases.map(([lr, momentum, batchSize, target]) => {
            return nqm.stepsToTarget(problem, nqm.heavyBall(lr, momentum), batchSize, target, 1e6);
        });
    }
    """
    data = {name: getattr(problem, name).tolist() for name in FIELDS}
    found = visit(PAGE).page.evaluate(code, {"problem": data, "cases": cases})
    expected = [
        steps_to_target(problem, HeavyBall(lr, momentum), batch_size, target)
        for lr, momentum, batch_size, target in cases
    ]
    assert found == [None if steps is None or steps > 10**6 else steps for steps in expected]
    assert 20 < sum(steps is not None for steps in found) < 60


def test_words_state_the_library_s_numbers(explorer):
    for name, keys in [
        ("Batch size", ["End"]),
        ("Momentum", ["PageUp"] * 3),
        ("Learning rate", []),
    ]:
        explorer.press(name, *keys)
        problem, method, batch_size, target = explorer.shown()
        floor = steady_state_risk(problem, method, batch_size)
        words = explorer.status.inner_text().replace(",", "")
        assert number_after("settles at", words) == pytest.approx(floor, rel=5e-3)
        assert number_after("risk", words) == pytest.approx(problem.initial_risk, rel=5e-3)
        steps = steps_to_target(problem, method, batch_size, target)
        assert (steps is None) == ("not reached" in words)
        assert steps is None or f"after {steps} steps" in words


def number_after(words, text):
    digits, exponent = re.search(rf"{words} ([\d.]*\d)(?:×10([⁰¹²³⁴⁵⁶⁷⁸⁹⁻]+))?", text).groups()
    exponent = (exponent or "").translate(str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-"))
    return float(f"{digits}e{exponent or 0}")


@pytest.mark.parametrize("name", KNOBS)
def test_every_knob_moves_by_keyboard_and_mouse(explorer, name):
    slider = explorer.slider(name)
    before = explorer.picture()
    value = slider.get_attribute("aria-valuetext")
    explorer.press(name, "ArrowRight" if name != "Batch size" else "ArrowLeft")
    assert slider.get_attribute("aria-valuetext") != value
    assert explorer.picture() != before
    before = explorer.picture()
    box = slider.bounding_box()
    explorer.page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + box["height"] / 2)
    explorer.page.mouse.down()
    explorer.page.mouse.move(box["x"] + 0.7 * box["width"], box["y"] + box["height"] / 2, steps=4)
    explorer.page.mouse.up()
    explorer.rest()
    assert explorer.picture() != before
    assert explorer.root.inner_text().count(slider.get_attribute("aria-valuetext")) >= 1


def test_keyboard_reaches_every_knob_and_button_in_order(explorer):
    explorer.slider(KNOBS[0]).focus()
    focused = "document.activeElement.ariaLabel ?? document.activeElement.textContent"
    order = []
    for _ in range(7):
        order.append(explorer.page.evaluate(focused))
        explorer.page.keyboard.press("Tab")
    assert order == [*KNOBS, "Keep this curve", "Reset"]


def test_words_follow_the_knobs(explorer):
    before = explorer.status.inner_text()
    explorer.press("Learning rate", "ArrowLeft")
    assert explorer.status.inner_text() != before
    assert explorer.status.get_attribute("aria-live") == "polite"


def test_unstable_rate_is_said_and_survived(explorer):
    explorer.press("Learning rate", "End")
    assert "Unstable" in explorer.status.inner_text()
    assert "must be below 2." in explorer.status.inner_text()
    for name in KNOBS[1:]:
        explorer.press(name, "End")
    assert "Unstable" in explorer.status.inner_text()
    assert "NaN" not in explorer.picture() and "Infinity" not in explorer.picture()
    explorer.press("Learning rate", "Home")
    assert "settles at" in explorer.status.inner_text()


def test_reset_returns_to_the_start_and_keep_keeps_a_curve(explorer):
    picture, words = explorer.picture(), explorer.status.inner_text()
    explorer.press("Learning rate", "Home")
    explorer.press("Momentum", "ArrowRight")
    compared = explorer.picture()
    explorer.root.get_by_role("button", name="Keep this curve").click()
    explorer.rest()
    assert explorer.picture() != compared
    explorer.root.get_by_role("button", name="Reset").click()
    explorer.rest()
    assert explorer.picture() == picture
    assert explorer.status.inner_text() == words


@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_is_clipped_and_nothing_jumps(visit, width):
    explorer = Explorer(visit(PAGE, viewport={"width": width, "height": 900}).page)
    height = explorer.root.bounding_box()["height"]
    for name, key in itertools.product(KNOBS, ("End", "Home")):
        explorer.press(name, key)
        assert explorer.root.bounding_box()["height"] == height, (name, key)
        code = """
        (root) => {
            const frame = root.getBoundingClientRect();
            const words = root.querySelectorAll("text, .caption, .legend, .status, button");
            return [...words].map((node) => {
                const box = node.getBoundingClientRect();
                return {
                    words: node.textContent,
                    size: parseFloat(getComputedStyle(node).fontSize),
                    inside: box.left >= frame.left && box.right <= frame.right
                        && (node instanceof SVGElement || node.scrollWidth <= node.clientWidth),
                };
            });
        }
        """
        for item in explorer.root.evaluate(code):
            assert item["size"] >= 12 and item["inside"], item
    assert explorer.page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_colours_stand_out_in_both_themes(visit, theme):
    explorer = Explorer(visit(PAGE, color_scheme=theme).page)
    paper = explorer.root.evaluate(PAINT, "backgroundColor")
    assert (luminance(paper) > 0.5) == (theme == "light")
    for momentum in ("Home", "End"):
        explorer.press("Momentum", momentum)
        for selector, style, least in [
            ("text", "fill", 4.5),
            (".status, .caption, .legend li, button", "color", 4.5),
            ("path.curve:last-of-type", "stroke", 3),
            (".mark", "fill", 3),
        ]:
            nodes = explorer.root.locator(selector).all()
            assert nodes
            for node in nodes:
                assert contrast(node.evaluate(PAINT, style), paper) >= least, (selector, theme)


def luminance(colour):
    parts = np.array(colour) / 255
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def contrast(one, other):
    low, high = sorted([luminance(one), luminance(other)])
    return (high + 0.05) / (low + 0.05)


def test_theme_can_change_while_the_page_is_open(explorer):
    light = explorer.root.evaluate(PAINT, "backgroundColor")
    explorer.page.evaluate("document.documentElement.dataset.theme = 'dark'")
    assert luminance(explorer.root.evaluate(PAINT, "backgroundColor")) < luminance(light) / 4


def test_notebooks_module_draws_the_same_and_follows_the_model(explorer):
    """The text that anywidget gets mounts from a blob, and follows values that Python sets."""
    code = """
    async ([text, state]) => {
        const values = { ...state };
        const listeners = {};
        const model = {
            get: (name) => values[name],
            set(name, value) { values[name] = value; listeners[`change:${name}`]?.(); },
            save_changes() { window.saved = { ...values }; },
            on: (event, listener) => { listeners[event] = listener; },
            off: (event) => { delete listeners[event]; },
        };
        const url = URL.createObjectURL(new Blob([text], { type: "text/javascript" }));
        const { default: explorer } = await import(url);
        const place = document.createElement("div");
        place.id = "live";
        document.querySelector(".batchscaling-mount").after(place);
        window.remove = explorer.render({ model, el: place });
        window.model = model;
        window.listeners = listeners;
    }
    """
    page = explorer.page
    static = explorer.picture()
    page.evaluate(code, [compose("risk_explorer.js"), explorer.start])
    live = page.locator("#live")
    live.locator(".status:not([aria-busy]):not(:empty)").wait_for()
    assert live.locator(".plot").inner_html() == static
    page.evaluate("window.model.set('lr', 0.123)")
    slider = live.get_by_role("slider", name="Learning rate")
    assert slider.get_attribute("aria-valuetext") == "0.123"
    live.locator(".status:not([aria-busy])").wait_for()
    assert live.locator(".plot").inner_html() != static
    slider.focus()
    page.keyboard.press("ArrowRight")
    assert page.evaluate("window.saved.lr") > 0.123
    page.evaluate("window.remove()")
    assert page.evaluate("Object.keys(window.listeners)") == []
    assert live.inner_html() == ""


def test_page_s_state_is_what_the_library_writes(explorer):
    settings = {name: value for name, value in explorer.start.items() if name != "problem"}
    markup = RiskExplorer(explorer.problem, **settings)._repr_mimebundle_()[0]["text/html"]
    assert json.loads(markup.split(STATE)[1].split("</")[0]) == explorer.start
