"""What tests of assignments are made of: checks of plots, common mistakes, reference problems."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from batchscaling.classroom import drawn, draws, plotted, slips, spirals
from batchscaling.classroom.tuned import fewest_steps
from batchscaling.nqm import HeavyBall, NoisyQuadratic, risk


@pytest.fixture
def axes():
    """Axes with a line whose last point is infinite, a short line, and nothing else."""
    figure, axes = plt.subplots()
    axes.loglog([1, 2, 4], [3, 4, np.inf], label="a")
    axes.loglog([1], [1])
    yield axes
    plt.close(figure)


def complete(axes):
    axes.set(xlabel="B", ylabel="S")
    axes.legend()


def test_axes_become_data(axes):
    axes.set_xlabel("B")
    axes.legend()
    found = drawn("axes", axes)
    assert found["lines"][0]["x"].tolist() == [1, 2, 4] and found["lines"][0]["label"] == "a"
    assert (found["xscale"], found["xlabel"], found["ylabel"]) == ("log", "B", "")
    assert found["legend"] and drawn("axes", found) is found


@pytest.mark.parametrize("wrong", [..., None, 3])
def test_what_is_no_plot_is_said(wrong):
    with pytest.raises(AssertionError, match="axes"):
        plotted("axes", wrong, log="")


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda axes: axes.set_xscale("linear"), "the x axis should be logarithmic"),
        (lambda axes: axes.set_yscale("linear"), "the y axis should be logarithmic"),
        (lambda axes: axes.set_xlabel(""), "the x axis has no label"),
        (lambda axes: axes.set_ylabel(""), "the y axis has no label"),
        (lambda axes: axes.get_legend().remove(), "no legend"),
    ],
)
def test_a_plot_lacks_something(axes, spoil, message):
    complete(axes)
    assert len(plotted("axes", axes, log="xy", legend=True)) == 2
    spoil(axes)
    with pytest.raises(AssertionError, match=message):
        plotted("axes", axes, log="xy", legend=True)


def test_less_may_be_asked_of_a_plot(axes):
    complete(axes)
    axes.set_xscale("linear")
    axes.get_legend().remove()
    assert plotted("axes", axes, log="y")


def test_lines_are_found_by_their_finite_points(axes):
    complete(axes)
    lines = plotted("axes", axes, log="xy")
    draws("steps", lines, [1, 2, 4], [3, 4, np.inf])
    for x, y in (([1, 2, 4], [3, 5, np.inf]), ([1, 3, 4], [3, 4, np.inf]), ([1, 2, 4], [3, 4, 5])):
        with pytest.raises(AssertionError, match="no line shows steps"):
            draws("steps", lines, x, y)
    with pytest.raises(AssertionError, match="steps has shape"):
        draws("steps", lines, [1, 2, 4], [3, 4])
    with pytest.raises(AssertionError, match="steps is not filled in"):
        draws("steps", lines, [1, 2, 4], ...)


def test_a_line_may_run_backwards_and_small_numbers_count():
    x, y = np.array([0.0, 1.0, 2.0]), np.array([1e-9, 3e-9, 2e-9])
    draws("steps", [(x[::-1], y[::-1])], x, y)
    draws("steps", [(x + 1e-17, y)], x, y)
    for wrong in (2 * y, y[[0, 2, 1]], 0 * y):
        with pytest.raises(AssertionError, match="no line shows steps"):
            draws("steps", [(x, wrong)], x, y)


def test_no_common_mistake_gives_the_right_noise():
    lr, noise, size = 0.3, np.array([3.0, 0.4]), 4
    slip = slips.of_noise(lr, noise, size)
    right = lr**2 * noise / size
    values = [right, *slip.values()]
    assert all(
        not np.allclose(a, b, rtol=0.1) for i, a in enumerate(values) for b in values[i + 1 :]
    )
    assert np.array_equal(slip[slips.ONE_EXAMPLE], size * right)


def test_mistakes_of_a_curve_are_one_shorter():
    slip = slips.of_curve(np.array([8.0, 4.0, 2.0]), 4)
    assert [value.tolist() for value in slip.values()] == [[16, 8], [4, 2], [2, 1]]


@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_the_fewest_steps_are_those_of_the_best_stable_rate(momentum):
    problem, lrs, sizes = NoisyQuadratic([1.0, 0.1]), [0.1, 0.5, 1.0, 8.0], [1, 16]
    best = np.full(2, np.inf)
    for lr in lrs[:3]:  # the last one diverges
        for i, size in enumerate(sizes):
            reached = risk(problem, HeavyBall(lr, momentum), size, range(31)) <= 0.02
            best[i] = min([best[i], *np.flatnonzero(reached)[:1]])
    assert np.isinf(best[0]) and 1 < best[1] < 30
    found = fewest_steps(problem.curvature, lrs, momentum, sizes, 0.02, 30)
    assert found.tolist() == best.tolist()
    most = int(best[1])
    assert fewest_steps(problem.curvature, lrs, momentum, [16], 0.02, most) == most
    assert np.isinf(fewest_steps(problem.curvature, lrs, momentum, [16], 0.02, most - 1))


def test_the_network_of_the_spirals_has_the_slope_of_its_loss():
    weights, _, _, (x,), (y,) = spirals.step(1, 20)
    moved = 1e-6 * np.eye(33)
    rise = spirals.loss(weights + moved, x, y) - spirals.loss(weights - moved, x, y)
    np.testing.assert_allclose(spirals.gradient(weights, x, y), rise / 2e-6, atol=1e-8)


def test_workers_do_not_mix():
    weights, _, past, xs, ys = spirals.step(3, 5)
    found = spirals.gradient(weights + past, xs, ys)
    alone = [spirals.gradient(weights + p, x, y) for p, x, y in zip(past, xs, ys)]
    np.testing.assert_allclose(found, alone, rtol=1e-12)
    x, y = spirals.points()
    assert x.shape == (200, 2) and set(y) == {-1, 1} and spirals.start().shape == (33,)
