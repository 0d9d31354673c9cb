"""Losses, data, optimizers and modes as users have them: the right answer, or a named error."""

import copy
import random
import sys
from functools import partial

import numpy as np
import pytest
import torch
from test_branch import awkward, equal, everything
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import (
    ConcatDataset,
    DataLoader,
    Dataset,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

from batchscaling.__main__ import main
from batchscaling.practice import (
    BranchedCheck,
    NoiseMeter,
    NoiseReading,
    Throughput,
    advise,
    race,
)
from batchscaling.practice.advice import combined
from batchscaling.practice.branch import branch, scale_moments
from batchscaling.practice.kept import copied
from batchscaling.practice.memory import is_out_of_memory
from batchscaling.practice.states import state_of

QUICK = {"repeats": 3, "steps": 1, "factors": (2, 4), "evaluated": 64}
LAYERS = ("throughput", "noise", "branches")


def plain(count=400, kind=torch.optim.SGD, **options):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3))
    inputs = torch.randn(count, 5)
    optimizer = kind(model.parameters(), **{"lr": 0.05, **options})
    return model, (inputs, inputs[:, :3].argmax(1)), optimizer


def advised(model, loss, data, optimizer, **options):
    options = {"batch_size": 8, "branches": QUICK, "probed": 64, **options}
    return advise(model, loss, data, optimizer, **options)


class Tempered(nn.Module):
    """A loss with a parameter and a buffer of its own."""

    def __init__(self):
        super().__init__()
        self.temper = nn.Parameter(torch.zeros(()))
        self.register_buffer("center", torch.zeros(3))

    def forward(self, outputs, labels):
        with torch.no_grad():
            self.center.mul_(0.9).add_(outputs.detach().mean(0), alpha=0.1)
        return cross_entropy((outputs - self.center) * self.temper.exp(), labels)


