"""Heavy ball whose momentum may change from step to step."""

from batchscaling import _validation as check
from batchscaling.training.optimizers.base import Optimizer, zeros
from batchscaling.training.optimizers.heavy_ball import heavy_ball


def accumulator(momentum=None, scale=None, *, mean=True):
    """Return heavy ball with a momentum that depends on the step.

    With ``mean``, A' = m A + (1 - m) g and w' = w - lr A': at a constant m it is `heavy_ball` with
    the rate lr (1 - m), and the effective rate is lr whatever m does. Without, A' = m A + g: it is
    `heavy_ball` with the rate lr, and the effective rate lr / (1 - m) follows m.

    Parameters
    ----------
    momentum : callable, optional
        ``momentum(step, m)`` returns the momentum of a step from that of the trial; steps count
        from 1, and both are tensors. Without it the momentum is constant.
    scale : callable, optional
        ``scale(step, m)`` returns a factor of the step's rate, from the step's momentum; 1 without
        it. ``lambda t, m: 1 / (1 - m**t)`` corrects an accumulator that is not filled yet [1]_.
    mean : bool

    Returns
    -------
    Optimizer
        With the hyperparameters of `heavy_ball`.

    Raises
    ------
    ValueError
        If `momentum` or `scale` is given and not callable, or `mean` is not a bool.

    References
    ----------
    .. [1] Kingma and Ba, "Adam: a method for stochastic optimization", 2015, section 3.
    """
    for name, value in (("momentum", momentum), ("scale", scale)):
        if value is not None and not callable(value):
            check.reject(name, value, "a callable of step and momentum, or None")
    if not isinstance(mean, bool):
        check.reject("mean", mean, "True or False")

    def init(params):
        return {"step": next(iter(params.values())).new_zeros(()), "sum": zeros(params)}

    def update(grads, state, params, hyper):
        step, m = state["step"] + 1, hyper["momentum"]
        m = m if momentum is None else momentum(step, m)
        weight = 1 - m if mean else 1.0
        total = {name: m * state["sum"][name] + weight * g for name, g in grads.items()}
        rate = hyper["lr"] * (1 if scale is None else scale(step, m))
        return {name: -rate * a for name, a in total.items()}, {"step": step, "sum": total}

    return Optimizer(init, update, heavy_ball.hyper)
