"""Work for another process as bytes, and the errors of a task that cannot get there."""

import pickle
from functools import partial

from joblib import wrap_non_picklable_objects

from batchscaling import _validation as check


def packed(run_cell, cell, device):
    """Return what `unpacked_run` takes: a cell's task by its name, and its work as bytes.

    It holds what the work needs, such as a task's lambdas. What a module holds goes by its name:
    the other process imports it again.

    Raises
    ------
    ValueError
        If a task of the user's own cannot be sent.
    """
    name = cell.settings["task"]
    try:
        work = wrap_non_picklable_objects(partial(run_cell, cell, device=device))
        return name, pickle.dumps(work)
    except (TypeError, pickle.PicklingError) as error:
        check.reject("task", name, f"one that can be sent to another process ({error})")


def unpacked_run(name, work):
    """Do the work of a cell, in another process, and return the result.

    Raises
    ------
    ValueError
        If this process cannot import a module that the task comes from.
    """
    try:
        run = pickle.loads(work)
    except (ImportError, AttributeError) as error:
        allowed = "one whose modules every process can import, such as load_task('module:name')"
        check.reject("task", name, f"{allowed} ({error})")
    return run()
