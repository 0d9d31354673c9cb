"""Cells and sweeps in this process; `test_interruption` runs and kills them in others."""

import json
import re
from dataclasses import asdict, replace
from functools import partial

import numpy as np
import pytest
import torch
from tiny import TINY

from batchscaling.__main__ import _parser
from batchscaling.ranges import EDGE
from batchscaling.training import (
    OPTIMIZERS,
    TASKS,
    Cell,
    CellResult,
    Range,
    Trials,
    autoencoder,
    bernoulli_cross_entropy,
    draw,
    hyperparameters,
    run_cell,
    run_sweep,
    train,
)
from batchscaling.training import cells as cells_module
from batchscaling.training import sweeps as module
from batchscaling.training.cells import FINAL, FRESH, LONGEST, SEARCH
from batchscaling.training.sweeps import summary

pytestmark = pytest.mark.usefixtures("tiny_task")

SMALL = {"trials": 8, "seeds": 2, "finalists": 3, "final_seeds": 4, "fresh": 5}
cell = partial(Cell, "tiny", **SMALL)


def numbers(steps):
    return np.array(steps, dtype=float)


def without_provenance(record):
    return {name: value for name, value in record.items() if name != "provenance"}


@pytest.fixture(scope="module")
def record():
    return run_cell(cell("heavy_ball", 16))


@pytest.fixture(scope="module")
def diverging():
    """Return a cell of which some settings diverge."""
    return run_cell(cell("sgd", 2))


@pytest.fixture
def task(monkeypatch):
    """Return the function that changes the task "tiny"."""

    def change(**changes):
        monkeypatch.setitem(TASKS, "tiny", replace(TINY, **changes))

    return change


def test_a_cell_knows_its_file_and_its_command():
    one = Cell("digits-mlp", "adam", 64, trials=7, seeds=3, search_seed=5)
    assert one.file == "digits-mlp-adam-00064.json"
    python, m, package, *arguments = one.command.split()
    assert (python, m, package) == ("python", "-m", "batchscaling")
    options = vars(_parser().parse_args(arguments))
    values = {name: options[name] for name in asdict(one)}
    values["optimizer"], values["batch_size"] = *values["optimizer"], *values["batch_size"]
    assert Cell(**values) == one


def test_integers_of_numpy_become_those_that_json_knows():
    one = Cell("tiny", "sgd", np.int64(16), trials=np.int32(3), search_seed=np.int64(0))
    assert one == Cell("tiny", "sgd", 16, trials=3)
    assert json.loads(json.dumps(asdict(one))) == asdict(one)


def test_a_result_is_json_and_says_what_was_searched(record, tiny_task):
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert record["cell"] == asdict(cell("heavy_ball", 16))
    assert record["targets"] == tiny_task.targets
    assert record["max_steps"] == 40 + 800 // 16
    assert record["patience"] == tiny_task.patience
    assert record["space"] == {
        "effective_lr": [2**-6, 2**4],
        "momentum": [0.01, 1],
        "decay": [2**-8, 1],
    }
    settings = len(record["diverged"])
    assert sorted(record["hyper"]) == ["decay", "lr", "momentum"]
    assert all(len(values) == settings for values in record["hyper"].values())
    assert np.shape(record["diverged"]) == (settings, 2)
    for measure in tiny_task.targets:
        assert np.shape(record["steps"][measure]) == (settings, 2)
        assert np.shape(record["final"][measure]["steps"]) == (3, 4)
        assert np.shape(record["fresh"][measure]) == (5,)
    origin = record["provenance"]
    assert origin["command"] == f"{cell('heavy_ball', 16).command} --device cpu"
    assert origin["seconds"] > 0
    versions = ("batchscaling", "commit", "python", "torch", "numpy", "scipy", "device", "date")
    assert all(isinstance(origin[name], str) and origin[name] for name in versions)


def test_the_same_cell_gives_the_same_result(record):
    again = run_cell(cell("heavy_ball", 16))
    assert without_provenance(again) == without_provenance(record)
    other = run_cell(cell("heavy_ball", 16, search_seed=1))
    assert other["hyper"] != record["hyper"]
    assert other["fresh"] != record["fresh"]


