"""TabularEncoder against scikit-learn's own parts, and the laws of whatever learns from training rows."""

import datetime
import warnings
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
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
    X.loc[X.index[3::9], "clinical_sex"] = np.nan
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
    # scikit-learn's search for the power ends about 1e-8 beside the best one.
    atol = 1e-6 if scale == "power" else 1e-9
    for rows in (train, test):
        np.testing.assert_allclose(encoder.transform(rows), oracle.transform(rows).astype(float), atol=atol)


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
    assert TabularEncoder(add_indicator=False).fit(table).get_feature_names_out().tolist()[-1] == "clinical_site_right"
    assert list(encoder.categories_) == ["clinical_sex", "clinical_site"]


@pytest.mark.filterwarnings("ignore:categories that were not seen")
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
    told = r"'clinical_sex' in 1 of 3 rows: 'divers' \(rows \['P01'\]\); 'clinical_site' in 1 of 3 rows: 'both'"
    with pytest.warns(UserWarning, match=told) as caught:
        answer = encoder.transform(new)
    assert caught[0].filename == __file__
    out = pd.DataFrame(answer, columns=encoder.get_feature_names_out())
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


def test_strings_of_digits_are_numbers_and_categories_if_their_dtype_says_so():
    X = pd.DataFrame({"clinical_grade": ["1", "2", "10", "2"]})
    with pytest.warns(UserWarning, match=r"\['clinical_grade'\] hold numbers written as text .*astype\('category'\)"):
        encoder = TabularEncoder(scale=None).fit(X)
    assert encoder.transform(X).ravel().tolist() == [1, 2, 10, 2]
    encoder = TabularEncoder().fit(X.astype("category"))
    assert encoder.get_feature_names_out().tolist() == ["clinical_grade_1", "clinical_grade_2", "clinical_grade_10"]
    assert encoder.transform(X).sum(axis=1).tolist() == [1, 1, 1, 1]


def test_a_number_column_that_turns_into_text_is_refused():
    encoder = TabularEncoder(scale=None).fit(pd.DataFrame({"clinical_age": [60.0, 70.0]}))
    assert encoder.transform(pd.DataFrame({"clinical_age": ["61", "62"]})).ravel().tolist() == [61, 62]
    with pytest.raises(
        ValueError, match=r"'clinical_age' held numbers in fit .* 'sixty' \(rows \[0\]\); convert it to numbers"
    ):
        encoder.transform(pd.DataFrame({"clinical_age": ["sixty", "70"]}))


def test_dates_infinities_and_repeated_columns_are_refused():
    dates = pd.DataFrame({"clinical_diagnosis": pd.to_datetime(["2020-01-01", None])})
    with pytest.raises(ValueError, match="'clinical_diagnosis' holds datetime64; give a number instead"):
        TabularEncoder().fit(dates)
    with pytest.raises(ValueError, match=r"'clinical_age' is infinite in rows \['b'\]"):
        TabularEncoder().fit(pd.DataFrame({"clinical_age": [1.0, np.inf]}, index=["a", "b"]))
    with pytest.raises(ValueError, match=r"X has the columns \['clinical_age'\] more than once"):
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
    with pytest.raises(ValueError, match="'impute' parameter of TabularEncoder must be .* Got 'zero'"):
        TabularEncoder(impute="zero").fit(table)
    with pytest.raises(ValueError, match="'scale' parameter of TabularEncoder must be .* Got 'minmax'"):
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


# -- what a column means -----------------------------------------------------------------------------------------------

ONE = {
    "text": ["1", "2", None, "2"],
    "padded text": [" 1", "2 ", " ", "2"],
    "text of floats": ["1.0", "2.0", None, "2.0"],
    "int": pd.array([1, 2, None, 2], dtype="Int64"),
    "float": [1.0, 2.0, np.nan, 2.0],
    "object": np.array([1, 2.0, None, 2], dtype=object),
    "mixed": np.array([1, "2", None, 2.0], dtype=object),
    "boolean beside a number": np.array([True, 2, None, 2], dtype=object),
    "category of int": pd.Categorical([1, 2, None, 2]),
    "category of text": pd.Categorical(["1", "2", None, "2"]),
    "arrow": pd.array([1, 2, None, 2], dtype="int8[pyarrow]"),
    "arrow text": pd.array(["1", "2", None, "2"], dtype="string[pyarrow]"),
    "sparse": pd.arrays.SparseArray([1.0, 2.0, np.nan, 2.0]),
    "decimal": np.array([Decimal("1"), Decimal("2.0"), None, Decimal("2")], dtype=object),
}


