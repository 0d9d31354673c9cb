"""Checkpoints of training in processes: one file, complete whenever it exists, without pickle."""

import json
import zipfile
from pathlib import Path

import numpy as np
import torch
from torch.utils._pytree import tree_flatten, tree_unflatten

from batchscaling import _validation as check
from batchscaling.training.files import complete_file


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

    def read(self):
        """Return the step and what the file holds; step 0 and None if there is no file.

        Raises
        ------
        ValueError
            If the file is no checkpoint, or that of other settings.
        """
        if not self.path.exists():
            return 0, None
        try:
            with np.load(self.path, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            before, step = json.loads(str(arrays["settings"])), int(arrays["step"])
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            check.reject("checkpoint", str(self.path), f"a file that a run has written ({error})")
        for name in self.settings | before:
            if before.get(name) != self.settings.get(name):
                there, here = before.get(name), self.settings.get(name)
                allowed = f"that of a run with this {name}, {here!r}; it has {there!r}"
                check.reject("checkpoint", str(self.path), allowed)
        return step, arrays

    def rows(self, arrays, like):
        """Return this process's rows from what `read` has found; `like` has their structure."""
        leaves, structure = tree_flatten(like)
        stored = [arrays[f"held.{i}"][self.group.rank] for i in range(len(leaves))]
        pairs = zip(stored, leaves, strict=True)
        return tree_unflatten(
            [torch.from_numpy(a.copy()).to(leaf.device, leaf.dtype) for a, leaf in pairs], structure
        )

    @staticmethod
    def measured(arrays):
        """Return what was measured from what `read` has found."""
        prefix = "measured."
        return {n.removeprefix(prefix): a for n, a in arrays.items() if n.startswith(prefix)}
