"""What an execution gave is compared with what is stored as nbval would compare it."""

import nbformat
import pytest
from jupyter_cache.base import CacheBundleIn

from tests import replay
from tools import book

output = nbformat.v4.new_output
SAID = output("stream", text="one\ntwo\n")
SAID_IN_PIECES = [output("stream", text="one\n"), output("stream", text="two\n")]
ELSEWHERE = output("stream", name="stderr", text="one\ntwo\n")
RESULT = output("execute_result", data={"text/plain": "1.0"}, execution_count=1)
OTHER_RESULT = output("execute_result", data={"text/plain": "2.0"}, execution_count=1)
FIGURE = output("display_data", data={"image/png": "AAAA", "text/plain": "<Figure>"})
OTHER_FIGURE = output("display_data", data={"image/png": "BBBB", "text/plain": "<Figure>"})


def notebook(outputs, source="run()"):
    cell = nbformat.v4.new_code_cell(source, outputs=outputs, execution_count=1)
    return nbformat.v4.new_notebook(metadata=book.METADATA, cells=[cell])


@pytest.fixture
def compare(tmp_path, request):
    """Return a function that compares stored outputs of a cell with what executing it gave."""

    def differences(stored, gave, part="nqm", source="run()", executed="run()"):
        path = tmp_path / part / "01_small.ipynb"
        path.parent.mkdir()
        nbformat.write(notebook(stored, source), path)
        bundle = CacheBundleIn(notebook(gave, executed), str(path), data={"filled": []})
        return replay.differences(path, bundle, request.session)

    return differences


@pytest.mark.parametrize(
    "stored, gave",
    [
        ([], []),
        ([SAID], SAID_IN_PIECES),
        ([FIGURE], [OTHER_FIGURE]),
        ([RESULT, SAID], [SAID, RESULT]),
    ],
)
def test_same_outputs_have_no_difference(compare, stored, gave):
    assert compare(stored, gave) == []


@pytest.mark.parametrize(
    "stored, gave, message",
    [
        ([SAID], [SAID_IN_PIECES[0]], "mismatch 'stdout'"),
        ([SAID], [ELSEWHERE], "Missing output fields from running code: {'stdout'}"),
        ([], [SAID], "Unexpected output fields from running code: {'stdout'}"),
        ([RESULT], [OTHER_RESULT], "mismatch 'text/plain'"),
        ([RESULT], [RESULT, RESULT], "dissimilar number of outputs"),
        ([RESULT], [], "Missing output fields"),
    ],
)
def test_other_outputs_are_reported_where_all_machines_agree(compare, stored, gave, message):
    (difference,) = compare(stored, gave)
    assert message in difference and difference.startswith("Cell 0: Cell outputs differ\nrun()")


def test_other_outputs_elsewhere_are_none(compare):
    assert compare([RESULT], [OTHER_RESULT], part="networks") == []


def test_markers_of_nbval_count(compare):
    source = "# NBVAL_CHECK_OUTPUT\nrun()"
    assert len(compare([RESULT], [OTHER_RESULT], "noise", source, source)) == 1


def test_outputs_of_other_code_are_no_comparison(compare):
    with pytest.raises(AssertionError, match="this cell was not executed"):
        compare([RESULT], [RESULT], source="run(1)", executed="run(2)")
