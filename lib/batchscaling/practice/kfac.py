"""K-FAC for a user's network: what its layers see in an ordinary step, and the book's K-FAC."""

from collections import defaultdict
from contextlib import ExitStack

import torch

from batchscaling import _validation as check
from batchscaling.training.models.module import places
from batchscaling.training.models.module_taps import recording
from batchscaling.training.models.taps import (
    Diagonal,
    Kronecker,
    Tapped,
    check_gradients,
    moments_of,
)
from batchscaling.training.optimizers.kfac import EVERY, kfac

_FACTOR_DECAY = 0.95


class KFac(torch.optim.Optimizer):
    """K-FAC as an optimizer of torch, of a network that it hooks for as long as it lives.

    The Fisher matrix is the empirical one, of the labels of the step's own batch, so it needs no
    other pass. Every `EVERY` steps the layers are looked at, and the factors inverted.

    Parameters
    ----------
    model : torch.nn.Module
    groups : list of dict
        With ``params``, ``lr`` and ``weight_decay``, which the rate scales and which is apart from
        the gradient. Their rates share one momentum.
    batch_size : int
        Of each step.
    lr : float
        In units of Newton's step.
    momentum : float
    damping : float
        In units of the mean eigenvalue of the Fisher matrix in the first step.
    kl_clip : float
        Bound of lr² g'F⁻¹g for a gradient g: while it binds, the rate is without effect.

    Raises
    ------
    ValueError
        If the model is compiled, or a hook may change the gradient of a parameter; and by the first
        step, if a parameter belongs to no layer that records; it names the parameter.
    """

    def __init__(self, model, groups, batch_size, *, lr, momentum, damping, kl_clip):
        super().__init__(groups, {"lr": lr, "weight_decay": 0.0})
        self._group_of = {id(p): group for group in self.param_groups for p in group["params"]}
        self._damping, self._batch_size, self._count = damping, batch_size, 0
        self._given = {"lr": lr, "momentum": momentum, "kl_clip": kl_clip}
        self._given["factor_decay"] = _FACTOR_DECAY
        _check_seen(model)
        named = {_named(name): p for name, p in model.named_parameters()}
        trained = {name: p for name, p in named.items() if id(p) in self._group_of}
        self._watch = _Watch({name: p for name, p in trained.items() if p.requires_grad})
        names = {id(p): name for name, p in named.items()}
        name_at = {_named(place): names[id(t)] for place, t in places(model) if id(t) in names}
        self._hooks = ExitStack()  # which would take them off when it goes
        self._hooks.enter_context(recording(model, name_at, self._watch))

    @torch.no_grad()
    def step(self, closure=None):
        """Take a step with the gradients that the parameters hold."""
        if not self._count:
            self._begin()
        grads = {
            name: torch.zeros_like(p) if p.grad is None else p.grad.to_dense()
            for name, p in self._params.items()
        }
        values = {name: p.detach() for name, p in self._params.items()}
        if self._watch.is_open:
            self._look(values, grads)
        updates, self._pure = kfac.update(grads, self._pure, values, self._hyper)
        for name, p in self._params.items():
            group = self._group_of[id(p)]
            p.mul_(1 - group["lr"] * group["weight_decay"])
            p.add_(updates[name], alpha=group["lr"] / self._given["lr"])
        self._count += 1
        self._watch.start(self._count % EVERY == 0)

    def _begin(self):
        """Train the parameters that have a gradient now."""
        self._params = {name: p for name, p in self._watch.items() if p.grad is not None}
        kinds = {p.dtype for p in self._params.values()}
        if len(kinds) != 1 or not kinds <= {torch.float32, torch.float64}:
            found = f"one with parameters of {', '.join(sorted(map(str, kinds)))}"
            check.reject("model", found, "all torch.float32 or all torch.float64, for K-FAC")
        like = next(iter(self._params.values())).detach()
        self._hyper = {name: like.new_tensor(value) for name, value in self._given.items()}
        self._pure = kfac.init({name: p.detach() for name, p in self._params.items()})

    def _look(self, values, grads):
        moments = self._watch.moments(self._batch_size, None if self._count else (values, grads))
        if not self._count:
            self._layers = moments.keys()
            mean = _trace(moments) / sum(p.numel() for p in values.values())
            self._hyper["damping"] = (self._damping * mean).clamp(min=1e-30)
        changed = sorted(self._layers ^ moments.keys())
        if changed:
            found = f"one that uses {changed[0]!r} in some steps and not in others"
            check.reject("model", found, "one that uses the same layers in each step, for K-FAC")
        (look,) = kfac.looks
        self._pure = look.fold(moments, self._pure, self._hyper)


