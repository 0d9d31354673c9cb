"""Every mention of the repository's address follows `repository.url` in _config.yml."""

import shutil

import pytest

from tools import address, book

OTHER = "https://github.com/some-one/some.book"
MUST_NAME_IT = ["README.md", "CITATION.cff", "_config.yml", "pyproject.toml"]
MUST_NAME_IT += [str(path.relative_to(book.ROOT)) for path in book.chapters()]


@pytest.fixture
def copy(tmp_path):
    """A copy of all files in which the address may stand."""
    for path in address.files(book.ROOT):
        target = tmp_path / path.relative_to(book.ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    return tmp_path


def contents(root):
    return {path: path.read_text() for path in address.files(root)}


def test_all_places_agree():
    assert address.disagreements(book.ROOT) == []


@pytest.mark.parametrize("name", MUST_NAME_IT)
def test_one_changed_place_is_found(copy, name):
    path = copy / name
    old = "{}.github.io/{}" if name == "_config.yml" else "github.com/{}/{}"
    old = old.format(*address.parse(book.repository(copy)))
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, old.replace("batchscaling", "changed"), 1))
    assert [line.split(":")[0] for line in address.disagreements(copy)] == [name]


def test_a_changed_canonical_address_is_found(copy):
    config = copy / "_config.yml"
    config.write_text(config.read_text().replace(f"url: {book.repository(copy)}", f"url: {OTHER}"))
    assert len(address.disagreements(copy)) >= len(MUST_NAME_IT)


def test_retarget_changes_every_place_and_back(copy):
    before, home = contents(copy), book.repository(copy)
    address.retarget(copy, OTHER)
    assert book.repository(copy) == OTHER
    assert address.disagreements(copy) == []
    assert not any("/".join(address.parse(home)) in text for text in contents(copy).values())
    assert address.retarget(copy, OTHER) == []
    address.retarget(copy, home)
    assert contents(copy) == before


def test_retarget_repairs_a_disagreement(copy):
    home, before = book.repository(copy), contents(copy)
    readme = copy / "README.md"
    readme.write_text(readme.read_text().replace(home, OTHER, 1))
    assert address.retarget(copy, home) == [readme]
    assert contents(copy) == before


def test_other_projects_stay(tmp_path):
    text = f"url: x\nsee https://github.com/{sorted(address.FOREIGN)[0]} and git@github.com\n"
    (tmp_path / "README.md").write_text(text)
    assert address.retarget(tmp_path, OTHER) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("git+https://github.com/a/b@v1", "git+https://github.com/some-one/some.book@v1"),
        ("https://github.com/a/b.git", "https://github.com/some-one/some.book.git"),
        ("(https://github.com/a/b).", "(https://github.com/some-one/some.book)."),
        ("At https://github.com/a/b.", "At https://github.com/some-one/some.book."),
        (
            "https://mybinder.org/v2/gh/a/b/main",
            "https://mybinder.org/v2/gh/some-one/some.book/main",
        ),
        (
            "https://colab.research.google.com/github/a/b/blob/main/c.ipynb",
            "https://colab.research.google.com/github/some-one/some.book/blob/main/c.ipynb",
        ),
        ("https://a.github.io/b/x.html", "https://some-one.github.io/some.book/x.html"),
    ],
)
def test_forms_of_the_address(tmp_path, text, expected):
    (tmp_path / "README.md").write_text(text)
    address.retarget(tmp_path, OTHER)
    assert (tmp_path / "README.md").read_text() == expected


@pytest.mark.parametrize(
    "url", ["", "github.com/a/b", "https://gitlab.com/a/b", "https://github.com/a"]
)
def test_bad_address_is_refused(copy, url):
    before = contents(copy)
    with pytest.raises(ValueError, match="allowed: https:"):
        address.retarget(copy, url)
    assert contents(copy) == before
