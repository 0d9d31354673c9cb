"""The built site, served from this machine and read in a real browser without a screen."""

import functools
import http.server
import json
import os
import shutil
import threading
from pathlib import Path

import pytest
from playwright.sync_api import sync_playwright

SITE = Path(__file__).parents[2] / "_build" / "html"
NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = [
    "--no-sandbox",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-dev-shm-usage",
]


class Handler(http.server.SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass


def pytest_generate_tests(metafunc):
    """Run a test for every page of the site, or every page of the book's text."""
    found = sorted(path.relative_to(SITE).as_posix() for path in SITE.rglob("*.html"))
    pages = [path for path in found if not path.startswith("_static/")]
    chapters = [path for path in pages if path.startswith("chapters/")]
    for name, paths in {"any_page": pages, "chapter": chapters}.items():
        if name in metafunc.fixturenames:
            metafunc.parametrize(name, paths or ["index.html"])


@pytest.fixture(scope="session")
def address():
    """Return the address of the served site."""
    if not (SITE / "index.html").is_file():
        pytest.skip("the site is not built; build it with: make book")
    handler = functools.partial(Handler, directory=SITE)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="session")
def browser():
    """Start Chromium: of BATCHSCALING_CHROMIUM, of the PATH, or the one Playwright installed."""
    named = os.environ.get("BATCHSCALING_CHROMIUM")
    found = named or next(filter(None, map(shutil.which, NAMES)), None)
    with sync_playwright() as playwright:
        executable = found or playwright.chromium.executable_path
        if not shutil.which(executable):
            if named:
                pytest.fail(f"BATCHSCALING_CHROMIUM names no program: {named}")
            pytest.skip("no Chromium; install one with: python -m playwright install chromium")
        with playwright.chromium.launch(executable_path=executable, args=FLAGS) as browser:
            yield browser


class Visit:
    """A page of the site in a fresh browser, with what went wrong on it."""

    def __init__(self, browser, address, path, **context):
        self.troubles = []
        self.context = browser.new_context(**context)
        self.context.route("**/*", functools.partial(self._guard, address))
        self.page = self.context.new_page()
        self.page.on("console", self._note_console)
        self.page.on("pageerror", lambda error: self.troubles.append(f"exception: {error}"))
        self.page.on("requestfailed", lambda request: self.troubles.append(f"lost: {request.url}"))
        self.page.on("response", self._note_response)
        self.page.goto(f"{address}/{path}", wait_until="networkidle")

    def _guard(self, address, route):
        if route.request.url.startswith((f"{address}/", "data:", "blob:")):
            route.continue_()
        else:
            self.troubles.append(f"request to another host: {route.request.url}")
            route.abort()

    def _note_console(self, message):
        if message.type in ("error", "warning"):
            self.troubles.append(f"console: {message.text}")

    def _note_response(self, response):
        if response.status >= 400:
            self.troubles.append(f"{response.status}: {response.url}")


@pytest.fixture
def visit(browser, address):
    """Return a function that opens a page of the site: ``visit(path, **context)``.

    With ``served=False`` it opens the page as a file, without the server.
    """
    visits = []

    def open_page(path, served=True, **context):
        visits.append(Visit(browser, address if served else SITE.as_uri(), path, **context))
        return visits[-1]

    yield open_page
    for made in visits:
        made.context.close()


class Explorer:
    """The first explorer of a page that shows a module, as a reader meets it."""

    def __init__(self, visit, module):
        self.page = visit.page
        self.troubles = visit.troubles
        self.place = self.page.locator(f'.batchscaling-mount[data-module="{module}"]').first
        self.root = self.place.locator(".batchscaling-explorer")
        self.status = self.root.get_by_role("status")
        self.rest()
        markup = self.page.request.get(self.page.url).text()
        markup = markup.split(f'data-module="{module}"')[1]
        self.start = json.loads(markup.split('json">')[1].split("</script>")[0])

    def slider(self, name):
        return self.root.get_by_role("slider", name=name, exact=True)

    def press(self, name, *keys):
        self.slider(name).focus()
        for key in keys:
            self.page.keyboard.press(key)
        self.rest()

    def click(self, name):
        self.root.get_by_role("button", name=name).click()
        self.rest()

    def rest(self):
        """Wait until the words are those of the knobs."""
        self.root.locator(".status:not([aria-busy]):not(:empty)").wait_for()

    def words(self):
        return self.status.inner_text()

    def picture(self):
        return "".join(plot.inner_html() for plot in self.root.locator(".plot").all())

    def values(self):
        """Return what each knob shows, by its label."""
        sliders = self.root.get_by_role("slider").all()
        return {
            slider.get_attribute("aria-label"): slider.get_attribute("aria-valuetext")
            for slider in sliders
        }


@pytest.fixture
def open_explorer(visit):
    """Return a function that opens the first page that shows a module's explorer."""

    def open_page(module, **context):
        mark = f'data-module="{module}"'
        for path in sorted(SITE.rglob("chapters/**/*.html")):
            if mark in path.read_text(encoding="utf-8"):
                return Explorer(visit(path.relative_to(SITE).as_posix(), **context), module)
        pytest.skip(f"no page of the site shows {module}")

    return open_page
