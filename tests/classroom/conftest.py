"""What the classroom's tests share."""

import pytest

from tools import book
from tools.classroom import generate


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    """The folder of one generation of all assignments."""
    folder = tmp_path_factory.mktemp("assignments")
    for path in book.assignments():
        generate.generate(path, folder)
    return folder
