"""Explorers: figures with knobs that work in the static site and in live notebooks alike."""

import json
from functools import partial
from html import escape

import anywidget
import traitlets

from batchscaling import _validation as check
from batchscaling.nqm import NoisyQuadratic
from batchscaling.widgets._module import compose

_MOST_CURVATURES = 400  # so that the curve follows a moving knob
_KNOBS = {
    "lr": check.positive,
    "momentum": partial(check.real, low=0, high=1, high_open=True),
    "batch_size": partial(check.integer, low=1),
    "power": partial(check.real, low=0, high=1),
    "target": check.positive,
}


class RiskExplorer(anywidget.AnyWidget):
    """Risk of SGD and heavy-ball momentum against steps, with a knob for each hyperparameter.

    In a live notebook the knobs and the attributes of the same names follow each other. In the
    static site the same JavaScript draws the same figure without a kernel.

    Parameters
    ----------
    problem : NoisyQuadratic
        With at most 400 curvatures, such as ``NoisyQuadratic.harmonic(10_000).quantize(100)``.
    lr : float
        Learning rate at the start, positive. Unstable ones are allowed: the figure says so.
    momentum : float
        Momentum at the start, at least 0 and below 1.
    batch_size : int
        Batch size at the start, at least 1.
    power : float
        Preconditioning power at the start, from 0 to 1.
    target : float
        Target risk at the start, positive.

    Raises
    ------
    ValueError
        If an argument is out of its range.
    """

    _esm = compose("risk_explorer.js")

    problem = traitlets.Dict().tag(sync=True)
    lr = traitlets.Any().tag(sync=True)
    momentum = traitlets.Any().tag(sync=True)
    batch_size = traitlets.Any().tag(sync=True)
    power = traitlets.Any().tag(sync=True)
    target = traitlets.Any().tag(sync=True)

    def __init__(self, problem, lr=0.5, momentum=0.0, batch_size=1, power=0.0, target=0.01):
        if not isinstance(problem, NoisyQuadratic):
            check.reject("problem", problem, "a NoisyQuadratic")
        if problem.curvature.size > _MOST_CURVATURES:
            allowed = (
                f"at most {_MOST_CURVATURES} curvatures; problem.quantize(bins=100) groups them"
            )
            check.reject("problem", problem, allowed)
        fields = ("curvature", "noise", "second_moment", "counts")
        super().__init__(
            problem={name: getattr(problem, name).tolist() for name in fields},
            lr=lr,
            momentum=momentum,
            batch_size=batch_size,
            power=power,
            target=target,
        )

    @traitlets.validate(*_KNOBS)
    def _check_knob(self, proposal):
        name = proposal["trait"].name
        return _KNOBS[name](name, proposal["value"])

    def __repr__(self):
        values = ", ".join(f"{name}={getattr(self, name)!r}" for name in _KNOBS)
        return f"RiskExplorer({values})"

    def _repr_mimebundle_(self, **kwargs):
        data, metadata = super()._repr_mimebundle_(**kwargs)
        state = {"problem": self.problem} | {name: getattr(self, name) for name in _KNOBS}
        return data | {"text/html": _place("risk_explorer.js", state)}, metadata


def _place(module, state):
    """Return the HTML at which the site's loader mounts `module`; the same for the same state."""
    text = json.dumps(state, separators=(",", ":")).replace("<", "\\u003c")
    return (
        f'<div class="batchscaling-mount" data-module="{escape(module)}">\n'
        f'<script type="application/json">{text}</script>\n'
        "<p>An interactive figure appears here where JavaScript is on.</p>\n"
        "</div>"
    )
