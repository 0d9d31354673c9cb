"""What a master notebook says about its questions."""

import re

import yaml

QUESTION = "# BEGIN QUESTION"
RUBRIC = "**Rubric**"


def questions(notebook):
    """Return a dict for each question of a master, in order.

    Its keys: ``name``, ``points``, ``manual``, ``prompt`` (the first markdown cell) and ``rubric``
    (of a written answer; empty for others).
    """
    found = []
    for cell in notebook.cells:
        if cell.cell_type == "raw" and cell.source.startswith(QUESTION):
            config = yaml.safe_load(cell.source.removeprefix(QUESTION))
            found.append({"manual": False, "prompt": "", "rubric": "", **config})
        elif cell.cell_type == "raw" and cell.source == "# END QUESTION":
            check(found[-1])
        elif found and cell.cell_type == "markdown":
            question = found[-1]
            question["prompt"] = question["prompt"] or cell.source
            if RUBRIC in cell.source:
                question["rubric"] = cell.source.partition(RUBRIC)[2].strip()
    return found


def check(question):
    """Refuse a question without what grading needs."""
    if not re.match(r"\*\*Question \d+\.\*\* ", question["prompt"]):
        raise ValueError(f"{question['name']}: the prompt must begin with '**Question N.** '")
    if bool(question["rubric"]) != question["manual"]:
        raise ValueError(f"{question['name']}: a written answer, and only that, has a rubric")
