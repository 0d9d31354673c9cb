"""Every explorer in the built site: its knobs, its words, its looks."""

import itertools
import json

import numpy as np
import pytest

import batchscaling.widgets
from batchscaling.nqm import NoisyQuadratic
from batchscaling.widgets._module import compose

KNOBS = {  # by name in Python, in the order of the page
    "RiskExplorer": {
        "lr": "Learning rate",
        "momentum": "Momentum",
        "batch_size": "Batch size",
        "power": "Preconditioning power",
        "target": "Target risk",
    },
    "MomentumExplorer": {
        "lr": "Learning rate",
        "momentum": "Momentum",
        "batch_size": "Batch size",
    },
    "PreconditioningExplorer": {
        "power": "Preconditioning power",
        "lr_fraction": "Learning rate / largest",
        "momentum": "Momentum",
        "batch_size": "Batch size",
    },
    "StepsExplorer": {
        "exponent": "Spectrum exponent",
        "power": "Preconditioning power",
        "momentum": "Momentum",
        "target": "Target risk",
    },
    "MeasuredStepsExplorer": {
        "momentum": "Momentum",
        "noise_factor": "Model's noise, times",
        "start_factor": "Model's start, times",
    },
    "GeometryExplorer": {
        "step": "Step",
        "layer": "Layer",
    },
    "ThermometerExplorer": {
        "lr": "Learning rate",
        "batch_size": "Batch size",
        "momentum": "Momentum",
    },
    "PlaneExplorer": {
        "lr": "Learning rate",
        "momentum": "Momentum",
        "extrapolation": "Extrapolation rate",
        "roundness": "Roundness",
    },
}
BUTTONS = {"RiskExplorer": ["Keep this curve", "Reset"]}
WIDTHS = (1280, 768, 390)

# The colours that nodes paint, as red, green and blue; of nodes that look the same once.
PAINTS = """
(nodes, properties) => {
    const pen = Object.assign(document.createElement("canvas"), { width: 1, height: 1 })
        .getContext("2d", { willReadFrequently: true });
    const paint = (colour) => {
        pen.fillStyle = colour;
        pen.fillRect(0, 0, 1, 1);
        return [...pen.getImageData(0, 0, 1, 1).data].slice(0, 3);
    };
    const looks = nodes.map((node) => {
        const style = getComputedStyle(node);
        return JSON.stringify(properties.map((property) => style[property]));
    });
    return [...new Set(looks)].map((look) => JSON.parse(look).map(paint));
}
"""

