"""The built site, served from this machine and read in a real browser without a screen.

Opening a page costs more than most checks of it. So a page is opened once for all its tests, and
an explorer too. `Visit.show` and `open_explorer` bring it to what a test needs, whatever other
tests did before.
"""

import contextlib
import functools
import http.server
import json
import threading

import pytest

from tools import book

SITE = book.ROOT / "_build" / "html"


class Handler(http.server.SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass


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


# A page has followed a change of its size or colours once it was painted again.
# A change of theme fades in: half-way, colours are those of no theme.
PAINTED = """
async () => {
    const frame = () => new Promise((done) => requestAnimationFrame(done));
    await frame();
    for (const transition of document.getAnimations())
        if (transition instanceof CSSTransition) transition.finish();
    await frame();
}
"""


class Visit:
    """A page of the site in a fresh browser, with what went wrong on it."""

    def __init__(self, browser, address, path, *, formulas=True, **context):
        self.troubles, self.formulas = [], formulas
        self.context = browser.new_context(**context)
        self.context.route("**/*", functools.partial(self._guard, address))
        self.page = self.context.new_page()
        self.page.on("console", self._note_console)
        self.page.on("pageerror", lambda error: self.troubles.append(f"exception: {error}"))
        self.page.on("requestfailed", lambda request: self.troubles.append(f"lost: {request.url}"))
        self.page.on("response", self._note_response)
        self.page.goto(f"{address}/{path}", wait_until="networkidle")
        # What fades in would be measured half-way: a theme, or a cell that is opened.
        still = "* {transition: none !important; animation: none !important}"
        self.page.add_style_tag(content=still)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.context.close()

    def show(self, width=1280, height=720, theme="light"):
        """Show the page in a window of this size and theme; return it."""
        self.page.set_viewport_size({"width": width, "height": height})
        self.page.emulate_media(color_scheme=theme)
        self.page.evaluate(PAINTED)
        return self.page

    def _guard(self, address, route):
        if "/mathjax/" in route.request.url and not self.formulas:
            route.fulfill(body="", content_type="text/javascript")
        elif route.request.url.startswith((f"{address}/", "data:", "blob:")):
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


@pytest.fixture(scope="session")
def visit(browser, address):
    """Return a function that opens a page of the site: ``visit(path, **context)``.

    With ``served=False`` it opens the page as a file, without the server. With ``formulas=False``
    they stay as they are written: to set those of a chapter takes seconds. The page is closed at
    the end of a ``with``.
    """

    def open_page(path, served=True, **context):
        return Visit(browser, address if served else SITE.as_uri(), path, **context)

    return open_page


class Explorer:
    """The first explorer of a page that shows a module, as a reader meets it."""

    def __init__(self, visit, module):
        self.visit = visit
        self.page = visit.page
        self.troubles = visit.troubles
        self.place = self.page.locator(f'.batchscaling-mount[data-module="{module}"]').first
        self.root = self.place.locator(".batchscaling-explorer")
        self.status = self.root.get_by_role("status")
        self.rest()
        markup = self.page.request.get(self.page.url).text()
        markup = markup.split(f'data-module="{module}"')[1]
        self.start = json.loads(markup.split('json">')[1].split("</script>")[0])
        self.opened = self.picture(), self.words()

    def show(self, **window):
        """Put the knobs back, in a window as of `Visit.show`; return the explorer."""
        self.visit.show(**window)
        self.click("Reset")
        return self

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


def first_page_with(module):
    """Return the path of the first page of the site that shows a module's explorer."""
    mark = f'data-module="{module}"'
    for path in sorted(SITE.rglob("chapters/**/*.html")):
        if mark in path.read_text(encoding="utf-8"):
            return path.relative_to(SITE).as_posix()
    return pytest.skip(f"no page of the site shows {module}")


@pytest.fixture(scope="session")
def open_explorer(visit):
    """Return a function that shows a module's explorer as it starts: ``open_explorer(module)``.

    Keywords are those of `Visit.show`.
    """
    explorers = {}
    with contextlib.ExitStack() as stack:

        def show(module, **window):
            if module not in explorers:
                seen = stack.enter_context(visit(first_page_with(module), formulas=False))
                explorers[module] = Explorer(seen, module)
            return explorers[module].show(**window)

        yield show
