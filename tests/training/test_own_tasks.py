"""Sweeps of tasks of one's own: found by module or file, sent to processes, told apart."""

import importlib
import json
import pickle
import shutil
import subprocess
import sys
import threading
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import tiny
import torch
from torch.nn.functional import conv2d

from batchscaling.__main__ import main
from batchscaling.training import (
    TASKS,
    Cell,
    FlipCrop,
    Range,
    digits,
    load_task,
    mlp,
    run_cell,
    run_sweep,
    simple_cnn,
    step_drops,
)
from batchscaling.training.own_tasks import identity, is_of
from batchscaling.training.runners.packed import packed, unpacked_run

SMALL = {"trials": 3, "seeds": 1, "finalists": 1, "final_seeds": 1, "fresh": 2}
OPTIONS = [f"--{name.replace('_', '-')}={value}" for name, value in SMALL.items()]


def without_origin(path):
    return {k: v for k, v in json.loads(path.read_text("utf-8")).items() if k != "provenance"}


def test_a_task_is_found_by_its_file_and_by_its_module(folder, monkeypatch):
    by_path = load_task(f"{folder}/net_of_mine.py:net")
    by_relative_path = load_task("mine/net_of_mine.py:net", folder.parent)
    monkeypatch.chdir(folder)
    by_module = load_task("net_of_mine:net")
    for task in (by_path, by_relative_path, by_module):
        assert task.name == "net" and task.targets == {"validation": 0.4}
        assert task.load().train_inputs.shape == (64, 5)
    assert Cell(by_module, "sgd", 8).file == "net-sgd-00008.json"
    assert "--task net_of_mine:net --optimizer sgd" in Cell(by_module, "sgd", 8).command


KIND = """
from dataclasses import dataclass
from batchscaling.training import Data, Range, Task, mlp

@dataclass
class Kind:
    number: int = {number}

net = Task(lambda: Kind(), mlp([2, 2]), {{"validation": 0.4}}, {{"sgd": Range(1, 2)}}, 1, 1)
"""


def test_files_of_equal_names_in_two_folders_are_two(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    for number in (1, 2):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "same.py").write_text(KIND.format(number=number))
    tasks = [load_task(f"{number}/same.py:net", tmp_path) for number in (1, 2)]
    for number, task in enumerate(tasks, 1):
        again = pickle.loads(pickle.dumps(task.load()))  # finds its class by its module
        assert type(again) is type(task.load()) and again.number == number


def test_neighbours_of_equal_names_are_not_mistaken(folder, tmp_path):
    """The second file would get the first one's neighbour."""
    load_task(f"{folder}/net_of_mine.py:net")
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(folder / "net_of_mine.py", other)
    assert load_task(f"{other}/net_of_mine.py:net").load().train_inputs.shape == (64, 5)
    (other / "beside.py").write_text("FEATURES = 7\n")
    with pytest.raises(ValueError, match=r"^task is .* allowed: one beside .* 'beside' is '.*mine"):
        load_task(f"{other}/net_of_mine.py:net")


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ("nowhere", "one of .*'digits-mlp', .*, or module:name, or path/file.py:name"),
        (3, "or module:name"),
        ("mine/net_of_mine.py:", "or module:name"),
        ("mine/nowhere.py:net", "a file that exists; '.*/mine/nowhere.py' does not"),
        ("no.such:net", r"a module that can be imported from '.*' \(No module named 'no'\)"),
        ("mine/net_of_mine.py:other", "a Task, not none of this name; there: net"),
        ("mine/net_of_mine.py:number", "a Task, not a int; there: net"),
        ("mine/raises.py:net", "one whose code runs; it raises ZeroDivisionError: division"),
        ("mine/ends.py:net", "one whose code runs; it raises SystemExit: 3"),
        ("mine/lacks.py:net", "it raises ModuleNotFoundError: No module named 'no_such_package'"),
        ("mine.lacks:net", "it raises ModuleNotFoundError: No module named 'no_such_package'"),
        ("mine/typo.py:net", "it raises SyntaxError: "),
    ],
)
def test_what_is_no_task_is_named(folder, reference, words):
    wrong = {"raises": "1 / 0", "ends": "exit(3)", "lacks": "import no_such_package", "typo": "a b"}
    for name, code in wrong.items():
        (folder / f"{name}.py").write_text(code)
    (folder / "__init__.py").write_text("")
    with pytest.raises(ValueError, match=f"^task is {reference!r}; allowed: .*{words}"):
        load_task(reference, folder.parent)


