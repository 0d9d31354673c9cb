"""Interactive parts of the book: explorers that need no kernel, and controls for live notebooks."""

from batchscaling.widgets.explorers import (
    GeometryExplorer,
    MeasuredStepsExplorer,
    MomentumExplorer,
    PlaneExplorer,
    PreconditioningExplorer,
    RiskExplorer,
    StepsExplorer,
    ThermometerExplorer,
)
from batchscaling.widgets.live import live

__all__ = [
    "GeometryExplorer",
    "MeasuredStepsExplorer",
    "MomentumExplorer",
    "PlaneExplorer",
    "PreconditioningExplorer",
    "RiskExplorer",
    "StepsExplorer",
    "ThermometerExplorer",
    "live",
]
