"""The command line: ``batchscaling data``, ``sweep``, ``train-distributed`` and ``results``."""

import json
import subprocess
import sys
from pathlib import Path

import matplotlib.image
import matplotlib.pyplot as plt
import pytest

from batchscaling.__main__ import main
from batchscaling._errors import Failure, InputError
from batchscaling.curves import measured
from batchscaling.training.data import DataError

JOB = ["train-distributed", "--task=digits-mlp", "--batch-size=8", "--steps=2", "--out=a.json"]
SGD = ["--optimizer", "sgd", "--hyper", "lr=0.1"]
SWEEP = ["sweep", "--task=digits-mlp", "--optimizer", "heavy_ball", "--batch-size", "256"]
QUICK = ["--trials=2", "--seeds=1", "--finalists=1", "--final-seeds=1", "--fresh=1"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a folder that does not exist yet."""
    return tmp_path_factory.mktemp("command") / "new" / "sweeps"


def status(*arguments):
    with pytest.raises(SystemExit) as ended:
        main([*map(str, arguments)])
    return ended.value.code


def assert_one_line(capsys, *parts):
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("batchscaling: ")
    assert captured.err.count("\n") == 1
    for part in parts:
        assert part in captured.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["data", "sweep", "train-distributed", "results"]),
        (["train-distributed"], ["--hyper NAME=NUMBER", "--exchange", "--checkpoint-every"]),
        (["data"], ["data sets to download"]),
        (["sweep"], ["--batch-size", "--ray", "--workers", "settings for each cell (64)"]),
        (["results"], ["--plot FILE", "--measure"]),
    ],
)
def test_help(capsys, arguments, words):
    assert status(*arguments, "--help") == 0
    out = capsys.readouterr().out
    for word in words:
        assert word in out


def test_sweep_makes_files_and_results_shows_them(folder, tmp_path, capsys):
    main([*SWEEP, "512", *QUICK, f"--out={folder}"])
    captured = capsys.readouterr()
    assert captured.out.splitlines()[-1] == f"2 cells are in {folder}"
    names = [f"digits-mlp-heavy_ball-00{size}.json" for size in (256, 512)]
    assert sorted(path.name for path in folder.iterdir()) == names
    made = json.loads((folder / names[0]).read_text("utf-8"))
    asked = {"trials": 2, "seeds": 1, "finalists": 1, "final_seeds": 1, "fresh": 1}
    assert made["cell"].items() >= {**asked, "search_seed": 0}.items()

    written = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    main([*SWEEP, *QUICK, f"--out={folder}"])
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == written
    capsys.readouterr()

    plot = tmp_path / "curves.png"
    main(["results", str(folder), "--measure=training", f"--plot={plot}"])
    title, *lines = capsys.readouterr().out.splitlines()
    assert title == "steps to the training target: median [95 % interval]"
    assert [line.split()[:3] for line in lines] == [
        ["digits-mlp", "heavy_ball", "256"],
        ["digits-mlp", "heavy_ball", "512"],
    ]
    picture = matplotlib.image.imread(plot)
    assert min(picture.shape[:2]) > 200
    assert picture.std() > 0.01
    plt.close("all")


def test_results_of_the_book(capsys, tmp_path):
    main(["results", "--task=fashion-cnn-small", f"--plot={tmp_path / 'book.svg'}"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + 21
    assert (tmp_path / "book.svg").read_text("utf-8").rstrip().endswith("</svg>")
    plt.close("all")


def test_a_measure_that_one_task_lacks_is_shown_for_the_others(capsys, tmp_path):
    main(["results", "--measure=averaged"])
    captured = capsys.readouterr()
    tasks = {line.split()[0] for line in captured.out.splitlines()[1:]}
    assert tasks == {"digits-mlp", "no"}
    last = captured.out.splitlines()[-1]
    assert last.startswith("no averaged target: fashion-cnn-small, ") and "mnist-softmax" in last
    main(["results", "--measure=averaged", f"--plot={tmp_path / 'curves.png'}"])
    assert (tmp_path / "curves.png").stat().st_size > 0
    plt.close("all")


def test_what_was_left_out_is_told_beside_the_results(tmp_path, capsys):
    shown = measured() / "digits-mlp-sgd-00064.json"
    (tmp_path / shown.name).write_bytes(shown.read_bytes())
    (tmp_path / f"._{shown.name}").write_bytes(b"\x00\x05")
    main(["results", str(tmp_path)])
    captured = capsys.readouterr()
    assert len(captured.out.splitlines()) == 2
    told = f"left out of the results in {str(tmp_path)!r}: '._{shown.name}'"
    assert captured.err == f"batchscaling: {told}\n"


@pytest.mark.parametrize(
    ("arguments", "unbuffered"),
    [(["results"], ""), (["results"], "1"), (["data"], ""), (["sweep", "--help"], "")],
)
def test_a_reader_that_has_seen_enough_ends_it_quietly(monkeypatch, arguments, unbuffered):
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)  # set, each line is written at once
    command = [sys.executable, "-m", "batchscaling", *arguments]
    closed = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **closed) as process:
        process.stdout.close()  # before the first line is written
        assert process.stderr.read() == ""
        assert process.wait(timeout=120) == 141


def test_a_command_runs_without_a_place_to_print_to(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    main(["data"])


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InputError("lr is -1; allowed: more"), 2),
        (Failure("a process has died"), 1),
        (DataError("the file is damaged"), 1),
        (OSError("the disk is full"), 1),
    ],
)
def test_own_errors_are_a_line_and_say_by_their_status_whose_fault_it_is(
    capsys, monkeypatch, error, code
):
    def fail(*arguments):
        raise error

    monkeypatch.setattr("batchscaling.curves.results.load_results", fail)
    assert status("results") == code
    assert_one_line(capsys, str(error))


@pytest.mark.parametrize("kind", [ValueError, RuntimeError, KeyError, RecursionError])
def test_a_fault_of_the_program_is_shown_as_one(monkeypatch, kind):
    def fail(*arguments):
        raise kind("operands could not be broadcast")

    monkeypatch.setattr("batchscaling.curves.results.load_results", fail)
    with pytest.raises(kind, match="broadcast"):
        main(["results"])


def test_a_picture_that_cannot_be_drawn_is_told(capsys, tmp_path):
    assert status("results", "--task=fashion-cnn-small", f"--plot={tmp_path / 'a.doc'}") == 2
    assert "'doc'; allowed: one of" in capsys.readouterr().err
    assert status("results", "--task=fashion-cnn-small", f"--plot={tmp_path / 'no' / 'a.png'}") == 1
    assert "No such file or directory" in capsys.readouterr().err
    plt.close("all")


def test_a_tilde_is_the_home_folder(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert status("results", "~/nowhere") == 2
    assert_one_line(capsys, f"folder is {str(tmp_path / 'nowhere')!r}")


def test_data_lists_what_can_be_had(capsys, monkeypatch):
    main(["data"])
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    rows = {name: (float(size), unit) for name, size, unit, *_ in lines}
    assert {"mnist", "fashion_mnist", "cifar10", "tiny_shakespeare", "wikitext2"} <= set(rows)
    assert all(size >= 0 and unit == "MB" for size, unit in rows.values())

    fetched = []
    monkeypatch.setattr("batchscaling.training.data.fetch_all", fetched.append)
    main(["data", "mnist", "wikitext2"])
    main(["data", "all"])
    assert list(map(list, fetched)) == [["mnist", "wikitext2"], []]


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ([*SWEEP, *QUICK, "--task=chess"], ["task is 'chess'", "allowed: ", "'digits-mlp'"]),
        ([*SWEEP, *QUICK, "--optimizer", "lion"], ["optimizer is 'lion'", "'heavy_ball'"]),
        ([*SWEEP, *QUICK, "--batch-size", "0"], ["batch_size is 0", "allowed: "]),
        ([*SWEEP, *QUICK, "--trials=0"], ["trials is 0"]),
        ([*SWEEP, *QUICK, "--search-seed=-1"], ["search_seed is -1"]),
        ([*SWEEP, *QUICK, "--seeds=1001"], ["seeds is 1001", "[1, 1000]"]),
        ([*SWEEP, *QUICK, "--final-seeds=1001"], ["final_seeds is 1001", "[1, 1000]"]),
        ([*SWEEP, *QUICK, "--workers=0"], ["workers is 0"]),
        (["results", "nowhere"], ["folder is 'nowhere'"]),
        (["results", "--task=chess"], ["folder is ", "results of chess"]),
        (["results", "--measure=speed"], ["measure is 'speed'", "allowed: "]),
        ([*JOB, *SGD], ["process is ", "RANK", "allowed: one that torchrun starts"]),
        ([*JOB, *SGD, "--device=tpu"], ["device is 'tpu'", "'cuda'"]),
        ([*JOB, *SGD, "--timeout=0"], ["timeout is 0", "allowed: "]),
        ([*JOB, *SGD, "--task=chess"], ["task is 'chess'", "'digits-mlp'"]),
        ([*JOB, *SGD, "--optimizer", "lion"], ["optimizer is 'lion'", "'extrap_sgd'"]),
        ([*JOB, *SGD, "--exchange=gossip"], ["exchange is 'gossip'", "'outer_steps'"]),
        ([*JOB, *SGD, "--steps=0"], ["steps is 0", "allowed: "]),
        ([*JOB, *SGD, "--seeds=-1"], ["seeds is -1", "allowed: "]),
        ([*JOB, *SGD, "--after=3"], ["after is 3", "allowed: nothing, for synchronous"]),
        ([*JOB, *SGD, "--exchange=local_steps"], ["every is None", "for local_steps"]),
        ([*JOB, *SGD, "--hyper", "lr=nan"], ["lr is nan", "a finite number in (0, inf)"]),
        (
            [*JOB, "--optimizer", "heavy_ball", "--hyper", "lr=0.1", "momentum=1"],
            ["momentum is 1.0", "in [0, 1)"],
        ),
        (
            [*JOB, *SGD, "--exchange=outer_steps", "--every=2", "--hyper", "lr=1", "outer_lr=-1"],
            ["outer_lr is -1.0", "in (0, inf)"],
        ),
        ([*JOB, *SGD, "--hyper", "lr=0.1", "lr=0.2"], ["lr is [0.1, 0.2]", "allowed: one number"]),
        (
            [*JOB, "--optimizer", "weight_decay", "--hyper", "weight_decay=0.1"],
            ["optimizer is \"a part, with ['weight_decay']\"", 'a complete optimizer, with "lr"'],
        ),
        (
            [*JOB, "--optimizer", "sgd", "weight_decay", "--hyper", "lr=1", "weight_decay=0.1"],
            ["optimizers[1] is ", "allowed: one before it, or decoupled_weight_decay"],
        ),
        ([*JOB, *SGD, "--timeout=1e30"], ["timeout is 1e+30", "in (0, 1e+09]"]),
        (["data", "imagenet"], ["imagenet", "allowed: ", "'mnist'"]),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else None,
)
def test_errors_are_one_line(capsys, tmp_path, monkeypatch, arguments, parts):
    monkeypatch.chdir(tmp_path)
    assert status(*arguments) == 2
    assert_one_line(capsys, *parts)
    assert list(tmp_path.iterdir()) == []


def test_files_in_the_way_are_told(capsys, tmp_path, folder):
    (tmp_path / "file").touch()
    assert status(*SWEEP, *QUICK, f"--out={tmp_path / 'file'}") == 2
    assert_one_line(capsys, "File exists")
    (tmp_path / "digits-mlp-heavy_ball-00256.json").write_text('{"cell": {"trials": 64}}')
    assert status(*SWEEP, *QUICK, f"--out={tmp_path}") == 2
    assert_one_line(capsys, "digits-mlp-heavy_ball-00256.json of another search")
    assert status("results", tmp_path) == 2
    assert_one_line(capsys, "digits-mlp-heavy_ball-00256.json")


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ([], "COMMAND"),
        (["train"], "invalid choice: 'train'"),
        (["sweep"], "--task, --optimizer, --batch-size"),
        ([*SWEEP, "many"], "invalid int value: 'many'"),
        ([*JOB, *SGD, "--hyper", "lr"], "'lr' is not such as lr=0.1"),
    ],
)
def test_wrong_usage_is_told(capsys, arguments, part):
    assert status(*arguments) == 2
    usage, *_, error = capsys.readouterr().err.splitlines()
    assert usage.startswith("usage: batchscaling")
    assert part in error


@pytest.mark.parametrize(("name", "extra"), [("torch", "train"), ("ray", "cluster")])
def test_a_missing_package_comes_with_the_command_that_installs_it(
    capsys, monkeypatch, tmp_path, name, extra
):
    monkeypatch.setitem(sys.modules, name, None)
    if name == "torch":
        for module in [key for key in sys.modules if key.startswith("batchscaling.training")]:
            monkeypatch.delitem(sys.modules, module)
    assert status(*SWEEP, *QUICK, "--ray=auto", f"--out={tmp_path}") == 2
    error = capsys.readouterr().err.splitlines()[-1]  # a progress bar may come before
    assert error.startswith("batchscaling: ")
    assert error.endswith(f'pip install "batchscaling[{extra}]"')
    assert list(tmp_path.iterdir()) == []


def test_the_module_is_the_command(tmp_path):
    command = [sys.executable, "-m", "batchscaling", "results", str(tmp_path / "nowhere")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("batchscaling: folder is ")
    assert done.stderr.count("\n") == 1
    script = Path(sys.executable).with_name("batchscaling")
    if script.exists():
        done = subprocess.run([script, "--help"], capture_output=True, text=True, timeout=120)
        assert done.returncode == 0
        assert "usage: batchscaling" in done.stdout