@pytest.mark.parametrize("name", ["", "digits-mlp"])
def test_a_task_without_a_name_of_its_own_is_refused(own, name):
    with pytest.raises(ValueError, match=r"^task's name is "):
        Cell(replace(own, name=name), "sgd", 8)


@pytest.mark.parametrize("name", ["a/b", ".a", "a:b", 3])
def test_a_name_makes_a_file(own, name):
    with pytest.raises(ValueError, match=f"^name is {name!r}; allowed: letters"):
        replace(own, name=name)


def test_the_command_line_sweeps_it_in_processes_and_shows_it(folder, tmp_path):
    """A new process knows the file by its path only, and so do those that it starts."""
    run = partial(subprocess.run, cwd=folder.parent, capture_output=True, text=True, timeout=200)
    command = [sys.executable, "-m", "batchscaling"]
    task = "--task=mine/net_of_mine.py:net"
    out = tmp_path / "out"
    sweep = ["sweep", task, "--optimizer=sgd", "--batch-size", "8", "16", *OPTIONS]
    done = run([*command, *sweep, f"--out={out}", "--workers=2"])
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in out.iterdir()) == [
        "net-sgd-00008.json",
        "net-sgd-00016.json",
    ]
    origin = json.loads((out / "net-sgd-00008.json").read_text("utf-8"))["provenance"]
    assert (
        "sweep --task mine/net_of_mine.py:net --optimizer sgd --batch-size 8" in origin["command"]
    )

    cells = [
        Cell(load_task(f"{folder}/net_of_mine.py:net"), "sgd", size, **SMALL) for size in (8, 16)
    ]
    here = run_sweep(cells, tmp_path / "here", progress=False)
    for path in here:
        assert without_origin(path) == without_origin(out / path.name)
    # Another place of the same task is the same task: nothing is left to do.
    assert run_sweep(cells, out, progress=False) == sorted(out.iterdir())


def test_results_are_shown_of_this_task_only(folder, tmp_path, capsys):
    task = f"{folder}/net_of_mine.py:net"
    run_sweep([Cell(load_task(task), "sgd", 8, **SMALL)], tmp_path / "out", progress=False)
    main(["results", str(tmp_path / "out"), f"--task={task}"])
    assert capsys.readouterr().out.splitlines()[1].startswith("net  sgd ")
    file = folder / "net_of_mine.py"
    file.write_text(file.read_text().replace("nn.Tanh()", "nn.ReLU()"))
    with pytest.raises(SystemExit) as ended:
        main(["results", str(tmp_path / "out"), f"--task={task}"])
    assert ended.value.code == 2
    assert "the task 'net' that these results are of" in capsys.readouterr().err


def test_a_task_object_goes_to_processes(own, tmp_path):
    cells = [Cell(own, "sgd", size, **SMALL) for size in (16, 32)]
    paths = run_sweep(cells, tmp_path / "two", workers=2, progress=False)
    for path, one in zip(paths, run_sweep(cells, tmp_path / "one", progress=False), strict=True):
        assert without_origin(path) == without_origin(one)
        assert json.loads(path.read_text("utf-8"))["cell"]["task"] == "own"


@pytest.mark.parametrize("where", [{"workers": 2}, {"ray": "nowhere"}])
def test_a_task_object_that_cannot_be_sent_is_named(own, tmp_path, where):
    held = threading.Lock()
    cell = Cell(replace(own, load=lambda: held), "sgd", 16)
    with pytest.raises(ValueError, match=r"^task is 'own'; allowed: one that can be sent to"):
        run_sweep([cell], tmp_path, progress=False, **where)


def test_a_task_object_whose_module_is_not_there_is_named(folder, monkeypatch):
    """A worker on another machine may not find the module that this process has."""
    monkeypatch.syspath_prepend(folder)
    task = replace(importlib.import_module("net_of_mine").net, name="own")
    work = packed(run_cell, Cell(task, "sgd", 8, **SMALL), "cpu")
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p != str(folder)])
    monkeypatch.delitem(sys.modules, "net_of_mine")
    with pytest.raises(ValueError, match=r"^task is 'own'; allowed: .*No module named 'net_of"):
        unpacked_run(*work)


def shuffled():
    data = tiny.load()
    return replace(data, train_labels=data.train_labels.flip(0))


def shuffled_behind():
    """Return the data with labels in another order, but for those of the first examples."""
    data = tiny.load()
    first, others = data.train_labels[:32], data.train_labels[32:]
    return replace(data, train_labels=torch.cat([first, others.flip(0)]))


