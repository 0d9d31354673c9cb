"""Numbers in captions and alternative texts come from code.

The metadata of a code cell may hold ``"filled": {"caption": "…", "alt": "…"}``. Both texts are
read like f-strings, with the names that the kernel knows once the cell has run.
"""

import ast

import nbformat

PLACES = {"caption": ("figure", "caption"), "alt": ("image", "alt")}


def expression(text):
    """Return Python code for `text` as an f-string that takes backslashes as they are.

    The space lets a text end in a quotation mark.
    """
    return f'rf"""{text} """[:-1]'


def place(cell, key):
    """Return the part of the layout of `cell`, and its key there, where ``filled[key]`` belongs."""
    if key not in PLACES:
        raise ValueError(f"allowed: {', '.join(PLACES)}")
    section, name = PLACES[key]
    layout = cell.metadata.setdefault("mystnb", nbformat.NotebookNode())
    return layout.setdefault(section, nbformat.NotebookNode()), name


async def evaluate(kernel, text):
    """Return `text` with its fields filled in by `kernel`."""
    code = {"text": expression(text)}
    reply = await kernel.execute("", silent=True, user_expressions=code, reply=True)
    value = reply["content"]["user_expressions"]["text"]
    if value["status"] == "error":
        raise ValueError(f"{value['ename']}: {value['evalue']}")
    return ast.literal_eval(value["data"]["text/plain"])


async def fill(kernel, cell, cell_index, execute_reply):
    """Evaluate the texts of `cell`, which has just run in `kernel`, and store them in it."""
    if execute_reply["content"]["status"] != "ok":
        return
    for key, text in cell.metadata.get("filled", {}).items():
        try:
            section, name = place(cell, key)
            section[name] = await evaluate(kernel, text)
        except ValueError as error:
            raise ValueError(f"cell {cell_index}: filled {key}: {error}") from None


def check(cell, key, text):
    """Return code that compares ``filled[key]`` of `cell` with what is stored."""
    section, name = place(cell, key)
    message = f"the stored {key} is not what code gives: run make refresh"
    return f"assert {section.get(name)!r} == {expression(text)}, {message!r}"


def with_checks(notebook):
    """Return `notebook` with a cell after each filled one that compares what is stored."""
    cells = []
    for cell in notebook.cells:
        texts = cell.metadata.get("filled", {}).items()
        checks = "\n".join(check(cell, key, text) for key, text in texts)
        cells += [cell, nbformat.v4.new_code_cell(checks)] if checks else [cell]
    return nbformat.from_dict({**notebook, "cells": cells})
