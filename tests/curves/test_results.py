"""Results of sweeps, as files, objects and tables; and the book's own."""

import json
import os
import re
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import mannwhitneyu

from batchscaling.__main__ import _parser
from batchscaling.curves import CellResult, load_results, measured, median_interval, table
from batchscaling.training import OPTIMIZERS, TASKS, Cell, Range


def record(task="digits-mlp", optimizer="heavy_ball", batch_size=16, **changes):
    """Return a small record by hand: of three settings, the last is best."""
    made = {
        "cell": asdict(Cell(task, optimizer, batch_size, trials=3, seeds=2, fresh=5)),
        "targets": {"validation": 0.2, "averaged": 0.2},
        "hyper": {"lr": [0.1, 9.0, 0.2], "momentum": [0.0, 0.9, 0.5], "decay": [0.5, 0.6, 0.7]},
        "diverged": [[False, False], [True, False], [False, False]],
        "steps": {
            "validation": [[50, None], [None, None], [40, 42]],
            "averaged": [[None, None], [None, None], [None, None]],
        },
        "best": {"validation": 2, "averaged": None},
        "fresh": {"validation": [44, 40, 90, None, 41], "averaged": []},
    }
    return made | changes


def write(folder, *records):
    for each in records:
        cell = Cell(**each["cell"])
        (folder / cell.file).write_text(json.dumps(each))


def test_a_result_holds_arrays_with_infinity_for_a_target_that_was_not_reached():
    cell = CellResult.of(record())
    assert (cell.task, cell.optimizer, cell.batch_size) == ("digits-mlp", "heavy_ball", 16)
    inf = np.inf
    assert cell.steps["validation"].tolist() == [[50, inf], [inf, inf], [40, 42]]
    assert cell.fresh["validation"].tolist() == [44, 40, 90, inf, 41]
    assert cell.fresh["averaged"].shape == (0,)
    assert cell.diverged.dtype == bool
    assert cell.diverged.tolist() == [[False, False], [True, False], [False, False]]
    assert cell.hyper["lr"].tolist() == [0.1, 9.0, 0.2]
    assert cell.record == record()


def test_results_are_equal_only_to_themselves():
    one, other = CellResult.of(record()), CellResult.of(record())
    assert one == one and one != other and len({one, other}) == 2


def test_the_interval_is_that_of_the_median_of_fresh_steps():
    cell = CellResult.of(record())
    # Five values are too few for 95 %, so it is from the smallest to the largest.
    assert cell.interval() == (40, 44, np.inf)
    assert cell.interval("averaged") == (np.inf, np.inf, np.inf)
    steps = list(range(100, 120))
    cell = CellResult.of(record(fresh={"validation": steps[::-1]}))
    # The 6th and the 15th of 20 values hold the median with 95.9 %.
    assert cell.interval() == median_interval(steps) == (105, 109.5, 114)


def test_the_first_measure_is_the_one_that_is_meant():
    made = record(best={"objective": 0}, fresh={"objective": [3, 4, 5, 6, 7]})
    made = CellResult.of({**made, "steps": {"objective": [[3, 4]] * 3}})
    assert made.interval() == (3, 5, 7)
    assert made.tuned() == {"lr": 0.1, "momentum": 0.0}


def test_tuned_hyperparameters_are_those_that_act_on_the_measure():
    both = {"validation": 2, "averaged": 0}
    cell = CellResult.of(record(best=both))
    assert cell.tuned() == {"lr": 0.2, "momentum": 0.5}
    assert cell.tuned("averaged") == {"lr": 0.1, "momentum": 0.0, "decay": 0.5}
    assert CellResult.of(record()).tuned("averaged") == {}