class Penalised(nn.Module):
    """A loss that holds the model: its gradient has a weight decay, its value shows none."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, outputs, labels):
        penalty = sum(p.square().sum() for p in self.model.parameters())
        return cross_entropy(outputs, labels) + penalty - penalty.detach()


@pytest.mark.parametrize("most", [400, 2])
@pytest.mark.parametrize("layer", LAYERS)
def test_a_loss_that_looks_at_the_model_is_refused_and_gradients_stay(layer, most):
    model, data, sgd = plain()
    cross_entropy(model(data[0][:8]), data[1][:8]).backward()
    before = everything(model, sgd)

    def loss(outputs, labels):
        if len(outputs) > most:
            raise MemoryError
        return cross_entropy(outputs, labels) + sum(p.square().sum() for p in model.parameters())

    with pytest.raises(ValueError, match=r"^loss is 'a function that looks at parameters"):
        advised(model, loss, data, sgd, layers=[layer])
    assert equal(everything(model, sgd), before)


def test_a_loss_that_holds_the_model_sees_the_copies():
    model, data, sgd = plain()
    before = everything(model, sgd)
    options = {"batch_size": 8, **QUICK}
    found = branch(model, Penalised(model), data, sgd, **options)
    assert equal(everything(model, sgd), before)
    decaying = torch.optim.SGD(model.parameters(), lr=0.05, weight_decay=2.0)
    decayed = branch(model, cross_entropy, data, decaying, **options)
    assert np.allclose(found.lost, decayed.lost, rtol=1e-3)
    undecayed = branch(model, cross_entropy, data, sgd, **options)
    assert not np.allclose(found.lost[1], undecayed.lost[1], rtol=0.1)


@pytest.mark.parametrize("kind", ["module", "method", "partial"])
def test_a_loss_with_a_state_is_not_trained(kind):
    model, data, adam = plain(kind=torch.optim.Adam)
    held = Tempered()
    held.temper.grad = torch.tensor(3.0)
    loss = {"module": held, "method": held.forward, "partial": partial(held)}[kind]
    before = copy.deepcopy(held.state_dict()), everything(model, adam)
    layers = ["throughput", "branches"]  # single examples cannot write into a buffer
    advice = advised(model, loss, data, adam, layers=layers)
    assert advice.failed == {}
    assert equal((held.state_dict(), everything(model, adam)), before)
    assert held.temper.grad == 3.0


def test_gradients_of_tensors_that_a_loss_holds_stay():
    model, data, sgd = plain()
    scale = torch.tensor(1.0, requires_grad=True)
    scale.grad = torch.tensor(7.0)
    advice = advised(model, lambda o, y: cross_entropy(o * scale, y), data, sgd)
    assert advice.failed == {} and scale.grad == 7.0


def test_gradients_of_inputs_stay():
    model, (inputs, labels), sgd = plain()
    usual = advised(model, cross_entropy, (inputs, labels), sgd, layers=["noise", "branches"])
    inputs.requires_grad_()
    advice = advised(model, cross_entropy, (inputs, labels), sgd, layers=["noise", "branches"])
    assert inputs.grad is None
    assert (advice.noise, advice.branches) == (usual.noise, usual.branches)


def of_pairs(outputs, labels):
    if len(outputs) < 2:
        raise ArithmeticError("a pair takes two examples")
    return cross_entropy(outputs @ outputs.T, torch.arange(len(outputs)))


def test_throughput_begins_where_a_step_works():
    model, data, sgd = plain()
    advice = advised(model, of_pairs, data, sgd, batch_size=64, branches={**QUICK, "factors": (2,)})
    assert advice.throughput.batch_sizes[0] == 2
    assert "a pair takes two" in advice.failed["noise"] and advice.branches is not None
    assert advice.failed.keys() == {"noise"}


def test_throughput_ends_where_a_step_fails():
    def at_most_16(outputs, labels):
        if len(outputs) > 16:
            raise ArithmeticError("too many")
        return cross_entropy(outputs, labels)

    model, data, sgd = plain()
    speed = advised(model, at_most_16, data, sgd, layers=["throughput"]).throughput
    assert speed.batch_sizes[-1] <= 16 and len(speed.batch_sizes) > 1
    if speed.batch_sizes[-1] == 16:
        assert speed.ended.startswith("a step with a batch of 32 fails: loss is 'one that raises A")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"confidence": 1.5}, "confidence is 1.5"),
        ({"confidence": "a"}, "confidence is 'a'"),
        ({"confidence": np.nan}, "confidence is nan"),
        ({"layers": None}, "layers is None; allowed: a sequence"),
        ({"layers": "noise"}, "layers is 'noise'; allowed: a sequence"),
        ({"layers": 5}, "layers is 5"),
        ({"branches": 5}, "branches is 5; allowed: a dict"),
        ({"branches": {"foo": 1}}, "an option of branches is 'foo'; allowed: one of 'factors'"),
        ({"branches": {"batch_size": 4}}, "an option of branches is 'batch_size'"),
        ({"branches": {"repeats": 1}}, "repeats is 1"),
        ({"branches": {"confidence": 2}}, "confidence is 2"),
        ({"branches": {"factors": (3, 4)}}, "factors is"),
    ],
)
@pytest.mark.parametrize("layers", [["throughput"], LAYERS])
def test_arguments_are_checked_before_anything_is_measured(changes, words, layers):
    def never(outputs, labels):
        raise AssertionError

    model, data, sgd = plain()
    with pytest.raises(ValueError, match=f"^{words}"):
        advised(model, never, data, sgd, **{"layers": layers, **changes})


def test_a_layer_that_is_asked_for_twice_is_measured_once():
    model, data, sgd = plain()
    asked = advised(model, cross_entropy, data, sgd, layers=("noise", "noise"), seed=3)
    once = advised(model, cross_entropy, data, sgd, layers=iter(["noise"]), seed=3)
    assert asked.noise == once.noise and asked.throughput is None


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_modes_of_torch_around_the_call_change_nothing(mode):
    model, data, adam = plain(kind=torch.optim.Adam)
    options = {"layers": ["noise", "branches"], "seed": 1}
    usual = advised(model, cross_entropy, data, adam, **options)
    with mode():
        other = advised(model, cross_entropy, data, adam, **options)
    assert (other.noise, other.branches) == (usual.noise, usual.branches)


def test_a_loss_that_is_nan_is_named_under_anomaly_detection():
    model, data, sgd = plain()
    with torch.autograd.set_detect_anomaly(True):
        advice = advised(model, lambda o, y: cross_entropy(o, y) * torch.nan, data, sgd)
        assert torch.is_anomaly_enabled()
    assert "gradients are not finite" in advice.reason and "loss is 'not finite'" in advice.reason


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        MemoryError("Unable to allocate 7.28 TiB for an array"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
        torch.cuda.OutOfMemoryError("CUDA out of memory."),
    ],
)
def test_memory_that_is_short_by_any_name(error):
    def loss(outputs, labels):
        if len(outputs) > 16:
            raise error
        return cross_entropy(outputs, labels)

    assert is_out_of_memory(error) and not is_out_of_memory(RuntimeError("another"))
    model, data, sgd = plain()
    before = everything(model, sgd)
    advice = advised(model, loss, data, sgd, layers=["throughput", "branches"])
    assert advice.throughput.batch_sizes[-1] <= 16
    assert advice.branches.verdicts[-1] == "out of memory" or advice.branches.high is not None
    assert equal(everything(model, sgd), before)


def test_the_interval_ends_at_the_largest_batch_that_fits():
    found = BranchedCheck(
        16, None, None, (8, 16, 32), ((0, 0, 0),) * 3, ("kept", "kept", "out of memory"), 0.2
    )
    advice = combined(8, None, None, found, {}, method="sgd", hyper={"lr": 0.1})
    assert (advice.low, advice.high) == (16, 16)
    assert advice.reason.endswith("32 does not fit into memory")


BAD_LOSSES = {
    "nothing": (None, "loss is None"),
    "a name": ("cross_entropy", "loss is 'cross_entropy'"),
    "a class": (nn.CrossEntropyLoss, "loss is <class"),
    "a float": (lambda o, y: 1.0, "loss is 'one that returns a float'"),
    "None": (lambda o, y: None, "loss is 'one that returns a NoneType'"),
    "a pair": (lambda o, y: (o.mean(), 1), "loss is 'one that returns a tuple'"),
    "one an example": (nn.CrossEntropyLoss(reduction="none"), "loss is 'one that returns a tensor"),
    "detached": (lambda o, y: cross_entropy(o.detach(), y), "loss is .*without a gradient"),
    "complex": (lambda o, y: o.mean() * 1j, "loss is .*complex64"),
    "an error": (lambda o, y: 1 / 0, "loss is 'one that raises ZeroDivisionError"),
}


@pytest.mark.parametrize("case", BAD_LOSSES)
@pytest.mark.parametrize("way", ["advise", "branch", "probe"])
def test_what_is_no_loss_is_named(case, way):
    loss, words = BAD_LOSSES[case]
    if way == "probe" and case == "one an example":
        pytest.skip("with one example it is its mean")
    model, data, sgd = plain()
    before = everything(model, sgd)
    with pytest.raises(ValueError, match=f"^{words}"):
        if way == "advise":
            advised(model, loss, data, sgd)
        elif way == "branch":
            branch(model, loss, data, sgd, batch_size=8, **QUICK)
        else:
            NoiseMeter(model).probe(loss, *data)
    assert equal(everything(model, sgd), before)


def test_a_loss_of_one_entry_is_a_number():
    model, data, sgd = plain()
    options = {"layers": ["noise", "branches"], "seed": 1}
    entry = advised(model, lambda o, y: cross_entropy(o, y)[None], data, sgd, **options)
    usual = advised(model, cross_entropy, data, sgd, **options)
    assert (entry.noise, entry.branches) == (usual.noise, usual.branches)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 8])
def test_a_sum_over_the_batch_is_refused(size):
    model, data, sgd = plain()
    total = partial(cross_entropy, reduction="sum")
    with pytest.raises(ValueError, match=r"^loss is 'a sum"):
        branch(model, total, data, sgd, batch_size=size, **QUICK)


def of_dict(outputs, labels):
    return cross_entropy(outputs["all"], labels, reduction="sum")


class Named(nn.Linear):
    """A model whose outputs have names."""

    def forward(self, inputs):
        return {"all": super().forward(inputs)}


def test_a_sum_over_named_outputs_is_refused():
    _, data, _ = plain()
    model = Named(5, 3)
    with pytest.raises(ValueError, match=r"^loss is 'a sum"):
        branch(model, of_dict, data, sgd_of(model), batch_size=8, **QUICK)


@pytest.mark.parametrize("labelled", [1, 2, 8])
def test_a_mean_over_labelled_examples_is_no_sum(labelled):
    def masked(outputs, labels):
        kept = (labels >= 0).float()
        each = cross_entropy(outputs, labels.clamp(min=0), reduction="none")
        return (each * kept).sum() / kept.sum().clamp(min=1)

    model, (inputs, labels), sgd = plain()
    labels[: 8 - labelled] = -1
    assert branch(model, masked, (inputs, labels), sgd, batch_size=8, **QUICK).examples > 0


WEIGHTED = {
    "classes": nn.CrossEntropyLoss(weight=torch.tensor([1.0, 20.0, 1.0])),
    "ignored": nn.CrossEntropyLoss(ignore_index=2),
    "sum": nn.CrossEntropyLoss(reduction="sum"),
    "pairs": of_pairs,
}


@pytest.mark.parametrize("case", WEIGHTED)
def test_single_examples_of_a_weighted_mean_have_no_noise_scale(case):
    """Of one example alone the weight cancels, so that a probe would answer for another loss."""
    model, data, sgd = plain()
    with pytest.raises(ValueError, match=r"^loss is .*(weigh alike|alone)"):
        NoiseMeter(model).probe(WEIGHTED[case], *data)
    if case == "classes":
        inputs, labels = data
        order = labels.argsort()  # the first examples are of one class
        with pytest.raises(ValueError, match=r"^loss is .*weigh alike"):
            NoiseMeter(model).probe(WEIGHTED[case], inputs[order], labels[order], chunk=1)
        advice = advised(model, WEIGHTED[case], data, sgd, layers=["noise", "branches"])
        assert "weigh alike" in advice.failed["noise"] and advice.branches is not None


class OwnDropout(nn.Module):
    """Dropout by a generator of its own."""

    def __init__(self, kind):
        super().__init__()
        self.weight, self.kind = nn.Parameter(torch.ones(200)), kind
        self.rng = {
            "torch": lambda: torch.Generator().manual_seed(0),
            "numpy": lambda: np.random.default_rng(0),
            "old numpy": lambda: np.random.RandomState(0),
            "python": lambda: random.Random(0),
        }[kind]()

    def forward(self, inputs):
        if self.kind == "torch":
            kept = torch.rand(inputs.shape, generator=self.rng) < 0.5
        elif self.kind == "python":
            kept = torch.tensor([self.rng.random() < 0.5 for _ in range(200)])
        else:
            kept = torch.as_tensor(self.rng.uniform(size=200) < 0.5)
        return (inputs * kept * 2 * self.weight).sum(1)


@pytest.mark.parametrize("kind", ["torch", "numpy", "old numpy", "python"])
def test_generators_of_a_model_are_repeated_and_put_back(kind):
    """Exactly: 200 entries, each with mean 1 and variance 1."""
    model = nn.Sequential(OwnDropout(kind))
    rng = model[0].rng
    first = state_of(copy.deepcopy(rng) if kind != "torch" else rng.clone_state())
    readings = []
    for _ in range(40):
        readings.append(
            NoiseMeter(model).probe(lambda o, y: o.mean(), torch.ones(8, 200), torch.zeros(8))
        )
        assert str(state_of(rng)) == str(first)
        for _ in range(9):
            model(torch.ones(8, 200))
        first = copy.deepcopy(state_of(rng))
    signal = np.array([reading.signal for reading in readings])
    trace = np.array([reading.trace for reading in readings])
    assert abs(signal.mean() - 200) < 4 * signal.std() / 40**0.5
    assert abs(trace.mean() - 200) < 4 * trace.std() / 40**0.5


def test_hooks_of_gradients_and_steps_act_on_copies():
    model, data, sgd = plain()
    meter = NoiseMeter(model)  # its hooks stay its own
    options = {"batch_size": 8, **QUICK}
    usual = branch(model, cross_entropy, data, sgd, **options)
    seen = []
    sgd.register_step_pre_hook(lambda *_: seen.append("before"))
    sgd.register_step_post_hook(lambda *_: seen.append("after"))
    for param in model.parameters():
        param.register_hook(lambda grad: grad / 2)
    halved = branch(model, cross_entropy, data, sgd, **options)
    new, *_ = copied(model, sgd, None)
    assert [len(param._backward_hooks) for param in new.parameters()] == [1] * 4
    assert [len(param._backward_hooks) for param in model.parameters()] == [2] * 4
    meter.step(8)
    for param in model.parameters():
        param._backward_hooks.clear()
    slower = torch.optim.SGD(model.parameters(), lr=0.025)
    assert branch(model, cross_entropy, data, slower, **options).lost == halved.lost != usual.lost
    assert seen.count("before") == seen.count("after") > 10


@pytest.mark.parametrize("way", ["advise", "branch", "race"])
def test_hooks_that_may_step_the_runs_optimizer_are_refused(way):
    model, data, sgd = plain()
    NoiseMeter(model).close()
    for param in model.parameters():
        param.register_post_accumulate_grad_hook(lambda _: sgd.step())
    before = everything(model, sgd)
    words = f"^model is .*a hook after the gradient of '{next(iter(model.named_parameters()))[0]}'"
    with pytest.raises(ValueError, match=words):
        if way == "advise":
            advised(model, cross_entropy, data, sgd)
        else:
            {"branch": branch, "race": race}[way](model, cross_entropy, data, sgd, batch_size=8)
    assert equal(everything(model, sgd), before)


def in_place(grad):
    grad.mul_(10)


@pytest.mark.parametrize(
    "changes", [lambda grad: 10 * grad, in_place, lambda grad: grad.clamp(max=0.1)]
)
def test_a_probe_refuses_hooks_that_change_gradients_only(changes):
    model, data, _ = plain()
    data[0][0] = 0.0  # an example whose gradients of first weights are zero
    seen, usual = [], NoiseMeter(model).probe(cross_entropy, *data)
    looks = next(model.parameters()).register_hook(lambda grad: seen.append(grad.shape))
    assert NoiseMeter(model).probe(cross_entropy, *data) == usual and seen
    looks.remove()
    *_, last = model.named_parameters()
    last[1].register_hook(changes)
    words = f"^model is .*changes the gradient of '{last[0]}'"
    with pytest.raises(ValueError, match=words):
        NoiseMeter(model).probe(cross_entropy, *data)


@pytest.mark.parametrize("kind", ["method", "partial"])
def test_a_loss_of_a_module_begins_each_branch_as_it_is(kind):
    model, data, sgd = plain()
    held = Tempered()
    loss = {"method": held.forward, "partial": partial(held.forward)}[kind]
    options = {"batch_size": 8, **QUICK}
    assert branch(model, loss, data, sgd, **options) == branch(model, held, data, sgd, **options)


class Torn(torch.autograd.Function):
    """Has a gradient for small batches only."""

    @staticmethod
    def forward(ctx, outputs):
        return outputs.clone()

    @staticmethod
    def backward(ctx, grad):
        if len(grad) > 8:
            raise RuntimeError("no way back")
        return grad


@pytest.mark.parametrize(("size", "words"), [(8, "every batch"), (16, "a batch of 16")])
def test_a_gradient_that_fails_is_named(size, words):
    def loss(outputs, labels):
        return cross_entropy(Torn.apply(outputs), labels)

    model, data, sgd = plain()
    with pytest.raises(ValueError, match=rf"^loss is .*no way back.*{words}"):
        branch(model, loss, data, sgd, **{"batch_size": size, **QUICK})


@pytest.mark.parametrize("kind", [MemoryError, torch.OutOfMemoryError])
def test_a_model_of_which_no_copy_fits_into_memory_is_named(kind):
    class Huge(nn.Linear):
        def __deepcopy__(self, memo):
            raise kind("out of memory")

    model, data = Huge(5, 3), plain()[1]
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(ValueError, match=r"^model is 'too large'; allowed: .*memory twice"):
        advised(model, cross_entropy, data, sgd)


def test_a_loader_of_a_subset_is_that_subset():
    model, (inputs, labels), sgd = plain()
    whole = TensorDataset(torch.cat([inputs, 100 * inputs]), torch.cat([labels, labels]))
    options = {"batch_size": 8, **QUICK}
    usual = branch(model, cross_entropy, (inputs, labels), sgd, **options)
    sampler = SubsetRandomSampler(range(400))
    loader = DataLoader(whole, batch_size=8, sampler=sampler)
    assert branch(model, cross_entropy, loader, sgd, **options) == usual
    weighted = DataLoader(whole, sampler=WeightedRandomSampler([1.0] * 800, 800))
    with pytest.raises(ValueError, match=r"^data is .*WeightedRandomSampler"):
        branch(model, cross_entropy, weighted, sgd, **options)


def test_the_state_of_adamax_moves_with_the_batch():
    state = {"exp_inf": torch.tensor([4.0]), "step": torch.tensor(8.0)}
    scale_moments(state, 0.25, 2)
    assert state == {"exp_inf": torch.tensor([2.0]), "step": torch.tensor(4.0)}


def at_most(count):
    def loss(outputs, labels):
        if len(outputs) > count:
            raise ArithmeticError("too many")
        return cross_entropy(outputs, labels)

    return loss


def test_an_error_in_a_later_batch_ends_one_layer_and_says_whose_it_is():
    model, (inputs, labels), sgd = plain()
    advice = advised(model, at_most(16), (inputs, labels), sgd, layers=["throughput", "branches"])
    assert advice.throughput is not None
    assert "loss is 'one that raises ArithmeticError: too many'" in advice.failed["branches"]
    labels[300] = 7
    advice = advised(model, cross_entropy, (inputs, labels), sgd, probed=400)
    assert all("Target 7 is out of bounds" in words for words in advice.failed.values())
    assert advice.failed.keys() >= {"branches"}


def test_the_graph_of_inputs_stays():
    model, (inputs, labels), sgd = plain()
    before = torch.ones(5, requires_grad=True)
    inputs = inputs * before
    advice = advised(model, cross_entropy, (inputs, labels), sgd)
    assert advice.failed == {}
    inputs.sum().backward()
    assert before.grad is not None


class Centred:
    """A callable that holds a loss."""

    def __init__(self, held):
        self.held = held

    def __call__(self, outputs, labels):
        return self.held(outputs, labels)


def called(loss, outputs, labels):
    return loss(outputs, labels)


@pytest.mark.parametrize("way", ["advise", "probe"])
@pytest.mark.parametrize("kind", ["method", "partial", "closure", "object", "argument"])
def test_buffers_of_losses_that_are_held_stay(kind, way):
    model, data, sgd = plain()
    held = Tempered()
    loss = {
        "method": held.forward,
        "partial": partial(held),
        "closure": lambda outputs, labels: held(outputs, labels),
        "object": Centred(held),
        "argument": partial(called, held),
    }[kind]
    before = copy.deepcopy(held.state_dict())
    if way == "advise":
        advised(model, loss, data, sgd)
    else:
        assert NoiseMeter(model).probe(loss, *data).trace > 0
    assert equal(held.state_dict(), before) and held.temper.grad is None


def test_a_probe_takes_smaller_chunks_where_memory_is_short():
    most = []

    class Hungry(nn.Linear):
        def forward(self, inputs):
            most.append(len(inputs))
            if len(inputs) > 16:
                raise MemoryError
            return super().forward(inputs)

    torch.manual_seed(0)
    model = Hungry(5, 3)
    _, data, _ = plain()
    reading = NoiseMeter(model).probe(cross_entropy, *data)
    assert max(most) > 16 and reading.measured == 400
    assert 16 in most  # halved, until eight chunks fit
    like = nn.Linear(5, 3)
    like.load_state_dict(model.state_dict())
    other = NoiseMeter(like).probe(cross_entropy, *data)
    assert reading.trace == pytest.approx(other.trace)


def test_an_error_of_ones_own_code_is_told_in_a_line():
    def loss(outputs, labels):
        raise RuntimeError("no such class\nand much more")

    model, data, sgd = plain()
    with pytest.raises(ValueError, match="no such class'; allowed") as caught:
        branch(model, loss, data, sgd, batch_size=8, **QUICK)
    assert "and much more" not in str(caught.value)


def test_a_default_device_is_no_hindrance():
    model, data, sgd = plain()
    usual = branch(model, cross_entropy, data, sgd, batch_size=8, **QUICK)
    with torch.device("meta"):
        assert branch(model, cross_entropy, data, sgd, batch_size=8, **QUICK) == usual


def test_a_loss_of_pairs_is_no_sum():
    model, data, sgd = plain()
    torch.nn.init.zeros_(model[2].weight), torch.nn.init.zeros_(model[2].bias)
    # Now the loss of n examples is log n: log 4 is twice log 2.
    assert branch(model, of_pairs, data, sgd, batch_size=4, **QUICK).examples > 0


class Pairs(Dataset):
    """Examples by their numbers."""

    def __init__(self, data):
        self.data = data

    def __getitem__(self, index):
        return tuple(part[index] for part in self.data)

    def __len__(self):
        return len(self.data[0])


@pytest.mark.parametrize("kind", ["list", "loader of list", "data set", "loader", "tensors"])
def test_data_of_every_kind_say_the_same(kind):
    model, data, sgd = plain()
    pairs = list(zip(*data, strict=True))
    given = {
        "list": pairs,
        "loader of list": DataLoader(pairs, batch_size=8, shuffle=True),
        "data set": Pairs(data),
        "loader": DataLoader(TensorDataset(*data), batch_size=8),
        "tensors": list(data),
    }[kind]
    options = {"batch_size": 8, **QUICK}
    assert branch(model, cross_entropy, given, sgd, **options) == branch(
        model, cross_entropy, data, sgd, **options
    )


class Shaken(Pairs):
    """Draws by a generator: its own, or that of a function that changes its inputs."""

    def __init__(self, data, changes=None):
        super().__init__(data)
        self.changes = changes
        self.rng = torch.Generator() if changes is None else None

    def __getitem__(self, index):
        inputs, label = super().__getitem__(index)
        if self.changes is not None:
            return self.changes[0](inputs), label
        return inputs + torch.randn(5, generator=self.rng), label


def shown(generator):
    """Return the whole state of a generator, to be compared."""
    state = state_of(generator)
    if isinstance(state, torch.Tensor):
        return state.tolist()
    return [part.tolist() if hasattr(part, "tolist") else part for part in flat(state)]


def flat(state):
    parts = state.values() if isinstance(state, dict) else state
    is_nest = isinstance(state, (dict, tuple))
    return [leaf for part in parts for leaf in flat(part)] if is_nest else [state]


class Shake:
    def __init__(self):
        self.rng = np.random.default_rng(0)

    def __call__(self, inputs):
        return inputs + self.rng.normal()


@pytest.mark.parametrize("kind", ["itself", "subset of a subset", "joined", "changes"])
def test_generators_of_data_are_put_back(kind):
    model, data, sgd = plain()
    changed = Shaken(data, [Shake()] if kind == "changes" else None)
    given = {
        "subset of a subset": DataLoader(Subset(Subset(changed, range(300)), range(200))),
        "joined": ConcatDataset([Pairs(data), changed]),
    }.get(kind, changed)
    rng = changed.changes[0].rng if kind == "changes" else changed.rng
    before = shown(rng)
    assert advised(model, cross_entropy, given, sgd).failed == {}
    assert shown(rng) == before
    changed[0]
    assert shown(rng) != before


@pytest.mark.parametrize("kind", ["torch", "numpy", "old numpy", "python"])
@pytest.mark.parametrize("place", ["model", "loss"])
def test_generators_of_a_model_or_a_loss_are_put_back_by_advice(kind, place):
    drops = OwnDropout(kind)
    model = nn.Sequential(drops if place == "model" else nn.Linear(200, 2))
    extra = nn.Sequential(drops)

    def loss(outputs, labels):
        more = 0 if place == "model" else extra(torch.ones(len(outputs), 200)).mean()
        return (outputs.reshape(len(labels), -1).sum(1) - labels).square().mean() + 1e-3 * more

    torch.manual_seed(0)
    data = torch.randn(400, 200), torch.randn(400)
    sgd = torch.optim.SGD(model.parameters(), lr=1e-4)
    before = shown(drops.rng)
    advised(model, loss, data, sgd)
    assert shown(drops.rng) == before
    drops(torch.ones(2, 200))
    assert shown(drops.rng) != before


class Unsized(Dataset):
    """A data set without a length."""

    def __getitem__(self, index):
        return torch.zeros(5), 0


INPUTS, LABELS = torch.zeros(64, 5), torch.zeros(64, dtype=torch.long)
BAD_DATA = {
    "no length": (Unsized(), "data is 'Unsized'"),
    "a dict": ({"inputs": INPUTS, "labels": LABELS}, "data is 'dict'"),
    "a name": ("mnist", "data is 'str'"),
    "items": (DataLoader(Pairs((INPUTS, LABELS)), batch_size=None), "data is .*batch_size=None"),
    "dicts": (DataLoader([{"x": 1.0}] * 64), "data is 'batches of dict'"),
    "threes": (Pairs((INPUTS, LABELS, LABELS)), "data is 'batches of list of 3 parts'"),
    "inputs only": (DataLoader(INPUTS), "data is 'batches of Tensor'"),
    "a list of numbers": ([1, 2, 3, 4], "data is 'a list of 4 entries'"),
    "three tensors": ((INPUTS, LABELS, LABELS), "data is 'a tuple of"),
    "unequal entries": (
        [(torch.zeros(2), 0), (torch.zeros(3), 1)] * 32,
        "data is 'one that raises",
    ),
}


@pytest.mark.parametrize("case", BAD_DATA)
def test_what_are_no_data_is_named(case):
    data, words = BAD_DATA[case]
    model, _, sgd = plain()
    with pytest.raises(ValueError, match=f"^{words}"):
        advised(model, cross_entropy, data, sgd)


@pytest.mark.parametrize("count", [1, 2, 23])
def test_few_examples_have_no_noise_scale(count):
    model, data, sgd = plain(count)
    advice = advised(model, cross_entropy, data, sgd, batch_size=1, layers=["throughput", "noise"])
    assert advice.noise is None and advice.throughput.batch_sizes[0] == 1
    assert advice.failed["noise"].startswith(
        f"data is 'one of {count} examples'; allowed: at least"
    )


class Stepwise(torch.optim.SGD):
    """An optimizer with an attribute that its step takes, such as a user's."""

    def __init__(self, params, lr):
        super().__init__(params, lr)
        self.every = 1

    def step(self, closure=None):
        for group in self.param_groups:
            group["lr"] *= self.every
        return super().step(closure)


