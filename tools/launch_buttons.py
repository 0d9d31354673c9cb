"""Sphinx extension: offer Binder and live code only on pages whose code runs there.

The Binder image is small: it holds no torch. Chapters on networks run in Colab instead.
"""

WITHOUT_TORCH = ("chapters/nqm/",)
NEEDS_BINDER = {"Binder", "Live Code"}


def drop_binder(app, pagename, templatename, context, doctree):
    """Remove the Binder and live-code buttons from a page outside `WITHOUT_TORCH`."""
    if pagename.startswith(WITHOUT_TORCH):
        return
    for group in context.get("header_buttons", []):
        if group["label"] == "launch-buttons":
            group["buttons"] = [b for b in group["buttons"] if b["text"] not in NEEDS_BINDER]


def setup(app):
    """Connect after the theme, which adds its buttons at priority 501."""
    app.connect("html-page-context", drop_binder, priority=502)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