@pytest.mark.filterwarnings("ignore:the columns .* hold numbers written as text")
@pytest.mark.parametrize("later", ONE)
@pytest.mark.parametrize("first", ONE)
def test_one_number_and_one_category_whatever_the_dtype(first, later):
    train, test = (pd.DataFrame({"clinical_n": ONE[kind]}) for kind in (first, later))
    encoder = TabularEncoder(scale=None).fit(train)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        answer = encoder.transform(test)
    if first.startswith("category"):
        assert encoder.get_feature_names_out().tolist() == ["clinical_n_1", "clinical_n_2", "clinical_n_missing"]
        assert answer.tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 1, 0]]
    else:
        assert answer.tolist() == [[1, 0], [2, 0], [2, 1], [2, 0]]


@pytest.mark.parametrize(
    "first",
    [
        [True, False, None, True],
        ["True", "False", None, "True"],
        [1, 0, None, 1],
        pd.Categorical([True, False, None, True]),
    ],
    ids=["boolean", "text", "number", "category"],
)
def test_true_is_one_in_any_dtype(first):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "the columns .* hold numbers written as text")
        encoder = TabularEncoder(scale=None).fit(pd.DataFrame({"clinical_smoker": first}))
        answers = [
            encoder.transform(pd.DataFrame({"clinical_smoker": values}))
            for values in (
                [True, False, None, True],
                pd.array([True, False, None, True], dtype="boolean"),
                ["True", "false", None, "TRUE"],
                [1.0, 0.0, np.nan, 1.0],
                ["1", "0", "", "1"],
            )
        ]
    for answer in answers:
        np.testing.assert_array_equal(answer, answers[0])
    assert answers[0][0].tolist() != answers[0][1].tolist()


@pytest.mark.parametrize(
    ("values", "told"),
    [
        (
            ["65", "70", "unknown", "58"],
            r"holds 3 numbers and the words 'unknown' \(rows \['c'\]\).*astype\('category'\)",
        ),
        ([65, 70.5, "unknown", 58], r"the words 'unknown' \(rows \['c'\]\)"),
        (["65,5", "70,1", "58,0", "60,2"], r"the words '65,5' \(rows \['a'\]\).*decimals with a point"),
        (["1.5", "<0.1", "nan", "2"], r"'<0.1' \(rows \['b'\]\), 'nan' \(rows \['c'\]\)"),
        ([65, True, "True", 58], r"the words 'True' \(rows \['c'\]\)"),
        (["1", "2", "inf", "3"], r"the words 'inf'"),
    ],
)
def test_words_in_a_column_of_numbers_are_refused_with_their_rows(values, told):
    X = pd.DataFrame({"clinical_age": pd.Series(values, dtype=object, index=list("abcd"))})
    with pytest.raises(ValueError, match=told):
        TabularEncoder().fit(X)
    encoder = TabularEncoder().fit(pd.DataFrame({"clinical_age": [60.0, 70.0]}))
    with pytest.raises(ValueError, match="'clinical_age' held numbers in fit and holds the words"):
        encoder.transform(X)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "column .* holds the text 'nan'")
        categories = TabularEncoder().fit(X.astype("category"))
    assert len(categories.categories_["clinical_age"]) == len(set(map(str, values)))


def test_many_numbers_between_words_are_refused_and_few_are_categories():
    words = ["left"] * 40
    with pytest.raises(ValueError, match="holds 12 numbers and the words 'left'"):
        TabularEncoder().fit(pd.DataFrame({"clinical_side": words + list(range(12))}))
    encoder = TabularEncoder().fit(pd.DataFrame({"clinical_side": [*words, 2, "2", 1.0, "T1"]}))
    assert encoder.categories_["clinical_side"].tolist() == ["1", "2", "T1", "left"]


def test_codes_with_leading_zeros_stay_apart():
    X = pd.DataFrame({"clinical_code": pd.Categorical(["01", "1", "7", "007"])})
    assert TabularEncoder().fit(X).categories_["clinical_code"].tolist() == ["01", "1", "007", "7"]


@pytest.mark.parametrize(
    ("values", "told"),
    [
        (pd.period_range("2020-01", periods=3, freq="M"), "holds period"),
        (pd.to_timedelta([1, 2, 3], unit="D"), "holds timedelta64"),
        (pd.array([datetime.date(2020, 1, 1)] * 3, dtype="date32[pyarrow]"), "holds date"),
        (np.array([datetime.date(2020, 1, 1), None, "x"], dtype=object), "holds date"),
        (["2020-01-05", "2020-02-07", None], "dates written as text, such as '2020-01-05'"),
        (["5.1.2020", "7.2.2020 11:30", None], "dates written as text"),
        (pd.Categorical(pd.to_datetime(["2020-01-01", "2020-01-02", "2020-01-02"])), "holds datetime"),
        (np.array([[1], [2], None], dtype=object), r"holds a list, \[1\]"),
        (np.array([b"F", b"M", None], dtype=object), "holds a bytes, b'F'"),
        ([1 + 2j, 3.0, 4.0], "holds a complex"),
        (pd.Series([10**400, 1, 2], dtype=object), "infinite in rows"),
    ],
)
def test_what_is_no_number_and_no_category_is_refused(values, told):
    with pytest.raises(ValueError, match=told):
        TabularEncoder().fit(pd.DataFrame({"clinical_x": values}))


