"""Validation of a cohort: what is accepted, what is refused, and with which message."""

import numpy as np
import pandas as pd
import pytest
from sksurv.util import Surv

from mmdls.cohort import (
    align_rows,
    cell_columns,
    check_cohort,
    check_features,
    class_codes,
    class_labels,
    find_tasks,
    modalities,
    survival_target,
    warn_unused,
)


@pytest.fixture
def X():
    return pd.DataFrame(
        {"clinical_age": [60.0, 70, 65, 50], "ct_image": [None] * 4, "centre": list("ABAB")}, index=list("pqrs")
    )


@pytest.fixture
def y():
    return pd.DataFrame(
        {
            "subtype": ["LUAD", "LUSC", None, "LUAD"],
            "stage": pd.Categorical(["IV", "III", "I-II", None], ["I-II", "III", "IV"], ordered=True),
            "dfs_time": [3.0, 4, 5, np.nan],
            "dfs_event": [1.0, 0, 1, np.nan],
            "os_time": [5.0, 4, 8, 2],
            "os_event": [1, 0, 0, 1],
        },
        index=list("pqrs"),
    )


def test_a_cohort_is_read_by_its_column_names(X, y):
    assert modalities(X) == {"ct": ["ct_image"], "clinical": ["clinical_age"]}
    tasks = check_cohort(X, y)
    assert {name: task.kind for name, task in tasks.items()} == {
        "subtype": "nominal",
        "stage": "ordinal",
        "dfs": "survival",
        "os": "survival",
    }
    assert tasks["stage"].classes == ("I-II", "III", "IV")
    assert tasks["subtype"].classes == ("LUAD", "LUSC")


def test_masks_ids_and_plain_columns_are_never_features():
    X = pd.DataFrame(columns=["lung_mask", "patient_id", "centre", "treatment", "_hidden", "pet_suvmax"])
    assert modalities(X) == {"pet": ["pet_suvmax"]}


def test_an_image_and_a_block_of_one_name_are_refused():
    with pytest.raises(ValueError, match="both images or vectors and a block of numbers called .*lesion"):
        modalities(pd.DataFrame(columns=["lesion_image", "lesion_volume"]))


def test_vectors_are_a_modality_by_the_name_of_their_column():
    X = pd.DataFrame(columns=["path_vectors", "ct_image", "clinical_age", "centre"])
    assert modalities(X) == {"path": ["path_vectors"], "ct": ["ct_image"], "clinical": ["clinical_age"]}
    assert cell_columns(X) == ["path_vectors", "ct_image"] and cell_columns(None) == []
    with pytest.raises(ValueError, match="'ct_image' and 'ct_vectors' of X would both be the modality 'ct'"):
        modalities(pd.DataFrame(columns=["ct_image", "ct_vectors"]))
    with pytest.raises(ValueError, match="both images or vectors and a block of numbers called .*path"):
        modalities(pd.DataFrame(columns=["path_vectors", "path_grade"]))


def test_the_inverse_difference_of_radiomics_is_no_identifier():
    X = pd.DataFrame({"radiomics_glcm_id": [1.0, 1.0], "radiomics_case_id": [1.0, 2.0]})
    assert modalities(X) == {"radiomics": ["radiomics_glcm_id"]}


def test_masks_that_no_model_reads_are_named_with_the_cure():
    X = pd.DataFrame({"ct_mask": [f"{i}.nii" for i in range(12)], "clinical_id": range(12)})
    with pytest.warns(UserWarning, match=r"masks \['ct_mask'\].*'ct_image', 'ct_mask'.*\['clinical_id'\].*identify"):
        warn_unused(X, list(X.columns), "")


