r"""The risk of many optimizers side by side, in plain float64: fast, for searches.

Let G = F - I; along flat directions all its entries are small. By Cayley and Hamilton
:math:`G^n = \sum_{j<n} \chi_j G^j`, hence

.. math:: F^t = \sum_{j<n} c_j(t)\, G^j,

where the n numbers c(t) are :math:`(1 + w)^t` modulo :math:`w^n - \sum_j \chi_j w^j`. They are
multiplied instead of matrices. With r, b and :math:`s_0` as in `moments`, the response to the
start is :math:`\varphi_t = \sum_j c_j\, r^\top G^j s_0`, and what the noise still lacks after t
steps is a quadratic form in c(t):

.. math:: \sum_{k<t} \psi_k^2 = Y_{00} - \sum_{j,k} c_j c_k Y_{jk}, \qquad
          Y_{jk} = \sum_{i \ge 0} (r^\top G^j F^i b)\,(r^\top G^k F^i b) .

As :math:`r^\top G^j F^{i+1} b = r^\top G^j F^i b + r^\top G^{j+1} F^i b`, the sums obey the linear
equations :math:`Y_{j,k+1} + Y_{j+1,k} + Y_{j+1,k+1} = -u_j u_k` with :math:`u_j = r^\top G^j b`.

A learning rate only stretches the curvature: a method of rate 1 at curvature lr * h serves all
rates. The gradient enters with rank one, so :math:`\chi` is linear in lr * h.
"""

import itertools

import numpy as np

from batchscaling.nqm.moments import FLATTEST


