"""Large tables: the work grows with the number of patients or of columns, and the numbers are those of the long way."""

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure

from mmdls import TabularEncoder, metrics, plotting
from mmdls.cohort import _identifiers, _leaks, check_cohort, modalities
from mmdls.estimators import SignWeightedBagging
from mmdls.estimators.columns import _columns, _screening
from mmdls.estimators.survival import _sign_weighted
from mmdls.metrics import _concordance, _horizons
from mmdls.training._linear import _Problem


def curves(n, n_times, seed=0, decimals=None):
    """Events, times, survival curves that cross, their times, and weights of three resamples."""
    rng = np.random.default_rng(seed)
    time, event = rng.exponential(30, n) + 0.5, rng.random(n) < 0.6
    grid = np.linspace(2, 60, n_times)
    survival = np.exp(-((grid / rng.uniform(20, 50, (n, 1))) ** rng.uniform(0.7, 1.3, (n, 1))))
    if decimals is not None:
        time, survival = np.round(time, decimals), np.round(survival, 1)
    return event, time, survival, grid, metrics.bootstrap_weights(n, 3, random_state=seed)


@pytest.mark.parametrize("decimals", [None, 0])
@pytest.mark.parametrize("most", [1, 8])
def test_antolini_by_sorted_columns_is_antolini_by_pairs(monkeypatch, decimals, most):
    event, time, survival, grid, weights = curves(150, 6, decimals=decimals)
    found = {}
    for many in (most, 1000):
        monkeypatch.setattr(_concordance, "_MANY", many)
        found[many] = [metrics.concordance_index_antolini(event, time, survival, grid, w) for w in (None, weights)]
    assert found[most][0] == found[1000][0]
    np.testing.assert_array_equal(found[most][1], found[1000][1])


def test_antolini_of_many_patients_sorts_them_once_a_column(monkeypatch):
    sizes, pairs = [], []
    below, compared = _concordance.weight_below, np.einsum
    monkeypatch.setattr(_concordance, "weight_below", lambda *s: sizes.append(sum(map(len, s))) or below(*s))
    monkeypatch.setattr(_concordance.np, "einsum", lambda *args: pairs.append(args[2].size) or compared(*args))
    for n in (1000, 2000):
        sizes.clear(), pairs.clear()
        event, time, survival, grid, _ = curves(n, 5)
        metrics.concordance_index_antolini(event, time, survival, grid)
        assert 0 < sum(sizes) <= n * len(grid)
        assert sum(pairs) <= n


@pytest.mark.parametrize("n", [0, 1, 31, 32, 33, 100, 257])
def test_inversions_are_those_of_all_pairs(n):
    rng = np.random.default_rng(n)
    rank, weights = rng.permutation(n), rng.integers(0, 4, (n, 3)).astype(float)
    lower = np.triu(rank[None, :] < rank[:, None], 1)
    np.testing.assert_array_equal(_concordance.Inversions(rank)(weights), lower @ weights)


def test_groups_of_any_type_are_not_compared_with_every_patient():
    compared = []

    class Label(str):
        __hash__ = str.__hash__

        def __eq__(self, other):
            compared.append(1)
            return str.__eq__(self, other)

        def __ne__(self, other):
            return not self == other

        def __lt__(self, other):
            compared.append(1)
            return str.__lt__(self, other)

    counts, rng = [], np.random.default_rng(0)
    for n in (500, 1000):
        compared.clear()
        group = np.array([Label("high" if u < 0.5 else "low") for u in rng.random(n)], dtype=object)
        metrics.logrank_test(rng.random(n) < 0.6, rng.exponential(30, n), group)
        counts.append(len(compared))
    assert counts[1] < 3 * counts[0]


def test_censoring_is_estimated_once_for_all_times(monkeypatch):
    event, time, survival, grid, _ = curves(80, 7, decimals=0)
    y = np.array(list(zip(event, time, strict=True)), dtype=[("event", bool), ("time", float)])
    grid[3] = time[event][0] * (1 + 1e-12)  # a horizon that differs from an event's time by rounding
    grid = np.unique(grid)
    each = [metrics.horizon_weights(y, y, t) for t in grid]
    calls = []
    known = _horizons.CensoringDistribution
    monkeypatch.setattr(_horizons, "CensoringDistribution", lambda rows: calls.append(rows) or known(rows))
    case, control = _horizons.weights_over_time(y, y, grid)
    assert len(calls) == 1
    for k, (own, others) in enumerate(each):
        np.testing.assert_array_equal(case[:, k], own)
        np.testing.assert_array_equal(control[:, k], others)
    value = metrics.integrated_ipa(y, y, survival, grid)
    assert len(calls) == 2
    errors = [metrics.brier_score(y, y, survival[:, k], t) for k, t in enumerate(grid)]
    null = [metrics.brier_score(y, y, np.full(len(y), s), t) for s, t in zip(_kaplan_meier(y, grid), grid, strict=True)]
    assert value == pytest.approx(1 - np.trapezoid(errors, grid) / np.trapezoid(null, grid), abs=1e-12)


