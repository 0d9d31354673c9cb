"""Random numbers and buffers that a user's own code holds, put back at the end."""

import random
from contextlib import contextmanager
from functools import partial

import numpy as np
import torch


@contextmanager
def random_states_kept(*holders):
    """Put back the random numbers of Python, numpy and torch at the end.

    Parameters
    ----------
    *holders
        What may have generators of its own as attributes: modules, with all that they hold,
        losses, data sets.
    """
    generators = own_generators(*holders)
    states = [state_of(generator) for generator in generators]
    python, of_numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng():
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(of_numpy)
            for generator, state in zip(generators, states, strict=True):
                _set_state(generator, state)


def own_generators(*holders):
    """Return the generators that are attributes of objects, or of modules that these hold."""
    found = {}
    for holder in holders:
        for layer in (holder, *(m for part in modules_held(holder) for m in part.modules())):
            for value in getattr(layer, "__dict__", {}).values():
                if isinstance(value, _GENERATORS):
                    found[id(value)] = value
    return list(found.values())


def state_of(generator):
    """Return the state of a generator of torch, numpy or Python."""
    if isinstance(generator, np.random.Generator):
        return generator.bit_generator.state
    return generator.getstate() if isinstance(generator, random.Random) else generator.get_state()


def modules_held(holder):
    """Return the modules that a function or an object is, or holds at first hand.

    That is as itself, the owner of a method, arguments of a `functools.partial`, variables of a
    closure, or attributes.
    """
    parts = []
    while isinstance(holder, partial):
        parts += [*holder.args, *holder.keywords.values()]
        holder = holder.func
    owner = owner_of(holder)
    cells = getattr(holder, "__closure__", None) or ()
    parts += [owner, *(_content(cell) for cell in cells), *getattr(owner, "__dict__", {}).values()]
    found = {id(part): part for part in parts if isinstance(part, torch.nn.Module)}
    return list(found.values())


def owner_of(function):
    """Return the object whose method a function is, or of which it is a `functools.partial`."""
    while isinstance(function, partial):
        function = function.func
    return getattr(function, "__self__", function)


def seed_all(seed):
    """Seed the generators of Python, numpy and torch."""
    torch.manual_seed(seed % 2**32)
    random.seed(seed)
    np.random.seed(seed % 2**32)


@contextmanager
def buffers_kept(modules):
    """Put back the buffers of modules at the end."""
    buffers = [buffer for module in modules for buffer in module.buffers()]
    before = [buffer.clone() for buffer in buffers]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in zip(buffers, before, strict=True):
                buffer.copy_(value)


_GENERATORS = (torch.Generator, np.random.Generator, np.random.RandomState, random.Random)


def _set_state(generator, state):
    if isinstance(generator, np.random.Generator):
        generator.bit_generator.state = state
    elif isinstance(generator, random.Random):
        generator.setstate(state)
    else:
        generator.set_state(state)


def _content(cell):
    try:
        return cell.cell_contents
    except ValueError:  # a variable that has no value yet
        return None
