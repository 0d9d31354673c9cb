"""What made a result: versions, device, time and commit."""

import datetime
import platform
import subprocess
from pathlib import Path

import numpy
import scipy
import torch

import batchscaling


def provenance(command, device, seconds):
    """Return what a results file says of its origin.

    Parameters
    ----------
    command : str
        Makes the file again.
    device : str
        Where torch ran.
    seconds : float
        How long it took.

    Returns
    -------
    dict of str to str or float
    """
    return {
        "command": command,
        "batchscaling": batchscaling.__version__,
        "commit": _commit(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "scipy": scipy.__version__,
        "device": torch.cuda.get_device_name(device) if device.startswith("cuda") else _processor(),
        "date": datetime.date.today().isoformat(),
        "seconds": round(seconds, 1),
    }


def _commit():
    """Return the commit of the checkout that holds this package, marked if code was changed.

    Files of data may differ: a measurement that goes on writes them.
    """
    try:
        # A package that is installed inside another project's checkout is no part of it.
        _git("ls-files", "--error-unmatch", Path(__file__).name)
        options = "--porcelain", "--untracked-files=no"
        changed = _git("status", *options, "--", ":/", ":(top,exclude)data")
        mark = "-dirty" if changed else ""
        return _git("describe", "--always", "--abbrev=12") + mark
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(*arguments):
    command = ["git", "-C", str(Path(__file__).parent), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def _processor():
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
