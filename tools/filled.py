"""Numbers in captions, alternative texts and the table of claims come from code.

The metadata of a code cell may hold ``"filled": {"caption": "…", "alt": "…"}`` and
``"claims": {"<id>": "…"}``. The texts are read like f-strings, with the names that the kernel knows
once the cell has run.
"""

import ast

import nbformat

PLACES = {"caption": ("figure", "caption"), "alt": ("image", "alt")}
FOUND = "claims_found"  # where a cell stores what its claims became


def expression(text):
    """Return Python code for `text` as an f-string that takes backslashes as they are.

    The space lets a text end in a quotation mark.
    """
    return f'rf"""{text} """[:-1]'


def place(cell, key):
    """Return the part of the layout of `cell`, and its key there, where ``filled[key]`` belongs."""
    if key not in PLACES:
        raise ValueError(f"filled {key}: allowed: {', '.join(PLACES)}")
    section, name = PLACES[key]
    layout = cell.metadata.setdefault("mystnb", nbformat.NotebookNode())
    return layout.setdefault(section, nbformat.NotebookNode()), name


def texts(cell):
    """Yield each text of `cell` that code fills in: what it is, itself, and its place and key."""
    for key, text in cell.metadata.get("filled", {}).items():
        yield f"filled {key}", text, *place(cell, key)
    for key, text in cell.metadata.get("claims", {}).items():
        yield f"claim {key}", text, cell.metadata.setdefault(FOUND, nbformat.NotebookNode()), key


async def evaluate(kernel, what, text):
    """Return `text` with its fields filled in by `kernel`."""
    code = {"text": expression(text)}
    reply = await kernel.execute("", silent=True, user_expressions=code, reply=True)
    value = reply["content"]["user_expressions"]["text"]
    if value["status"] == "error":
        raise ValueError(f"{what}: {value['ename']}: {value['evalue']}")
    return ast.literal_eval(value["data"]["text/plain"])


async def fill(kernel, cell, cell_index, execute_reply):
    """Evaluate the texts of `cell`, which has just run in `kernel`, and store them in it."""
    if execute_reply["content"]["status"] != "ok":
        return
    cell.metadata.pop(FOUND, None)
    try:
        for what, text, section, name in texts(cell):
            section[name] = await evaluate(kernel, what, text)
    except ValueError as error:
        raise ValueError(f"cell {cell_index}: {error}") from None


def stored(notebook):
    """Return what `notebook` stores of each text that code fills in: cell, what it is, result."""
    return [
        [index, what, section.get(name)]
        for index, cell in enumerate(notebook.cells)
        for what, _, section, name in texts(cell)
    ]


def differences(notebook, found):
    """Return which stored texts of `notebook` are not those that executing it has `found`."""
    return [
        f"cell {index}: the stored {what.removeprefix('filled ')} is not what code gives, "
        f"{right!r}: run make refresh"
        for (index, what, text), (_, _, right) in zip(stored(notebook), found, strict=True)
        if text != right
    ]
