"""Gradient noise of real networks: during training, and at given parameters.

What is measured here goes to the estimators of `batchscaling.noise`.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch.func import grad, vjp, vmap

from batchscaling._validation import integer, reject
from batchscaling.noise import two_batch_estimates
from batchscaling.training._process import kept_memory
from batchscaling.training._torch_state import undisturbed
from batchscaling.training.fit import check_examples, check_fit
from batchscaling.training.loop import (
    AT_ONCE,
    _check_device,
    _check_hyper,
    _cross_entropy,
    _draw,
    _in_company,
    _one_thread,
    _Program,
    _Stream,
    _take,
    evaluation_steps,
)
from batchscaling.training.schedules import constant


@dataclass(frozen=True)
class NoiseHistory:
    """What `measure_noise` recorded.

    Attributes
    ----------
    small, large : int
        The two batch sizes of a step: that of its parts, and the whole.
    small_norm, large_norm : numpy.ndarray, shape (trials, max_steps)
        Squared norms of the gradients in each step, before it was taken: the mean over the parts,
        and that of the whole batch.
    steps : numpy.ndarray of int, shape (evaluations,)
        Steps at which the trials were evaluated; the first is 0.
    loss, accuracy : numpy.ndarray, shape (trials, evaluations)
        On the validation set.
    observed : list
        What the caller's function returned, one entry an evaluation; empty without one.
    """

    small: int
    large: int
    small_norm: np.ndarray
    large_norm: np.ndarray
    steps: np.ndarray
    loss: np.ndarray
    accuracy: np.ndarray
    observed: list

    def estimates(self):
        """Return unbiased estimates of trace and signal, each of shape (trials, max_steps).

        They go to `RunningNoise` step by step, or to `ratio_estimate` over a range of steps.
        """
        return two_batch_estimates(self.small_norm, self.large_norm, self.small, self.large)


@undisturbed
@kept_memory()
def measure_noise(
    data,
    model,
    optimizer,
    trials,
    *,
    batch_size,
    max_steps,
    parts=2,
    schedule=constant,
    spacing=0.05,
    observe=None,
    device="cpu",
    at_once=AT_ONCE,
):
    """Train all `trials` to the end and record the norms of their gradients at two batch sizes.

    The steps are those of `train`, up to rounding. Each batch is cut into parts; their gradients
    have the small batch size, and their mean, which the optimizer takes, has the large one. So the
    measurement costs no further gradients.

    Parameters
    ----------
    data : Data
        Every position of the labels should count, so that parts weigh alike. The gradient of a
        part in which none counts is zero.
    model, optimizer, trials, max_steps, schedule, spacing, device, at_once
        As for `train`.
    batch_size : int
        At least 2.
    parts : int
        At least 2; it divides `batch_size`, and ghost batches must not be torn.
    observe : callable, optional
        ``observe(step, params)`` is called at each evaluation with the parameters of all trials, a
        dict of tensors whose first axis is the trial. What it returns is kept.

    Returns
    -------
    NoiseHistory

    Raises
    ------
    ValueError
        If an argument is outside its range, or the parts of the data do not fit each other or the
        model.
    """
    steps = evaluation_steps(max_steps, spacing=spacing)
    batch_size = integer("batch_size", batch_size, 2, len(data.train_inputs))
    parts = integer("parts", parts, 2, batch_size)
    if batch_size % (parts * model.ghost_size):
        allowed = f"a divisor of batch_size, {batch_size}, that tears no ghost batch"
        reject("parts", parts, allowed)
    device = _check_device(device)
    at_once = integer("at_once", at_once, 3 * model.ghost_size)
    hyper = _check_hyper(optimizer, schedule, trials, device)
    check_fit(data, model)

    program = _InParts(data.to(device), model, optimizer, 0.0, at_once, False)
    program.count, program.norms = parts, []
    count = len(trials.seeds)
    rows = _in_company(np.arange(count))
    program.start(trials.seeds[rows], _take(hyper, rows))
    streams = {seed: _Stream(seed, data, batch_size) for seed in trials.seeds.tolist()}
    norms = np.empty((2, count, max_steps))
    loss, accuracy = np.empty((2, count, len(steps)))
    observed, now = [], 0
    with _one_thread():
        for column, end in enumerate(steps.tolist()):
            for step in range(now, end):
                program.advance(_draw(streams, trials.seeds[rows], 1), step, schedule)
                norms[:, :, step] = torch.cat(program.norms, dim=1)[:, :count].cpu()
                program.norms.clear()
            now = end
            scores = program.evaluate("validation", np.arange(count))
            loss[:, column], _, accuracy[:, column] = scores
            if observe is not None:
                params = {name: p[:count].clone() for name, p in program.rows[0].items()}
                observed.append(observe(end, params))
    return NoiseHistory(
        batch_size // parts, batch_size, norms[0], norms[1], steps, loss, accuracy, observed
    )


class _InParts(_Program):
    """A program whose batches are cut into `count` parts, and which records in `norms`."""

    def _gradients(self, params, index, changes=None):
        cut = [index.chunk(self.count, dim=1)]
        if changes is not None:
            cut.append(changes.chunk(self.count, dim=1))
        each = [super(_InParts, self)._gradients(params, *part) for part in zip(*cut, strict=True)]
        mean = {name: sum(g[name] for g in each) / self.count for name in params}
        small = sum(_square(grads) for grads in each) / self.count
        self.norms.append(torch.stack([small, _square(mean)]))
        return mean


def _square(grads):
    """Return each row's squared norm over all tensors, in double precision."""
    return sum(g.double().square().flatten(1).sum(1) for g in grads.values())


