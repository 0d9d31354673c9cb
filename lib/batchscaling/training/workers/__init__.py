"""Workers that share a trial's batch: what they exchange, and where they run."""

from batchscaling.training.workers.exchange import (
    ALL_HELD,
    Exchange,
    Held,
    local_steps,
    outer_steps,
    shared_mean,
    synchronous,
)

__all__ = [
    "ALL_HELD",
    "Exchange",
    "Held",
    "local_steps",
    "outer_steps",
    "shared_mean",
    "synchronous",
]
