"""The built site, served from this machine and read in a real browser without a screen."""

import functools
import http.server
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
    """Return a function that opens a page of the site: ``visit(path, **context)``."""
    visits = []

    def open_page(path, **context):
        visits.append(Visit(browser, address, path, **context))
        return visits[-1]

    yield open_page
    for made in visits:
        made.context.close()
