r"""What a race of optimizers says: how many steps one saves over another. Needs no torch.

Curves of two optimizers are compared at the loss that both reach. In a race of T steps, let the
target be the worse of their two lowest losses. One reaches it in :math:`t_a` steps, the other in
:math:`t_b`, and the first takes

.. math:: s = t_b / t_a

times fewer steps than the second. Repetitions are paired: all optimizers have the same examples.
"""

from dataclasses import dataclass, field

import numpy as np
from scipy.stats import t as student_t

from batchscaling import _validation as check

YES, NO, UNKNOWN = "yes", "no", "cannot tell"
_ROUNDING = 1e-6  # of losses, relative


@dataclass(frozen=True)
class Race:
    """Losses of several optimizers from one state on, each with its best rate.

    Attributes
    ----------
    batch_size : int
    steps : tuple of int
        After which losses were taken, 0 first.
    losses : dict of str to tuple
        For each contender those of each repetition, a tuple of as many as `steps`. They may be
        infinite or NaN from some step on.
    hyper : dict of str to dict
        The best hyperparameters of each: ``lr``, of the first group of parameters; for K-FAC the
        ``damping``, in units of the mean eigenvalue of the Fisher matrix, and ``kl_clip``.
    tolerance : float
        A contender is worth it if it divides the steps by more than one plus this.
    confidence : float
        Of the intervals.
    left_out : dict of str to str
        Contenders that cannot train this network, and why.
    examples : int
        That all contenders together have trained with and evaluated, the search included.
    """

    batch_size: int
    steps: tuple
    losses: dict
    hyper: dict
    tolerance: float
    confidence: float
    left_out: dict = field(default_factory=dict)
    examples: int = 0

    def saved(self, contender, over):
        """Return how many times fewer steps one contender takes than another, and the interval.

        Parameters
        ----------
        contender, over : str
            Names in `losses`.

        Returns
        -------
        times, low, high : float
            Below one, it takes more. NaN where neither makes progress that is clear of zero.

        Raises
        ------
        ValueError
            If a name is not there.
        """
        pair = [
            np.array(self.losses[check.one_of(argument, name, self.losses)], dtype=float)
            for argument, name in (("contender", contender), ("over", over))
        ]
        return steps_saved(self.steps, *pair, confidence=self.confidence)

    def lowest(self, without=()):
        """Return the contender, but for these, whose mean loss at the end is the lowest."""
        ends = {
            name: np.mean([curve[-1] for curve in curves])
            for name, curves in self.losses.items()
            if name not in without
        }
        return min(ends, key=lambda name: (not np.isfinite(ends[name]), ends[name]))

    def verdict(self, contender, over):
        """Return ``"yes"``, ``"no"`` or ``"cannot tell"``: whether it saves more than a little."""
        _, low, high = self.saved(contender, over)
        if low > 1 + self.tolerance:
            return YES
        return NO if high <= 1 + self.tolerance else UNKNOWN


def steps_saved(steps, one, other, confidence=0.95):
    """Return how many times fewer steps one optimizer takes than another, and the interval.

    The mean of the logarithms over repetitions, and Student's interval for it.

    Parameters
    ----------
    steps : array_like, shape (k,)
        Increasing, 0 first.
    one, other : array_like, shape (repeats, k)
        Losses; repetitions are paired. What is not finite counts as infinite.
    confidence : float
        Between 0 and 1.

    Returns
    -------
    times, low, high : float
        NaN where neither makes progress that is clear of zero, and of rounding in float32.

    Raises
    ------
    ValueError
        If shapes differ, there are fewer than three repetitions, steps do not increase from 0, or a
        loss at the start is not finite.
    """
    confidence = check.real("confidence", confidence, 0, 1, low_open=True, high_open=True)
    steps = check.array("steps", steps, nonnegative=True)
    if steps.ndim != 1 or len(steps) < 2 or steps[0] != 0 or (np.diff(steps) <= 0).any():
        check.reject("steps", steps.tolist(), "two or more increasing numbers, 0 first")
    curves = [_curves(name, c, len(steps)) for name, c in (("one", one), ("other", other))]
    check.same_shape("other", curves[1], "one", curves[0].shape)
    quantile = student_t.ppf(0.5 + confidence / 2, len(curves[0]) - 1)
    if not any(_is_clear(curve, quantile) for curve in curves):
        return (np.nan,) * 3
    logs = [_log_ratio(steps, *pair) for pair in zip(*curves, strict=True)]
    mean, error = np.mean(logs), np.std(logs, ddof=1) / np.sqrt(len(logs))
    return tuple(float(np.exp(mean + k * quantile * error)) for k in (0, -1, 1))


def _curves(name, losses, count):
    losses = np.asarray(losses, dtype=float)
    if losses.ndim != 2 or losses.shape[1] != count or len(losses) < 3:
        allowed = f"(repeats, {count}), of three repetitions or more"
        check.reject(name, f"an array of shape {losses.shape}", allowed)
    if not np.isfinite(losses[:, 0]).all():
        check.reject(name, "not finite at the start", "finite losses there")
    return np.where(np.isfinite(losses), losses, np.inf)


def _is_clear(curves, quantile):
    """Return whether the mean progress from start to end is clear of zero."""
    progress = curves[:, 0] - curves[:, -1]
    if not np.isfinite(progress).all() or progress.mean() <= _ROUNDING * np.abs(curves).max():
        return False
    return progress.mean() > quantile * progress.std(ddof=1) / np.sqrt(len(progress))


def _log_ratio(steps, one, other):
    """Return the logarithm of how many times more steps the other takes, of one repetition."""
    lowest = [np.minimum.accumulate(curve) for curve in (one, other)]
    target = max(curve[-1] for curve in lowest)
    taken = [_steps_to(target, steps, curve) for curve in lowest]
    return np.log(taken[1] / taken[0])


def _steps_to(target, steps, lowest):
    """Return after how many steps a falling curve reaches the target, by lines between points.

    One that never falls does not arrive; another that does has then won by its first point.
    """
    if lowest[-1] == lowest[0]:
        return steps[-1]
    place = int(np.argmax(lowest <= target))
    if place == 0:
        return steps[1]
    above, below = lowest[place - 1], lowest[place]
    part = (above - target) / (above - below)
    return steps[place - 1] + part * (steps[place] - steps[place - 1])
