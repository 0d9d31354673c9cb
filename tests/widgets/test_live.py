"""`live`: what it accepts, what it draws, what it says when a function fails."""

import functools
import operator
from html import unescape

import ipywidgets
import matplotlib.pyplot as plt
import pytest
from matplotlib.figure import Figure

from batchscaling.widgets import live


def draw(lr):
    if lr > 1.5:
        raise ValueError("lr is <too> large")
    figure = Figure()
    figure.subplots().plot([0, lr])
    return figure


class Drawing:
    """A function in each form that Python has for one."""

    def __call__(self, lr, width=1):
        return draw(lr * width)

    def method(self, lr):
        return draw(lr)

    @classmethod
    def of_class(cls, lr):
        return draw(lr)


BAD = [
    ("function", lambda: live(None, lr=(0.1, 1.0)), "None", "Figure"),
    ("function's result", lambda: live(lambda lr: lr, lr=(0.5, 1.5)), "1.0", "Figure"),
    ("controls", lambda: live(draw), "{}", "at least one"),
    ("lr", lambda: live(draw, lr="0.1"), "'0.1'", "(low, high)"),
    ("lr", lambda: live(draw, lr=(1, 2, 3, 4)), "(1, 2, 3, 4)", "(low, high)"),
    ("lr", lambda: live(draw, lr=ipywidgets.Button()), "Button", "(low, high)"),
    ("lr", lambda: live(draw, lr=(1.0, 0.1)), "(1.0, 0.1)", "(low, high)"),
    ("lr", lambda: live(draw, lr=[]), "[]", "a list"),
    ("lr", lambda: live(draw, lr=[float("nan")]), "[nan]", "a list"),
]


@pytest.mark.parametrize(("name", "call", "value", "allowed"), BAD)
def test_bad_input(name, call, value, allowed):
    with pytest.raises(ValueError) as error:
        call()
    given, rule = str(error.value).split("; allowed: ")
    assert given.startswith(f"{name} is ") and value in given and allowed in rule


def test_a_control_may_be_called_as_the_parameter_of_live():
    live(lambda function: draw(function), function=(0.0, 1.0))


def test_live_draws_and_redraws():
    control = live(draw, lr=(0.5, 2.0, 0.5))
    slider, picture = control.children
    assert (slider.min, slider.max, slider.step, slider.description) == (0.5, 2.0, 0.5, "lr")
    slider.value = 0.5
    assert 'alt="Figure at lr = 0.5"' in picture.value and "data:image/png;base64" in picture.value
    slider.value = 2.0
    assert picture.value == '<p role="alert">lr is &lt;too&gt; large</p>'
    slider.value = 1.0
    assert 'alt="Figure at lr = 1.0"' in picture.value


def test_live_accepts_controls_of_ipywidgets():
    log = ipywidgets.FloatLogSlider(value=0.1, min=-3, max=0, description="rate")
    control = live(draw, lr=log)
    assert control.children[0] is log and log.description == "rate"


def test_live_raises_an_error_at_the_start():
    with pytest.raises(ValueError, match="too"):
        live(draw, lr=[2.0, 1.0])


def test_live_shows_a_sentence_where_no_kernel_runs():
    first, second = (live(draw, lr=[0.5, 1.0])._repr_mimebundle_() for _ in range(2))
    assert first["text/plain"] == second["text/plain"] == "live(draw, lr)"
    assert first["text/html"] == second["text/html"]
    assert "needs a running notebook" in first["text/html"] and "<input" not in first["text/html"]


CALLABLES = {
    "draw": functools.lru_cache(draw),
    "method": Drawing().method,
    "of_class": Drawing.of_class,
    "Drawing": Drawing(),
    "<lambda>": lambda lr: draw(lr),
}


