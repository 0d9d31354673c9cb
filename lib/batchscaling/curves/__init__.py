"""Curves of steps against batch size: results of sweeps, intervals, fits. Needs no torch."""

from batchscaling.curves.fits import (
    BatchSizeCurve,
    PowerFit,
    first_crossing,
    fit_hyperbola,
    fit_power,
    fit_shift,
)
from batchscaling.curves.geometry import Geometry, load_geometry
from batchscaling.curves.intervals import (
    bootstrap_interval,
    bootstrap_medians,
    geometric_interval,
    median_interval,
    verdict,
)
from batchscaling.curves.records import measured
from batchscaling.curves.results import CellResult, load_results, table

__all__ = [
    "BatchSizeCurve",
    "CellResult",
    "Geometry",
    "PowerFit",
    "bootstrap_interval",
    "bootstrap_medians",
    "first_crossing",
    "fit_hyperbola",
    "fit_power",
    "fit_shift",
    "geometric_interval",
    "load_geometry",
    "load_results",
    "measured",
    "median_interval",
    "table",
    "verdict",
]
