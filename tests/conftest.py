"""Settings of all tests, and what several folders of them share."""

import os
import shutil

import pytest
from hypothesis import settings

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = [
    "--no-sandbox",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-dev-shm-usage",
]

# Two busy cores make single examples slow: time says nothing about right or wrong.
settings.register_profile("book", deadline=None)
settings.load_profile("book")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    """Start with the tests that may take long, so that no worker is left alone with one."""

    def allowed_seconds(item):
        marker = item.get_closest_marker("timeout")
        return marker.args[0] if marker else 0

    items.sort(key=allowed_seconds, reverse=True)


@pytest.fixture(scope="session")
def as_module():
    """Return the function that builds the ordinary network with given parameters."""

    from torch import nn

    def build(params):
        layers = []
        for layer in range(len(params) // 2):
            weight, bias = params[f"layer{layer}.weight"], params[f"layer{layer}.bias"]
            linear = nn.Linear(*weight.shape)
            linear.weight.data, linear.bias.data = weight.T.clone(), bias.clone()
            layers += [linear, nn.ReLU()]
        return nn.Sequential(*layers[:-1])

    return build


@pytest.fixture(scope="session")
def browser():
    """Start Chromium: of BATCHSCALING_CHROMIUM, of the PATH, or the one Playwright installed.

    One for all tests of a process: Playwright does not start a second time beside the first.
    """
    from playwright.sync_api import sync_playwright

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
