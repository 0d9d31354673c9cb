"""The noisy quadratic problem: curvatures, gradient noise and where the parameters start."""

from dataclasses import dataclass, replace

import numpy as np

from batchscaling import _validation as check


@dataclass(frozen=True, eq=False, repr=False)
class NoisyQuadratic:
    r"""A quadratic loss with a noisy gradient, in the eigenbasis of its Hessian.

    The loss is :math:`L(\theta) = \frac12 \sum_i h_i \theta_i^2`. A gradient over a batch of size
    B is :math:`h_i \theta_i` plus Gaussian noise of variance :math:`c_i / B`, independent from
    direction to direction and from step to step.

    Parameters
    ----------
    curvature : array_like, shape (k,)
        Eigenvalues h of the Hessian, positive.
    noise : array_like, shape (k,), optional
        Variance c of one example's gradient along each eigenvector. The default is `curvature`.
    second_moment : array_like, shape (k,) or scalar
        :math:`E[\theta_i(0)^2]` along each eigenvector.
    counts : array_like, shape (k,), optional
        How many directions share each entry, positive; real numbers are weights, such as those of
        a measured spectrum. The default is one.

    Raises
    ------
    ValueError
        If a curvature or count is not positive, a variance is negative, an entry is not finite,
        or shapes differ.

    References
    ----------
    Zhang et al., "Which algorithmic choices matter at which batch sizes? Insights from a noisy
    quadratic model", 2019, equation 1.

    Examples
    --------
    >>> problem = NoisyQuadratic.harmonic(dim=10_000)
    >>> round(problem.initial_risk, 4)
    4.8938
    """

    curvature: np.ndarray
    noise: np.ndarray = None
    second_moment: np.ndarray = 1.0
    counts: np.ndarray = None

    def __post_init__(self):
        curvature = check.array("curvature", self.curvature, positive=True)
        noise = curvature if self.noise is None else self.noise
        second_moment = self.second_moment
        if check.dimensions(second_moment) == 0:
            second_moment = check.nonnegative("second_moment", second_moment)
            second_moment = np.full(curvature.shape, second_moment)
        counts = np.ones(curvature.shape) if self.counts is None else self.counts
        values = {
            "curvature": curvature,
            "noise": check.array("noise", noise, nonnegative=True),
            "second_moment": check.array("second_moment", second_moment, nonnegative=True),
            "counts": check.array("counts", counts, positive=True),
        }
        for name, numbers in values.items():
            check.same_shape(name, numbers, "curvature", curvature.shape)
        check.store(self, **values)

    @classmethod
    def harmonic(cls, dim, second_moment=1.0):
        r"""Return the problem of the paper: :math:`h_i = 1/i`, noise :math:`c = h`.

        Parameters
        ----------
        dim : int
            Number of directions, at least 1. The paper has 10,000.
        second_moment : float
            :math:`E[\theta_i(0)^2]`, the same in all directions.

        Returns
        -------
        NoisyQuadratic
        """
        dim = check.integer("dim", dim, 1)
        return cls(1.0 / np.arange(1, dim + 1), second_moment=second_moment)

    @classmethod
    def power_law(cls, dim, exponent, second_moment=1.0):
        r"""Return a problem with :math:`h_i = i^{-s}` and noise :math:`c = h`.

        Parameters
        ----------
        dim : int
            Number of directions, at least 1.
        exponent : float
            s, at least 0; 1 is the harmonic problem and 0 has equal curvatures.
        second_moment : float
            :math:`E[\theta_i(0)^2]`, the same in all directions.

        Returns
        -------
        NoisyQuadratic
        """
        dim = check.integer("dim", dim, 1)
        exponent = check.real("exponent", exponent, 0)
        return cls(np.arange(1, dim + 1) ** -exponent, second_moment=second_moment)

    @classmethod
    def from_spectrum(cls, curvature, noise=None, counts=None, *, only_positive=False):
        """Return a problem with a given spectrum, such as a measured one.

        Parameters
        ----------
        curvature : array_like, shape (k,)
            Eigenvalues, positive unless `only_positive`.
        noise : array_like, shape (k,), optional
            Variance of one example's gradient along each eigenvector. The default is `curvature`.
        counts : array_like, shape (k,), optional
            How many directions share each eigenvalue; real numbers are weights. An entry of count 0
            is left out. The default is one.
        only_positive : bool
            Leave out the eigenvalues that are not positive, with their noise and counts. Along
            such directions a quadratic has no minimum; a measured spectrum may hold some. By
            default they are refused.

        Returns
        -------
        NoisyQuadratic

        Raises
        ------
        ValueError
            If an argument is out of its range, or no eigenvalue is positive.
        """
        curvature = check.array("curvature", curvature)
        only_positive = check.flag("only_positive", only_positive)
        counts = np.ones(curvature.shape) if counts is None else counts
        columns = {
            "noise": check.array("noise", curvature if noise is None else noise),
            "counts": check.array("counts", counts, nonnegative=True),
        }
        for name, values in columns.items():
            check.same_shape(name, values, "curvature", curvature.shape)
        counted = columns["counts"] > 0
        kept = counted & (curvature > 0)
        if not kept.any() or (np.any(kept != counted) and not only_positive):
            allowed = "positive numbers, or some positive ones with only_positive=True"
            check.reject("curvature", f"an array that holds {curvature.min()}", allowed)
        return cls(curvature[kept], **{name: values[kept] for name, values in columns.items()})

    @property
    def dim(self):
        """Number of directions, each counted as often as it occurs; whole if it is an integer."""
        total = float(self.counts.sum())
        return int(total) if total.is_integer() else total

    @property
    def initial_risk(self):
        """Expected loss before the first step."""
        return float(0.5 * np.sum(self.counts * self.curvature * self.second_moment))

    def quantize(self, bins=100):
        """Group eigenvalues that are close into bins, geometric in curvature.

        Each bin keeps its number of directions and the mean curvature, mean noise and total
        initial risk of its members, so the trace of the Hessian, the trace of the noise and the
        initial risk do not change. Empty bins are left out.

        Parameters
        ----------
        bins : int
            Number of bins between the smallest and the largest curvature, at least 1.

        Returns
        -------
        NoisyQuadratic
            With at most `bins` entries.
        """
        bins = check.integer("bins", bins, 1)
        h = self.curvature
        octaves = np.log(h / h.min())
        width = octaves.max() / bins if octaves.max() > 0 else 1.0
        # The small shift keeps a value on an edge in the same bin on every machine.
        index = np.minimum(np.floor(octaves / width + 1e-9), bins - 1)
        _, index = np.unique(-index, return_inverse=True)

        def total(values):
            return np.bincount(index, weights=self.counts * values)

        counts = total(np.ones_like(h))
        return NoisyQuadratic(
            curvature=total(h) / counts,
            noise=total(self.noise) / counts,
            second_moment=total(h * self.second_moment) / total(h),
            counts=counts,
        )

    def precondition(self, power):
        r"""Return the equivalent problem of SGD preconditioned by :math:`H^{-p}`.

        In the coordinates :math:`H^{p/2}\theta` the preconditioned update is plain SGD, with
        curvature :math:`h^{1-p}`, noise :math:`h^{-p}c` and second moment
        :math:`h^p E[\theta(0)^2]`. The loss is the same number in both.

        Parameters
        ----------
        power : float
            p between 0 (none) and 1 (Newton).

        Returns
        -------
        NoisyQuadratic

        References
        ----------
        Zhang et al. (2019), equations 8 and 9.
        """
        p = check.real("power", power, 0, 1)
        h = self.curvature
        return replace(
            self,
            curvature=h ** (1 - p),
            noise=h**-p * self.noise,
            second_moment=h**p * self.second_moment,
        )

    def __repr__(self):
        low, high = self.curvature.min(), self.curvature.max()
        return (
            f"NoisyQuadratic(dim={self.dim:.12g}, {self.curvature.size} curvatures "
            f"from {low:.4g} to {high:.4g})"
        )


def require_problem(problem):
    """Raise a ``ValueError`` unless the argument is a problem."""
    if not isinstance(problem, NoisyQuadratic):
        check.reject("problem", problem, "a NoisyQuadratic")