def alone(record, setting, seeds, measures):
    """Return the steps of one setting by `train`, without patience, shape (seeds,) a measure."""
    hyper = {name: np.full(len(seeds), v[setting]) for name, v in record["hyper"].items()}
    batch_size = record["cell"]["batch_size"]
    results = train(
        TINY.load(),
        TINY.model,
        OPTIMIZERS[record["cell"]["optimizer"]],
        Trials(np.array(seeds), hyper),
        batch_size=batch_size,
        max_steps=TINY.max_steps(batch_size),
        target={measure: TINY.targets[measure] for measure in measures},
    )
    return {measure: results.crossing(measure) for measure in measures}


def assert_same_or_late(found, expected, limit):
    """Steps are equal; where a target was not reached, it would have been after the limit only."""
    late = np.isnan(found)
    np.testing.assert_array_equal(found[~late], expected[~late])
    # A trial ends at the first evaluation at or after its limit.
    assert (expected[late] > limit).all()


@pytest.mark.parametrize("name", ["record", "diverging"])
def test_every_trial_of_a_search_is_that_trial_alone(name, request):
    record = request.getfixturevalue(name)
    fastest = {measure: np.nanmin(numbers(steps)) for measure, steps in record["steps"].items()}
    for setting in range(len(record["diverged"])):
        steps = alone(record, setting, [SEARCH, SEARCH + 1], TINY.targets)
        for measure, expected in steps.items():
            found = numbers(record["steps"][measure][setting])
            assert_same_or_late(found, expected, TINY.patience * fastest[measure])


def test_the_fastest_settings_meet_again_with_other_seeds(record):
    for measure, final in record["final"].items():
        median = np.median(np.nan_to_num(numbers(record["steps"][measure]), nan=np.inf), axis=1)
        assert final["settings"] == np.argsort(median, kind="stable")[:3].tolist()
        limit = LONGEST * np.nanmin(numbers(record["steps"][measure]))
        for setting, steps in zip(final["settings"], final["steps"], strict=True):
            expected = alone(record, setting, range(FINAL, FINAL + 4), [measure])[measure]
            assert_same_or_late(numbers(steps), expected, limit)
        medians = np.median(np.nan_to_num(numbers(final["steps"]), nan=np.inf), axis=1)
        assert record["best"][measure] == final["settings"][int(np.argmin(medians))]


def test_the_winner_is_measured_with_seeds_that_did_not_choose_it(record):
    for measure, best in record["best"].items():
        expected = alone(record, best, range(FRESH, FRESH + 5), [measure])[measure]
        limit = LONGEST * np.nanmin(numbers(record["steps"][measure]))
        assert_same_or_late(numbers(record["fresh"][measure]), expected, limit)


def test_a_cell_trains_and_measures_by_the_loss_of_its_task(task):
    data = TINY.load()
    inputs = data.train_inputs.sigmoid(), data.validation_inputs.sigmoid()
    names = ("train_inputs", "validation_inputs", "train_labels", "validation_labels")
    pixels = replace(data, **dict(zip(names, inputs * 2, strict=True)))
    loss = bernoulli_cross_entropy
    with_loss = {"load": lambda: pixels, "model": autoencoder([6, 5, 3]), "loss": loss}
    task(**with_loss, targets={"validation": 4.0})
    record = run_cell(cell("sgd", 24, trials=4))
    best, seeds = record["best"]["validation"], np.arange(FRESH, FRESH + 5)
    trials = Trials(seeds, {"lr": np.full(5, record["hyper"]["lr"][best])})
    limit = TASKS["tiny"].max_steps(24)
    options = {"batch_size": 24, "max_steps": limit, "target": 4.0, "loss": loss}
    alone_again = train(pixels, with_loss["model"], OPTIMIZERS["sgd"], trials, **options)
    found = numbers(record["fresh"]["validation"])
    assert np.isfinite(found).any() and found[np.isfinite(found)].min() > 0
    fastest = np.nanmin(numbers(record["steps"]["validation"]))
    assert_same_or_late(found, alone_again.crossing("validation"), LONGEST * fastest)


def test_an_objective_is_that_of_cross_entropy():
    for measure in ("objective", "averaged_objective"):
        with pytest.raises(ValueError, match=r"^loss is .*; allowed: cross_entropy where"):
            replace(TINY, loss=bernoulli_cross_entropy, targets={measure: 0.1})


