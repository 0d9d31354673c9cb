"""Bad input: each ValueError names the parameter, the value and what is allowed."""

import numpy as np
import pytest

from batchscaling.nqm import (
    SGD,
    Averaged,
    ExtrapSGD,
    HeavyBall,
    Nesterov,
    NoisyQuadratic,
    Piece,
    bayes_risk,
    critical_batch_size,
    fewest_examples_schedule,
    fewest_steps_schedule,
    lower_bound_steps,
    maximum_likelihood_risk,
    optimal_batch_sizes,
    optimal_lr_schedule,
    risk,
    sample_paths,
    schedule_risk,
    steady_state_risk,
    steps_to_target,
    tail_average_risk,
    tune,
    tuned_batch_sizes,
)

PROBLEM = NoisyQuadratic.harmonic(10)
NAN, INF = float("nan"), float("inf")


def paths(**changed):
    arguments = dict(batch_size=1, steps=[1, 2], paths=2, seed=0) | changed
    return sample_paths(PROBLEM, SGD(0.1), **arguments)


CASES = [
    ("lr", lambda: SGD(0), "0", "(0, inf)"),
    ("lr", lambda: SGD(-0.1), "-0.1", "(0, inf)"),
    ("lr", lambda: SGD(NAN), "nan", "finite"),
    ("lr", lambda: SGD(INF), "inf", "finite"),
    ("lr", lambda: SGD("0.1"), "'0.1'", "finite number"),
    ("lr", lambda: SGD(None), "None", "finite number"),
    ("lr", lambda: SGD(True), "True", "finite number"),
    ("lr", lambda: SGD([0.1]), "[0.1]", "finite number"),
    ("lr", lambda: HeavyBall(-1, 0.5), "-1", "(0, inf)"),
    ("momentum", lambda: HeavyBall(0.1, 1), "1", "[0, 1)"),
    ("momentum", lambda: HeavyBall(0.1, 1.5), "1.5", "[0, 1)"),
    ("momentum", lambda: HeavyBall(0.1, -0.1), "-0.1", "[0, 1)"),
    ("momentum", lambda: HeavyBall(0.1, NAN), "nan", "[0, 1)"),
    ("curvature", lambda: NoisyQuadratic([]), "(0,)", "non-empty"),
    ("curvature", lambda: NoisyQuadratic(1.0), "()", "1 dimension"),
    ("curvature", lambda: NoisyQuadratic([[1.0]]), "(1, 1)", "1 dimension"),
    ("curvature", lambda: NoisyQuadratic([1.0, 0.0]), "0.0", "positive"),
    ("curvature", lambda: NoisyQuadratic([1.0, -2.0]), "-2.0", "positive"),
    ("curvature", lambda: NoisyQuadratic([1.0, NAN]), "nan", "finite"),
    ("curvature", lambda: NoisyQuadratic([1.0, INF]), "inf", "finite"),
    ("curvature", lambda: NoisyQuadratic(["a"]), "'a'", "numbers"),
    ("noise", lambda: NoisyQuadratic([1.0], [-1.0]), "-1.0", "non-negative"),
    ("noise", lambda: NoisyQuadratic([1.0], [NAN]), "nan", "finite"),
    ("noise", lambda: NoisyQuadratic([1.0], [1.0, 2.0]), "(2,)", "(1,)"),
    ("second_moment", lambda: NoisyQuadratic([1.0], second_moment=-1), "-1", "[0, inf)"),
    ("second_moment", lambda: NoisyQuadratic([1.0], second_moment=NAN), "nan", "[0, inf)"),
    ("second_moment", lambda: NoisyQuadratic([1.0], None, [1.0, 1.0]), "(2,)", "(1,)"),
    ("counts", lambda: NoisyQuadratic([1.0], counts=[0]), "0.0", "positive"),
    ("counts", lambda: NoisyQuadratic([1.0], counts=[-0.5]), "-0.5", "positive"),
    ("counts", lambda: NoisyQuadratic([1.0], counts=[1, 2]), "(2,)", "(1,)"),
    ("dim", lambda: NoisyQuadratic.harmonic(0), "0", "[1, inf)"),
    ("dim", lambda: NoisyQuadratic.harmonic(10.0), "10.0", "integer"),
    ("dim", lambda: NoisyQuadratic.harmonic(-3), "-3", "[1, inf)"),
    ("bins", lambda: PROBLEM.quantize(0), "0", "[1, inf)"),
    ("bins", lambda: PROBLEM.quantize(2.5), "2.5", "integer"),
    ("power", lambda: PROBLEM.precondition(-0.5), "-0.5", "[0, 1]"),
    ("power", lambda: PROBLEM.precondition(1.5), "1.5", "[0, 1]"),
    ("power", lambda: PROBLEM.precondition(NAN), "nan", "[0, 1]"),
    ("lr", lambda: PROBLEM.local_steps(0, 4), "0", "(0, inf)"),
    ("lr", lambda: PROBLEM.local_steps(NAN, 4), "nan", "(0, inf)"),
    ("lr", lambda: PROBLEM.local_steps(2, 4), "2", "below 2, where local steps converge"),
    ("lr", lambda: NoisyQuadratic([4.0, 1.0]).local_steps(0.7, 4), "0.7", "below 0.5"),
    ("steps", lambda: PROBLEM.local_steps(0.1, 0), "0", "[1, inf)"),
    ("steps", lambda: PROBLEM.local_steps(0.1, 2.0), "2.0", "integer"),
    ("extrapolation", lambda: PROBLEM.extragradient(-0.1), "-0.1", "[0, inf)"),
    ("extrapolation", lambda: PROBLEM.extragradient(1), "1", "below 1, where the gradient still"),
    ("extrapolation", lambda: PROBLEM.extragradient(INF), "inf", "finite"),
    ("std", lambda: PROBLEM.smooth(-0.1, 8), "-0.1", "[0, inf)"),
    ("std", lambda: PROBLEM.smooth(NAN, 8), "nan", "[0, inf)"),
    ("local_batch_size", lambda: PROBLEM.smooth(0.1, 0), "0", "(0, inf)"),
    ("local_batch_size", lambda: PROBLEM.smooth(0.1, -8), "-8", "(0, inf)"),
    ("problem", lambda: risk("harmonic", SGD(0.1), 1, 1), "'harmonic'", "NoisyQuadratic"),
    ("optimizer", lambda: risk(PROBLEM, 0.1, 1, 1), "0.1", "SGD(lr=0.1)"),
    ("optimizer", lambda: risk(PROBLEM, SGD, 1, 1), "SGD", "SGD(lr=0.1)"),
    ("batch_size", lambda: risk(PROBLEM, SGD(0.1), 0, 1), "0", "(0, inf)"),
    ("batch_size", lambda: risk(PROBLEM, SGD(0.1), -8, 1), "-8", "(0, inf)"),
    ("batch_size", lambda: risk(PROBLEM, SGD(0.1), NAN, 1), "nan", "(0, inf)"),
    ("batch_size", lambda: risk(PROBLEM, SGD(0.1), INF, 1), "inf", "(0, inf)"),
    ("batch_size", lambda: steady_state_risk(PROBLEM, SGD(0.1), 0), "0", "(0, inf)"),
    ("steps", lambda: risk(PROBLEM, SGD(0.1), 1, -1), "-1", "from 0"),
    ("steps", lambda: risk(PROBLEM, SGD(0.1), 1, [3, -2]), "-2", "from 0"),
    ("steps", lambda: risk(PROBLEM, SGD(0.1), 1, 1.5), "1.5", "integers"),
    ("steps", lambda: risk(PROBLEM, SGD(0.1), 1, []), "[]", "integers"),
    ("steps", lambda: risk(PROBLEM, SGD(0.1), 1, [2.0, INF]), "inf", "integers"),
    ("steps", lambda: risk(PROBLEM, SGD(0.1), 1, [2.0, NAN]), "nan", "integers"),
    ("steps", lambda: risk(PROBLEM, SGD(0.1), 1, [2.0, -1.0]), "-1.0", "integers"),
    ("steps", lambda: risk(PROBLEM, SGD(0.1), 1, 2.0**62 + 1024), "e+18", "integers"),
    ("steps", lambda: risk(PROBLEM, SGD(0.1), 1, 2**62 + 1), str(2**62 + 1), str(2**62)),
    ("lr", lambda: risk(PROBLEM, SGD(2.0), 1, 1), "2.0", "below 2,"),
    ("lr", lambda: risk(PROBLEM, SGD(3.0), 1, 1), "3.0", "below 2,"),
    ("lr", lambda: risk(PROBLEM, HeavyBall(4.0, 0.9), 1, 1), "4.0", "below 3.8,"),
    ("lr", lambda: steady_state_risk(PROBLEM, SGD(2.5), 1), "2.5", "below 2,"),
    ("lr", lambda: steps_to_target(PROBLEM, SGD(2.5), 1, 0.1), "2.5", "below 2,"),
    ("target", lambda: steps_to_target(PROBLEM, SGD(0.1), 1, 0), "0", "(0, inf)"),
    ("target", lambda: steps_to_target(PROBLEM, SGD(0.1), 1, NAN), "nan", "(0, inf)"),
    ("target", lambda: steps_to_target(PROBLEM, SGD(0.1), 1, [0.1, -1]), "-1.0", "positive"),
    ("batch_size", lambda: steps_to_target(PROBLEM, SGD(0.1), [1, 0], 0.1), "0.0", "positive"),
    ("optimizer", lambda: tune(PROBLEM, SGD(0.1), [1], 0.1), "SGD(lr=0.1)", "class"),
    ("batch_sizes", lambda: tune(PROBLEM, SGD, [], 0.1), "(0,)", "non-empty"),
    ("batch_sizes", lambda: tune(PROBLEM, SGD, [1, -1], 0.1), "-1.0", "positive"),
    ("target", lambda: tune(PROBLEM, SGD, [1], -0.1), "-0.1", "(0, inf)"),
    ("target", lambda: tune(PROBLEM, SGD, [1], 50), "50", "initial risk"),
    ("fixed hyperparameter", lambda: tune(PROBLEM, SGD, [1], 0.1, beta=0.9), "'beta'", "'lr'"),
    ("base", lambda: tune(PROBLEM, Averaged, [1], 0.1), "None", "class"),
    ("fixed hyperparameters", lambda: tune(PROBLEM, SGD, [1], 0.1, lr=1.0), "'lr'", "left"),
    ("base", lambda: tune(PROBLEM, Averaged, [1], 0.1, base=SGD(0.1)), "SGD(lr=0.1)", "class"),
    ("paths", lambda: paths(paths=0), "0", "[1, inf)"),
    ("steps", lambda: paths(steps=[2, 1]), "[2, 1]", "increasing"),
    ("seed", lambda: paths(seed=-1), "-1", "[0, inf)"),
    ("seed", lambda: paths(seed=None), "None", "integer"),
    ("covariance", lambda: paths(covariance=np.eye(3)), "(3, 3)", "(10, 10)"),
    ("covariance", lambda: paths(covariance=-np.eye(10)), "another matrix", "negative eigenvalues"),
    ("covariance", lambda: paths(covariance=np.tri(10)), "another matrix", "symmetric"),
    ("momentum", lambda: Nesterov(0.1, 1), "1", "[0, 1)"),
    ("lr", lambda: Nesterov(0, 0.5), "0", "(0, inf)"),
    ("base", lambda: Averaged(0.1, 0.5), "0.1", "SGD(lr=0.1)"),
    ("decay", lambda: Averaged(SGD(0.1), 1), "1", "[0, 1)"),
    ("decay", lambda: Averaged(SGD(0.1), -0.5), "-0.5", "[0, 1)"),
    ("lr", lambda: risk(PROBLEM, Averaged(SGD(2.5), 0.9), 1, 1), "2.5", "below 2,"),
    ("extrapolation", lambda: ExtrapSGD(0.1, 0.5, -1), "-1", "[0, inf)"),
    ("momentum", lambda: ExtrapSGD(0.1, 2, 0), "2", "[0, 1)"),
    ("lr", lambda: ExtrapSGD(NAN, 0.5, 0), "nan", "(0, inf)"),
    ("exponent", lambda: NoisyQuadratic.power_law(10, -1), "-1", "[0, inf)"),
    ("curvature", lambda: NoisyQuadratic.from_spectrum([0.0]), "0.0", "positive"),
    ("curvature", lambda: NoisyQuadratic.from_spectrum([1, -2]), "-2.0", "only_positive=True"),
    (
        "curvature",
        lambda: NoisyQuadratic.from_spectrum([-1], only_positive=True),
        "-1.0",
        "some positive",
    ),
    ("counts", lambda: NoisyQuadratic.from_spectrum([1], counts=[1, 2]), "(2,)", "(1,)"),
    ("noise", lambda: NoisyQuadratic.from_spectrum([1, 2], [1, -1]), "-1.0", "non-negative"),
    (
        "only_positive",
        lambda: NoisyQuadratic.from_spectrum([1, 0], only_positive=1),
        "1",
        "True or False",
    ),
    (
        "problem",
        lambda: sample_paths(NoisyQuadratic([1], counts=[1.5]), SGD(0.1), 8, 1, paths=1, seed=0),
        "1.5",
        "whole",
    ),
    ("batch_size", lambda: Piece(SGD(0.1), 0, 5), "0", "(0, inf)"),
    ("steps", lambda: Piece(SGD(0.1), 1, 0), "0", "[1, inf)"),
    ("optimizer", lambda: Piece(0.1, 1, 1), "0.1", "SGD(lr=0.1)"),
    ("schedule", lambda: schedule_risk(PROBLEM, [], 0), "[]", "Piece"),
    ("schedule", lambda: schedule_risk(PROBLEM, [SGD(0.1)], 0), "SGD", "Piece"),
    (
        "schedule",
        lambda: schedule_risk(
            PROBLEM, [Piece(SGD(0.1), 1, 1), Piece(HeavyBall(0.1, 0.5), 1, 1)], 0
        ),
        "HeavyBall",
        "one kind",
    ),
    ("steps", lambda: schedule_risk(PROBLEM, [Piece(SGD(0.1), 1, 3)], 4), "4", "at most 3"),
    ("pieces", lambda: optimal_lr_schedule(PROBLEM, 1, 10, pieces=0), "0", "[1, inf)"),
    ("start", lambda: optimal_lr_schedule(PROBLEM, 1, 10, start=[0.1]), "(1,)", "(10,)"),
    ("batch_size", lambda: optimal_lr_schedule(PROBLEM, 0, 10), "0", "(0, inf)"),
    ("target", lambda: fewest_steps_schedule(PROBLEM, 1, 100), "100", "initial risk"),
    ("lr", lambda: optimal_batch_sizes(PROBLEM, 2.0, 10, 100), "2.0", "(0, 2)"),
    ("examples", lambda: optimal_batch_sizes(PROBLEM, 1.0, 10, 0), "0", "(0, inf)"),
    ("steps", lambda: tuned_batch_sizes(PROBLEM, 0, 10), "0", "[1, 4.61169e+18]"),
    ("examples", lambda: tuned_batch_sizes(PROBLEM, 5, -1), "-1", "(0, inf)"),
    ("steps", lambda: fewest_examples_schedule(PROBLEM, 1.5, 0.1), "1.5", "integer"),
    ("target", lambda: fewest_examples_schedule(PROBLEM, 5, 0), "0", "(0, inf)"),
    ("target", lambda: fewest_examples_schedule(PROBLEM, 5, 100), "100", "initial risk"),
    ("steps", lambda: fewest_examples_schedule(PROBLEM, 2, 1e-4), "2", "without noise"),
    ("start", lambda: tail_average_risk(PROBLEM, SGD(0.1), 1, -1, 5), "-1", "[0, inf)"),
    ("steps", lambda: tail_average_risk(PROBLEM, SGD(0.1), 1, 5, [9, 5]), "5", "above start, 5"),
    ("large", lambda: critical_batch_size(PROBLEM, SGD, 0.1, small=8, large=8), "8", "above small"),
    ("target", lambda: critical_batch_size(PROBLEM, SGD, 0), "0", "(0, inf)"),
    (
        "target",
        lambda: critical_batch_size(PROBLEM, HeavyBall, 0.1, lr=0.5),
        "0.1",
        "reaches at both batch sizes",
    ),
    ("examples", lambda: maximum_likelihood_risk(PROBLEM, 0), "0", "(0, inf)"),
    ("examples", lambda: bayes_risk(PROBLEM, [1, -1]), "-1.0", "positive"),
    ("target", lambda: lower_bound_steps(PROBLEM, 1, 0), "0", "(0, inf)"),
    ("batch_size", lambda: lower_bound_steps(PROBLEM, [0], 0.1), "0.0", "positive"),
]


@pytest.mark.parametrize(
    ("name", "call", "value", "allowed"),
    CASES,
    ids=[f"{number}-{case[0]}-{case[2]}" for number, case in enumerate(CASES)],
)
def test_bad_input(name, call, value, allowed):
    with pytest.raises(ValueError) as caught:
        call()
    message = str(caught.value)
    assert message.startswith(name + " is ")
    given, _, rule = message.partition("; allowed: ")
    assert value in given
    assert allowed in rule


def test_there_are_at_least_forty_cases():
    assert len(CASES) >= 40


def test_good_input_at_the_edges():
    assert np.isfinite(risk(PROBLEM, HeavyBall(0.1, 0), 1, 0))
    assert PROBLEM.precondition(1).curvature.max() == 1
    assert PROBLEM.quantize(1).curvature.size == 1
    assert NoisyQuadratic([1.0], [0.0], 0).initial_risk == 0