def _check_seen(model):
    """Check that layers show what goes through them, and that gradients are what they say."""
    if any(hasattr(layer, "_orig_mod") for layer in model.modules()):
        check.reject("model", "one compiled by torch.compile", "one that is not, for K-FAC")
    for name, p in model.named_parameters():
        if p._backward_hooks:
            found = f"one with a hook on the gradient of {name!r}"
            check.reject("model", found, "one without, for K-FAC")


def _named(name):
    """Return a name that has a layer before it, also where the network is itself a layer."""
    return name if "." in name else f"network.{name}"


class _Watch(Tapped):
    """Parameters whose layers record an ordinary step, forward and backward."""

    def __init__(self, params):
        super().__init__(params)
        self.start(True)

    def start(self, is_open):
        """Forget what was seen; record what comes if it is open."""
        self.is_open, self.uses, self.inputs, self._felt = is_open, [], [], {}

    def tap(self, use, inputs, outputs):
        if self.is_open and outputs.requires_grad and len(inputs):
            place, kind = len(self.uses), self[f"{use.name}.weight"].dtype
            self.uses.append(use)
            self.inputs.append(_of_kind(inputs.detach(), kind)[None])

            def keep(slope):
                self._felt[place] = _of_kind(slope.detach(), kind)[None]

            outputs.register_hook(keep)
        return outputs

    def moments(self, batch_size, checked=None):
        """Return those of the Fisher matrix of the mean loss.

        Examples of a layer may be more than those of the batch, if its network has laid positions
        beside them. With `checked`, parameters and their gradients, it is seen that all of them
        belong to layers.
        """
        places = sorted(self._felt)
        uses, seen = [self.uses[k] for k in places], [self.inputs[k] for k in places]
        felt = [self._felt[k] for k in places]
        if checked is not None:
            values, grads = ({name: t[None] for name, t in part.items()} for part in checked)
            check_gradients(uses, values, seen, felt, list(grads.values()))
        found = moments_of(uses, seen, [[slope * batch_size for slope in felt]])
        examples = _examples(uses, seen)
        return {
            name: _mean(moment, batch_size, examples.get(name)) for name, moment in found.items()
        }


def _of_kind(tensor, kind):
    return tensor.to(kind) if tensor.is_floating_point() else tensor


def _examples(uses, seen):
    """Return for each layer the examples of a use: their mean, with positions for weights."""
    positions, both = defaultdict(int), defaultdict(int)
    for use, given in zip(uses, seen, strict=True):
        count = use.positions(given)
        positions[use.name] += count
        both[use.name] += count * given.shape[1]
    return {name: both[name] / count for name, count in positions.items()}


def _mean(moment, batch_size, examples):
    if isinstance(moment, Diagonal):
        return Diagonal(moment.squares[0] / batch_size)
    return Kronecker(moment.inputs[0] / batch_size, moment.outputs[0] / examples)


def _trace(moments):
    """Return the trace of the Fisher matrix that moments make."""
    sums = [
        [(side if side.ndim == 1 else side.diagonal()).sum() for side in moment]
        if isinstance(moment, Kronecker)
        else [moment.squares.sum()]
        for moment in moments.values()
    ]
    return sum(torch.stack(parts).prod() for parts in sums)