def test_free_text_is_no_identifier_but_a_feature_that_models_refuse():
    X = pd.DataFrame({"clinical_report": [f"Mass of {i} mm in the upper lobe." for i in range(20)]})
    assert modalities(X) == {"clinical": ["clinical_report"]}
    assert modalities(X.replace(r"Mass of (\d+).*", r"P\1", regex=True)) == {}


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("os_time", -1.0, r"'os_time' is negative in rows \['q'\].*correct the dates"),
        ("os_time", np.inf, r"'os_time' is infinite in rows \['q'\]"),
        ("os_event", 2, r"'os_event' is neither 0 nor 1 in rows \['q'\].*Code 1 or True"),
        ("dfs_time", 4.5, r"ends after overall survival in rows \['q'\].*dfs_time must not exceed os_time"),
        ("dfs_event", np.nan, r"only one of 'dfs_time' and 'dfs_event' is known in rows \['q'\]"),
    ],
)
def test_impossible_outcomes_are_refused_with_row_ids_and_a_hint(X, y, column, value, message):
    y[column] = y[column].astype(float)
    y.loc["q", column] = value
    with pytest.raises(ValueError, match=message):
        check_cohort(X, y)


def test_times_that_are_no_numbers_are_refused(X, y):
    y["os_time"] = ["5 months", "4", "8", "2"]
    with pytest.raises(TypeError, match="'os_time' must hold numbers"):
        check_cohort(X, y)


def test_duplicate_patients_are_refused(X, y):
    X.index = y.index = ["p", "q", "q", "s"]
    with pytest.raises(ValueError, match=r"X has more than one row for the patients \['q'\]"):
        check_cohort(X, y)
    with pytest.raises(ValueError, match="y has more than one row"):
        check_cohort(X.set_axis(list("pqrs")), y)


def test_another_order_is_joined_by_id_and_other_patients_are_refused(X, y):
    assert check_cohort(X, y.iloc[::-1]) == check_cohort(X, y)
    pd.testing.assert_frame_equal(align_rows(y.iloc[::-1], X.index, "y", exact=True), y)
    with pytest.raises(ValueError, match=r"only in X \['s'\], only in y \['z'\]"):
        check_cohort(X, y.set_axis(["p", "q", "r", "z"]))
    with pytest.raises(ValueError, match="X has 4 patients and y has 3"):
        check_cohort(X, y.iloc[:3])
    with pytest.raises(ValueError, match=r"X has 3 patients and y has 4.*only in y \['s'\]"):
        check_cohort(X.iloc[:3], y)
    with pytest.raises(ValueError, match=r"pass y.to_numpy\(\) if its rows stand in the order of X"):
        check_cohort(X, y.reset_index(drop=True))
    with pytest.raises(ValueError, match="y has 1 rows without a patient id"):
        check_cohort(X, y.set_axis(["p", "q", "r", None]))


def test_what_cannot_be_learned_is_refused_only_when_fitting(X, y):
    one_class = y.assign(subtype="LUAD")
    with pytest.raises(ValueError, match=r"task 'subtype' has 1 class\(es\): \['LUAD'\]"):
        check_cohort(X, one_class)
    check_cohort(X, one_class, fitting=False)
    with pytest.raises(ValueError, match="endpoint 'os' has no event among 4 patients"):
        check_cohort(X, y.assign(os_event=0))
    with pytest.raises(ValueError, match="endpoint 'os' has no event among 0 patients"):
        check_cohort(X, y.assign(os_event=np.nan, os_time=np.nan))


def test_unknown_endpoints_are_named(X, y):
    with pytest.raises(KeyError, match="no endpoint or task 'pfs'.*'pfs_time'.*y offers"):
        check_cohort(X, y, ["pfs"])
    with pytest.raises(ValueError, match=r"y has 'os_time' without .*'os_event' \(survival\)"):
        find_tasks(y.drop(columns="os_event"))


def test_outcomes_inside_x_are_refused(X, y):
    with pytest.raises(ValueError, match=r"X holds outcomes: \['os_event', 'os_time'\]"):
        check_cohort(X.join(y[["os_time", "os_event"]]), y)
    with pytest.raises(TypeError, match="X must be a pandas DataFrame"):
        check_features(X.to_numpy())


def test_survival_target_reads_tables_and_structured_arrays(y):
    target = survival_target(y, "dfs")
    assert target["event"].tolist() == [True, False, True, False]
    assert np.isnan(target["time"][3])
    same = survival_target(Surv.from_arrays(target["event"][:3], target["time"][:3]))
    assert (same == target[:3]).all()
    with pytest.raises(ValueError, match=r"y holds 2 endpoints \(dfs, os\); say which one"):
        survival_target(y)
    with pytest.raises(ValueError, match="structured array"):
        survival_target(np.arange(3))
    with pytest.raises(ValueError, match="is negative"):
        survival_target(Surv.from_arrays([True, False], [-1.0, 2.0]))


