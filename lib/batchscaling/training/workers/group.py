"""The processes that torchrun started, one worker each, and what they do together."""

import datetime
import json
import os
from contextlib import contextmanager

import numpy as np
import torch
import torch.distributed as dist

from batchscaling import _validation as check
from batchscaling._errors import Failure
from batchscaling.training.device import check_device

_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")

LONGEST = 1e9
"""Seconds of a timeout. Torch counts nanoseconds, in 64 bits."""


@contextmanager
def process_group(device="cpu", *, timeout=600):
    """Join the processes that torchrun started, and leave them at the end.

    Parameters
    ----------
    device : {"cpu", "cuda"}
        Where to train: on CPUs, joined by gloo, or each process on a GPU of its own, joined by
        NCCL.
    timeout : float
        Seconds to wait for the others, in whatever is done together. Positive, and at most
        `LONGEST`.

    Yields
    ------
    Group

    Raises
    ------
    ValueError
        If an argument is not allowed, or torchrun has not started this process.
    Failure
        If the other processes do not come.
    """
    check.one_of("device", device, ("cpu", "cuda"))
    timeout = check.real("timeout", timeout, 0, LONGEST, low_open=True)
    timeout = datetime.timedelta(seconds=timeout)
    missing = [name for name in _VARIABLES if name not in os.environ]
    if missing:
        allowed = "one that torchrun starts: torchrun --nproc-per-node 2 -m batchscaling ..."
        check.reject("process", f"one without {', '.join(missing)}", allowed)
    if device == "cuda":
        device = check_device(f"cuda:{os.environ['LOCAL_RANK']}")
        torch.cuda.set_device(device)
    device = torch.device(device)
    backend = "gloo" if device.type == "cpu" else "nccl"
    # Processes that were started again find each other where the dead ones did: the addresses of
    # those are still there.
    attempt = f"attempt {os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}"
    with _others_gone("before the start"):
        store, rank, workers = next(dist.rendezvous("env://", timeout=timeout))
        own = dist.PrefixStore(attempt, store)
        how = {"rank": rank, "world_size": workers, "timeout": timeout}
        dist.init_process_group(backend, store=own, **how)
    try:
        yield Group(device)
    finally:
        dist.destroy_process_group()


class Group:
    """Processes with one worker each; this one has the number `rank`.

    Attributes
    ----------
    rank, workers : int
        `rank` counts from 0.
    device : torch.device
    means, sent : int
        How many means were taken, and the bytes that this process gave for them. How many bytes go
        over the wire depends on how they are added up: in a ring of K processes, each sends
        2 (K - 1) / K times as many.
    """

    def __init__(self, device):
        self.device, self.rank, self.workers = device, dist.get_rank(), dist.get_world_size()
        self.means = self.sent = 0

    def mean(self, tensors):
        """Return the mean of each tensor over all processes, in one communication."""
        flat = torch.cat([tensor.flatten() for tensor in tensors.values()])
        with _others_gone(f"at mean {self.means + 1}"):
            dist.all_reduce(flat)
        self.means += 1
        self.sent += flat.numel() * flat.element_size()
        parts = flat.div_(self.workers).split([tensor.numel() for tensor in tensors.values()])
        return {
            name: part.view_as(tensor)
            for (name, tensor), part in zip(tensors.items(), parts, strict=True)
        }

    def mean_of_numbers(self, numbers):
        """Return the mean of a numpy array of doubles over all processes, the same for each."""
        each = torch.as_tensor(numbers, dtype=torch.double, device=self.device)
        with _others_gone("at an evaluation"):
            dist.all_reduce(each)
        return (each / self.workers).cpu().numpy()

    def collect(self, tensor):
        """Return what each process has of a tensor, as numpy arrays, in process 0; None elsewhere.

        Its shape is the same in all processes.
        """
        tensor = tensor.detach().to(self.device).contiguous()
        all_of_them = [torch.empty_like(tensor) for _ in range(self.workers * (self.rank == 0))]
        with _others_gone("at a checkpoint"):
            dist.gather(tensor, all_of_them or None)
        return np.stack([each.cpu().numpy() for each in all_of_them]) if all_of_them else None

    @contextmanager
    def uncounted(self):
        """Leave out of `means` and `sent` what is done meanwhile."""
        counted = self.means, self.sent
        yield
        self.means, self.sent = counted

    def require_same(self, settings):
        """Check that all processes have the same settings.

        Parameters
        ----------
        settings : mapping of str to what JSON knows

        Raises
        ------
        ValueError
            In every process, if they differ. It names a setting, a process, and both values.
        """
        first, *others = map(json.loads, self._texts(json.dumps(settings)))
        for rank, other in enumerate(others, 1):
            for name in first | other:
                here, there = first.get(name), other.get(name)
                if here != there:
                    check.reject(f"{name} of worker {rank}", there, f"{here!r}, as of worker 0")

    def _texts(self, text):
        """Return the texts of all processes."""
        mine = torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8).to(self.device)
        length = torch.tensor([len(mine)], device=self.device)
        lengths = [torch.empty_like(length) for _ in range(self.workers)]
        with _others_gone("at the start"):
            dist.all_gather(lengths, length)
            room = mine.new_zeros(int(max(lengths)))
            room[: len(mine)] = mine
            texts = [torch.empty_like(room) for _ in lengths]
            dist.all_gather(texts, room)
        pairs = zip(texts, lengths, strict=True)
        return [bytes(text[: int(size)].tolist()).decode() for text, size in pairs]


@contextmanager
def _others_gone(when):
    """Tell errors of a communication as what they are: other processes have ended, or are stuck."""
    try:
        yield
    except RuntimeError as error:
        reason = str(error).strip().partition("\n")[0]
        raise Failure(f"another worker has ended or does not answer, {when}: {reason}") from None
