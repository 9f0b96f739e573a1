"""Figures of competing risks and of predicted numbers draw the numbers of the metrics."""

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from sksurv.nonparametric import cumulative_incidence_competing_risks

from mmdls import metrics, plotting
from mmdls.plotting._cumulative_incidence import incidence_interval
from tests.simulated_outcomes import draw_competing_risks, draw_values


@pytest.fixture(autouse=True)
def _closed():
    yield
    plt.close("all")


@pytest.mark.parametrize("decimals", [None, 0])
def test_intervals_of_incidences_equal_scikit_survival(decimals):
    _, causes, time = draw_competing_risks(150, 3, decimals=decimals)
    causes, time = np.r_[causes, 0], np.r_[time, time.max() + 1]  # theirs is not defined if nobody is left at the end
    times, _, expected = cumulative_incidence_competing_risks(
        causes, time, conf_type="log-log", conf_level=0.9, var_type="Dinse_Approx"
    )
    for cause in (1, 2):
        np.testing.assert_allclose(incidence_interval(causes, time, cause, 0.9), expected[cause], atol=1e-9)
    low, high = incidence_interval(causes[:-1], time[:-1], 1, 0.9)
    assert (0 <= low).all() and (low <= high).all() and (high <= 1).all() and low[-1] < high[-1]


def test_curves_are_the_estimate_and_the_mean_prediction():
    _, causes, time = draw_competing_risks(80, 1)
    ids = pd.Index([f"P{k}" for k in range(80)])
    predicted = pd.DataFrame({24.0: np.linspace(0, 1, 80), 12.0: np.linspace(0, 0.5, 80), 9e3: 1.0}, index=ids)
    ax = plotting.cumulative_incidence(
        pd.Series(causes, ids), pd.Series(time, ids)[::-1], {2: predicted[::-1]}, labels={1: "cancer"}
    )
    first, second, mean = ax.lines
    times, incidence = metrics.cumulative_incidence(causes, time)
    for line, expected in zip((first, second), incidence, strict=True):
        np.testing.assert_array_equal(line.get_xdata(), np.r_[0, times])
        np.testing.assert_array_equal(line.get_ydata(), np.r_[0, expected])
    np.testing.assert_allclose(mean.get_xydata(), [[0, 0], [12, 0.25], [24, 0.5]])
    names = [text.get_text() for text in ax.get_legend().get_texts()]
    assert names == ["cancer", "cause 2", "cause 2, mean predicted"]


def test_predictions_of_other_patients_are_refused():
    _, causes, time = draw_competing_risks(20, 1)
    with pytest.raises(ValueError, match="a DataFrame of 20 patients for each cause"):
        plotting.cumulative_incidence(causes, time, {1: pd.DataFrame({12.0: np.zeros(3)})})
    with pytest.raises(ValueError, match="there is no patient to draw"):
        plotting.cumulative_incidence([], [])


def test_points_are_the_patients_and_the_text_is_r2_with_its_interval():
    _, y_true = draw_values(60)
    y_pred = y_true + np.random.default_rng(0).normal(size=60)
    ids = pd.Index([f"P{k}" for k in range(60)])
    ax = plotting.predicted_observed(
        pd.Series(y_true, ids), {"model": pd.Series(y_pred, ids)[::-1]}, unit="ml", n_resamples=50
    )
    np.testing.assert_array_equal(ax.lines[0].get_xydata(), np.c_[y_pred, y_true])
    weights = metrics.bootstrap_weights(60, 50, random_state=0)
    value, low, high, _ = metrics.bootstrap_interval(lambda w: metrics.r2_score(y_true, y_pred, w), weights)
    assert ax.get_legend().get_texts()[0].get_text() == f"model R2 {value:.2f} [{low:.2f}, {high:.2f}]"
    assert ax.get_ylabel() == "Observed (ml)" and ax.get_xlim() == ax.get_ylim()
    same = plotting.predicted_observed([1.0, 1.0], [1.0, 1.0], n_resamples=10)
    assert same.get_legend().get_texts()[0].get_text() == "R2 not defined"
