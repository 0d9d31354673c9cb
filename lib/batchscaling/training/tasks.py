"""The tasks of the book's sweeps: data, network, targets and search spaces."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial

from batchscaling import _validation as check
from batchscaling.ranges import Range
from batchscaling.registry import METHODS
from batchscaling.training.data import (
    FlipCrop,
    cifar10,
    digits,
    fashion_mnist,
    mnist,
    pixels_as_labels,
    tiny_shakespeare,
)
from batchscaling.training.evaluation import MEASURES
from batchscaling.training.kinds import check_kinds
from batchscaling.training.losses import (
    Loss,
    bernoulli_cross_entropy,
    cross_entropy,
    smoothed_cross_entropy,
)
from batchscaling.training.models import (
    Model,
    autoencoder,
    mlp,
    resnet32,
    simple_cnn,
    softmax_regression,
    transformer_lm,
    vgg11,
)
from batchscaling.training.objective import Objective
from batchscaling.training.optimizers import chain, fix, weight_decay
from batchscaling.training.schedules import Schedule, constant, linear_decay

OPTIMIZERS = {name: method.build() for name, method in METHODS.items()}
"""The optimizers of sweeps by name."""

_SEARCHED = sorted({name for method in METHODS.values() for name in method.space})


@dataclass(frozen=True, eq=False)
class Task:
    """What a sweep trains, and until when.

    Attributes
    ----------
    load : callable
        ``load()`` returns the `Data`.
    model : Model
    targets : mapping of str to float
        Loss to reach for each measure.
    rates : mapping of str to Range
        Learning rates to search, for each family of methods; effective ones for SGD with momentum.
    examples : int
        A trial may take this many training examples,
    steps : int
        and so many steps more.
    patience : float
        Trials of the search end at this many times the steps of the fastest one.
    weight_decay : float
        Coupled weight decay of every optimizer. Positive for a task whose measure is the
        training objective, which is to be convex then.
    least_fresh : float
        The decay of averaged parameters is searched up to 1 minus this.
    loss : Loss
        What is trained and evaluated.
    name : str
        Of a task of your own, which files of results are called by: letters, digits, ``_``, ``-``
        and ``.``, and not one of `TASKS`.
    ranges : mapping of str to Range
        Other hyperparameters by name, where the range is not to be that of the methods; each is
        searched by some method, or is one of the schedule, which has no other range. So a task
        whose loss is large may ask for larger dampings.
    schedule : Schedule
        How the learning rate changes.
    """

    load: Callable
    model: Model
    targets: Mapping[str, float]
    rates: Mapping[str, Range]
    examples: int
    steps: int
    patience: float = 4.0
    weight_decay: float = 0.0
    least_fresh: float = 2**-8
    loss: Loss = cross_entropy
    name: str = ""
    ranges: Mapping[str, Range] = field(default_factory=dict)
    schedule: Schedule = constant

    def __post_init__(self):
        whole, part = (
            partial(check.integer, low=0),
            partial(check.real, low=0, high=1, low_open=True),
        )
        if not callable(self.load):
            check.reject("load", self.load, "a function without arguments that returns a Data")
        check_kinds(model=self.model, loss=self.loss, schedule=self.schedule)
        check.fields(self, targets=_check_targets, rates=_check_ranges, ranges=_check_ranges)
        check.fields(self, examples=whole, steps=whole, patience=partial(check.real, low=1))
        check.fields(self, weight_decay=check.nonnegative, least_fresh=part)

        if not isinstance(self.name, str) or not re.fullmatch(r"(\w[\w.-]*)?", self.name):
            check.reject("name", self.name, "letters, digits, '_', '-' and '.'")
        for name in self.ranges:
            check.one_of("ranges", name, [*_SEARCHED, *self.schedule.hyper])
        for name in set(self.schedule.hyper) - set(self.ranges):
            check.reject("ranges", list(self.ranges), f"a Range for {name}, of the schedule")
        if self._needs_objective and self.loss is not cross_entropy:
            check.reject("loss", "another one", "cross_entropy where a target is an objective's")

    def optimizer(self, name):
        """Return one of `OPTIMIZERS`, with the task's weight decay."""
        if not self.weight_decay:
            return OPTIMIZERS[name]
        return chain(fix(weight_decay, weight_decay=self.weight_decay), OPTIMIZERS[name])

    @property
    def source(self):
        """What a file of results says of where the task comes from."""
        return f"<Task {self.name}>"

    @cached_property
    def objective(self):
        """The `Objective` of the task's data, or None if no target needs it."""
        if not self._needs_objective:
            return None
        return Objective.of(self.load(), self.model, self.weight_decay)

    @property
    def _needs_objective(self):
        return any(name.endswith("objective") for name in self.targets)

    def max_steps(self, batch_size):
        """Return the steps after which a trial of this batch size ends."""
        return self.steps + self.examples // check.integer("batch_size", batch_size, 1)

    def space(self, optimizer):
        """Return the search space of an optimizer by name, a dict of str to `Range`."""
        method = METHODS[optimizer]
        if method.family not in self.rates:
            check.reject("optimizer", optimizer, f"one of the families {', '.join(self.rates)}")
        others = {name: self.ranges.get(name, usual) for name, usual in method.space.items()}
        scheduled = {name: self.ranges[name] for name in self.schedule.hyper}
        space = {method.rate: self.rates[method.family], **others, **scheduled}
        if any(name.startswith("averaged") for name in self.targets):
            space["decay"] = Range(self.least_fresh, 1, complement=True)
        return space