def _kaplan_meier(y, grid):
    return metrics.step_values(*metrics.kaplan_meier(y["event"], y["time"]), grid)


def measurements(n=60, n_columns=40):
    rng = np.random.default_rng(0)
    X = pd.DataFrame(rng.normal(size=(n, n_columns)), columns=[f"radiomics_{i}" for i in range(n_columns)])
    X.iloc[::7, 3] = np.nan
    X["radiomics_count"] = rng.integers(0, 9, n)
    X["radiomics_flag"] = rng.random(n) < 0.5
    y = pd.DataFrame({"os_time": rng.exponential(30, n), "os_event": (rng.random(n) < 0.6).astype(float)})
    return X, y


def test_numbers_are_read_together(monkeypatch):
    X, y = measurements()
    nullable = X.astype("Float64")
    expected = TabularEncoder().fit(nullable).transform(nullable)
    singly = []
    for module, name in ((_columns, "numbers_of"), (_leaks, "_codes"), (_identifiers, "is_identifier")):
        known = getattr(module, name)

        def counted(column, known=known):
            singly.append(column.name)
            return known(column)

        monkeypatch.setattr(module, name, counted)
    np.testing.assert_array_equal(TabularEncoder().fit(X).transform(X), expected)
    assert modalities(X) == {"radiomics": list(X.columns)}
    check_cohort(X, y)
    # Whole numbers may count the patients, so they are looked at; of y the time and the event.
    assert set(singly) == {"radiomics_count", "radiomics_flag", "os_time", "os_event"}


@pytest.mark.parametrize("dtype", ["float64", "Float64"])
@pytest.mark.parametrize("sign", [1, -1])
def test_a_copy_of_a_time_is_found_among_numbers_of_any_dtype(dtype, sign):
    X, y = measurements()
    X["radiomics_time"] = sign * y["os_time"] * 30.4
    with pytest.raises(ValueError, match="radiomics_time"):
        check_cohort(X.astype(dtype), y)
    X.loc[5, "radiomics_time"] = np.nan
    check_cohort(X.astype(dtype), y)


def test_infinite_numbers_are_named_by_column_and_row():
    X, _ = measurements()
    X.iloc[4, 7] = np.inf
    with pytest.raises(ValueError, match=r"'radiomics_7' is infinite in rows \[4\]"):
        TabularEncoder().fit(X)


@pytest.mark.parametrize("few", [0, 1000])
@pytest.mark.parametrize("decimals", [None, 0])
def test_concordance_of_many_columns_is_that_of_each(monkeypatch, few, decimals):
    event, time, _, _, weights = curves(90, 2, decimals=decimals)
    columns = np.random.default_rng(1).normal(size=(90, 6)).round(2 if decimals is None else 0)
    monkeypatch.setattr(_concordance, "_FEW_PATIENTS", few)
    found = _concordance.concordance_by_column(event, time, columns, weights)
    expected = [metrics.concordance_index(event, time, column, weights) for column in columns.T]
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("n_columns", [1, 8, 37])
@pytest.mark.parametrize("threshold", [0.0, 0.2, 0.9])
def test_correlated_columns_are_found_once_for_all_choices(monkeypatch, n_columns, threshold):
    rng = np.random.default_rng(0)
    columns = rng.normal(size=(30, n_columns)) + rng.normal(size=(30, 1))
    columns[:, -1] = columns[:, 0]
    units = _screening.unit_columns(columns, np.ones(30))
    monkeypatch.setattr(_screening, "_BLOCK", 5)
    correlated = _screening.Correlated(units, threshold)
    for _ in range(5):
        order = rng.permutation(n_columns)[: rng.integers(1, n_columns + 1)]
        np.testing.assert_array_equal(correlated.uncorrelated(order), _screening.uncorrelated(units, threshold, order))


def test_members_of_a_bagging_share_what_does_not_depend_on_their_rows(monkeypatch):
    X, y = measurements()
    made = []
    for module, name in ((_sign_weighted, "Correlated"), (_concordance, "Pairs")):
        known = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *args, known=known, name=name: made.append(name) or known(*args))
    SignWeightedBagging(endpoint="os", columns="radiomics", n_estimators=9, random_state=0).fit(X, y)
    assert sorted(made) == ["Correlated", "Pairs"]


