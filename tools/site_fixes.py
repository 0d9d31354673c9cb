"""Sphinx extension: what the theme and its companions leave to be put right on each page."""

# Parts of the book whose code runs in the small Binder image, which holds no torch.
WITHOUT_TORCH = ("chapters/nqm/",)
NEEDS_BINDER = {"Binder", "Live Code"}


def drop_binder(app, pagename, templatename, context, doctree):
    """Offer Binder and live code only where the code runs there: networks run in Colab instead."""
    if pagename.startswith(WITHOUT_TORCH):
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


def setup(app):
    """Connect after the theme, which adds its buttons at priority 501."""
    app.connect("html-page-context", drop_binder, priority=502)
    app.connect("html-page-context", drop_repeated_scripts, priority=502)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
