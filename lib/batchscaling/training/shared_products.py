"""Compiled products of all rows with the same examples, as one large product.

To import torch's compiler takes a second, so this file is imported when something is compiled.
"""

import torch
from torch import library
from torch._inductor.custom_graph_pass import CustomGraphPass, get_hash_for_files
from torch._inductor.ir import TensorBox
from torch._inductor.lowering import register_lowering
from torch._inductor.mkldnn_ir import LinearUnary

aten = torch.ops.aten


@library.custom_op("batchscaling::large_product", mutates_args=())
def _large_product(rows: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    return rows @ others.mT


@_large_product.register_fake
def _(rows, others):
    return rows.new_empty(rows.shape[0], others.shape[0])  # `len` would fix a size that varies


@register_lowering(torch.ops.batchscaling.large_product.default, type_promotion_kind=None)
def _by_onednn(rows, others):
    return TensorBox.create(LinearUnary.create(rows, others, None, "none", [], ""))


class SharedProducts(CustomGraphPass):
    """A pass over the graph of a program that is being compiled.

    Rows of one seed share their batch. The products of all rows' weights with it, and of their
    slopes, are those of one large matrix, for which oneDNN takes half the time of the many small
    ones on a processor of AMD.
    """

    def __call__(self, graph):
        """Put one large product in the place of each product of rows with what they share."""
        turned = set()
        for node in graph.nodes:
            with graph.inserting_before(node):
                if node.target == aten.bmm.default:
                    new = _shared_product(graph, *node.args)
                elif turned.intersection(node.all_input_nodes) and _is_pointwise(node):
                    new = _turned(graph, _of_turned(graph, node))
                else:
                    new = None
            if new is not None:
                turned |= {new} if new.target == aten.permute.default else set()
                node.replace_all_uses_with(new)
                graph.erase_node(node)

    def uuid(self):
        """Return what tells this pass from others, for the compiler's cache."""
        return get_hash_for_files((__file__,))


def _shared_product(graph, one, two):
    """Return the large product in the place of products of rows, None if there is none."""
    if _is_shared(two) and _is_plain(one):
        return _large(graph, one, two)
    if _is_shared(one) and _is_plain(two):
        return _turned(graph, _large(graph, _turned(graph, two), _turned(graph, one)))
    return None


def _is_plain(node):
    """Return whether it is a tensor on a CPU whose matrices have sizes that never change."""
    tensor = node.meta["val"]
    sizes = all(isinstance(size, int) for size in tensor.shape[1:])
    return sizes and tensor.dtype == torch.float32 and tensor.device.type == "cpu"


def _is_shared(node):
    """Return whether it is one matrix for all rows."""
    stride = node.meta["val"].stride(0)
    return isinstance(stride, int) and stride == 0 and _is_plain(node)


def _large(graph, rows, shared):
    """Return the products of rows of matrices with the one that they share."""
    height, depth = rows.meta["val"].shape[1:]
    flat = _call(graph, aten.reshape.default, rows, [-1, depth])
    turned = _call(graph, aten.permute.default, _call(graph, aten.select.int, shared, 0, 0), [1, 0])
    found = _call(graph, torch.ops.batchscaling.large_product.default, flat, turned)
    return _call(graph, aten.reshape.default, found, [-1, height, shared.meta["val"].shape[-1]])


def _is_pointwise(node):
    """Return whether it is a function, number by number, of matrices of rows."""
    tags = getattr(node.target, "tags", ())
    sizes = [getattr(n.meta.get("val"), "ndim", None) for n in (node, *node.all_input_nodes)]
    return torch.Tag.pointwise in tags and set(sizes) <= {0, 3} and not node.kwargs


def _of_turned(graph, node):
    """Return a function of turned matrices, so that what lies between products has one layout."""

    def turn(arg):
        matrices = isinstance(arg, torch.fx.Node) and arg.meta["val"].ndim == 3
        return _turned(graph, arg) if matrices else arg

    return _call(graph, node.target, *map(turn, node.args))


def _turned(graph, node):
    return _call(graph, aten.permute.default, node, [0, 2, 1])


def _call(graph, function, *args):
    """Return the node of a call, which knows the size and layout of its outcome."""
    node = graph.call_function(function, args)
    known = [arg.meta["val"] if isinstance(arg, torch.fx.Node) else arg for arg in args]
    node.meta["val"] = function(*known)
    return node
