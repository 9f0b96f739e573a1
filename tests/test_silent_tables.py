"""Tables that could be misread: each gives the number of the clean table, or a refusal that says what to do."""

import warnings
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone

from mmdls import Trainer
from mmdls.cohort import check_cohort, check_target, modalities, survival_target
from mmdls.estimators import MMDLS, ClinicalCox, MultimodalClassifier, MultimodalSurvival

QUICK = {"trainer": Trainer(max_epochs=2, validation_fraction=0.0), "random_state": 0}
SURVIVAL = [ClinicalCox(), MultimodalSurvival(**QUICK), MMDLS(**QUICK)]


@pytest.fixture(scope="module")
def X():
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {"clinical_age": rng.normal(65, 8, 60).round(), "clinical_x": rng.normal(size=60)},
        index=[f"P{i:02d}" for i in range(60)],
    )


@pytest.fixture(scope="module")
def y(X):
    rng = np.random.default_rng(1)
    time, censored = rng.exponential(30 * np.exp(-X["clinical_x"])), rng.uniform(5, 80, 60)
    return pd.DataFrame({"os_time": np.minimum(time, censored), "os_event": time <= censored}, index=X.index)


@pytest.fixture(scope="module")
def labels(X):
    return pd.Series(np.where(X["clinical_x"] + X["clinical_age"] % 3 > 1, "b", "a"), index=X.index, name="subtype")


# -- endpoints as they may be stored ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "time",
    [
        lambda t: t.astype(object),
        lambda t: t.map(lambda v: Decimal(repr(v))),
        lambda t: t.astype("Float64"),
        lambda t: t.astype("double[pyarrow]"),
    ],
)
@pytest.mark.parametrize(
    "event",
    [
        lambda e: e.astype(int),
        lambda e: e.astype(float),
        lambda e: e.astype("boolean"),
        lambda e: e.astype(object),
        lambda e: e.astype(int).astype("category"),
        lambda e: e.astype("bool[pyarrow]"),
    ],
)
def test_an_endpoint_means_the_same_however_its_numbers_are_stored(y, time, event):
    pytest.importorskip("pyarrow")
    stored = pd.DataFrame({"os_time": time(y["os_time"]), "os_event": event(y["os_event"])})
    stored.loc[stored.index[3]] = [None, None]
    clean = survival_target(y)
    read = survival_target(stored)
    assert np.isnan(read["time"][3]) and not read["event"][3]
    kept = np.arange(60) != 3
    assert (read[kept] == clean[kept]).all()


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("os_time", lambda c: pd.to_timedelta(c, unit="D"), r"got durations .* / pd.Timedelta\(days=30.4375\)"),
        (
            "os_time",
            lambda c: pd.Timestamp("2020-01-01") + pd.to_timedelta(c, unit="D"),
            "got dates .*Subtract the date",
        ),
        ("os_time", lambda c: c.astype(str), r"got str such as .* in rows \['P00', .*read_cohort"),
        ("os_time", lambda c: c.astype(complex), "got complex"),
        ("os_time", lambda c: c > 12, "got booleans. Are the columns .* exchanged"),
        ("os_event", lambda c: c.map({True: "yes", False: "no"}), r"y\['os_event'\].map\(\{.*'yes': \.\.\."),
        ("os_event", lambda c: c.map({True: "1", False: "0"}), "got str such as"),
        ("os_event", lambda c: c.map({True: "dead", False: "alive"}).astype("category"), "got str such as"),
    ],
)
@pytest.mark.parametrize("model", SURVIVAL, ids=lambda model: type(model).__name__)
def test_what_is_no_number_is_never_read_as_one(X, y, model, column, values, message):
    with pytest.raises(TypeError, match=message):
        model.fit(X, y.assign(**{column: values(y[column])}))


def test_unknown_endpoints_of_nullable_columns_pass(X, y):
    both = y.assign(dfs_time=y["os_time"] * 0.5, dfs_event=y["os_event"]).astype(
        {"dfs_time": "Float64", "os_time": "Float64", "dfs_event": "boolean", "os_event": "boolean"}
    )
    both.loc["P03", ["dfs_time", "dfs_event"]] = pd.NA
    assert list(check_cohort(X, both)) == ["os", "dfs"]
    # Two subtractions of dates that differ by rounding are the same day.
    check_target(y.assign(dfs_time=y["os_time"] * (1 + 1e-12), dfs_event=y["os_event"]))


