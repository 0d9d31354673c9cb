"""What nbval says of a stored notebook, when its kernel gives what an execution gave before."""

from nbval.plugin import IPyNbFile, NbCellError

from tools import anatomy, book, filled


class Replay:
    """A kernel that answers nbval with the outputs of one executed cell."""

    def __init__(self, executed):
        self.executed = executed

    def is_alive(self):
        return True

    def execute_cell_input(self, source, allow_stdin):
        assert source == self.executed.source, "this cell was not executed"
        self.messages = [(each.output_type, each) for each in self.executed.outputs]
        self.messages.append(("status", {"execution_state": "idle"}))
        return "cell"

    def await_reply(self, asked, timeout):
        """Nothing is left to be done."""

    def get_message(self, stream, timeout):
        kind, content = self.messages.pop(0)
        return {"msg_type": kind, "content": content, "parent_header": {"msg_id": "cell"}}


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def differences(path, bundle, session):
    """Return how the notebook stored at `path` differs from what executing it gave.

    Outputs are compared by nbval, strictly where every machine agrees on them. Texts that code
    fills in are compared strictly everywhere.

    Parameters
    ----------
    path : Path
    bundle : CacheBundleIn
        What `tools.execute.run` returned.
    session : pytest.Session

    Returns
    -------
    list of str
    """
    file = IPyNbFile.from_parent(session, path=path)
    file.compare_outputs = book.name(path).startswith(anatomy.WITHOUT_TORCH)
    found = []
    for stored, executed in zip(file.collect(), code_cells(bundle.nb), strict=True):
        if stored.options["skip"]:
            continue
        file.kernel = Replay(executed)
        try:
            stored.runtest()
        except NbCellError as error:
            found.append(f"{stored.name}: {error}\n{error.source}\n{error.inner_traceback}")
    return found + filled.differences(file.nb, bundle.data["filled"])
