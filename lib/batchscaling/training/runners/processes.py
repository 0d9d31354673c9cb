"""Cells in several processes on this machine."""

import multiprocessing
import os
import signal
import threading
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager

from tqdm import tqdm

from batchscaling._errors import Failure
from batchscaling.training.runners.packed import packed, unpacked_run


def run_cells(run_cell, cells, device, workers):
    """Yield cells and results, as they come, from processes on this machine.

    Parameters
    ----------
    run_cell : callable
        ``run_cell(cell, device=device)`` returns the result of a cell; a function of a module,
        which a new process can import.
    cells : sequence of Cell
    device : str
    workers : int
        Processes.

    Yields
    ------
    Cell, dict

    Raises
    ------
    ValueError
        If a task of the user's own cannot be sent, or a process cannot import its module.
    Failure
        If a process dies.
    """
    work = {cell: packed(run_cell, cell, device) for cell in cells}
    context = multiprocessing.get_context("spawn")
    others = set(multiprocessing.active_children())
    with ProcessPoolExecutor(workers, context, initializer=_start_worker) as pool:
        try:
            with _ignoring_ctrl_c():
                running = {pool.submit(unpacked_run, *one): cell for cell, one in work.items()}
            for future in as_completed(running):
                yield running[future], future.result()
        except BrokenProcessPool as error:
            raise Failure(f"a process has died, perhaps for want of memory: {error}") from None
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in set(multiprocessing.active_children()) - others:
                process.terminate()
            raise


@contextmanager
def _ignoring_ctrl_c():
    """Let new processes ignore Ctrl-C, which a terminal sends to all: this process ends them."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may change it
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _start_worker():
    """Let this process end at any moment, and when its parent has ended, however that was."""
    # The default is a semaphore, which outlives a process that is terminated.
    tqdm.set_lock(threading.RLock())

    def watch():
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
