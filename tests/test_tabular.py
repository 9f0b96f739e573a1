"""TabularEncoder against scikit-learn's own parts, and the laws of whatever learns from training rows."""

import warnings

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import make_column_transformer
from sklearn.exceptions import NotFittedError
from sklearn.impute import MissingIndicator, SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, PowerTransformer, StandardScaler

from mmdls.estimators import TabularEncoder

NUMBERS = ["clinical_age", "clinical_diameter", "clinical_smoker"]


@pytest.fixture
def table():
    """Forty patients: skewed and plain numbers, booleans, strings and categories, some cells missing."""
    rng = np.random.default_rng(0)
    X = pd.DataFrame(
        {
            "clinical_age": rng.normal(66, 9, 40).round(),
            "clinical_sex": rng.choice(["F", "M"], 40),
            "clinical_diameter": rng.lognormal(1, 0.8, 40),
            "clinical_smoker": rng.random(40) < 0.6,
            "clinical_site": pd.Categorical(rng.choice(["left", "right"], 40), categories=["right", "left", "both"]),
        },
        index=[f"P{i:02d}" for i in range(40)],
    )
    X.loc[X.index[::7], "clinical_diameter"] = np.nan
    X.loc[X.index[3::9], "clinical_sex"] = None
    return X


@pytest.mark.parametrize("impute", ["median", "mean"])
@pytest.mark.parametrize("scale", ["power", "standard", None])
def test_equals_the_parts_of_scikit_learn(table, impute, scale):
    train, test = table.iloc[:30], table.iloc[30:]
    numbers = train[["clinical_age", "clinical_diameter"]]
    sizes = numbers.fillna(numbers.agg(impute)).median().to_numpy()
    power = make_pipeline(FunctionTransformer(lambda X: 10 * X / sizes), PowerTransformer())
    scaler = {"power": power, "standard": StandardScaler(), None: "passthrough"}[scale]
    oracle = make_column_transformer(
        (make_pipeline(SimpleImputer(strategy=impute), scaler), ["clinical_age", "clinical_diameter"]),
        # Two values cannot be straightened, only scaled.
        ("passthrough" if scale is None else StandardScaler(), ["clinical_smoker"]),
        (
            OneHotEncoder(categories=[["F", "M"], ["left", "right"]], handle_unknown="ignore", sparse_output=False),
            ["clinical_sex", "clinical_site"],
        ),
        (MissingIndicator(), ["clinical_sex", "clinical_diameter"]),
    )
    encoder = TabularEncoder(impute=impute, scale=scale).fit(train)
    oracle.fit(train)
    for rows in (train, test):
        np.testing.assert_allclose(encoder.transform(rows), oracle.transform(rows).astype(float), atol=1e-9)


def test_names_of_the_columns_in_their_order(table):
    encoder = TabularEncoder().fit(table)
    assert encoder.get_feature_names_out().tolist() == [
        *NUMBERS,
        "clinical_sex_F",
        "clinical_sex_M",
        "clinical_site_left",
        "clinical_site_right",
        "clinical_sex_missing",
        "clinical_diameter_missing",
    ]
    assert encoder.transform(table).shape == (40, 9)
    assert TabularEncoder(indicators=False).fit(table).get_feature_names_out().tolist()[-1] == "clinical_site_right"
    assert list(encoder.categories_) == ["clinical_sex", "clinical_site"]


@pytest.mark.parametrize("scale", ["power", "standard", None])
def test_only_training_rows_are_learned_from(table, scale):
    train, test = table.iloc[:30], table.iloc[30:].copy()
    encoder = TabularEncoder(scale=scale).fit(train)
    before = encoder.transform(train)
    test["clinical_age"] = 1e6
    test["clinical_sex"] = "unheard of"
    encoder.transform(test)
    np.testing.assert_array_equal(encoder.transform(train), before)
    together = encoder.transform(pd.concat([train, test]))
    np.testing.assert_array_equal(together[:30], before)
    np.testing.assert_array_equal(together[30:], np.vstack([encoder.transform(test.iloc[[i]]) for i in range(10)]))


@pytest.mark.parametrize("scale", ["power", "standard"])
def test_scaled_training_rows_have_mean_zero_and_spread_one(table, scale):
    scaled = TabularEncoder(scale=scale).fit_transform(table)[:, :3]
    np.testing.assert_allclose(scaled.mean(axis=0), 0, atol=1e-9)
    np.testing.assert_allclose(scaled.std(axis=0), 1, atol=1e-9)


def test_a_power_straightens_a_tail(table):
    def skewness(values):
        return np.mean(((values - values.mean()) / values.std()) ** 3)

    raw, straight = (TabularEncoder(scale=scale).fit_transform(table)[:, 1] for scale in ("standard", "power"))
    assert skewness(raw) > 1 > 0.3 > abs(skewness(straight))
    np.testing.assert_array_equal(np.argsort(raw, kind="stable"), np.argsort(straight, kind="stable"))


