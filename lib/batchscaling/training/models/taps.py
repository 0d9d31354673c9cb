"""What goes through the layers of a network: second moments of their inputs and slopes.

A layer's *slope* is the derivative of an example's loss by what the layer puts out, before any
non-linearity. The functions of `layers` call `Tapped.tap`, so no network knows of this module.
"""

from collections import defaultdict
from typing import NamedTuple

import torch
from torch.func import vmap

from batchscaling import _validation as check
from batchscaling.training._torch_state import undisturbed

SHARING = ("expand", "reduce")
TOLERANCE = 1e-2  # of a gradient's norm; where a use is missed, the error is about that norm
ROUNDING = 1e-4  # of the largest gradient's norm; some gradients are zero, but for rounding


class Kronecker(NamedTuple):
    """Moments of a linear map: the two factors of its block of the Fisher matrix.

    Attributes
    ----------
    inputs, outputs : torch.Tensor, shape (..., d, d) or (..., d)
        Of both sides of the layer's matrix of weights, as `as_matrix` returns it: of its rows, and
        of its columns. So they are swapped for a `torch.nn.Linear`, and for a transposed embedding,
        which have a row for each number that comes out. A vector is the diagonal of a factor: that
        of a vocabulary.
    """

    inputs: torch.Tensor
    outputs: torch.Tensor


class Diagonal(NamedTuple):
    """Moments of a parameter that is no matrix, such as the scales of a normalised layer.

    Attributes
    ----------
    squares : torch.Tensor
        Squares of its gradients of single examples, added up; of the parameter's shape.
    """

    squares: torch.Tensor


class Tapped(dict):
    """Parameters of a network that record what goes through its layers.

    ``model.apply(Tapped(params), inputs)`` is ``model.apply(params, inputs)``.

    Parameters
    ----------
    params : dict of torch.Tensor
    probes : sequence of torch.Tensor
        Zeros, one for each use of a layer in the order of the uses, of the shape of its outputs.
        They are added to the outputs, so the loss's derivative by a probe is the slope there.

    Attributes
    ----------
    uses : list of Use
        How the layers were used.
    inputs : list of torch.Tensor
        What went into each use.
    shapes : list of torch.Size
        Of what came out.
    """

    def __init__(self, params, probes=()):
        super().__init__(params)
        self.uses, self.inputs, self.shapes = [], [], []
        self._probes = iter(probes)

    def tap(self, use, inputs, outputs):
        """Record one use of a layer, and return its outputs plus the probe, if there is one."""
        self.uses.append(use)
        self.inputs.append(inputs)
        self.shapes.append(outputs.shape)
        probe = next(self._probes, None)
        return outputs if probe is None else outputs + probe


class Use:
    """One use of the layer called `name`.

    Tensors have the axes (rows, examples, ...). Methods return a dict whose keys say to which of
    the layer's moments, or to which parameter's gradient, a tensor belongs.

    Methods
    -------
    positions(inputs)
        How often an example uses the layer.
    seen(inputs, sharing), felt(inputs, slopes, sharing)
        Moments of the inputs, and of the slopes.
    gradient(params, inputs, slopes)
        What both say that the gradient by the parameters is.
    """

    def __init__(self, name, params):
        self.name, self.bias = name, f"{name}.bias" in params

    def positions(self, inputs):
        return _by_position(inputs).shape[2]


class DenseUse(Use):
    """Vectors go in, vectors come out."""

    def rows(self, inputs):
        return _by_position(inputs)

    def slope_rows(self, slopes):
        return _by_position(slopes)

    def positions(self, inputs):
        return self.rows(inputs).shape[2]

    def seen(self, inputs, sharing):
        rows = self.rows(inputs)
        rows = rows.mean(2, keepdim=True) if sharing == "reduce" else rows
        return {"inputs": _moment(_with(1, rows) if self.bias else rows)}

    def felt(self, inputs, slopes, sharing):
        rows = self.slope_rows(slopes)
        return {"outputs": _moment(rows.sum(2, keepdim=True) if sharing == "reduce" else rows)}

    def gradient(self, params, inputs, slopes):
        rows = self.slope_rows(slopes).flatten(1, 2)
        weight = self.rows(inputs).flatten(1, 2).mT @ rows
        return {f"{self.name}.weight": weight} | self.bias_gradient(rows)

    def bias_gradient(self, rows):
        return {f"{self.name}.bias": rows.sum(1)} if self.bias else {}


class TransposedUse(DenseUse):
    """The same with the matrix transposed, as torch keeps it: both sides are swapped."""

    def seen(self, inputs, sharing):
        return {"outputs": super().seen(inputs, sharing)["inputs"]}

    def felt(self, inputs, slopes, sharing):
        return {"inputs": super().felt(inputs, slopes, sharing)["outputs"]}

    def gradient(self, params, inputs, slopes):
        weight = f"{self.name}.weight"
        grads = super().gradient(params, inputs, slopes)
        return {**grads, weight: grads[weight].mT}


