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
    _aten.addcmul.default: _aten.addcmul_.default,
    _aten.div.Tensor: _aten.div_.Tensor,
    _aten.lerp.Tensor: _aten.lerp_.Tensor,
    _aten.masked_fill.Scalar: _aten.masked_fill_.Scalar,
    _aten.mul.Tensor: _aten.mul_.Tensor,
    _aten.neg.default: _aten.neg_.default,
    _aten.relu.default: _aten.relu_.default,
    _aten.sigmoid.default: _aten.sigmoid_.default,
    _aten.sqrt.default: _aten.sqrt_.default,
    _aten.sub.Tensor: _aten.sub_.Tensor,
    _aten.tanh.default: _aten.tanh_.default,
}
"""Operations number by number, and those that write the same over their first argument."""

_INTO = {
    _aten.add.Tensor: _aten.add.out,
    _aten.addcmul.default: _aten.addcmul.out,
    _aten.div.Tensor: _aten.div.out,
    _aten.lerp.Tensor: _aten.lerp.Tensor_out,
    _aten.mul.Tensor: _aten.mul.out,
    _aten.neg.default: _aten.neg.out,
    _aten.sigmoid.default: _aten.sigmoid.out,
    _aten.sqrt.default: _aten.sqrt.out,
    _aten.sub.Tensor: _aten.sub.out,
    _aten.tanh.default: _aten.tanh.out,
    _aten.tanh_backward.default: _aten.tanh_backward.grad_input,
    _aten.threshold_backward.default: _aten.threshold_backward.grad_input,
}
"""The same for any given memory, where that is a kernel, and not new memory that is copied."""

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
    spent : sequence of int
        Places of the arguments that nobody needs after a call: its results may be written over
        them. They are not, in a call in which two tensors share memory.
    """

    def __init__(self, function, constants=(), *, spent=()):
        self.function, self.constants, self.spent = function, constants, spent
        self.forget()

    def forget(self):
        """Drop the recordings: no more calls with tensors of these layouts are expected."""
        self._calls, self._recordings, self._repeat = {}, {}, {}

    def __call__(self, *trees):
        if torch.is_autocast_enabled("cpu"):
            return self.function(*trees)
        layout = tuple(map(_layout, trees))
        if self.spent:
            layout = self._may_write(trees), *layout
        repeat = self._repeat.get(layout)
        return self._first(layout, trees) if repeat is None else repeat(*trees)

    def _first(self, layout, trees):
        """Call the function, and record the last of the first calls."""
        calls = self._calls[layout] = self._calls.get(layout, 0) + 1
        if calls <= PLAIN:
            return self.function(*trees)
        spent = self.spent if self.spent and layout[0] else ()
        result, recording = _record(self.function, trees, self.constants, spent)
        before = self._recordings.setdefault(layout, recording)
        if recording is None or recording != before:
            self._repeat[layout] = self.function
        elif recording is not before:
            self._repeat[layout] = recording.function(self.constants)
        return result

    def _may_write(self, trees):
        """Return whether no two tensors share memory, and all can be written to."""
        tensors = [*_tensors(trees), *self.constants]
        if not all(tensor.layout is torch.strided for tensor in tensors):
            return False
        places = {tensor.untyped_storage().data_ptr() for tensor in tensors}
        return len(places) == len(tensors) and not any(t.is_inference() for t in tensors)


def _layout(tree):
    """Return what a recording depends on: names, types, shapes and strides."""
    if isinstance(tree, torch.Tensor):
        return tree.shape, tree.stride(), tree.dtype
    if isinstance(tree, dict):
        return tuple([(name, _layout(part)) for name, part in tree.items()])
    return type(tree), *(map(_layout, tree) if isinstance(tree, tuple) else ())


def _record(function, trees, constants, spent):
    """Return the result of a call, and its `Recording`, None if it cannot be repeated."""
    tensors = [tensor for _, tensor in _leaves(trees, "trees")]
    distinct = len({id(tensor) for tensor in [*tensors, *constants]})
    plain = all(type(tensor) is torch.Tensor for tensor in tensors)
    recorder = _Recorder([*tensors, *constants])
    if not plain or distinct < len(tensors) + len(constants):
        return function(*trees), None
    with recorder:
        result = function(*trees)
    return result, recorder.recording(trees, result, spent)


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


def _tensors(tree):
    """Yield the tensors of a tree."""
    if isinstance(tree, torch.Tensor):
        yield tree
    elif isinstance(tree, dict | tuple):
        for part in tree.values() if isinstance(tree, dict) else tree:
            yield from _tensors(part)


class _Line(NamedTuple):
    """One operation: its names of tensors are those of the source."""

    operation: torch._ops.OpOverload
    arguments: str
    used: frozenset
    made: tuple  # names, None where nothing is returned
    single: bool  # whether a tensor is returned, not a sequence of them
    first: str | None  # name of the first argument, if it is a tensor
    shares: bool  # whether a result shares memory with an argument; not all schemas say so
    layout: tuple | None  # of the result, if it can be written into given memory


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
    given : frozenset of str
        Names of arguments and constants.
    kept : frozenset of str
        Names of constants, of arguments that are not spent, and of what is returned.
    layouts : dict
        The layout of each name of a tensor.
    types : tuple
        Of the tuples in the returned tree.
    """

    inputs: tuple
    lines: tuple
    result: str
    given: frozenset
    kept: frozenset
    layouts: dict
    types: tuple

    def function(self, constants):
        """Return the function that repeats the operations."""
        lines = self._needed()
        last = {name: i for i, line in enumerate(lines) for name in (*line.used, *line.made)}
        places = self._places(lines, last)
        stay = self.given | self.kept
        scope = {"torch": torch, "inf": float("inf"), "nan": float("nan")}
        scope |= {f"t{len(self.inputs) + i}": tensor for i, tensor in enumerate(constants)}
        scope |= {f"T{i}": kind for i, kind in enumerate(self.types)}
        source = ["def repeat(*trees):"]
        source += [f"    t{i} = {place}" for i, place in enumerate(self.inputs)]
        for i, line in enumerate(lines):
            made = ", ".join(name or "_" for name in line.made) + ("" if line.single else ",")
            scope[f"f{i}"], into = _callable(line, places.get(i))
            source.append(f"    {made} = f{i}({line.arguments}{into})")
            done = [name for name, j in last.items() if j == i and name and name not in stay]
            source += [f"    del {', '.join(done)}"] if done else []
        source.append(f"    return {self.result}")
        exec("\n".join(source), scope)
        return torch.no_grad()(scope["repeat"])

    def _places(self, lines, last):
        """Return whose memory, which nothing needs any more, a line's result is written into.

        New memory costs a CPU more than most operations.
        """
        memory = {name: {name} for name in self.layouts}  # the names of one memory, by each of them

        def unite(names):
            together = set().union(*(memory[name] for name in names))
            memory.update(dict.fromkeys(together, together))

        for line in lines:
            if line.shares:
                unite([*line.used, *filter(None, line.made)])
        places, spent = {}, sorted(self.given - self.kept)
        for i, line in enumerate(lines):
            # The first argument before others: that is the faster call.
            others = (*sorted(line.used - {line.first}), *spent) if line.operation in _INTO else ()
            for name in (line.first, *others):
                if line.layout is None or self.layouts.get(name) != line.layout:
                    continue
                names = memory[name]
                over = max(last.get(n, -1) for n in names) <= i and names.isdisjoint(self.kept)
                if over and line.used.isdisjoint(names - {name}):
                    places[i] = name
                    unite([name, *line.made])
                    break
        return places

    def _needed(self):
        """Return the lines that write into a tensor, or whose results are used."""
        needed, lines = set(self.kept), []
        for line in reversed(self.lines):
            if line.operation._schema.is_mutable or not needed.isdisjoint(line.made):
                needed |= line.used
                lines.append(line)
        return lines[::-1]


