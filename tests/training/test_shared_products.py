"""Rows that share their batch: one large product in compiled programs, and the same numbers."""

import shutil
import sys
from collections import Counter

import numpy as np
import pytest
import torch
from torch._dynamo.utils import counters
from torch.func import vmap
from torch.fx.experimental.proxy_tensor import make_fx

from batchscaling.training import adam, digits, heavy_ball, mlp, synchronous
from batchscaling.training.device import compile_all
from batchscaling.training.loop import AT_ONCE
from batchscaling.training.program import Program
from batchscaling.training.rows import Pieces, in_columns, is_in_columns, join, take
from batchscaling.training.shared_products import SharedProducts

compiles = pytest.mark.skipif(
    not any(map(shutil.which, ("g++", "clang++", "c++"))), reason="no C++ compiler"
)
aten, large = torch.ops.aten, torch.ops.batchscaling.large_product.default
ROWS, EXAMPLES, INPUTS, OUTPUTS = 5, 7, 3, 4


def tensors(dtype=torch.float32):
    rng = torch.Generator().manual_seed(0)
    matrices = (INPUTS, OUTPUTS), (1, OUTPUTS), (EXAMPLES, OUTPUTS)
    sizes = (EXAMPLES, INPUTS), *((ROWS, *size) for size in matrices)
    return [torch.randn(size, generator=rng).to(dtype) for size in sizes]


def for_all(x):
    return x.expand(ROWS, *x.shape)


def forward(x, weight, bias, slope):
    return torch.bmm(for_all(x), weight)


def of_columns(x, weight, bias, slope):
    return torch.bmm(weight.mT, for_all(x).mT)


def backward(x, weight, bias, slope):
    return torch.bmm(for_all(x).mT, slope)


def layer(x, weight, bias, slope):
    hidden = torch.relu(torch.bmm(for_all(x), weight) + bias)
    back = torch.where(hidden <= 0, slope.new_zeros(()), slope)
    return hidden, torch.bmm(for_all(x).mT, back), back.sum(1)


def narrow_layer(x, weight, bias, slope):
    outputs = torch.bmm(weight.mT, for_all(x).mT).mT + bias
    return torch.tanh(outputs), outputs.softmax(-1)


def of_own_batches(x, weight, bias, slope):
    return torch.bmm(slope.mT, slope), torch.bmm(for_all(x).contiguous(), weight)


def calls(graph):
    return Counter(node.target for node in graph.nodes if node.op == "call_function")


@pytest.mark.parametrize(
    ("function", "shared"),
    [(forward, 1), (of_columns, 1), (backward, 1), (layer, 2), (narrow_layer, 1),
     (of_own_batches, 0)],
)  # fmt: skip
@pytest.mark.parametrize("mode", ["fake", "symbolic"])
def test_the_graph_computes_the_same(function, shared, mode):
    given = tensors()
    traced = make_fx(function, tracing_mode=mode)(*given)
    products = calls(traced.graph)[aten.bmm.default]
    SharedProducts()(traced.graph)
    traced.graph.lint()
    traced.recompile()
    if mode == "fake":
        assert calls(traced.graph)[large] == shared
        assert calls(traced.graph)[aten.bmm.default] == products - shared
    torch.testing.assert_close(traced(*given), function(*given))


def test_what_lies_between_two_products_stays_turned():
    traced = make_fx(layer, tracing_mode="fake")(*tensors())
    SharedProducts()(traced.graph)
    shapes = {n.target: n.meta["val"].shape for n in traced.graph.nodes if n.op == "call_function"}
    for function in (aten.relu.default, aten.le.Scalar, aten.where.self):
        assert shapes[function] == (ROWS, OUTPUTS, EXAMPLES)


def test_other_numbers_than_float32_are_left_alone():
    given = tensors(torch.float64)
    traced = make_fx(forward, tracing_mode="fake")(*given)
    SharedProducts()(traced.graph)
    assert not calls(traced.graph)[large]


