"""Random tables: the same cohort in any form gives the same numbers, and damage is refused by name or told.

The quick suite draws a few hundred examples, the slow one more than 2,000.
"""

import functools
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from random_damage import DAMAGES, LABELS, Like, Refused, Study, Told
from random_tables import (
    FEATURES,
    ODD_NAMES,
    OUTCOMES,
    Draw,
    clean_cohort,
    odd_names,
    other_forms,
    other_ids,
    other_index,
    through_csv,
    through_polars,
    through_the_reader,
)
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from mmdls import Trainer
from mmdls.cohort import read_cohort
from mmdls.estimators import (
    MMDLS,
    ClinicalCox,
    CoxNet,
    MultimodalClassifier,
    MultimodalSurvival,
    RadiomicsCox,
    SignWeightedBagging,
    SurvivalBoosting,
    SurvivalForest,
    TabularEncoder,
)
from mmdls.estimators.survival._tabular_survival import TabularSurvival
from mmdls.evaluation import evaluate, make_scorers

BLOCKS = ("clinical", "radiomics")
NETWORK = {"hidden_features": 4, "dropout": 0.0, "modality_dropout": 0.0, "random_state": 0}
NETWORK |= {"trainer": Trainer(max_epochs=2, validation_fraction=0.0)}
FOREST = {"columns": BLOCKS, "n_estimators": 4, "random_state": 0}


@dataclass(frozen=True)
class Model:
    """A model, and which forms of a table are the same to it.

    ``rows`` and ``columns`` say whether fit may meet them in another order: draws of trees and of first weights belong
    to places.
    """

    make: Callable[[str], Any]
    target: str
    rows: bool = False
    columns: bool = False
    weights: bool = True
    tolerance: float = 1e-9


def _logistic(endpoint: str) -> Any:
    return make_pipeline(TabularEncoder(), LogisticRegression(solver="newton-cholesky", tol=1e-10))


MODELS = {
    "cox": Model(lambda name: ClinicalCox(endpoint=name, columns=BLOCKS), "os", rows=True, columns=True),
    "splines": Model(lambda name: ClinicalCox(endpoint=name, columns=BLOCKS, spline_knots=3), "os", True, True),
    "radiomics": Model(lambda name: RadiomicsCox(endpoint=name, columns=BLOCKS), "os", rows=True, columns=True),
    "coxnet": Model(lambda name: CoxNet(endpoint=name, columns=BLOCKS, alpha=0.03), "os", rows=True, weights=False),
    "forest": Model(lambda name: SurvivalForest(endpoint=name, **FOREST), "os"),
    "signs": Model(lambda name: SignWeightedBagging(endpoint=name, **FOREST), "os"),
    "boosting": Model(lambda name: SurvivalBoosting(endpoint=name, **FOREST), "os", weights=False),
    "logistic": Model(_logistic, "label", rows=True, columns=True, weights=False),
    "mmdls": Model(lambda name: MMDLS(class_embedding=2, **NETWORK), "all", tolerance=1e-5),
    "survival net": Model(lambda name: MultimodalSurvival(endpoint=name, **NETWORK), "os", tolerance=1e-5),
    "classifier": Model(lambda name: MultimodalClassifier(**NETWORK), "label", tolerance=1e-5),
}
N_COHORTS = 4


def outcomes_of(model: Model, y: pd.DataFrame, label: str) -> pd.DataFrame:
    """The outcomes that a model learns."""
    return y[{"os": ["os_time", "os_event"], "all": list(y.columns), "label": [label]}[model.target]]