class Lanes:
    """Stable optimizers of one kind, each a lane; arrays have the axes (..., lane, curvature).

    Parameters
    ----------
    problem : NoisyQuadratic
    methods : LinearMethod
        Of learning rate 1, stacked along the last axis.
    which : ndarray of int, shape (lanes,)
        Each lane's method.
    lr : ndarray, shape (lanes,)
    """

    def __init__(self, problem, methods, which, lr):
        n = len(methods.b)
        x = np.maximum(lr[:, None] * problem.curvature, FLATTEST)  # no sum below divides by zero
        fixed, slope = (part[:, which, None] for part in _characteristic(methods))
        self.chi = fixed + slope * x
        A, b, query, readout, start = (part[..., which, None] for part in methods)
        row, f, u = readout, [], []  # r^T G^j, and its products with s_0 and b
        for _ in range(n):
            f.append(_dot(row, start))
            u.append(_dot(row, b))
            row = [_dot(row, A[:, k]) - row[k] + x * (u[-1] * query[k]) for k in range(n)]
        weight = 0.5 * problem.counts * problem.curvature
        noise = lr[:, None] ** 2 * (weight * problem.noise)
        sums = _sums(self.chi, u)
        self._floor = np.sum(noise * sums[0, 0], axis=-1)
        # Quadratic forms in c, as one array of all pairs and curvatures for each lane.
        self._decay, self._missing = np.empty((2, len(lr), n * (n + 1) // 2, x.shape[1]))
        for index, (j, k) in enumerate(_pairs(n)):
            twice = 1 + (j != k)
            self._decay[:, index] = f[j] * f[k] * (twice * weight * problem.second_moment)
            self._missing[:, index] = sums[j, k] * (twice * noise)

    def at_powers_of_two(self):
        """Yield the two parts D and S of the risk D + S / B after 1, 2, 4, ... steps."""
        c, products = _one_step(self.chi), np.empty_like(self._decay)
        while True:
            _multiply_pairs(c, products)
            yield _total(products, self._decay), self._floor - _total(products, self._missing)
            c = _multiply(c, c, self.chi)

    def crossings(self, lanes, batch_size, target, first, spacing, count):
        """Return about when the risk of some lanes falls to the target.

        It is the first time in a window of `count` times, `spacing` apart, and interpolated.
        Outside the window it is a guess that keeps the order.

        Parameters
        ----------
        lanes : slice or ndarray of int
        batch_size, target : float
        first, spacing : int
            Steps; the window starts at `first` times `spacing`.
        count : int

        Returns
        -------
        ndarray of float, shape (lanes,)
        """
        chi = self.chi[:, lanes]
        form = self._decay[lanes] - self._missing[lanes] / batch_size
        floor = self._floor[lanes] / batch_size
        step = _power(_one_step(chi), spacing, chi)
        c, matrix = _power(step, first, chi), _matrix(step, chi)
        products, risk = np.empty_like(form), np.empty((count, len(floor)))
        for k in range(count):
            _multiply_pairs(c, products)
            risk[k] = floor + _total(products, form)
            if k < count - 1:
                c = [_dot(row, c) for row in matrix]
        risk[np.isnan(risk)] = np.inf
        reached = risk <= target
        at, lane = np.argmax(reached, axis=0), np.arange(len(floor))
        after, before = risk[at, lane], np.where(at > 0, risk[at - 1, lane], np.inf)
        inside = (first + at - (target - after) / (before - after)) * spacing
        early = first * spacing * (0.9 + 0.1 * after / target)
        late = (first + count - 1) * spacing * (1.1 - 0.1 * target / risk[-1])
        return np.where(at > 0, inside, np.where(reached[0], early, late))


def _characteristic(methods):
    """Return chi at curvature 0 and its slope, each of shape (n, methods), at learning rate 1."""
    A, b, query = (np.moveaxis(part, -1, 0) for part in methods[:3])
    rest = A - np.eye(b.shape[-1])
    fixed, other = (_coefficients(G) for G in (rest, rest + b[:, :, None] * query[:, None]))
    return fixed, other - fixed


def _coefficients(G):
    """Return chi of matrices of shape (m, n, n): sums of principal minors, with signs."""
    n = G.shape[-1]
    chi = np.empty((n, len(G)))
    for size in range(1, n + 1):
        subsets = itertools.combinations(range(n), size)
        minors = sum(np.linalg.det(G[:, rows][:, :, rows]) for rows in map(list, subsets))
        chi[n - size] = (-1) ** (size + 1) * minors
    return chi


def _sums(chi, u):
    """Return all Y by their two indices.

    Each is first a linear form, as a dictionary: its factors at the diagonal Y, by their index, and
    at index n a constant.
    """
    n = len(chi)
    Y = {(j, j): {j: 1.0} for j in range(n)}
    for gap in range(1, n):
        for j in range(n - gap):
            k = j + gap
            known = _add(Y[j + 1, k], {n: u[j] * u[k - 1]})
            if gap == 1:
                Y[j, k] = _scale(-0.5, known)
            else:
                Y[j, k] = _scale(-1.0, _add(known, Y[j + 1, k - 1]))
            Y[k, j] = Y[j, k]
    for j in range(n):
        Y[j, n] = Y[n, j] = _add(*(_scale(chi[k], Y[j, k]) for k in range(n)))
    Y[n, n] = _add(*(_scale(chi[k], Y[k, n]) for k in range(n)))
    zeros = [_add(Y[j, n], Y[j + 1, n - 1], Y[j + 1, n], {n: u[j] * u[n - 1]}) for j in range(n)]
    for j in range(n):
        pivot = -zeros[j].pop(j)
        zeros[j] = _scale(1 / pivot, zeros[j])  # what Y[j, j] is equal to
        for k in range(n):
            if j in zeros[k]:
                zeros[k] = _add(_scale(zeros[k].pop(j), zeros[j]), zeros[k])
    return {
        (j, k): sum(y if m == n else y * zeros[m][n] for m, y in Y[j, k].items())
        for j, k in _pairs(n)
    }


def _add(*forms):
    """Return the sum of linear forms."""
    total = {}
    for form in forms:
        for index, value in form.items():
            total[index] = total[index] + value if index in total else value
    return total


def _scale(factor, form):
    """Return a linear form times a factor."""
    return {index: factor * value for index, value in form.items()}


def _one_step(chi):
    """Return c(1), which is 1 + w."""
    if len(chi) == 1:
        return 1 + chi
    c = np.zeros_like(chi)
    c[:2] = 1
    return c


def _multiply(a, b, chi):
    """Multiply two polynomials in w modulo the characteristic one."""
    n = len(chi)
    product = [None] * (2 * n - 1)
    for j, k in itertools.product(range(n), repeat=2):
        term = a[j] * b[k]
        if product[j + k] is None:
            product[j + k] = term
        else:
            product[j + k] += term
    for top in range(2 * n - 2, n - 1, -1):
        for j in range(n):
            product[top - n + j] += chi[j] * product[top]
    return product[:n]


def _matrix(a, chi):
    """Return the matrix that multiplies polynomials by `a`."""
    columns = [a]
    for _ in range(len(chi) - 1):
        *rest, top = columns[-1]
        columns.append([chi[0] * top, *(x + y * top for x, y in zip(rest, chi[1:], strict=True))])
    return list(zip(*columns, strict=True))


def _power(c, exponent, chi):
    """Return a power of a polynomial, for an exponent of at least 1."""
    power = c
    for bit in f"{exponent:b}"[1:]:
        power = _multiply(power, power, chi)
        if bit == "1":
            power = _multiply(power, c, chi)
    return power


def _dot(a, b):
    total = a[0] * b[0]
    for x, y in zip(a[1:], b[1:], strict=True):
        total = total + x * y
    return total


def _pairs(n):
    return itertools.combinations_with_replacement(range(n), 2)


def _multiply_pairs(c, products):
    """Write the products of all pairs of c, shape (lanes, pairs, curvatures)."""
    for index, (j, k) in enumerate(_pairs(len(c))):
        np.multiply(c[j], c[k], out=products[:, index])


def _total(products, form):
    """Return the quadratic form of each lane, summed over curvatures."""
    return np.einsum("lk,lk->l", products.reshape(len(form), -1), form.reshape(len(form), -1))