def test_seeds_of_search_final_and_last_measurement_never_meet(monkeypatch):
    used = []

    def spied(data, model, optimizer, trials, **options):
        used.append(trials.seeds)
        return train(data, model, optimizer, trials, **options)

    monkeypatch.setattr(cells_module, "train", spied)
    run_cell(cell("sgd", 96))
    kinds = [sorted({int(seed) // 1000 for seed in seeds}) for seeds in used]
    assert kinds == sorted(kinds)
    assert kinds[-6:] == [[1], [1], [1], [2], [2], [2]]
    assert set(map(tuple, kinds[:-6])) == {(0,)}
    # There is room for many seeds.
    assert FINAL - SEARCH >= 1000
    assert FRESH - FINAL >= 1000


def test_settings_that_diverge_are_replaced(diverging):
    wild = np.any(diverging["diverged"], axis=1)
    assert wild.any()
    assert (~wild).sum() == 8
    assert not diverging["widened"]
    values = draw(TINY.space("sgd"), len(wild), seed=0)
    for name, expected in hyperparameters(values).items():
        assert diverging["hyper"][name] == expected.tolist()
    # Divergence comes with large rates, not by chance.
    rates = np.array(diverging["hyper"]["lr"])
    assert rates[wild].min() > np.median(rates[~wild])


def test_a_search_that_only_diverges_ends(task):
    task(rates={"sgd": Range(1e8, 1e9)})
    record = run_cell(cell("sgd", 16))
    assert np.shape(record["diverged"]) == (4 * 8, 2)
    assert np.all(record["diverged"])
    assert set(record["best"].values()) == {None}
    assert record["fresh"] == {measure: [] for measure in TINY.targets}
    assert record["final"]["training"] == {"settings": [], "steps": [], "best": None}
    assert record["at_border"] == {measure: [] for measure in TINY.targets}
    line = summary(record)
    assert "target not reached" in line
    assert "[all but 0 settings diverged]" in line


def test_a_target_that_is_never_reached_is_told(task):
    task(targets={"validation": 1e-9})
    record = run_cell(cell("adam", 96))
    assert not np.any(record["diverged"])
    assert record["steps"] == {"validation": [[None, None]] * 8}
    assert record["best"] == {"validation": None}
    assert record["widened"] == []
    assert "target not reached" in summary(record)


@pytest.mark.parametrize(
    ("side", "rates"), [("high", Range(2**-9, 2**-4)), ("low", Range(2**2, 2**6))]
)
def test_a_space_widens_where_the_best_setting_lies_at_its_border(task, side, rates):
    task(rates={"sgd": rates}, targets={"validation": 0.8}, examples=20_000)
    record = run_cell(cell("sgd", 96, trials=16))
    widened = record["widened"]
    assert widened
    assert {grown["name"] for grown in widened} == {"lr"}
    assert widened[-1]["to"] == record["space"]["lr"]
    # Each widening adds half a range, with half as many settings, all in the new part.
    lrs, space = np.array(record["hyper"]["lr"]), rates
    first = len(lrs) - 8 * len(widened)
    for grown in widened:
        low, high = grown["to"]
        strip = (low, space.low) if side == "low" else (space.high, high)
        new = lrs[first : first + 8]
        assert ((strip[0] <= new) & (new <= strip[1])).all()
        assert np.log(high / low) == pytest.approx(1.5 * np.log(space.high / space.low))
        space, first = Range(low, high), first + 8
    assert record["at_border"] == {"validation": []}
    assert space.border(lrs[record["best"]["validation"]]) is None
    medians = np.median(np.nan_to_num(numbers(record["steps"]["validation"]), nan=np.inf), axis=1)
    old = (rates.low <= lrs) & (lrs <= rates.high)
    assert medians[~old].min() <= medians[old].min()
    assert "[lr widened]" in summary(record)


def test_a_search_stops_widening_and_says_that_the_best_lies_at_the_border(task):
    task(rates={"sgd": Range(0.1, 0.12)}, targets={"validation": 0.8}, examples=20_000)
    record = run_cell(cell("sgd", 96, trials=16))
    assert len(record["widened"]) == 3
    assert record["at_border"] == {"validation": ["lr"]}
    position = Range(*record["space"]["lr"]).position(max(record["hyper"]["lr"]))
    assert position > 1 - EDGE


def test_batch_sizes_above_the_training_set_mean_all_of_it():
    full, more = (run_cell(cell("sgd", size)) for size in (96, 4096))
    assert "batch size 96:" in summary(full)
    assert "batch size 96:" in summary(more)
    assert CellResult.of(more).batch_size == 96
    for name in ("hyper", "steps", "final", "best", "fresh", "max_steps"):
        assert full[name] == more[name]


@pytest.fixture(scope="module")
def cells(tiny_task):
    return [cell("sgd", 96), cell("adam", 96), cell("sgd", 48)]


@pytest.fixture
def runs(monkeypatch, record):
    """Return the cells that `run_sweep` has run, in order; each has the same numbers."""
    seen = []

    def counted(cell, **options):
        seen.append(cell)
        return record | {"cell": asdict(cell)}

    monkeypatch.setattr(module, "run_cell", counted)
    return seen


def test_a_sweep_runs_the_cells_that_are_missing(tmp_path, cells, runs):
    folder = tmp_path / "a" / "b"
    paths = run_sweep(cells[:2], folder, progress=False)
    assert paths == [folder / one.file for one in cells[:2]]
    assert runs == cells[:2]
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in paths}
    paths = run_sweep([*cells, *cells], folder, progress=False)
    assert paths == [folder / one.file for one in cells]
    assert runs == cells
    for path, (content, time) in before.items():
        assert (path.read_bytes(), path.stat().st_mtime_ns) == (content, time)
    assert sorted(folder.iterdir()) == sorted(paths)


def test_a_sweep_writes_what_its_cell_gives(tmp_path, record):
    (path,) = run_sweep([cell("heavy_ball", 16)], tmp_path, progress=False)
    held = json.loads(path.read_text("utf-8"))
    assert without_provenance(held) == without_provenance(record)


def test_a_file_of_another_search_is_refused_and_kept(tmp_path, cells, runs):
    path = tmp_path / cells[1].file
    other = json.dumps({"cell": asdict(replace(cells[1], search_seed=9))})
    path.write_text(other)
    with pytest.raises(ValueError, match="another search"):
        run_sweep(cells, tmp_path, progress=False)
    assert runs == []
    assert path.read_text() == other
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("content", ["", "{", "[]", "3", "{}", '"cell"', "\x00\xff"])
def test_a_file_that_is_no_result_is_refused_and_kept(tmp_path, cells, runs, content):
    path = tmp_path / cells[0].file
    path.write_text(content, encoding="latin-1")
    with pytest.raises(ValueError, match=r"^file is .*allowed: "):
        run_sweep(cells, tmp_path, progress=False)
    assert runs == []
    assert path.read_text(encoding="latin-1") == content


def test_half_written_files_are_no_results(tmp_path, cells, runs):
    rubbish = tmp_path / f".{cells[0].file}.1234.tmp"
    rubbish.write_text('{"cell": {"ta')
    run_sweep(cells[:1], tmp_path, progress=False)
    assert runs == cells[:1]
    assert json.loads((tmp_path / cells[0].file).read_text())["cell"] == asdict(cells[0])


@pytest.mark.parametrize("error", [OSError("the disk is full"), KeyboardInterrupt()])
@pytest.mark.parametrize("broken", ["json.dump", "os.fsync", "pathlib.Path.replace"])
def test_a_file_that_cannot_be_written_is_not_there(tmp_path, monkeypatch, record, error, broken):
    def fail(*arguments, **options):
        raise error

    monkeypatch.setattr(module, "run_cell", lambda cell, **options: record)
    with monkeypatch.context() as patch:
        patch.setattr(broken, fail)
        with pytest.raises(type(error)):
            run_sweep([cell("heavy_ball", 16)], tmp_path, progress=False)
    assert list(tmp_path.iterdir()) == []
    (path,) = run_sweep([cell("heavy_ball", 16)], tmp_path, progress=False)
    assert json.loads(path.read_text()) == record


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, MemoryError])
def test_an_error_loses_only_the_cell_in_flight(tmp_path, cells, runs, monkeypatch, error):
    run = module.run_cell

    def fragile(cell, **options):
        if cell == cells[1]:
            raise error
        return run(cell, **options)

    with monkeypatch.context() as patch:
        patch.setattr(module, "run_cell", fragile)
        with pytest.raises(error):
            run_sweep(cells, tmp_path, progress=False)
    assert [path.name for path in tmp_path.iterdir()] == [cells[0].file]
    assert len(run_sweep(cells, tmp_path, progress=False)) == len(list(tmp_path.iterdir())) == 3


