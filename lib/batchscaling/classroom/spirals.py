"""Two spirals, and a small network that separates them.

The weights are one vector of 33 numbers, for 8 hidden units. Functions of weights and examples take
more axes in front, such as one for workers, if these broadcast.
"""

import numpy as np


def points(examples=200, seed=0):
    """Return points on two spirals and their labels.

    Parameters
    ----------
    examples, seed : int

    Returns
    -------
    x : numpy.ndarray, shape (examples, 2)
    y : numpy.ndarray, shape (examples,)
        -1 or 1.
    """
    rng = np.random.default_rng(seed)
    angle = 2 * np.pi * np.sqrt(rng.uniform(0.05, 1, examples))
    label = rng.choice([-1.0, 1.0], examples)
    x = np.stack([np.cos(angle), np.sin(angle)], axis=1) * (label * angle)[:, None] / 2
    return x + 0.05 * rng.standard_normal(x.shape), label


def start(seed=1):
    """Return weights to begin with, of shape (33,)."""
    return np.random.default_rng(seed).standard_normal(33)


def forward(weights, x):
    """Return hidden activations, of shape (..., n, 8), and outputs, of shape (..., n)."""
    first = weights[..., :16].reshape(*weights.shape[:-1], 2, 8)
    hidden = np.tanh(x @ first + weights[..., None, 16:24])
    return hidden, np.sum(hidden * weights[..., None, 24:32], axis=-1) + weights[..., 32:]


def loss(weights, x, y):
    """Return the mean logistic loss.

    Parameters
    ----------
    weights : numpy.ndarray, shape (..., 33)
    x : numpy.ndarray, shape (..., n, 2)
    y : numpy.ndarray, shape (..., n)

    Returns
    -------
    numpy.ndarray, shape (...)
    """
    return np.mean(np.logaddexp(0, -y * forward(weights, x)[1]), axis=-1)


def gradient(weights, x, y):
    """Return the gradient of `loss`, of shape (..., 33); arguments are as there."""
    hidden, output = forward(weights, x)
    slope = (-y / (1 + np.exp(y * output)) / y.shape[-1])[..., None]
    inner = slope * weights[..., None, 24:32] * (1 - hidden**2)
    first = np.swapaxes(x, -1, -2) @ inner
    sums = [part.sum(axis=-2) for part in (inner, slope * hidden, slope)]
    return np.concatenate([first.reshape(*first.shape[:-2], 16), *sums], axis=-1)


def step(workers, batch, seed=8):
    """Return what a step of extrap-SGD could begin with, drawn at random.

    Parameters
    ----------
    workers, batch, seed : int

    Returns
    -------
    weights, velocity : numpy.ndarray, shape (33,)
    past : numpy.ndarray, shape (workers, 33)
    xs : numpy.ndarray, shape (workers, batch, 2)
    ys : numpy.ndarray, shape (workers, batch)
    """
    rng = np.random.default_rng(seed)
    weights, velocity = rng.standard_normal((2, 33))
    past = rng.standard_normal((workers, 33))
    xs = rng.standard_normal((workers, batch, 2))
    return weights, velocity, past, xs, rng.choice([-1.0, 1.0], (workers, batch))
