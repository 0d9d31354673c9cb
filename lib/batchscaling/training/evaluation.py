"""Mean losses of the trials' parameters over many examples."""

from functools import partial
from itertools import pairwise

import numpy as np
import torch
from torch.func import vmap
from torch.utils._pytree import tree_leaves

from batchscaling.training.rows import at_least_two, take

MEASURES = ("validation", "training", "averaged", "objective", "averaged_objective")

_STOPS = (6, 3, 2, 1)  # a sum that may stop does so after this part of the examples
_STATISTICS = 512  # training examples that give the statistics of normalised layers


class Evaluation:
    """Evaluates rows on the examples of a measure.

    Parameters
    ----------
    data : Data
        On the device of the training.
    model : Model
    loss : Loss
    pieces : Pieces
    objective : Objective or None
        What two of `MEASURES` need.
    """

    def __init__(self, data, model, loss, pieces, objective=None):
        self.data, self.model, self.loss = data, model, loss
        self.pieces, self.objective = pieces, objective
        self.shown = data.train_inputs[: _STATISTICS if model.statistics is not None else 0]

    @torch.no_grad()
    def mean(self, params, measure, rows, goal=np.inf):
        """Return the mean loss of some rows, that of the examples looked at, and their accuracy.

        The sums of a row stop when its mean loss is above a finite `goal`, whatever the other
        examples are: the first of the three is infinite then, otherwise equal to the second.

        Parameters
        ----------
        params : dict of torch.Tensor, each of shape (trials, ...)
        measure : str
            One of `MEASURES`.
        rows : numpy.ndarray of int
        goal : float

        Returns
        -------
        loss, seen, accuracy : numpy.ndarray, each of shape (rows,)
        """
        inputs, labels = self._examples(measure)
        count, device = len(tree_leaves(params)[0]), inputs.device
        beside = torch.zeros(count, dtype=torch.double, device=device)
        if measure.endswith("objective"):
            beside = self.objective.beside_loss(params)
        counted = self.loss.counts(labels).reshape(len(labels), -1).sum(1).cumsum(0).double()
        most = (goal - beside) * counted[-1]
        stops = _stops(len(inputs), goal)
        size = self.pieces.examples(max(end - first for first, end in pairwise(stops)))
        sums = counted.new_zeros(3, count)  # of losses, of right labels, of labels
        places = torch.as_tensor(at_least_two(rows), device=device)
        for part in self.pieces.rows(len(places), max(size, len(self.shown))):
            held = places[part]
            # A slice of all rows copies nothing.
            some = self._with_statistics(take(params, part if len(rows) == count > 1 else held))
            for first, end in pairwise(stops):
                each = (whole[first:end].split(size) for whole in (inputs, labels))
                for pair in zip(*each, strict=True):
                    sums[:2, held] += self._scores(some, *pair)
                sums[2, held] = counted[end - 1]
                some, held = _below(some, held, sums[0, held] <= most[held])
                if not len(held):
                    break
        rows = torch.as_tensor(rows, device=device)
        loss, right, looked = sums[:, rows]
        seen = loss / looked + beside[rows]
        stopped = (looked < counted[-1]) & ~seen.isnan()
        found = torch.where(stopped, torch.inf, seen), seen, right / looked
        return tuple(numbers.cpu().numpy() for numbers in found)

    def _examples(self, measure):
        """Return the inputs and labels that a measure looks at."""
        data = self.data
        if measure in ("validation", "averaged"):
            return data.validation_inputs, data.validation_labels
        first = len(data.validation_labels) if measure == "training" else len(data.train_labels)
        return data.train_inputs[:first], data.train_labels[:first]

    def _with_statistics(self, params):
        """Return the arguments of the model beside the inputs."""
        if self.model.statistics is None:
            return (params,)
        return params, vmap(partial(self.model.statistics, inputs=self.shown))(params)

    def _scores(self, rows, inputs, labels):
        """Return the sums of losses and of correct labels, shape (2, rows)."""

        def scores(params, *statistics):
            outputs = self.model.apply(params, inputs, *statistics)
            loss, right = self.loss.scores(outputs.float(), labels)
            return torch.stack([loss.sum(), right.sum()])

        return vmap(scores, out_dims=1)(*rows)


def _stops(examples, goal):
    """Return 0 and the numbers of examples after which sums may stop."""
    parts = _STOPS if goal < np.inf else (1,)
    return sorted({0, *(-(-examples // part) for part in parts)})


def _below(rows, held, below):
    """Return the rows, and their places, whose sums are below what they may be."""
    below = below.cpu().numpy()
    if below.all():
        return rows, held
    keep = np.flatnonzero(below)
    if not len(keep):
        return rows, held[:0]
    keep = torch.as_tensor(at_least_two(keep), device=held.device)
    return take(rows, keep), held[keep]
