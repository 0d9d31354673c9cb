"""Measure the memory that the Jupyter kernels started by this process take."""

import threading
import time

import psutil


class PeakMemory:
    """Context manager; `peak` is the largest sum of resident memory seen, in bytes.

    Counts this process's descendants that are Jupyter kernels, and what those start in turn.
    """

    INTERVAL = 0.02  # seconds
    LOOK = 0.2  # seconds after which it looks for new processes, which takes longer

    def __enter__(self):
        self.peak = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *exception):
        self._done.set()
        self._thread.join()

    def _watch(self):
        family, looked = set(), 0.0
        while not self._done.wait(self.INTERVAL):
            if time.monotonic() - looked > self.LOOK:
                family, looked = kernels(), time.monotonic()
            self.peak = max(self.peak, sum(map(resident, family)))


def kernels():
    """Return the running Jupyter kernels below this process, with their own children."""
    family = []
    for process in psutil.Process().children(recursive=True):
        try:
            if any("ipykernel" in word for word in process.cmdline()):
                family += [process, *process.children(recursive=True)]
        except psutil.NoSuchProcess:
            continue
    return set(family)


def resident(process):
    """Return a process's resident memory in bytes, zero once it has ended."""
    try:
        return process.memory_info().rss
    except psutil.NoSuchProcess:
        return 0