def numbers(model: Model, study: Study, names: dict[str, str]) -> dict[str, np.ndarray]:
    """Everything that a model says of a study, one row a patient of ``X_new``, or one a metric.

    ``names`` leads from the names in the study to those of the clean cohort.
    """
    X, y, X_new, y_new = study.X, study.y, study.X_new, study.y_new
    endpoint = next((name for name, clean in names.items() if clean == "os"), "os")
    estimator = model.make(endpoint)
    weights = {} if study.sample_weight is None else {"sample_weight": study.sample_weight}
    if isinstance(estimator, MMDLS | MultimodalClassifier | MultimodalSurvival) or model.target == "os":
        estimator.fit(X, y, **weights)
    else:  # scikit-learn joins nothing
        estimator.fit(X, joined(y, X))
    found: dict[str, Any] = {}
    if model.target == "label":
        found["probability"] = estimator.predict_proba(X_new)
        if isinstance(estimator, MultimodalClassifier):
            found["score"] = estimator.score(X_new, y_new)
    else:
        predicted = estimator.predict(X_new)
        if model.target == "all":
            for name in predicted:
                column = predicted[name]
                found[names.get(name, name)] = column.cat.codes if hasattr(column, "cat") else column
            found["survival"] = estimator.predict_survival_function(X_new, endpoint, return_array=True)
        else:
            found["risk"], found["group"] = predicted, estimator.predict_risk_group(X_new)
            found["survival"] = estimator.predict_survival_function(X_new, return_array=True)
        found["score"] = estimator.score(X_new, y_new)
    table = evaluate(estimator, X_new, y_new, n_resamples=0, horizons=study.horizons)
    keys = table["task"].map(lambda name: names.get(name, name)) + " " + table["metric"] + table["horizon"].astype(str)
    found |= {key: [value, n] for key, value, n in zip(keys, table["value"], table["n"], strict=True)}
    scorers = make_scorers(y_new, horizons=study.horizons) if len(study.horizons) else {}
    for scorer in scorers.values():
        name = names.get(scorer.task.name, scorer.task.name)
        found[f"scorer {name} {scorer.metric}"] = scorer(estimator, X_new, y_new)
    return {name: np.asarray(values, dtype=np.float64) for name, values in found.items()}


def joined(y: Any, X: pd.DataFrame) -> np.ndarray:
    """Labels in the order of X, as scikit-learn wants them."""
    labels = y.iloc[:, 0] if isinstance(y, pd.DataFrame) else y
    place = {id: k for k, id in enumerate(labels.index.tolist())}
    values = [labels.iloc[place[id]] for id in X.index.tolist()]
    return np.array([float(value) if isinstance(value, Decimal) else value for value in values])


@functools.cache
def clean_numbers(name: str, seed: int, label: str, horizons: tuple[float, ...], weighted: bool) -> dict[str, Any]:
    X, y = clean_cohort(seed)
    y = outcomes_of(MODELS[name], y, label)
    weight = patient_weights(X, seed) if weighted else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return numbers(MODELS[name], Study(X, y, X, y, weight, horizons), {})


def patient_weights(X: pd.DataFrame, seed: int) -> pd.Series:
    return pd.Series(np.random.default_rng(seed).integers(1, 4, len(X)).astype(float), index=X.index)


def structured(X: pd.DataFrame, y: pd.DataFrame) -> tuple[pd.DataFrame, np.ndarray]:
    """The patients of known outcome, and scikit-survival's array in their order."""
    place = {id: k for k, id in enumerate(y.index.tolist())}
    cells = [y.iloc[place[id]].tolist() for id in X.index.tolist()]
    known = [not pd.isna(time) for time, _ in cells]
    kept = [(bool(event), float(time)) for (time, event), is_known in zip(cells, known, strict=True) if is_known]
    return X.iloc[np.flatnonzero(known)], np.array(kept, dtype=[("event", bool), ("time", float)])


def assert_same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray], tolerance: float) -> None:
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=tolerance, atol=tolerance, err_msg=name)


def examples(law: Callable[[st.DataObject], None], n: int) -> None:
    """Try a law on random examples, always the same ones; a failing one is told as it was drawn."""
    options = {"deadline": None, "database": None, "suppress_health_check": list(HealthCheck)}
    given_data = given(data=st.data())(law)
    settings(max_examples=n, derandomize=True, phases=[Phase.generate], **options)(given_data)()


def drawing(data: st.DataObject) -> tuple[Draw, np.random.Generator]:
    return lambda choices: data.draw(st.sampled_from(list(choices))), np.random.default_rng(
        data.draw(st.integers(0, 2**32 - 1))
    )


# -- the same cohort in other forms ------------------------------------------------------------------------------------


