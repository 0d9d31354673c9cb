"""Functions of tensors whose operations are recorded once, and then repeated.

What ``vmap`` and autograd do beside the arithmetic is the same in every step of a program, and for
small networks it takes as long. A recording holds the operations that are left, which are those of
torch's kernels. So it gives the same bits.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakTensorKeyDictionary

PLAIN = 12
"""Calls with tensors of one layout before their operations are recorded, which takes as long as a
few calls. Then two recordings are compared."""

_aten, _Tag = torch.ops.aten, torch.Tag
_SAME = {_aten.detach, _aten.alias, _aten.view, _aten.expand, _aten._unsafe_view, _aten.permute}
_BY_INDEX = {_aten.index, _aten.index_put, _aten.index_put_}
_ABSOLUTE = {_aten.as_strided, _aten.as_strided_}  # they are given a place in memory
_OTHER_NEXT_TIME = {_Tag.nondeterministic_seeded, _Tag.data_dependent_output, _Tag.inplace_view}
_METHODS = {"add", "add_", "addcmul", "bmm", "div", "div_", "ge", "index_select", "mul", "mul_"}
_METHODS |= {"expand", "neg", "relu", "select", "sub", "sum", "transpose", "unsqueeze", "view"}
_IN_PLACE = {
    _aten.add.Tensor: _aten.add_.Tensor,
    _aten.div.Tensor: _aten.div_.Tensor,
    _aten.mul.Tensor: _aten.mul_.Tensor,
    _aten.neg.default: _aten.neg_.default,
    _aten.relu.default: _aten.relu_.default,
    _aten.sigmoid.default: _aten.sigmoid_.default,
    _aten.sub.Tensor: _aten.sub_.Tensor,
    _aten.tanh.default: _aten.tanh_.default,
    _aten.tanh_backward.default: _aten.tanh_backward.grad_input,
    _aten.threshold_backward.default: _aten.threshold_backward.grad_input,
}
_NUMBERS = (bool, int, float, str, type(None))
_KINDS = (torch.dtype, torch.layout, torch.memory_format)


class Recorded:
    """A pure function of trees of tensors, repeated from a recording where that is safe.

    Not recorded are calls under autocast, and functions that draw random numbers, look at numbers
    of tensors in Python, or use tensors that are neither arguments nor `constants`. Nor is one
    whose two recordings differ, as where Python counts the calls.

    Parameters
    ----------
    function : callable
        Of trees: any nesting of dicts and tuples of tensors. It may change them in place. It
        returns a tree, and depends on nothing but its arguments and `constants`.
    constants : sequence of torch.Tensor
        What else it uses: the same tensors in every call.
    """

    def __init__(self, function, constants=()):
        self.function, self.constants = function, constants
        self.forget()

    def forget(self):
        """Drop the recordings: no more calls with tensors of these layouts are expected."""
        self._calls, self._recordings, self._repeat = {}, {}, {}

    def __call__(self, *trees):
        if torch.is_autocast_enabled("cpu"):
            return self.function(*trees)
        layout = tuple(map(_layout, trees))
        repeat = self._repeat.get(layout)
        return self._first(layout, trees) if repeat is None else repeat(*trees)

    def _first(self, layout, trees):
        """Call the function, and record the last of the first calls."""
        calls = self._calls[layout] = self._calls.get(layout, 0) + 1
        if calls <= PLAIN:
            return self.function(*trees)
        result, recording = _record(self.function, trees, self.constants)
        before = self._recordings.setdefault(layout, recording)
        if recording is None or recording != before:
            self._repeat[layout] = self.function
        elif recording is not before:
            self._repeat[layout] = recording.function(self.constants)
        return result


def _layout(tree):
    """Return what a recording depends on: names, types, shapes and strides."""
    if isinstance(tree, torch.Tensor):
        return tree.shape, tree.stride(), tree.dtype
    if isinstance(tree, dict):
        return tuple([(name, _layout(part)) for name, part in tree.items()])
    return type(tree), *(map(_layout, tree) if isinstance(tree, tuple) else ())


def _record(function, trees, constants):
    """Return the result of a call, and its `Recording`, None if it cannot be repeated."""
    tensors = [tensor for _, tensor in _leaves(trees, "trees")]
    distinct = len({id(tensor) for tensor in [*tensors, *constants]})
    plain = all(type(tensor) is torch.Tensor for tensor in tensors)
    recorder = _Recorder([*tensors, *constants])
    if not plain or distinct < len(tensors) + len(constants):
        return function(*trees), None
    with recorder:
        result = function(*trees)
    return result, recorder.recording(trees, result)


def _leaves(tree, place):
    """Yield the tensors of a tree, each with the expression that finds it."""
    if isinstance(tree, dict):
        for name, part in tree.items():
            yield from _leaves(part, f"{place}[{name!r}]")
    elif isinstance(tree, tuple):
        for i, part in enumerate(tree):
            yield from _leaves(part, f"{place}[{i}]")
    else:
        yield place, tree


class _Line(NamedTuple):
    """One operation: its names of tensors are those of the source."""

    operation: torch._ops.OpOverload
    arguments: str
    used: frozenset
    made: tuple  # names, None where nothing is returned
    single: bool  # whether a tensor is returned, not a sequence of them
    method: bool  # whether the first argument is a tensor
    shares: bool  # whether a result shares memory with an argument; not all schemas say so
    over: str | None  # name of the argument that the result could be written over


@dataclass(frozen=True)
class Recording:
    """The operations of a call.

    Attributes
    ----------
    inputs : tuple of str
        Expressions for the arguments' tensors.
    lines : tuple of _Line
    result : str
        Expression for the returned tree.
    kept : frozenset of str
        Names of arguments, constants and of what is returned.
    types : tuple
        Of the tuples in the returned tree.
    """

    inputs: tuple
    lines: tuple
    result: str
    kept: frozenset
    types: tuple

    def function(self, constants):
        """Return the function that repeats the operations."""
        lines = self._needed()
        last = {name: i for i, line in enumerate(lines) for name in (*line.used, *line.made)}
        free = self._free(lines, last)
        source = ["def repeat(*trees):"]
        source += [f"    t{i} = {place}" for i, place in enumerate(self.inputs)]
        for i, line in enumerate(lines):
            made = ", ".join(name or "_" for name in line.made) + ("" if line.single else ",")
            source.append(f"    {made} = f{i}({line.arguments})")
            done = [name for name, j in last.items() if j == i and name and name not in self.kept]
            source += [f"    del {', '.join(done)}"] if done else []
        source.append(f"    return {self.result}")
        scope = {f"f{i}": _callable(line, i in free) for i, line in enumerate(lines)}
        scope |= {f"t{len(self.inputs) + i}": tensor for i, tensor in enumerate(constants)}
        scope |= {f"T{i}": kind for i, kind in enumerate(self.types)}
        scope |= {"torch": torch, "inf": float("inf"), "nan": float("nan")}
        exec("\n".join(source), scope)
        return torch.no_grad()(scope["repeat"])

    def _free(self, lines, last):
        """Return which lines may write over an argument that nothing needs any more.

        New memory costs a CPU more than most operations.
        """
        shared = {}  # the names of one memory, by each of them
        for line in lines:
            names = {name for name in line.made if name}
            if line.shares:
                names |= line.used
                names = names.union(*(shared.get(name, ()) for name in names))
            shared |= dict.fromkeys(names, names)
        free = set()
        for i, line in enumerate(lines):
            names = shared.get(line.over, {line.over})
            needed = not names.isdisjoint(self.kept) or max(last.get(n, -1) for n in names) > i
            if line.over and not needed and line.used.isdisjoint(names - {line.over}):
                free.add(i)
        return free

    def _needed(self):
        """Return the lines that write into a tensor, or whose results are used."""
        needed, lines = set(self.kept), []
        for line in reversed(self.lines):
            if line.operation._schema.is_mutable or not needed.isdisjoint(line.made):
                needed |= line.used
                lines.append(line)
        return lines[::-1]


def _callable(line, over):
    """Return the operation of a line, which writes over its argument or not.

    As a method of tensors it takes a microsecond less.
    """
    operation = _IN_PLACE[line.operation] if over else line.operation
    if operation._overloadname == "grad_input":
        return lambda grad, *rest: operation._op(grad, *rest, grad_input=grad)
    name = operation.overloadpacket.__name__
    if line.method and name in _METHODS and not operation._overloadname.endswith("out"):
        return getattr(torch.Tensor, name)
    return operation._op


class _Recorder(TorchDispatchMode):
    """Notes the operations of a call, on the level below ``vmap`` and autograd."""

    def __init__(self, tensors):
        super().__init__()
        self._repeatable, self._lines = True, []
        self._names, self._count, self._views = WeakTensorKeyDictionary(), 0, {}
        for tensor in tensors:
            self._name(tensor)
        self._given = frozenset(self._names.values())

    @classmethod
    def _should_skip_dynamo(cls):
        return False  # otherwise torch imports its compiler, which takes a second

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        kwargs, used = kwargs or {}, set()
        given = [self._expression(value, used) for value in args]
        given += [f"{name}={self._expression(value, used)}" for name, value in kwargs.items()]
        found = operation(*args, **kwargs)
        self._repeatable &= _repeatable(operation, args)
        if self._repeatable and not self._renamed(operation, args, found):
            values = [*args, *kwargs.values()]
            self._note(operation, values, ", ".join(given), frozenset(used), found)
        return found

    def _note(self, operation, values, arguments, used, found):
        """Add a line, unless one before it made the same view."""
        single = isinstance(found, torch.Tensor)
        if not single and not isinstance(found, list | tuple):
            self._repeatable = False
            return
        results = [found] if single else found
        shares = _share(results, values)
        view = operation.is_view and single and shares
        key = operation, arguments, *((found.shape, found.stride()) if view else ())
        if view and key in self._views:
            self._names[found] = self._views[key]
            return
        made = tuple([self._name(part) for part in results])
        method = bool(values) and isinstance(values[0], torch.Tensor)
        over = self._names[values[0]] if _fits_over(operation, values, found) else None
        self._lines.append(_Line(operation, arguments, used, made, single, method, shares, over))
        if view:
            self._views[key] = made[0]

    def recording(self, trees, result):
        """Return what was noted, None if it cannot be repeated."""
        types, returned = [], set()
        expression = self._tree(result, types, returned)
        if not self._repeatable:
            return None
        inputs = tuple([place for place, _ in _leaves(trees, "trees")])
        kept = self._given | returned
        return Recording(inputs, tuple(self._lines), expression, kept, tuple(types))

    def _name(self, tensor):
        """Return the name of a tensor, a new one if it has none; None for no tensor."""
        if tensor is None:
            return None
        if not isinstance(tensor, torch.Tensor):
            self._repeatable = False
            return None
        if tensor not in self._names:
            self._names[tensor] = f"t{self._count}"
            self._count += 1
        return self._names[tensor]

    def _renamed(self, operation, args, found):
        """Give what is only another view of all numbers of the first argument the same name."""
        if operation.overloadpacket not in _SAME:
            return False
        one, same = args[0], found.shape == args[0].shape and found.stride() == args[0].stride()
        if same and found.dtype == one.dtype and found.data_ptr() == one.data_ptr():
            self._names[found] = self._names[one]
            return True
        return False

    def _expression(self, value, used):
        """Return the expression for an argument of an operation; note the names in it."""
        if isinstance(value, torch.Tensor):
            self._repeatable &= value in self._names
            if self._repeatable:
                used.add(self._names[value])
            return self._names.get(value)
        if isinstance(value, list | tuple):
            return f"[{', '.join([str(self._expression(part, used)) for part in value])}]"
        if isinstance(value, torch.device):
            return f"torch.{value!r}"
        self._repeatable &= isinstance(value, _NUMBERS + _KINDS)
        return repr(value)

    def _tree(self, tree, types, returned):
        """Return the expression for what is returned; note its names, and its types of tuples."""
        if isinstance(tree, torch.Tensor):
            return self._expression(tree, returned)
        if type(tree) is dict:
            parts = [f"{n!r}: {self._tree(t, types, returned)}" for n, t in tree.items()]
            return f"{{{', '.join(parts)}}}"
        named = hasattr(type(tree), "_make")
        if type(tree) is not tuple and not named:
            self._repeatable = False
            return ""
        parts = "".join([f"{self._tree(part, types, returned)}, " for part in tree])
        if not named:
            return f"({parts})"
        types.append(type(tree))
        return f"T{len(types) - 1}({parts})"


def _share(results, values):
    """Return whether a result lies in the memory of an argument."""
    given = [part for one in values for part in (one if isinstance(one, list | tuple) else [one])]
    one, other = (
        {
            part.untyped_storage().data_ptr()
            for part in parts
            if isinstance(part, torch.Tensor) and part.layout is torch.strided
        }
        for parts in (results, given)
    )
    return not one.isdisjoint(other)


def _fits_over(operation, values, found):
    """Return whether the result of an operation fits where its first argument is."""
    if operation not in _IN_PLACE or not isinstance(values[0], torch.Tensor):
        return False
    kinds = [(t.shape, t.stride(), t.dtype, t.device) for t in (values[0], found)]
    return kinds[0] == kinds[1]


def _repeatable(operation, args):
    """Return whether an operation does the same with tensors of the same layout."""
    packet, tags = operation.overloadpacket, set(operation.tags)
    if tags & _OTHER_NEXT_TIME or packet in _ABSOLUTE:
        return False
    if packet in _BY_INDEX:
        return not any(t is not None and t.dtype in (torch.bool, torch.uint8) for t in args[1])
    return torch.Tag.dynamic_output_shape not in tags