@pytest.mark.parametrize(("factor", "unit"), [(30.4375, "If they are days"), (1 / 365, "If they are years")])
def test_times_that_cannot_be_months_are_warned_about_once(X, y, factor, unit):
    told = y.assign(os_time=y["os_time"] * factor * (20 if factor > 1 else 1))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        ClinicalCox().fit(X, told)
    assert [unit in str(w.message) for w in caught].count(True) == 1


# -- what is no class -------------------------------------------------------------------------------------------------

NO_CLASSES = {
    "OS_STATUS": (lambda y: np.where(y["os_event"], "1:DECEASED", "0:LIVING"), "'OS_STATUS': 'os_event'"),
    "OS_MONTHS": (lambda y: y["os_time"].round(), "'OS_MONTHS': 'os_time'"),
    "survival_days": (lambda y: (y["os_time"] * 30).round().astype(int), "Divide the days by 30.4375"),
    "deadstatus.event": (lambda y: y["os_event"].astype(int), "'deadstatus.event': 'os_event'"),
    "DFS.time": (lambda y: y["os_time"].round().astype(int), "'DFS.time': 'dfs_time'"),
    "status": (lambda y: y["os_event"].astype(int) + 1, "'status': 'os_event'"),
    "outcome": (lambda y: np.where(y["os_event"], "Dead", "Alive"), "look like the time or the status"),
    "suv": (lambda y: y["os_time"], "continuous numbers, such as"),
    "suv_text": (lambda y: y["os_time"].round(1).astype(str), "continuous numbers written as text"),
    "visit": (lambda y: pd.Timestamp("2020-01-01") + pd.to_timedelta(y["os_time"], unit="D"), "holds datetime64"),
    "comment": (lambda y: [f"note {i}" for i in range(60)], "60 different values among 60 patients"),
    "score": (lambda y: np.arange(60) % 40, "40 different values among 60 patients"),
    "patient_id": (lambda y: np.arange(60) % 2, "name of an identifier"),
}


@pytest.mark.parametrize("name", NO_CLASSES)
@pytest.mark.parametrize(
    "model", [MMDLS(**QUICK), MultimodalClassifier(**QUICK)], ids=["MMDLS", "MultimodalClassifier"]
)
def test_what_is_no_class_is_not_learned_as_one(X, y, model, name):
    values, message = NO_CLASSES[name]
    with pytest.raises(ValueError, match=message):
        model.fit(X, pd.DataFrame({name: values(y)}, index=y.index))


@pytest.mark.parametrize("model", SURVIVAL[:2], ids=lambda model: type(model).__name__)
def test_an_estimator_of_one_endpoint_tells_the_renaming_too(X, y, model):
    with pytest.raises(
        ValueError, match=r"y holds no right-censored endpoint.*\{'OS_TIME': 'os_time', 'OS_EVENT': 'os_event'\}"
    ):
        model.fit(X, y.rename(columns=str.upper))


def test_labels_that_differ_by_spaces_or_case_are_one_class(X, labels):
    for spoilt in (labels.where(X.index != "P03", labels + " "), labels.where(X.index != "P03", labels.str.upper())):
        with pytest.raises(ValueError, match="differ by case or outer spaces only"):
            MultimodalClassifier(**QUICK).fit(X, spoilt)


def test_a_structured_array_with_its_fields_exchanged_is_refused(X, y):
    with pytest.raises(ValueError, match=r"the other way round. Give y\[\['os_event', 'os_time'\]\]"):
        ClinicalCox().fit(X, y.to_records(index=False))


