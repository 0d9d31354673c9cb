"""The package as a whole: what it imports, its version, its extras."""

import re
import subprocess
import sys
from importlib import metadata

import pytest

import batchscaling

WITHOUT_TORCH = [
    "batchscaling",
    "batchscaling.registry",
    "batchscaling.nqm",
    "batchscaling.noise",
    "batchscaling.curves",
    "batchscaling.spectrum",
    "batchscaling.figures",
    "batchscaling.widgets",
]


# Not `sys.modules["torch"] = None`: SciPy looks there for the Tensor of a torch that is imported.
NO_TORCH = """
import sys

class NoTorch:
    def find_spec(name, path=None, target=None):
        if name == "torch":
            raise ImportError(name)

sys.meta_path.insert(0, NoTorch)
"""


@pytest.mark.parametrize("module", WITHOUT_TORCH)
def test_import_without_torch(module):
    code = f"{NO_TORCH}\nimport {module}"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_results_are_printed_without_torch():
    code = f"{NO_TORCH}\nimport runpy\nsys.argv[1:] = ['results', '--task=digits-mlp']\n"
    code += "runpy.run_module('batchscaling', run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "digits-mlp  sgd " in done.stdout
    assert "torch" not in done.stderr


def test_nqm_imports_nothing_else_of_the_package():
    code = "import sys, batchscaling.nqm; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    parts = {name.split(".")[1] for name in done.stdout.split() if name.startswith("batchscaling.")}
    assert parts == {"nqm", "_validation", "_errors"}
    assert not {"torch", "matplotlib", "ipywidgets"} & set(done.stdout.split())


def test_version():
    assert metadata.version("batchscaling") == batchscaling.__version__
    assert re.fullmatch(r"\d+\.\d+\.\d+", batchscaling.__version__)


def test_extras():
    expected = {"train", "book", "test", "classroom", "cluster"}
    assert set(metadata.metadata("batchscaling").get_all("Provides-Extra")) == expected


def test_torch_is_in_one_extra_only():
    needs = [need for need in metadata.requires("batchscaling") if need.startswith("torch")]
    assert len(needs) == 1 and 'extra == "train"' in needs[0].replace("'", '"')
