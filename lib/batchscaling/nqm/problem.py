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

    def local_steps(self, lr, steps):
        r"""Return the equivalent problem of an outer method whose workers take local SGD steps.

        In a round each of K workers takes H SGD steps from the common :math:`\theta`, with its own
        batches of b examples. The outer method then uses :math:`\theta - \bar\theta`, the way back
        from their mean, as if it were a gradient. With :math:`a = 1 - \alpha h` this is

        .. math:: (1 - a^H)\,\theta + \xi, \qquad
            \operatorname{var}\xi = \frac{\alpha^2 c}{bK} \cdot \frac{1 - a^{2H}}{1 - a^2}.

        So rounds are steps of the outer method on a problem of curvature :math:`1 - a^H`; its batch
        size is bK, the examples of all workers in one local step. The coordinates are scaled so
        that the loss is the same number in both.

        ``SGD(lr=1)`` on it is SGD whose workers are averaged every H steps (local SGD), other rates
        are Lookahead, and ``Nesterov`` is the outer method of DiLoCo. The risk is that of the point
        where a round ends; programs that store Nesterov's look-ahead point report that one instead.

        Parameters
        ----------
        lr : float
            Learning rate :math:`\alpha` of the local steps, positive and below 2 over the largest
            curvature.
        steps : int
            H, the number of local steps in a round, at least 1.

        Returns
        -------
        NoisyQuadratic

        Raises
        ------
        ValueError
            If an argument is out of its range or the local steps diverge.

        References
        ----------
        Stich, "Local SGD converges fast and communicates little", 2019. Zhang et al., "Lookahead
        optimizer: k steps forward, 1 step back", 2019. Douillard et al., "DiLoCo: distributed
        low-communication training of language models", 2023.

        Examples
        --------
        >>> rounds = NoisyQuadratic.harmonic(dim=10_000).local_steps(lr=0.5, steps=8)
        >>> round(rounds.initial_risk, 4)
        4.8938
        """
        lr, steps = check.positive("lr", lr), check.integer("steps", steps, 1)
        x = lr * self.curvature
        if x.max() >= 2:
            highest = self.curvature.max()
            allowed = f"below {2 / highest:.6g}, where local steps converge"
            check.reject("lr", lr, f"{allowed} (largest curvature {highest:.6g})")
        with np.errstate(divide="ignore"):  # at x = 1 one step forgets everything
            log = np.where(x < 1, np.log1p(-np.minimum(x, 1)), np.log1p(np.maximum(x, 1) - 2))
        flips = (x > 1) & (steps % 2 == 1)  # a^H is negative
        curvature = np.where(flips, 1 + np.exp(steps * log), -np.expm1(steps * log))
        noise = lr**2 * self.noise * (-np.expm1(2 * steps * log) / (x * (2 - x)))
        return self._of_equal_loss(curvature, noise)

    def extragradient(self, extrapolation):
        r"""Return the equivalent problem of a method that extrapolates with a fresh gradient.

        Where the method would take its gradient, it first takes a step of rate
        :math:`\hat\gamma` along a gradient of another batch of B examples, and takes the gradient
        there. That one is :math:`h(1 - \hat\gamma h)\,\theta` plus noise of variance
        :math:`c(1 + \hat\gamma^2 h^2)/B`, also when each worker extrapolates with its own batch.
        So any method, with momentum or without, runs as it is on a changed problem. The coordinates
        are scaled so that the loss is the same number in both. A step costs 2B examples.

        Parameters
        ----------
        extrapolation : float
            :math:`\hat\gamma`, at least 0 and below 1 over the largest curvature. Beyond it the
            extrapolated point lies across the minimum, and its gradient points uphill.

        Returns
        -------
        NoisyQuadratic

        Raises
        ------
        ValueError
            If `extrapolation` is out of its range.

        See Also
        --------
        ExtrapSGD : Extrapolates with the gradient of the step before, which costs nothing.

        References
        ----------
        Korpelevich, "The extragradient method for finding saddle points and other problems", 1976.
        """
        extrapolation = check.nonnegative("extrapolation", extrapolation)
        y = extrapolation * self.curvature
        if y.max() >= 1:
            highest = self.curvature.max()
            allowed = f"below {1 / highest:.6g}, where the gradient still points downhill"
            check.reject(
                "extrapolation", extrapolation, f"{allowed} (largest curvature {highest:.6g})"
            )
        return self._of_equal_loss(self.curvature * (1 - y), self.noise * (1 + y**2))

    def smooth(self, std, local_batch_size):
        r"""Return the equivalent problem of gradients taken at randomly perturbed points.

        Each of K workers adds its own Gaussian noise, of variance :math:`\sigma^2` in each
        direction, to the point where it takes the gradient of b examples. On a quadratic the mean
        of the gradient does not change. Its noise gains :math:`h^2\sigma^2` on each worker, however
        large b is. The mean over workers has variance
        :math:`c/(bK) + h^2\sigma^2/K = (c + b h^2\sigma^2)/(bK)`.

        Parameters
        ----------
        std : float
            :math:`\sigma`, at least 0.
        local_batch_size : float
            b, the examples that share one perturbation, positive. The batch size of the returned
            problem is bK. If all workers share the perturbation, b is the whole batch.

        Returns
        -------
        NoisyQuadratic

        References
        ----------
        Duchi et al., "Randomized smoothing for stochastic optimization", 2012.
        """
        std = check.nonnegative("std", std)
        local_batch_size = check.positive("local_batch_size", local_batch_size)
        perturbation = local_batch_size * (std * self.curvature) ** 2
        return replace(self, noise=self.noise + perturbation)

    def _of_equal_loss(self, curvature, noise):
        r"""Return the problem of other gradients, in coordinates in which the loss is unchanged.

        The gradients are :math:`\tilde h\theta` plus noise, and the coordinates
        :math:`(h/\tilde h)^{1/2}\theta`.
        """
        scale = self.curvature / curvature
        return replace(
            self,
            curvature=curvature,
            noise=scale * noise,
            second_moment=scale * self.second_moment,
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
