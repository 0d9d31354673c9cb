"""The trials that are still running: a trial is a row of every tensor, or several for workers."""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch.func import vjp, vmap
from torch.utils._pytree import tree_leaves, tree_map

from batchscaling.training.data import Streams, generator
from batchscaling.training.device import compile_all
from batchscaling.training.fisher import slopes_of
from batchscaling.training.losses import cross_entropy
from batchscaling.training.models.taps import Diagonal, Kronecker, layer_moments
from batchscaling.training.optimizers.base import AnotherBatch, Taken
from batchscaling.training.recorded import Recorded
from batchscaling.training.rows import (
    at_least_two,
    column,
    in_columns,
    is_in_columns,
    join,
    of_rows,
    take,
)
from batchscaling.training.schedules import SCHEDULED, constant
from batchscaling.training.workers import ALL_HELD


class Rows(NamedTuple):
    """What rows hold; the first axis of every tensor is the row.

    Attributes
    ----------
    params : dict of torch.Tensor
    state : any nesting of dicts and tuples of torch.Tensor
        The optimizer's.
    average : dict of torch.Tensor
        Averaged parameters; empty if there is no hyperparameter ``decay``.
    hyper : dict of torch.Tensor, each of shape (rows,)
    outer : any nesting of dicts and tuples of torch.Tensor
        The exchange's state.
    """

    params: dict
    state: Any
    average: dict
    hyper: dict
    outer: Any


