"""The program in the sandbox: runs a submission's cells, and answers with plain data.

    python inside.py IN OUT USER

IN and OUT are file descriptors. Each line of IN is a request, each line of OUT an answer. Nothing
here is trusted once the first cell has run: an answer is no more than what the submission says.
"""

import base64
import contextlib
import io
import json
import os
import signal
import sys

import wire

LONGEST_TEXT = 4000  # characters of a cell's output
LARGEST_FIGURE = 400_000  # bytes of a PNG
MOST_FIGURES = 8  # in one cell


def become(user):
    """Give up the rights of root; limits on processes do not bind root."""
    if user:
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)


def start_shell():
    """Return an IPython shell that can neither install nor run programs by magic."""
    from IPython.core.interactiveshell import InteractiveShell

    shell = InteractiveShell.instance()
    shell.history_manager.enabled = False
    shell.colors = "NoColor"
    shell.system = lambda command: print("not run while grading:", command)
    for name in ("pip", "conda", "mamba", "uv"):
        shell.register_magic_function(lambda line: print("not run while grading"), magic_name=name)
    return shell


@contextlib.contextmanager
def time_limit(seconds):
    """Raise TimeoutError in code that runs longer."""

    def stop(*_):
        raise TimeoutError(f"stopped after {seconds:g} seconds")

    signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def run(shell, source, seconds):
    """Run one cell; return its error, its text and its figures."""
    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.redirect_stderr(text), time_limit(seconds):
        result = shell.run_cell(source, store_history=False)
    error = result.error_before_exec or result.error_in_exec
    said = f"{type(error).__name__}: {error}"[:500] if error is not None else None
    return {"error": said, "text": text.getvalue()[:LONGEST_TEXT], "figures": figures()}


def figures():
    """Return the open figures as PNG, and close them."""
    pyplot = sys.modules.get("matplotlib.pyplot")
    if pyplot is None:
        return []
    drawn = []
    for number in pyplot.get_fignums()[:MOST_FIGURES]:
        png = io.BytesIO()
        pyplot.figure(number).savefig(png, format="png", dpi=70)
        drawn.append(base64.b64encode(png.getvalue()).decode())
    pyplot.close("all")
    return [png for png in drawn if len(png) < LARGEST_FIGURE]


def plain(value):
    """Return a value as data; axes as what they show."""
    if hasattr(value, "get_lines") and hasattr(value, "get_xscale"):
        from batchscaling.classroom import drawn

        value = drawn("axes", value)
    return wire.encode(value)


def answer(shell, request):
    """Return the answer to one request of the grader."""
    names = shell.user_ns
    if "ready" in request:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
        return request
    if "run" in request:
        return run(shell, request["run"], request["seconds"])
    if "get" in request:
        name = request["get"]
        return {"value": plain(names[name])} if name in names else {"missing": True}
    function, given = names[request["call"]], wire.decode(request["given"])
    with time_limit(request["seconds"]), contextlib.redirect_stdout(io.StringIO()):
        return {"value": plain(function(*given["args"], **given["kwargs"]))}


def main(read, write, user):
    """Answer requests until there are no more."""
    become(user)
    sys.path[0] = ""  # the submission's own folder, not that of this file
    with os.fdopen(read) as requests, os.fdopen(write, "w") as answers:
        shell = start_shell()
        for line in requests:
            try:
                said = answer(shell, json.loads(line))
            except BaseException as error:
                said = {"error": f"{type(error).__name__}: {error}"[:500]}
            answers.write(json.dumps(said) + "\n")
            answers.flush()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
