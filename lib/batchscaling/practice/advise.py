"""Advice on the batch size of a run: throughput, noise scale and branches, from cheap to dear."""

from collections.abc import Iterable, Mapping
from functools import partial

from batchscaling import _validation as check
from batchscaling._errors import InputError
from batchscaling.practice.advice import combined
from batchscaling.practice.branch import branch, check_options
from batchscaling.practice.examples import Examples
from batchscaling.practice.kept import check_network, is_decoupled
from batchscaling.practice.losses import check_loss
from batchscaling.practice.predict import momentum_gain
from batchscaling.practice.race import check_race
from batchscaling.practice.race import race as raced
from batchscaling.practice.stretch import FEWEST, stretch
from batchscaling.practice.throughput import throughput
from batchscaling.practice.trial import tried

LAYERS = ("throughput", "noise", "branches", "race")
_LARGEST = 4096  # batch size that is timed
_SHARE, _GROWN = 0.05, 64  # of a run's examples, and of `probed`: gradients for the noise scale


def advise(
    model,
    loss,
    data,
    optimizer,
    *,
    batch_size,
    layers=LAYERS[:-1],
    probed=512,
    steps=1,
    price=1,
    confidence=0.95,
    seed=0,
    branches=None,
    race=None,
):
    """Return advice on the batch size of a training run, from its present state.

    Four layers, each optional, the last one only if it is asked for. Throughput: the seconds of a
    step, on this device; memory is a limit, not a goal. Noise: the noise scale of the gradients of
    single examples, by `NoiseMeter.probe`, in the geometry of the optimizer. That of one state goes
    up and down, so it is averaged over eight states of a copy that trains on for a moment. Where
    the signal is weak, probes grow up to eight times. Branches: `branch`. Race: `race`, the
    dearest, of other optimizers; it says nothing of the batch size. The advised size reaches a loss
    in the least time, if the noise scale is the critical batch size; the book's chapter on advice
    says how near it comes. With momentum, that of SGD may be larger by up to
    `predict.momentum_gain`: the interval goes as far. No batch is larger than the data.

    Layers work on copies. Model, buffers, optimizer, data loader and random numbers are as before
    afterwards, also after an error.

    Parameters
    ----------
    model, loss, data, optimizer
        As for `branch`.
    batch_size : int
        Of the run.
    layers : sequence of str
        Of ``"throughput"``, ``"noise"``, ``"branches"`` and ``"race"``, in any order.
    probed : int
        Examples whose gradients are taken first; all where there are fewer.
    steps : float
        Of the whole run, if the table is to be in steps and seconds and not in shares. Probes then
        grow within a twentieth of its examples.
    price : float
        Of a second on the device, in any currency.
    confidence : float
    seed : int
        Of the examples.
    branches : dict, optional
        Options of `branch`: ``factors``, ``steps``, ``repeats``, ``evaluated``, ``tolerance``, and
        ``confidence`` and ``seed`` where they are to be others.
    race : dict, optional
        Options of `race`: ``steps``, ``repeats``, ``evaluated``, ``tolerance``, and the
        same two.

    Returns
    -------
    Advice
        ``print`` it; it has a `table`, `transfer`, `warm_up`, `worth`, `to_json` and `to_html`. A
        layer that fails by what it was given is in `failed`, with the reason.

    Raises
    ------
    ValueError
        If an argument is out of its range, or a step of the run fails.
    """
    check_network(model, optimizer)
    check_loss(loss)
    batch_size = check.integer("batch_size", batch_size, 1)
    probed, seed = check.integer("probed", probed, FEWEST), check.integer("seed", seed, 0)
    steps, price = check.positive("steps", steps), check.nonnegative("price", price)
    gain = max(map(_gain, optimizer.param_groups))
    common = check_options(confidence=confidence, seed=seed)
    layers = _check_layers(layers)
    branches = common | check_options(**_dict("branches", branches))
    race = common | check_race(**_dict("race", race))
    examples = Examples(data, next(model.parameters()).device)
    run, again = (model, loss, examples, optimizer), (model, loss, data, optimizer)
    work = {
        "throughput": partial(throughput, *run, largest=min(_LARGEST, examples.count)),
        "noise": partial(
            stretch,
            *run,
            batch_size=batch_size,
            probed=probed,
            most=_GROWN * probed if steps == 1 else _SHARE * steps * batch_size,
            **common,
        ),
        "branches": partial(branch, *again, batch_size=batch_size, **branches),
        "race": partial(raced, *again, batch_size=batch_size, **race),
    }
    found, failed = dict.fromkeys(LAYERS), {}
    with tried(model, optimizer, loss, examples, batch_size):
        for layer in layers:
            try:
                found[layer] = work[layer]()
            except InputError as error:
                failed[layer] = str(error)
    hyper, *others = (_hyper(optimizer, group) for group in optimizer.param_groups)
    others = {number: other for number, other in enumerate(others, 1) if other != hyper}
    method = "adam" if "betas" in optimizer.param_groups[0] else "sgd"
    more = {"method": method, "hyper": hyper, "others": others, "steps": steps, "price": price}
    sizes = {"gain": gain, "largest": examples.count}
    *three, ran = found.values()
    return combined(batch_size, *three, failed, **sizes, **more, race=ran)


def _check_layers(layers):
    """Return the layers in their order, from cheap to dear."""
    allowed = f"a sequence of some of {LAYERS}"
    if isinstance(layers, str) or not isinstance(layers, Iterable):
        check.reject("layers", layers, allowed)
    asked = [check.one_of("layers", layer, LAYERS) for layer in layers]
    return [layer for layer in LAYERS if layer in asked]


def _dict(layer, options):
    if options is not None and not isinstance(options, Mapping):
        name = {"branches": "branch"}.get(layer, layer)
        check.reject(layer, options, f"a dict of options of {name}, or None")
    return options or {}


def _gain(group):
    """Return what the momentum of SGD may add to the critical batch size, as a factor.

    Groups that are not trained add nothing.
    """
    if "betas" in group or not any(param.requires_grad for param in group["params"]):
        return 1.0
    return momentum_gain(float(group["momentum"]), nesterov=bool(group["nesterov"]))


def _hyper(optimizer, group):
    """Return the hyperparameters of a group of parameters."""
    hyper = {"lr": float(group["lr"])}
    if "betas" in group:
        hyper["beta1"], hyper["beta2"] = map(float, group["betas"])
    elif group["momentum"]:
        hyper["momentum"] = float(group["momentum"])
    if group.get("weight_decay"):
        decoupled = is_decoupled(optimizer, group)
        name = "decoupled_weight_decay" if decoupled else "weight_decay"
        hyper[name] = float(group["weight_decay"])
    return hyper