class Program:
    """Trials that take their steps together.

    Parameters
    ----------
    data : Data
        On the device of the training.
    model : Model
    optimizer : Optimizer
    pieces : Pieces
    loss : Loss
    schedule : Schedule
    exchange : Exchange, optional
        Of workers; without it, a trial is one row.
    held : Held
        Which of the workers are here.
    compiled : bool
    watch : callable, optional
        ``watch(grads)`` gets the gradients of a step, of all workers: the axes of tensors are
        trials, workers, and those of the parameter. It needs an exchange.
    """

    def __init__(
        self,
        data,
        model,
        optimizer,
        pieces,
        *,
        loss=cross_entropy,
        schedule=constant,
        exchange=None,
        held=ALL_HELD,
        compiled=False,
        watch=None,
    ):
        self.data, self.model, self.optimizer, self.pieces = data, model, optimizer, pieces
        self.loss, self.schedule = loss, schedule
        self.exchange, self.held, self.watch = exchange, held, watch
        self.workers = 1 if exchange is None else len(range(exchange.workers)[held.workers])
        self.device = data.train_inputs.device
        self._apply, self._update = vmap(model.apply), vmap(optimizer.update)
        asks = optimizer.query is not None
        self._query = vmap(optimizer.query) if asks else None
        self._penalty = vmap(optimizer.penalty) if asks and optimizer.penalty else None
        self._recorded = []
        self._compiled = compiled
        self._forward = _forward_for_compiler if compiled else _forward
        # Nobody looks at gradients or at the state between the two parts of a step.
        self._alone = exchange is None and optimizer.own is None
        self._alone &= not optimizer.looks and not optimizer.outcomes
        self._plain = self._alone and not asks
        if compiled and self._plain:
            (self._advanced,) = compile_all(self._advanced, device=self.device)
        elif compiled:
            parts = self._gradients, self._moved
            self._gradients, self._moved = compile_all(*parts, device=self.device)
        elif self.device.type == "cpu":
            self._record()
        self._checked, self._in_place = False, None

    def start(self, seeds, hyper, batch_size):
        """Initialise one trial for each seed.

        Parameters
        ----------
        seeds : numpy.ndarray of int, shape (trials,)
        hyper : dict of torch.Tensor, each of shape (trials,)
        batch_size : int or BatchSizes
        """
        trials, exchange = at_least_two(np.arange(len(seeds))), self.exchange
        self.count, self.seeds = len(seeds), seeds[trials].tolist()
        initial = [self.model.init(generator(seed, "init")) for seed in self.seeds]
        params = {name: torch.stack([p[name] for p in initial]) for name in initial[0]}
        params = tree_map(
            self._for_workers, {name: p.to(self.device) for name, p in params.items()}
        )
        if self._compiled and self.device.type == "cpu":
            params = {name: self._for_inputs(p) for name, p in params.items()}
        hyper = tree_map(self._for_workers, take(hyper, trials))
        average = tree_map(torch.clone, params) if "decay" in hyper else {}
        outer = {} if exchange is None else self._by_row(exchange.init(self._by_worker(params)))
        self.rows = Rows(params, vmap(self.optimizer.init)(params), average, hyper, outer)
        examples, draws = len(self.data.train_inputs), self._draws(initial[0])
        self.streams = Streams(self.seeds, examples, batch_size, draws)

    def keep(self, trials):
        """Go on with some of the trials only.

        Parameters
        ----------
        trials : numpy.ndarray of int
            Places among those that run.
        """
        for function in self._recorded:
            function.forget()
        self.count, trials = len(trials), at_least_two(trials)
        self.seeds = [self.seeds[trial] for trial in trials]
        self.streams.keep(self.seeds)
        rows = trials[:, None] * self.workers + np.arange(self.workers)
        self.rows = take(self.rows, torch.as_tensor(rows.ravel(), device=self.device))

    def resume(self, step, rows):
        """Go on from what the rows that run held after so many steps; the first was taken here."""
        for past in range(1, step):
            self._batch(self._looks(past))
        self.rows = rows

    def visit(self, steps, bar, now=0):
        """Yield each of `steps` in turn, once the steps up to it are taken; `bar` counts them.

        Steps up to `now` were taken before.
        """
        for end in steps:
            for step in range(now, end):
                self.step(step)
                bar.update()
            now = end
            yield end

    def step(self, step):
        """Take a step, counted from 0."""
        hyper = now = self.rows.hyper
        if self.schedule is not constant:
            factor = self.schedule.factor(step, hyper)
            now = hyper | {name: hyper[name] * factor for name in SCHEDULED if name in hyper}
        looks = self._looks(step)
        batch = self._batch(looks)
        # The workers of a trial go through together.
        examples = self.workers * self.pieces.examples(batch["index"].shape[1])
        parts = self.pieces.rows(len(self.seeds), examples)
        every = self.rows._replace(hyper=now)
        if len(parts) == 1:
            done = self._stepped(every, batch, looks, step)
        else:
            parts = [slice(p.start * self.workers, p.stop * self.workers) for p in parts]
            some = (self._stepped(take(every, p), take(batch, p), looks, step) for p in parts)
            done = join(list(some))
        self.rows = done._replace(hyper=hyper)

    def readout(self, *, averaged=False):
        """Return the parameters of each trial that runs, or their averages."""
        params = self.rows.average if averaged else self.rows.params
        if self.exchange is not None:
            params = self.exchange.readout(self._by_worker(params), self._mean)
        return take(params, slice(self.count))

    def _looks(self, step):
        return [look for look in self.optimizer.looks if step % look.every == 0]

    def _record(self):
        """Repeat the parts of a step from recordings."""
        examples = self.data.train_inputs, self.data.train_labels
        self._gradients = Recorded(self._gradients, examples)
        # Gradient and old state may be written over, unless others look at them, too.
        self._moved = Recorded(self._moved, spent=(0, 1) if self._alone else ())
        self._recorded = [self._gradients, self._moved]
        if self._query is not None:
            self._query = Recorded(self._query)
            self._recorded.append(self._query)

    def _draws(self, params):
        """Return the random numbers of a step, by name: purpose, and how they are drawn."""
        draws = {}
        if self.data.augment is not None:
            draws["changes"] = "augment", self.data.augment.draw
        if self.optimizer.draw is not None:
            draws["drawn"] = "optimizer", self._draw_of_optimizer(params)
        if any(look.fisher == "sampled" for look in self.optimizer.looks):
            draws["uniform"] = "labels", self._draw_for_labels(params)
        return draws

    def _draw_of_optimizer(self, params):
        def draw(rng, batch_size):
            if self.exchange is None:
                return self.optimizer.draw(rng, params, batch_size)
            workers = self.exchange.workers
            size = batch_size // workers
            if self.optimizer.shared_draw:
                drawn = self.optimizer.draw(rng, params, size)
                return tree_map(lambda t: t.expand(workers, *t.shape), drawn)
            each = [self.optimizer.draw(rng, params, size) for _ in range(workers)]
            return tree_map(lambda *parts: torch.stack(parts), *each)

        return draw

    def _draw_for_labels(self, params):
        with torch.no_grad():
            params = {name: p.to(self.device) for name, p in params.items()}
            shape = self.model.apply(params, self.data.train_inputs[:2]).shape[1:]
        return lambda rng, batch_size: torch.rand(batch_size, *shape, generator=rng)

    def _batch(self, looks):
        """Return each row's batch and random numbers of a step."""
        names = [name for name in self.streams.names if looks or name != "uniform"]
        batch = self.streams.next(names, self.device)
        if self.exchange is None:
            return batch
        shared = {
            name: tree_map(lambda tensor: self.exchange.split(tensor, self.exchange.workers), tree)
            for name, tree in batch.items()
            if name != "drawn"
        }
        here = tree_map(lambda tensor: tensor[:, self.held.workers], {**batch, **shared})
        return self._by_row(here)

    def _stepped(self, rows, batch, looks, step):
        """Return the rows after a step on a batch."""
        params, state, average, hyper, outer = rows
        seen = {name: batch[name] for name in ("index", "changes") if name in batch}
        if self._plain:
            self._look_for_params(state, params, hyper)
            params, state = self._advanced(params, seen, state, hyper)
        else:
            params, state, outer = self._watched(rows, batch, seen, looks, step)
        if average:
            with torch.no_grad():
                average = _averaged(average, params, hyper["decay"])
        return Rows(params, state, average, hyper, outer)

    def _advanced(self, params, batch, state, hyper):
        """Return parameters and state after a step of which nobody sees more."""
        grads = self._gradients(params, batch)
        with torch.no_grad():
            return self._moved(grads, state, params, hyper)

    def _watched(self, rows, batch, seen, looks, step):
        """Return parameters, state and what the exchange keeps, after a step in all its parts."""
        params, state, _, hyper, outer = rows
        with torch.no_grad():
            point = self._point(rows, batch)
        grads = self._gradients(point, seen)
        kinds = dict.fromkeys(look.fisher for look in looks)
        moments = {fisher: self._moments(point, batch, fisher) for fisher in kinds}
        with torch.no_grad():
            for look in looks:
                state = vmap(look.fold)(moments[look.fisher], state, hyper)
            if self.optimizer.own is not None:
                # Views, since a step with the same tensor in two places is not recorded.
                own = {name: grad.view_as(grad) for name, grad in grads.items()}
                state = vmap(self.optimizer.own)(own, state)
            mine = grads
            if self.watch is not None:
                self.watch(self._by_worker(mine))
            if self._penalty is not None:
                grads = self._penalty(grads, point, hyper)
            if self.exchange is not None:
                held = self._by_worker(grads)
                grads = self._by_row(self.exchange.gradients(held, step + 1, self._mean))
            outcomes = [o for o in self.optimizer.outcomes if step % o.every == 0]
            if outcomes:
                before = tree_map(torch.clone, params), self._losses(params, batch)
            self._look_for_params(state, params, hyper)
            params, state = self._moved(grads, state, params, hyper)
            if outcomes:
                taken = self._taken(*before, mine, params, batch)
            for outcome in outcomes:
                state = vmap(outcome.fold)(taken, state, hyper)
            if self.exchange is not None:
                held = [self._by_worker(tree) for tree in (params, outer, hyper)]
                params, outer = map(self._by_row, self.exchange.params(*held, step + 1, self._mean))
                params = self._constrained(params)
        return params, state, outer

    def _moved(self, grads, state, params, hyper):
        """Return the parameters, and the optimizer's state, after an update."""
        updates, state = self._update(grads, state, params, hyper)
        if self._in_place:
            for name, p in params.items():
                p.add_(updates[name])  # new memory costs a CPU more than the sum
        else:
            params = {name: p + updates[name] for name, p in params.items()}
        return self._constrained(params), state

    def _look_for_params(self, state, params, hyper):
        """See before the first step whether the state holds parameters: they stay then."""
        if self._in_place is None:
            grads = {name: torch.zeros_like(p) for name, p in params.items()}
            _, later = self._update(grads, state, params, hyper)
            held = [tensor for tree in (state, later) for tensor in tree_leaves(tree)]
            places = {p.untyped_storage().data_ptr() for p in params.values()}
            self._in_place = all(t.untyped_storage().data_ptr() not in places for t in held)

    def _constrained(self, params):
        return params if self.model.constrain is None else vmap(self.model.constrain)(params)

    def _taken(self, old, losses, grads, params, batch):
        """Return the step from old parameters, and their losses, to the present ones."""
        updates = {name: p - old[name] for name, p in params.items()}
        return Taken(self._losses(params, batch) - losses, grads, updates)

    def _losses(self, params, batch):
        """Return every row's mean loss of its batch."""
        total = 0
        for part in self._parts(batch):
            outputs = self._apply(params, part["inputs"]).float()
            scores, _ = self.loss.scores(outputs, part["labels"])
            total = total + scores.flatten(1).sum(1) / part["counted"]
        return total

    def _point(self, rows, batch):
        """Return where the gradient is taken."""
        if self._query is None:
            return rows.params
        drawn = tree_map(
            lambda leaf: self._of_another(leaf, rows.params) if _is_another(leaf) else leaf,
            batch.get("drawn", ()),
            is_leaf=_is_another,
        )
        return self._query(rows.params, rows.state, rows.hyper, drawn)

    @torch.enable_grad()
    def _of_another(self, drawn, params):
        """Return every row's gradient of another batch."""
        examples = len(self.data.train_inputs)
        index = (drawn.places * examples).long().clamp_(max=examples - 1)
        return self._gradients(params, {"index": index})

    def _gradients(self, params, batch):
        """Return every row's gradient of its mean loss, zero where no label counts.

        Rows do not meet, so one backward pass gives each row its own gradient.
        """
        total = None
        for part in self._parts(batch):
            outputs, backward = self._forward(self._apply, params, part["inputs"])
            slope = self.loss.slope(outputs, part["labels"])
            slope /= column(part["counted"], slope)
            grads = backward(slope)
            total = grads if total is None else [a + b for a, b in zip(total, grads, strict=True)]
        # In one layout, as the parameters are: mixed ones take an optimizer several times as long.
        return {
            name: in_columns(grad) if is_in_columns(p) else grad.contiguous()
            for (name, p), grad in zip(params.items(), total, strict=True)
        }

    def _moments(self, params, batch, fisher):
        """Return every row's mean moments of the layers, with the labels of a Fisher matrix."""
        total = None
        for part in self._parts(batch):

            def slopes(outputs, part=part):
                given = part["labels"], part.get("uniform")
                return slopes_of(fisher, self.loss, outputs, *given)

            verify, self._checked = not self._checked, True
            moments = layer_moments(self.model, params, part["inputs"], slopes, verify=verify)
            total = moments if total is None else tree_map(torch.add, total, moments)
        examples = batch["index"].shape[1]
        return {name: _mean(m, examples, part["counted"]) for name, m in total.items()}

    def _parts(self, batch):
        """Yield inputs, labels and sampled numbers of a batch's parts, and the whole's labels."""
        index = batch["index"]
        labels = of_rows(self.data.train_labels, index)
        counted = self.loss.counts(labels).flatten(1).sum(1).clamp_(min=1)
        size = self.pieces.examples(index.shape[1])
        for first in range(0, index.shape[1], size):
            some = slice(first, first + size)
            inputs = of_rows(self.data.train_inputs, index[:, some])
            if "changes" in batch:
                inputs = vmap(self.data.augment.apply)(inputs, batch["changes"][:, some])
            part = {"inputs": inputs, "labels": labels[:, some], "counted": counted}
            yield part | ({"uniform": batch["uniform"][:, some]} if "uniform" in batch else {})

    def _for_inputs(self, weight):
        """Return weights; those that meet the inputs themselves lie as one large product asks."""
        inputs = self.data.train_inputs
        meet = inputs.ndim == 2 and weight.ndim == 3 and weight.shape[1] == inputs.shape[1]
        return in_columns(weight) if meet else weight

    def _mean(self, tensors):
        """Return for each worker here the mean over all workers; a lone trial's only once."""
        if self.count > 1:
            return self.held.mean(tensors)
        both = at_least_two(np.arange(1))
        return take(self.held.mean(take(tensors, slice(1))), both)

    def _for_workers(self, tensor):
        """Return the rows of all workers."""
        return tensor if self.exchange is None else tensor.repeat_interleave(self.workers, 0)

    def _by_worker(self, tree):
        return tree_map(lambda tensor: tensor.unflatten(0, (-1, self.workers)), tree)

    def _by_row(self, tree):
        return tree_map(lambda tensor: tensor.flatten(0, 1), tree)


