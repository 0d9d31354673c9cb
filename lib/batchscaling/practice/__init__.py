"""Your own network: gradient noise, batch sizes that lose nothing, and advice. Needs torch."""

from batchscaling.practice.advice import Advice
from batchscaling.practice.advise import advise
from batchscaling.practice.branch import branch
from batchscaling.practice.contest import Race
from batchscaling.practice.meter import NoiseMeter
from batchscaling.practice.paired import BranchedCheck
from batchscaling.practice.predict import Moved, Row
from batchscaling.practice.race import race
from batchscaling.practice.reading import NoiseReading
from batchscaling.practice.throughput import Throughput

__all__ = [
    "Advice",
    "BranchedCheck",
    "Moved",
    "NoiseMeter",
    "NoiseReading",
    "Race",
    "Row",
    "Throughput",
    "advise",
    "branch",
    "race",
]
