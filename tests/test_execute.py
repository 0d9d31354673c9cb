"""Chapters are executed several at a time, and only when they changed."""

import time
from importlib.metadata import version
from types import SimpleNamespace

import nbformat
import pytest
from jupyter_cache import get_cache

from tools import book, execute, parallel

BOX = """\
```{{admonition}} What you will learn
:class: note chapter-box
Reading: about 1 minute · Running: about {} seconds · You need: nothing
```"""


@pytest.fixture
def cache(tmp_path):
    return get_cache(tmp_path / "cache")


@pytest.fixture
def write(tmp_path):
    """Return a function that stores a chapter of one code cell and returns its path."""

    def chapter(name, source, seconds=1):
        path = tmp_path / "nqm" / f"{name}.ipynb"
        path.parent.mkdir(exist_ok=True)
        cells = [
            nbformat.v4.new_markdown_cell(BOX.format(seconds)),
            nbformat.v4.new_code_cell(source),
        ]
        nbformat.write(nbformat.v4.new_notebook(metadata=book.METADATA, cells=cells), path)
        return path

    return chapter


# Waits until the other chapter has begun, too.
MEET = """\
import os, pathlib, time
pathlib.Path("{}").touch()
for _ in range(600):
    time.sleep(0.1)
    if pathlib.Path("{}").exists():
        break
else:
    raise TimeoutError
print("threads:", os.environ["OMP_NUM_THREADS"])"""


def test_chapters_run_at_the_same_time_with_one_thread_each(write, cache, capsys, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    paths = [write("01_a", MEET.format("a", "b")), write("02_b", MEET.format("b", "a"))]
    assert execute.execute(paths, cache, 2) == []
    for path in paths:
        _, notebook = cache.merge_match_into_notebook(nbformat.read(path, as_version=4))
        assert notebook.cells[1].outputs[0].text == "threads: 1\n"
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("  1 of 2: nqm/") and printed[1].startswith("  2 of 2: nqm/")


def test_only_a_chapter_whose_code_changed_is_stale(write, cache):
    paths = [write("01_a", "a = 1"), write("02_b", "b = 1")]
    assert execute.stale(paths, cache) == paths
    execute.execute(paths, cache, 2)
    assert execute.stale(paths, cache) == []
    write("01_a", "a = 1", seconds=2)
    assert execute.stale(paths, cache) == []
    write("02_b", "b = 2")
    assert execute.stale(paths, cache) == paths[1:]


def test_a_chapter_is_stale_when_what_it_uses_changed(write, cache, monkeypatch):
    paths = [write("01_a", "a = 1")]
    execute.execute(paths, cache, 1)
    assert execute.stale(paths, cache) == []
    monkeypatch.setattr(execute, "inputs", lambda: "others")
    assert execute.stale(paths, cache) == paths
    assert execute.execute(paths, cache, 1) == execute.stale(paths, cache) == []


def test_a_result_that_names_nothing_that_it_used_is_stale(write, cache):
    path = write("01_a", "a = 1")
    cache.cache_notebook_file(path, check_validity=False)  # as the site's builder would
    assert execute.stale([path], cache) == [path]


@pytest.mark.parametrize(
    "name", ["lib/a.py", "lib/deep/registry.json", "data/sweeps/cell.json", "tools/filled.py"]
)
def test_what_chapters_use_changes_with_a_file(tmp_path, name):
    file = tmp_path / name
    seen = [execute.inputs(tmp_path)]
    file.parent.mkdir(parents=True)
    for content in ("1", "2"):
        file.write_text(content)
        seen.append(execute.inputs(tmp_path))
    assert len({*seen}) == 3
    file.unlink()
    assert execute.inputs(tmp_path) == seen[0]


def test_what_chapters_use_changes_with_a_name_but_not_with_what_running_makes(tmp_path):
    file = tmp_path / "lib" / "a.py"
    file.parent.mkdir()
    file.touch()
    seen = execute.inputs(tmp_path)
    made = file.parent / "__pycache__" / "a.pyc"
    made.parent.mkdir()
    made.touch()
    assert execute.inputs(tmp_path) == seen
    file.rename(file.with_suffix(".js"))
    assert execute.inputs(tmp_path) != seen


def test_what_chapters_use_changes_with_a_version(monkeypatch):
    seen = {execute.inputs()}
    for number in ("1", "2"):
        numpy = SimpleNamespace(name="numpy", version=number)
        monkeypatch.setattr(execute, "distributions", lambda path, numpy=numpy: [numpy])
        seen.add(execute.inputs())
    assert len(seen) == 3


def test_what_chapters_use_does_not_change_with_what_a_process_imports(tmp_path, monkeypatch):
    seen = execute.inputs()
    folder = tmp_path / "more" / "something-1.0.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: something\nVersion: 1.0\n")
    monkeypatch.syspath_prepend(folder.parent)
    assert version("something") == "1.0"
    assert execute.inputs() == seen


def test_a_chapter_that_fails_is_shown_and_the_others_are_stored(write, cache, capsys):
    wrong = write("01_wrong", "def quotient():\n    return 1 / 0\n\nquotient()")
    dead = write("02_dead", "import os\nos._exit(1)")
    right = write("03_right", "1 + 1")
    paths = [wrong, dead, right]
    assert sorted(execute.execute(paths, cache, 1)) == ["nqm/01_wrong", "nqm/02_dead"]
    assert execute.stale(paths, cache) == [wrong, dead]
    printed = capsys.readouterr().out
    assert "nqm/01_wrong failed" in printed and "ZeroDivisionError" in printed
    assert "return" in printed and "quotient" in printed
    assert "nqm/02_dead failed: DeadKernelError" in printed


def test_the_build_stops_when_a_chapter_fails(write, cache, capsys, monkeypatch):
    paths = [write("01_wrong", "1 / 0", seconds=30), write("02_right", "1", seconds=20)]
    monkeypatch.setattr(execute, "CACHE", cache.path)
    monkeypatch.setattr(book, "chapters", lambda: paths)
    monkeypatch.setattr(parallel, "cores", lambda: 2)
    assert execute.main() == "failed: nqm/01_wrong"
    announced = "Executing 2 of 2 chapters, 2 at a time: about 30 seconds."
    assert capsys.readouterr().out.startswith(announced)
    write("01_wrong", "2", seconds=30)
    assert execute.main() == 0
    announced = "Executing 1 of 2 chapters, 1 at a time: about 30 seconds."
    assert capsys.readouterr().out.startswith(announced)
    assert execute.main() == 0
    assert capsys.readouterr().out == "No chapter has changed.\n"


def begin(path):
    return time.monotonic_ns()


def test_the_longest_chapter_starts_first(write):
    paths = [write(f"0{i}", "1", seconds) for i, seconds in enumerate([5, 60, 20, 10])]
    begun = {path: future.result() for path, future in parallel.finished(begin, paths, 1)}
    assert sorted(paths, key=begun.get) == [paths[1], paths[2], paths[3], paths[0]]