def _callable(line, place):
    """Return the operation of a line, and the argument that names the memory for its result.

    As a method of tensors it takes a microsecond less.
    """
    operation, into = line.operation, ""
    if place is not None and place == line.first and operation in _IN_PLACE:
        operation = _IN_PLACE[operation]
    elif place is not None:
        operation = _INTO[operation]
        into = f", {operation._schema.arguments[-1].name}={place}"
    name = operation.overloadpacket.__name__
    if line.first and name in _METHODS and not operation._overloadname.endswith("out"):
        return getattr(torch.Tensor, name), into
    return operation._op, into


class _Recorder(TorchDispatchMode):
    """Notes the operations of a call, on the level below ``vmap`` and autograd."""

    def __init__(self, tensors):
        super().__init__()
        self._repeatable, self._lines = True, []
        self._names, self._layouts, self._views = WeakTensorKeyDictionary(), {}, {}
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
        first = values[0] if values and isinstance(values[0], torch.Tensor) else None
        first = None if first is None else self._names[first]
        layout = self._layouts[made[0]] if operation in _IN_PLACE | _INTO else None
        self._lines.append(_Line(operation, arguments, used, made, single, first, shares, layout))
        if view:
            self._views[key] = made[0]

    def recording(self, trees, result, spent):
        """Return what was noted, None if it cannot be repeated."""
        types, returned = [], set()
        expression = self._tree(result, types, returned)
        if not self._repeatable:
            return None
        inputs = tuple([place for place, _ in _leaves(trees, "trees")])
        over = {self._names[tensor] for place in spent for tensor in _tensors(trees[place])}
        kept = self._given - over | returned
        about = self._given, kept, self._layouts, tuple(types)
        return Recording(inputs, tuple(self._lines), expression, *about)

    def _name(self, tensor):
        """Return the name of a tensor, a new one if it has none; None for no tensor."""
        if tensor is None:
            return None
        if not isinstance(tensor, torch.Tensor):
            self._repeatable = False
            return None
        if tensor not in self._names:
            name = self._names[tensor] = f"t{len(self._layouts)}"
            strided = tensor.layout is torch.strided
            self._layouts[name] = (*_layout(tensor), tensor.device) if strided else None
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


def _repeatable(operation, args):
    """Return whether an operation does the same with tensors of the same layout."""
    packet, tags = operation.overloadpacket, set(operation.tags)
    if tags & _OTHER_NEXT_TIME or packet in _ABSOLUTE:
        return False
    if packet in _BY_INDEX:
        return not any(t is not None and t.dtype in (torch.bool, torch.uint8) for t in args[1])
    return torch.Tag.dynamic_output_shape not in tags