@pytest.mark.parametrize("name", CALLABLES)
@pytest.mark.parametrize(
    "wrap", [lambda function: function, functools.partial], ids=["", "partial"]
)
def test_live_takes_everything_that_can_be_called(name, wrap):
    control = live(wrap(CALLABLES[name]), lr=[0.5, 1.0])
    assert repr(control) == f"live({name}, lr)"
    menu, picture = control.children
    menu.value = 1.0
    assert 'alt="Figure at lr = 1.0"' in picture.value
    menu.value = 0.5  # an lru_cache gives the same figure again
    assert 'alt="Figure at lr = 0.5"' in picture.value


def test_live_takes_a_partial_with_settings():
    control = live(functools.partial(Drawing(), width=2), lr=[0.5, 1.0])
    control.children[0].value = 1.0
    assert "too" in control.children[1].value


class Unfit(Exception):
    """An error of the reader's own."""


FAILURES = [
    (lambda: {}["rate"], "KeyError: 'rate'"),
    (lambda: 1 / 0, "ZeroDivisionError: division by zero"),
    (lambda: operator.add(1, "1"), "TypeError: unsupported operand"),
    (lambda: [].pop(), "IndexError: pop from empty list"),
    (lambda: exec("assert False"), "AssertionError"),
    (lambda: exec("raise ValueError"), "ValueError"),
    (lambda: raises(Unfit("<b>rate</b>")), "Unfit: <b>rate</b>"),
    (lambda: raises(StopIteration()), "StopIteration"),
    (lambda: raises(MemoryError()), "MemoryError"),
    (lambda: None, "function's result is None; allowed: a matplotlib Figure"),
    (lambda: plt.figure().add_subplot(), "allowed: a matplotlib Figure"),
    (lambda: plt.figure(figsize=(1e5, 1)), "Image size"),
]


def raises(error):
    raise error


@pytest.mark.parametrize(("fail", "words"), FAILURES)
def test_live_shows_every_error_in_the_place_of_the_figure(fail, words):
    control = live(lambda lr: draw(lr) if lr < 1 else fail(), lr=[0.5, 1.0])
    menu, picture = control.children
    menu.value = 1.0
    assert picture.value.startswith('<p role="alert">') and words in unescape(picture.value)
    assert "<img" not in picture.value and "<b>" not in picture.value
    menu.value = 0.5
    assert 'alt="Figure at lr = 0.5"' in picture.value


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit])
def test_live_says_that_it_was_interrupted_and_lets_the_kernel_know(interrupt):
    control = live(lambda lr: draw(lr) if lr < 1 else raises(interrupt()), lr=[0.5, 1.0])
    menu, picture = control.children
    with pytest.raises(interrupt):
        menu.value = 1.0
    assert picture.value == f'<p role="alert">{interrupt.__name__}</p>'


def returns(lr):
    return plt.figure()


def returns_one_of_two(lr):
    plt.figure()
    return plt.figure()


def raises_late(lr):
    plt.figure()
    if lr > 1:
        raise RuntimeError("late")
    return plt.gcf()


def returns_none_late(lr):
    return plt.figure() if lr == 1 else plt.subplots() and None


def closes_and_opens(lr):
    plt.close("all")
    return plt.figure()


OPENING = [returns, returns_one_of_two, raises_late, returns_none_late, closes_and_opens]


@pytest.mark.parametrize("function", OPENING)
def test_live_closes_the_figures_of_each_call(function):
    menu = live(function, lr=[1, 2, 3, 4]).children[0]
    for value in (2, 3, 1, 4):
        menu.value = value
    assert plt.get_fignums() == []


def test_live_closes_the_figures_of_an_error_at_the_start():
    with pytest.raises(RuntimeError, match="late"):
        live(raises_late, lr=[2, 1])
    assert plt.get_fignums() == []


def test_live_leaves_the_reader_s_own_figures_open():
    own = plt.figure()
    live(returns, lr=[1, 2]).children[0].value = 2
    live(lambda lr: own, lr=[1, 2]).children[0].value = 2
    assert plt.get_fignums() == [own.number] and plt.gcf() is own
    plt.close(own)
