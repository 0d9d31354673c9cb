"""Settings of the whole process, made before torch is imported."""

import ctypes
import os
import sys

# Without it the last bits of a matrix product depend on where in memory its matrices lie, and a
# trial on its neighbours. MKL reads this at its first product; it costs no time.
os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")

# Numbers of glibc's mallopt, see its manual page.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4


def keep_memory():
    """Let glibc keep freed memory, up to 1 GiB, for the next array.

    A step makes and frees many arrays of megabytes. By default each is mapped anew, page by page,
    which can take longer than the arithmetic: half the time of a step of 64 trials of 256 examples.
    """
    if sys.platform == "linux":
        try:
            mallopt = ctypes.CDLL("libc.so.6").mallopt
        except (OSError, AttributeError):
            return  # another C library
        mallopt(_MMAP_MAX, 0)
        mallopt(_TOP_PAD, 2**26)
        mallopt(_TRIM_THRESHOLD, 2**30)


keep_memory()
