"""Trees of tensors whose first axis is the trial, and how large programs of them are cut."""

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch.utils._pytree import tree_map


def in_columns(tensor):
    """Return matrices of rows that lie in memory column by column."""
    return tensor.mT.contiguous().mT


def is_in_columns(tensor):
    """Return whether matrices of rows lie in memory column by column."""
    return tensor.ndim == 3 and not tensor.is_contiguous() and tensor.mT.is_contiguous()


def _in_their_layout(function, *tensors):
    """Return a function of tensors that takes or joins their rows, in the layout of their matrices.

    torch makes them lie row by row.
    """
    columns = all(map(is_in_columns, tensors))
    return function(*(t.mT for t in tensors)).mT if columns else function(*tensors)


def take(tree, rows):
    """Return some rows, a slice or an index, of every tensor."""
    return tree_map(lambda tensor: _in_their_layout(lambda t: t[rows], tensor), tree)


def of_rows(examples, index):
    """Return the examples that each row asks for: a view of one copy where rows share their index.

    Parameters
    ----------
    examples : torch.Tensor
    index : torch.Tensor of int64, shape (rows, batch)

    Returns
    -------
    torch.Tensor, shape (rows, batch, ...)
    """
    if index.stride(0):
        return examples[index]
    shared = examples.index_select(0, index[0])  # twice as fast as examples[index[0]]
    return shared.expand(len(index), -1, *examples.shape[1:])


def join(trees):
    """Return the rows of the first tree, then those of the next, and so on."""
    return tree_map(lambda *parts: _in_their_layout(lambda *p: torch.cat(p), *parts), *trees)


def column(numbers, like):
    """Return numbers of the first axes of `like`, with all its axes."""
    return numbers.reshape(*numbers.shape, *[1] * (like.ndim - numbers.ndim))


def at_least_two(rows):
    """Return the indices `rows`, a lone one twice.

    BLAS splits a single matrix product otherwise than each of many: the last bits of a lone row
    would differ from those of the same row among others.
    """
    return rows if len(rows) > 1 else rows.repeat(2)


@dataclass(frozen=True)
class Pieces:
    """How a program is cut, so that memory is bounded.

    Rows go through in parts of at least two, of at most `at_once` examples. A batch that is too
    large for three rows goes in parts too. Their size does not depend on the number of rows: sums
    in another order would differ in their last bits.

    Attributes
    ----------
    at_once : int
        Examples in one pass, at least three ghost batches.
    ghost_size : int
        Parts of a batch tear no ghost batch of this size.
    """

    at_once: int
    ghost_size: int

    def examples(self, batch_size):
        """Return the size of a batch's parts."""
        return min(batch_size, self.at_once // 3 // self.ghost_size * self.ghost_size)

    def rows(self, rows, examples):
        """Return slices of rows that have so many examples each.

        The examples of normalised layers' statistics cannot go in parts. Where even those of three
        rows are more than `at_once`, they go together: without gradients they need little memory.
        """
        parts = -(-rows // max(self.at_once // examples, 3))
        ends = [rows * i // parts for i in range(parts + 1)]
        return [slice(*pair) for pair in pairwise(ends)]
