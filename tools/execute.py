"""Execute the chapters that changed, several at a time.

    python -m tools.execute

The results go to the cache in `_build`, where the site's builder and the tests look for them.
"""

import copy
import hashlib
import sys
import sysconfig
import time
from importlib.metadata import distributions

import nbformat
from jupyter_cache import get_cache
from jupyter_cache.base import CacheBundleIn

from tools import book, filled, parallel, refresh
from tools.measure import PeakMemory

CACHE = book.ROOT / "_build" / ".jupyter_cache"
INPUTS = ("lib", "data", "tools/execute.py", "tools/filled.py", "tools/refresh.py")
"""What a chapter's results may depend on, besides its own code and installed versions."""


def run(path):
    """Execute the chapter at `path`; return what the cache stores of it."""
    notebook = nbformat.read(path, as_version=4)
    executed = copy.deepcopy(notebook)
    start = time.perf_counter()
    with PeakMemory() as memory:
        refresh.execute(executed, path.parent)
    data = {
        "execution_seconds": time.perf_counter() - start,
        "peak_bytes": memory.peak,
        "filled": filled.stored(executed),
    }
    # The cache knows a chapter by its code and metadata.
    for cell, original in zip(executed.cells, notebook.cells, strict=True):
        cell.metadata = original.metadata
    return CacheBundleIn(executed, str(path), data=data)


def inputs(root=book.ROOT):
    """Return a digest of the `INPUTS` below `root`, of Python and of all installed versions.

    Installed is what the environment holds, wherever else a process looks: Ray, once imported,
    adds packages of its own to the path.
    """
    folders = sorted({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})
    versions = sorted(f"{each.name} {each.version}" for each in distributions(path=folders))
    digest = hashlib.sha256("\n".join([sys.version, *versions]).encode())
    for path in sorted(path for name in INPUTS for path in files(root / name)):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        digest.update(f"{path.relative_to(root)} {content}\n".encode())
    return digest.hexdigest()


def files(path):
    """Yield the file at `path`, or those below it, without what running or installing made."""
    if path.is_file():
        yield path
    for file in path.rglob("*"):
        if file.is_file() and not {"__pycache__", "batchscaling.egg-info"} & {*file.parts}:
            yield file


def cached(path, cache):
    """Return what `cache` holds of the chapter at `path`, as `run` gave it, or None."""
    try:
        record = cache.match_cache_notebook(nbformat.read(path, as_version=4))
    except KeyError:
        return None
    return CacheBundleIn(cache.get_cache_bundle(record.pk).nb, str(path), data=record.data)


def stale(paths, cache):
    """Return the chapters of which `cache` holds no result that still counts."""
    now = inputs()
    results = {path: cached(path, cache) for path in paths}
    return [path for path, done in results.items() if not done or done.data.get("inputs") != now]


def execute(paths, cache, processes):
    """Execute chapters, store each result in `cache` and say so; return the names that failed."""
    failed, now = [], inputs()
    for count, (path, future) in enumerate(parallel.finished(run, paths, processes), 1):
        name = book.name(path)
        if error := future.exception():
            failed.append(name)
            print(f"{name} failed: {type(error).__name__}\n{error}", flush=True)
            continue
        bundle = future.result()
        bundle.data["inputs"] = now
        cache.cache_notebook_bundle(bundle, check_validity=False, overwrite=True)
        seconds = bundle.data["execution_seconds"]
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
