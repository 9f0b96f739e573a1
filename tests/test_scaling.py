"""Numbers of any unit, offset and spread: what the default scaling keeps of every column."""

import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import yeojohnson, yeojohnson_llf
from sklearn.preprocessing import StandardScaler

from mmdls.estimators import TabularEncoder
from mmdls.estimators.columns._quantiles import weighted_quantile
from mmdls.estimators.columns._scaling import NumberScaler


def shapes(rng, n):
    """Columns as they come in tables of patients, around 0."""
    return {
        "normal": rng.normal(size=n),
        "skewed": rng.exponential(size=n),
        "skewed to the left": -rng.gamma(1, 2, n),
        "heavy tails": rng.standard_cauchy(n) ** 3,
        "integers": np.floor(rng.exponential(3, n)),
        "two values": rng.integers(0, 2, n).astype(float),
        "three values": rng.integers(0, 3, n).astype(float),
        "one outlier": np.r_[1e6, rng.normal(size=n - 1)],
        "one that differs": np.r_[1.0, np.zeros(n - 1)],
        "many zeros": np.where(rng.random(n) < 0.8, 0.0, rng.lognormal(size=n)),
        "lognormal": rng.lognormal(0, 3, n),
    }


SHAPES = list(shapes(np.random.default_rng(0), 5))


@settings(max_examples=150, deadline=None)
@given(
    shape=st.sampled_from(SHAPES),
    seed=st.integers(0, 10_000),
    n=st.integers(4, 60),
    unit=st.sampled_from([1e-300, 1e-9, 1e-6, 0.01, 1.0, 1e3, 1e9, 1e200, -1.0]),
    offset=st.sampled_from([0.0, 0.0, 1.0, 7.4, 37.0, 2005.0, -2005.0, 1e6, 1e12, -1e12]),
    power=st.booleans(),
    gaps=st.booleans(),
)
def test_no_column_that_varied_comes_out_constant(shape, seed, n, unit, offset, power, gaps):
    rng = np.random.default_rng(seed)
    column = shapes(rng, n)[shape] * unit + offset * (1.0 if abs(unit) < 1e100 else unit)
    if gaps:
        column[rng.random(n) < 0.2] = np.nan
    known = column[~np.isnan(column)]
    if not len(known) or np.ptp(known) == 0:
        return
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scaler = NumberScaler(power=power).fit(column[:, None])
        scaled = scaler.transform(column[:, None]).ravel()
    np.testing.assert_array_equal(np.isnan(scaled), np.isnan(column))
    scaled = scaled[~np.isnan(column)]
    assert np.isfinite(scaled).all() and scaled.mean() == pytest.approx(0, abs=1e-9)
    assert scaled.std() == pytest.approx(1, abs=1e-9)
    order = np.argsort(known, kind="stable")
    assert (np.diff(scaled[order]) >= 0).all()
    assert len(np.unique(scaled)) >= 0.9 * len(np.unique(NumberScaler(power=False).fit_transform(known[:, None])))

    most = np.finfo(float).max
    around = known[order]
    new = np.sort(
        np.r_[-most, -1e30, -1.0, 0.0, 1.0, 1e30, most, around, around * 1.01, around * 100 if unit < 1e100 else 0]
    )
    later = scaler.transform(new[:, None]).ravel()
    assert np.isfinite(later.astype(np.float32)).all() and (np.diff(later) >= -1e-12).all()


@pytest.mark.parametrize("offset", [1e3, 1e6, 1e9])
def test_an_offset_costs_no_digit(offset):
    """Far from 0 the power of a skewed column tends to an exponential of the distance, whatever the offset."""
    column = np.random.default_rng(0).exponential(1024, size=(200, 1)).round() / 1024  # added without rounding
    near = NumberScaler().fit_transform(column + 2.0**40)
    np.testing.assert_allclose(NumberScaler().fit_transform(column + offset), near, atol=max(20 / offset, 1e-6))


def test_powers_are_those_of_the_highest_likelihood():
    rng = np.random.default_rng(0)
    X = np.column_stack(
        [shape * 3 for name, shape in shapes(rng, 200).items() if name not in ("two values", "one that differs")]
    )
    X[::7, 0] = np.nan
    scaler = NumberScaler().fit(X)
    for column, power in zip(X.T, scaler.powers_, strict=True):
        known = column[~np.isnan(column)]
        if np.isnan(power):
            continue
        known = 10 * known / np.median(np.abs(known[known != 0]))
        best = yeojohnson(known)[1]
        assert yeojohnson_llf(power, known) >= yeojohnson_llf(best, known) - 1e-8
        assert power == pytest.approx(best, rel=1e-5, abs=1e-6)
    assert np.isfinite(scaler.powers_).sum() >= 7


def test_where_a_power_would_merge_values_a_column_is_standardised():
    column = np.r_[1e308, -1e308, np.random.default_rng(0).normal(size=50)][:, None]
    scaler = NumberScaler().fit(column)
    assert np.isnan(scaler.powers_[0])
    np.testing.assert_array_equal(scaler.transform(column), NumberScaler(power=False).fit_transform(column))


def test_standardising_is_that_of_scikit_learn():
    X = np.random.default_rng(0).normal(5, 3, size=(30, 4))
    new = X * 7 - 3
    np.testing.assert_allclose(
        NumberScaler(power=False).fit(X).transform(new), StandardScaler().fit(X).transform(new), atol=1e-12
    )


@pytest.mark.parametrize("power", [True, False])
def test_weights_are_repetitions_and_their_scale_means_nothing(power):
    rng = np.random.default_rng(0)
    X = np.column_stack(list(shapes(rng, 40).values())) + 3
    weight = rng.integers(0, 4, 40)
    weighted = NumberScaler(power=power).fit(X, sample_weight=weight / 7).transform(X)
    repeated = NumberScaler(power=power).fit(X.repeat(weight, axis=0)).transform(X)
    np.testing.assert_allclose(weighted, repeated, atol=1e-6)


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 999), probability=st.sampled_from([0.0, 0.1, 1 / 3, 0.5, 2 / 3, 0.9, 1.0]))
def test_a_weighted_quantile_is_that_of_repeated_values(seed, probability):
    rng = np.random.default_rng(seed)
    values, weight = rng.integers(0, 9, 12).astype(float), rng.integers(0, 4, 12)
    weight[0] = 1
    found = weighted_quantile(values, probability, weight * 0.1)
    expected = np.quantile(values.repeat(weight), probability, method="averaged_inverted_cdf")
    assert found == pytest.approx(expected)


def test_a_calendar_year_is_as_good_as_the_years_since():
    rng = np.random.default_rng(0)
    year = 2005 + np.floor(rng.exponential(3, 300))
    late, early = (
        TabularEncoder().fit_transform(pd.DataFrame({"clinical_year": year - start})).ravel() for start in (0, 2005)
    )
    assert late.std() == pytest.approx(1) and np.corrcoef(late, early)[0, 1] > 0.98
