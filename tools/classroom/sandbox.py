"""One process that runs a submission, with bubblewrap around it.

It has no network, sees no process but its own, and of the disk only Python, the library with its
measured results, and two empty folders in memory. It cannot see other submissions, hidden tests,
masters, or the grader. Memory, processes, time and disk are limited.
"""

import contextlib
import json
import os
import resource
import select
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

import batchscaling

HERE = Path(__file__).resolve().parent
USERS = range(60_000, 62_000)  # nobody's numbers: who a submission is where root grades
START = 120  # seconds that a sandbox may take to start
INTERVAL = 0.1  # seconds between two looks at memory and processes
NOT_ISOLATED = (
    "bubblewrap (the command bwrap) is missing, so a submission could read your files, use the "
    "network and change anything that you can change. Time, memory and processes are limited, and "
    "verdicts are still made outside of its process. Install bubblewrap (Debian: apt install "
    "bubblewrap), or say UNSANDBOXED=yes (--unsandboxed) if you trust these students."
)


@dataclass(frozen=True)
class Limits:
    """What a submission may use; times in seconds, sizes in bytes."""

    cell: float = 60
    call: float = 30
    total: float = 300
    memory: int = 2 * 2**30
    disk: int = 64 * 2**20
    message: int = 64 * 2**20
    processes: int = 64


class Ended(Exception):
    """The process of a submission came to an end; the text says why."""


class Unusable(RuntimeError):
    """The sandbox does not work on this machine: no submission is to blame."""


class Sandbox:
    """The process of one submission.

    Parameters
    ----------
    limits : Limits
    isolated : bool
        Whether to use bubblewrap.
    folder : path
        An empty folder, the process's working directory if it is not isolated.

    Attributes
    ----------
    peak : int
        The largest memory that it was seen to take, in bytes.
    """

    def __init__(self, limits, isolated, folder):
        self.limits, self.peak, self._reason, self._rest = limits, 0, None, b""
        inner_read, self._write = os.pipe()
        self._read, inner_write = os.pipe()
        os.set_blocking(self._write, False)
        with tempfile.TemporaryFile() as complaints:
            self._process = subprocess.Popen(
                command(limits, isolated, inner_read, inner_write),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=complaints,
                pass_fds=(inner_read, inner_write),
                env=environment(),
                cwd=folder,
                start_new_session=True,
                preexec_fn=lambda: restrict(limits),
            )
            os.close(inner_read)
            os.close(inner_write)
            self._watcher = threading.Thread(target=self._watch, daemon=True)
            self._watcher.start()
            self._await_ready(complaints)

    def ask(self, request, deadline):
        """Send a request and return the answer, or raise Ended."""
        try:
            self._send(json.dumps(request).encode() + b"\n", deadline)
            return self._receive(deadline)
        except Ended:
            self.close()
            raise Ended(self._reason or "its process ended by itself") from None

    def close(self):
        """End the process and all that it started."""
        for process in [*family(self._process.pid), self._process]:
            kill(process)
        self._process.wait()
        self._watcher.join()
        for end in (self._read, self._write):
            if end is not None:
                os.close(end)
        self._read = self._write = None

    def _await_ready(self, complaints):
        try:
            self.ask({"ready": True}, time.monotonic() + START)
        except Ended as end:
            complaints.seek(0)
            said = complaints.read(2000).decode(errors="replace")
            raise Unusable(f"a sandbox does not start: {end}\n{said}") from None

    def _end(self, reason):
        self._reason = self._reason or reason
        raise Ended

    def _wait(self, deadline, read=(), write=()):
        left = deadline - time.monotonic()
        if left <= 0 or not any(select.select(read, write, [], left)[:2]):
            self._end("it took too long")

    def _send(self, data, deadline):
        while data:
            self._wait(deadline, write=[self._write])
            try:
                data = data[os.write(self._write, data) :]
            except BrokenPipeError:
                raise Ended from None

    def _receive(self, deadline):
        parts = [self._rest]
        size = len(self._rest)
        while b"\n" not in parts[-1]:
            self._wait(deadline, read=[self._read])
            parts.append(os.read(self._read, 2**20))
            size += len(parts[-1])
            if not parts[-1]:
                raise Ended
            if size > self.limits.message:
                self._end("it sent too much")
        line, _, self._rest = b"".join(parts).partition(b"\n")
        return parsed(line)

    def _watch(self):
        """Kill the process if it takes too much memory, or becomes too many."""
        while self._process.poll() is None:
            processes = family(self._process.pid)
            memory = sum(map(resident, processes))
            self.peak = max(self.peak, memory)
            if memory > self.limits.memory:
                self._reason = f"it took more than {self.limits.memory / 2**30:.2g} GiB of memory"
            elif len(processes) > self.limits.processes:
                self._reason = f"it started more than {self.limits.processes} processes"
            if self._reason:
                for process in [*processes, self._process]:
                    kill(process)
            time.sleep(INTERVAL)