def test_a_pair_of_columns_is_named_with_its_renaming(X, y):
    other = pd.DataFrame({"Survival.time": y["os_time"], "deadstatus.event": y["os_event"].astype(int)})
    with pytest.raises(ValueError, match=r"\{'Survival.time': 'os_time', 'deadstatus.event': 'os_event'\}"):
        MMDLS(**QUICK).fit(X, other)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("relapse", [True, False]),
        ("egfr_status", ["mutant", "wild"]),
        ("two_year_survival", [0, 1]),
        ("ecog", [0.0, 1.0, 2.0]),
        ("grade", ["1", "2", "3"]),
        ("subtype", pd.Categorical(["LUAD", "LUSC"])),
    ],
)
def test_what_is_a_class_passes(X, name, values):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        column = pd.Series(values).sample(60, replace=True, random_state=0).to_numpy()
        assert list(check_cohort(X, pd.DataFrame({name: column}, index=X.index))) == [name]


# -- rows are joined by id --------------------------------------------------------------------------------------------


def test_labels_and_weights_of_a_series_are_joined_by_id(X, labels):
    order = np.random.default_rng(0).permutation(60)
    weight = pd.Series(np.random.default_rng(1).uniform(0.5, 2, 60), index=X.index)
    model, shuffled = (MultimodalClassifier(**QUICK) for _ in range(2))
    model.fit(X, labels, weight)
    shuffled.fit(X, labels.iloc[order], weight.iloc[order])
    np.testing.assert_array_equal(model.predict_proba(X), shuffled.predict_proba(X))
    expected = np.average(model.predict(X) == labels, weights=weight)
    for rows in (np.arange(60), order):
        assert model.score(X, labels.iloc[rows], weight.iloc[rows]) == pytest.approx(expected)
    # Arrays go by place.
    assert model.score(X, labels.to_numpy()) == model.score(X, labels)
    with pytest.raises(ValueError, match=r"pass y.to_numpy\(\) if its rows stand in the order of X"):
        model.fit(X, labels.reset_index(drop=True))


@pytest.mark.parametrize("model", SURVIVAL, ids=lambda model: type(model).__name__)
def test_numbered_columns_are_joined_by_id_too(X, y, model):
    numbered, order = X.set_axis(range(2), axis=1), np.random.default_rng(0).permutation(60)
    risk = model.fit(numbered, y).predict(numbered)
    score = model.score(numbered, y)
    np.testing.assert_array_equal(model.fit(numbered, y.iloc[order]).predict(numbered), risk)
    assert model.score(numbered, y.iloc[order]) == score
    with pytest.raises(ValueError, match="their ids differ"):
        model.fit(numbered, y.set_axis([f"Q{i}" for i in range(60)]))


def test_tables_of_other_libraries_are_refused_with_the_conversion(X, y):
    polars = pytest.importorskip("polars")
    pyarrow = pytest.importorskip("pyarrow")
    for model in SURVIVAL:
        for table in (polars.from_pandas(X), pyarrow.Table.from_pandas(X)):
            with pytest.raises(TypeError, match=r"X must be pandas; got a .*X.to_pandas\(\).set_index"):
                model.fit(table, y)
        with pytest.raises(TypeError, match="y must be pandas; got a polars DataFrame"):
            model.fit(X, polars.from_pandas(y))


# -- outcomes among the features --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("os_time", lambda y: y["os_time"]),
        ("OS_event", lambda y: y["os_event"]),
        ("clinical_days_to_death", lambda y: y["os_time"].sample(frac=1, random_state=0).to_numpy()),
        ("clinical_q", lambda y: y["os_time"]),
        ("clinical_q", lambda y: (y["os_time"] * 30.4375).astype(np.float32)),
        ("clinical_q", lambda y: y["os_event"].astype(int)),
        ("clinical_q", lambda y: y["os_event"].astype(str)),
    ],
)
@pytest.mark.parametrize("model", SURVIVAL, ids=lambda model: type(model).__name__)
def test_no_column_of_y_is_a_feature(X, y, model, name, values):
    with pytest.raises(ValueError, match="X holds outcomes|under another name"):
        model.fit(X.assign(**{name: values(y)}), y)


def test_the_label_itself_is_refused_and_its_recoding_warned_about(X, labels):
    y = labels.to_frame("tnm_stage")
    with pytest.raises(ValueError, match=r"X holds outcomes: \['tnm_stage'\] are columns of y too"):
        MMDLS(**QUICK).fit(X.assign(tnm_stage=labels), y)
    with pytest.raises(ValueError, match=r"the columns \['clinical_t'\] of X copy the outcome 'tnm_stage' of all 60"):
        check_cohort(X.assign(clinical_t=labels), y)
    with pytest.warns(UserWarning, match=r"the columns \['clinical_t'\] of X determine 'tnm_stage' of all 60 patients"):
        check_cohort(X.assign(clinical_t=labels.map({"a": 2.0, "b": 1.0})), y)


