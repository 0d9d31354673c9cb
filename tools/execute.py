"""Execute the chapters that changed, several at a time.

    python -m tools.execute

The results go to the cache in `_build`, where the site's builder looks for them.
"""

import sys
import time

import nbformat
from jupyter_cache import get_cache
from jupyter_cache.base import CacheBundleIn
from jupyter_cache.executors.utils import single_nb_execution

from tools import book, parallel
from tools.refresh import TIMEOUT

CACHE = book.ROOT / "_build" / ".jupyter_cache"


def run(path):
    """Execute the chapter at `path`; return what the cache stores of it."""
    notebook = nbformat.read(path, as_version=4)
    result = single_nb_execution(
        notebook, cwd=str(path.parent), timeout=TIMEOUT, allow_errors=False
    )
    if result.err:
        raise result.err
    return CacheBundleIn(result.nb, str(path), data={"execution_seconds": result.time})


def stale(paths, cache):
    """Return the chapters of which `cache` holds no result."""

    def known(path):
        try:
            return cache.match_cache_notebook(nbformat.read(path, as_version=4))
        except KeyError:
            return None

    return [path for path in paths if not known(path)]


def execute(paths, cache, processes):
    """Execute chapters, store each result in `cache` and say so; return the names that failed."""
    failed = []
    for count, (path, future) in enumerate(parallel.finished(run, paths, processes), 1):
        name = book.name(path)
        if error := future.exception():
            failed.append(name)
            print(f"{name} failed: {type(error).__name__}\n{error}", flush=True)
            continue
        record = cache.cache_notebook_bundle(future.result(), check_validity=False, overwrite=True)
        seconds = record.data["execution_seconds"]
        print(f"{count:3} of {len(paths)}: {name}, {seconds:.0f} seconds", flush=True)
    return failed


def announce(paths, processes):
    """Print how long executing these chapters will take, as their first cells announce it."""
    seconds = [parallel.announced_seconds(path) for path in paths]
    longest = max([sum(seconds) / processes, *seconds])
    print(
        f"Executing {len(paths)} of {len(book.chapters())} chapters, "
        f"{processes} at a time: about {longest:.0f} seconds.",
        flush=True,
    )


def main():
    """Execute what is stale; return the exit status."""
    start = time.perf_counter()
    cache = get_cache(CACHE)
    paths = stale(book.chapters(), cache)
    if not paths:
        print("No chapter has changed.")
        return 0
    processes = min(parallel.cores(), len(paths))
    announce(paths, processes)
    failed = execute(paths, cache, processes)
    print(f"Executed in {time.perf_counter() - start:.0f} seconds.")
    return f"failed: {', '.join(failed)}" if failed else 0


if __name__ == "__main__":
    sys.exit(main())