def parsed(line):
    """Return an answer as a dict; whatever else was sent is none."""
    try:
        answer = json.loads(line)
    except (ValueError, RecursionError):
        answer = None
    return answer if isinstance(answer, dict) else {"error": "no answer that could be read"}


def command(limits, isolated, read, write):
    """Return the command line of the process."""
    if not isolated:
        inside = [sys.executable, str(HERE / "inside.py")]
        return [*inside, str(read), str(write), "0"]
    library, data = Path(batchscaling.__file__).parent, book_data()
    seen = ["/usr", "/bin", "/lib", "/lib64", "/etc/ld.so.cache", "/etc/fonts"]
    seen += [sys.base_prefix, sys.prefix, str(library), *data]
    binds = [word for path in seen for word in readable(path, path)]
    for name in ("inside.py", "wire.py"):
        binds += readable(HERE / name, f"/grader/{name}")
    user = USERS[os.getpid() % len(USERS)] if os.getuid() == 0 else 0
    return [
        *["bwrap", *namespaces(), "--die-with-parent", "--new-session", "--clearenv"],
        *[word for key, value in environment().items() for word in ("--setenv", key, value)],
        *["--proc", "/proc", "--dev", "/dev"],
        *["--perms", "1777", "--size", str(limits.disk), "--tmpfs", "/tmp"],
        *["--perms", "1777", "--size", str(limits.disk), "--tmpfs", "/home"],
        *["--perms", "1777", "--size", "1048576", "--tmpfs", "/dev/shm"],
        *binds,  # last: what they show may lie below /tmp or /home
        *["--chdir", "/home", sys.executable, "/grader/inside.py"],
        *[str(read), str(write), str(user)],
    ]


def readable(path, place):
    """Return bubblewrap's options that show `path`, if it exists, at `place`, to any user."""
    parents = [str(parent) for parent in reversed(Path(place).parents) if str(parent) != "/"]
    opened = [word for parent in parents for word in ("--perms", "0755", "--dir", parent)]
    return [*opened, "--ro-bind-try", str(path), str(place)]


def namespaces():
    """Return bubblewrap's options that cut the process off from the rest of the machine.

    Root needs no user namespace, and could not become another user in one.
    """
    if os.getuid():
        return ["--unshare-all", "--cap-drop", "ALL"]
    cut = ["--unshare-net", "--unshare-pid", "--unshare-ipc", "--unshare-uts"]
    rights = ["--cap-drop", "ALL", "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
    return [*cut, "--unshare-cgroup-try", *rights]


def book_data():
    """Return the folder of measured results of a checkout, in a list; empty if installed."""
    folder = Path(batchscaling.__file__).resolve().parents[2] / "data"
    return [str(folder)] if folder.is_dir() else []


def environment():
    """Return the environment variables of the process: nothing of the grader's own."""
    return {
        "HOME": "/home",
        "LANG": "C.UTF-8",
        "MPLBACKEND": "agg",
        "MPLCONFIGDIR": "/tmp",
        "IPYTHONDIR": "/tmp",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "PATH": "/usr/bin:/bin",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": str(Path(batchscaling.__file__).resolve().parents[1]),
    }


def restrict(limits):
    """Set the limits that the kernel keeps, in the new process."""
    resource.setrlimit(resource.RLIMIT_DATA, (limits.memory,) * 2)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limits.disk,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if os.getuid() == 0:
        resource.setrlimit(resource.RLIMIT_NPROC, (2 * limits.processes,) * 2)


def isolation_available():
    """Tell whether bubblewrap works here."""
    if not shutil.which("bwrap"):
        return False
    alone = ["bwrap", *namespaces(), "--ro-bind", "/", "/", "--proc", "/proc", "true"]
    return subprocess.run(alone, capture_output=True).returncode == 0


def family(pid):
    """Return the processes below `pid`."""
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def resident(process):
    """Return a process's resident memory in bytes, zero once it has ended."""
    try:
        return process.memory_info().rss
    except psutil.NoSuchProcess:
        return 0


def kill(process):
    """Kill a process that may have ended."""
    with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
        process.kill()
