"""What the engine is checked against: the second-moment recursion, one step after the other."""

import numpy as np


def recursion(problem, optimizer, batch_size, last):
    """Yield the risk after 0, 1, ..., `last` steps."""
    h = problem.curvature
    A, b, query, readout, start = optimizer.method()
    F = A + h[:, None, None] * np.outer(b, query)
    noise = (problem.noise / batch_size)[:, None, None] * np.outer(b, b)
    moment = problem.second_moment[:, None, None] * np.outer(start, start)
    weight = 0.5 * problem.counts * h
    for step in range(last + 1):
        yield weight @ (readout @ moment @ readout)
        if step < last:
            moment = F @ moment @ F.transpose(0, 2, 1) + noise


def diagonal_recursion(problem, optimizer, batch_size, last):
    """Yield the risk of SGD or heavy ball from scalar recursions, fast with 10,000 curvatures.

    The three second moments E[theta^2], E[theta v], E[v^2] are written out by hand, so this shares
    nothing with the engine, not even the optimizer's matrices.
    """
    h, c = problem.curvature, problem.noise / batch_size
    lr, beta = optimizer.lr, getattr(optimizer, "momentum", 0.0)
    weight = 0.5 * problem.counts * h
    tt, tv, vv = problem.second_moment.copy(), np.zeros_like(h), np.zeros_like(h)
    for step in range(last + 1):
        yield weight @ tt
        if step < last:
            new_vv = beta**2 * vv + 2 * beta * h * tv + h**2 * tt + c
            theta_new_v = beta * tv + h * tt
            tt, tv, vv = (
                tt - 2 * lr * theta_new_v + lr**2 * new_vv,
                theta_new_v - lr * new_vv,
                new_vv,
            )
