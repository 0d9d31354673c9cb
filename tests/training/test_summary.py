import numpy as np

from batchscaling.training import TrialResults, Trials, grid, summarise


def results(steps_to_target, trials):
    steps = np.array(steps_to_target, dtype=float).ravel()
    every = np.arange(200)
    return TrialResults(
        batch_size=32,
        trials=trials,
        steps=every,
        losses={"validation": np.where(every < steps[:, None], 2.0, 1.0)},
        accuracy=np.zeros((len(steps), 200)),
        diverged=np.zeros(len(steps), dtype=bool),
        targets={"validation": 1.5},
    )


def test_best_is_the_setting_with_the_fewest_median_steps():
    trials = grid(range(3), lr=[0.1, 0.2, 0.4])
    summary = summarise(results([[80, 90, 85], [np.inf, 40, 50], [45, 60, 70]], trials))
    assert summary.batch_size == 32
    assert summary.hyper["lr"].tolist() == [0.1, 0.2, 0.4]
    assert summary.median.tolist() == [85, 50, 60]
    assert summary.low.tolist() == [80, 40, 45]
    assert summary.high.tolist() == [90, np.inf, 70]
    assert summary.best == 1
    assert summary.at_border == {"lr": False}


def test_results_keep_their_settings_when_the_callers_array_changes():
    lr, hyper = np.array([0.1, 0.2]), {}
    hyper["lr"] = lr
    trials = Trials([0, 0], hyper)
    lr[:] = 5.0
    assert trials.hyper["lr"].tolist() == [0.1, 0.2]
    assert summarise(results([[80], [40]], trials)).hyper["lr"].tolist() == [0.1, 0.2]


def test_equal_medians_are_parted_by_the_mean():
    trials = grid(range(3), lr=[0.1, 0.2, 0.4])
    summary = summarise(results([[40, 50, 90], [40, 50, 60], [70, 70, 70]], trials))
    assert summary.best == 1


def test_border_is_flagged_for_each_hyperparameter_that_varies():
    trials = grid(range(1), lr=[0.1, 0.2, 0.4], momentum=[0, 0.5, 0.9])
    steps = np.array([[50, 40, 60], [40, 30, 50], [30, 20, 40]])
    assert summarise(results(steps, trials)).at_border == {"lr": True, "momentum": False}

    alone = grid(range(2), lr=[0.1])
    assert summarise(results([10, 20], alone)).at_border == {"lr": False}


def test_target_never_reached_gives_none():
    trials = grid(range(3), lr=[0.1, 0.2])
    summary = summarise(results([[np.inf] * 3, [40, np.inf, np.inf]], trials))
    assert summary.best is None
    assert summary.at_border is None
    assert summary.low.tolist() == [np.inf, 40]