@pytest.mark.parametrize("unit", [1e-6, 1e-3, 10.0, 1e6])
@pytest.mark.parametrize("scale", ["power", "standard"])
def test_a_unit_changes_nothing(table, scale, unit):
    growth = np.r_[np.zeros(25), np.random.default_rng(0).normal(size=15)]
    X = table[["clinical_age", "clinical_diameter"]].assign(clinical_growth=growth)
    encoder = TabularEncoder(scale=scale)
    np.testing.assert_allclose(encoder.fit_transform(X * unit), encoder.fit_transform(X), atol=1e-6)


def test_a_typing_error_after_a_steep_power_stays_finite():
    """Sodium spreads by a hundredth of itself, skewed to the left: the exponent is large, a tenfold value overflows."""
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"clinical_sodium": 145 - rng.gamma(1, 2, 200)})
    encoder = TabularEncoder().fit(X)
    most = X["clinical_sodium"].max() + np.ptp(X["clinical_sodium"])
    new = pd.DataFrame({"clinical_sodium": [1400.0, most, 1e30, 140.0, X["clinical_sodium"].max() + 1]})
    scaled = encoder.transform(new)[:, 0]
    assert scaled[0] == scaled[1] == scaled[2] < 1e6
    assert np.abs(scaled[3]) < 3 and np.abs(encoder.transform(X)).max() < 10 and scaled[4] < scaled[0]


def test_a_missing_number_gets_the_training_filling_and_its_mark(table):
    train = table.iloc[:30]
    encoder = TabularEncoder(scale=None).fit(train)
    out = pd.DataFrame(encoder.transform(table), table.index, encoder.get_feature_names_out())
    lost = table["clinical_diameter"].isna()
    assert (out.loc[lost, "clinical_diameter"] == train["clinical_diameter"].median()).all()
    assert (out.loc[~lost, "clinical_diameter"] == table.loc[~lost, "clinical_diameter"]).all()
    assert (out["clinical_diameter_missing"] == lost).all()


def test_a_number_that_is_missing_only_later_is_filled_without_a_mark(table):
    encoder = TabularEncoder(scale=None).fit(table)
    later = table.assign(clinical_age=np.nan)
    assert (encoder.transform(later)[:, 0] == table["clinical_age"].median()).all()
    assert "clinical_age_missing" not in encoder.get_feature_names_out()


def test_without_imputing_a_missing_number_stays_missing(table):
    for scale in ("power", "standard", None):
        out = TabularEncoder(impute=None, scale=scale).fit_transform(table)
        np.testing.assert_array_equal(np.isnan(out[:, 1]), table["clinical_diameter"].isna())
        assert np.isfinite(np.delete(out, 1, axis=1)).all()


def test_missing_and_unseen_categories_are_all_zeros(table):
    encoder = TabularEncoder(scale=None).fit(table)
    new = table.iloc[:3].copy()
    new["clinical_sex"] = ["F", "divers", None]
    new["clinical_site"] = pd.Categorical(["both", None, "left"])
    out = pd.DataFrame(encoder.transform(new), columns=encoder.get_feature_names_out())
    assert out[["clinical_sex_F", "clinical_sex_M"]].to_numpy().tolist() == [[1, 0], [0, 0], [0, 0]]
    assert out[["clinical_site_left", "clinical_site_right"]].to_numpy().tolist() == [[0, 0], [0, 0], [1, 0]]
    assert out["clinical_sex_missing"].tolist() == [0, 0, 1]


@pytest.mark.parametrize(
    "empty",
    [np.full(6, np.nan), np.full(6, None), pd.array([pd.NA] * 6, dtype="Int64"), pd.Categorical([None] * 6)],
    ids=["NaN", "None", "NA", "categorical"],
)
def test_a_column_without_any_value_is_said_and_tells_nothing(empty):
    X = pd.DataFrame({"clinical_age": np.arange(6.0), "pet_suvmax": empty})
    with pytest.warns(UserWarning, match=r"\['pet_suvmax'\] have no value in any of the 6 training rows") as caught:
        encoder = TabularEncoder().fit(X)
    assert caught[0].filename == __file__
    assert encoder.get_feature_names_out().tolist() == ["clinical_age", "pet_suvmax"]
    assert (encoder.transform(X)[:, 1] == 0).all()
    later = X.assign(pet_suvmax=np.arange(6.0))
    np.testing.assert_array_equal(encoder.transform(later), encoder.transform(X))


def test_a_constant_column_becomes_zero():
    X = pd.DataFrame({"clinical_age": np.arange(6.0), "clinical_stage": 3.0})
    for scale in ("power", "standard"):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert (TabularEncoder(scale=scale).fit_transform(X)[:, 1] == 0).all()