def same_numbers_in_any_form(data: st.DataObject) -> None:
    draw, rng = drawing(data)
    name, seed, label = draw(MODELS), draw(range(N_COHORTS)), draw(LABELS)
    model, horizons = MODELS[name], draw([(), (), (24.0,)])
    weighted = model.weights and draw([False, True])
    X, y = clean_cohort(seed)
    y = outcomes_of(model, y, label)
    ids = other_ids(X.index, draw)
    features = odd_names(X, draw) if draw([False, True]) else {}
    tasks = {}
    if draw([False, True]):
        endpoint = draw(ODD_NAMES)
        tasks = {"os_time": f"{endpoint}_time", "os_event": f"{endpoint}_event"} | {
            column: f"{column}{draw(ODD_NAMES)}" for column in y if column in LABELS
        }
    back = {new: old for old, new in tasks.items()} | ({endpoint: "os"} if tasks else {})

    read = draw([False, False, False, True])  # its labels are text

    def written(*, rows: bool, columns: bool) -> tuple[pd.DataFrame, pd.DataFrame, np.ndarray]:
        """Both tables in another form, and the places of the rows of X in the clean cohort."""
        way = "reader" if read else draw(["columns", "columns", "columns", "csv", "polars"])
        X_other, y_other = X, y
        if way == "reader":
            X_other, y_other = through_the_reader(X, y, draw)
        elif way == "csv":
            X_other, y_other = through_csv(X, FEATURES), through_csv(y, OUTCOMES)
        else:
            X_other = other_forms(X, FEATURES, draw)
            y_other = other_forms(y, OUTCOMES, draw, feature=False)
            if way == "polars":
                X_other = through_polars(X.astype({"clinical_ecog": object}), draw)
                X_other["clinical_ecog"] = X["clinical_ecog"]
        X_other = X_other.set_axis(ids, axis=0).rename(columns=features)
        y_other = y_other.set_axis(ids, axis=0).rename(columns=tasks)
        order = rng.permutation(len(X)) if rows else np.arange(len(X))
        if columns:
            X_other = X_other.iloc[:, rng.permutation(X.shape[1])]
        if name != "logistic" and draw([False, True]):
            X_other.insert(int(rng.integers(X.shape[1] + 1)), "centre", rng.choice(["A", "B"], len(X)))
        y_other = y_other.iloc[rng.permutation(len(X))] if draw([False, True]) else y_other
        return other_index(X_other.iloc[order], draw), other_index(y_other, draw), order

    by_place = name in ("logistic", "classifier")  # scikit-learn's classifiers want the columns in the order of fit
    X_fit, y_fit, order = written(rows=model.rows, columns=model.columns and not by_place)
    X_new, y_new, order_new = written(rows=True, columns=not by_place)
    study = Study(X_fit, y_fit, X_new, y_new, horizons=horizons)
    if model.target == "label" and draw([False, True]):
        study.y = y_fit.iloc[:, 0]
    if isinstance(model.make("os"), TabularSurvival) and not weighted and draw([False, False, True]):
        study.X, study.y = structured(X_fit, y_fit)
        back |= {"survival": "os"}
    if weighted:
        weight = patient_weights(X, seed).set_axis(ids, axis=0)
        forms = ["float64", "int64", "Float32", "Int64", object, pd.ArrowDtype(pa.float64())]
        series = weight.astype(draw(forms)).iloc[rng.permutation(len(X))]
        in_order = weight.to_numpy()[order]
        study.sample_weight = draw([other_index(series, draw), in_order, in_order.tolist()])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = numbers(model, study, back)
    places = np.argsort(order_new)
    for key in ("probability", "risk", "group", "survival", *(("os", *LABELS) if model.target == "all" else ())):
        if key in found:
            found[key] = found[key][places]
    assert_same(found, clean_numbers(name, seed, label, horizons, weighted), model.tolerance)


@pytest.mark.parametrize("n", [60, pytest.param(1200, marks=pytest.mark.slow)])
def test_one_cohort_in_any_form_gives_the_same_numbers(n):
    examples(same_numbers_in_any_form, n)


# -- damaged cohorts ---------------------------------------------------------------------------------------------------


