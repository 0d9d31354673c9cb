"""What a student's notebook needs: its public tests, and the checks that tests are made of.

Nothing here knows a solution or a hidden test. `tools/classroom/` makes and grades assignments.
"""

from batchscaling.classroom.expect import drawn, expect, numbers, within
from batchscaling.classroom.grader import Grader

__all__ = ["Grader", "drawn", "expect", "numbers", "within"]
