import gzip
import hashlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from batchscaling.training.data import DataError, describe, fetch, fetch_all, registry

BODY = b"To be, or not to be" * 5000
NAME = "toy/text.txt"


def sha256(data):
    return hashlib.sha256(data).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """Answers each request as the next item of the server's script says; then always well."""

    def do_GET(self):
        answer = self.server.script.pop(0) if self.server.script else "whole"
        self.server.hits += 1
        self.send_response(answer if isinstance(answer, int) else 200)
        self.send_header("Content-Length", str(len(BODY)))
        self.end_headers()
        self.wfile.write(BODY if answer in ("whole", "wrong") else BODY[: len(BODY) // 2])
        if answer == "stall":
            self.server.half_sent.set()
            self.server.go_on.wait(30)

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.script, server.hits = [], 0
        server.half_sent, server.go_on = threading.Event(), threading.Event()
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.go_on.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """Return the cache's folder for the toy data set; nothing waits between attempts."""
    monkeypatch.setattr("pooch.os_cache", lambda project: tmp_path / "cache")
    monkeypatch.setattr("pooch.core.time.sleep", lambda seconds: None)
    monkeypatch.delenv("BATCHSCALING_DATA", raising=False)
    return tmp_path / "cache" / "toy"


@pytest.fixture
def toy(server, cache, monkeypatch):
    """Return the registry's entry of the one file of a toy data set."""
    entry = {
        "url": f"http://127.0.0.1:{server.server_port}/text.txt",
        "bytes": len(BODY),
        "sha256": sha256(BODY),
    }
    monkeypatch.setitem(registry.REGISTRY, "toy", {"licence": "CC0", "files": {NAME: entry}})
    return entry


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Return the user's folder, named by the environment variable."""
    (tmp_path / "mine" / "toy").mkdir(parents=True)
    monkeypatch.setenv("BATCHSCALING_DATA", str(tmp_path / "mine"))
    return tmp_path / "mine"


def row():
    return next(row for row in describe() if row.name == "toy")


def test_a_file_is_downloaded_once(toy, server, cache, capsys):
    assert not row().present
    path = fetch(NAME)
    assert path == cache / "text.txt"
    assert path.read_bytes() == BODY
    assert "100%" in capsys.readouterr().err
    assert fetch(NAME) == path
    assert server.hits == 1
    assert row().present


def test_the_progress_bar_can_be_silent(toy, cache, capsys):
    fetch(NAME, progress=False)
    assert "%" not in capsys.readouterr().err


@pytest.mark.parametrize("script", [[503], [500, 429], ["half"], ["half", 503]])
def test_a_failed_download_is_tried_again(toy, server, cache, script):
    server.script = list(script)
    assert fetch(NAME).read_bytes() == BODY
    assert server.hits == 1 + len(script)
    assert [path.name for path in cache.iterdir()] == ["text.txt"]


@pytest.mark.parametrize(
    ("script", "reason"), [([404] * 3, "404"), (["half"] * 3, "IncompleteRead"), ([], "hash")]
)
def test_a_lost_download_says_what_to_do_and_leaves_nothing(toy, server, cache, script, reason):
    server.script = list(script)
    if not script:
        toy["sha256"] = "0" * 64
    with pytest.raises(DataError) as error:
        fetch(NAME)
    for part in (NAME, toy["url"], toy["sha256"], reason, "Check the network", "BATCHSCALING_DATA"):
        assert part in str(error.value)
    assert server.hits == 3
    assert list(cache.iterdir()) == []


def test_without_network(toy, cache):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        toy["url"] = f"http://127.0.0.1:{closed.getsockname()[1]}/text.txt"
        with pytest.raises(DataError, match="refused"):
            fetch(NAME)
    assert list(cache.iterdir()) == []


def test_a_cache_that_cannot_be_written(toy, cache):
    cache.parent.write_text("a file where the folder should be")
    with pytest.raises(DataError, match=re.escape(NAME)):
        fetch(NAME)


def test_a_killed_download_leaves_no_half_file(toy, server, cache):
    server.script = ["stall"]
    code = f"""
import pathlib, pooch
from batchscaling.training.data import fetch, registry
pooch.os_cache = lambda project: pathlib.Path({str(cache.parent)!r})
registry.REGISTRY["toy"] = {registry.REGISTRY["toy"]!r}
fetch({NAME!r})
"""
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    assert server.half_sent.wait(60)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (cache / "text.txt").exists()
    assert not row().present

    # The temporary file of the killed process goes once it is surely abandoned.
    for path in cache.iterdir():
        os.utime(path, (0, time.time() - registry.ABANDONED - 1))
    (cache / "tmp_of_another_process").touch()
    assert fetch(NAME).read_bytes() == BODY
    assert {path.name for path in cache.iterdir()} == {"text.txt", "tmp_of_another_process"}


def test_a_damaged_file_in_the_cache_is_replaced(toy, server, cache):
    fetch(NAME).write_bytes(BODY[:-1])
    assert fetch(NAME).read_bytes() == BODY
    assert server.hits == 2


@pytest.mark.parametrize("end", ["", ".gz"])
def test_the_users_folder_comes_first(toy, server, folder, end):
    mine = folder / (NAME + end)
    mine.write_bytes(gzip.compress(BODY) if end else BODY)
    assert fetch(NAME) == mine
    assert registry.read(mine) == BODY
    assert row().present
    assert server.hits == 0


def test_a_file_that_the_users_folder_lacks_goes_to_the_cache(toy, folder, cache):
    assert fetch(NAME) == cache / "text.txt"
    assert list((folder / "toy").iterdir()) == []


@pytest.mark.parametrize("end", ["", ".gz"])
@pytest.mark.parametrize("damage", [lambda data: data[:-9], lambda data: data[:12] + b"?" * 40])
def test_a_damaged_file_in_the_users_folder_is_told_and_kept(toy, server, folder, end, damage):
    mine = folder / (NAME + end)
    data = damage(gzip.compress(BODY) if end else BODY)
    mine.write_bytes(data)
    with pytest.raises(DataError, match=re.escape(str(mine))) as error:
        fetch(NAME)
    if not end:
        assert toy["sha256"] in str(error.value) and sha256(data) in str(error.value)
    assert mine.read_bytes() == data
    assert server.hits == 0


def test_a_folder_that_does_not_exist_is_an_error(toy, tmp_path, monkeypatch):
    monkeypatch.setenv("BATCHSCALING_DATA", str(tmp_path / "nowhere"))
    for call in (lambda: fetch(NAME), describe):
        with pytest.raises(DataError, match="nowhere"):
            call()


def test_a_tilde_in_the_folder_is_the_home_folder(toy, folder, monkeypatch):
    (folder / NAME).write_bytes(BODY)
    monkeypatch.setenv("HOME", str(folder.parent))
    monkeypatch.setenv("BATCHSCALING_DATA", f"~/{folder.name}")
    assert fetch(NAME) == folder / NAME


def test_attempts_are_counted(toy, server, cache):
    server.script = [404] * 3
    with pytest.raises(DataError, match=r"in 3 attempts\.\n[^$]*Check the network"):
        fetch(NAME)


def test_no_attempt_is_claimed_where_none_was_made(toy, server, cache):
    cache.parent.write_text("in the way of the cache's folder")
    with pytest.raises(DataError, match=r"without an attempt\.\n[^$]*Check the folder"):
        fetch(NAME)
    assert server.hits == 0


def test_an_attempt_that_cannot_be_repeated_is_one(toy, cache, monkeypatch):
    def full(*arguments):
        raise OSError("the disk is full")

    monkeypatch.setattr("pooch.core.shutil.move", full)
    with pytest.raises(DataError, match=r"in 1 attempt\.\n"):
        fetch(NAME)


def test_a_file_without_an_address(toy, cache):
    toy["url"] = None
    with pytest.raises(DataError, match=f"{NAME} has no public address"):
        fetch(NAME)


def test_fetch_all(toy, server, cache, monkeypatch):
    assert fetch_all(["digits", "toy"]) == {"digits": [], "toy": [cache / "text.txt"]}
    alone = {"toy": registry.REGISTRY["toy"], "subset": registry.REGISTRY["cifar10_subset"]}
    monkeypatch.setattr(registry, "REGISTRY", alone)
    assert fetch_all() == {"toy": [cache / "text.txt"]}
    with pytest.raises(ValueError, match="name is 'words'; allowed: one of 'toy'"):
        fetch_all(["words"])
    with pytest.raises(ValueError, match="name is 'toy'; allowed: one of 'toy/text"):
        fetch("toy")


def test_every_data_set_is_described(cache):
    rows = {row.name: row for row in describe()}
    assert rows["digits"].present and rows["digits"].files == ()
    assert rows["cifar10"].megabytes == pytest.approx(170, abs=0.1)
    assert len(rows["multi30k"].files) == 6
    assert not rows["mnist"].present
    for entry in registry.REGISTRY.values():
        assert entry["licence"]
        for file in entry["files"].values():
            assert re.fullmatch("[0-9a-f]{64}", file["sha256"])
            assert file["url"] is None or re.match("https?://", file["url"])
