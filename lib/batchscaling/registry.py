"""The methods of sweeps: one entry for each. Needs no torch.

Figures take labels and looks from here, sweeps the optimizers and their search spaces.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module

from batchscaling.ranges import Range


@dataclass(frozen=True)
class Method:
    """A method of sweeps.

    Attributes
    ----------
    optimizer : str
        File and name in `batchscaling.training.optimizers`, such as ``"adam.adam"``.
    label : str
        Its name in figures.
    look : mapping
        Its ``color``, ``linestyle`` and ``marker`` in figures.
    family : str
        Methods of one family share the range of their rates: a key of `Task.rates`.
    rate : {"lr", "effective_lr"}
        Which rate is searched: ``effective_lr`` is ``lr / (1 - momentum)``.
    space : mapping of str to Range
        What else is searched; ``relative_extrapolation`` is ``extrapolation / lr``.
    fixed : mapping of str to float
        Hyperparameters that are not searched.
    """

    optimizer: str
    label: str
    look: Mapping
    family: str
    rate: str = "lr"
    space: Mapping[str, Range] = field(default_factory=dict)
    fixed: Mapping[str, float] = field(default_factory=dict)

    def build(self):
        """Return the `Optimizer`, with fixed values. Needs torch."""
        folder = "batchscaling.training.optimizers"
        file, _, name = self.optimizer.partition(".")
        optimizer = getattr(import_module(f"{folder}.{file}"), name)
        return import_module(folder).fix(optimizer, **self.fixed) if self.fixed else optimizer


_MOMENTUM = Range(0.01, 1, complement=True)
_ADAM = {"beta2": 0.999, "epsilon": 1e-8}
_KFAC = {"factor_decay": 0.95}
# Half the clip is how far a step may move what the network states, in nats.
_KFAC_SPACE = {"damping": Range(1e-5, 1), "kl_clip": Range(1e-3, 10)}
_EXTRAPOLATION = {"relative_extrapolation": Range(2**-6, 2**4)}
_RADIUS = {"radius": Range(2**-8, 1)}

METHODS = {
    "sgd": Method(
        "sgd.sgd",
        "SGD",
        {"color": "#0072b2", "linestyle": "-", "marker": "o"},
        family="sgd",
    ),
    "heavy_ball": Method(
        "heavy_ball.heavy_ball",
        "heavy ball",
        {"color": "#d55e00", "linestyle": "--", "marker": "s"},
        family="sgd",
        rate="effective_lr",
        space={"momentum": _MOMENTUM},
    ),
    "nesterov": Method(
        "nesterov.nesterov",
        "Nesterov",
        {"color": "#a6611a", "linestyle": "-.", "marker": "^"},
        family="sgd",
        rate="effective_lr",
        space={"momentum": _MOMENTUM},
    ),
    "adam": Method(
        "adam.adam",
        "Adam",
        {"color": "#007a5e", "linestyle": (0, (5, 1, 1, 1)), "marker": "D"},
        family="adam",
        space={"beta1": _MOMENTUM},
        fixed=_ADAM,
    ),
    "adam_without_momentum": Method(
        "adam.adam_without_momentum",
        "Adam without momentum",
        {"color": "#56a08c", "linestyle": (0, (2, 1)), "marker": "d"},
        family="adam",
        fixed=_ADAM,
    ),
    "kfac": Method(
        "kfac.kfac",
        "K-FAC",
        {"color": "#9b3f86", "linestyle": (0, (3, 1, 1, 1, 1, 1)), "marker": "v"},
        family="kfac",
        rate="effective_lr",
        space={"momentum": _MOMENTUM, **_KFAC_SPACE},
        fixed=_KFAC,
    ),
    "kfac_without_momentum": Method(
        "kfac.kfac_without_momentum",
        "K-FAC without momentum",
        {"color": "#b57bb8", "linestyle": (0, (4, 1)), "marker": "<"},
        family="kfac",
        space=_KFAC_SPACE,
        fixed=_KFAC,
    ),
    "extrap_sgd": Method(
        "extrap_sgd.extrap_sgd",
        "extrap-SGD",
        {"color": "#c2185b", "linestyle": "-", "marker": "P"},
        family="sgd",
        rate="effective_lr",
        space={"momentum": _MOMENTUM, **_EXTRAPOLATION},
    ),
    "extrap_gaussian": Method(
        "extrap_noise.extrap_gaussian",
        "Gaussian noise",
        {"color": "#6b7a00", "linestyle": "--", "marker": "X"},
        family="sgd",
        rate="effective_lr",
        space={"momentum": _MOMENTUM, **_RADIUS},
    ),
    "extrap_uniform": Method(
        "extrap_noise.extrap_uniform",
        "uniform noise",
        {"color": "#4f6d7a", "linestyle": (0, (2, 1)), "marker": ">"},
        family="sgd",
        rate="effective_lr",
        space={"momentum": _MOMENTUM, **_RADIUS},
    ),
    "smoothout": Method(
        "extrap_noise.smoothout",
        "SmoothOut",
        {"color": "#7a5195", "linestyle": "-.", "marker": "p"},
        family="sgd",
        rate="effective_lr",
        space={"momentum": _MOMENTUM, **_RADIUS},
    ),
    "extrap_gradient": Method(
        "extrap_noise.extrap_gradient",
        "gradient noise",
        {"color": "#3d5a00", "linestyle": (0, (5, 1, 1, 1)), "marker": "h"},
        family="sgd",
        rate="effective_lr",
        space={"momentum": _MOMENTUM, **_EXTRAPOLATION},
    ),
    "lars": Method(
        "lars.lars",
        "LARS",
        {"color": "#b35900", "linestyle": (0, (4, 1)), "marker": "*"},
        family="lars",
        rate="effective_lr",
        space={"momentum": _MOMENTUM},
        fixed={"trust": 1.0, "weight_decay": 0.0},
    ),
    "extrap_adam": Method(
        "extrap_adam.extrap_adam",
        "extrap-Adam",
        {"color": "#00838f", "linestyle": "-", "marker": "H"},
        family="adam",
        space={"beta1": _MOMENTUM, **_EXTRAPOLATION},
        fixed=_ADAM,
    ),
}
"""The methods of sweeps by name, in the order of figures."""