class ConvolutionUse(DenseUse):
    """Patches of images go in, and each position is one vector that comes out.

    Parameters
    ----------
    name : str
    params : dict of torch.Tensor
    size : int or tuple of int
        Of a patch.
    settings : dict
        Further arguments of `torch.nn.functional.unfold`.
    transform : callable, optional
        Of the weights, before they are used.
    """

    def __init__(self, name, params, size, settings, transform=None):
        super().__init__(name, params)
        self.shape = params[f"{name}.weight"].shape
        self.size, self.settings, self.transform = size, settings, transform

    def rows(self, images):
        patches = torch.nn.functional.unfold(images.flatten(0, 1), self.size, **self.settings)
        return patches.mT.unflatten(0, images.shape[:2])

    def slope_rows(self, slopes):
        return slopes.flatten(3).mT

    def gradient(self, params, inputs, slopes):
        rows = self.slope_rows(slopes).flatten(1, 2)
        grads = (rows.mT @ self.rows(inputs).flatten(1, 2)).unflatten(2, self.shape[1:])
        if self.transform is not None:
            weights = params[f"{self.name}.weight"].detach().requires_grad_()
            (grads,) = torch.autograd.grad(vmap(self.transform)(weights), weights, grads)
        return {f"{self.name}.weight": grads} | self.bias_gradient(rows)


class EmbeddingUse(Use):
    """Words pick rows of the matrix: one-hot vectors go in.

    The word `padding`, if there is one, is left out: its row has no gradient.
    """

    def __init__(self, name, params, padding=None):
        super().__init__(name, params)
        weight = params[f"{name}.weight"]
        self.vocabulary, self.dtype, self.padding = len(weight), weight.dtype, padding

    def positions(self, inputs):
        return inputs.flatten(2).shape[2]

    def seen(self, inputs, sharing):
        return {"inputs": self.by_word(inputs, self.counted(inputs).to(self.dtype))}

    def felt(self, inputs, slopes, sharing):
        rows = _by_position(slopes * self.counted(inputs)[..., None])
        return {"outputs": _moment(_with(0, rows) if self.bias else rows)}

    def gradient(self, params, inputs, slopes):
        slopes = slopes * self.counted(inputs)[..., None]
        return {f"{self.name}.weight": self.by_word(inputs, slopes)}

    def counted(self, words):
        """Return which words are no padding."""
        return (
            torch.ones_like(words, dtype=torch.bool)
            if self.padding is None
            else words != self.padding
        )

    def by_word(self, words, numbers):
        """Return the sums of numbers over the places of each word."""
        tail = numbers.shape[words.ndim :]
        words, numbers = words.flatten(1), numbers.reshape(len(words), -1, *tail)
        sums = numbers.new_zeros(len(words), self.vocabulary, *tail)
        return vmap(lambda total, word, number: total.index_add(0, word, number))(
            sums, words, numbers
        )


class UnembeddingUse(Use):
    """The transposed matrix: the sides of inputs and slopes are swapped."""

    def seen(self, inputs, sharing):
        rows = _by_position(inputs)
        return {"outputs": _moment(_with(1, rows) if self.bias else rows)}

    def felt(self, inputs, slopes, sharing):
        return {"inputs": slopes.flatten(1, -2).square().sum(1)}

    def gradient(self, params, inputs, slopes):
        rows = slopes.flatten(1, -2)
        grads = {f"{self.name}.weight": rows.mT @ inputs.flatten(1, -2)}
        return grads | ({f"{self.name}.bias": rows.sum(1)} if self.bias else {})


class ScaleUse(Use):
    """Each channel is scaled and shifted; `axis` is that of the channels.

    `names` are those of the scales and the shifts, which need not be there.
    """

    def __init__(self, name, params, axis, names=("scale", "shift")):
        super().__init__(name, params)
        self.axis = axis
        self.names = [part for part in names if f"{name}.{part}" in params]
        self.scale = names[0]

    def seen(self, inputs, sharing):
        return {}

    def felt(self, inputs, slopes, sharing):
        each = self.each_gradient(inputs, slopes)
        return {name: grads.square().sum(1) for name, grads in each.items()}

    def gradient(self, params, inputs, slopes):
        each = self.each_gradient(inputs, slopes)
        return {f"{self.name}.{name}": grads.sum(1) for name, grads in each.items()}

    def each_gradient(self, inputs, slopes):
        """Return the gradients of each example."""
        both = {name: inputs * slopes if name == self.scale else slopes for name in self.names}
        return {name: _by_position(t.movedim(self.axis, -1)).sum(2) for name, t in both.items()}