def test_a_label_computed_from_a_feature_may_have_its_name(X):
    derived = (X["clinical_x"] > 0).astype(int)
    with pytest.warns(UserWarning, match=r"X and y both have columns called \['clinical_x'\], with different values"):
        model = MultimodalClassifier(**QUICK).fit(X, derived)
    assert model.classes_.tolist() == [0, 1]


# -- columns that are no features -------------------------------------------------------------------------------------


def test_identifiers_are_no_features_unless_asked_for(X, y):
    extended = X.assign(
        clinical_patient_id=1.0,
        clinical_MRN=5,
        clinical_name=[f"person {i}" for i in range(60)],
        clinical_row=np.random.default_rng(0).permutation(60) + 1,
        clinical_sex=["m", "f"] * 30,
    )
    assert modalities(extended) == {"clinical": ["clinical_age", "clinical_x", "clinical_sex"]}
    with pytest.warns(UserWarning, match=r"\['clinical_patient_id', 'clinical_MRN', 'clinical_name', 'clinical_row'\]"):
        model = MMDLS(**QUICK).fit(extended, y)
    # PyRadiomics' inverse difference has the name of an identifier and the values of a measurement.
    assert modalities(X.rename(columns={"clinical_x": "radiomics_glcm_Id"}))["radiomics"] == ["radiomics_glcm_Id"]
    # A few rows, in which a column looks like another thing than in fit, are read as in fit.
    for rows in (extended[:1], extended[:5].assign(clinical_row=7)):
        assert len(model.predict(rows)) == len(rows)
    asked = MMDLS({"clinical": ["clinical_age", "clinical_row"]}, **QUICK).fit(extended, y)
    assert list(asked.feature_names_in_) == ["clinical_age", "clinical_row"]


def test_fit_says_once_which_columns_it_does_not_use(X, y):
    extended = X.assign(age=1.0, Sex="m", smoking_status="never")
    for model, columns in ((MMDLS(**QUICK), ["age", "Sex"]), (ClinicalCox(), ["age", "Sex", "smoking_status"])):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            model.fit(extended, y)
        told = [str(w.message) for w in caught if "not used" in str(w.message)]
        assert len(told) == 1 and str(columns) in told[0]


def test_a_dict_of_columns_works_with_any_names(X, y):
    plain = X.rename(columns={"clinical_age": "Age (years)", "clinical_x": "x"})
    plain["scan"] = [np.full((2, 16, 16), i, dtype=np.uint8) for i in range(60)]
    model = MMDLS({"pet": ["Age (years)", "x"], "ct": "scan"}, **QUICK).fit(plain, y)
    assert [(name, type(encoder).__name__, columns) for name, encoder, columns in model.modalities_] == [
        ("pet", "TabularEncoder", ["Age (years)", "x"]),
        ("ct", "SliceEncoder", ["scan"]),
    ]
    assert np.isfinite(model.predict(plain)["os"]).all()
    with pytest.raises(ValueError, match=r"modality 'pet' asks for \['age'\]; X has neither such columns"):
        MMDLS({"pet": ["age"]}, **QUICK).fit(plain, y)
    with pytest.raises(ValueError, match="modalities must be 'auto', a dict of columns"):
        MMDLS({}, **QUICK).fit(plain, y)


# -- modalities and patients that are not there -----------------------------------------------------------------------


def test_a_modality_that_no_training_patient_had_changes_no_answer(X, y):
    rng = np.random.default_rng(0)
    image = pd.Series([rng.integers(0, 255, (2, 16, 16), dtype=np.uint8) for _ in range(60)], index=X.index)
    unknown = y.copy().astype({"os_event": object})
    unknown.iloc[:5] = np.nan
    only_untrained = image.where(np.arange(60) < 5, None)
    for train in (X.assign(ct_image=None), X.assign(ct_image=only_untrained)):
        with pytest.warns(UserWarning, match=r"no training patient of known outcome has the modalities \['ct'\]"):
            model = MMDLS(**QUICK).fit(train, unknown)
        without = model.predict(X.assign(ct_image=None))
        with pytest.warns(UserWarning, match="60 of 60 patients have the modality 'ct', which no training patient had"):
            pd.testing.assert_frame_equal(model.predict(X.assign(ct_image=image)), without)