def test_attributes_of_an_optimizer_are_copied():
    model, data, sgd = plain()
    options = {"layers": ["noise", "branches"], "seed": 1}
    usual = advised(model, cross_entropy, data, sgd, **options)
    other = advised(model, cross_entropy, data, Stepwise(model.parameters(), lr=0.05), **options)
    assert (other.noise, other.branches) == (usual.noise, usual.branches)


def test_a_scheduler_of_the_optimizer_is_no_hindrance():
    model, data, sgd = plain()
    options = {"layers": ["branches"], "seed": 1}
    usual = advised(model, cross_entropy, data, sgd, **options)
    torch.optim.lr_scheduler.StepLR(sgd, 10)  # it puts a function into the optimizer
    assert advised(model, cross_entropy, data, sgd, **options).branches == usual.branches


def frozen(model):
    model.requires_grad_(False)
    return torch.optim.SGD(model.parameters(), lr=0.1)


def sgd_of(model):
    return torch.optim.SGD(model.parameters(), lr=0.1)


def scripted():
    return torch.jit.script(nn.Linear(5, 3))


UNFIT = {
    "up": (
        None,
        lambda m: torch.optim.SGD(m.parameters(), maximize=True),
        "optimizer is 'SGD with",
    ),
    "adam up": (
        None,
        lambda m: torch.optim.Adam(m.parameters(), maximize=True),
        "optimizer is 'Ad",
    ),
    "rmsprop": (None, lambda m: torch.optim.RMSprop(m.parameters()), "optimizer is 'RMSprop'"),
    "sparse": (None, lambda m: torch.optim.SparseAdam(m.parameters()), "optimizer is .*dense grad"),
    "frozen": (None, frozen, "model is 'without a parameter to train'"),
    "empty": (nn.Identity, lambda m: torch.optim.SGD([{"params": []}]), "model is 'without a par"),
    "lazy": (lambda: nn.LazyLinear(3), sgd_of, "model is .*called once"),
    "meta": (lambda: nn.Linear(5, 3, device="meta"), sgd_of, "model is .*on the device 'meta'"),
    "scripted": (scripted, sgd_of, "model is .*a scripted module"),
}


