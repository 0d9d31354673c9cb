"""What was measured of a network's curvature and gradient noise, as it trained."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from batchscaling import _validation as check
from batchscaling.curves.fits import fit_power
from batchscaling.curves.records import measured
from batchscaling.spectrum import Spectrum


@dataclass(frozen=True, eq=False)
class Geometry:
    """Measurements of one network at several steps, with several seeds.

    Attributes
    ----------
    record : dict
        The file; its fields stand in ``data/README.md`` of the repository.
    """

    record: dict

    @property
    def dim(self):
        """Number of parameters."""
        return self.record["dim"]

    @property
    def steps(self):
        """The steps at which it was measured, rising; an array of int."""
        return np.unique([run["step"] for run in self.record["runs"]])

    def run(self, step, seed=0):
        """Return what was measured at a step with a seed, a dict.

        Raises
        ------
        ValueError
            If nothing was.
        """
        check.one_of("step", step, self.steps.tolist())
        runs = {run["seed"]: run for run in self.record["runs"] if run["step"] == step}
        return runs[check.one_of("seed", seed, list(runs))]

    def over_steps(self, read):
        """Return the steps, and a number of every run.

        Parameters
        ----------
        read : callable
            Maps a run, as `run` returns it, to a number.

        Returns
        -------
        steps : ndarray of int, shape (k,)
        values : ndarray, shape (seeds, k)
        """
        runs = sorted(self.record["runs"], key=lambda run: (run["seed"], run["step"]))
        values = np.array([read(run) for run in runs], dtype=float)
        return self.steps, values.reshape(-1, len(self.steps))

    def directions(self, step):
        """Return curvatures and noise of some directions of each layer, of the first seed.

        Returns
        -------
        dict of str to list
            Two lists of equal length, by the layer's name.
        """
        return {name: layer["shown"][1:] for name, layer in self.run(step)["layers"].items()}

    def spectra(self, run):
        """Return three spectra of a run: pairs of ranks and of falling curvatures, by name.

        "K-FAC" are the eigenvalues of the product of its factors, "along its eigenvectors" the
        sorted curvatures along these, and "Gauss–Newton" is Lanczos' quadrature of the true
        matrix, as `Spectrum.ranks` gives it.
        """
        parts = (np.array(run["gauss_newton"][name]) for name in ("nodes", "weights"))
        rank = np.array(run["rank"])
        return {
            "K-FAC": (rank, np.array(run["kronecker"])),
            "along its eigenvectors": (rank, np.array(run["diagonal"])),
            "Gauss–Newton": Spectrum(self.dim, *parts).ranks(),
        }

    def slope(self, run, kind, low, high):
        """Return the s of the power law i^-s through a spectrum of a run, by least squares.

        Parameters
        ----------
        run : dict
        kind : str
            A name of `spectra`.
        low, high : float
            Ranks between which it is fitted.

        Raises
        ------
        ValueError
            If there is no such spectrum, or it has fewer than two ranks there.
        """
        spectra = self.spectra(run)
        rank, values = spectra[check.one_of("kind", kind, list(spectra))]
        inside = (rank >= low) & (rank <= high) & (values > 0)
        if inside.sum() < 2:
            check.reject("low, high", (low, high), "ends with two ranks between them, or more")
        return -fit_power(rank[inside], values[inside]).exponent

    def mean_curvature(self, run):
        """Return the mean curvature of a weight in each layer of a run, a dict of str to float."""
        sizes = self.record["sizes"].items()
        weights = {
            layer: sum(
                size for name, size in sizes if name == layer or name.startswith(f"{layer}.")
            )
            for layer in run["layers"]
        }
        return {name: layer["curvature"] / weights[name] for name, layer in run["layers"].items()}


def load_geometry(task, folder=None):
    """Return the measured `Geometry` of a task's network.

    Parameters
    ----------
    task : str
        Such as "digits-mlp".
    folder : path-like, optional
        Where the files are; the book's own without it.

    Raises
    ------
    ValueError
        If the task was not measured.
    """
    folder = measured().parent / "curvature" if folder is None else Path(folder)
    files = {path.stem: path for path in sorted(folder.glob("*.json"))}
    path = files[check.one_of("task", task, list(files))]
    return Geometry(json.loads(path.read_text("utf-8")))