def test_rows_keep_their_layout():
    rows = in_columns(torch.arange(24.0).view(4, 3, 2))
    assert is_in_columns(rows) and not is_in_columns(rows.contiguous())
    some, both = take({"w": rows}, torch.tensor([0, 3])), join([{"w": rows}, {"w": rows[:1]}])
    assert is_in_columns(some["w"]) and is_in_columns(both["w"])
    torch.testing.assert_close(some["w"], rows.contiguous()[[0, 3]])
    torch.testing.assert_close(both["w"], torch.cat([rows.contiguous(), rows[:1]]))


def programs(optimizer, seeds, batch_size, exchange=None, at_once=AT_ONCE, **hyper):
    for compiled in (False, True):
        program = Program(
            digits(), mlp([64, 40, 10]), optimizer, Pieces(at_once, 1),
            exchange=exchange, compiled=compiled,
        )  # fmt: skip
        rows = {name: torch.full((len(seeds),), number) for name, number in hyper.items()}
        rows["lr"] = torch.linspace(0.01, 0.1, len(seeds))
        program.start(np.array(seeds), rows, batch_size)
        yield program


@compiles
@pytest.mark.parametrize(
    ("seeds", "optimizer", "hyper", "options"),
    [
        ([0, 0, 0, 0], adam, {"beta1": 0.9, "beta2": 0.99, "epsilon": 1e-3}, {}),
        ([0, 0, 1, 1], heavy_ball, {"momentum": 0.9}, {}),
        ([3], heavy_ball, {"momentum": 0.9}, {}),
        ([0, 0, 0, 0], heavy_ball, {"momentum": 0.9}, {"exchange": synchronous(4)}),
        ([0, 0, 0, 0], heavy_ball, {"momentum": 0.9}, {"at_once": 48}),
    ],
)
def test_steps_are_those_of_a_program_that_is_not_compiled(seeds, optimizer, hyper, options):
    plain, compiled = programs(optimizer, seeds, 16, **options, **hyper)
    for step in range(6):
        for program in (plain, compiled):
            program.step(step)
            if step == 3 and len(seeds) > 2:
                program.keep(np.array([0, 2, 3]))
    assert is_in_columns(compiled.rows.params["layer0.weight"])
    assert not is_in_columns(plain.rows.params["layer0.weight"])
    for name, found in compiled.readout().items():
        torch.testing.assert_close(found, plain.readout()[name], rtol=1e-4, atol=1e-5)


@compiles
@pytest.mark.parametrize(("seeds", "shared"), [([0, 0], 2), ([0, 1], 0)])
def test_a_program_takes_large_products_where_rows_share_their_batch(seeds, shared, monkeypatch):
    found, of_pass = [], SharedProducts.__call__

    def look(self, graph):
        of_pass(self, graph)
        found.append(calls(graph)[large])

    monkeypatch.setattr(SharedProducts, "__call__", look)
    monkeypatch.setattr(SharedProducts, "uuid", lambda self: None)  # nothing from the cache
    _, compiled = programs(heavy_ball, seeds, 16, momentum=0.5)
    compiled.step(0)
    assert found == [shared]


@compiles
def test_a_program_is_compiled_for_its_first_number_of_rows_and_then_for_every_one():
    compiled = list(programs(heavy_ball, 12 * [0], 16, momentum=0.5))[1]
    before = counters["stats"]["unique_graphs"]
    for step, count in enumerate((12, 11, 9, 8, 7)):
        compiled.keep(np.arange(count))
        compiled.step(step)
    assert counters["stats"]["unique_graphs"] - before == 2


@compiles
def test_a_torch_with_other_inner_parts_compiles_without_them(monkeypatch):
    monkeypatch.setitem(sys.modules, "batchscaling.training.shared_products", None)
    x, weight, *_ = tensors()
    (compiled,) = compile_all(lambda w: vmap(lambda w: x @ w)(w), device=torch.device("cpu"))
    torch.testing.assert_close(compiled(weight), x @ weight)