def test_results_are_sorted_and_those_of_a_task_can_be_chosen(tmp_path):
    names = [("mnist-cnn-small", "sgd", 64), ("digits-mlp", "sgd", 1024), ("digits-mlp", "sgd", 64)]
    names.append(("digits-mlp", "adam", 512))
    write(tmp_path, *(record(*name) for name in names))
    (tmp_path / ".digits-mlp-sgd-00004.json.ab12.tmp").write_text('{"cell": {')
    (tmp_path / "notes.txt").write_text("nothing")
    found = [(cell.task, cell.optimizer, cell.batch_size) for cell in load_results(tmp_path)]
    assert found == sorted(names)
    found = load_results(str(tmp_path), "mnist-cnn-small")
    assert [cell.task for cell in found] == ["mnist-cnn-small"]


def test_a_table_has_a_line_for_each_cell(tmp_path):
    write(tmp_path, record(), record("digits-mlp", "sgd", 2048, fresh={"validation": [7] * 9}))
    title, *lines = table(load_results(tmp_path)).splitlines()
    assert title == "steps to the validation target: median [95 % interval]"
    assert [" ".join(line.split()) for line in lines] == [
        "digits-mlp heavy_ball 16 44 [40, inf] lr 0.2 momentum 0.5",
        "digits-mlp sgd 2048 7 [7, 7] lr 0.2 momentum 0.5",
    ]
    line = table(load_results(tmp_path)[:1], "averaged").splitlines()[1]
    assert " ".join(line.split()) == "digits-mlp heavy_ball 16 inf [inf, inf]"


@pytest.mark.parametrize("task", [None, "digits-mlp"])
def test_a_folder_without_results_is_told(tmp_path, task):
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(ValueError, match=r"^folder is .*allowed: one with results of"):
            load_results(folder, task)
    write(tmp_path, record("mnist-cnn-small"))
    with pytest.raises(ValueError, match=r"results of digits-mlp$"):
        load_results(tmp_path, "digits-mlp")


BAD = ["", "{", "[]", "null", "{}", '{"cell": 3}', '{"cell": {"task": "digits-mlp"}}', "\xff"]
BAD += [json.dumps({**record(), "steps": 3}), json.dumps({**record(), "diverged": [[0], [0, 1]]})]
BAD += [json.dumps({**record(), "hyper": None}), json.dumps({**record(), "fresh": {"a": ["x"]}})]


BAD += [json.dumps({**record(), "best": best}) for best in ([], {"validation": 3}, {"a": "b"})]
BAD += [json.dumps({**record(), "best": best}) for best in ({}, {"validation": -1})]
BAD += [json.dumps({**record(), "fresh": f}) for f in ({}, {"validation": 5}, {"validation": [-4]})]
BAD += [
    json.dumps({**record(), "cell": {**record()["cell"], name: value}})
    for name, value in [("batch_size", "16"), ("batch_size", 0), ("task", 3), ("optimizer", None)]
]
BAD += ["[" * 100_000, json.dumps(record()) + "{", "\x00", json.dumps(record())[:-40]]


@pytest.mark.parametrize("content", BAD, ids=range(len(BAD)))
def test_a_file_that_is_no_result_is_told(tmp_path, content):
    write(tmp_path, record())
    bad = tmp_path / "bad.json"
    bad.write_text(content, encoding="latin-1")
    with pytest.raises(ValueError, match=f"^file is {re.escape(repr(str(bad)))}; allowed: "):
        load_results(tmp_path)


def test_what_is_no_cells_own_file_is_left_out_and_named(tmp_path):
    write(tmp_path, record(), record(batch_size=32))
    own = [cell.record for cell in load_results(tmp_path)]
    name = "digits-mlp-heavy_ball-00016"
    text = (tmp_path / f"{name}.json").read_text()
    (tmp_path / f"._{name}.json").write_bytes(b"\x00\x05\x16\x07")
    (tmp_path / f"{name} (conflicted copy).json").write_text(text)
    (tmp_path / "folder.json").mkdir()
    (tmp_path / "link.json").symlink_to(tmp_path / "nowhere")
    with pytest.warns(UserWarning) as caught:
        assert [cell.record for cell in load_results(tmp_path)] == own
    (warning,) = caught
    for left_out in (
        f"._{name}.json",
        f"{name} (conflicted copy).json",
        "folder.json",
        "link.json",
    ):
        assert repr(left_out) in str(warning.message)
    assert str(tmp_path) in str(warning.message)


