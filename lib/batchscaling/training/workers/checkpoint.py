"""Checkpoints of training in processes: one file, complete whenever it exists, without pickle."""

import json
import os
import zipfile
from pathlib import Path

import numpy as np
import torch
from torch.utils._pytree import tree_flatten, tree_unflatten

from batchscaling import _validation as check
from batchscaling.training.files import complete_file

# What numpy and zipfile raise where bytes were lost or changed.
_DAMAGED = OSError, ValueError, KeyError, TypeError, EOFError, RuntimeError, zipfile.BadZipFile


class Checkpoint:
    """The file of a run of processes.

    Parameters
    ----------
    path : path-like
    group : Group
    settings : mapping of str to what JSON knows
        A run with others does not go on from the file.
    """

    def __init__(self, path, group, settings):
        if not isinstance(path, str | os.PathLike):
            check.reject("checkpoint", path, "the path of a file, or None")
        self.path, self.group = Path(path), group
        if not self.path.parent.is_dir():
            check.reject("checkpoint", str(path), "a file in a folder that exists")
        # As they come back from a file: with lists for tuples.
        self.settings = json.loads(json.dumps(settings))

    def write(self, step, rows, measured):
        """Write what all processes hold after a step, and what was measured; process 0 does."""
        leaves = [self.group.collect(leaf) for leaf in tree_flatten(rows)[0]]
        if self.group.rank:
            return
        with complete_file(self.path) as file:
            held = {f"held.{i}": leaf for i, leaf in enumerate(leaves)}
            told = {f"measured.{name}": values for name, values in measured.items()}
            settings = np.array(json.dumps(self.settings))
            np.savez(file, settings=settings, step=np.array(step), **held, **told)

    def read(self, max_steps):
        """Return the step and what the file holds; step 0 and None if there is no file.

        Raises
        ------
        ValueError
            If the file is no checkpoint, that of other settings, or of a step that is not between
            0 and `max_steps`.
        """
        if not self.path.exists():
            return 0, None
        try:
            with np.load(self.path, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            before = {**json.loads(str(arrays["settings"]))}
            step = check.integer("step", arrays["step"][()], 1, max_steps - 1)
        except _DAMAGED as error:
            self._refuse(error)
        for name in self.settings | before:
            if before.get(name) != self.settings.get(name):
                there, here = before.get(name), self.settings.get(name)
                allowed = f"that of a run with this {name}, {here!r}; it has {there!r}"
                check.reject("checkpoint", str(self.path), allowed)
        return step, arrays

    def rows(self, arrays, like):
        """Return this process's rows from what `read` has found.

        `like` has their structure and shapes. If an array is not there, or is another one, it is a
        ``ValueError``.
        """
        leaves, structure = tree_flatten(like)
        found = []
        for i, leaf in enumerate(leaves):
            kind = leaf.new_empty(0, device="cpu").numpy().dtype
            stored = self._array(arrays, f"held.{i}", (self.group.workers, *leaf.shape), kind)
            # In the layout of `like`: in another one, kernels may round otherwise.
            found.append(torch.empty_like(leaf).copy_(torch.tensor(stored[self.group.rank])))
        return tree_unflatten(found, structure)

    def measured(self, arrays, like):
        """Return what was measured from what `read` has found; errors are those of `rows`."""
        return {
            name: self._array(arrays, f"measured.{name}", values.shape, values.dtype)
            for name, values in like.items()
        }

    def _array(self, arrays, name, shape, kind):
        found = arrays.get(name)
        if found is None or found.shape != shape or found.dtype != kind:
            there = "nothing" if found is None else f"{found.dtype} of shape {found.shape}"
            self._refuse(f"{name} is {there}, not {kind} of shape {shape}")
        return found

    def _refuse(self, reason):
        check.reject("checkpoint", str(self.path), f"a file that a run has written ({reason})")
