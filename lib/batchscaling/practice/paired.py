r"""What branches of a run say: up to which batch size nothing is lost. Needs no torch.

Every branch takes the same examples, in batches of another size. What counts is the share of the
progress that a branch loses against the run as it is,

.. math:: r_k = \frac{E[L_k - L_1]}{E[L_0 - L_1]} ,

with the loss :math:`L_0` at the start, :math:`L_1` of the run as it is at the end of the window,
and :math:`L_k` of batches k times as large. Repetitions are paired: L_0, L_1 and L_k of one have
the same examples.
"""

from dataclasses import dataclass

import numpy as np
from scipy.stats import t as student_t

from batchscaling import _validation as check

KEPT, LOST, UNKNOWN, NO_MEMORY = "kept", "lost", "cannot tell", "out of memory"


@dataclass(frozen=True)
class BranchedCheck:
    """Up to which batch size a run loses nothing, or why the check cannot tell.

    Attributes
    ----------
    low : int or None
        The largest batch size up to which nothing is lost; None where even twice the run's own
        is not known to lose nothing.
    high : int or None
        The smallest one at which something is lost; None where none was found.
    reason : str or None
        Why it cannot tell, where both are None.
    batch_sizes : tuple of int
        Of the branches that ran, the run's own first.
    lost : tuple of tuple of float
        For each of them the share of the progress that it loses, and its confidence interval.
    verdicts : tuple of str
        ``"kept"``, ``"lost"``, ``"cannot tell"`` or ``"out of memory"``.
    tolerance : float
        The share that counts as nothing.
    examples : int
        That all branches together have trained with and evaluated.
    """

    low: int | None
    high: int | None
    reason: str | None
    batch_sizes: tuple
    lost: tuple
    verdicts: tuple
    tolerance: float
    examples: int = 0

    def __str__(self):
        if self.reason is not None:
            return f"cannot tell: {self.reason}"
        kept = f"nothing is lost up to batch size {self.low}" if self.low else None
        lost = f"something is lost at {self.high}" if self.high else "no loss was found"
        return "; ".join(part for part in (kept, lost) if part)


def lost_share(start, base, branch, confidence=0.95):
    """Return the share of the progress that a branch loses, and its confidence interval.

    The interval is Fieller's, for the ratio of two means of pairs.

    Parameters
    ----------
    start, base, branch : array_like, shape (repeats,)
        Losses at the start, of the run as it is, and of the branch, of each repetition; at least
        three. Those of the branch may be infinite or NaN: it has lost all then.
    confidence : float
        Between 0 and 1.

    Returns
    -------
    share, low, high : float
        NaN where the progress is not clear of zero.

    Raises
    ------
    ValueError
        If shapes differ, there are fewer than three, or start and base are not finite.
    """
    confidence = check.real("confidence", confidence, 0, 1, low_open=True, high_open=True)
    start, base = check.array("start", start), check.array("base", base)
    branch = np.asarray(branch, dtype=float)
    for name, values in (("base", base), ("branch", branch)):
        check.same_shape(name, values, "start", start.shape)
    if len(start) < 3:
        check.reject("start", f"an array of shape {start.shape}", "three repetitions or more")
    progress = start - base
    if not np.isfinite(branch).all():
        mean, error = progress.mean(), progress.std(ddof=1) / np.sqrt(len(progress))
        is_clear = mean > student_t.ppf(0.5 + confidence / 2, len(start) - 1) * error
        return (np.inf,) * 3 if is_clear else (np.nan,) * 3
    return _ratio(branch - base, progress, confidence)


def _ratio(a, b, confidence):
    """Return the ratio of the means of pairs, and Fieller's interval."""
    (s_aa, s_ab), (_, s_bb) = np.cov(a, b) / len(a)
    a, b, t = a.mean(), b.mean(), student_t.ppf(0.5 + confidence / 2, len(a) - 1) ** 2
    square, middle, rest = b * b - t * s_bb, a * b - t * s_ab, a * a - t * s_aa
    if b <= 0 or square <= 0:
        return (np.nan,) * 3
    root = np.sqrt(max(middle**2 - square * rest, 0.0))
    return float(a / b), float((middle - root) / square), float((middle + root) / square)


def judge(share, tolerance):
    """Return the verdict on a branch: whether it loses more than the tolerance."""
    _, low, high = share
    if high <= tolerance:
        return KEPT
    return LOST if low > tolerance else UNKNOWN


def concluded(batch_sizes, shares, verdicts, tolerance, examples=0):
    """Return what the branches say together.

    Parameters
    ----------
    batch_sizes : sequence of int
        Increasing, the run's own first.
    shares : sequence of tuple of float
    verdicts : sequence of str
        The first is ``"kept"``, that of the run itself.
    tolerance : float
    examples : int

    Returns
    -------
    BranchedCheck
    """
    kept = 0
    while kept + 1 < len(verdicts) and verdicts[kept + 1] == KEPT:
        kept += 1
    low = batch_sizes[kept] if kept else None
    high = batch_sizes[verdicts.index(LOST)] if LOST in verdicts else None
    reason = None
    if low is None and high is None:
        reason = _doubt(shares, verdicts)
    columns = (tuple(batch_sizes), tuple(shares), tuple(verdicts))
    return BranchedCheck(low, high, reason, *columns, tolerance, examples)


def _doubt(shares, verdicts):
    if NO_MEMORY in verdicts[:2]:
        return "twice the batch does not fit into memory"
    if np.isnan([share[0] for share in shares]).any():
        return "the loss does not fall clearly within the window"
    return "what the branches lose is not clear of the tolerance; more repeats would help"
