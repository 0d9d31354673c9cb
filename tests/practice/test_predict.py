"""Predictions from measured steps: what they refuse."""

import pytest

from batchscaling.practice.predict import fastest, step_seconds


@pytest.mark.parametrize("sizes", [[8, 1], [1, 1], [1, 8, 4]])
def test_measured_batch_sizes_must_increase(sizes):
    seconds = range(1, len(sizes) + 1)
    for call in (lambda: step_seconds(sizes, seconds, [4]), lambda: fastest(50, sizes, seconds)):
        with pytest.raises(ValueError, match=r"^batch_sizes is .*; allowed: increasing numbers"):
            call()
