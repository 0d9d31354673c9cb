"""Cells one after the other, in this process."""


def run_cells(run_cell, cells, device, progress):
    """Yield cells and results, as they come.

    Parameters
    ----------
    run_cell : callable
        ``run_cell(cell, device=device, progress=progress)`` returns the result of a cell.
    cells : sequence of Cell
    device : str
    progress : bool

    Yields
    ------
    Cell, dict
    """
    for cell in cells:
        yield cell, run_cell(cell, device=device, progress=progress)
