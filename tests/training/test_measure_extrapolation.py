"""The search behind the measured methods of extrapolation: it resumes, and is fair to each cell."""

import json

import numpy as np
import pytest
import tiny

from batchscaling.training import Trials, hyperparameters, synchronous, train
from batchscaling.training.optimizers import nesterov
from tools import measure_extrapolation as tool

CELLS = (
    tool.Cell("nesterov", 16, 4),
    tool.Cell("extrap_sgd", 16, 4, momentum=0.5),
    tool.Cell("nesterov", 16, 2, end="decay", every=2),
)
SMALL = tool.Setting(
    task=lambda: tiny.TINY,
    cells=CELLS,
    budget=320,
    trials=8,
    seeds=2,
    finalists=2,
    final_seeds=3,
    fresh=4,
)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setitem(tool.SETTINGS, "tiny", SMALL)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Return the stored cells of the small setting, measured in one go."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(tool.SETTINGS, "tiny", SMALL)
        tool.main("tiny", "cpu", folder)
    return stored(folder)


def stored(folder):
    cells = json.loads((folder / "methods-tiny.json").read_text("utf-8"))["cells"]
    for cell in cells:
        assert cell.pop("provenance")["command"].startswith("python -m tools.measure_extrapolation")
    return cells


def infinite(scores):
    return np.array([[np.inf if s is None else s for s in np.atleast_1d(row)] for row in scores])


def test_a_run_that_is_stopped_goes_on_with_the_next_cell(whole, tmp_path, monkeypatch):
    run, begun = tool.Search.run, []

    def stopped(search):
        begun.append(search.cell)
        if len(begun) == 2:
            raise KeyboardInterrupt
        return run(search)

    monkeypatch.setattr(tool.Search, "run", stopped)
    with pytest.raises(KeyboardInterrupt):
        tool.main("tiny", "cpu", tmp_path)
    assert stored(tmp_path) == whole[:1]
    tool.main("tiny", "cpu", tmp_path)
    assert begun == [*CELLS[:2], *CELLS[1:]]
    assert stored(tmp_path) == whole
    tool.main("tiny", "cpu", tmp_path)
    assert len(begun) == 4


def test_the_best_of_the_search_are_tried_again_and_the_winner_has_fresh_seeds(whole):
    for cell in whole:
        search, final = infinite([cell["search"]])[0], infinite(cell["final"])
        assert len(search) == cell["settings"] >= SMALL.trials
        assert cell["settings"] == SMALL.trials + SMALL.trials // 2 * len(cell["widened"])
        assert final.shape == (SMALL.finalists, SMALL.final_seeds)
        best = np.argsort(search, kind="stable")[: SMALL.finalists]
        winner = best[final.mean(axis=1).argmin()]
        found = {name: [values[winner]] for name, values in cell["values"].items()}
        if cell["cell"]["momentum"] is not None:
            found["momentum"] = [cell["cell"]["momentum"]]
        found = {name: v.item() for name, v in hyperparameters(found).items()}
        assert cell["hyper"] == pytest.approx(found, rel=1e-3)
        assert len(cell["scores"]) == SMALL.fresh
    assert whole[1]["hyper"]["momentum"] == 0.5 and "momentum" not in whole[1]["values"]
    assert "accuracy" in whole[2] and "accuracy" not in whole[0]


def test_scores_are_those_of_an_ordinary_run_with_the_seeds_said(whole):
    """Fresh seeds begin at 2,000, those of the search at 0."""
    cell = whole[0]
    how = {"target": tiny.TINY.targets, "exact": False, "exchange": synchronous(4)}
    how |= {"batch_size": 16, "max_steps": tiny.TINY.max_steps(16)}
    values = {name: [v[0]] for name, v in cell["values"].items()}
    first = {n: np.repeat(v, 2) for n, v in hyperparameters(values).items()}
    hyper = {name: np.full(4, value) for name, value in cell["hyper"].items()}
    for seeds, columns, scores in (
        (np.arange(2), first, cell["search"][0]),
        (np.arange(2000, 2004), hyper, cell["scores"]),
    ):
        run = train(tiny.load(), tiny.TINY.model, nesterov, Trials(seeds, columns), **how)
        found = run.steps_to_target
        found = [found.mean()] if np.ndim(scores) == 0 else found
        assert tool.numbers(np.asarray(found)) == pytest.approx(np.atleast_1d(scores).tolist())


def test_borders_are_told_but_where_less_is_as_good_as_none():
    search = tool.Search(SMALL, CELLS[1], tiny.TINY, tiny.load(), "cpu")
    search.values = {name: space.values([0.05, 0.5]) for name, space in search.space.items()}
    assert "relative_extrapolation" in search.space
    assert search.borders(0) == [("effective_lr", "low"), ("decay", "low")]
    assert search.borders(1) == []


@pytest.mark.parametrize("cell", CELLS[::2])
def test_a_setting_that_diverges_is_the_worst(cell):
    search = tool.Search(SMALL, cell, tiny.TINY, tiny.load(), "cpu")
    search.attempt({**search.space, "effective_lr": tool.Range(1e20, 1e22)}, 2)
    assert np.isinf(search.scores).all()


def test_a_second_attempt_goes_on_where_the_first_ended():
    one, two = (tool.Search(SMALL, CELLS[0], tiny.TINY, tiny.load(), "cpu") for _ in range(2))
    one.attempt(one.space, 6)
    for _ in range(2):
        two.attempt(two.space, 3)
    np.testing.assert_array_equal(two.values["effective_lr"], one.values["effective_lr"])
    np.testing.assert_array_equal(two.scores, one.scores)


def test_winners_may_train_with_more_seeds(tmp_path):
    tool.main("tiny", "cpu", tmp_path)
    before = stored(tmp_path)
    tool.measure_more("tiny", 5, "cpu", tmp_path)
    after = stored(tmp_path)
    for old, new in zip(before, after, strict=True):
        more, origin = new.pop("more", None), new.pop("provenance of more", None)
        assert new == old and (more is None) == (old["cell"]["end"] != "target")
        if more is not None:
            assert origin["command"].endswith("tiny --more 5 --device cpu")
            seeds = np.arange(tool.MORE, tool.MORE + 5)
            trials = Trials(seeds, {name: np.full(5, v) for name, v in old["hyper"].items()})
            expected = train(
                tiny.load(),
                tiny.TINY.model,
                tool.OPTIMIZERS[old["cell"]["method"]],
                trials,
                batch_size=16,
                max_steps=tiny.TINY.max_steps(16),
                target=tiny.TINY.targets,
                exchange=synchronous(4),
            ).steps_to_target
            np.testing.assert_array_equal(infinite(more)[:, 0], expected)
    tool.measure_more("tiny", 7, "cpu", tmp_path)
    assert len(json.loads((tmp_path / "methods-tiny.json").read_text())["cells"][0]["more"]) == 5
