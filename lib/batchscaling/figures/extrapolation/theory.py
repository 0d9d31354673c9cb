"""Figures of the chapter on what theory says about extrapolation."""

import matplotlib.pyplot as plt

from batchscaling.figures.style import FAMILY, finish, look


def measured_and_bound(rates, measured, bounds):
    """Draw measured mean squared gradients and their bounds against the effective rate.

    Parameters
    ----------
    rates : dict of str to ndarray of shape (k,)
        Effective rates of each method.
    measured, bounds : dict of str to ndarray of shape (k,)

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, panels = plt.subplots(1, len(rates), sharey=True, figsize=(9, 3.2))
    for axes, name in zip(panels, rates, strict=True):
        axes.plot(rates[name], measured[name], **look("SGD"), label="measured")
        axes.plot(rates[name], bounds[name], **look("theory", marker=False), label="bound")
        axes.set(title=name, xlabel="effective rate × L", xscale="log", yscale="log")
        ends = rates[name][[0, -1]]
        axes.set_xticks(ends, [f"{rate:.2g}" for rate in ends])
        axes.set_xticks([], minor=True)
    panels[0].set_ylabel("mean squared gradient")
    panels[-1].legend()
    return finish(figure)


def bound_by_batch_size(batch_sizes, bounds, critical):
    """Draw a bound against the batch size and where its two terms are equal.

    Parameters
    ----------
    batch_sizes : ndarray, shape (k,)
    bounds : dict of float to ndarray of shape (k,)
        For each momentum.
    critical : dict of float to tuple of float
        Batch size and bound where the two terms are equal.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, axes = plt.subplots()
    for (momentum, values), line in zip(bounds.items(), FAMILY[1:], strict=True):
        axes.plot(batch_sizes, values, **line, label=f"momentum {momentum:g}")
        axes.plot(*critical[momentum], marker="o", linestyle="", color=line["color"])
    axes.set(xlabel="batch size", ylabel="bound on the mean squared gradient", yscale="log")
    axes.set_xscale("log", base=2)
    axes.legend(title="dots: both terms are equal", alignment="left")
    return finish(figure)
