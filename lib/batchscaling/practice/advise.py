"""Advice on the batch size of a run: throughput, noise scale and branches, from cheap to dear."""

from batchscaling import _validation as check
from batchscaling._errors import InputError
from batchscaling.practice.advice import combined
from batchscaling.practice.branch import branch
from batchscaling.practice.examples import Examples
from batchscaling.practice.kept import check_network, random_states_kept
from batchscaling.practice.stretch import FEWEST, stretch
from batchscaling.practice.throughput import throughput

LAYERS = ("throughput", "noise", "branches")
_LARGEST = 4096  # batch size that is timed
_SHARE, _GROWN = 0.05, 64  # of a run's examples, and of `probed`: gradients for the noise scale


def advise(
    model,
    loss,
    data,
    optimizer,
    *,
    batch_size,
    layers=LAYERS,
    probed=512,
    steps=1,
    price=1,
    confidence=0.95,
    seed=0,
    branches=None,
):
    """Return advice on the batch size of a training run, from its present state.

    Three layers, each optional. Throughput: the seconds of a step, on this device; memory is a
    limit, not a goal. Noise: the noise scale of the gradients of single examples, by
    `NoiseMeter.probe`, in the geometry of the optimizer. That of one state goes up and down, so it
    is averaged over eight states of a copy that trains on for a moment. Where the signal is weak,
    probes grow up to eight times. Branches: `branch`, the dearest. The advised size reaches a loss
    in the least time, if the noise scale is the critical batch size; the last chapter of the book
    on practice says how near it comes.

    Layers work on copies. Model, buffers, optimizer, data loader and random numbers are as before
    afterwards, also after an error.

    Parameters
    ----------
    model, loss, data, optimizer
        As for `branch`.
    batch_size : int
        Of the run.
    layers : sequence of str
        Of ``"throughput"``, ``"noise"`` and ``"branches"``.
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
        Options of `branch`.

    Returns
    -------
    Advice
        ``print`` it; it has a `table`, `transfer`, `warm_up`, `worth`, `to_json` and `to_html`. A
        layer that fails by what it was given is in `failed`, with the reason.

    Raises
    ------
    ValueError
        If an argument is out of its range.
    """
    check_network(model, optimizer)
    batch_size = check.integer("batch_size", batch_size, 1)
    probed, seed = check.integer("probed", probed, FEWEST), check.integer("seed", seed, 0)
    steps, price = check.positive("steps", steps), check.nonnegative("price", price)
    layers = [check.one_of("layers", layer, LAYERS) for layer in layers]
    examples = Examples(data, next(model.parameters()).device)

    def measure_branches():
        options = {"seed": seed, "confidence": confidence, **(branches or {})}
        return branch(model, loss, data, optimizer, batch_size=batch_size, **options)

    work = {
        "throughput": lambda: throughput(
            model, loss, examples, optimizer, largest=min(_LARGEST, examples.count)
        ),
        "noise": lambda: stretch(
            model,
            loss,
            examples,
            optimizer,
            batch_size=batch_size,
            probed=probed,
            most=_GROWN * probed if steps == 1 else _SHARE * steps * batch_size,
            confidence=confidence,
            seed=seed,
        ),
        "branches": measure_branches,
    }
    found, failed = dict.fromkeys(LAYERS), {}
    with random_states_kept():
        for layer in layers:
            try:
                found[layer] = work[layer]()
            except InputError as error:
                failed[layer] = str(error)
    method, hyper = _hyper(optimizer)
    more = {"method": method, "hyper": hyper, "steps": steps, "price": price}
    return combined(batch_size, *found.values(), failed, **more)


def _hyper(optimizer):
    """Return the method, and the hyperparameters of the first group."""
    group = optimizer.param_groups[0]
    hyper = {"lr": float(group["lr"])}
    method = "adam" if "betas" in group else "sgd"
    if method == "adam":
        hyper["beta1"], hyper["beta2"] = map(float, group["betas"])
    elif group["momentum"]:
        hyper["momentum"] = float(group["momentum"])
    if group.get("weight_decay"):
        decoupled = group.get("decoupled_weight_decay", type(optimizer).__name__ == "AdamW")
        name = "decoupled_weight_decay" if decoupled else "weight_decay"
        hyper[name] = float(group["weight_decay"])
    return method, hyper