def test_a_lone_copy_counts_and_two_without_the_original_are_told(tmp_path):
    text = json.dumps(record())
    (tmp_path / "one copy.json").write_text(text)
    assert len(load_results(tmp_path)) == 1
    (tmp_path / "two copy.json").write_text(json.dumps(record(), indent=1))
    with pytest.warns(UserWarning, match=r"'two copy.json'$"):
        assert len(load_results(tmp_path)) == 1
    (tmp_path / "two copy.json").write_text(json.dumps(record(best={"validation": 0})))
    with pytest.raises(ValueError, match=r"^folder is .*heavy_ball-00016.json.*'two copy.json'"):
        load_results(tmp_path)


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="may read every file")
def test_a_file_that_may_not_be_read_is_told(tmp_path):
    write(tmp_path, record())
    (path,) = tmp_path.iterdir()
    path.chmod(0)
    with pytest.raises(ValueError, match=f"^file is {re.escape(repr(str(path)))}; .*denied"):
        load_results(tmp_path)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_any_encoding_of_unicode_is_read(tmp_path, encoding):
    write(tmp_path, record())
    (path,) = tmp_path.iterdir()
    path.write_text(json.dumps(record()), encoding=encoding)
    assert [cell.record for cell in load_results(tmp_path)] == [record()]


def test_the_batch_size_is_the_one_that_was_trained(tmp_path):
    write(tmp_path, record(batch_size=5000, trained_batch_size=1437))
    (cell,) = load_results(tmp_path)
    assert cell.batch_size == 1437
    assert table([cell]).splitlines()[1].split()[2] == "1437"


def test_all_sizes_that_mean_every_example_are_one_cell(tmp_path):
    sizes = {size: record(batch_size=size, trained_batch_size=1437) for size in (5000, 9000)}
    write(tmp_path, *sizes.values())
    with pytest.warns(UserWarning, match=r"'digits-mlp-heavy_ball-09000.json'$"):
        assert [cell.record for cell in load_results(tmp_path)] == [sizes[5000]]
    exact = record(batch_size=1437, best={"validation": 0})
    write(tmp_path, exact)
    with pytest.warns(UserWarning, match=r"-05000.json', '.*-09000.json'$"):
        assert [cell.record for cell in load_results(tmp_path)] == [exact]


def test_a_tilde_is_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "sweeps").mkdir()
    write(tmp_path / "sweeps", record())
    assert len(load_results("~/sweeps")) == 1


def test_a_table_leaves_out_a_task_without_the_target_and_names_it(tmp_path):
    del (other := record("mnist-cnn-small"))["best"]["averaged"]
    write(tmp_path, record(), other)
    _, line, last = table(load_results(tmp_path), "averaged").splitlines()
    assert line.startswith("digits-mlp ")
    assert last == "no averaged target: mnist-cnn-small"
    with pytest.raises(ValueError, match=r"^measure is 'speed'.*'validation', 'averaged'$"):
        table(load_results(tmp_path), "speed")


@pytest.mark.parametrize("call", [CellResult.tuned, CellResult.interval])
@pytest.mark.parametrize("measure", ["training", "test", 1])
def test_a_measure_without_a_target_is_told(call, measure):
    with pytest.raises(ValueError, match=r"^measure is .*allowed: one of 'validation', 'averaged'"):
        call(CellResult.of(record()), measure)


BOOK = sorted(measured().glob("*.json"))
book = pytest.mark.parametrize("path", BOOK, ids=[path.stem for path in BOOK])


