"""Hooks that take the norms of gradients on their way into ``param.grad``."""

import math
import weakref

import torch

MOST = 1024
"""Parts of a step that is measured."""


class Taps:
    """The norms of the gradients of parameters, in groups and in total.

    A part is a backward pass; a parameter may be without a gradient in some. With reentrant
    checkpoints one pass counts as several, for the parameters in them. Which parts there are is
    then clear only where all parameters tell the same number.

    Parameters
    ----------
    groups : list of list of torch.nn.Parameter
    geometry : Euclidean
    watch : bool
        Whether to notice, by one small parameter, where ``param.grad`` is not the sum of the parts.
    """

    def __init__(self, groups, geometry, *, watch):
        params = [param for group in groups for param in group]
        self._taps = [_Tap(param, geometry) for param in params]
        self._watch, self._order = watch, geometry.order
        self._member = _membership([len(group) for group in groups], params[0].device)
        self._begin(active=True)

    def __setstate__(self, state):
        vars(self).update(state)
        self._begin(active=self.active)

    def _begin(self, *, active):
        """Start; hooks do not outlive these taps, of which they know nothing."""
        weakref.finalize(self, _stop, self._taps)
        self.start(active=active)

    @property
    def parts(self):
        """The number of parts since `start`; None where it is not clear, or above `MOST`."""
        passes = self._passes()
        return None if passes is None else len(passes)

    def norms(self):
        """Return squared norms of the groups and, in the last column, of all.

        Returns
        -------
        torch.Tensor, shape (parts + 1, groups + 1)
            Of each part's gradient, and of what has come together in ``param.grad``. NaN where
            that is not their sum. Without clear parts two rows of NaN.
        """
        passes, device = self._passes(), self._member.device
        if not passes:
            return self._member.new_full((2, len(self._member)), torch.nan)
        sizes = [size.to(device) for tap in self._taps for size in tap.all_sizes(passes)]
        sizes = torch.stack(sizes).to(self._member.dtype).reshape(-1, len(passes) + 1)
        return ((self._member @ sizes**self._order) ** (2 / self._order)).T

    def _passes(self):
        """Return a name for each part, or None where it is not clear which there are."""
        each = [tap.passes for tap in self._taps]
        longest = max(each, key=len)
        differ = any(0 < len(passes) < len(longest) for passes in each)
        if differ and len({name for passes in each for name in passes}) != len(longest):
            return None
        return longest if len(longest) <= MOST else None

    def start(self, *, active):
        """Begin a step, and measure it or not: if not, no hooks are left."""
        self.active = active
        for tap in self._taps:
            tap.start(active=active)
        if active and self._watch:
            trained = [tap for tap in self._taps if tap.param.requires_grad]
            for tap in sorted(trained, key=lambda tap: tap.param.numel())[:1]:
                tap.watch = True


def is_of_meter(hook):
    """Return whether a hook of a parameter's gradient is that of a meter."""
    return isinstance(getattr(hook, "__self__", None), _Tap)


class _Tap:
    """The sizes of one parameter's gradients, a backward pass after the other.

    A gradient is seen on its way, and counts once it has been added to ``param.grad``: those that
    ``torch.autograd.grad`` returns do not. The weight is that of the first part, for the whole
    step, and not a number where there is none yet.
    """

    def __init__(self, param, geometry):
        self.param, self._geometry = param, geometry
        self._hooks = []

    def __getstate__(self):
        return {**vars(self), "_hooks": []}  # of a copy, those of its own parameter

    def start(self, *, active):
        """Forget what was seen; see what comes if active. Without hooks a step costs nothing."""
        self._last, self._sum, self.watch = None, None, False
        self.passes, self._sizes = [], []
        active = active and self.param.requires_grad  # or it takes no hooks
        if active and not self._hooks:
            count = self.param.register_post_accumulate_grad_hook(self._count)
            self._hooks = [self.param.register_hook(self._see), count]
        while self._hooks and not active:
            self._hooks.pop().remove()

    def _see(self, grad):
        if len(self.passes) > MOST:
            return
        if not self.passes:
            is_known = self._geometry.knows(self.param)
            self._weight = self._geometry.weight(self.param) if is_known else math.nan
        copied = grad.detach().clone() if self.watch and not grad.is_sparse else None
        self._last = self._geometry.size(grad, self._weight), copied

    def _count(self, param):
        if len(self.passes) > MOST:  # nobody calls `step`
            self._last, self._sum, self._sizes = None, None, []
            return
        size, grad = self._last
        self.passes.append(torch._C._current_graph_task_id())
        self._sizes.append(size)
        if grad is not None:
            self._sum = grad if self._sum is None else self._sum + grad

    def all_sizes(self, passes):
        """Return the size in each pass, zero where there was no gradient, and of ``param.grad``."""
        grad, whole = self.param.grad, 0.0
        if self.passes:
            whole = torch.nan if grad is None else self._geometry.size(grad, self._weight)
        if self._sum is not None and grad is not None:
            whole = torch.where((self._sum != grad).any(), torch.nan, whole)
        sizes = self._sizes
        if len(sizes) < len(passes):
            found = dict(zip(self.passes, sizes))
            sizes = [found.get(name, 0.0) for name in passes]
        return [*map(torch.as_tensor, sizes), torch.as_tensor(whole)]


def _stop(taps):
    for tap in taps:
        tap.start(active=False)


def _membership(lengths, device):
    """Return which of the parameters belongs to which group, and at the end to all: a matrix."""
    groups = torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths))
    member = groups == torch.arange(len(lengths))[:, None]
    real = torch.float32 if device.type == "mps" else torch.float64  # which mps has not
    return torch.cat([member, torch.ones_like(member[:1])]).to(device, real)
