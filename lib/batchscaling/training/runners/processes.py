"""Cells in several processes on this machine."""

import multiprocessing
import os
import pickle
import signal
import threading
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial

from joblib import wrap_non_picklable_objects
from tqdm import tqdm

from batchscaling import _validation as check
from batchscaling._errors import Failure


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
        If a task of the user's own cannot be sent.
    Failure
        If a process dies.
    """
    packed = {cell: _packed(partial(run_cell, cell, device=device), cell) for cell in cells}
    context = multiprocessing.get_context("spawn")
    others = set(multiprocessing.active_children())
    with ProcessPoolExecutor(workers, context, initializer=_start_worker) as pool:
        try:
            with _ignoring_ctrl_c():
                running = {pool.submit(_run, work): cell for cell, work in packed.items()}
            for future in as_completed(running):
                yield running[future], future.result()
        except BrokenProcessPool as error:
            raise Failure(f"a process has died, perhaps for want of memory: {error}") from None
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in set(multiprocessing.active_children()) - others:
                process.terminate()
            raise


def _packed(work, cell):
    """Return a function without arguments as bytes, with what it needs, such as a task's lambdas.

    What a module holds goes by its name: the process imports it again.
    """
    try:
        return pickle.dumps(wrap_non_picklable_objects(work))
    except (TypeError, pickle.PicklingError) as error:
        allowed = f"one that can be sent to another process ({error})"
        check.reject("task", cell.settings["task"], allowed)


def _run(packed):
    return pickle.loads(packed)()


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
