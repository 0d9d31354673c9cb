"""Settings of all tests."""

import pytest
from hypothesis import settings

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
