"""The package as readers install it: each way of pip, and Colab's set-up cell."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import nbformat
import pytest

import batchscaling
from tools import address, book

pytestmark = pytest.mark.timeout(900)

PARTS = ["chapters", "data", "lib", "_config.yml", "LICENSE", "MANIFEST.in", "README.md"]
PARTS += ["pyproject.toml", "setup.py"]
DROPPED = shutil.ignore_patterns("__pycache__", "*.egg-info", ".*")


def run(*command, **settings):
    """Run a command and return what it prints; show all of it if it fails."""
    settings = {"timeout": 300, "stdout": subprocess.PIPE, "text": True, **settings}
    done = subprocess.run([*map(str, command)], stderr=subprocess.STDOUT, **settings)
    assert done.returncode == 0, done.stdout
    return done.stdout


def copy_book(folder):
    """Copy what the package and its chapters are made of, without git."""
    for name in PARTS:
        if (book.ROOT / name).is_dir():
            shutil.copytree(book.ROOT / name, folder / name, ignore=DROPPED)
        else:
            shutil.copy(book.ROOT / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def neighbours(tmp_path_factory):
    """Return a folder with links to all that is installed here, but this package."""
    folder = tmp_path_factory.mktemp("neighbours")
    for site in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
        for path in Path(site).iterdir():
            if "batchscaling" not in path.name:
                (folder / path.name).symlink_to(path)
    return folder


class Environment:
    """A fresh virtual environment that sees the neighbours, and user packages below it."""

    def __init__(self, folder, neighbours):
        venv.EnvBuilder(system_site_packages=True, symlinks=True).create(folder)
        self.folder, self.python = folder, folder / "bin" / "python"
        (self.site,) = folder.glob("lib/python*/site-packages")
        (self.site / "neighbours.pth").write_text(str(neighbours))
        self.variables = {k: v for k, v in os.environ.items() if not k.startswith("PIP_")}
        self.variables |= {
            "PYTHONPATH": str(folder / "target"),
            "PYTHONUSERBASE": str(folder / "user"),
        }

    def run(self, *arguments, **settings):
        return run(self.python, *arguments, env=self.variables, **settings)

    def install(self, *arguments):
        offline = "-q", "--no-index", "--no-deps", "--no-build-isolation"
        self.run("-m", "pip", "install", *offline, *arguments)


@pytest.fixture(scope="module")
def fresh(tmp_path_factory, neighbours):
    """Return a function that makes a fresh environment."""
    return lambda: Environment(tmp_path_factory.mktemp("fresh"), neighbours)


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A copy of the book without git, with a new kind of measured result."""
    folder = copy_book(tmp_path_factory.mktemp("book"))
    later = folder / "data" / "later" / "part" / "result.json"
    later.parent.mkdir(parents=True)
    later.write_text("{}")
    return folder


@pytest.fixture(scope="module")
def wheel(tree, tmp_path_factory):
    """The wheel that pip makes of the source distribution."""
    folder = tmp_path_factory.mktemp("wheel")
    make = f"from setuptools import build_meta; build_meta.build_sdist({str(folder)!r})"
    run(sys.executable, "-c", make, cwd=tree)
    options = "--no-index", "--no-deps", "--no-build-isolation", "-w", folder
    run(sys.executable, "-m", "pip", "wheel", *options, *folder.glob("*.tar.gz"))
    (made,) = folder.glob("*.whl")
    return made


def files(folder):
    """Return the paths in a folder, relative to it, but not what running made."""
    found = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc")
    return {path.relative_to(folder).as_posix() for path in found if "egg-info" not in str(path)}


def test_the_wheel_holds_all_files_of_the_package_and_all_results(tree, wheel):
    expected = files(tree / "lib") | {f"batchscaling/measured/{f}" for f in files(tree / "data")}
    assert "batchscaling/measured/later/part/result.json" in expected
    with zipfile.ZipFile(wheel) as archive:
        found = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert found == expected


# One chapter of every part, up to a line; what follows takes longer and reads nothing else.
CHAPTERS = {
    "nqm/01_sgd": "## Fast or low",
    "noise/03_best_batch_size": "## Does the noise scale rule the curves?",
    "networks/05_which_optimizer": "## Who is first?",
    "extrapolation/03_noisy_quadratic": "## The number of workers does not matter",
    "practice/03_small_batches": "First SGD, with three rules for the rate: "
    "linear, root, and the same rate everywhere.",
}
WAYS = {"plain": [], "user": ["--user"], "target": ["--target", "{folder}/target"]}
EXECUTE = """
import sys, nbformat
from tools.refresh import execute
folder, path = sys.argv[1:]
execute(nbformat.read(path, as_version=4), folder)
"""


