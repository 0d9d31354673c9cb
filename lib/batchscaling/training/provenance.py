"""What made a result: versions, device, time and commit."""

import datetime
import platform
import subprocess
import sys
from pathlib import Path

import numpy
import scipy
import torch

import batchscaling


def provenance(device, seconds):
    """Return what a results file says of its origin.

    Parameters
    ----------
    device : str
        Where torch ran.
    seconds : float
        How long it took.

    Returns
    -------
    dict of str to str or float
    """
    return {
        "command": " ".join(["python -m batchscaling", *sys.argv[1:]]),
        "batchscaling": batchscaling.__version__,
        "commit": _commit(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "scipy": scipy.__version__,
        "device": torch.cuda.get_device_name() if device.startswith("cuda") else _processor(),
        "date": datetime.date.today().isoformat(),
        "seconds": round(seconds, 1),
    }


def _commit():
    """Return the commit of the checkout that holds this package, marked if it was changed."""
    folder = Path(__file__).parent
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=12"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def _processor():
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
