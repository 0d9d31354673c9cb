"""Controls for live notebooks: sliders and menus that call Python."""

import base64
import io
from contextlib import contextmanager
from functools import partial
from html import escape
from traceback import format_exception_only

import ipywidgets
from matplotlib._pylab_helpers import Gcf  # pyplot's open figures
from matplotlib.figure import Figure
from traitlets import TraitError

from batchscaling import _validation as check

_STATIC_TEXT = (
    "This control calls Python, so it needs a running notebook: "
    "open this chapter with the rocket button at the top of the page."
)


def live(function, /, **controls):
    """Return sliders and menus that redraw a figure in a live notebook.

    The figure is drawn once at the start, so an error in `function` stops the notebook there. In
    the static site a sentence stands in the place of the control: no knob is shown that does
    nothing.

    Parameters
    ----------
    function : callable
        Called with one keyword for each control; returns a matplotlib ``Figure``. Pyplot's figures
        that it opens are closed. When a knob moves, an error is shown in the figure's place, such
        as that of an unstable learning rate.
    **controls
        For each keyword an ipywidgets control or a short form of it: ``(low, high)`` or
        ``(low, high, step)`` for a slider, a list for a menu.

    Returns
    -------
    LiveControl
        Show it as the last expression of a cell.

    Raises
    ------
    ValueError
        If there is no control, one is not understood, or `function` does not return a Figure.
    """
    return LiveControl(function, controls)


class LiveControl(ipywidgets.VBox):
    """What `live` returns."""

    def __init__(self, function, controls):
        if not callable(function):
            check.reject("function", function, "a callable that returns a matplotlib Figure")
        if not controls:
            check.reject("controls", controls, "at least one, such as lr=(0.1, 1.0)")
        self._function = function
        self._controls = {name: _control(name, short) for name, short in controls.items()}
        self._picture = ipywidgets.HTML()
        self._picture.value = self._draw()
        super().__init__([*self._controls.values(), self._picture])
        for control in self._controls.values():
            control.observe(self._redraw, "value")

    def _redraw(self, change):
        try:
            self._picture.value = self._draw()
        except BaseException as error:
            self._picture.value = f'<p role="alert">{escape(_words(error))}</p>'
            if not isinstance(error, Exception):  # an interrupt is the kernel's, too
                raise

    def _draw(self):
        values = {name: control.value for name, control in self._controls.items()}
        file = io.BytesIO()
        with _closing_figures():
            figure = self._function(**values)
            if not isinstance(figure, Figure):
                check.reject("function's result", figure, "a matplotlib Figure")
            figure.savefig(file, format="png")
        setting = ", ".join(f"{name} = {value}" for name, value in values.items())
        data = base64.b64encode(file.getvalue()).decode()
        return f'<img alt="Figure at {escape(setting)}" src="data:image/png;base64,{data}">'

    def __repr__(self):
        return f"live({_name(self._function)}, {', '.join(self._controls)})"

    def _repr_mimebundle_(self, **kwargs):
        bundle = super()._repr_mimebundle_(**kwargs)
        return bundle | {"text/html": f'<p class="batchscaling-live">{_STATIC_TEXT}</p>'}


@contextmanager
def _closing_figures():
    """Close the figures of pyplot that are opened meanwhile, however it ends."""
    before = Gcf.get_all_fig_managers()
    try:
        yield
    finally:
        for manager in Gcf.get_all_fig_managers():
            if manager not in before:
                Gcf.destroy(manager)


def _words(error):
    """Return a ValueError's message, which is written for readers; else with its type."""
    if isinstance(error, ValueError) and str(error):
        return str(error)
    return "".join(format_exception_only(error)).strip()


def _name(function):
    """Return what `function` is called in the notebook's text: the same in every run."""
    while isinstance(function, partial):
        function = function.func
    return getattr(function, "__name__", type(function).__name__)


def _control(name, short):
    allowed = "a control of ipywidgets, (low, high), (low, high, step) or a list"
    if not isinstance(short, (tuple, list, ipywidgets.ValueWidget)):
        check.reject(name, short, allowed)
    try:
        control = ipywidgets.interactive.widget_from_abbrev(short)
    except (ValueError, TraitError):
        control = None
    if control is None or short == []:
        check.reject(name, short, allowed)
    control.description = control.description or name
    return control
