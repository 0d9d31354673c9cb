"""The explorers' JavaScript: one file for each, and what they share.

A live notebook's front end takes one module for each widget, so the shared files are put in place
of the imports. Each page of the static site has classic scripts of the same text, because a browser
loads no module into a page that is opened as a file.
"""

import re
from importlib.resources import files

FOLDER = files(__package__) / "js"

_IMPORT = re.compile(r'^import (\{[^}]*\}) from "\./(\w+\.js)";$', re.MULTILINE)
_EXPORT = re.compile(r"^export (?=(?:function\*?|const) (\w+))", re.MULTILINE)


def compose(name):
    """Return the module of file `name` as one text without imports.

    Each ``import { a, b } from "./file.js";`` becomes a function that holds the file's text and
    returns what the file exports, so names of different files do not meet.

    Parameters
    ----------
    name : str
        A file in the package's ``js`` folder.

    Returns
    -------
    str
    """
    return _IMPORT.sub(_inline, (FOLDER / name).read_text(encoding="utf-8"))


def classic(name):
    """Return the explorer of file `name` as a classic script.

    The script puts what the module exports into ``batchscalingExplorers``, a global object, under
    `name`.

    Parameters
    ----------
    name : str
        An explorer's file in the package's ``js`` folder.

    Returns
    -------
    str
    """
    text = compose(name).replace("export default", "return")
    return f'(globalThis.batchscalingExplorers ??= {{}})["{name}"] = {_call(text)}\n'


def _inline(match):
    names, file = match.groups()
    text = compose(file)
    exports = ", ".join(_EXPORT.findall(text))
    body = f"{_EXPORT.sub('', text)}\nreturn {{ {exports} }};"
    return f"const {names} = {_call(body)}"


def _call(text):
    """Return an expression: the function of body `text`, strict as modules are, called at once."""
    return f'(() => {{\n"use strict";\n{text}\n}})();'
