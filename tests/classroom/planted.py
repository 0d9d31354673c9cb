"""Wrong solutions and what each must cost, and right solutions in another way.

A wrong solution is the reference solution with one text replaced. It loses the stated points in the
stated questions, and its report says something that matches.
"""

from typing import NamedTuple


class Wrong(NamedTuple):
    """One wrong solution."""

    old: str
    new: str
    lost: dict
    message: str


WRONG = {
    "sgd": {
        "variance of one example": Wrong(
            "np.sqrt(noise / batch_size)", "np.sqrt(noise)", {"q1": 2}, "one example's variance"
        ),
        "variance as standard deviation": Wrong(
            "np.sqrt(noise / batch_size)", "(noise / batch_size)", {"q1": 2}, "as a standard dev"
        ),
        "off by one step": Wrong(
            "for _ in range(steps):\n        moment =",
            "for _ in range(steps - 1):\n        moment =",
            {"q2": 3},
            "off by one step: one too few",
        ),
        "rate not squared": Wrong(
            "moment + lr**2 * noise / batch_size\n    return moment",
            "moment + lr * noise / batch_size\n    return moment",
            {"q2": 2},
            "squared",
        ),
        "risk of θ²": Wrong(
            "np.array(moments) @ curvature / 2",
            "np.array(moments).sum(axis=1)",
            {"q3": 3, "q6": 2},
            "not the loss",
        ),
        "no half": Wrong(
            "np.array(moments) @ curvature / 2",
            "np.array(moments) @ curvature",
            {"q3": 3, "q6": 2},
            "where is the half",
        ),
        "approximate floor": Wrong(
            "(2 * batch_size * (2 - lr * curvature))", "(4 * batch_size)", {"q4": 3}, "small rates"
        ),
        "last crossing": Wrong(
            "int(reached[0]) if len(reached) else None",
            "(len(risks) - len(np.trim_zeros((np.asarray(risks) <= target)[::-1].cumprod())) "
            "if len(reached) else None)",
            {"q5": 2},
            "last crossing",
        ),
        "step one is the start": Wrong(
            "int(reached[0])", "int(reached[0]) + 1", {"q5": 3, "q6": 2}, "off by one"
        ),
        "linear axes": Wrong("axes.loglog(", "axes.plot(", {"q6": 1}, "logarithmic"),
    },
    "momentum": {
        "forgotten buffer": Wrong(
            "velocity = momentum * velocity + gradient\n",
            "velocity = gradient\n",
            {"q1": 2},
            "the buffer is forgotten",
        ),
        "moves with the old buffer": Wrong(
            "    velocity = momentum * velocity + gradient\n"
            "    return theta - lr * velocity, velocity",
            "    return theta - lr * velocity, momentum * velocity + gradient",
            {"q1": 3},
            "old buffer",
        ),
        "one minus momentum": Wrong(
            "momentum * velocity + gradient\n",
            "momentum * velocity + (1 - momentum) * gradient\n",
            {"q1": 3},
            "multiplied by 1 - momentum",
        ),
        "transposed matrix": Wrong(
            "[1 - lr * curvature, -lr * momentum],\n            [curvature, momentum],",
            "[1 - lr * curvature, curvature],\n            [-lr * momentum, momentum],",
            {"q2": 2, "q4": 3},
            "transposed",
        ),
        "real part of the roots": Wrong(
            "max(abs(middle + root), abs(middle - root)) / 2",
            "max((middle + root).real, (middle - root).real) / 2",
            {"q3": 1},
            "modulus",
        ),
        "noise in the buffer only": Wrong(
            "entry = np.array([-lr, 1.0])",
            "entry = np.array([0.0, 1.0])",
            {"q4": 3},
            "theta in the same step",
        ),
        "lr, not the effective rate": Wrong(
            "return lr / (1 - momentum)", "return lr", {"q5": 2}, "not the effective rate"
        ),
        "the grid is of lr": Wrong(
            "lr = effective_lrs[:, None] * (1 - momentum)",
            "lr = effective_lrs[:, None]",
            {"q6": 2},
            "tried at lr",
        ),
        "no legend": Wrong("axes.legend()", "", {"q6": 1}, "no legend"),
    },
    "preconditioning": {
        "noise as it was": Wrong(
            "return curvature / scale, noise / scale,",
            "return curvature / scale, noise,",
            {"q1": 2},
            "the gradient is rescaled",
        ),
        "start by half the power": Wrong(
            "start * scale\n", "start * scale**0.5\n", {"q1": 2}, "square of what scales"
        ),
        "variance of one example": Wrong(
            "rate**2 * noise / batch_size", "rate**2 * noise", {"q2": 2}, "one example's variance"
        ),
        "risk of θ²": Wrong(
            "risks = [curvature @ moment / 2]", "risks = [moment.sum()]", {"q2": 3}, "not the loss"
        ),
        "floor without the preconditioner": Wrong(
            "scaled = lr * noise * curvature**-power",
            "scaled = lr * noise",
            {"q3": 2},
            "noise of plain SGD",
        ),
        "decay on the new θ": Wrong(
            "averages.append(decay * averages[-1] + (1 - decay) * theta)",
            "averages.append((1 - decay) * averages[-1] + decay * theta)",
            {"q4": 2},
            "weight of the old average",
        ),
        "independent steps": Wrong(
            "gain = (1 + decay) * (1 - kept * decay) / ((1 - decay) * (1 + kept * decay))",
            "gain = (1 + decay) / (1 - decay)",
            {"q5": 3, "q6": 1},
            "correlated",
        ),
        "gains upside down": Wrong(
            "floors[0] / np.array(floors)",
            "np.array(floors) / floors[0]",
            {"q6": 1},
            "divided by plain floor",
        ),
    },
    "measured": {
        "drops failed runs": Wrong(
            "ordered = np.sort(np.asarray(steps, dtype=float))",
            "ordered = np.sort(steps[np.isfinite(steps)]) if np.isfinite(steps).any() else steps",
            {"q1": 2},
            "left out",
        ),
        "mean": Wrong(
            "return np.inf if np.isinf(high) else (low + high) / 2",
            "return np.mean(steps)",
            {"q1": 3, "q5": 1},
            "this is the mean",
        ),
        "quantiles of runs": Wrong(
            "np.quantile(np.median(drawn, axis=1), [0.025, 0.975])",
            "np.quantile(steps, [0.025, 0.975])",
            {"q2": 2, "q5": 1},
            "of the runs",
        ),
        "linear least squares": Wrong(
            "np.log(s_min * (1 + b_crit / batch_sizes)) - np.log(steps)",
            "s_min * (1 + b_crit / batch_sizes) - steps",
            {"q3": 3, "q5": 2},
            "smallest batch decides",
        ),
        "price in the other order": Wrong(
            "return 1 + b_crit / batch_size, 1 + batch_size / b_crit",
            "return 1 + batch_size / b_crit, 1 + b_crit / batch_size",
            {"q4": 2},
            "other order",
        ),
        "no curve": Wrong(
            "axes.loglog(batch_sizes, curve, color=points.get_color())",
            "",
            {"q6": 2},
            "hyperbola of sgd is not drawn",
        ),
    },
    "noise": {
        "population variance": Wrong("ddof=1", "ddof=0", {"q1": 2}, "divide by n - 1"),
        "biased signal": Wrong(
            " - trace / len(gradients)", "", {"q1": 2}, "squared mean is biased"
        ),
        "noise of a batch": Wrong(
            "trace = (small_norm - large_norm) / (1 / small - 1 / large)",
            "trace = (small_norm - large_norm) / (1 / small - 1 / large) / small",
            {"q2": 3},
            "noise of the small batch",
        ),
        "mean of ratios": Wrong(
            "np.mean(traces) / np.mean(signals)",
            "np.mean(traces / signals)",
            {"q3": 2},
            "mean of ratios",
        ),
        "momentum forgotten": Wrong(
            "lr * examples / (batch_size * (1 - momentum))",
            "lr * examples / batch_size",
            {"q4": 2},
            "momentum is forgotten",
        ),
        "first batch size throughout": Wrong(
            "sum(e * examples / B for e, B in zip(epochs, batch_sizes))",
            "sum(epochs) * examples / batch_sizes[0]",
            {"q5": 2},
            "first batch size",
        ),
        "no half": Wrong(
            "risks.append(curvature * moment / 2)",
            "risks.append(curvature * moment)",
            {"q6": 2},
            "not right",
        ),
    },
    "extrapolation": {
        "uphill": Wrong(
            "- extrapolation * past",
            "+ extrapolation * past",
            {"q1": 2, "q2": 3, "q5": 2, "q6": 1},
            "check its sign",
        ),
        "common past": Wrong(
            "return weights + velocity, velocity, grads\n",
            "return weights + velocity, velocity, np.tile(grads.mean(0), (len(xs), 1))\n",
            {"q2": 3, "q5": 2},
            "not the mean",
        ),
        "summed gradients": Wrong(
            "velocity = momentum * velocity - lr * grads.mean(axis=0)",
            "velocity = momentum * velocity - lr * grads.sum(axis=0)",
            {"q2": 3, "q5": 2, "q6": 1},
            "summed over workers",
        ),
        "heavy ball": Wrong(
            "gradient(weights + momentum * velocity, x, y)",
            "gradient(weights, x, y)",
            {"q3": 2},
            "heavy-ball",
        ),
        "lr, not the effective rate": Wrong(
            "return lr / (1 - momentum)", "return lr", {"q4": 3}, "this is lr"
        ),
        "one seed": Wrong(
            "rng = np.random.default_rng(seed)\n    state",
            "rng = np.random.default_rng(0)\n    state",
            {"q5": 2, "q6": 1},
            "seed has no effect",
        ),
        "off by one step": Wrong(
            "return reached[0] if len(reached)",
            "return reached[0] + 1 if len(reached)",
            {"q6": 1},
            "off by one",
        ),
    },
}

