"""Your own network: the noise of its gradients, measured while it trains. Needs torch."""

from batchscaling.practice.meter import NoiseMeter
from batchscaling.practice.reading import NoiseReading

__all__ = ["NoiseMeter", "NoiseReading"]