def test_a_sweep_says_what_it_found_only_when_asked(tmp_path, cells, runs, capsys):
    run_sweep(cells[:1], tmp_path / "quiet", progress=False)
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""
    (path,) = run_sweep(cells[:1], tmp_path / "loud")
    captured = capsys.readouterr()
    assert "cells" in captured.err
    assert summary(json.loads(path.read_text())) in captured.out


def test_a_summary_is_one_line(record):
    line = summary(record)
    best = record["best"]["validation"]
    steps = np.median(numbers(record["fresh"]["validation"]))
    assert line.startswith(f"tiny  heavy_ball  batch size 16: {steps:g} steps  ")
    assert f"lr {record['hyper']['lr'][best]:.3g}" in line
    assert f"momentum {record['hyper']['momentum'][best]:.3g}" in line
    assert "\n" not in line
    for word in ("decay", "widened", "diverged"):
        assert word not in line


BAD = [
    (lambda: Cell("chess", "sgd", 16), "task is 'chess'"),
    (lambda: Cell("tiny", "sgdd", 16), "optimizer is 'sgdd'"),
    (lambda: Cell("tiny", None, 16), "optimizer is None"),
    (lambda: cell("sgd", 0), "batch_size is 0"),
    (lambda: cell("sgd", 16.0), "batch_size is 16.0"),
    (lambda: cell("sgd", "16"), "batch_size is '16'"),
    (lambda: cell("sgd", True), "batch_size is True"),
    (lambda: cell("sgd", 16, trials=0), "trials is 0"),
    (lambda: cell("sgd", 16, seeds=0), "seeds is 0"),
    (lambda: cell("sgd", 16, finalists=0), "finalists is 0"),
    (lambda: cell("sgd", 16, final_seeds=-1), "final_seeds is -1"),
    (lambda: cell("sgd", 16, fresh=0), "fresh is 0"),
    (lambda: cell("sgd", 16, search_seed=-1), "search_seed is -1"),
    (lambda: run_cell(cell("sgd", 16), device="toaster"), "device is 'toaster'"),
    (lambda: run_cell("sgd"), "cell is 'sgd'"),
    (lambda: run_sweep(["sgd"], "nowhere"), "cell is 'sgd'"),
]


