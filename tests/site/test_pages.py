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


def test_page_fits_a_phone(visit, chapter):
    page = visit(chapter, viewport={"width": 390, "height": 844}).page
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
