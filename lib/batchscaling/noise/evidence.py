r"""The Bayesian evidence of a minimum: how deep it is, and how wide.

With a Gaussian prior of precision :math:`\lambda`, the probability that a model with P parameters
gives to the labels is the integral of :math:`e^{-C}` and the prior's normalisation, where C is the
summed cross-entropy plus :math:`\frac12\lambda\|\omega\|^2`. Laplace's approximation replaces C by
its quadratic at a minimum:

.. math:: \ln p(y \mid x) \approx
          -\Bigl(C(\omega_0) + \tfrac12 \sum_i \ln(\lambda_i/\lambda)\Bigr),

with :math:`\lambda_i` the eigenvalues of the Hessian of C. The first term is the depth, the second
the Occam factor: what the data rule out of the prior's volume.
"""

from dataclasses import dataclass

import numpy as np
from scipy.linalg import cholesky

from batchscaling import _validation as check


@dataclass(frozen=True)
class Evidence:
    """The evidence of one minimum, in natural logarithms.

    Attributes
    ----------
    depth : float
        Cost C at the minimum: summed cross-entropy plus the prior's penalty.
    occam : float
        Half the log-determinant of the Hessian over that of the prior's precision. It is large
        for a narrow minimum, and at least 0 where the cross-entropy is convex.
    """

    depth: float
    occam: float

    @property
    def log_evidence(self):
        """Logarithm of the evidence: minus depth, minus Occam factor."""
        return -self.depth - self.occam


def laplace_evidence(cost, hessian, prior_precision):
    r"""Return the evidence of a minimum from its Hessian or the Hessian's spectrum.

    A change of coordinates :math:`\omega = \varphi(u)` with Jacobian J at the minimum turns the
    Hessian into :math:`J^\top H J` and the prior's precision into
    :math:`J^\top \Lambda J`. Their determinants get the same factor, so the evidence does not
    change, however sharp the minimum becomes.

    Parameters
    ----------
    cost : float
        C at the minimum: summed over the examples, with the prior's penalty.
    hessian : array_like, shape (P,) or (P, P)
        Hessian of C, penalty included: its eigenvalues, or the matrix. Positive (definite).
    prior_precision : float or array_like, shape (P, P)
        :math:`\lambda`, positive; or a positive-definite matrix if `hessian` is one.

    Returns
    -------
    Evidence

    Raises
    ------
    ValueError
        If an argument is out of its range, or the Hessian is not that of a minimum.

    References
    ----------
    MacKay, "A practical Bayesian framework for backpropagation networks", 1992; Smith and Le
    (2018), section 2; Dinh et al., "Sharp minima can generalize for deep nets", 2017,
    on reparameterisation.

    Examples
    --------
    >>> laplace_evidence(3.0, [1.0, 100.0], prior_precision=1.0)
    Evidence(depth=3.0, occam=2.302585092994046)
    """
    hessian = check.array("hessian", hessian, ndim=(1, 2))
    dim = hessian.shape[0]
    if check.dimensions(prior_precision) == 0:
        prior = dim * np.log(check.positive("prior_precision", prior_precision))
    else:
        precision = check.array("prior_precision", prior_precision, ndim=2)
        check.same_shape("prior_precision", precision, "hessian", hessian.shape)
        prior = _log_det("prior_precision", precision)
    depth = check.real("cost", cost)
    return Evidence(depth, float(0.5 * (_log_det("hessian", hessian) - prior)))


def laplace_evidence_from_log_det(cost, log_det, dim, prior_precision):
    r"""Return the evidence of a minimum from the log-determinant of the Hessian of C.

    For networks whose Hessian is too large to hold, see `lanczos_spectrum`.

    Parameters
    ----------
    cost : float
        C at the minimum.
    log_det : float
        :math:`\ln\det` of the Hessian of C, penalty included.
    dim : int
        P, the number of parameters.
    prior_precision : float
        :math:`\lambda`, positive.

    Returns
    -------
    Evidence

    Raises
    ------
    ValueError
        If an argument is out of its range.
    """
    dim = check.integer("dim", dim, 1)
    prior = dim * np.log(check.positive("prior_precision", prior_precision))
    log_det = check.real("log_det", log_det)
    return Evidence(check.real("cost", cost), float(0.5 * (log_det - prior)))


def _log_det(name, values):
    """Return the log-determinant of a spectrum or of a positive-definite matrix."""
    if values.ndim == 1:
        return np.log(check.array(name, values, positive=True)).sum()
    allowed = "a symmetric positive-definite matrix"
    if values.shape[0] != values.shape[1]:
        check.reject(name, f"an array of shape {values.shape}", allowed)
    if np.abs(values - values.T).max() > 1e-6 * np.abs(values).max():
        check.reject(name, "not symmetric", allowed)
    try:
        factor = cholesky(values, lower=True)
    except np.linalg.LinAlgError:
        least = np.linalg.eigvalsh(values)[0]
        check.reject(name, f"a matrix with the eigenvalue {least:.4g}", allowed)
    return 2 * np.log(np.diag(factor)).sum()