# What scikit-learn's own classifier is asked, not this library.
OF_SCIKIT_LEARN = {"other_patients", "few_rows", "tables_of_other_kinds", "columns_of_y_that_cannot_be"}
OF_SCIKIT_LEARN |= {"labels_that_are_none", "the_outcome_among_the_features"}
OURS = ("/mmdls/", *(f"/sklearn/utils/{name}.py" for name in ("_param_validation", "validation", "_array_api")))


def assert_ours(error: Exception, names: tuple[str, ...]) -> None:
    """Raised by this library, or by scikit-learn's checks of input, with one of the names."""
    place = traceback.extract_tb(error.__traceback__)[-1].filename.replace("\\", "/")
    if not isinstance(error, ValueError | TypeError | KeyError | FileNotFoundError) or not any(
        part in place for part in OURS
    ):
        raise AssertionError(f"{type(error).__name__} of {place}, which is none of ours: {error}") from error
    if "only supported if all input features have string names" in str(error):  # scikit-learn's check of names
        return
    if names and not any(str(name) in str(error) for name in names):
        raise AssertionError(f"the message names none of {names}: {error}") from error


def damage_is_refused_or_told(data: st.DataObject) -> None:
    draw, rng = drawing(data)
    damage, name, seed, label = draw(DAMAGES), draw(MODELS), draw(range(N_COHORTS)), draw(LABELS)
    model = MODELS[name]
    if damage == "weights_that_are_none" and not model.weights:
        return
    if name == "logistic" and damage in OF_SCIKIT_LEARN:
        return
    X, y = clean_cohort(seed)
    y = outcomes_of(model, y, label)
    study = Study(X.copy(), y.copy(), X.copy(), y.copy())
    expected = DAMAGES[damage](study, draw, rng)
    names = getattr(expected, "names", ())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            found = numbers(model, study, {})
        except Exception as error:
            assert_ours(error, names)
            assert not isinstance(expected, Like), f"{damage}: {error}"
            return
    if isinstance(expected, Like):
        if expected.tables:
            clean = Study(**({"X": X, "y": y, "X_new": X, "y_new": y} | expected.tables))
            if not model.columns and list(clean.X) != list(study.X):  # another column is another draw
                return
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                assert_same(found, numbers(model, clean, {}), max(model.tolerance, 1e-7))
        return
    for key in ("probability", "risk", "survival"):
        assert np.isfinite(found.get(key, 0.0)).all(), key
    warned = any(str(name) in str(warning.message) for warning in caught for name in names)
    if isinstance(expected, Refused) or isinstance(expected, Told) and not warned:
        # What stands in a row or column that nothing is learned from changes nothing.
        assert_same(found, clean_numbers(name, seed, label, (), False), model.tolerance)


@pytest.mark.parametrize("n", [150, pytest.param(1500, marks=pytest.mark.slow)])
def test_a_damaged_cohort_is_refused_by_name_or_told(n):
    examples(damage_is_refused_or_told, n)


BY_THE_READER = ("a_word_among_numbers", "an_infinite_number", "an_object_in_a_cell", "a_column_of_objects")
BY_THE_READER += ("a_column_of_dates", "a_column_that_stands_twice")


def damage_is_refused_by_the_reader(data: st.DataObject) -> None:
    draw, rng = drawing(data)
    X, y = clean_cohort(draw(range(N_COHORTS)))
    study = Study(X.copy(), y, X.copy(), y)
    expected = DAMAGES[draw(BY_THE_READER)](study, draw, rng)
    damaged = study.X_new if study.X.equals(X) and list(study.X) == list(X) else study.X
    raw = pd.concat([damaged, y], axis=1)
    blocks = {block: [name for name in FEATURES if name.startswith(block)] for block in BLOCKS}
    try:
        cohort = read_cohort(raw, blocks=blocks, endpoints=["os"], units="months", categories="clinical_ecog")
    except Exception as error:
        assert_ours(error, expected.names)
        return
    assert "decimal commas" in cohort.report.loc[expected.names[0], "changes"]  # '61,5' is a number here


@pytest.mark.parametrize("n", [60, pytest.param(600, marks=pytest.mark.slow)])
def test_the_reader_refuses_damage_by_name(n):
    examples(damage_is_refused_by_the_reader, n)
