"""Sweeps on a Ray cluster. Needs the extra `cluster`."""

import logging

RETRIES = 10
"""How often a cell is started again when its worker has died."""


def run_cells(cells, device, address):
    """Yield cells and results, as they come, from the workers of a Ray cluster.

    A cell whose worker dies is started again on another one.

    Parameters
    ----------
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
    RuntimeError
        If the workers of a cell die again and again.
    """
    import ray
    from ray.exceptions import RayError, RayTaskError

    from batchscaling.training.sweeps import run_cell

    needs = {"num_cpus": 1, "num_gpus": int(device.startswith("cuda"))}
    with ray.init(address=address, log_to_driver=False, logging_level=logging.WARNING):
        remote = ray.remote(**needs, max_retries=RETRIES)(run_cell)
        running = {remote.remote(cell, device=device): cell for cell in cells}
        while running:
            (done,), _ = ray.wait(list(running))
            cell = running.pop(done)
            try:
                result = ray.get(done)
            except RayTaskError as error:
                raise error.cause from None
            except RayError as error:
                raise RuntimeError(f"{cell.file} failed: {error}") from error
            yield cell, result
