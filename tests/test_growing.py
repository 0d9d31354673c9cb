"""Files of measurements that grow by a cell at a time."""

import json
from pathlib import Path

import pytest

from tools import measure_best_batch_size, measure_local_steps, measure_race
from tools.growing import fill, short

CELLS = [{"size": size, "seed": seed} for size in (1, 2) for seed in (0, 1)]
DATA = Path(__file__).parents[1] / "data"


def test_a_measurement_that_is_stopped_goes_on_where_it_ended(tmp_path):
    file, calls = tmp_path / "new" / "file.json", []

    def measure(size, seed):
        if len(calls) == 3:
            calls.append(None)
            raise KeyboardInterrupt
        calls.append((size, seed))
        return {"found": 10 * size + seed}

    with pytest.raises(KeyboardInterrupt):
        fill(file, "rows", CELLS, measure, "make it", about=7)
    half = json.loads(file.read_text("utf-8"))
    assert [row["found"] for row in half["rows"]] == [10, 11, 20]
    fill(file, "rows", CELLS, measure, "make it", about=7)
    whole = json.loads(file.read_text("utf-8"))
    assert calls == [(1, 0), (1, 1), (2, 0), None, (2, 1)]
    assert whole["rows"] == [cell | {"found": 10 * cell["size"] + cell["seed"]} for cell in CELLS]
    assert whole["about"] == 7 and whole["provenance"]["command"] == "make it"
    assert whole["provenance"]["seconds"] >= half["provenance"]["seconds"]


@pytest.mark.parametrize(
    ("file", "run"),
    [
        ("noise/best_batch_size.json", measure_best_batch_size.main),
        ("extrapolation/local_steps.json", measure_local_steps.main),
        (
            "practice/race/mnist-softmax.json",
            lambda file: measure_race.races_of("mnist-softmax", file),
        ),
    ],
)
def test_stored_measurements_are_whole(file, run, tmp_path, monkeypatch):
    for module in (measure_best_batch_size, measure_local_steps, measure_race):
        monkeypatch.setattr(module, "measure" if hasattr(module, "measure") else "raced", None)
    copy = tmp_path / "copy.json"
    copy.write_bytes((DATA / file).read_bytes())
    run(copy)
    assert copy.read_bytes() == (DATA / file).read_bytes()


def test_numbers_are_short_and_none_where_they_are_not_finite():
    assert short(1 / 3) == 0.333333 and short(123456.7, 4) == 123500.0
    assert [short(x) for x in (None, float("nan"), float("inf"), -float("inf"))] == [None] * 4


def test_two_that_fill_one_file_lose_nothing(tmp_path):
    file = tmp_path / "file.json"

    def measure(size, seed):
        if (size, seed) == (1, 0):  # meanwhile another process measures some, this one too
            fill(file, "rows", CELLS[:2], lambda size, seed: {"found": 0}, "make it")
        return {"found": 1}

    fill(file, "rows", CELLS, measure, "make it")
    rows = json.loads(file.read_text("utf-8"))["rows"]
    assert rows == [c | {"found": int(place > 1)} for place, c in enumerate(CELLS)]


def test_a_file_of_other_settings_is_refused_and_left_as_it_was(tmp_path):
    file = tmp_path / "file.json"
    fill(file, "rows", CELLS[:1], lambda **cell: {"found": 1}, "make it", target=0.2)
    before = file.read_bytes()
    with pytest.raises(ValueError, match=r"^file is .*one of \{'target': 0.1\}; it is of "):
        fill(file, "rows", CELLS, lambda **cell: {"found": 1}, "make it", target=0.1)
    assert file.read_bytes() == before
