"""Stored measurements of curvature and noise: what a `Geometry` reads, and that files are whole."""

import json

import numpy as np
import pytest

from batchscaling.curves import Geometry, load_geometry
from batchscaling.curves.records import measured
from batchscaling.noise import Spectrum, lanczos_spectrum

TASKS = ("digits-mlp", "fashion-cnn-small", "mnist-autoencoder", "shakespeare-transformer")


def run(step, seed):
    return {
        "step": step,
        "seed": seed,
        "loss": 10 * step + seed,
        "rank": [1, 2, 5],
        "kronecker": [5, 2, 1],
        "diagonal": [4, 3, 1],
        "gauss_newton": {"nodes": [[0.0, 4.0], [1.0, 5.0]], "weights": [[0.5, 0.5], [0.5, 0.5]]},
        "layers": {"one": {"shown": [[9, 8], [3, 2], [7, 6]]}},
    }


TINY = Geometry({"dim": 8, "runs": [run(step, seed) for seed in (1, 0) for step in (3, 0)]})


def test_runs_are_found_by_step_and_seed():
    assert TINY.dim == 8 and TINY.steps.tolist() == [0, 3]
    assert TINY.run(3, 1)["loss"] == 31
    assert TINY.run(np.int64(0))["seed"] == 0
    steps, losses = TINY.over_steps(lambda run: run["loss"])
    assert steps.tolist() == [0, 3] and losses.tolist() == [[0, 30], [1, 31]]
    assert TINY.directions(3) == {"one": [[3, 2], [7, 6]]}


def test_three_spectra():
    spectra = TINY.spectra(TINY.run(0))
    assert [values.tolist() for values in spectra["K-FAC"]] == [[1, 2, 5], [5, 2, 1]]
    assert spectra["along its eigenvectors"][1].tolist() == [4, 3, 1]
    # Each node stands for two of eight eigenvalues; the one at zero is left out.
    assert [values.tolist() for values in spectra["Gauss–Newton"]] == [[1, 3, 5], [5, 4, 1]]


def test_the_slope_of_a_spectrum():
    rank = np.array([1.0, 2, 4, 8, 16])
    record = {**run(0, 0), "rank": rank.tolist(), "kronecker": (3 * rank**-1.5).tolist()}
    record["kronecker"][0] = 1e6  # outside
    assert TINY.slope(record, "K-FAC", 2, 16) == pytest.approx(1.5)
    assert TINY.slope(record, "K-FAC", 1, 16) > 2
    with pytest.raises(ValueError, match=r"^kind is 'other'; allowed: .*'K-FAC'"):
        TINY.slope(record, "other", 1, 16)
    with pytest.raises(ValueError, match=r"^low, high is \(5, 9\); allowed: "):
        TINY.slope(record, "K-FAC", 5, 9)


@pytest.mark.parametrize("task", TASKS)
def test_mean_curvatures_add_up_to_the_trace(task):
    geometry = load_geometry(task)
    found, sizes = geometry.run(0), geometry.record["sizes"]
    means = geometry.mean_curvature(found)
    for layer, held in found["layers"].items():
        # A layer is a matrix with its bias, or a vector of its own.
        own = [n for n in sizes if n in (layer, f"{layer}.weight", f"{layer}.bias")]
        weights = sum(sizes[name] for name in own)
        assert means[layer] * weights == pytest.approx(held["curvature"])


def test_ranks_of_a_known_spectrum():
    values = 1 / np.arange(1.0, 501)
    spectrum = lanczos_spectrum(lambda v: values * v, 500, steps=40, probes=30, seed=0)
    rank, found = spectrum.ranks()
    middle = (rank > 20) & (rank < 400)
    assert middle.sum() > 50
    np.testing.assert_allclose(np.log(found[middle] * rank[middle]), 0, atol=0.15)
    assert np.all(np.diff(rank) >= 0) and np.all(np.diff(found) <= 0)
    below = Spectrum(4, np.array([[-1.0, 2.0]]), np.array([[0.5, 0.5]]))
    assert [part.tolist() for part in below.ranks()] == [[1.0], [2.0]]


@pytest.mark.parametrize("task", TASKS)
def test_stored_files_are_whole(task):
    geometry = load_geometry(task)
    record = geometry.record
    assert geometry.dim == sum(record["sizes"].values())
    assert not record["provenance"]["commit"].endswith("-dirty")
    assert len(record["runs"]) == 3 * len(geometry.steps)
    for found in record["runs"]:
        assert found["rank"][-1] == geometry.dim
        traces = [
            sum(layer[name] for layer in found["layers"].values())
            for name in ("curvature", "noise")
        ]
        assert found["ratio"] == pytest.approx(traces[1] / traces[0], rel=1e-3)
        weights = np.array(found["gauss_newton"]["weights"])
        np.testing.assert_allclose(weights.sum(1), 1, rtol=1e-3)
    json.dumps(geometry.directions(0))


def test_what_was_not_measured_is_named():
    with pytest.raises(ValueError, match=r"^task is 'other'; allowed: .*digits-mlp"):
        load_geometry("other")
    with pytest.raises(ValueError, match=r"^step is 5; allowed: .*3"):
        TINY.run(5)
    with pytest.raises(ValueError, match=r"^seed is 2; allowed: "):
        TINY.run(3, 2)


def test_another_folder(tmp_path):
    (tmp_path / "mine.json").write_text(json.dumps(TINY.record))
    assert load_geometry("mine", tmp_path).record == TINY.record
    assert (measured().parent / "curvature").is_dir()
