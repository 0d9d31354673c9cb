"""The explorers' JavaScript: one file for each, and what they share.

The static site serves the files as they are. A live notebook's front end takes one text for each
widget, so there the shared files are put in place of the imports.
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


def _inline(match):
    names, file = match.groups()
    text = compose(file)
    exports = ", ".join(_EXPORT.findall(text))
    return f"const {names} = (() => {{\n{_EXPORT.sub('', text)}\nreturn {{ {exports} }};\n}})();"
