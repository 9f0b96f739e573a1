"""Intraclass correlations, and the filter of columns that measure the same again."""

import numpy as np
import pandas as pd
import pytest
import sklearn
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.linear_model import Ridge
from sklearn.model_selection import KFold, cross_validate
from sklearn.pipeline import make_pipeline

from mmdls import StabilityFilter
from mmdls.metrics import intraclass_correlation

# Shrout and Fleiss 1979, table 2: six targets rated by four judges; table 4 has the correlations.
RATINGS = [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]]
PUBLISHED = {"ICC(1,1)": 0.17, "ICC(2,1)": 0.29, "ICC(3,1)": 0.71}


@pytest.mark.parametrize("form", PUBLISHED)
def test_the_published_example(form):
    assert round(intraclass_correlation(RATINGS, form), 2) == PUBLISHED[form]
    stacked = np.stack([RATINGS, 3.0 * np.array(RATINGS) + 1e9], axis=2)
    np.testing.assert_allclose(intraclass_correlation(stacked, form), intraclass_correlation(RATINGS, form))


def test_laws_of_the_forms():
    rng = np.random.default_rng(0)
    subject = rng.normal(0, 2, size=(20_000, 1))
    noisy = subject + rng.normal(0, 1, size=(20_000, 3))
    for form in PUBLISHED:
        assert intraclass_correlation(noisy, form) == pytest.approx(4 / 5, abs=0.01)
        assert intraclass_correlation(np.repeat(subject, 3, axis=1), form) == 1.0
    # A constant difference between repeats is an error of agreement, and none of consistency.
    shifted = noisy + [0.0, 5.0, -5.0]
    assert intraclass_correlation(shifted, "ICC(3,1)") == pytest.approx(intraclass_correlation(noisy, "ICC(3,1)"))
    assert intraclass_correlation(shifted, "ICC(2,1)") < 0.3
    with pytest.warns(UndefinedMetricWarning, match="all equal"):
        assert np.isnan(intraclass_correlation(np.ones((4, 2))))


@pytest.mark.parametrize(
    ("values", "form", "message"),
    [
        (RATINGS, "ICC(2,4)", "form must be one of"),
        ([[1.0, np.nan], [2.0, 3.0]], "ICC(2,1)", "must be finite"),
        ([[1.0], [2.0]], "ICC(2,1)", "two subjects and two repeats"),
    ],
)
def test_what_has_no_correlation_is_refused(values, form, message):
    with pytest.raises(ValueError, match=message):
        intraclass_correlation(values, form)


@pytest.fixture
def cohort():
    """Columns with an ICC of 0.99, 0.5 and 0.99, the last one shifted between repeats."""
    rng = np.random.default_rng(0)
    ids = pd.Index([f"P{i}" for i in range(40)])
    truth = pd.DataFrame(rng.normal(size=(40, 3)), ids, ["radiomics_good", "radiomics_poor", "radiomics_shifted"])
    first, second = (truth + rng.normal(size=(40, 3)) * [0.1, 1.0, 0.1] for _ in range(2))
    second["radiomics_shifted"] += 3
    return first.assign(clinical_sex="male"), first, second


def test_each_form_keeps_what_it_calls_stable(cohort):
    X, *repeats = cohort
    model = StabilityFilter(repeats=repeats).fit(X)
    assert list(model.transform(X).columns) == ["radiomics_good", "clinical_sex"]
    assert list(model.get_feature_names_out()) == ["radiomics_good", "clinical_sex"]
    for name, column in model.stability_.iterrows():
        both = np.column_stack([table[name] for table in repeats])
        assert column["icc"] == intraclass_correlation(both, "ICC(2,1)")
    model.set_params(form="ICC(3,1)").fit(X)
    assert list(model.transform(X).columns) == ["radiomics_good", "radiomics_shifted", "clinical_sex"]
    assert len(model.set_params(threshold=-1.0).fit(X).transform(X).columns) == 4