@pytest.mark.parametrize(
    "values",
    [
        [True, False, True, True],
        pd.array([True, False, True, True], dtype="boolean"),
        np.array([True, False, True, True], dtype=object),
        np.array([1, 0, 1, 1], dtype=object),
        pd.array([1, 0, 1, 1], dtype="Int64"),
        np.array([1, 0, 1, 1], dtype=np.float32),
    ],
    ids=["bool", "boolean", "object of bool", "object of int", "Int64", "float32"],
)
def test_numbers_and_booleans_of_every_dtype_are_numbers(values):
    X = pd.DataFrame({"clinical_n": values})
    encoder = TabularEncoder(scale=None).fit(X)
    assert encoder.categories_ == {}
    assert encoder.transform(X).ravel().tolist() == [1, 0, 1, 1]
    gap = X.astype(object)
    gap.iloc[1, 0] = None
    refitted = TabularEncoder(scale=None).fit(gap)
    assert refitted.transform(gap).tolist() == [[1, 0], [1, 1], [1, 0], [1, 0]]
    np.testing.assert_array_equal(encoder.transform(gap).ravel(), [1, 1, 1, 1])


def test_strings_of_digits_are_categories_in_fit():
    X = pd.DataFrame({"clinical_grade": ["1", "2", "10", "2"]})
    encoder = TabularEncoder().fit(X)
    assert encoder.get_feature_names_out().tolist() == ["clinical_grade_1", "clinical_grade_10", "clinical_grade_2"]
    assert encoder.transform(X).sum(axis=1).tolist() == [1, 1, 1, 1]


def test_a_number_column_that_turns_into_text_is_refused():
    encoder = TabularEncoder(scale=None).fit(pd.DataFrame({"clinical_age": [60.0, 70.0]}))
    assert encoder.transform(pd.DataFrame({"clinical_age": ["61", "62"]})).ravel().tolist() == [61, 62]
    with pytest.raises(ValueError, match="'clinical_age' held numbers in fit .* 'sixty'; convert it to numbers"):
        encoder.transform(pd.DataFrame({"clinical_age": ["sixty", "70"]}))


def test_dates_infinities_and_repeated_columns_are_refused():
    dates = pd.DataFrame({"clinical_diagnosis": pd.to_datetime(["2020-01-01", None])})
    with pytest.raises(ValueError, match="'clinical_diagnosis' holds datetime64; give a number instead"):
        TabularEncoder().fit(dates)
    with pytest.raises(ValueError, match=r"'clinical_age' is infinite in rows \['b'\]"):
        TabularEncoder().fit(pd.DataFrame({"clinical_age": [1.0, np.inf]}, index=["a", "b"]))
    with pytest.raises(ValueError, match="unique column names, got:\n- 'clinical_age' 2 times"):
        TabularEncoder().fit(pd.DataFrame([[1.0, 2.0]], columns=["clinical_age", "clinical_age"]))
    with pytest.raises(ValueError, match="0 sample"):
        TabularEncoder().fit(pd.DataFrame({"clinical_age": []}))


def test_columns_must_be_those_of_fit_in_their_order(table):
    encoder = TabularEncoder().fit(table)
    with pytest.raises(ValueError, match="missing:\n- clinical_age"):
        encoder.transform(table.drop(columns="clinical_age"))
    with pytest.raises(ValueError, match="unseen at fit time:\n- clinical_weight"):
        encoder.transform(table.assign(clinical_weight=70))
    with pytest.raises(ValueError, match="same order"):
        encoder.transform(table[table.columns[::-1]])


def test_an_array_may_follow_a_table_and_the_other_way_round(table):
    values = table.astype(object).to_numpy()
    from_table, from_array = TabularEncoder().fit(table), TabularEncoder().fit(values)
    assert from_array.get_feature_names_out()[0] == "x0"
    np.testing.assert_allclose(from_array.transform(values), from_table.transform(table), atol=1e-12)
    with pytest.warns(UserWarning, match="X does not have valid feature names"):
        np.testing.assert_array_equal(from_table.transform(values), from_table.transform(table))
    with pytest.warns(UserWarning, match="X has feature names"):
        np.testing.assert_array_equal(from_array.transform(table), from_array.transform(values))


def test_wrong_parameters_and_an_unfitted_encoder(table):
    with pytest.raises(ValueError, match="impute must be 'median', 'mean' or None; got 'zero'"):
        TabularEncoder(impute="zero").fit(table)
    with pytest.raises(ValueError, match="scale must be 'power', 'standard' or None; got 'minmax'"):
        TabularEncoder(scale="minmax").fit(table)
    with pytest.raises(NotFittedError):
        TabularEncoder().transform(table)
    with pytest.raises(NotFittedError):
        TabularEncoder().get_feature_names_out()


def test_fit_changes_nothing_it_was_given(table):
    before = table.copy()
    encoder = TabularEncoder()
    encoder.fit(table).transform(table)
    pd.testing.assert_frame_equal(table, before)
