"""Keep every mention of the repository's address equal to `repository.url` in _config.yml.

    python -m tools.address https://github.com/owner/name

writes a new address everywhere: badges, launch links, set-up cells, citation and package metadata.
"""

import re
import sys

from tools import book

# Where the address may stand. Files that name only other projects' repositories are left out.
PLACES = (
    "*.md",
    "_config.yml",
    "pyproject.toml",
    "CITATION.cff",
    ".binder/*",
    ".github/**/*.yml",
    "chapters/**/*.md",
    "chapters/**/*.ipynb",
    "assignments/*.ipynb",
    "lib/**/*.py",
    "lib/**/*.js",
)
# Other projects that these files may link to.
FOREIGN = {"astral-sh/uv", "containers/bubblewrap"}

OWNER = r"(?P<owner>[A-Za-z0-9-]+)"
NAME = r"(?P<name>[A-Za-z0-9_-]+(?:\.(?!git\b)[A-Za-z0-9_-]+)*)"
HOSTS = r"github\.com|colab\.research\.google\.com/github|mybinder\.org/v2/gh"
FORMS = (
    re.compile(rf"(?P<before>(?:{HOSTS})/){OWNER}(?P<between>/){NAME}"),
    re.compile(rf"(?P<before>https://){OWNER}(?P<between>\.github\.io/){NAME}"),
)


def parse(url):
    """Return owner and name from an address, or raise ValueError."""
    match = re.fullmatch(rf"https://github\.com/{OWNER}/{NAME}", url.rstrip("/"))
    if not match:
        raise ValueError(f"URL is {url!r}; allowed: https://github.com/OWNER/NAME")
    return match["owner"], match["name"]


def files(root):
    """Return the files in which the address may stand."""
    found = {path for place in PLACES for path in root.glob(place)}
    return sorted(path for path in found if ".ipynb_checkpoints" not in path.parts)


def disagreements(root):
    """Return one line for each address that is neither `repository.url` nor another project's."""
    expected = parse(book.repository(root))
    found = []
    for path in files(root):
        text = path.read_text()
        for match in (match for form in FORMS for match in form.finditer(text)):
            if slug(match) not in {"/".join(expected), *FOREIGN}:
                line = text.count("\n", 0, match.start()) + 1
                found.append(f"{path.relative_to(root)}:{line}: {match[0]}")
    return found


def retarget(root, url):
    """Write `url` in every place; return the files that changed."""
    owner, name = parse(url)

    def replace(match):
        if slug(match) in FOREIGN:
            return match[0]
        return f"{match['before']}{owner}{match['between']}{name}"

    changed = []
    for path in files(root):
        old = text = path.read_text()
        for form in FORMS:
            text = form.sub(replace, text)
        if text != old:
            path.write_text(text)
            changed.append(path)
    return changed


def slug(match):
    """Return owner/name of an address that one of `FORMS` found."""
    return f"{match['owner']}/{match['name']}"


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: make retarget URL=https://github.com/OWNER/NAME")
    for file in retarget(book.ROOT, sys.argv[1]):
        print(f"changed {file.relative_to(book.ROOT)}")