def test_a_patient_without_any_data_gets_the_average_alone_as_in_company(X, y, labels):
    model = MMDLS(**QUICK).fit(X, y.join(labels))
    empty = X.copy()
    empty.iloc[:2] = np.nan
    with pytest.warns(UserWarning, match="2 of 60 patients have none"):
        company = model.predict_proba(empty, "subtype")[0], model.predict(empty)["os"].iloc[0]
    with pytest.warns(UserWarning, match="1 of 1 patients have none"):
        alone = model.predict_proba(empty[:1], "subtype")[0], model.predict(empty[:1])["os"].iloc[0]
    np.testing.assert_array_equal(alone[0], company[0])
    assert alone[1] == company[1]
    np.testing.assert_allclose(alone[0], model.predict_proba(X, "subtype").mean(axis=0), rtol=1e-6)


def test_a_comparator_warns_of_patients_without_any_value(X, y):
    model, empty = ClinicalCox().fit(X, y), X.copy()
    empty.iloc[0] = np.nan
    for rows in (empty, empty[:1]):
        with pytest.warns(UserWarning, match=f"1 of {len(rows)} patients have no value in any column"):
            assert np.isfinite(model.predict(rows)[0])


def test_weights_of_unknown_tasks_are_refused(X, y):
    with pytest.raises(
        ValueError, match=r"task_weights names \['oss'\], which are no tasks of y; its tasks are \['os'\]"
    ):
        MMDLS(trainer=Trainer(task_weights={"oss": 2.0})).fit(X, y)


# -- labels of a classifier -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "stored",
    [
        lambda b: b,
        lambda b: b.astype("boolean"),
        lambda b: b.astype(object),
        lambda b: b.astype(int),
        lambda b: b.astype(float),
        lambda b: b.astype("Int64"),
        lambda b: b.map({True: "yes", False: "no"}),
        lambda b: b.map({True: "yes", False: "no"}).astype("string"),
        lambda b: b.map({True: "yes", False: "no"}).astype("category"),
        lambda b: b.astype(int).astype("category"),
    ],
)
def test_a_classifier_learns_the_same_from_every_form_of_a_label(X, labels, stored):
    truth = labels == "b"
    reference = MultimodalClassifier(**QUICK).fit(X, truth)
    model = MultimodalClassifier(**QUICK).fit(X, stored(truth))
    assert len(model.classes_) == 2 and model.classes_.tolist() == sorted(stored(truth).unique().tolist())
    np.testing.assert_array_equal(model.predict_proba(X), reference.predict_proba(X))
    assert model.score(X, stored(truth)) == reference.score(X, truth)


def test_a_classifier_needs_one_known_label_a_patient(X, labels):
    for missing in (labels.where(X.index != "P03", None), (labels == "b").astype("boolean").where(X.index != "P03")):
        with pytest.raises(ValueError, match=r"1 of 60 patients have no label, such as \['P03'\]"):
            MultimodalClassifier(**QUICK).fit(X, missing)
    with pytest.raises(ValueError, match=r"learns one label; y has the columns \['a', 'b'\]"):
        MultimodalClassifier(**QUICK).fit(X, pd.DataFrame({"a": labels, "b": labels}))


@pytest.mark.parametrize(
    "columns", [pd.MultiIndex.from_tuples([("os", "time"), ("os", "event")]), [0, 1], ["os_time", "os_time"]]
)
def test_columns_of_y_without_a_name_of_their_own_are_refused(X, y, columns):
    for model in SURVIVAL:
        with pytest.raises((TypeError, ValueError), match="need names of text|more than once"):
            model.fit(X, y.set_axis(columns, axis=1))


