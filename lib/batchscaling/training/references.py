"""Objects of a user's own code, by ``module:name`` or ``path/file.py:name``."""

import importlib
import importlib.util
import os
import sys
from pathlib import Path

from batchscaling import _validation as check


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
        If there is no such file or module, or running it raises an error.
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


def _from_file(what, reference, path):
    if not path.is_file():
        check.reject(what, reference, f"a file that exists; {str(path)!r} does not")
    _add_to_path(path.parent)
    name = f"_task_file_{path.stem}"
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


def _does_not_run(what, reference, error):
    found = f"{type(error).__name__}: {error}"
    check.reject(what, reference, f"one whose code runs; it raises {found}")