def test_a_curve_of_many_patients_has_as_many_points_as_a_print_shows():
    event, time, _, _, _ = curves(30_000, 2)
    drawn = {}
    for n in (500, 30_000):
        ax = plotting.kaplan_meier(event[:n], time[:n], ax=Figure().subplots())
        steps, marks = ax.lines[:2]
        (band,) = ax.collections
        drawn[n] = steps.get_xydata(), marks.get_xydata(), len(band.get_paths()[0].vertices)
        times, survival = metrics.kaplan_meier(event[:n], time[:n])
        # Every point that is drawn is one of the curve, and so is every mark.
        np.testing.assert_array_equal(metrics.step_values(times, survival, drawn[n][0][:, 0]), drawn[n][0][:, 1])
        np.testing.assert_array_equal(metrics.step_values(times, survival, drawn[n][1][:, 0]), drawn[n][1][:, 1])
        assert drawn[n][0][-1, 0] == times[-1]
    assert len(drawn[500][0]) == 501
    assert len(drawn[500][1]) == (~event[:500]).sum()
    assert len(drawn[30_000][0]) <= 2001
    assert len(drawn[30_000][1]) <= 2001
    assert drawn[30_000][2] < 10_000
    ax = plotting.cumulative_incidence(event.astype(int), time, ax=Figure().subplots())
    assert len(ax.lines[0].get_xydata()) <= 2001


def test_marks_of_many_patients_are_pixels():
    values = np.random.default_rng(0).normal(size=3000)
    few, many = (plotting.predicted_observed(values[:n], values[:n], ax=Figure().subplots()) for n in (100, 3000))
    assert not few.lines[0].get_rasterized()
    assert many.lines[0].get_rasterized()


def test_the_band_of_a_calibration_curve_is_computed_where_it_is_drawn(monkeypatch):
    event, time, survival, grid, _ = curves(2000, 3)
    sizes = []
    known = np.nanquantile
    monkeypatch.setattr(
        np, "nanquantile", lambda draws, *q, **axis: sizes.append(draws.shape) or known(draws, *q, **axis)
    )
    ax = plotting.survival_calibration(event, time, survival[:, 1], grid[1], n_resamples=20, ax=Figure().subplots())
    (shape,) = sizes
    assert shape == (20, len(ax.lines[-1].get_xydata()))
    assert shape[1] < 500
    weights = metrics.bootstrap_weights(2000, 20, random_state=0)
    draws = metrics.survival_calibration_curve(event, time, survival[:, 1], grid[1], weights)
    (band,) = (each for each in ax.collections if isinstance(each, PolyCollection))
    shown = np.isin(1 - survival[:, 1], ax.lines[-1].get_xdata())
    limits, heights = known(draws[:, shown], [0.025, 0.975], axis=0), band.get_paths()[0].vertices[:, 1]
    assert np.abs(limits[..., None] - heights).min(axis=-1).max() < 1e-9


@pytest.mark.parametrize("penalty", [np.full(6, 3.0), np.array([3.0] * 3 + [0.5] * 3)])
def test_a_ridge_regression_of_many_columns_is_that_of_few(penalty):
    """Columns of zeros change nothing but the way of the computation: by products of rows instead of columns."""
    rng = np.random.default_rng(0)
    few = rng.normal(size=(20, 6))
    many = np.hstack([few, np.zeros((20, 30))])
    target = torch.as_tensor(few[:, :1] - few[:, 4:5] + rng.normal(size=(20, 1)))
    fits = []
    for columns in (few, many):
        own = np.r_[penalty, np.full(columns.shape[1] - 6, penalty[0])]
        loss = lambda parameters: ((parameters - target) ** 2).mean(dim=(1, 2))  # noqa: E731
        problem = _Problem(columns, [np.arange(20)], loss, np.zeros(1), False)
        for factor in (10.0, 1.0):  # the second starts from the first
            (coefficients,), intercept = problem.fit(own * factor)
        fits.append((coefficients[:6], intercept))
        (values,), (features,), turn, turn_back = problem._turned(1 / np.sqrt(own))
        np.testing.assert_allclose(features @ features.T, (columns / own) @ columns.T, atol=1e-9)
        np.testing.assert_allclose(turn(turn_back(np.eye(len(values))[None]))[0], np.eye(len(values)), atol=1e-9)
    np.testing.assert_allclose(fits[0][0], fits[1][0], atol=1e-5)
    np.testing.assert_allclose(fits[0][1], fits[1][1], atol=1e-5)


def test_rows_of_many_columns_are_multiplied_once_for_all_common_penalties():
    products = []

    class Counted(np.ndarray):
        def __matmul__(self, other):
            products.append(np.shape(other)[-1])
            return np.asarray(self) @ np.asarray(other)

    rng = np.random.default_rng(0)
    columns, target = rng.normal(size=(20, 300)), torch.as_tensor(rng.normal(size=(20, 1)))
    loss = lambda parameters: ((parameters - target) ** 2).mean(dim=(1, 2))  # noqa: E731
    problem = _Problem(columns.view(Counted), [np.arange(20)], loss, np.zeros(1), False)
    assert products == [20]
    for penalty in (10.0, 1.0, 0.1):
        problem.fit(np.full(300, penalty))
    assert set(products[1:]) == {1}  # of the columns nothing but coefficients