def test_ids_and_free_text_are_refused_and_many_categories_said():
    ids = pd.DataFrame({"clinical_note": [f"note of patient {i}" for i in range(40)]})
    with pytest.raises(ValueError, match="'clinical_note' holds 40 different texts in 40 rows.*an id or free text"):
        TabularEncoder().fit(ids)
    with pytest.warns(UserWarning, match="has 40 categories in 40 rows; few patients share one"):
        TabularEncoder().fit(ids.astype("category"))
    with pytest.warns(UserWarning, match="has 12 categories in 12 rows"):
        TabularEncoder().fit(ids.head(12))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        TabularEncoder().fit(pd.DataFrame({"clinical_centre": [f"centre {i}" for i in range(15)] * 2}))


REPORTS = [f"Solid mass of {i} mm in the right upper lobe, no effusion." for i in range(12)]
LABELS = {
    "shared, however long": ["squamous cell carcinoma, not otherwise specified (keratinising)", "adenocarcinoma"] * 6,
    "few words": [f"right upper lobe {i}" for i in range(12)],
    "half of them shared": [*REPORTS[:5], *["no mass in any lobe, no effusion"] * 7],
    "words and gaps": ["lobectomy", None, "wedge resection", "lobectomy", None, "pneumonectomy"] * 2,
}


@pytest.mark.parametrize("reports", [REPORTS, [*REPORTS[:8], None, "", *REPORTS[:2]], REPORTS[:5]])
def test_free_text_is_refused_and_says_how_to_give_it(reports):
    X = pd.DataFrame({"clinical_report": reports, "clinical_age": np.arange(len(reports), dtype=float)})
    message = "'clinical_report' holds free text, such as 'Solid mass .* column 'clinical_report_vectors' with arrays"
    with pytest.raises(ValueError, match=message):
        TabularEncoder().fit(X)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        TabularEncoder().fit(X.astype({"clinical_report": "category"}))


@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
def test_labels_are_no_free_text(labels):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        encoder = TabularEncoder().fit(pd.DataFrame({"clinical_label": labels}))
    assert len(encoder.categories_["clinical_label"]) == len({label for label in labels if label})


def test_doubtful_categories_are_said():
    X = pd.DataFrame({"clinical_sex": ["Male", "male", "nan", "female"]})
    with pytest.warns(UserWarning) as caught:
        TabularEncoder().fit(X)
    told = [str(w.message) for w in caught]
    assert len(told) == 2 and {w.filename for w in caught} == {__file__}
    assert "differ by case only: [['Male', 'male']]" in told[0]
    assert "holds the text 'nan' (rows [2]), read as a category" in told[1]


@pytest.mark.parametrize("later", [["a", "b"], [1.0, 2.0], pd.to_datetime(["2020-01-01", "2021-01-01"]), [None, None]])
def test_a_column_empty_in_training_is_ignored_later_whatever_it_holds(later):
    X = pd.DataFrame({"clinical_age": [60.0, 70.0], "clinical_note": pd.Series([None, None], dtype=object)})
    with pytest.warns(UserWarning, match=r"\['clinical_note'\] have no value"):
        encoder = TabularEncoder().fit(X)
    np.testing.assert_array_equal(encoder.transform(X.assign(clinical_note=later)), encoder.transform(X))


def test_a_column_that_did_not_vary_in_training_means_nothing_later():
    encoder = TabularEncoder().fit(pd.DataFrame({"clinical_age": [60.0, 70.0], "clinical_stage": 3.0}))
    later = encoder.transform(pd.DataFrame({"clinical_age": [60.0, 70.0], "clinical_stage": [1e9, -4.0]}))
    assert (later[:, 1] == 0).all()


def test_names_are_unique():
    X = pd.DataFrame(
        {
            "clinical_sex": ["M", "F", None, "missing"] * 3,
            "clinical_a": ["b_c", "x"] * 6,
            "clinical_a_b": ["c", "y"] * 6,
            "clinical_sex_F": np.arange(12.0),
        }
    )
    names = TabularEncoder().fit(X).get_feature_names_out().tolist()
    assert len(set(names)) == len(names)
    assert names == [
        "clinical_sex_F",
        "clinical_sex='F'",
        "clinical_sex_M",
        "clinical_sex='missing'",
        "clinical_a='b_c'",
        "clinical_a_x",
        "clinical_a_b='c'",
        "clinical_a_b_y",
        "clinical_sex is missing",
    ]