def numbers(steps):
    return np.nan_to_num(np.array(steps, dtype=float), nan=np.inf)


def median(steps):
    return np.median(numbers(steps), axis=-1)


def test_the_book_has_measured_results():
    assert measured() == Path(__file__).parents[2] / "data" / "sweeps"
    cells = load_results()
    assert len(cells) == len(BOOK) >= 50
    assert {"digits-mlp", "fashion-cnn-small"} <= {cell.task for cell in cells} <= set(TASKS)
    assert {"sgd", "adam"} <= {cell.optimizer for cell in cells} <= set(OPTIMIZERS)
    chosen = [cell.record for cell in load_results(task="digits-mlp")]
    assert chosen == [cell.record for cell in cells if cell.task == "digits-mlp"]


@book
def test_a_measured_file_says_how_it_was_made(path):
    made = json.loads(path.read_text("utf-8"))
    origin = made["provenance"]
    # Uncommitted code could not be run again.
    assert re.fullmatch(r"[0-9a-f]{12}", origin["commit"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", origin["date"])
    assert origin["seconds"] > 0
    names = {"batchscaling", "python", "torch", "numpy", "scipy", "device", "command"}
    assert all(isinstance(origin[name], str) and origin[name] for name in names)
    command = origin["command"].split()
    assert command[:3] == ["python", "-m", "batchscaling"]
    options = vars(_parser().parse_args(command[3:]))
    for name, value in made["cell"].items():
        assert value in np.atleast_1d(options[name])
    assert Cell(**made["cell"]).file == path.name


@book
def test_a_measured_file_agrees_with_itself(path):
    made = json.loads(path.read_text("utf-8"))
    cell = made["cell"]
    settings = len(made["diverged"])
    wild = np.any(made["diverged"], axis=1)
    assert (~wild).sum() >= cell["trials"] or settings == 4 * cell["trials"]
    assert np.shape(made["diverged"]) == (settings, cell["seeds"])
    hyper = {name: np.array(values) for name, values in made["hyper"].items()}
    if "effective_lr" in made["space"]:
        hyper["effective_lr"] = hyper.pop("lr") / (1 - hyper["momentum"])
    complements = {"momentum", "beta1", "decay"}
    space = {name: Range(*ends, name in complements) for name, ends in made["space"].items()}
    assert sorted(hyper) == sorted(space)
    for name, values in hyper.items():
        assert len(values) == settings
        places = [space[name].position(value) for value in values]
        assert min(places) >= -1e-6
        assert max(places) <= 1 + 1e-6
    for grown in made["widened"]:
        low, high = grown["to"]
        assert made["space"][grown["name"]][0] <= low < high <= made["space"][grown["name"]][1]

    for measure in made["targets"]:
        steps, final = made["steps"][measure], made["final"][measure]
        assert np.shape(steps) == (settings, cell["seeds"])
        ranked = [k for k in np.argsort(median(steps), kind="stable") if median(steps[k]) < np.inf]
        assert final["settings"] == ranked[: cell["finalists"]]
        medians = median(final["steps"]) if ranked else np.array([np.inf])
        best = made["best"][measure]
        if np.isinf(medians).all():
            assert best is None
            assert made["fresh"][measure] == made["at_border"][measure] == []
            continue
        assert best == final["settings"][np.argmin(medians)]
        assert len(made["fresh"][measure]) == cell["fresh"]
        # The winner was lucky, so fresh seeds are mostly slower; but the setting is the same one.
        won = final["steps"][int(np.argmin(medians))]
        same = mannwhitneyu(numbers(won), numbers(made["fresh"][measure]), method="asymptotic")
        assert same.pvalue > 1e-4
        acting = {n: r for n, r in space.items() if n != "decay" or "averaged" in measure}
        sides = {name: range_.border(hyper[name][best]) for name, range_ in acting.items()}
        assert made["at_border"][measure] == [n for n, side in sides.items() if side is not None]
