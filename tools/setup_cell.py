"""The set-up cell: the second cell of every chapter, the same text everywhere."""

import batchscaling
from tools import book

# Colab has torch and numpy of its own: --no-deps leaves them as they are.
TEMPLATE = """\
import sys

if "google.colab" in sys.modules:
    %pip install -q --no-deps "git+{address}@v{version}" anywidget psygnal

from batchscaling.figures import use_style

use_style()"""


def setup_cell(address=None, version=batchscaling.__version__):
    """Return the text of the set-up cell for the repository at `address`."""
    return TEMPLATE.format(address=address or book.repository(), version=version)


if __name__ == "__main__":
    print(setup_cell())