@pytest.mark.parametrize("case", UNFIT)
@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
def test_what_cannot_be_branched_is_named(case):
    build, optimizer_of, words = UNFIT[case]
    model, data, _ = plain()
    model = model if build is None else build()
    with pytest.raises(ValueError, match=f"^{words}"):
        advised(model, cross_entropy, data, optimizer_of(model))


def test_sparse_gradients_are_measured_and_branched():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(10, 3, sparse=True))
    words = torch.randint(10, (400,))
    adam = torch.optim.SparseAdam(model.parameters(), lr=0.05)
    advice = advised(model, cross_entropy, (words, words % 3), adam)
    assert not advice.failed and advice.branches.reason is None
    assert advice.noise.trace > 0


def test_optimizers_with_three_betas_are_named():
    model, data, adam = plain(kind=torch.optim.Adam)
    adam.param_groups[0]["betas"] = (0.9, 0.9, 0.99)
    with pytest.raises(ValueError, match=r"^optimizer is 'Adam with 3 betas'"):
        advised(model, cross_entropy, data, adam)


@pytest.mark.parametrize(("kind", "decay"), [("AdamW", 0.2), ("Adam", 0.1)])
def test_weight_decay_apart_from_the_gradient_moves_as_advised(kind, decay):
    model, data, _ = plain()
    seen = set()

    class Noting(getattr(torch.optim, kind)):
        def step(self, closure=None):
            group = self.param_groups[0]
            seen.add((group["lr"], group["weight_decay"]))
            return super().step(closure)

    noting = Noting(model.parameters(), lr=1e-3, weight_decay=0.1)
    options = {"batch_size": 8, **QUICK, "factors": (4,)}
    branch(model, cross_entropy, data, noting, **options)
    assert seen == {(1e-3, 0.1), (2e-3, decay)}
    advice = advised(model, cross_entropy, data, noting, layers=[])
    moved = {one.name.removeprefix("decoupled_"): one.moved for one in advice.transfer(32)}
    assert (moved["lr"], moved["weight_decay"]) == (2e-3, decay)


