"""Tasks of one's own: found by module or file, and told apart by what they compute."""

from dataclasses import dataclass, fields
from functools import lru_cache

import numpy as np
import torch

from batchscaling import _validation as check
from batchscaling.training._torch_state import undisturbed
from batchscaling.training.data.order import generator
from batchscaling.training.references import resolved
from batchscaling.training.schedules import constant
from batchscaling.training.tasks import TASKS, Task
from batchscaling.training.workers.fingerprint import augmentation_digest, schedule_digest

_LOOKED_AT = 8  # ghost batches, or examples
_ROUNDING = 1e-3  # machines differ by rounding, and sums of many numbers by more
_COMPUTED = "data", "outputs", "gradient"


@dataclass(frozen=True, eq=False)
class LoadedTask(Task):
    """A task that travels to other processes as its reference: they load it again."""

    reference: tuple = ()

    @property
    def source(self):
        """What ``--task`` takes."""
        return self.reference[0]

    def __reduce__(self):
        return load_task, self.reference


def load_task(reference, folder=None):
    """Return a `Task` of your own, which a module or a file holds.

    Parameters
    ----------
    reference : str
        ``"module:name"``, or ``"path/to/file.py:name"``. The task gets this name.
    folder : path-like, optional
        Where relative paths start, and where modules are looked for if they are nowhere else. The
        default is the current one.

    Returns
    -------
    Task
        It travels to other processes, such as workers of a sweep, as its reference: they load it
        again. They must find the file at the same place.

    Raises
    ------
    ValueError
        If there is no such file, module or name, it holds no `Task`, running it raises an error, or
        beside it is a file with the name of a module that stands beside another reference's file.
    """
    known = f"{_known()}, or module:name, or path/file.py:name"
    module, folder, name, task = resolved("task", reference, folder, known)
    if not isinstance(task, Task):
        found = "none of this name" if task is None else f"a {type(task).__name__}"
        held = ", ".join(sorted(n for n, v in vars(module).items() if isinstance(v, Task)))
        check.reject("task", reference, f"the name of a Task, not {found}; there: {held or 'none'}")
    values = {field.name: getattr(task, field.name) for field in fields(Task)}
    return LoadedTask(**{**values, "name": name}, reference=(reference, str(folder)))


@lru_cache(maxsize=8)
@undisturbed
def identity(task):
    """Return what tells a task from another one of the same name: JSON numbers, by their names.

    They are its fields, means of its data, and what the network with the parameters of seed 0
    makes of the first examples: its outputs, and the gradient of its loss.
    """
    data, params = task.load(), task.model.init(generator(0, "init"))
    count = _LOOKED_AT * task.model.ghost_size
    inputs, labels = data.train_inputs[:count].clone(), data.train_labels[:count].clone()
    params = {name: p.requires_grad_() for name, p in params.items()}
    outputs = task.model.apply(params, inputs)
    slope = task.loss.slope(outputs.detach(), labels)
    grads = torch.autograd.grad(outputs, list(params.values()), slope, allow_unused=True)
    sizes = [0.0 if grad is None else grad.norm() for grad in grads]
    schedule, ranges = _factors(task), _ends(task.ranges)
    return {
        "targets": dict(task.targets),
        "rates": _ends(task.rates),
        **({"ranges": ranges} if ranges else {}),
        **({"schedule": schedule} if schedule else {}),
        **({"augmentation": augmentation_digest(data)} if data.augment is not None else {}),
        "limits": [task.examples, task.steps, task.patience, task.weight_decay, task.least_fresh],
        "data": {
            name: [*part.shape, *_moments(part)]
            for name, part in vars(data).items()
            if isinstance(part, torch.Tensor)
        },
        "outputs": [*outputs.shape, *_moments(outputs)],
        "gradient": {name: float(size) for name, size in zip(params, sizes, strict=True)},
    }


def is_of(record, task):
    """Return whether a file's record is of this task, and not of another one of its name.

    What a network computes is compared up to rounding. Identities of the book's own tasks are in
    no file.
    """
    held = record.get("identity")
    if not isinstance(task, Task):
        return held is None
    return held is not None and _same(held, identity(task), 0.0)


def _factors(task):
    """Return the digest of what multiplies the learning rate, in the middle of the ranges.

    In the first 1,000 steps, and then in each that is a thousandth later. It is empty where the
    rate is constant.
    """
    names = task.schedule.hyper
    hyper = {name: torch.as_tensor(task.ranges[name].values(0.5))[None] for name in names}
    last = max(1000, task.max_steps(1))
    later = np.geomspace(1000, last, 1 + int(1000 * np.log(last / 1000)))
    steps = [*range(1000), *later.astype(int).tolist()]
    found, none = (schedule_digest(each, hyper, steps) for each in (task.schedule, constant))
    return "" if found == none else found


def _ends(ranges):
    return {name: [r.low, r.high, *[1.0] * r.complement] for name, r in ranges.items()}


def _known():
    return "one of " + ", ".join(repr(name) for name in TASKS)


def _same(one, other, rounding):
    """Return whether two identities are, of which some parts are `_COMPUTED`."""
    if isinstance(one, dict) and isinstance(other, dict):
        within = {name: _ROUNDING if name in _COMPUTED else rounding for name in one}
        return one.keys() == other.keys() and all(
            _same(one[name], other[name], within[name]) for name in one
        )
    if not rounding or np.shape(one) != np.shape(other):
        return one == other
    return bool(np.allclose(one, other, rtol=rounding, atol=1e-9))


def _moments(tensor):
    """Return the mean size of the numbers, and the same with weights that tell places apart."""
    size = tensor.detach().double().abs().flatten()
    weight = torch.linspace(0, 1, len(size), dtype=torch.float64)
    return [float(size.mean()), float((weight * size).mean())]