def _forward(apply, params, inputs):
    """Return the outputs, and the function that returns the gradients of their slope."""
    leaves = {name: p.detach().requires_grad_() for name, p in params.items()}
    outputs = apply(leaves, inputs).float()
    return outputs.detach(), lambda slope: torch.autograd.grad(
        outputs, list(leaves.values()), slope, materialize_grads=True
    )


def _forward_for_compiler(apply, params, inputs):
    """Do the same as `_forward` in one graph, which would be slower if it were not compiled."""
    outputs, backward = vjp(lambda params: apply(params, inputs).float(), params)
    return outputs, lambda slope: list(backward(slope)[0].values())


def _is_another(drawn):
    return isinstance(drawn, AnotherBatch)


def _mean(moment, examples, labels):
    """Return the moment of an example's inputs, and of a label's slopes.

    Their product is the Fisher matrix of the mean loss of a label, however many labels an example
    has: an example's slopes are those of all of its labels.
    """
    if isinstance(moment, Kronecker):
        return Kronecker(moment.inputs / examples, moment.outputs / column(labels, moment.outputs))
    return Diagonal(moment.squares / column(labels, moment.squares))


def _averaged(average, params, decay):
    return {
        name: torch.lerp(old, params[name], column(1 - decay, old)) for name, old in average.items()
    }
