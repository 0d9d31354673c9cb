"""Common mistakes on the noisy quadratic model: what a test says to them, and what they give.

A test hands them to `expect` as ``mistakes``. A key is a message, its value what the mistake gives.
"""

ONE_EXAMPLE = "one example's variance was used; a batch averages over B examples"
NO_HALF = "this is hθ²: where is the half?"
NOT_LOSS = "this is θ², not the loss ½hθ²"
SMALL_RATES = "this is the approximation for small rates"
LARGEST_RATE = "these are steps at the largest rate; each batch size has its own best one"
START = "off by one: the start is step 0"


def of_noise(lr, noise, batch_size):
    """Return what mistakes make of the variance ``lr**2 * noise / batch_size`` of a step.

    Parameters
    ----------
    lr, batch_size : float
    noise : numpy.ndarray
        Variance of one example's gradient.

    Returns
    -------
    dict of str to numpy.ndarray
    """
    return {
        ONE_EXAMPLE: lr**2 * noise,
        "a variance was used as a standard deviation": lr**2 * (noise / batch_size) ** 2,
        "the noise is divided by B, but its variance should be": lr**2 * noise / batch_size**2,
        "the rate enters the noise squared": lr * noise / batch_size,
        "the noise is not multiplied by the learning rate": noise / batch_size,
        "the noise has variance 1 / B: where is c?": lr**2 / batch_size + 0 * noise,
    }


def of_curve(curve, directions):
    """Return what mistakes make of a curve of risks.

    Parameters
    ----------
    curve : numpy.ndarray
        The risk after 0, 1, … steps, and after one step more than is asked for.
    directions : int
        Over how many directions it is summed.

    Returns
    -------
    dict of str to numpy.ndarray
        Each one shorter than `curve`.
    """
    return {
        NO_HALF: 2 * curve[:-1],
        "off by one: the first number is the risk after one step, not at the start": curve[1:],
        "the loss sums over directions; this is their mean": curve[:-1] / directions,
    }