def test_the_forms_in_which_repeats_come(cohort):
    X, first, second = cohort
    expected = StabilityFilter(repeats=[first, second]).fit(X).stability_
    shuffled = second.sample(frac=1, random_state=0)[list(second.columns[::-1])]
    long = pd.concat([first, shuffled])
    for repeats in ([first, shuffled], long):
        pd.testing.assert_frame_equal(StabilityFilter(repeats=repeats).fit(X).stability_, expected)
        pd.testing.assert_frame_equal(StabilityFilter().fit(X, repeats=repeats).stability_, expected)
    arrays = StabilityFilter(repeats=[first.to_numpy(), second.to_numpy()]).fit(first.to_numpy())
    np.testing.assert_array_equal(arrays.stability_["icc"], expected["icc"])
    assert arrays.transform(first.to_numpy()).shape == (40, 1)


def test_left_out_patients_have_no_say(cohort):
    X, first, second = cohort
    spoilt = second.copy()
    spoilt.iloc[30:] = 1e6
    expected = StabilityFilter(repeats=[first, second]).fit(X.iloc[:30]).stability_
    assert (expected["n_patients"] == 30).all()
    pd.testing.assert_frame_equal(StabilityFilter(repeats=[first, spoilt]).fit(X.iloc[:30]).stability_, expected)
    everybody = StabilityFilter(repeats=[first, second], patients="all").fit(X.iloc[:30]).stability_
    assert (everybody["n_patients"] == 40).all()
    elsewhere = X.set_axis([f"Q{i}" for i in range(40)])
    with pytest.raises(ValueError, match='set patients="all"'):
        StabilityFilter(repeats=[first, second]).fit(elsewhere)
    StabilityFilter(repeats=[first, second], patients="all").fit(elsewhere)


def test_routed_through_a_pipeline_only_training_rows_count(cohort):
    X, first, second = cohort
    y = first["radiomics_good"]
    long = pd.concat([first, second])
    with sklearn.config_context(enable_metadata_routing=True):
        model = make_pipeline(StabilityFilter().set_fit_request(repeats=True), Ridge())
        found = cross_validate(
            model, first, y, cv=KFold(2), params={"repeats": long}, return_estimator=True, error_score="raise"
        )
    for fitted in found["estimator"]:
        assert (fitted[0].stability_["n_patients"] == 20).all()
    assert (found["test_score"] > 0.95).all()


def test_missing_measurements_and_too_few_patients(cohort):
    X, first, second = cohort
    second.iloc[:25, 0] = np.nan
    model = StabilityFilter(repeats=[first, second], form="ICC(3,1)").fit(X)
    assert model.stability_.loc["radiomics_good", "n_patients"] == 15 and model.kept_[0]
    model.set_params(min_patients=16).fit(X)
    assert np.isnan(model.stability_.loc["radiomics_good", "icc"]) and not model.kept_[0]


@pytest.mark.parametrize(
    ("change", "params", "message"),
    [
        (lambda first, second: None, {}, "StabilityFilter needs repeated measurements"),
        (lambda first, second: [first], {}, "two measurements or more"),
        (lambda first, second: [first, second.iloc[:5]], {}, "the same patients"),
        (lambda first, second: [first, second.iloc[:, :2]], {}, "the same columns"),
        (lambda first, second: [t.assign(pet_mtv=1.0) for t in (first, second)], {}, r"\['pet_mtv'\], which X lacks"),
        (lambda first, second: [t.iloc[:, :2] for t in (first, second)], {}, r"repeats lacks \['radiomics_shifted'\]"),
        (lambda first, second: pd.concat([first, second.iloc[1:]]), {}, "the same number of measurements"),
        (lambda first, second: [first, first + 100], {}, "no column has an ICC"),
        (lambda first, second: [first, second], {"threshold": 1.5}, "threshold"),
        (lambda first, second: [first.to_numpy(), second.to_numpy()], {}, "must have the 4 columns of X"),
    ],
)
def test_what_is_refused(cohort, change, params, message):
    X, first, second = cohort
    with pytest.raises(ValueError, match=message):
        StabilityFilter(**params).fit(X, repeats=change(first, second))