@pytest.mark.parametrize(("call", "message"), BAD, ids=[message for _, message in BAD])
def test_bad_input_names_parameter_value_and_what_is_allowed(call, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}.*allowed: "):
        call()


def test_a_folder_that_cannot_be_made_is_told(tmp_path, cells, runs):
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "sweeps"):
        with pytest.raises(ValueError, match=f"^folder is {re.escape(repr(str(folder)))}; allowed"):
            run_sweep(cells, folder, progress=False)
    assert runs == []


def test_a_tilde_is_the_home_folder(tmp_path, cells, runs, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (path,) = run_sweep(cells[:1], "~/sweeps", progress=False)
    assert path == tmp_path / "sweeps" / cells[0].file
    assert path.is_file()


def test_bad_sweeps_make_no_folder(tmp_path, cells):
    folder = tmp_path / "new"
    bad = [
        (cells, {"workers": 0}, "workers is 0"),
        (cells, {"workers": 1.5}, "workers is 1.5"),
        ([cells[0], replace(cells[0], trials=3)], {}, "cells is "),
    ]
    for sweep, options, message in bad:
        with pytest.raises(ValueError, match=f"^{re.escape(message)}.*allowed: "):
            run_sweep(sweep, folder, progress=False, **options)
    assert not folder.exists()


def test_a_device_of_torch_and_a_target_of_numpy_are_taken(task, tmp_path):
    task(targets={"validation": np.float32(0.8)})
    (path,) = run_sweep([cell("sgd", 96)], tmp_path, device=torch.device("cpu"), progress=False)
    assert json.loads(path.read_text("utf-8"))["targets"] == {"validation": float(np.float32(0.8))}


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda c, path: run_sweep(c, path), "cells is Cell.*; allowed: a sequence of Cell"),
        (lambda c, path: run_sweep([c], None), "folder is None; allowed: the path of a folder"),
        (lambda c, path: run_sweep([c], path, device="x"), "device is 'x'; allowed"),
        (lambda c, path: run_sweep([c], "/proc"), "folder is '/proc'; allowed: .*written to"),
    ],
)
def test_what_is_wrong_is_told_before_the_search(task, tmp_path, call, words):
    task()
    with pytest.raises(ValueError, match=f"^{words}"):
        call(cell("sgd", 96), tmp_path)


def test_a_target_above_the_loss_at_the_start_is_named(task):
    task(targets={"validation": 50.0})
    with pytest.raises(
        ValueError, match=r"^targets\['validation'\] is 50.0; allowed: one below the"
    ):
        run_cell(cell("sgd", 96))