@undisturbed
def per_example_gradients(model, params, inputs, labels):
    """Return the gradient of each example's cross-entropy.

    Parameters
    ----------
    model : Model
        Without ghost batch normalisation, which has no gradient of a single example.
    params : dict of torch.Tensor
        Of one trial. Parameters in float64 give everything in float64.
    inputs, labels : torch.Tensor, shape (n, ...)
        An example with several labels has their mean, over those that count; zero where none does.

    Returns
    -------
    torch.Tensor, shape (n, P)
        Parameters in the order of `params`, each flattened.

    Raises
    ------
    ValueError
        If the model has ghost batch normalisation, or inputs and labels do not fit each other or
        the model.
    """
    return _each_gradient(model, *_checked(model, params, inputs, labels, single=True))


def _each_gradient(model, params, inputs, labels):
    """Return the gradient of each example's loss, all arguments checked."""

    def loss(params, example, label):
        return _mean_loss(model, params, example[None], label[None])

    grads = vmap(grad(loss), in_dims=(None, 0, 0))(params, inputs, labels)
    return torch.cat([g.flatten(1) for g in grads.values()], dim=1)


@undisturbed
def hessian_product(model, params, inputs, labels):
    """Return the function that multiplies vectors by the Hessian of the mean cross-entropy.

    Parameters
    ----------
    model, params, inputs, labels
        As for `per_example_gradients`, with any model; all examples go through at once. The mean
        is over all labels that count, and zero where none does. Lanczos' method should have
        parameters in float64.

    Returns
    -------
    product : callable
        Maps a NumPy array of shape (P,) to its product with the Hessian, of that shape, or rows of
        shape (k, P) to theirs. It fits `lanczos_spectrum` and, on rows, `gradient_noise`.
    dim : int
        P, the number of parameters.

    Raises
    ------
    ValueError
        If inputs and labels do not fit each other or the model.
    """
    params, inputs, labels = _checked(model, params, inputs, labels)
    like = next(iter(params.values()))
    sizes = [p.numel() for p in params.values()]
    # The Hessian is symmetric: the transposed derivative of the gradient is its product.
    _, pull = vjp(grad(lambda params: _mean_loss(model, params, inputs, labels)), params)

    def single(vector):
        pieces = zip(params.items(), vector.split(sizes), strict=True)
        (product,) = pull({name: piece.view_as(p) for (name, p), piece in pieces})
        return torch.cat([product[name].flatten() for name in params])

    @undisturbed
    def product(vectors):
        rows = np.atleast_2d(np.asarray(vectors, dtype=np.float64))
        if rows.ndim != 2 or rows.shape[1] != sum(sizes):
            reject("vectors", f"an array of shape {np.shape(vectors)}", f"(k, {sum(sizes)})")
        products = [single(torch.as_tensor(row).to(like)) for row in rows]
        result = torch.stack(products).double().cpu().numpy()
        return result.reshape(np.shape(vectors))

    return product, sum(sizes)


@undisturbed
@kept_memory()
def gradient_products(model, params, inputs, labels, *, hessian=None, chunk=256):
    r"""Return the products of per-example gradients that `per_example_estimate` takes.

    Gradients are made in chunks, twice, and never kept all.

    Parameters
    ----------
    model, params, inputs, labels
        As for `per_example_gradients`; n at least 1.
    hessian : callable, optional
        Such as that of `hessian_product`: maps rows of shape (k, P) to their products with the
        Hessian. It is called for every gradient.
    chunk : int
        Examples at once, at least 1.

    Returns
    -------
    norms, dots : numpy.ndarray, shape (n,)
        :math:`g_i^\top A g_i` and :math:`g_i^\top A \bar g`, where A is the Hessian, or the
        identity without one.

    Raises
    ------
    ValueError
        As `per_example_gradients`, or if `chunk` is outside its range.
    """
    chunk = integer("chunk", chunk, 1)
    params, inputs, labels = _checked(model, params, inputs, labels, single=True)

    def chunks():
        for some in zip(inputs.split(chunk), labels.split(chunk), strict=True):
            yield _each_gradient(model, params, *some).double().cpu().numpy()

    mean = sum(gradients.sum(axis=0) for gradients in chunks()) / len(inputs)
    curved_mean = mean if hessian is None else hessian(mean)
    norms, dots = [], []
    for gradients in chunks():
        curved = gradients if hessian is None else hessian(gradients)
        norms.append(np.einsum("np,np->n", gradients, curved))
        dots.append(gradients @ curved_mean)
    return np.concatenate(norms), np.concatenate(dots)


def _mean_loss(model, params, inputs, labels):
    loss, _ = _cross_entropy(model.apply(params, inputs), labels)
    return loss.sum() / (labels >= 0).sum().clamp(min=1)


def _checked(model, params, inputs, labels, *, single=False):
    """Return parameters, inputs and labels to compute with, real inputs as precise as parameters.

    With `single`, gradients are of single examples.
    """
    if single and model.statistics is not None:
        reject("model", "one with ghost batch normalisation", "one without")
    params = {name: p.detach() for name, p in params.items()}
    dtype = next(iter(params.values())).dtype
    if isinstance(inputs, torch.Tensor) and inputs.is_floating_point():
        inputs = inputs.to(dtype)
    check_examples(model, params, inputs, labels)
    return params, inputs, labels
