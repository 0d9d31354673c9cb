"""Optimizers that could train a user's network in place of its own, at any rate."""

import torch

from batchscaling import _validation as check
from batchscaling.practice.kept import is_decoupled

MOMENTUM, BETAS = 0.9, (0.9, 0.999)  # of a contender, where the run has none


def contenders(optimizer):
    """Return the names of those that race with a run: its own kind with and without momentum, too.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer
        Of the run.

    Returns
    -------
    tuple of str
    """
    if "betas" in optimizer.defaults:
        return "adam", "adam_without_momentum", "momentum"
    return "momentum", "sgd", "adam"


def entered(name, optimizer, base):
    """Set an optimizer to zero, or make another one of its parameters, and let it race.

    Its own kind stays of its class. What another kind has that the run's has not is usual: 0.9 for
    momentum, 0.9 and 0.999 for Adam's decays. Groups keep the ratios of their rates. Where the
    kind changes, decay that the rate scales takes as much off the parameters a step as before.

    Parameters
    ----------
    name : str
        Of `contenders`.
    optimizer : torch.optim.Optimizer
        A copy of the run's; it is changed.
    base : float
        The rate of the first group whose rate is not zero.

    Returns
    -------
    torch.optim.Optimizer
    """
    adaptive = "betas" in optimizer.defaults
    first = reference_rate(optimizer)
    groups = optimizer.param_groups
    if adaptive == name.startswith("adam"):
        optimizer.state.clear()
        for group in groups:
            group["lr"] = group["lr"] * (base / first)
            if name == "sgd":
                group["momentum"] = 0.0
            elif name == "adam_without_momentum":
                group["betas"] = (0.0, group["betas"][1])
            elif name == "momentum" and not group["momentum"]:
                group["momentum"] = MOMENTUM
        return optimizer
    changed = [
        {
            "params": group["params"],
            "lr": float(group["lr"]) * base / first,
            "weight_decay": _decay(optimizer, group, base / first),
        }
        for group in groups
    ]
    if adaptive:
        return torch.optim.SGD(changed, lr=base, momentum=MOMENTUM)
    return torch.optim.AdamW(changed, lr=base, betas=BETAS)


def reference_rate(optimizer):
    """Return the rate of the first group that has one.

    Raises
    ------
    ValueError
        If all are zero.
    """
    rates = [float(group["lr"]) for group in optimizer.param_groups]
    if not any(rates):
        check.reject("optimizer", "one whose rates are all zero", "one that trains")
    return next(rate for rate in rates if rate)


def first_rates(optimizer):
    """Return for each contender a rate to begin the search with.

    The run's own is that of the run. Others move as far as it does, in a first step along the
    gradients that the parameters hold, momentum taken as if it had lasted.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer
        Whose parameters hold gradients.

    Returns
    -------
    dict of str to float
    """
    own, adaptive = reference_rate(optimizer), "betas" in optimizer.defaults
    shares = [float(group["lr"]) / own for group in optimizer.param_groups]
    steepest, equal = (
        sum(share**2 * size(group) for share, group in zip(shares, optimizer.param_groups)) ** 0.5
        for size in (_squared_norm, _count)
    )
    if not steepest > 0:
        check.reject("loss", "one whose gradient is zero", "one that the optimizer can lower")
    momentum = MOMENTUM
    if not adaptive:
        momentum = max(float(group["momentum"]) for group in optimizer.param_groups)
    if adaptive:
        plain = own * equal / steepest
        return {"adam": own, "adam_without_momentum": own, "momentum": plain * (1 - MOMENTUM)}
    plain = own / (1 - momentum)
    kept = plain * (1 - (momentum or MOMENTUM))
    return {"momentum": kept, "sgd": plain, "adam": plain * steepest / equal}


def _decay(optimizer, group, growth):
    """Return the decay of a group for another kind of optimizer, whose rate is so many times."""
    decay = float(group.get("weight_decay", 0.0))
    adaptive = "betas" in group
    if adaptive and not is_decoupled(optimizer, group):
        return decay  # a penalty on the loss, for SGD, too
    return decay / growth


def _squared_norm(group):
    grads = (p.grad for p in group["params"] if p.grad is not None)
    return sum(float(g.to_dense().abs().square().sum()) for g in grads)


def _count(group):
    return sum(p.numel() for p in group["params"] if p.grad is not None)