@pytest.mark.parametrize("training", [True, False])
def test_layers_that_are_frozen_by_hand_stay_so(training):
    model, data, sgd = awkward(torch.optim.SGD)
    model.train(training)
    model.norm.eval()
    modes = []
    model.norm.register_forward_pre_hook(lambda layer, _: modes.append(layer.training))
    advised(model, cross_entropy, data, sgd, layers=["throughput", "branches"])
    assert modes and set(modes) == {not training}  # a model in evaluation is put into training
    assert not model.norm.training


def test_every_group_of_parameters_is_transferred():
    model, data, _ = plain()
    groups = [
        {"params": model[0].parameters(), "lr": 0.1},
        {"params": [model[2].weight], "lr": 0.01, "momentum": 0.9},
        {"params": [model[2].bias], "lr": 0.1},
    ]
    sgd = torch.optim.SGD(groups, lr=0.1)
    advice = advised(model, cross_entropy, data, sgd, layers=[])
    moved = {one.name: one.moved for one in advice.transfer(16)}
    expected = {"lr": 0.2, "lr of group 1": 0.02, "momentum of group 1": 0.9}
    assert moved == pytest.approx(expected)
    assert advice.to_dict()["others"] == {"1": {"lr": 0.01, "momentum": 0.9}}


NOISE = NoiseReading(100.0, 50.0, 200.0, None, 1.0, 0.01, 64)