@pytest.mark.parametrize(
    "change",
    [
        {"targets": {"validation": 0.61}},
        {"examples": 801},
        {"ranges": {"damping": Range(0.1, 1)}},
        {"schedule": step_drops([50], 0.1)},
        {"load": shuffled},
        {"load": shuffled_behind},
        {"model": mlp([tiny.FEATURES, 9, tiny.CLASSES])},
        {"model": replace(tiny.TINY.model, apply=lambda p, x: 1.1 * tiny.TINY.model.apply(p, x))},
    ],
)
def test_another_task_of_the_same_name_is_not_mistaken(own, tmp_path, change):
    run_sweep([Cell(own, "sgd", 16, **SMALL)], tmp_path, progress=False)
    again = replace(own, load=lambda: tiny.load())
    run_sweep([Cell(again, "sgd", 16, **SMALL)], tmp_path, progress=False)
    other = Cell(replace(own, **change), "sgd", 16, **SMALL)
    with pytest.raises(ValueError, match=r"^folder is .* of another task called 'own'"):
        run_sweep([other], tmp_path, progress=False)


def test_a_range_of_distances_to_one_is_another_range(own):
    """The same numbers are momentums near 1 then."""
    near_none = replace(own, ranges={"momentum": Range(0.01, 0.1)})
    near_one = replace(own, ranges={"momentum": Range(0.01, 0.1, complement=True)})
    record = {"identity": identity(near_none)}
    assert is_of(record, replace(near_none)) and not is_of(record, near_one)


def test_a_task_of_the_book_is_not_taken_for_an_own_one(own, tmp_path, monkeypatch):
    run_sweep([Cell(own, "sgd", 16, **SMALL)], tmp_path, progress=False)
    monkeypatch.setitem(TASKS, "own", own)
    with pytest.raises(ValueError, match=r"^folder is .* of another task called 'own'"):
        run_sweep([Cell("own", "sgd", 16, **SMALL)], tmp_path, progress=False)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"schedule": step_drops([20], 0.1)}, {"schedule": step_drops([90], 0.1)}),
        ({}, {"schedule": step_drops([700], 0.1)}),
        ({}, {"targets": {"validation": 0.6001}}),
        ({"examples": 3000}, {"examples": 3001}),
        ({"rates": {"sgd": Range(0.1, 1)}}, {"rates": {"sgd": Range(0.1, 1.0001)}}),
    ],
)
def test_what_is_given_is_compared_exactly(own, one, other):
    first, second = replace(own, **one), replace(own, **other)
    record = json.loads(json.dumps({"identity": identity(first)}))
    assert is_of(record, replace(first)) and not is_of(record, second)


def test_another_augmentation_is_another_task(own):
    def load(augment):
        data = digits(validation=60)
        return replace(
            data,
            train_inputs=data.train_inputs.view(-1, 1, 8, 8),
            validation_inputs=data.validation_inputs.view(-1, 1, 8, 8),
            augment=augment,
        )

    cnn = replace(own, model=simple_cnn(8, filters=(2, 3), units=8))
    tasks = [replace(cnn, load=partial(load, a)) for a in (None, FlipCrop(1), FlipCrop(2))]
    records = [{"identity": identity(task)} for task in tasks]
    same = [[is_of(record, replace(task)) for task in tasks] for record in records]
    assert same == np.eye(3, dtype=bool).tolist()


def test_data_made_in_inference_mode_are_known(own):
    with torch.inference_mode():
        data = tiny.load()
    assert identity(replace(own, load=lambda: data)) == identity(own)


class Blurred:
    """An augmentation of one's own, whose kernel is of float32."""

    def draw(self, rng, batch_size):
        return torch.rand(batch_size, 1, generator=rng)

    def apply(self, images, draws):
        return conv2d(images, torch.full((1, 1, 3, 3), 1 / 9), padding=1)


def test_an_augmentation_of_ones_own_is_known_by_what_it_does(own):
    def load(augment):
        data = digits(validation=60)
        inputs = (t.view(-1, 1, 8, 8) for t in (data.train_inputs, data.validation_inputs))
        one, two = inputs
        return replace(data, train_inputs=one, validation_inputs=two, augment=augment)

    cnn = replace(own, model=simple_cnn(8, filters=(2, 3), units=8))
    one, again, none = (
        identity(replace(cnn, load=partial(load, augment)))
        for augment in (Blurred(), Blurred(), FlipCrop(0))
    )
    assert one == again != none
