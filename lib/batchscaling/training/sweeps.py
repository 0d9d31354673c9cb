"""Sweeps: independent cells, each a search at one task, optimizer and batch size.

A cell ends in one file, written at once when it is complete. A cell whose file exists is done, so
a sweep that was stopped goes on where it was, and has lost only the cells in flight.
"""

import os
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryFile

from tqdm import tqdm

from batchscaling import _validation as check
from batchscaling.curves.records import read
from batchscaling.curves.results import CellResult
from batchscaling.training.cells import Cell, check_cell, run_cell
from batchscaling.training.device import check_device
from batchscaling.training.files import write_record
from batchscaling.training.own_tasks import is_of
from batchscaling.training.runners import cluster, here, processes


def run_sweep(cells, folder, *, device="cpu", workers=1, ray=None, progress=True):
    """Run the cells whose files do not exist yet, and write their files.

    Parameters
    ----------
    cells : sequence of Cell
    folder : path-like
        Of the files; made if it does not exist.
    device : str or torch.device
    workers : int
        Processes on this machine.
    ray : str, optional
        Address of a Ray cluster that runs the cells instead, "auto" for the one that runs here.
    progress : bool
        Whether to show a bar over cells and a line for each.

    Returns
    -------
    list of Path
        The files of all cells.

    Raises
    ------
    ValueError
        If a file or another one of `cells` is another search at the same task, optimizer and
        batch size, or of another task of the same name, a task cannot be sent to another process,
        the folder cannot be made, or an argument is outside its range.
    Failure
        If a process dies.
    """
    if isinstance(cells, Cell) or not isinstance(cells, Iterable):
        check.reject("cells", cells, "a sequence of Cell, such as [Cell('digits-mlp', 'sgd', 64)]")
    cells = [check_cell(cell) for cell in cells]
    cells, device = list(dict.fromkeys(cells)), str(check_device(device))
    if len({cell.file for cell in cells}) < len(cells):
        check.reject("cells", cells, "one search for each task, optimizer and batch size")
    workers = check.integer("workers", workers, 1)
    folder = _made(folder)
    todo = [cell for cell in cells if not _is_done(cell, folder / cell.file)]
    if ray is not None:
        done = cluster.run_cells(run_cell, todo, device, ray)
    elif workers > 1:
        done = processes.run_cells(run_cell, todo, device, workers)
    else:
        done = here.run_cells(run_cell, todo, device, progress)
    bar = tqdm(total=len(todo), desc="cells", disable=not progress)
    with bar, closing(done):
        for cell, result in done:
            write_record(folder / cell.file, result)
            bar.update()
            if progress:
                bar.write(summary(result))
    return [folder / cell.file for cell in cells]


def summary(result):
    """Return a line that says what a cell's result is."""
    cell = CellResult.of(result)
    steps = "target not reached"
    if cell.tuned():
        steps = f"{cell.interval()[1]:g} steps"
    parts = [f"{cell.task}  {cell.optimizer}  batch size {cell.batch_size}: {steps}"]
    parts += [f"{name} {value:.3g}" for name, value in cell.tuned().items()]
    parts.append(f"({result['provenance']['seconds']:.0f} s)")
    parts += dict.fromkeys(f"[{grown['name']} widened]" for grown in result["widened"])
    stable = (~cell.diverged.any(axis=1)).sum()
    if stable < result["cell"]["trials"]:
        parts.append(f"[all but {stable} settings diverged]")
    return "  ".join(parts)


def _made(folder):
    """Return the folder as a path, made if need be."""
    if not isinstance(folder, str | os.PathLike):
        check.reject("folder", folder, "the path of a folder")
    folder = Path(os.path.expanduser(folder))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        allowed = f"one that exists or can be made, and can be written to ({error.strerror})"
        check.reject("folder", str(folder), allowed)
    return folder


def _is_done(cell, path):
    """Return whether the cell's file exists; refuse one of another search."""
    if not path.exists():
        return False
    record = read(path)
    held = record["cell"]
    if held != cell.settings:
        check.reject(
            "folder", str(path.parent), f"one without {path.name} of another search, {held}"
        )
    if not is_of(record, cell.task):
        allowed = f"one without {path.name} of another task called {held['task']!r}"
        check.reject("folder", str(path.parent), allowed)
    return True