@pytest.mark.parametrize(
    ("examples", "readings", "words"),
    [
        ([0, 100], [NOISE], "readings is 'a sequence of 1'; allowed: as many as examples, 2"),
        (5, [NOISE], "examples is 'an array of shape"),
        ([0], [None], "readings is"),
        ([0], NOISE, "readings is"),
        ([100, 0], [NOISE, NOISE], "examples is"),
        ([-1], [NOISE], "examples is"),
    ],
)
def test_bad_readings_of_a_warm_up_are_named(examples, readings, words):
    speed = Throughput((1, 16), (1.0, 1.3), (0.9, 1.2), (1.2, 1.5), "enough")
    advice = combined(8, speed, NOISE, None, {}, method="sgd", hyper={"lr": 0.1})
    with pytest.raises(ValueError, match=f"^{words}"):
        advice.warm_up(examples, readings)


SETUP = """
import torch

torch.manual_seed(0)
model = torch.nn.Linear(6, 2)
inputs = torch.randn(256, 6)
arguments = {
    "model": model,
    "loss": torch.nn.functional.cross_entropy,
    "data": (inputs, (inputs[:, 0] > 0).long()),
    "optimizer": torch.optim.SGD(model.parameters(), lr=0.1),
    "batch_size": 8,
}

def layers():
    return arguments | {"layers": ["branches"]}

def unknown():
    return arguments | {"foo": 1}

def number():
    return arguments | {1: 1}

def missing():
    return {}

def takes(argument):
    return arguments

def fails():
    return open("/nothing/here")

def rejects():
    raise ValueError("my own")
"""


def test_an_option_of_the_command_line_wins(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "own.py").write_text(SETUP)
    main(["advise", f"{tmp_path}/own.py:layers", "--layers", "noise"])
    assert "the noise scale" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("unknown", "unexpected keyword argument 'foo'"),
        ("number", "keywords must be strings"),
        ("missing", "missing a required argument: 'model'"),
        ("takes", "it raises TypeError"),
        ("fails", "it raises FileNotFoundError"),
        ("rejects", "it raises ValueError: my own"),
    ],
)
def test_a_setup_that_does_not_work_is_told_in_a_line(name, words, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "own.py").write_text(SETUP)
    with pytest.raises(SystemExit) as ended:
        main(["advise", f"{tmp_path}/own.py:{name}"])
    told = capsys.readouterr().err
    assert ended.value.code == 2 and words in told and told.count("\n") == 1
    assert "setup is" in told and f"own.py:{name}" in told


@pytest.mark.parametrize("file", ["none/advice", "."])
@pytest.mark.parametrize("kind", ["html", "json"])
def test_files_are_looked_at_before_anything_is_measured(file, kind, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["advise", "nothing.py:setup", f"--{kind}={tmp_path / file}"])
    assert ended.value.code == 2 and f"{kind} is" in capsys.readouterr().err
