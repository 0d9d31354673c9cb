"""Sphinx extension: what the theme and its companions leave to be put right on each page."""

import re
from pathlib import Path

from batchscaling.widgets._module import FOLDER, classic
from tools import book

NEEDS_BINDER = {"Binder", "Live Code"}


def drop_binder(app, pagename, templatename, context, doctree):
    """Offer Binder and live code only where the code runs there: networks run in Colab instead."""
    chapter = Path(app.srcdir) / f"{pagename}.ipynb"
    if chapter.exists() and not book.needs_torch(chapter):
        return
    for group in context.get("header_buttons", []):
        if group["label"] == "launch-buttons":
            group["buttons"] = [b for b in group["buttons"] if b["text"] not in NEEDS_BINDER]


def drop_repeated_scripts(app, pagename, templatename, context, doctree):
    """Keep each inline script once: sphinx-thebe's constants, declared twice, are an error."""
    scripts = context["script_files"]
    scripts[:] = {
        (script.filename or "", str(script.attributes)): script for script in scripts
    }.values()


def write_explorers(app):
    """Write each explorer as a classic script: a page opened as a file can load no module."""
    folder = Path(app.outdir) / "_static"
    folder.mkdir(parents=True, exist_ok=True)
    for file in FOLDER.glob("*_explorer.js"):
        (folder / _script_of(file.name)).write_text(classic(file.name), encoding="utf-8")


def load_explorers(app, pagename, templatename, context, doctree):
    """Give a page the scripts of the explorers that it shows, before the one that mounts them."""
    for module in sorted(set(re.findall(r'data-module="(\w+\.js)"', context.get("body", "")))):
        app.add_js_file(_script_of(module), defer="defer")


def _script_of(module):
    return module.replace(".js", ".classic.js")


def setup(app):
    """Connect after the theme, which adds its buttons at priority 501."""
    app.connect("html-page-context", drop_binder, priority=502)
    app.connect("builder-inited", write_explorers)
    app.connect("html-page-context", load_explorers)
    app.connect("html-page-context", drop_repeated_scripts, priority=502)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