# Right solutions in another way: what is put behind the cell that defines the name.
RIGHT = {
    "sgd with torch": (
        "sgd",
        """
import torch

def sgd_step(theta, curvature, noise, lr, batch_size, rng):
    theta, h = torch.as_tensor(theta), torch.as_tensor(curvature)
    normal = torch.as_tensor(rng.standard_normal(tuple(theta.shape)))
    slope = h * theta + (torch.as_tensor(noise) / batch_size).sqrt() * normal
    return theta - lr * slope

def second_moment(start, curvature, noise, lr, batch_size, steps):
    m, h, c = (torch.as_tensor(a, dtype=torch.float64) for a in (start, curvature, noise))
    for _ in range(steps):
        m = (1 - lr * h) ** 2 * m + lr**2 * c / batch_size
    return m

def floor(curvature, noise, lr, batch_size):
    h, c = torch.as_tensor(curvature), torch.as_tensor(noise)
    return (lr * c / (2 * batch_size * (2 - lr * h))).sum()
""",
    ),
    "sgd by solving": (
        "sgd",
        """
from scipy.linalg import solve

def second_moment(start, curvature, noise, lr, batch_size, steps):
    shrink = np.diag((1 - lr * curvature) ** 2)
    limit = solve(np.eye(len(start)) - shrink, lr**2 * noise / batch_size)
    return limit + np.linalg.matrix_power(shrink, steps) @ (start - limit)

def floor(curvature, noise, lr, batch_size):
    shrink = np.diag((1 - lr * curvature) ** 2)
    limit = solve(np.eye(len(curvature)) - shrink, lr**2 * noise / batch_size)
    return float(curvature @ limit / 2)
""",
    ),
    "momentum by eigenvalues and Kronecker products": (
        "momentum",
        """
def shrink_factor(curvature, lr, momentum):
    return np.abs(np.linalg.eigvals(transition(curvature, lr, momentum))).max()

def risk_curve(curvature, noise, start, lr, momentum, batch_size, steps):
    matrix, entry = transition(curvature, lr, momentum), np.array([-lr, 1.0])
    twice, added = np.kron(matrix, matrix), np.kron(entry, entry) * noise / batch_size
    state, risks = np.array([start, 0.0, 0.0, 0.0]), []
    for _ in range(steps + 1):
        risks.append(curvature * state[0] / 2)
        state = twice @ state + added
    return risks
""",
    ),
    "averaging by a Lyapunov equation": (
        "preconditioning",
        """
from scipy.linalg import solve_discrete_lyapunov

def averaged_floor(curvature, noise, lr, decay, batch_size):
    total = 0
    for h, c in zip(curvature, noise):
        a = 1 - lr * h
        matrix = np.array([[a, 0], [(1 - decay) * a, decay]])
        entry = np.array([-lr, -(1 - decay) * lr])
        cov = solve_discrete_lyapunov(matrix, np.outer(entry, entry) * c / batch_size)
        total += h * cov[1, 1] / 2
    return total
""",
    ),
    "extrapolation with torch's gradients": (
        "extrapolation",
        """
import torch

def slopes(points, xs, ys):
    # the gradients of all workers, by one pass back
    w = torch.tensor(np.asarray(points), requires_grad=True)
    xs, ys = torch.as_tensor(xs), torch.as_tensor(ys)
    hidden = torch.tanh(xs @ w[:, :16].reshape(-1, 2, 8) + w[:, None, 16:24])
    output = (hidden * w[:, None, 24:32]).sum(-1) + w[:, 32:]
    torch.nn.functional.softplus(-ys * output).mean(1).sum().backward()
    return w.grad

def extrap_step(weights, velocity, past, xs, ys, lr, momentum, extrapolation):
    weights, velocity, past = (torch.as_tensor(np.asarray(a)) for a in (weights, velocity, past))
    points = weights + momentum * velocity - extrapolation * past
    grads = slopes(points, np.array(xs), np.array(ys))
    velocity = momentum * velocity - lr * grads.mean(0)
    return weights + velocity, velocity, grads

loss_of_array = loss
def loss(weights, x, y):
    return loss_of_array(np.asarray(weights), x, y)

def nesterov_step(weights, velocity, x, y, lr, momentum):
    grad = slopes((weights + momentum * velocity)[None], x[None], y[None])[0].numpy()
    velocity = momentum * velocity - lr * grad
    return weights + velocity, velocity
""",
    ),
}
