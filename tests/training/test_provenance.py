"""What a file of results says of the code that made it."""

import re
import subprocess

import pytest

from batchscaling.training import provenance as module


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A checkout with code and data, whose package asks for its commit."""
    code, data = tmp_path / "lib" / "provenance.py", tmp_path / "data" / "found.json"
    for file in (code, data):
        file.parent.mkdir()
        file.write_text("1")
    who = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=main"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "all"]):
        subprocess.run(["git", "-C", str(tmp_path), *who, *words], check=True)
    monkeypatch.setattr(module, "__file__", str(code))
    return code, data


def commit():
    return module.provenance("make it", "cpu", 1.0)["commit"]


def test_changes_of_code_are_told_and_those_of_data_are_not(checkout):
    code, data = checkout
    before = commit()
    assert re.fullmatch(r"[0-9a-f]{12}", before)
    data.write_text("2")
    data.with_name("more.json").write_text("3")
    assert commit() == before
    code.write_text("2")
    assert commit() == f"{before}-dirty"


def test_a_package_outside_of_a_checkout_does_not_know_its_commit(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "__file__", str(tmp_path / "provenance.py"))
    assert commit() == "unknown"
