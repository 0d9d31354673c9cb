"""The page of an advice in a real browser: its numbers, its width and its colours."""

import numpy as np
import pytest
from test_advise import NOISE, SGD, SPEED, branches

from batchscaling.practice.advice import combined

ADVICE = combined(
    8, SPEED, NOISE, branches(16, 32), {}, steps=1000, price=0.01, gain=64, largest=50_000, **SGD
)


@pytest.fixture(scope="module")
def opened(browser):
    """Return the function that opens the page in a colour scheme."""

    def show(scheme):
        page = browser.new_page(color_scheme=scheme, viewport={"width": 390, "height": 800})
        page.errors = []
        page.on("pageerror", lambda error: page.errors.append(str(error)))
        page.set_content(ADVICE.to_html())
        return page

    return show


@pytest.fixture(scope="module")
def page(opened):
    return opened("light")


def test_it_fits_a_narrow_screen_in_both_colour_schemes(opened, page):
    colours = []
    for one in (page, opened("dark")):
        assert one.evaluate("document.documentElement.scrollWidth") <= 390
        assert one.errors == []
        colours.append(one.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert colours == ["rgb(255, 255, 255)", "rgb(22, 22, 22)"]


def test_the_explorer_has_the_numbers_of_the_table(page):
    for row in ADVICE.table():
        found = page.evaluate(f"taken({row.batch_size}, 1, {ADVICE.critical[0]})")
        names = ("steps", "examples", "time", "cost", "efficiency")
        expected = [getattr(row, name)[0] for name in names]
        np.testing.assert_allclose([found[name] for name in names], expected, rtol=1e-9)


def test_the_explorer_begins_at_the_value_and_spans_what_momentum_may_add(opened):
    page = opened("light")
    shown, knob = page.locator("[data-of=scale]"), page.locator("[name=scale]")
    assert float(shown.inner_text()) == pytest.approx(NOISE.batch_size, rel=0.01)
    for key, end in (("Home", NOISE.low), ("End", 64 * NOISE.high)):
        knob.focus()
        knob.press(key)
        assert float(shown.inner_text()) == pytest.approx(end, rel=0.01)


def test_batch_sizes_are_shown_whole(opened):
    page = opened("light")
    page.locator("[name=size]").focus()
    page.keyboard.press("End")
    assert page.locator("[data-of=size]").inner_text() == "32768"
    for _ in range(5):
        page.keyboard.press("ArrowLeft")
    assert page.locator("[data-of=size]").inner_text() == "1024"


def test_its_knobs_change_what_is_said(page):
    told = page.locator("[data-of=result]")
    before = told.inner_text()
    assert "NaN" not in before
    for name in ("size", "devices", "scale"):
        knob = page.locator(f"[name={name}]")
        knob.focus()
        knob.press("ArrowRight")
        assert told.inner_text() != before
        before = told.inner_text()
    assert page.locator("#explorer path").get_attribute("d").startswith("M")
    assert "NaN" not in page.locator("#explorer").inner_html()
    assert page.errors == []