def _check_targets(name, targets):
    """Return the clean numbers of a mapping that is not empty."""
    if not isinstance(targets, Mapping) or not targets:
        check.reject(name, targets, f"a mapping of some of {', '.join(MEASURES)} to losses")
    known = [check.one_of(name, measure, MEASURES) for measure in targets]
    goals = zip(known, targets.values(), strict=True)
    return {measure: check.positive(f"{name}[{measure!r}]", goal) for measure, goal in goals}


def _check_ranges(name, ranges):
    if not isinstance(ranges, Mapping):
        check.reject(name, ranges, "a mapping of names to Range")
    for key, given in ranges.items():
        if not isinstance(given, Range):
            check.reject(f"{name}[{key!r}]", given, "a Range")
    return ranges


_RELATIVE = {
    "kfac": Range(2**-7, 2**2),  # in units of Newton's step
    "lars": Range(2**-8, 2**2),  # of the length of weights
}


def _cnn(load, target):
    """Return the task of the paper's Simple CNN, which asks for a GPU."""
    return Task(
        load=load,
        model=simple_cnn(),
        targets={"validation": target},
        rates={"sgd": Range(2**-8, 2), "adam": Range(2**-14, 2**-6), **_RELATIVE},
        examples=2_000_000,
        steps=1000,
        patience=2.0,
    )


def _small_cnn(load, examples, steps, **targets):
    """Return the task of a narrow Simple CNN on images of half the size, for a CPU."""
    return Task(
        load=lambda: load(validation=500, size=14),
        model=simple_cnn(14, filters=(8, 16), units=64),
        targets=targets,
        rates={"sgd": Range(2**-7, 2**2), "adam": Range(2**-12, 2**-4), **_RELATIVE},
        examples=examples,
        steps=steps,
        patience=2.0,
    )


_SOFTMAX = Task(
    load=lambda: mnist(size=14),
    model=softmax_regression(14 * 14, 10),
    targets={"objective": 0.01},
    rates={"sgd": Range(2**-7, 2**2), "adam": Range(2**-12, 2**-3), **_RELATIVE},
    examples=2_000_000,
    steps=2_000,
    patience=2.0,
    weight_decay=1e-4,
)


def _small_cifar(model, size, target):
    """Return the task of a narrow network on a part of CIFAR-10, trained as the paper's wide one.

    Labels are smoothed, and the rate falls along a line. Zhang et al. (2019), appendix E.
    """
    return Task(
        load=lambda: cifar10(
            source="subset", validation=500, size=size, augment=FlipCrop(padding=size // 8)
        ),
        model=model,
        targets={"validation": target},
        rates={"sgd": Range(2**-9, 2**0), "adam": Range(2**-13, 2**-5), **_RELATIVE},
        examples=200_000,
        steps=2_000,
        patience=1.5,
        loss=smoothed_cross_entropy(0.1),
        ranges={"decay_steps": Range(2**6, 2**12), "final_fraction": Range(2**-8, 1)},
        schedule=linear_decay,
    )


TASKS = {
    "cifar10-resnet32-small": _small_cifar(resnet32(width=4), 16, 1.7),
    "cifar10-vgg11-small": _small_cifar(vgg11(width=8), 32, 1.4),
    "digits-mlp": Task(
        load=digits,
        model=mlp([64, 64, 10]),
        targets={"validation": 0.2, "training": 0.05, "averaged": 0.2},
        rates={"sgd": Range(2**-6, 2**6), "adam": Range(2**-11, 2**-3), **_RELATIVE},
        examples=20_000,
        steps=400,
    ),
    "fashion-cnn": _cnn(fashion_mnist, 0.3),
    "fashion-cnn-small": _small_cnn(fashion_mnist, 200_000, 200, validation=0.55),
    "fashion-cnn-small-hard": _small_cnn(
        fashion_mnist, 600_000, 1500, validation=0.4, training=0.4
    ),
    "mnist-autoencoder": Task(
        load=lambda: pixels_as_labels(mnist(validation=10_000, size=14)),
        model=autoencoder([14 * 14, 100, 40, 12]),
        targets={"validation": 28.0},
        rates={"sgd": Range(2**-9, 2**0), "adam": Range(2**-12, 2**-4), **_RELATIVE},
        examples=2_000_000,
        steps=20_000,
        patience=1.5,
        loss=bernoulli_cross_entropy,
        ranges={"damping": Range(2**-18, 2**2), "kl_clip": Range(2**-10, 1)},
    ),
    "mnist-cnn": _cnn(mnist, 0.06),
    "mnist-cnn-small": _small_cnn(mnist, 200_000, 200, validation=0.2),
    "mnist-cnn-small-hard": _small_cnn(mnist, 600_000, 1500, validation=0.15, training=0.1),
    "mnist-softmax": _SOFTMAX,
    "mnist-softmax-averaged": replace(
        _SOFTMAX, targets={"averaged_objective": 0.01}, least_fresh=2**-14
    ),
    "shakespeare-transformer": Task(
        load=lambda: tiny_shakespeare(length=32, validation=500),
        model=transformer_lm(65, width=32, heads=2, units=128, layers=2),
        targets={"validation": 2.2},
        rates={"sgd": Range(2**-6, 2**1), "adam": Range(2**-11, 2**-5), **_RELATIVE},
        examples=200_000,
        steps=4_000,
        patience=1.5,
        ranges={"damping": Range(2**-13, 2**-3), "kl_clip": Range(2**-10, 2**-1)},
    ),
}
"""The tasks of sweeps by name."""
