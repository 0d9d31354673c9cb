"""Sweeps on a Ray cluster. Needs the extra `cluster`."""

import logging

from batchscaling import _validation as check
from batchscaling._errors import Failure
from batchscaling.training.runners.packed import packed, unpacked_run

RETRIES = 10
"""How often a cell is started again when its worker has died."""


def run_cells(run_cell, cells, device, address):
    """Yield cells and results, as they come, from the workers of a Ray cluster.

    A cell whose worker dies is started again on another one.

    Parameters
    ----------
    run_cell : callable
        ``run_cell(cell, device=device)`` returns the result of a cell.
    cells : sequence of Cell
    device : str
        "cuda" asks for one GPU for each cell.
    address : str
        Of the cluster, "auto" for the one that runs on this machine.

    Yields
    ------
    Cell, dict

    Raises
    ------
    ValueError
        If there is no cluster at the address, a task of the user's own cannot be sent, or a worker
        cannot import its module.
    Failure
        If the workers of a cell die again and again.
    """
    import ray
    from ray.exceptions import RayError, RayTaskError

    work = {cell: packed(run_cell, cell, device) for cell in cells}
    needs = {"num_cpus": 1, "num_gpus": int(device.startswith("cuda"))}
    with _connected(address):
        remote = ray.remote(**needs, max_retries=RETRIES)(unpacked_run)
        running = {remote.remote(*one): cell for cell, one in work.items()}
        while running:
            (done,), _ = ray.wait(list(running))
            cell = running.pop(done)
            try:
                result = ray.get(done)
            except RayTaskError as error:
                raise error.cause from None
            except RayError as error:
                raise Failure(f"{cell.file} failed: {error}") from error
            yield cell, result


def _connected(address):
    import ray

    try:
        return ray.init(address=address, log_to_driver=False, logging_level=logging.WARNING)
    except (ConnectionError, ValueError) as error:
        check.reject("ray", address, f"the address of a cluster ({error})")
