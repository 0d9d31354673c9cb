"""Settings of the whole process: one made before torch is imported, others for a while."""

import ctypes
import os
import sys
from contextlib import contextmanager
from threading import Lock

# Without it the last bits of a matrix product depend on where in memory its matrices lie, and a
# trial on its neighbours. MKL reads this at its first product; it costs no time.
os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")

# Numbers of glibc's mallopt, see its manual page: the value to work with, and glibc's own.
_SETTINGS = {
    "M_TRIM_THRESHOLD": (-1, 2**30, 2**17),
    "M_TOP_PAD": (-2, 2**26, 2**17),
    "M_MMAP_MAX": (-4, 0, 2**16),
}
_users, _lock = 0, Lock()


@contextmanager
def kept_memory():
    """Let glibc keep freed memory for the next array; at the end, return what is free.

    A step makes and frees many arrays of megabytes. By default each is mapped anew, page by page,
    which can take longer than the arithmetic: half the time of a step of 64 trials of 256 examples.

    While it lasts, no free memory below a living array goes back to the system, however much it is.
    Afterwards glibc has the values that it starts with, which it no longer adapts.
    """
    global _users
    with _lock:
        _users += 1
        if _users == 1:
            _allocate(keep=True)
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if _users == 0:
                _allocate(keep=False)


def _allocate(*, keep):
    if sys.platform != "linux":
        return
    try:
        libc = ctypes.CDLL("libc.so.6")
        mallopt, trim = libc.mallopt, libc.malloc_trim
    except (OSError, AttributeError):
        return  # another C library
    for number, working, usual in _SETTINGS.values():
        mallopt(number, working if keep else usual)
    if not keep:
        trim(0)
