"""Run every chapter and print how long it takes and how much memory."""

import time

import nbformat

from tools import book
from tools.measure import PeakMemory
from tools.refresh import execute

if __name__ == "__main__":
    print(f"{'chapter':32}{'seconds':>10}{'peak MiB':>10}")
    for chapter in book.chapters():
        notebook = nbformat.read(chapter, as_version=4)
        start = time.perf_counter()
        with PeakMemory() as memory:
            execute(notebook, chapter.parent)
        seconds = time.perf_counter() - start
        print(f"{book.name(chapter):32}{seconds:10.1f}{memory.peak / 2**20:10.0f}")
