"""Controls for live notebooks: sliders and menus that call Python."""

import base64
import io
from html import escape
from inspect import isfunction

import ipywidgets
import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from batchscaling import _validation as check

_STATIC_TEXT = (
    "This control calls Python, so it needs a running notebook: "
    "open this chapter with the rocket button at the top of the page."
)


def live(function, **controls):
    """Return sliders and menus that redraw a figure in a live notebook.

    The figure is drawn once at the start, so an error in `function` stops the notebook there. In
    the static site a sentence stands in the place of the control: no knob is shown that does
    nothing.

    Parameters
    ----------
    function : callable
        Called with one keyword for each control; returns a new matplotlib ``Figure``. When a knob
        moves, a ``ValueError`` is shown in the figure's place, such as that of an unstable
        learning rate.
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
        if not isfunction(function):
            check.reject("function", function, "a function that returns a matplotlib Figure")
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
        except ValueError as error:
            self._picture.value = f'<p role="alert">{escape(str(error))}</p>'

    def _draw(self):
        values = {name: control.value for name, control in self._controls.items()}
        figure = self._function(**values)
        if not isinstance(figure, Figure):
            check.reject("function's result", figure, "a matplotlib Figure")
        file = io.BytesIO()
        figure.savefig(file, format="png")
        plt.close(figure)
        setting = ", ".join(f"{name} = {value}" for name, value in values.items())
        data = base64.b64encode(file.getvalue()).decode()
        return f'<img alt="Figure at {escape(setting)}" src="data:image/png;base64,{data}">'

    def __repr__(self):
        return (
            f"live({getattr(self._function, '__name__', 'function')}, {', '.join(self._controls)})"
        )

    def _repr_mimebundle_(self, **kwargs):
        bundle = super()._repr_mimebundle_(**kwargs)
        return bundle | {"text/html": f'<p class="batchscaling-live">{_STATIC_TEXT}</p>'}


def _control(name, short):
    allowed = "a control of ipywidgets, (low, high), (low, high, step) or a list"
    if not isinstance(short, (tuple, list, ipywidgets.ValueWidget)):
        check.reject(name, short, allowed)
    control = ipywidgets.interactive.widget_from_abbrev(short)
    if control is None:
        check.reject(name, short, allowed)
    control.description = control.description or name
    return control
