"""Objects of a user's own code, by ``module:name`` or ``path/file.py:name``."""

import hashlib
import importlib
import importlib.util
import os
import sys
from pathlib import Path

from batchscaling import _validation as check

_ADDED = set()  # folders where imports look because a reference named them


def resolved(what, reference, folder=None, allowed="module:name, or path/file.py:name"):
    """Return the module of a reference, the folder it starts from, the name and the object.

    Parameters
    ----------
    what : str
        The parameter's name, for errors.
    reference : str
    folder : path-like, optional
        Where relative paths start, and where modules are looked for if they are nowhere else. The
        default is the current one.
    allowed : str
        For the error where `reference` is none.

    Returns
    -------
    module, Path, str, object
        The object is None if the module has none of this name.

    Raises
    ------
    ValueError
        If there is no such file or module, running it raises an error, or beside it is a file with
        the name of a module that stands beside another reference's file.
    """
    place, colon, name = reference.rpartition(":") if isinstance(reference, str) else ("",) * 3
    if not (place and colon and name.isidentifier()):
        check.reject(what, reference, allowed)
    folder = Path(os.path.expanduser(folder or ".")).resolve()
    if place.endswith(".py"):
        module = _from_file(what, reference, folder / os.path.expanduser(place))
    else:
        module = _from_module(what, reference, place, folder)
    return module, folder, name, getattr(module, name, None)


def call(what, reference, function):
    """Return what the function of a reference returns, when called without arguments.

    Raises
    ------
    ValueError
        If it raises an error.
    """
    try:
        return function()
    except (Exception, SystemExit) as error:
        _does_not_run(what, reference, error)


def _from_file(what, reference, path):
    if not path.is_file():
        check.reject(what, reference, f"a file that exists; {str(path)!r} does not")
    _check_neighbours(what, reference, path.parent)
    _add_to_path(path.parent)
    # Files of equal names in two folders are two modules, in every process the same ones.
    place = hashlib.sha256(str(path).encode()).hexdigest()[:12]
    name = f"_task_file_{path.stem}_{place}"
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where dataclasses look up the module of a class
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        _does_not_run(what, reference, error)
    return module


def _from_module(what, reference, place, folder):
    _add_to_path(folder)
    importlib.invalidate_caches()
    try:
        return importlib.import_module(place)
    except (Exception, SystemExit) as error:
        if isinstance(error, ModuleNotFoundError) and f"{place}.".startswith(f"{error.name}."):
            allowed = f"a module that can be imported from {str(folder)!r} ({error})"
            check.reject(what, reference, allowed)
        _does_not_run(what, reference, error)


def _add_to_path(folder):
    """Let imports look there, after all other places."""
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
        _ADDED.add(folder)


def _check_neighbours(what, reference, folder):
    """Check that no file beside this one has the name of a module from beside another one.

    Python would give it the other one's module.
    """
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None) or ""
        other = Path(file).parent
        if other in _ADDED and other != folder and (folder / f"{name}.py").is_file():
            allowed = f"one beside files of other names: {name!r} is {file!r} in this process"
            check.reject(what, reference, allowed)


def _does_not_run(what, reference, error):
    found = f"{type(error).__name__}: {error}"
    check.reject(what, reference, f"one whose code runs; it raises {found}")
