"""What a student's notebook needs: its public tests, and the checks that tests are made of.

Nothing here knows a solution or a hidden test. `tools/classroom/` makes and grades assignments.
"""

from batchscaling.classroom.expect import expect, numbers, within
from batchscaling.classroom.grader import Grader
from batchscaling.classroom.plots import drawn, draws, plotted

__all__ = ["Grader", "drawn", "draws", "expect", "numbers", "plotted", "within"]