# Everything with words: its size, and whether it is whole and inside the frame.
WORDS = """
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

pytestmark = pytest.mark.parametrize("kind", KNOBS)


def module_of(kind):
    return getattr(batchscaling.widgets, kind)._module


@pytest.fixture
def explorer(open_explorer, kind):
    return open_explorer(module_of(kind))


def test_every_knob_moves_by_keyboard_and_mouse(explorer, kind):
    for label in KNOBS[kind].values():
        slider = explorer.slider(label)
        before, words, value = explorer.picture(), explorer.words(), explorer.values()[label]
        explorer.press(label, "Home")
        explorer.press(label, "ArrowRight", "ArrowRight", "ArrowRight")
        assert explorer.values()[label] != value
        assert explorer.picture() + explorer.words() != before + words
        before, words, value = explorer.picture(), explorer.words(), explorer.values()[label]
        box = slider.bounding_box()
        height = box["y"] + box["height"] / 2
        explorer.page.mouse.move(box["x"] + 0.4 * box["width"], height)
        explorer.page.mouse.down()
        explorer.page.mouse.move(box["x"] + 0.6 * box["width"], height, steps=3)
        explorer.page.mouse.up()
        explorer.rest()
        assert explorer.values()[label] != value
        assert explorer.picture() + explorer.words() != before + words
        assert explorer.values()[label] in explorer.root.locator(".controls").inner_text()
        explorer.click("Reset")


def test_keyboard_reaches_every_knob_and_button_in_order(explorer, kind):
    expected = [*KNOBS[kind].values(), *BUTTONS.get(kind, ["Reset"])]
    explorer.slider(expected[0]).focus()
    focused = "document.activeElement.ariaLabel ?? document.activeElement.textContent"
    order = []
    for _ in expected:
        order.append(explorer.page.evaluate(focused))
        explorer.page.keyboard.press("Tab")
    assert order == expected


def test_words_follow_the_knobs_and_nothing_moves_by_itself(explorer, kind):
    before = explorer.words()
    for label in KNOBS[kind].values():
        explorer.press(label, "Home")
    assert explorer.words() != before
    assert explorer.status.get_attribute("aria-live") == "polite"
    assert explorer.root.evaluate("(node) => node.getAnimations({ subtree: true }).length") == 0


def test_reset_returns_to_the_start(explorer, kind):
    for label in KNOBS[kind].values():
        explorer.press(label, "Home")
    assert (explorer.picture(), explorer.words()) != explorer.opened
    explorer.click("Reset")
    assert (explorer.picture(), explorer.words()) == explorer.opened


def test_ends_of_the_knobs_are_survived_and_nothing_is_clipped_or_jumps(explorer, kind):
    """Each move is looked at in one window, and the start and each corner in all of them."""
    heights = {width: set() for width in WIDTHS}

    def look(keys):
        width = explorer.page.viewport_size["width"]
        heights[width].add(explorer.root.bounding_box()["height"])
        for item in explorer.root.evaluate(WORDS):
            assert item["size"] >= 12 and item["inside"], (width, keys, item)
        assert explorer.page.evaluate("document.documentElement.scrollWidth") <= width

    corners = itertools.product(("End", "Home"), repeat=2)
    for keys in ((), *corners):
        for label, key in zip(KNOBS[kind].values(), itertools.cycle(keys), strict=False):
            explorer.press(label, key)
            shown = explorer.picture() + explorer.words()
            assert "NaN" not in shown and "Infinity" not in shown and "undefined" not in shown
            look(keys)
        for width in WIDTHS if "Home" in keys else WIDTHS[::-1]:
            explorer.visit.show(width=width, height=900)
            look(keys)
    assert [len(seen) for seen in heights.values()] == [1, 1, 1], heights
    assert explorer.troubles == []


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_colours_stand_out_in_both_themes(open_explorer, kind, theme):
    explorer = open_explorer(module_of(kind), theme=theme)
    paper = paper_of(explorer)
    assert (luminance(paper) > 0.5) == (theme == "light")
    knob = "Momentum" if "Momentum" in explorer.values() else next(iter(explorer.values()))
    for key in ("Home", "End"):
        explorer.press(knob, key)
        for selector, styles, least in [
            ("text", ["fill"], 4.5),
            (".status, .caption, .legend li, button", ["color"], 4.5),
            ("path.curve:last-of-type", ["stroke"], 3),
            (".mark", ["fill", "stroke"], 3),  # hollow ones stand out by their line
        ]:
            for colours in explorer.root.locator(selector).evaluate_all(PAINTS, styles):
                best = max(contrast(colour, paper) for colour in colours)
                assert best >= least, (selector, theme)


def paper_of(explorer):
    """Return the colour on which an explorer draws."""
    return explorer.root.evaluate_all(PAINTS, ["backgroundColor"])[0][0]


def luminance(colour):
    parts = np.array(colour) / 255
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def contrast(one, other):
    low, high = sorted([luminance(one), luminance(other)])
    return (high + 0.05) / (low + 0.05)


def test_theme_can_change_while_the_page_is_open(explorer, kind):
    paper = {}
    for theme in ("light", "dark", "light"):
        explorer.page.evaluate(f"document.documentElement.dataset.theme = '{theme}'")
        paper[theme] = paper_of(explorer)
    assert luminance(paper["dark"]) < luminance(paper["light"]) / 4


def test_notebooks_module_draws_the_same_and_follows_the_model(explorer, kind):
    """The text that anywidget gets mounts from a blob, and follows values that Python sets."""
    code = """
    async ([place, text, state]) => {
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
        const live = document.createElement("div");
        live.id = "live";
        place.after(live);
        window.remove = explorer.render({ model, el: live });
        window.model = model;
        window.listeners = listeners;
    }
    """
    page = explorer.page
    static = explorer.picture()
    place = explorer.place.element_handle()
    page.evaluate(code, [place, compose(module_of(kind)), explorer.start])
    live = page.locator("#live")
    resting = live.locator(".status:not([aria-busy]):not(:empty)")

    def picture():
        resting.wait_for()
        return "".join(plot.inner_html() for plot in live.locator(".plot").all())

    assert picture() == static
    name, label = next(iter(KNOBS[kind].items()))
    page.evaluate(f"window.model.set('{name}', 0.123)")
    slider = live.get_by_role("slider", name=label)
    assert slider.get_attribute("aria-valuetext") == "0.123"
    assert picture() != static
    slider.focus()
    page.keyboard.press("ArrowRight")
    assert page.evaluate(f"window.saved.{name}") > 0.123
    page.evaluate("window.remove()")
    assert page.evaluate("Object.keys(window.listeners)") == []
    assert live.inner_html() == ""
    live.evaluate("(node) => node.remove()")


def by_step_and_layer(steps, layers, points):
    """Return the argument of which the state holds the steps, the layers and the points."""
    rows = ([np.transpose(pairs) for pairs in row] for row in points)
    return {at: dict(zip(layers, row, strict=True)) for at, row in zip(steps, rows, strict=True)}


def test_page_s_state_is_what_the_library_writes(explorer, kind):
    settings = dict(explorer.start)
    if kind == "GeometryExplorer":
        settings["measured"] = by_step_and_layer(**settings["measured"])
    given = [NoisyQuadratic(**settings.pop("problem"))] if "problem" in settings else []
    widget = getattr(batchscaling.widgets, kind)(*given, **settings)
    markup = widget._repr_mimebundle_()[0]["text/html"]
    assert json.loads(markup.split('json">')[1].split("</script>")[0]) == explorer.start
