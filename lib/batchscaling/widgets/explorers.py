"""Explorers: figures with knobs that work in the static site and in live notebooks alike."""

import json
import math
from collections.abc import Mapping
from functools import partial
from html import escape

import anywidget
import traitlets

from batchscaling import _validation as check
from batchscaling.nqm import NoisyQuadratic
from batchscaling.widgets._module import compose

_FLAT = 1e-6  # of the largest curvature: such directions are left out
_MOST_CURVATURES = 400  # so that the curve follows a moving knob


class _Knob(traitlets.TraitType):
    """A value that a slider and Python share, cleaned by a function of its name and itself."""

    def __init__(self, clean):
        super().__init__()
        self._clean = clean
        self.tag(sync=True)

    def validate(self, owner, value):
        return self._clean(self.name, value)


_batch_size = partial(check.integer, low=1)
_power = partial(check.real, low=0, high=1)
_fraction = partial(check.real, low=0, high=1, low_open=True, high_open=True)


class _Explorer(anywidget.AnyWidget):
    """What the explorers share: a JavaScript module and the state that it starts from."""

    _module = None  # a file in the folder js, given by each explorer

    def _knobs(self):
        traits = [item for kind in type(self).__mro__ for item in vars(kind).items()]
        return {name: getattr(self, name) for name, trait in traits if isinstance(trait, _Knob)}

    def _state(self):
        return self._knobs()

    def __repr__(self):
        values = ", ".join(f"{name}={value!r}" for name, value in self._knobs().items())
        return f"{type(self).__name__}({values})"

    def _repr_mimebundle_(self, **kwargs):
        data, metadata = super()._repr_mimebundle_(**kwargs)
        return data | {"text/html": _place(self._module, self._state())}, metadata


class _ProblemExplorer(_Explorer):
    """An explorer of one given problem."""

    problem = traitlets.Dict().tag(sync=True)

    def __init__(self, problem, **knobs):
        if not isinstance(problem, NoisyQuadratic):
            check.reject("problem", problem, "a NoisyQuadratic")
        if problem.curvature.size > _MOST_CURVATURES:
            allowed = (
                f"at most {_MOST_CURVATURES} curvatures; problem.quantize(bins=100) groups them"
            )
            check.reject("problem", problem, allowed)
        if not 0 < problem.initial_risk < math.inf:
            check.reject("problem", problem, "an initial risk above zero: its logarithm is drawn")
        fields = ("curvature", "noise", "second_moment", "counts")
        super().__init__(
            problem={name: getattr(problem, name).tolist() for name in fields}, **knobs
        )

    def _state(self):
        return {"problem": self.problem} | self._knobs()


