"""Hooks that take the norms of gradients on their way into ``param.grad``."""

import torch


class Taps:
    """The norms of the gradients of parameters, in groups and in total.

    Parameters
    ----------
    groups : list of list of torch.nn.Parameter
    geometry : Euclidean
    watch : bool
        Whether to notice gradients that are changed after the last backward pass.
    """

    def __init__(self, groups, geometry, *, watch):
        params = [param for group in groups for param in group]
        self._taps = [_Tap(param, geometry) for param in params]
        self._watched = _Watched(min(params, key=torch.numel)) if watch else None
        self._order = geometry.order
        self._member = _membership([len(group) for group in groups]).to(params[0].device)
        self.start(active=True)

    @property
    def parts(self):
        """The number of backward passes since `start`."""
        return max(len(tap.sizes) for tap in self._taps)

    def norms(self):
        """Return squared norms of the groups and, in the last column, of all.

        Returns
        -------
        torch.Tensor, shape (parts + 1, groups + 1)
            Of each part's gradient, and of what has come together in ``param.grad``. NaN where
            that has changed since.
        """
        columns = self.parts
        sizes = [size for tap in self._taps for size in tap.all_sizes(columns)]
        device, real = self._member.device, self._member.dtype
        sizes = torch.stack([size.to(device, real) for size in sizes]).reshape(-1, columns + 1)
        norms = (self._member @ sizes**self._order) ** (2 / self._order)
        if self._watched is not None:
            norms = torch.where(self._watched.has_changed().to(device), torch.nan, norms)
        return norms.T

    def start(self, *, active):
        """Begin a step, and measure it or not."""
        self.active = active
        for tap in self._taps:
            tap.sizes, tap.active = [], active
        if self._watched is not None:
            self._watched.seen = None

    def close(self):
        """Take the hooks away."""
        for tap in self._taps:
            tap.handle.remove()
        if self._watched is not None:
            self._watched.handle.remove()


class _Tap:
    """The sizes of one parameter's gradients, a backward pass after the other."""

    def __init__(self, param, geometry):
        self._param, self._geometry = param, geometry
        self.sizes, self.active = [], True
        self.handle = param.register_hook(self._record)

    def _record(self, grad):
        if not self.active:
            return
        if not self._geometry.knows(self._param):
            self.sizes.append(torch.full((), torch.nan, device=grad.device))
            return
        if not self.sizes:
            self._weight = self._geometry.weight(self._param)
        self.sizes.append(self._geometry.size(grad, self._weight))

    def all_sizes(self, count):
        """Return so many sizes, zero where there was no gradient, and that of ``param.grad``."""
        grad = self._param.grad
        if not self.sizes:
            whole = 0.0
        elif grad is None or not self._geometry.knows(self._param):
            whole = torch.nan
        else:
            whole = self._geometry.size(grad, self._weight)
        sizes = [*self.sizes, *[0.0] * (count - len(self.sizes)), whole]
        return map(torch.as_tensor, sizes)


class _Watched:
    """A small parameter whose gradient is kept after each backward pass, and compared."""

    def __init__(self, param):
        self._param, self.seen = param, None
        self.handle = param.register_post_accumulate_grad_hook(self._see)

    def _see(self, param):
        self.seen = None if param.grad.is_sparse else param.grad.detach().clone()

    def has_changed(self):
        grad = self._param.grad
        if self.seen is None or grad is None:
            return torch.tensor(False)
        return (self.seen != grad).any()


def _membership(lengths):
    """Return which of the parameters belongs to which group, and at the end to all: a matrix."""
    groups = torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths))
    member = groups == torch.arange(len(lengths))[:, None]
    return torch.cat([member, torch.ones_like(member[:1])]).to(torch.float64)