def test_the_order_of_rows_and_of_categories_changes_no_name(table):
    shuffled = table.sample(frac=1, random_state=0)
    shuffled["clinical_site"] = shuffled["clinical_site"].cat.reorder_categories(["both", "left", "right"])
    first, second = TabularEncoder().fit(table), TabularEncoder().fit(shuffled)
    assert first.get_feature_names_out().tolist() == second.get_feature_names_out().tolist()
    np.testing.assert_allclose(second.transform(table), first.transform(table), atol=1e-7)


def test_tables_of_other_libraries_are_refused_with_the_conversion(table):
    pyarrow = pytest.importorskip("pyarrow")
    other = pyarrow.Table.from_pandas(table)
    for call in (lambda: TabularEncoder().fit(other), lambda: TabularEncoder().fit(table).transform(other)):
        with pytest.raises(TypeError, match=r"X must be pandas; got a pyarrow Table.*X.to_pandas\(\)"):
            call()


@pytest.mark.parametrize("scale", ["power", "standard", None])
@pytest.mark.parametrize("impute", ["median", "mean"])
def test_a_weight_is_a_repetition_and_weight_zero_no_patient(table, scale, impute):
    weight = pd.Series(np.random.default_rng(0).integers(0, 4, len(table)), index=table.index)
    table = table.assign(clinical_sex=table["clinical_sex"].where(weight > 0, "divers"))
    encoder = TabularEncoder(scale=scale, impute=impute)
    repeated = table.loc[table.index.repeat(weight)].reset_index(drop=True)
    expected = encoder.fit(repeated).transform(repeated)
    shuffled = weight.sample(frac=1, random_state=0)  # joined by id
    found = encoder.fit(table, sample_weight=shuffled).transform(repeated)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert encoder.categories_["clinical_sex"].tolist() == ["F", "M"]
    with pytest.raises(ValueError, match="at least one non-zero"):
        encoder.fit(table, sample_weight=np.zeros(40))
    with pytest.raises(ValueError, match="[Nn]egative"):
        encoder.fit(table, sample_weight=-np.ones(40))


@pytest.mark.parametrize(
    ("params", "told"),
    [
        ({"add_indicator": "yes"}, "'add_indicator' parameter"),
        ({"hidden_sizes": 16}, "'hidden_sizes' parameter"),
        ({"hidden_sizes": "16"}, "'hidden_sizes' parameter"),
        ({"hidden_sizes": (16, 0)}, "hidden_sizes must hold whole numbers of at least 1"),
        ({"hidden_sizes": [np.nan]}, "hidden_sizes must hold"),
        ({"scale": True}, "'scale' parameter"),
    ],
)
def test_parameters_are_checked_by_name(table, params, told):
    with pytest.raises(ValueError, match=told):
        TabularEncoder(**params).fit(table)


RECODED = [
    lambda column: column,
    lambda column: column.astype(object).where(column.notna(), None),
    lambda column: column.convert_dtypes(),
    lambda column: column.convert_dtypes(dtype_backend="pyarrow"),
    lambda column: column.map(lambda value: f" {value} ", na_action="ignore").astype(object),
    lambda column: column.map(str, na_action="ignore").fillna(""),
    lambda column: column.astype("category"),
    lambda column: column.map(str, na_action="ignore").astype("category"),
]


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 9999),
    n=st.integers(3, 25),
    first=st.lists(st.integers(0, 5), min_size=5, max_size=5),
    later=st.lists(st.integers(0, 7), min_size=5, max_size=5),
)
def test_a_table_gives_the_same_numbers_in_any_dtype(seed, n, first, later):
    """A categorical dtype in fit makes categories of numbers, so that fit takes the other codings only."""
    rng = np.random.default_rng(seed)
    clean = pd.DataFrame(
        {
            "clinical_age": rng.normal(66, 9, n).round(1),
            "clinical_ecog": rng.integers(0, 3, n).astype(float),
            "clinical_smoker": rng.random(n) < 0.5,
            "clinical_sex": rng.choice(["F", "M"], n),
            "clinical_year": rng.integers(2005, 2020, n),
        }
    )
    clean = clean.astype(object).mask(rng.random(clean.shape) < 0.1).infer_objects()
    expected = TabularEncoder().fit(clean).transform(clean)
    pairs = list(zip(clean.columns, first, later, strict=True))
    train = pd.DataFrame({name: RECODED[i](clean[name]) for name, i, _ in pairs})
    test = pd.DataFrame({name: RECODED[i](clean[name]) for name, _, i in pairs})
    encoder = TabularEncoder().fit(train)
    np.testing.assert_allclose(encoder.transform(test), expected, atol=1e-9)