def shortened(folder):
    """Return one notebook of all these chapters, that says whose package it ran with."""
    check = f"import batchscaling\nassert batchscaling.__file__.startswith({str(folder)!r})"
    cells = []
    for name, end in CHAPTERS.items():
        found = nbformat.read(book.ROOT / "chapters" / f"{name}.ipynb", as_version=4)
        lines = [cell.source.splitlines() for cell in found.cells]
        cells += found.cells[: next(i for i, each in enumerate(lines) if end in each)]
    found.cells = [*cells, nbformat.v4.new_code_cell(check)]
    for number, cell in enumerate(found.cells):
        cell.id = f"cell-{number}"
    path = folder / "chapters.ipynb"
    nbformat.write(found, path)
    return path


def test_every_part_of_the_book_has_a_chapter_here():
    assert {name.split("/")[0] for name in CHAPTERS} == {
        Path(name).parent.name for name in book.chapters()
    }


@pytest.mark.parametrize("way", WAYS)
def test_a_chapter_of_every_part_runs(way, wheel, fresh):
    environment = fresh()
    options = [word.format(folder=environment.folder) for word in WAYS[way]]
    environment.install(*options, wheel)
    path = shortened(environment.folder)
    environment.run("-c", EXECUTE, environment.folder, path, cwd=book.ROOT)


def test_an_editable_install_reads_the_results_of_its_tree(tree, fresh):
    environment = fresh()
    environment.install("--editable", tree)
    where = "from batchscaling.curves import measured; print(measured())"
    assert environment.run("-c", where).strip() == str(tree / "data" / "sweeps")


# Colab's set-up cell, as a chapter has it. Git finds the published repository on this machine.

COLAB = """
import subprocess, sys, types
from IPython.core.interactiveshell import InteractiveShell

def system(command):
    offline = " --no-index --no-build-isolation --disable-pip-version-check"
    subprocess.run(command + offline, shell=True, check=True)

sys.modules["google.colab"] = types.ModuleType("google.colab")
shell = InteractiveShell.instance()
shell.system = system
shell.run_cell(sys.argv[1]).raise_error()
"""
FORK = "https://github.com/some-one/some.book"


def git(folder, *arguments):
    who = "-c", "user.name=nobody", "-c", "user.email=nobody@example.org"
    return run("git", "-C", folder, *who, *arguments).strip()


@pytest.fixture
def published(tmp_path):
    """A published repository without tags."""
    folder = copy_book(tmp_path)
    git(folder, "init", "-q")
    commit(folder)
    return folder


def commit(folder):
    """Commit all that `folder` holds."""
    git(folder, "add", ".")
    git(folder, "commit", "-q", "--allow-empty", "--message", "a commit")


def set_up(published, environment):
    """Run the set-up cell of a published chapter as in Colab; return the one line it prints.

    As Colab may, the environment lists a numpy older than this package asks for.
    """
    older = environment.site / "numpy-1.0.dist-info" / "METADATA"
    older.parent.mkdir()
    older.write_text("Metadata-Version: 2.1\nName: numpy\nVersion: 1.0\n")
    chapter = nbformat.read(published / "chapters" / "nqm" / "01_sgd.ipynb", as_version=4)
    environment.variables |= {
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.{published.as_uri()}.insteadOf",
        "GIT_CONFIG_VALUE_0": book.repository(published),
    }
    lines = environment.run("-c", COLAB, chapter.cells[1].source).splitlines()
    (line,) = [line for line in lines if not line.startswith("Note: you may need to restart")]
    return line


def head(folder):
    return git(folder, "rev-parse", "HEAD")[:12]


def test_the_set_up_cell_before_a_release(published, fresh):
    git(published, "tag", "v0.0.1")
    line = set_up(published, fresh())
    assert line == (
        f"Installed batchscaling from {book.repository()}, "
        f"default branch (no tag v{batchscaling.__version__}), commit {head(published)}"
    )


def test_the_set_up_cell_takes_the_release_of_its_chapter(published, fresh):
    tag, released = f"v{batchscaling.__version__}", head(published)
    git(published, "tag", "--annotate", tag, "--message", "a release")
    git(published, "tag", f"{tag}.1")
    commit(published)
    line = set_up(published, fresh())
    expected = f"Installed batchscaling from {book.repository()}, tag {tag}, commit {released}"
    assert line == expected


def test_the_set_up_cell_of_a_fork(published, fresh):
    address.retarget(published, FORK)
    commit(published)
    line = set_up(published, fresh())
    assert line.startswith(f"Installed batchscaling from {FORK}, default branch")
    assert line.endswith(f"commit {head(published)}")
