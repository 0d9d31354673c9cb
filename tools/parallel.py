"""Do one thing to many chapters, in as many processes as there are cores."""

import os
from concurrent.futures import ProcessPoolExecutor, as_completed

import nbformat

from tools import anatomy

# One thread each: processes with more would wait for each other, and a chapter's results would
# depend on how many chapters run.
THREADS = {"OMP_NUM_THREADS": "1"}


def cores():
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def announced_seconds(path):
    """Return the run time that the first cell of the chapter at `path` announces."""
    line = anatomy.BOX_LAST_LINE.search(nbformat.read(path, as_version=4).cells[0].source)
    return int(line["seconds"]) if line else 0


def finished(function, paths, processes):
    """Call `function` with each path, and yield path and future as they finish.

    The longest chapters start first, so that none is left alone at the end.
    """
    longest_first = sorted(paths, key=announced_seconds, reverse=True)
    with ProcessPoolExecutor(processes, initializer=os.environ.update, initargs=[THREADS]) as pool:
        futures = {pool.submit(function, path): path for path in longest_first}
        for future in as_completed(futures):
            yield futures[future], future
