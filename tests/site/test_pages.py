"""Every page of the built site: it loads whole, from one host, and anyone can read it."""

import pytest
from axe_playwright_python.base import AXE_SCRIPT

from tools import book

SITE = book.ROOT / "_build" / "html"
FOUND = sorted(path.relative_to(SITE).as_posix() for path in SITE.rglob("*.html"))
PAGES = [path for path in FOUND if not path.startswith("_static/")] or ["index.html"]
CHAPTERS = [path for path in PAGES if path.startswith("chapters/")] or PAGES
# Of the module's scope, so that pytest puts the tests of a page together.
any_page = pytest.mark.parametrize("path", PAGES, scope="module")
any_chapter = pytest.mark.parametrize("path", CHAPTERS, scope="module")


def kinds(pages):
    """Return the pages with an explorer, and of all others the first of each folder."""
    found = {}
    for path in pages:
        page = SITE / path
        has_explorer = page.is_file() and "batchscaling-mount" in page.read_text("utf-8")
        found.setdefault(path if has_explorer else path.rpartition("/")[0], path)
    return list(found.values())


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


# Axe compares colours for seconds on a long page, and for most of a minute on that of the library.
# So it compares one of all pieces of text whose colours, sizes and surroundings are the same.
ONE_OF_EACH = """
() => {
    const looks = new Map(), known = new Map(), seen = new Set();
    const look = (node) => {
        if (known.has(node)) return known.get(node);
        const { color, background, opacity, fontSize, fontWeight } = getComputedStyle(node);
        const above = node.matches(".bd-article") ? "" : look(node.parentElement);
        const own = [above, color, background, opacity, fontSize, fontWeight].join("|");
        if (!looks.has(own)) looks.set(own, looks.size);
        known.set(node, looks.get(own));
        return known.get(node);
    };
    const isText = (node) => node.nodeType === Node.TEXT_NODE && node.data.trim();
    const isShown = (node) => node.checkVisibility() && node.getBoundingClientRect().width > 1;
    for (const node of document.querySelectorAll(".bd-article *")) {
        if (![...node.childNodes].some(isText) || !isShown(node)) continue;
        node.toggleAttribute("data-known-look", seen.has(look(node)));
        seen.add(look(node));
    }
    axe.configure({
        rules: [{ id: "color-contrast", selector: "*:not([data-known-look])" }],
    });
}
"""

# Axe without the insides of formulas: they are most of a page's nodes, in the colour of the text.
AXE = """
async (settings) => {
    const formulas = [...document.querySelectorAll("mjx-container")];
    const insides = formulas.map((formula) => [...formula.childNodes]);
    for (const formula of formulas) formula.replaceChildren();
    try {
        return await axe.run(...settings);
    } finally {
        formulas.forEach((formula, at) => formula.replaceChildren(...insides[at]));
    }
}
"""


@pytest.fixture(scope="module")
def opened(visit, path):
    """Open a page once for all tests of it, with nothing folded."""
    with visit(path) as seen:
        seen.page.evaluate(UNFOLD)
        seen.page.evaluate(AXE_SCRIPT)
        yield seen


@any_page
def test_page_loads_whole_and_from_one_host(opened):
    assert opened.troubles == []


@any_chapter
@pytest.mark.parametrize("theme", RULES)
def test_page_is_accessible(opened, theme):
    page = opened.show(theme=theme)
    assert page.evaluate("document.documentElement.dataset.theme") == theme
    page.evaluate(ONE_OF_EACH)
    context = {"exclude": [["mjx-container"]]}
    options = {"runOnly": RULES[theme], "resultTypes": ["violations"]}
    result = page.evaluate(AXE, [context, options])
    found = [
        (item["id"], node["html"], node["failureSummary"])
        for item in result["violations"]
        for node in item["nodes"]
        if not any(item["id"] == rule and part in node["html"] for rule, part in KNOWN)
    ]
    assert found == []
    assert "color-contrast" in {item["id"] for item in result["passes"]}


@any_page
def test_page_and_all_on_it_fit_a_window(opened):
    page = opened.show(width=1280, height=844)
    assert page.evaluate("document.documentElement.scrollWidth") <= 1280
    assert page.evaluate(CUT, f"{PARTS}, {MAY_SCROLL}") == []
    unbroken = page.add_style_tag(content=".bd-article pre { white-space: pre !important; }")
    cut = page.evaluate(CUT, "pre")
    unbroken.evaluate("(tag) => tag.remove()")
    assert [text for text in cut if longest_line(text) <= 80] == []


def longest_line(text):
    return max(map(len, text.splitlines()))


@any_page
def test_page_and_all_on_it_fit_a_phone(opened):
    page = opened.show(width=390, height=844)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.evaluate(CUT, PARTS) == []


@pytest.mark.parametrize("served", [True, False], ids=["served", "file"])
def test_search_finds_pages(visit, served):
    with visit("search.html?q=momentum", served=served) as seen:
        results = seen.page.locator("#search-results li")
        results.nth(10).wait_for()  # they come one after the other
        seen.page.wait_for_load_state("networkidle")
        assert results.count() > 10
        assert (seen.page.locator("#search-results .context").count() > 0) == served
        assert seen.troubles == []


@pytest.mark.parametrize("path", kinds(PAGES))
def test_page_opened_as_a_file_works_whole(visit, path):
    with visit(path, served=False, formulas=False) as seen:
        seen.page.wait_for_load_state("load")
        for place in seen.page.locator(".batchscaling-mount").all():
            place.locator(".status:not([aria-busy]):not(:empty)").wait_for()
            assert place.locator(".plot path").count() > 0
        assert seen.troubles == []


def test_formulas_are_set_on_a_page_that_is_opened_as_a_file(visit):
    with visit("chapters/appendix/notation.html", served=False) as seen:
        seen.page.evaluate(UNFOLD)
        assert seen.page.locator("mjx-container").count() > 20
        assert seen.troubles == []
