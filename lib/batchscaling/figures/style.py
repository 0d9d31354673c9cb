"""One look for every figure: the style, and one colour, line and marker for each optimizer."""

import matplotlib.pyplot as plt

from batchscaling.registry import METHODS

STYLE = {
    "figure.figsize": (7.2, 3.6),
    "figure.dpi": 110,
    "figure.constrained_layout.use": True,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "font.size": 11,
    "axes.labelsize": 11,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e3e3e3",
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "legend.fontsize": 10,
    "lines.linewidth": 1.8,
    "lines.markersize": 5,
}

# What the part on the noisy quadratic model calls otherwise than sweeps do.
_CLASSES = {
    "SGD": "sgd",
    "HeavyBall": "heavy_ball",
    "Nesterov": "nesterov",
    "Adam": "adam",
    "KFAC": "kfac",
}

LOOKS = {
    **{name: method.look for name, method in METHODS.items()},
    **{name: METHODS[method].look for name, method in _CLASSES.items()},
    "Averaged": {"color": "#8f7700", "linestyle": (0, (1, 1)), "marker": "P"},
    "Newton": {"color": "#1a1a1a", "linestyle": "-", "marker": "X"},
    "RootNewton": {"color": "#6e6e6e", "linestyle": (0, (6, 2)), "marker": "p"},
    "NQM": {"color": "#4d4d4d", "linestyle": ":", "marker": ""},
    "theory": {"color": "#1a1a1a", "linestyle": ":", "marker": ""},
}

# For families of curves that differ in one number, such as the batch size: from light to dark.
FAMILY = [
    {"color": "#7fb2d9", "linestyle": "-"},
    {"color": "#3f8ac2", "linestyle": (0, (6, 2))},
    {"color": "#0a5c99", "linestyle": (0, (3, 1.5))},
    {"color": "#06375c", "linestyle": (0, (1, 1))},
]
MARKERS = ("o", "s", "^", "D")  # of such a family, in its order
GREY = "#8f8f8f"  # of what stands in the background
LIMIT = "#b22222"  # of targets and limits


def use_style():
    """Set matplotlib's defaults to the book's style, whatever style was set before."""
    plt.style.use(["default", STYLE])


def look(name, *, marker=True):
    """Return the keywords of a line: ``color``, ``linestyle`` and, unless refused, ``marker``.

    Parameters
    ----------
    name : str
        A method of sweeps, such as ``"heavy_ball"``, a class of the noisy quadratic model, such as
        ``"HeavyBall"``, or ``"theory"``.
    marker : bool
        Whether to draw markers.

    Returns
    -------
    dict
        Keywords for ``Axes.plot``.

    Raises
    ------
    ValueError
        If no look is known for `name`.
    """
    if name not in LOOKS:
        raise ValueError(f"name is {name!r}; allowed: one of {', '.join(map(repr, LOOKS))}")
    keywords = dict(LOOKS[name])
    if not marker:
        keywords.pop("marker")
    return keywords


def finish(figure):
    """Close the figure for pyplot, so that a notebook shows it only as a cell's result."""
    plt.close(figure)
    return figure
