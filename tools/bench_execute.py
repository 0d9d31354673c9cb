"""Measure how long all chapters take, one after the other and as `make book` runs them."""

import time
from tempfile import TemporaryDirectory

from jupyter_cache import get_cache

from tools import book, execute, parallel

if __name__ == "__main__":
    start = time.perf_counter()
    for path in book.chapters():
        execute.run(path)
    alone = time.perf_counter() - start
    start = time.perf_counter()
    with TemporaryDirectory() as folder:
        failed = execute.execute(book.chapters(), get_cache(folder), parallel.cores())
    together = time.perf_counter() - start
    print(f"one after the other: {alone:.0f} seconds")
    print(f"{parallel.cores()} at a time: {together:.0f} seconds, {together / alone:.0%}")
    assert not failed, failed