class RiskExplorer(_ProblemExplorer):
    """Risk of SGD and heavy-ball momentum against steps, with a knob for each hyperparameter.

    In a live notebook the knobs and the attributes of the same names follow each other. In the
    static site the same JavaScript draws the same figure without a kernel.

    Where the risk swings faster than the picture can show, the line is its mean and the band its
    range, over some steps of each short interval.

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

    _module = "risk_explorer.js"
    _esm = compose(_module)

    lr = _Knob(check.positive)
    momentum = _Knob(check.below_one)
    batch_size = _Knob(_batch_size)
    power = _Knob(_power)
    target = _Knob(check.positive)

    def __init__(self, problem, lr=0.5, momentum=0.0, batch_size=1, power=0.0, target=0.01):
        super().__init__(
            problem, lr=lr, momentum=momentum, batch_size=batch_size, power=power, target=target
        )


class MomentumExplorer(_ProblemExplorer):
    r"""Heavy-ball momentum direction by direction: roots in the complex plane, shares of the risk.

    On the left are the roots of :math:`r^2 - (1 - \alpha h + \beta) r + \beta = 0` for all
    curvatures h of the problem: full signs are complex roots (under-damped directions), hollow
    ones real roots (over-damped). On the right is the risk against steps, stacked by three groups
    of directions: steep, middle and flat, each a third of the curvatures' range on a logarithmic
    scale. Where the risk swings faster than the picture can show, it shows the mean.

    In a live notebook the knobs and the attributes of the same names follow each other.

    Parameters
    ----------
    problem : NoisyQuadratic
        With at most 400 curvatures, such as ``NoisyQuadratic.harmonic(10_000).quantize(50)``.
    lr : float
        Learning rate at the start, positive. Unstable ones are allowed: the figure says so.
    momentum : float
        Momentum at the start, at least 0 and below 1.
    batch_size : int
        Batch size at the start, at least 1.

    Raises
    ------
    ValueError
        If an argument is out of its range.
    """

    _module = "momentum_explorer.js"
    _esm = compose(_module)

    lr = _Knob(check.positive)
    momentum = _Knob(check.below_one)
    batch_size = _Knob(_batch_size)

    def __init__(self, problem, lr=0.5, momentum=0.9, batch_size=1024):
        super().__init__(problem, lr=lr, momentum=momentum, batch_size=batch_size)


class PreconditioningExplorer(_ProblemExplorer):
    r"""What preconditioning by :math:`H^{-p}` gives and takes, as the power p moves.

    Against p stand the number of steps in which the slowest direction shrinks by the factor e,
    and the floor of the risk. Below is the risk against steps at the chosen power and at p = 0.
    The learning rate is a fraction of the largest stable one, because that changes with p.

    In a live notebook the knobs and the attributes of the same names follow each other.

    Parameters
    ----------
    problem : NoisyQuadratic
        With at most 400 curvatures, such as ``NoisyQuadratic.harmonic(10_000).quantize(100)``.
    power : float
        Preconditioning power at the start, from 0 to 1.
    lr_fraction : float
        Learning rate at the start, divided by the largest stable one; above 0 and below 1.
    momentum : float
        Heavy-ball momentum at the start, at least 0 and below 1.
    batch_size : int
        Batch size at the start, at least 1.

    Raises
    ------
    ValueError
        If an argument is out of its range.
    """

    _module = "preconditioning_explorer.js"
    _esm = compose(_module)

    power = _Knob(_power)
    lr_fraction = _Knob(_fraction)
    momentum = _Knob(check.below_one)
    batch_size = _Knob(_batch_size)

    def __init__(self, problem, power=0.5, lr_fraction=0.5, momentum=0.0, batch_size=1024):
        if isinstance(problem, NoisyQuadratic) and not problem.noise.any():
            check.reject("problem", problem, "a problem with noise: floors are compared")
        super().__init__(
            problem,
            power=power,
            lr_fraction=lr_fraction,
            momentum=momentum,
            batch_size=batch_size,
        )


class StepsExplorer(_Explorer):
    """Steps to target against batch size, for SGD and for heavy-ball momentum at their best rate.

    The problem is ``NoisyQuadratic.power_law(10_000, exponent).quantize(32).precondition(power)``.
    Each point is the exact number of steps of the best learning rate found, by a search like that
    of `batchscaling.nqm.tune` with the momentum held fixed. Other rates may do better by 0.1 %.
    Where the risk swings, at large batches and a momentum near 1, the number jumps with the rate,
    and narrow windows of rates do better by more, mostly by less than 15 %. Thin lines are perfect
    scaling from batch size 1 and the floor at very large batches; they meet at the critical batch
    size.

    In a live notebook the knobs and the attributes of the same names follow each other.

    Parameters
    ----------
    exponent : float
        s of the curvatures ``i**-s`` at the start, from 0 to 2.
    power : float
        Preconditioning power at the start, from 0 to 1.
    momentum : float
        Momentum of the heavy ball at the start, at least 0 and below 1.
    target : float
        Target risk at the start, positive.

    Raises
    ------
    ValueError
        If an argument is out of its range.
    """

    _module = "steps_explorer.js"
    _esm = compose(_module)

    exponent = _Knob(partial(check.real, low=0, high=2))
    power = _Knob(_power)
    momentum = _Knob(check.below_one)
    target = _Knob(check.positive)

    def __init__(self, exponent=1.0, power=0.0, momentum=0.9, target=0.01):
        super().__init__(exponent=exponent, power=power, momentum=momentum, target=target)


class MeasuredStepsExplorer(_ProblemExplorer):
    """A problem's steps to the target against batch size, over steps that were measured.

    Lines are the problem's steps at the best learning rate, as in `StepsExplorer`; marks and bars
    are measured medians and their intervals. Two knobs multiply the problem's noise and its
    second moments at the start.

    In a live notebook the knobs and the attributes of the same names follow each other.

    Parameters
    ----------
    problem : NoisyQuadratic
        With at most 400 curvatures; about 40 keep it quick.
    measured : dict of str to array_like, each of shape (k, 4)
        For "sgd" and "heavy_ball": batch size, lower end of the interval, steps, upper end; all
        positive.
    target : float
        Target risk of the measured steps, positive.
    momentum : float
        Momentum of the model's heavy ball at the start, at least 0 and below 1.
    noise_factor, start_factor : float
        Positive.

    Raises
    ------
    ValueError
        If an argument is out of its range.
    """

    _module = "measured_steps_explorer.js"
    _esm = compose(_module)

    measured = traitlets.Dict().tag(sync=True)
    target = traitlets.Float().tag(sync=True)
    momentum = _Knob(check.below_one)
    noise_factor = _Knob(check.positive)
    start_factor = _Knob(check.positive)

    def __init__(self, problem, measured, target, momentum=0.9, noise_factor=1.0, start_factor=1.0):
        if not isinstance(measured, Mapping) or set(measured) != {"sgd", "heavy_ball"}:
            check.reject("measured", measured, 'a dict with the keys "sgd" and "heavy_ball"')
        points = {}
        for name, rows in measured.items():
            rows = check.array(f"measured[{name!r}]", rows, ndim=2, positive=True)
            if rows.shape[1] != 4:
                shape = f"an array of shape {rows.shape}"
                check.reject(f"measured[{name!r}]", shape, "shape (k, 4)")
            points[name] = rows.tolist()
        super().__init__(
            problem,
            measured=points,
            target=check.positive("target", target),
            momentum=momentum,
            noise_factor=noise_factor,
            start_factor=start_factor,
        )

    def _state(self):
        return super()._state() | {"measured": self.measured, "target": self.target}


class GeometryExplorer(_Explorer):
    """Gradient noise against curvature along directions of a network's layers, as it trains.

    A sign is a direction; lines are equal noise and curvature, and the power law through the signs
    by least squares in logarithms. Directions with less than a millionth of the largest curvature
    are left out.

    In a live notebook the knobs and the attributes of the same names follow each other.

    Parameters
    ----------
    measured : dict of int to dict of str to array_like, each of shape (2, k)
        For each step of training, curvatures and noise of some directions of each layer, none of
        them negative. In each step and layer a direction that is not left out has noise; layers are
        the same at all steps.
    step : int
        Of training at the start, one of the measured ones. A later value that is none of them
        stands for the last one before it.
    layer : int
        At the start, counted from 1; 0 shows all layers. A number beyond the last one is the last.

    Raises
    ------
    ValueError
        If an argument is out of its range.
    """

    _module = "geometry_explorer.js"
    _esm = compose(_module)

    measured = traitlets.Dict().tag(sync=True)
    step = _Knob(partial(check.integer, low=0))
    layer = _Knob(partial(check.integer, low=0))

    def __init__(self, measured, step=0, layer=0):
        if not isinstance(measured, Mapping) or not measured:
            check.reject("measured", measured, "a dict of steps to dicts of layers")
        steps = sorted(check.integer("step of measured", key, 0) for key in measured)
        for at in steps:
            if not isinstance(measured[at], Mapping):
                check.reject(f"measured[{at}]", measured[at], "a dict of layers")
        layers = list(measured[steps[0]])
        rows = []
        for at in steps:
            if not layers or list(measured[at]) != layers:
                check.reject(f"measured[{at}]", list(measured[at]), f"the layers {layers}")
            rows.append([_directions(at, name, measured[at][name]) for name in layers])
        super().__init__(
            measured={"steps": steps, "layers": [*map(str, layers)], "points": rows},
            step=check.one_of("step", step, steps),
            layer=layer,
        )

    def _state(self):
        return {"measured": self.measured} | self._knobs()


def _directions(step, layer, pair):
    """Return curvature and noise of each direction, a list of pairs."""
    name = f"measured[{step}][{layer!r}]"
    pair = check.array(name, pair, ndim=2, nonnegative=True)
    found = f"an array of shape {pair.shape}"
    if len(pair) != 2:
        check.reject(name, found, "shape (2, k)")
    if not pair[1, pair[0] > _FLAT * pair[0].max()].any():
        check.reject(name, found, "one with noise above zero in a direction that is not left out")
    return pair.T.tolist()


class ThermometerExplorer(_Explorer):
    r"""Where SGD spends its time on a landscape with two valleys, as its temperature moves.

    The loss of the one parameter is a bowl with a dip,
    :math:`L(\theta) = \frac14\theta^2 - 2\exp(-(\theta - 2.5)^2/(2 \cdot 0.4^2))`, and the
    gradient of one example has the variance 800 everywhere. On the left is the stationary density
    of the stochastic differential equation, as `batchscaling.noise.stationary_density` gives it.
    On the right is SGD's exact variance over that of the equation, for the curvature of each
    valley; it is infinite from the rate on at which the valley is unstable.

    In a live notebook the knobs and the attributes of the same names follow each other.

    Parameters
    ----------
    lr : float
        Learning rate at the start, positive.
    batch_size : int
        Batch size at the start, at least 1.
    momentum : float
        Heavy-ball momentum at the start, at least 0 and below 1.

    Raises
    ------
    ValueError
        If an argument is out of its range.
    """

    _module = "thermometer_explorer.js"
    _esm = compose(_module)

    lr = _Knob(check.positive)
    batch_size = _Knob(_batch_size)
    momentum = _Knob(check.below_one)

    def __init__(self, lr=0.01, batch_size=16, momentum=0.0):
        super().__init__(lr=lr, batch_size=batch_size, momentum=momentum)


class PlaneExplorer(_Explorer):
    r"""Where the gradient is taken: paths of four methods in a valley of the plane.

    The loss is :math:`f(x, y) = \sqrt{x^2 + r^2} - r + \frac{1}{20} y^2`. The smaller the roundness
    r, the sharper the bottom of the valley: the curvature across it is 1/r. The methods are
    gradient descent; Nesterov's, which takes the gradient where the momentum leads; extragradient,
    a step along a fresh gradient away; and past gradient, a step along the last gradient away.
    The left picture has their paths of 60 steps, the right one their losses.

    In a live notebook the knobs and the attributes of the same names follow each other.

    Parameters
    ----------
    lr : float
        Learning rate at the start, positive.
    momentum : float
        Nesterov's momentum at the start, at least 0 and below 1.
    extrapolation : float
        Extrapolation rate of the last two methods at the start, at least 0.
    roundness : float
        r at the start, positive.

    Raises
    ------
    ValueError
        If an argument is out of its range.
    """

    _module = "plane_explorer.js"
    _esm = compose(_module)

    lr = _Knob(check.positive)
    momentum = _Knob(check.below_one)
    extrapolation = _Knob(check.nonnegative)
    roundness = _Knob(check.positive)

    def __init__(self, lr=0.5, momentum=0.8, extrapolation=0.25, roundness=1.0):
        super().__init__(lr=lr, momentum=momentum, extrapolation=extrapolation, roundness=roundness)


def _place(module, state):
    """Return the HTML at which the site's loader mounts `module`; the same for the same state."""
    text = json.dumps(state, separators=(",", ":")).replace("<", "\\u003c")
    return (
        f'<div class="batchscaling-mount" data-module="{escape(module)}">\n'
        f'<script type="application/json">{text}</script>\n'
        "<p>An interactive figure appears here where JavaScript is on.</p>\n"
        "</div>"
    )
