"""Optimizers that could train a user's network in place of its own, at any rate."""

import torch

from batchscaling import _validation as check
from batchscaling.practice.kept import copy_step_hooks, is_decoupled
from batchscaling.practice.kfac import KFac

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
        return "adam", "adam_without_momentum", "momentum", "kfac"
    return "momentum", "sgd", "adam", "kfac"


def entered(name, model, optimizer, batch_size, hyper):
    """Set an optimizer to zero, or make another one of its parameters, and let it race.

    Its own kind stays of its class. What another kind has that the run's has not is usual: 0.9 for
    momentum, 0.9 and 0.999 for Adam's decays. Groups keep the ratios of their rates. Where the
    kind changes, hooks of steps stay, and weight decay takes as much off a parameter without a
    gradient as before, in the long run; but a penalty on the loss, as that of `torch.optim.Adam`,
    stays one for SGD.

    Parameters
    ----------
    name : str
        Of `contenders`.
    model : torch.nn.Module
    optimizer : torch.optim.Optimizer
        Copies of the run's; they are changed.
    batch_size : int
    hyper : dict of str to float
        ``lr`` of the first group whose rate is not zero; for K-FAC ``damping`` and ``kl_clip``.

    Returns
    -------
    torch.optim.Optimizer
    """
    rate = hyper.get("lr", 1 - MOMENTUM)  # Newton's step, in the long run
    growth = rate / reference_rate(optimizer)
    if is_own(name, optimizer):
        return _restarted(name, optimizer, growth)
    groups = [
        {
            "params": group["params"],
            "lr": float(group["lr"]) * growth,
            "weight_decay": _decay(name, optimizer, group, growth),
        }
        for group in optimizer.param_groups
    ]
    if name == "kfac":
        new = KFac(model, groups, batch_size, lr=rate, momentum=MOMENTUM, **hyper)
    elif name == "adam":
        new = torch.optim.AdamW(groups, lr=rate, betas=BETAS)
    else:
        new = torch.optim.SGD(groups, lr=rate, momentum=MOMENTUM)
    copy_step_hooks(optimizer, new)
    return new


def is_own(name, optimizer):
    """Return whether a contender is of the kind that a run's optimizer is."""
    return name != "kfac" and name.startswith("adam") == ("betas" in optimizer.defaults)


def _restarted(name, optimizer, growth):
    """Return an optimizer without a past, of the same kind, at a rate so many times as large."""
    optimizer.state.clear()
    for group in optimizer.param_groups:
        group["lr"] = group["lr"] * growth
        if name == "sgd":
            group["momentum"] = 0.0
        elif name == "adam_without_momentum":
            group["betas"] = (0.0, group["betas"][1])
        elif name == "momentum" and not group["momentum"]:
            group["momentum"] = MOMENTUM
    return optimizer


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


def beginnings(optimizer):
    """Return for each contender the hyperparameters that the search begins with.

    The run's own rate is that of the run. Others move as far as it does, in a first step along the
    gradients that the parameters hold, momentum taken as if it had lasted. K-FAC has the rate of
    Newton's step, and a clip that decides how far it goes.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer
        Whose parameters hold gradients.

    Returns
    -------
    dict of str to dict
    """
    own, adaptive = reference_rate(optimizer), "betas" in optimizer.defaults
    shares = [float(group["lr"]) / own for group in optimizer.param_groups]
    steepest, equal = (
        sum(share**2 * size(group) for share, group in zip(shares, optimizer.param_groups)) ** 0.5
        for size in (_squared_norm, _count)
    )
    if not 0 < steepest < float("inf"):
        allowed = "one that the optimizer can lower, with a gradient that is finite"
        check.reject("loss", f"one whose gradient has the norm {steepest:.3g}", allowed)
    if adaptive:
        rates = {"adam": own, "adam_without_momentum": own}
        rates["momentum"] = own * equal / steepest * (1 - MOMENTUM)
    else:
        momentum = max(float(group["momentum"]) for group in optimizer.param_groups)
        if momentum >= 1:
            check.reject("optimizer", f"one with momentum {momentum:.4g}", "one below 1")
        plain = own / (1 - momentum)
        rates = {"momentum": plain * (1 - (momentum or MOMENTUM)), "sgd": plain}
        rates["adam"] = plain * steepest / equal
    found = {name: {"lr": rate} for name, rate in rates.items()}
    return found | {"kfac": {"damping": 1.0, "kl_clip": 1e-3}}


def _decay(name, optimizer, group, growth):
    """Return the decay of a group for another kind of optimizer, whose rate is so many times.

    Momentum m multiplies what SGD takes off in a step by 1 / (1 - m), in the long run.
    """
    decay = float(group.get("weight_decay", 0.0))
    adaptive = "betas" in group
    if adaptive and name == "momentum":
        is_penalty = not is_decoupled(optimizer, group)
        return decay if is_penalty else decay / growth * (1 - MOMENTUM)
    return decay / growth / (1 if adaptive else 1 - float(group["momentum"]))


def _squared_norm(group):
    grads = (p.grad for p in group["params"] if p.grad is not None)
    return sum(float(g.to_dense().abs().square().sum()) for g in grads)


def _count(group):
    return sum(p.numel() for p in group["params"] if p.grad is not None)