@undisturbed
def layer_moments(model, params, inputs, slopes, *, sharing="expand", verify=False):
    r"""Return second moments of inputs and slopes of every layer, added up over examples.

    With rows :math:`a_{nt}` that go into a layer at position t of example n, and slopes
    :math:`g_{nt}`, they are [1]_ [2]_

    .. math:: \sum_n \sum_t a_{nt} a_{nt}^\top, \qquad
              \frac1T \sum_n \sum_t g_{nt} g_{nt}^\top .

    A layer with a bias has a further 1 at the end of each :math:`a_{nt}`. Positions are those of a
    convolution or a sequence, and the several uses of one layer. Moments of parts of a batch add
    up to those of the batch.

    A matrix that is an embedding and, transposed, the last layer has both uses pooled, as if they
    were more positions; its vocabulary's side is diagonal [3]_. Of weights that are scaled to norm
    1, the moments are those of the scaled ones. With ghost batch normalisation, the slope of an
    example is that of the ghost batch's whole loss.

    Parameters
    ----------
    model : Model
        Its linear maps are functions of `batchscaling.training.models.layers`, or layers of a
        module that is a `Model` by `from_module`.
    params : dict of torch.Tensor, each of shape (rows, ...)
    inputs : torch.Tensor, shape (rows, examples, ...)
    slopes : callable
        Maps the outputs, of shape (rows, examples, ..., classes), to an iterable of tensors of that
        shape: derivatives of the sum of all losses by the outputs. The moments of the slopes are
        added up over them.
    sharing : {"expand", "reduce"}
        "reduce" takes one vector an example, the mean of :math:`a_{nt}` over t and the sum of
        :math:`g_{nt}` [2]_. Layers of a vocabulary are expanded always.
    verify : bool
        Whether to see that what the layers recorded gives the gradient of every parameter.

    Returns
    -------
    dict
        A `Kronecker` for each layer, by its name, and a `Diagonal` for each other parameter, by
        the parameter's name. Their tensors have the axis of rows first.

    Raises
    ------
    ValueError
        If `sharing` is unknown or meets a layer that an example uses more than once; with
        `verify`, if a parameter's gradient is another one. It names the layer or the parameter.

    References
    ----------
    .. [1] Grosse and Martens (2016), A Kronecker-factored approximate Fisher matrix for
       convolution layers, theorem 1.
    .. [2] Eschenhagen et al. (2023), Kronecker-factored approximate curvature for modern neural
       network architectures, section 3.
    .. [3] Zhang et al. (2019), Which algorithmic choices matter at which batch sizes?,
       appendix A.
    """
    check.one_of("sharing", sharing, SHARING)
    leaves = {name: p.detach().requires_grad_() for name, p in params.items()}
    uses, probes, seen, outputs = _run(model, leaves, inputs)
    if sharing == "reduce":
        _check_single(uses)
    options = {"retain_graph": True, "allow_unused": True, "materialize_grads": True}

    def felt():
        places = [*probes, *leaves.values()] if verify else probes
        for slope in slopes(outputs.detach()):
            grads = torch.autograd.grad(outputs, places, slope, **options)
            at_uses, of_leaves = grads[: len(probes)], grads[len(probes) :]
            if of_leaves:
                check_gradients(uses, leaves, seen, at_uses, of_leaves)
                places = probes
            yield at_uses

    return moments_of(uses, seen, felt(), sharing)


def moments_of(uses, seen, felt, sharing="expand"):
    """Return the moments of layers, of what went into each use and the slopes there.

    Parameters
    ----------
    uses : list of Use
    seen : list of torch.Tensor, each of shape (rows, examples, ...)
        What went into each use.
    felt : iterable of sequence of torch.Tensor
        Slopes of all uses; the moments are added up over them.
    sharing : {"expand", "reduce"}

    Returns
    -------
    dict
        As `layer_moments` does.
    """
    parts = defaultdict(lambda: defaultdict(float))
    for use, given in zip(uses, seen, strict=True):
        _add(parts[use.name], use.seen(given, sharing))
    for slopes in felt:
        for use, given, slope in zip(uses, seen, slopes, strict=True):
            _add(parts[use.name], use.felt(given, slope, sharing))
    return _moments(parts, _positions(uses, seen) if sharing == "expand" else {})


