"""What `advise` found out, put together. Needs no torch."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace

import numpy as np

from batchscaling import _validation as check
from batchscaling.practice import predict
from batchscaling.practice.contest import NO, UNKNOWN, YES
from batchscaling.practice.paired import NO_MEMORY
from batchscaling.practice.reading import NoiseReading
from batchscaling.practice.report import page

_OVER = {
    "adam": "Adam",
    "adam_without_momentum": "Adam without momentum",
    "momentum": "SGD with momentum",
    "sgd": "SGD without momentum",
}
"""Contenders of a race that others are compared with, in words."""

_SIZES = 2 ** np.arange(0, 21)
_NO_LAYER = "no layer that tells a batch size was asked for"


@dataclass(frozen=True)
class Advice:
    """A batch size with its reason, and what it rests on.

    Attributes
    ----------
    batch_size, low, high : int or None
        The advised batch size, and the interval that the measurements leave. None where they
        cannot tell.
    reason : str
        Where the interval comes from, or why there is none.
    disagreements : tuple of str
        Where two layers say different things.
    used : int
        The batch size of the run.
    throughput : Throughput or None
    noise : NoiseReading or None
    branches : BranchedCheck or None
        The layers; None for one that was not asked for, or failed.
    failed : dict of str to str
        Why a layer has no result.
    method : {"sgd", "adam"}
    hyper : dict of str to float
        Of the optimizer's first group of parameters.
    others : dict of int to dict
        The same of further groups that differ from the first, by their numbers from 1 on.
    steps : float
        Of the run, or 1.
    price : float
        Of a second on the device.
    gain : float
        How many times the noise scale the critical batch size may be, by the momentum of SGD.
    largest : int or None
        Examples of the data, if known: no batch size is larger.
    race : Race or None
        Of other optimizers.
    """

    batch_size: int | None
    low: int | None
    high: int | None
    reason: str
    disagreements: tuple
    used: int
    throughput: object
    noise: object
    branches: object
    failed: dict
    method: str
    hyper: dict = field(repr=False)
    others: dict = field(default_factory=dict, repr=False)
    steps: float = 1.0
    price: float = 1.0
    gain: float = 1.0
    largest: int | None = None
    race: object = None

    def __str__(self):
        if self.batch_size is None:
            return "\n".join([f"cannot tell: {self.reason}", *self.disagreements])
        head = f"batch size {self.batch_size}, between {self.low} and {self.high}: {self.reason}"
        return "\n".join([head, *self.disagreements])

    @property
    def critical(self):
        """Critical batch size: value, low and high, or None where the noise scale is not known.

        The noise scale with its interval, whose high end is multiplied by the gain of momentum.
        """
        return _critical(self.noise, self.gain)

    def table(self):
        """Return a `Row` for each power of two, or none where the noise scale is not known."""
        scale = self.critical
        if scale is None:
            return []
        top = min(4 * max(scale[2], self.used), self.largest or np.inf)
        seconds, speed = None, self.throughput
        if speed is not None:
            top = min(top, speed.batch_sizes[-1])
        sizes = [int(size) for size in _SIZES if size <= top]
        if speed is not None:
            columns = speed.seconds, speed.low, speed.high
            seconds = [predict.step_seconds(speed.batch_sizes, one, sizes) for one in columns]
        return predict.table(
            scale, sizes, self.used, seconds=seconds, steps=self.steps, price=self.price
        )

    def transfer(self, to=None):
        """Return the hyperparameters at another batch size, a `Moved` for each.

        Those of further groups of parameters follow, where they differ from the first; their names
        say so, as in ``"lr of group 1"``.

        Parameters
        ----------
        to : int, optional
            The default is the advised batch size.

        Raises
        ------
        ValueError
            If `to` is not positive, or left out where there is no advice.
        """
        to = self.batch_size if to is None else to
        scale = None if self.critical is None else self.critical[0]
        where = self.used, to
        found = predict.transfer(self.method, self.hyper, *where, scale=scale)
        for number, hyper in self.others.items():
            moved = predict.transfer(self.method, hyper, *where, scale=scale)
            found += [replace(one, name=f"{one.name} of group {number}") for one in moved]
        return found

    def warm_up(self, examples, readings):
        """Return batch sizes over a run, from readings of its noise along the way.

        One state says nothing about how the noise will grow. So this takes readings of a
        `NoiseMeter`, of this run or an earlier one. Those that cannot tell are left out.

        Parameters
        ----------
        examples : sequence of int
            How many examples the run had seen at each reading.
        readings : sequence of NoiseReading

        Returns
        -------
        list of tuple of int
            Examples from which on, and the batch size: the run's own, doubled as often as the low
            end of the readings allows.

        Raises
        ------
        ValueError
            If there are not as many readings as examples, or one of them is none.
        """
        examples = check.array("examples", examples, nonnegative=True)
        is_sequence = isinstance(readings, Sequence)
        if not is_sequence or not all(isinstance(one, NoiseReading) for one in readings):
            check.reject("readings", readings, "a sequence of NoiseReading")
        if len(readings) != len(examples):
            found, allowed = (
                f"a sequence of {len(readings)}",
                f"as many as examples, {len(examples)}",
            )
            check.reject("readings", found, allowed)
        pairs = zip(examples, readings, strict=True)
        known = [(seen, r.low) for seen, r in pairs if r.batch_size is not None]
        if not known:
            return [(0, self.used)]
        return predict.warm_up(*zip(*known, strict=True), self.used)

    def worth(self):
        """Return, for momentum, Adam and K-FAC, whether they are worth it here, and why.

        By a race, where there was one: momentum against the same without it, Adam against SGD with
        momentum, and K-FAC against the best of the others. Else by what the noise scale says.

        Returns
        -------
        dict of str to str
        """
        found = _worth(self.critical, self.batch_size or self.used, self.method, self.gain)
        if self.race is None:
            return found
        pairs = _raced(self.race, self.method)
        return found | {name: _told(self.race, *pair) for name, pair in pairs.items()}

    def to_dict(self):
        """Return everything as plain values."""
        found = asdict(self)
        found["table"] = [asdict(row) for row in self.table()]
        found["critical"], found["worth"] = self.critical, self.worth()
        if self.batch_size is not None:
            found["transfer"] = [asdict(moved) for moved in self.transfer()]
        return _plain(found)

    def to_json(self):
        """Return everything as JSON; numbers that are not finite are null."""
        return json.dumps(self.to_dict(), allow_nan=False, indent=1)

    def to_html(self):
        """Return one page that needs nothing else: the advice, figures and an explorer."""
        return page(self.to_dict())


def combined(
    used, throughput, noise, branches, failed, *, gain=1.0, largest=None, race=None, **more
):
    """Return the advice that follows from what the layers found, of at most `largest` examples."""
    scales = _critical(noise, gain)
    checked = branches is not None and branches.reason is None
    three, reason = None, None
    if scales is not None and throughput is not None:
        clock = throughput.batch_sizes, throughput.seconds
        best, low, high = zip(*(predict.fastest(scale, *clock) for scale in scales), strict=True)
        three = [best[0], min(low), max(high)]
        reason = "the least time on this device, by the noise scale and the seconds of a step"
    elif scales is not None:
        three = scales
        reason = "the noise scale: twice the fewest steps, and twice the fewest examples"
    elif checked:
        low = branches.low or used
        tried = zip(branches.batch_sizes, branches.verdicts, strict=True)
        fit = [size for size, verdict in tried if verdict != NO_MEMORY]
        three, reason = [low, low, branches.high or fit[-1]], "branches lose nothing up to there"
        if len(fit) < len(branches.batch_sizes):
            reason += f"; {branches.batch_sizes[-1]} does not fit into memory"
    if scales is not None:
        reason += _of_momentum(gain, more["hyper"])
    disagreements = []
    if scales is not None and checked:
        disagreements = _disagreements(scales, gain, branches)
    if scales is not None and race is not None:
        disagreements += _disagreements_on_momentum(scales, gain, used, race, more["method"])
    if three is None:
        reasons = [f"{layer}: {words}" for layer, words in failed.items()]
        reasons += [found.reason for found in (noise, branches) if found is not None]
        reason = "; ".join(word for word in reasons if word) or _NO_LAYER
        sizes = (None,) * 3
    else:
        sizes = [max(1, round(min(size, largest or np.inf))) for size in three]
        if sizes[0] == largest:
            reason += f"; the data has {largest} examples"
    layers = (throughput, noise, branches, failed)
    more |= {"gain": gain, "largest": largest, "race": race}
    return Advice(*sizes, reason, tuple(disagreements), used, *layers, **more)


def _critical(noise, gain):
    if noise is None or noise.batch_size is None:
        return None
    return noise.batch_size, noise.low, noise.high * gain


def _of_momentum(gain, hyper):
    """Return what a noise scale does not know of momentum, in words."""
    if gain > 1:
        return (
            f"; momentum may raise the critical batch size up to {gain:.3g} times the noise scale, "
            "the more the longer the run is, and the interval goes as far"
        )
    if hyper.get("beta1"):
        return "; momentum may let larger ones be as good, which a noise scale does not know"
    return ""


def _disagreements(scales, gain, branches):
    """Return where the branches find another limit than the noise scale leads to expect.

    With the best rate they lose nothing up to about the critical batch size, at most.
    """
    _, low, high = scales
    scale = f"the {_name(gain)} is {low:.3g} to {high:.3g}"
    if branches.high is not None and branches.high < low:
        why = "the rate may be close to the largest stable one, so that it cannot grow with B"
        return [f"layers disagree: branches lose at {branches.high}; {scale}; {why}"]
    if branches.low is not None and branches.low > high:
        why = "the rate may be smaller than the best one"
        return [f"layers disagree: branches lose nothing at {branches.low}; {scale}; {why}"]
    return []


def _disagreements_on_momentum(scales, gain, used, race, method):
    """Return where a race finds something else about momentum than the noise scale says."""
    by_noise = _worth(scales, used, method, gain)["momentum"].partition(":")[0]
    pair = _raced(race, method)["momentum"]
    by_race = race.verdict(*pair) if race.losses.keys() >= set(pair) else UNKNOWN
    if (by_noise, by_race) not in (("no", YES), ("try it", NO)):
        return []
    said = {"no": "is no use", "try it": "is worth a try"}[by_noise]
    found = {YES: "saves steps", NO: "saves none"}[by_race]
    return [f"layers disagree: momentum {said} by the {_name(gain)}; in the race it {found}"]


def _name(gain):
    return "noise scale" if gain == 1 else "critical batch size with momentum"


def _worth(scales, batch_size, method, gain):
    if scales is None:
        unknown = "cannot tell: the noise scale is not known"
        return dict.fromkeys(("momentum", "adam", "kfac"), unknown)
    _, low, high = scales
    where = f"batch size {batch_size}, {_name(gain)} {low:.3g} to {high:.3g}"
    own = "you use Adam; compare with SGD" if method == "adam" else "you use SGD; compare with Adam"
    adam = f"cannot tell from the noise scale: {own} by short sweeps, at this batch size"
    if batch_size <= low:
        small = f"no: noise limits steps here ({where}); chapters nqm/02 and networks/03"
        kfac = "cannot tell from the noise scale: K-FAC may save steps at small batches, too"
        return {"momentum": small, "adam": adam, "kfac": f"{kfac} ({where}); chapter networks/04"}
    if batch_size >= high:
        large = f"try it: curvature limits steps here ({where}); chapters "
        return {
            "momentum": large + "nqm/02, networks/03",
            "adam": adam,
            "kfac": large + "networks/04",
        }
    between = f"cannot tell: the batch size lies inside the interval ({where})"
    return {"momentum": between, "adam": adam, "kfac": between}


def _raced(race, method):
    """Return which of the contenders says whether momentum, Adam or K-FAC is worth it."""
    pairs = {"momentum": ("momentum", "sgd"), "adam": ("adam", "momentum")}
    if method == "adam":
        pairs["momentum"] = ("adam", "adam_without_momentum")
    others = race.losses.keys() - {"kfac"}
    pairs["kfac"] = "kfac", race.lowest(without=["kfac"]) if others else "momentum"
    return pairs


def _told(race, contender, over):
    """Return what a race says of two of its contenders."""
    for name in (contender, over):
        if name not in race.losses:
            return f"{UNKNOWN}: {race.left_out[name]}"
    times, low, high = race.saved(contender, over)
    where = f"in a race of {race.steps[-1]} steps at batch size {race.batch_size}"
    if np.isnan(times):
        return f"{UNKNOWN}: {where}, the loss does not fall clearly"
    return (
        f"{race.verdict(contender, over)}: {where}, each with its best rate, it divides the steps "
        f"of {_OVER[over]} by {times:.3g}, between {low:.3g} and {high:.3g}"
    )


def _plain(value):
    if isinstance(value, dict):
        return {str(name): _plain(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value