def test_the_classes_of_an_ordered_task_are_those_of_its_dtype_whatever_the_rows_hold(X, y):
    assert find_tasks(y[:2])["stage"].classes == ("I-II", "III", "IV")
    with pytest.warns(UserWarning, match=r"no patient has the classes \['I-II'\] of 'stage'"):
        tasks = check_cohort(X[:2], y[:2][["stage"]])
    assert tasks["stage"].classes == ("III", "IV")


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (pd.Series([True, False, None], dtype=object), (False, True)),
        (pd.Series([True, False, pd.NA], dtype="boolean"), (False, True)),
        (pd.Series([1.0, 0.0, np.nan]), (0, 1)),
        (pd.Series([1, 0, pd.NA], dtype="Int64"), (0, 1)),
        (pd.Series([10, 9, 9]), (9, 10)),
        (pd.Series(["b", "a", None], dtype="string"), ("a", "b")),
        (pd.Series(["b", "a", None], dtype="category"), ("a", "b")),
        (pd.Series([2, 1, 1], dtype="category"), (1, 2)),
    ],
)
def test_the_classes_of_a_column_do_not_depend_on_how_it_is_stored(labels, classes):
    found = class_labels(labels)
    assert found == classes and all(type(a) is type(b) for a, b in zip(found, classes, strict=True))
    codes = class_codes(labels, classes)
    assert codes.tolist() == [classes.index(v) if pd.notna(v) else -1 for v in labels]


def test_labels_of_different_kinds_and_columns_without_a_name_are_refused(X):
    with pytest.raises(ValueError, match=r"'grade' holds labels of different kinds, for example 1 \(int\) and '1'"):
        find_tasks(pd.DataFrame({"grade": pd.Series([1, "1", 2], dtype=object)}))
    with pytest.raises(ValueError, match="list values such as .* which are no labels"):
        find_tasks(pd.DataFrame({"grade": [[1], [2]]}))
    with pytest.raises(TypeError, match=r"columns of y need names of text.*got \[0\]"):
        find_tasks(pd.DataFrame({0: [1, 2]}))
    with pytest.raises(ValueError, match=r"y has the columns \['grade'\] more than once"):
        find_tasks(pd.DataFrame([[1, 2]], columns=["grade", "grade"]))


@pytest.mark.parametrize("levels", [1, 2])
def test_ids_are_joined_by_value_whatever_the_dtype_of_the_index(levels):
    ids = [f"P{k}" for k in range(4)]
    X = pd.DataFrame({"clinical_age": [1.0, 2, 3, 4]}, index=pd.Index(ids, dtype="string[pyarrow]"))
    y = pd.DataFrame({"grade": ["a", "b", "a", "b"]}, index=pd.CategoricalIndex(ids)).iloc[::-1]
    if levels == 2:
        X, y = (table.set_axis(pd.MultiIndex.from_product([["Rome"], table.index])) for table in (X, y))
    check_cohort(X, y)
    assert align_rows(y, X.index, "y")["grade"].tolist() == ["a", "b", "a", "b"]
    with pytest.raises(ValueError, match="only in X .*P0"):
        check_cohort(X, y.rename({"P0": "P9"}, level=-1) if levels == 2 else y.rename({"P0": "P9"}))
    if levels == 2:
        ids = pd.MultiIndex.from_tuples([("Rome", 1), ("Rome", None), ("Oslo", 1), ("Oslo", 2)])
        with pytest.raises(ValueError, match="X has 1 rows without a patient id"):
            check_cohort(X.set_axis(ids), y.set_axis(ids))


def test_a_warning_of_many_unused_columns_names_ten():
    X = pd.DataFrame({f"x{k}": [1.0, 1.0] for k in range(80)})
    with pytest.warns(UserWarning, match=r"'x8', 'x9', and 70 more\] of X are not used"):
        warn_unused(X, list(X), "Drop them.")
    with pytest.warns(UserWarning, match=r"'x8', 'x9'\] of X are not used"):
        warn_unused(X, list(X)[:10], "Drop them.")