def test_a_cohort_that_does_not_know_a_task_is_scored_on_the_others(X, y, labels):
    model = MMDLS(**QUICK).fit(X, y.join(labels))
    alone = model.score(X, y.assign(subtype=pd.Series(index=y.index, dtype=object)))
    with pytest.warns(UserWarning, match=r"y has no columns of \['subtype'\]"):
        assert model.score(X, y) == alone
    with pytest.raises(KeyError, match=r"none of the tasks of this model, \['os', 'subtype'\]"):
        model.score(X, labels.rename("histology"))


@pytest.mark.parametrize("model", SURVIVAL, ids=lambda model: type(model).__name__)
@pytest.mark.parametrize("date", ["2019-03-28", "28.03.19", "28-Mar-2019", "March 28, 2019", "2019/03/28"])
def test_no_form_of_a_date_is_a_category(X, y, model, date):
    with pytest.raises(ValueError, match="column 'clinical_seen' holds dates written as text"):
        model.fit(X.assign(clinical_seen=[date, "2019-03-27"] * 30), y)


@pytest.mark.parametrize("model", SURVIVAL, ids=lambda model: type(model).__name__)
def test_a_model_of_a_table_tells_what_is_no_table(X, y, model):
    X = X.assign(clinical_sex=["M", "F"] * 30)
    model = clone(model).fit(X, y)
    for given, message in (
        (X.iloc[0], r"one patient is X.loc\[\[id\]\]"),
        (X.to_dict("list"), "X must be a pandas DataFrame .*got dict"),
        (X.to_numpy(), "fitted on a table of patients; X must be a pandas DataFrame too.*got ndarray"),
    ):
        with pytest.raises(TypeError, match=message):
            model.predict(given)


def test_a_modality_of_blank_texts_is_missing(X, y):
    X = X.rename(columns={"clinical_x": "pet_x"})
    model = MultimodalSurvival(**QUICK).fit(X, y)
    blank, missing = X.astype({"pet_x": object}), X.copy()
    blank.loc["P03", "pet_x"], missing.loc["P03", "pet_x"] = " ", np.nan
    np.testing.assert_array_equal(model.predict(blank), model.predict(missing))


@pytest.mark.parametrize("model", SURVIVAL, ids=lambda model: type(model).__name__)
@pytest.mark.parametrize(
    "form", [str, Decimal, lambda time: f"{30.4375 * time}", lambda time: str(time).replace(".", ",")]
)
def test_a_copy_of_the_time_is_found_in_any_dtype(X, y, model, form):
    with pytest.raises(ValueError, match=r"columns \['clinical_copy'\] of X copy the outcome 'os_time'"):
        model.fit(X.assign(clinical_copy=y["os_time"].map(form)), y)


@pytest.mark.parametrize("model", SURVIVAL, ids=lambda model: type(model).__name__)
def test_words_under_columns_without_names_are_refused_by_column(X, y, model):
    X = X.assign(clinical_sex=["M", "F"] * 30)
    levels = pd.MultiIndex.from_tuples([name.split("_") for name in X])
    for names, column in ((range(3), "2"), (levels, r"\('clinical', 'sex'\)")):
        with pytest.raises(ValueError, match=rf"column {column} of X holds 'M' \(row 'P00'\).*Give its columns names"):
            model.fit(X.set_axis(names, axis=1), y)


@pytest.mark.parametrize("weights", [pd.Series([[1]] * 60), ["1"] * 60, np.full(60, 1j), [None, "x"] * 30])
def test_weights_that_are_no_numbers_are_refused(X, y, weights):
    weights = weights.set_axis(X.index) if isinstance(weights, pd.Series) else weights
    for model in (ClinicalCox(), MultimodalSurvival(**QUICK)):
        with pytest.raises(ValueError, match="sample_weight must hold one number a patient"):
            model.fit(X, y, sample_weight=weights)


def test_blank_labels_and_durations_are_refused(X, y, labels):
    labels = labels.mask(labels.index == "P07", " ")
    with pytest.raises(ValueError, match=r"'subtype' holds blank texts in rows \['P07'\]"):
        MultimodalClassifier(**QUICK).fit(X, labels)
    X = X.astype({"clinical_x": object})
    X.loc["P05", "clinical_x"] = np.timedelta64(3, "D")
    with pytest.raises(ValueError, match="column 'clinical_x' holds timedelta"):
        ClinicalCox().fit(X, y)
