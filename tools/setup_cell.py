"""The set-up cell: the second cell of every chapter, the same text everywhere."""

from string import Template

import batchscaling
from tools import book

# Colab has torch and numpy of its own: --no-deps leaves them as they are. Before a release, and in
# most forks, there is no tag, git ends with status 2, and the default branch is installed.
TEMPLATE = Template("""\
import sys

if "google.colab" in sys.modules:
    import json
    import subprocess
    from importlib.metadata import distribution

    address, tag = "$address", "v$version"
    look = ["git", "ls-remote", "--exit-code", address, f"refs/tags/{tag}"]
    untagged = subprocess.run(look, capture_output=True).returncode == 2
    source = f"git+{address}" if untagged else f"git+{address}@{tag}"
    %pip install -q --no-deps "{source}" anywidget psygnal
    found = distribution("batchscaling").read_text("direct_url.json")
    commit = json.loads(found)["vcs_info"]["commit_id"][:12]
    chosen = f"default branch (no tag {tag})" if untagged else f"tag {tag}"
    print(f"Installed batchscaling from {address}, {chosen}, commit {commit}")

from batchscaling.figures import use_style

use_style()""")


def setup_cell(address=None, version=batchscaling.__version__):
    """Return the text of the set-up cell for the repository at `address`."""
    return TEMPLATE.substitute(address=address or book.repository(), version=version)


if __name__ == "__main__":
    print(setup_cell())
