"""One entry a method: figures, the command line and sweeps know it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tiny

import batchscaling
from batchscaling.__main__ import main
from batchscaling.curves import load_results
from batchscaling.figures.networks.curves import sweep_curves
from batchscaling.figures.style import LOOKS
from batchscaling.registry import METHODS
from batchscaling.training import OPTIMIZERS, TASKS, Range, Task

ROOT = Path(__file__).parents[2]
FILE = """
from batchscaling._validation import positive
from batchscaling.training.optimizers.base import Optimizer, no_state


def _update(grads, state, params, hyper):
    size = hyper["lr"] * hyper["strength"]
    return {name: -size * g.sign() for name, g in grads.items()}, state


signed = Optimizer(no_state, _update, {"lr": positive, "strength": positive})
"""
ENTRY = """METHODS = {
    "signed": Method(
        "signed.signed",
        "sign of SGD",
        {"color": "#123456", "linestyle": "-", "marker": "x"},
        family="adam",
        space={"strength": Range(0.5, 2)},
    ),
"""
RUN = """
import sys
import tiny
from batchscaling.__main__ import main
from batchscaling.curves import load_results
from batchscaling.figures.networks.curves import sweep_curves
from batchscaling.training import TASKS

TASKS["tiny"] = tiny.TINY
few = ["--trials=4", "--finalists=2", "--final-seeds=2", "--fresh=3", "--out=sweep"]
main(["sweep", "--task=tiny", "--optimizer", "signed", "--batch-size", "32", "96", *few])
main(["results", "sweep", "--plot", "sweep.png"])
(axes,) = sweep_curves(load_results("sweep")).axes
print([text.get_text() for text in axes.get_legend().get_texts()])
"""


@pytest.mark.parametrize("name", METHODS)
def test_an_entry_is_complete(name):
    method = METHODS[name]
    assert OPTIMIZERS[name].hyper.keys() == method.build().hyper.keys()
    assert set(method.look) == {"color", "linestyle", "marker"}
    assert all(method.family in task.rates for task in TASKS.values())
    assert not set(method.space) & set(method.fixed)


def test_looks_and_labels_differ():
    assert len({method.label for method in METHODS.values()}) == len(METHODS)
    for part in ("color", "marker"):
        assert len({method.look[part] for method in METHODS.values()}) == len(METHODS)
    assert all(LOOKS[name] == method.look for name, method in METHODS.items())


def test_a_method_is_one_file_and_one_entry(tmp_path):
    """In a copy of the library."""
    library = Path(batchscaling.__file__).parent
    unused = shutil.ignore_patterns("__pycache__", "measured")
    copy = shutil.copytree(library, tmp_path / "batchscaling", ignore=unused)
    (copy / "training" / "optimizers" / "signed.py").write_text(FILE)
    registry = (copy / "registry.py").read_text("utf-8")
    (copy / "registry.py").write_text(registry.replace("METHODS = {\n", ENTRY), "utf-8")
    places = os.pathsep.join([str(tmp_path), str(Path(__file__).parent)])
    done = subprocess.run(
        [sys.executable, "-c", RUN],
        env={**os.environ, "PYTHONPATH": places},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "strength" in done.stdout
    assert done.stdout.splitlines()[-1] == "['sign of SGD']"
    assert (tmp_path / "sweep.png").stat().st_size > 0
    assert len(load_results(tmp_path / "sweep")) == 2


@pytest.mark.parametrize("name", METHODS)
def test_the_api_page_shows_each_method(name):
    page = (ROOT / "chapters" / "appendix" / "api.md").read_text("utf-8")
    assert f"autodata:: batchscaling.training.optimizers.{METHODS[name].optimizer}\n" in page


def test_the_command_line_names_the_methods(capsys):
    with pytest.raises(SystemExit):
        main(["sweep", "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert all(name in shown for name in METHODS)


def test_results_of_the_book_are_drawn_with_their_labels():
    cells = load_results(task="digits-mlp")
    (axes,) = sweep_curves(cells).axes
    shown = [text.get_text() for text in axes.get_legend().get_texts()]
    measured = {cell.optimizer for cell in cells}
    assert shown == [method.label for name, method in METHODS.items() if name in measured]
    assert len(shown) >= 5


def test_a_family_without_rates_is_told():
    task = Task(
        load=tiny.load,
        model=tiny.TINY.model,
        targets={"validation": 0.5},
        rates={"sgd": Range(0.1, 1)},
        examples=1,
        steps=1,
    )
    assert task.space("sgd") == {"lr": Range(0.1, 1)}
    with pytest.raises(ValueError, match=r"^optimizer is 'adam'; allowed: one of the families"):
        task.space("adam")