def check_gradients(uses, params, seen, slopes, grads):
    """Check that slopes and inputs give the gradients of all parameters.

    Parameters
    ----------
    uses : list of Use
    params : dict of torch.Tensor, each of shape (rows, ...)
    seen, slopes : list of torch.Tensor, each of shape (rows, examples, ...)
        Of each use.
    grads : sequence of torch.Tensor
        Of each parameter.

    Raises
    ------
    ValueError
        If one has another gradient, or belongs to no layer. It names the parameter.
    """
    found = defaultdict(float)
    for use, given, slope in zip(uses, seen, slopes, strict=True):
        _add(found, use.gradient(params, given, slope))
    allowed = (
        "a model that uses each of its parameters through a function of `layers`, or a named layer "
        "of torch.nn that records, and not otherwise"
    )
    slack = ROUNDING * max(grad.norm() for grad in grads)
    for name, grad in zip(params, grads, strict=True):
        if name not in found:
            check.reject("model", f'one whose parameter "{name}" belongs to no layer', allowed)
        if not (found[name] - grad).norm() <= TOLERANCE * grad.norm() + slack:
            check.reject("model", f'one that uses "{name}" outside of its layer, too', allowed)


def as_matrix(factors, weight, bias=None):
    """Return a layer's weights, or gradients of them, as the matrix that `Kronecker` factors.

    Parameters
    ----------
    factors : Kronecker
        Of the layer, for one trial.
    weight : torch.Tensor
        Of shape (inputs, outputs), (filters, channels, height, width) or (vocabulary, width); of a
        `torch.nn.Linear` (outputs, inputs).
    bias : torch.Tensor, optional

    Returns
    -------
    torch.Tensor
        One row for each number that goes in, one column for each that comes out, and the bias as a
        last row. Of a vocabulary, and of a `torch.nn.Linear`, it is the other way round: the bias
        is a last column.
    """
    matrix = _matrix(weight)
    if bias is None:
        return matrix
    is_column = _has_bias_as_column(factors, matrix.shape[1])
    return torch.cat([matrix, bias[:, None]], 1) if is_column else _below(matrix, bias)


def from_matrix(factors, matrix, weight, bias=None):
    """Return the weights and the bias of a matrix as `as_matrix` returns it.

    Parameters
    ----------
    factors : Kronecker
        Of the layer, for one trial.
    matrix : torch.Tensor
    weight, bias : torch.Tensor
        Of the layer; only their shapes count.

    Returns
    -------
    weight : torch.Tensor
    bias : torch.Tensor or None
    """
    found = None
    if bias is not None:
        is_column = _has_bias_as_column(factors, _matrix(weight).shape[1])
        found = matrix[:, -1] if is_column else matrix[-1]
        matrix = matrix[:, :-1] if is_column else matrix[:-1]
    return (matrix.mT if weight.ndim == 4 else matrix).reshape(weight.shape), found


def _matrix(weight):
    return weight.flatten(1).mT if weight.ndim == 4 else weight


def _has_bias_as_column(factors, columns):
    """Return which side a bias is on: that factor has one number more than the weights."""
    return factors.outputs.shape[-1] > columns


def _below(matrix, bias):
    return torch.cat([matrix, bias[None]])


def _run(model, leaves, inputs):
    """Return uses, probes, what went into each use, and the outputs of all rows."""
    traced = Tapped({name: p[0].to("meta") for name, p in leaves.items()})
    model.apply(traced, inputs[0].to("meta"))
    like, rows = next(iter(leaves.values())), len(inputs)
    probes = [like.new_zeros(rows, *shape).requires_grad_() for shape in traced.shapes]

    def single(params, probes, inputs):
        tapped = Tapped(params, probes)
        return model.apply(tapped, inputs), tapped.inputs

    outputs, seen = vmap(single)(leaves, probes, inputs)
    return traced.uses, probes, [given.detach() for given in seen], outputs


def _add(total, parts):
    for key, part in parts.items():
        total[key] = total[key] + part


def _positions(uses, seen):
    """Return how often an example uses each layer."""
    counts = defaultdict(int)
    for use, given in zip(uses, seen, strict=True):
        counts[use.name] += use.positions(given)
    return counts


def _moments(parts, positions):
    moments = {}
    for name, found in parts.items():
        if "outputs" in found:
            outputs = found.pop("outputs") / positions.get(name, 1)
            moments[name] = Kronecker(found.pop("inputs"), outputs)
        moments |= {f"{name}.{end}": Diagonal(squares) for end, squares in found.items()}
    return moments


def _check_single(uses):
    names = [use.name for use in uses if not isinstance(use, EmbeddingUse | UnembeddingUse)]
    for name in names:
        if names.count(name) > 1:
            allowed = f'"expand" for a model that uses its layer "{name}" more than once'
            check.reject("sharing", "reduce", allowed)


def _by_position(tensor):
    """Return the tensor with the axes (rows, examples, positions, numbers)."""
    return tensor[:, :, None] if tensor.ndim == 3 else tensor.flatten(2, -2)


def _with(number, rows):
    """Return the vectors with one more number each."""
    return torch.nn.functional.pad(rows, (0, 1), value=number)


def _moment(rows):
    rows = rows.flatten(1, 2)
    return rows.mT @ rows
