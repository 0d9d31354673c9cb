"""Sweeps on a Ray cluster. Needs the extra `cluster`."""


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
    """
    import ray

    from batchscaling.training.sweeps import run_cell

    with ray.init(address=address):
        remote = ray.remote(num_cpus=1, num_gpus=int(device == "cuda"), max_retries=-1)(run_cell)
        running = {remote.remote(cell, device=device): cell for cell in cells}
        while running:
            (done,), _ = ray.wait(list(running))
            yield running.pop(done), ray.get(done)
