"""What a plot shows, as plain data, and checks of it."""

import numpy as np

from batchscaling.classroom.expect import numbers


def drawn(name, axes):
    """Return what a plot shows, as plain data.

    Parameters
    ----------
    name : str
        The variable that holds the axes.
    axes : matplotlib.axes.Axes or dict
        The axes, or what this function returned for them.

    Returns
    -------
    dict
        ``lines``, a list of dicts with ``x``, ``y`` (arrays) and ``label``; ``xlabel``, ``ylabel``,
        ``xscale``, ``yscale`` and ``legend``, a bool.

    Raises
    ------
    AssertionError
        If `axes` is neither.
    """
    if isinstance(axes, dict) and "lines" in axes:
        return axes
    if not hasattr(axes, "get_lines"):
        kind = "not filled in yet" if axes is ... else f"a {type(axes).__name__}"
        raise AssertionError(f"{name} is {kind}; expected: the axes of your plot")
    return {
        "lines": [
            {"x": np.array(x, float), "y": np.array(y, float), "label": line.get_label()}
            for line in axes.get_lines()
            for x, y in [line.get_data()]
        ],
        **{key: getattr(axes, f"get_{key}")() for key in ("xlabel", "ylabel", "xscale", "yscale")},
        "legend": axes.get_legend() is not None,
    }


def plotted(name, axes, *, log, legend=False):
    """Return the lines of a plot whose axes are as asked for.

    Parameters
    ----------
    name : str
        The variable that holds the axes.
    axes : matplotlib.axes.Axes or dict
        The axes, or what `drawn` returned for them.
    log : str
        The axes that must be logarithmic: ``"xy"``, ``"y"`` or ``""``.
    legend : bool
        Whether there must be a legend.

    Returns
    -------
    list of tuple of numpy.ndarray
        ``x`` and ``y`` of each line.

    Raises
    ------
    AssertionError
        If an axis has no label or is not logarithmic, or if the legend is missing.
    """
    plot = drawn(name, axes)
    for axis in "xy":
        if axis in log and plot[f"{axis}scale"] != "log":
            raise AssertionError(f"the {axis} axis should be logarithmic")
        if not plot[f"{axis}label"]:
            raise AssertionError(f"the {axis} axis has no label")
    if legend and not plot["legend"]:
        raise AssertionError("the plot has no legend")
    return [(line["x"], line["y"]) for line in plot["lines"]]


def draws(name, lines, x, y):
    """Check that one of the lines goes through these points, apart from those that are infinite.

    It may go from the last point to the first.

    Parameters
    ----------
    name : str
        What should be drawn, in the student's words.
    lines : list of tuple of numpy.ndarray
        As `plotted` returns them.
    x, y : array_like, shape (points,)

    Raises
    ------
    AssertionError
        If none does, or if `x` and `y` are no numbers of one shape.
    """
    x = numbers("x", x)
    points = finite(x, numbers(name, y, x.shape))
    for line in lines:
        found = finite(*line)
        if found.shape == points.shape and (same(found, points) or same(found[:, ::-1], points)):
            return
    raise AssertionError(f"no line shows {name}")


def same(found, points):
    """Tell whether points agree; those near zero to within rounding of the largest."""
    largest = np.abs(points).max(axis=1, keepdims=True, initial=0)
    return np.all(np.abs(found - points) <= 1e-5 * np.abs(points) + 1e-12 * largest)


def finite(x, y):
    """Return the points with a finite y, of shape (2, points)."""
    points = np.stack([x, y]).astype(float)
    return points[:, np.isfinite(points[1])]
