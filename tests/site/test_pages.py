"""Every page of the built site: it loads whole, from one host, and anyone can read it."""

import pytest
from axe_playwright_python.sync_playwright import Axe

RULES = {
    "light": {
        "type": "tag",
        "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"],
    },
    "dark": {"type": "rule", "values": ["color-contrast"]},  # the theme changes nothing else
}
# Markup that Sphinx and its theme write, and no option changes.
KNOWN = {
    ("aria-allowed-role", "doc-biblioentry"),
    ("aria-deprecated-role", "doc-biblioentry"),
    ("aria-required-children", "citation-list"),
    ("region", "navbar-brand"),
}

# What has a box of its own: it would be cut at the box's edge, or scroll there.
PARTS = "pre, .cell_input, .cell_output, .output"
MAY_SCROLL = "div.math, mjx-container[display], .pst-scrollable-table-container"  # on a phone
UNFOLD = """
async () => {
    await window.MathJax?.startup?.promise;
    for (const node of document.querySelectorAll("details")) node.open = true;
    for (const node of document.querySelectorAll(".toggle-hidden"))
        node.classList.remove("toggle-hidden");
}
"""
CUT = """
(parts) => [...document.querySelectorAll(`.bd-article :is(${parts})`)]
    .filter((node) => node.scrollWidth > node.clientWidth)
    .map((node) => node.textContent)
"""


def test_page_loads_whole_and_from_one_host(visit, any_page):
    assert visit(any_page).troubles == []


@pytest.mark.parametrize("theme", RULES)
def test_page_is_accessible(visit, chapter, theme):
    page = visit(chapter, color_scheme=theme).page
    assert page.evaluate("document.documentElement.dataset.theme") == theme
    # MathJax's markup is left out: it is half of a page's nodes, in the colour of the text.
    options = {"runOnly": RULES[theme], "resultTypes": ["violations"]}
    result = Axe().run(page, {"exclude": [["mjx-container"]]}, options).response
    found = [
        (item["id"], node["html"], node["failureSummary"])
        for item in result["violations"]
        for node in item["nodes"]
        if not any(item["id"] == rule and part in node["html"] for rule, part in KNOWN)
    ]
    assert found == []
    assert "color-contrast" in {item["id"] for item in result["passes"]}


def test_page_and_all_on_it_fit_a_window(visit, any_page):
    page = visit(any_page, viewport={"width": 1280, "height": 844}).page
    page.evaluate(UNFOLD)
    assert page.evaluate("document.documentElement.scrollWidth") <= 1280
    assert page.evaluate(CUT, f"{PARTS}, {MAY_SCROLL}") == []
    page.add_style_tag(content=".bd-article pre { white-space: pre !important; }")
    broken = [text for text in page.evaluate(CUT, "pre") if longest_line(text) <= 80]
    assert broken == []


def longest_line(text):
    return max(map(len, text.splitlines()))


def test_page_and_all_on_it_fit_a_phone(visit, any_page):
    page = visit(any_page, viewport={"width": 390, "height": 844}).page
    page.evaluate(UNFOLD)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.evaluate(CUT, PARTS) == []


@pytest.mark.parametrize("served", [True, False], ids=["served", "file"])
def test_search_finds_pages(visit, served):
    seen = visit("search.html?q=momentum", served=served)
    results = seen.page.locator("#search-results li")
    results.last.wait_for()
    seen.page.wait_for_load_state("networkidle")
    assert results.count() > 10
    assert (seen.page.locator("#search-results .context").count() > 0) == served
    assert seen.troubles == []


def test_page_opened_as_a_file_works_whole(visit, any_page):
    seen = visit(any_page, served=False)
    seen.page.wait_for_load_state("load")
    for place in seen.page.locator(".batchscaling-mount").all():
        place.locator(".status:not([aria-busy]):not(:empty)").wait_for()
        assert place.locator(".plot path").count() > 0
    assert seen.troubles == []
