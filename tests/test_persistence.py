"""Saved models answer as before in another process, hold no more of patients than they say, and fail clearly."""

import datetime
import importlib.util
import json
import linecache
import os
import pickle
import subprocess
import sys
import types
import warnings
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from optuna.distributions import CategoricalDistribution
from scipy.stats import loguniform, randint
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.compose import ColumnTransformer, make_column_selector
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.exceptions import InconsistentVersionWarning
from sklearn.feature_selection import SelectKBest, SelectPercentile, f_classif, mutual_info_classif
from sklearn.frozen import FrozenEstimator
from sklearn.gaussian_process import GaussianProcessClassifier
from sklearn.gaussian_process.kernels import RBF, WhiteKernel
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, RandomizedSearchCV
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, SplineTransformer, StandardScaler
from torch import nn

import mmdls
from mmdls import MMDLS, ClinicalCox, OptunaSearch, Part, SliceEncoder, TabularEncoder
from mmdls.datasets import make_nsclc_cohort
from mmdls.encoders import Encoder, TableData
from mmdls.evaluation import evaluate, make_scorers, predict_tasks
from mmdls.model_selection import CohortKFold
from mmdls.modules import CoxHead
from mmdls.persistence._archive import checksums
from mmdls.persistence._sources import source_hash
from mmdls.persistence._types import _is_listed, class_named, class_reference
from mmdls.registry import encoders, estimators
from mmdls.testing import outcome_forms, small_study
from mmdls.uncertainty import ConformalPredictor
from tests.full_disk import with_a_full_disk
from tests.pages import blocks_of
from tests.test_matrix import cells

pytestmark = pytest.mark.filterwarnings("ignore:.*")

IN_ANOTHER_PROCESS = """
import pickle, sys, warnings
import numpy as np
import pandas as pd
warnings.simplefilter("ignore")
import mmdls
from mmdls.evaluation import predict_tasks
for folder in sys.argv[1:]:
    with open(f"{folder}/asked", "rb") as file:
        X, y = pickle.load(file)
    tables = predict_tasks(mmdls.load(f"{folder}/model"), X, y, horizons=(12.0, 24.0))
    with open(f"{folder}/answered", "wb") as file:
        pickle.dump(tables, file)
"""


@pytest.fixture(scope="module")
def cox():
    model, X, y = small_study(ClinicalCox, "endpoint")
    return clone(model).fit(X, y), X, y


def again(model, folder):
    mmdls.save(model, folder / "model.mmdls")
    return mmdls.load(folder / "model.mmdls")


def same_in_another_process(models, folder):
    """Every model (name: (fitted, X, y)) answers bit by bit the same in a process that only loads it."""
    for name, (model, X, y) in models.items():
        (folder / name).mkdir()
        mmdls.save(model, folder / name / "model")
        (folder / name / "asked").write_bytes(pickle.dumps((X, y)))
    subprocess.run([sys.executable, "-c", IN_ANOTHER_PROCESS, *(str(folder / name) for name in models)], check=True)
    for name, (model, X, y) in models.items():
        answered = pickle.loads((folder / name / "answered").read_bytes())
        expected = predict_tasks(model, X, y, horizons=(12.0, 24.0))
        assert answered.keys() == expected.keys()
        for task, table in expected.items():
            pd.testing.assert_frame_equal(answered[task], table, check_exact=True, obj=f"{name}, {task}")


# -- every estimator, every form of outcome, every kind of task --------------------------------------------------------


def fitted(name, outcome, **params):
    model, X, y = small_study(estimators[name], outcome)
    return clone(model).set_params(**params).fit(X, y), X, y


def small_cells():
    return [cell.values for cell in cells() if not cell.marks]


def test_every_small_estimator_answers_the_same_in_another_process(tmp_path):
    first = {name: outcome for name, outcome in reversed(small_cells())}
    assert first.keys() > {"mmdls", "coxnet", "survival_forest", "tabular_encoder"}
    same_in_another_process({name: fitted(name, outcome) for name, outcome in first.items()}, tmp_path)


@pytest.mark.slow
def test_every_estimator_and_outcome_answers_the_same_in_another_process(tmp_path):
    every = [cell.values for cell in cells()]
    same_in_another_process({f"{name}-{outcome}": fitted(name, outcome) for name, outcome in every}, tmp_path)


@pytest.mark.slow
def test_a_pipeline_of_every_estimator_and_its_search_answer_the_same_in_another_process(tmp_path):
    models = {}
    for name, outcome in {name: outcome for name, outcome in (cell.values for cell in reversed(list(cells())))}.items():
        model, X, y = small_study(estimators[name], outcome)
        pipeline = make_pipeline(FunctionTransformer(), model)
        search = OptunaSearch(
            pipeline,
            {"functiontransformer__validate": CategoricalDistribution([False])},
            scoring=next(iter(make_scorers(y).values())),
            n_trials=1,
            cv=2,
            random_state=0,
        )
        models |= {f"{name}-{k}": (each.fit(X, y), X, y) for k, each in enumerate((pipeline, search))}
    same_in_another_process(models, tmp_path)


@pytest.mark.slow
def test_what_is_around_models_answers_the_same_in_another_process(tmp_path):
    small, X, y = small_study(MMDLS, "endpoints")
    scoring = make_scorers(y)
    table = ColumnTransformer(
        [
            ("block", TabularEncoder(), ["clinical_age", "clinical_sex"]),
            (
                "number",
                make_pipeline(FunctionTransformer(np.log1p), StandardScaler()),
                make_column_selector("_suvmean"),
            ),
        ]
    )
    _, _, labels = small_study(MMDLS, "text")
    numbers = X.fillna(X.mean(numeric_only=True))
    grid = {"fusion": ["gated", Part("concat", dropout=0.2)], "random_state": [np.random.RandomState(3)]}
    models = {
        "ensemble": (clone(small).set_params(n_members=3, table_encoder__linear=True), X, y),
        "hazard": (clone(small).set_params(survival_head="logistic_hazard"), X, y),
        "grid": (GridSearchCV(small, grid, cv=CohortKFold(2), refit="os_concordance_index", scoring=scoring), X, y),
        "optuna": (OptunaSearch(small, n_trials=2, cv=2, scoring=scoring["os_concordance_index"]), X, y),
        "frozen": (make_pipeline(FunctionTransformer(), FrozenEstimator(clone(small).fit(X, y))), X, y),
        "forest": (make_pipeline(table, RandomForestClassifier(3)), numbers, labels.iloc[:, 0]),
        "boosting": (make_pipeline(table, HistGradientBoostingClassifier(max_iter=2)), numbers, labels.iloc[:, 0]),
    }
    same_in_another_process(
        {name: (model.fit(X, y), X, pd.DataFrame(y)) for name, (model, X, y) in models.items()}, tmp_path
    )


def numbers_and_classes():
    rng = np.random.default_rng(0)
    X = pd.DataFrame(rng.normal(size=(60, 5)) ** 2, columns=list("abcde"))
    return X, (X["a"] > X["b"]).map({True: "high", False: "low"})


@pytest.mark.parametrize(
    "model",
    [
        make_pipeline(SelectKBest(f_classif, k=2), LogisticRegression()),
        make_pipeline(SelectPercentile(mutual_info_classif), LogisticRegression()),
        GaussianProcessClassifier(1.0 * RBF() + WhiteKernel(), random_state=0),
        make_pipeline(SplineTransformer(extrapolation="periodic"), LogisticRegression()),
        MLPClassifier((3,), max_iter=3, random_state=0),
        MLPClassifier((3,), max_iter=3, solver="sgd", random_state=0),
        RandomizedSearchCV(LogisticRegression(), {"C": loguniform(0.1, 10)}, n_iter=2, cv=2, random_state=0),
        RandomizedSearchCV(
            KNeighborsClassifier(algorithm="brute"), {"n_neighbors": randint(1, high=4)}, n_iter=2, cv=2, random_state=0
        ),
    ],
    ids=["best", "percentile", "kernel", "spline", "adam", "sgd", "continuous", "discrete"],
)
def test_models_of_scikit_learn_with_functions_kernels_and_distributions_come_back(model, tmp_path):
    X, y = numbers_and_classes()
    loaded = again(model.fit(X, y), tmp_path)
    assert np.array_equal(loaded.predict_proba(X), model.predict_proba(X))
    assert np.array_equal(
        clone(loaded).set_params(**model.get_params(deep=False)).fit(X, y).predict(X), model.predict(X)
    )
    for name, drawn in getattr(model, "param_distributions", {}).items():
        same = loaded.param_distributions[name]
        assert (same.rvs(9, random_state=0) == drawn.rvs(9, random_state=0)).all() and same.kwds == drawn.kwds


@pytest.mark.parametrize("by", [None, "centre"])
def test_sets_and_bounds_come_back_without_ids(by, tmp_path):
    X, y = make_nsclc_cohort(120, n_slices=1, image_size=8, n_radiomics=0, return_X_y=True, random_state=0)
    X = X.filter(regex="^clinical_|^centre")
    censoring = None if by else ClinicalCox()
    models = {
        "endpoint": ConformalPredictor(ClinicalCox(), by=by, censoring=censoring, cv=3, random_state=0),
        "label": ConformalPredictor(make_pipeline(TabularEncoder(), LogisticRegression()), by=by, cv=3, random_state=0),
    }
    models["endpoint"].fit(X, y[["os_time", "os_event"]])
    models["label"].fit(X, y[["stage"]])
    for model in models.values():
        loaded = again(model, tmp_path)
        pd.testing.assert_frame_equal(loaded.predict_lower_bounds(X), model.predict_lower_bounds(X), check_exact=True)
        for task, sets in model.predict_sets(X).items():
            assert loaded.predict_sets(X)[task].equals(sets)
        (calibration,) = loaded.calibration_.values()
        assert set(calibration.index) <= set(range(120))
        assert not any(b"P000" in file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())


def test_tensors_start_where_those_of_a_copy_start(tmp_path):
    small, X, y = small_study(MMDLS, "endpoints")
    model = clone(small).set_params(n_members=1, table_encoder__linear=True).fit(X, y)
    for each in (model, again(model, tmp_path)):
        network = each.net_.module_
        tensors = [*network.parameters(), *network.buffers()]
        assert len(tensors) > 20 and {tensor.data_ptr() % 64 for tensor in tensors} == {0}


def test_a_loaded_model_is_evaluated_cloned_and_shown_as_before(cox, tmp_path):
    model, X, y = cox
    loaded = again(model, tmp_path)
    pd.testing.assert_frame_equal(
        evaluate(loaded, X, y, n_resamples=10), evaluate(model, X, y, n_resamples=10), check_exact=True
    )
    assert repr(loaded) == repr(model) and loaded.get_params() == model.get_params()
    assert np.array_equal(clone(loaded).fit(X, y).predict(X), model.predict(X))
    assert np.array_equal(again(loaded, tmp_path).predict(X), model.predict(X))


def test_a_search_is_read_with_its_trials(tmp_path):
    small, X, y = small_study(ClinicalCox, "endpoint")
    search = OptunaSearch(small, n_trials=3, cv=2, random_state=0).fit(X, y)
    loaded = again(search, tmp_path)
    assert loaded.study_.trials == search.study_.trials and loaded.best_params_ == search.best_params_
    assert loaded.score(X, y) == search.score(X, y)
    for name, column in search.cv_results_.items():
        np.testing.assert_array_equal(loaded.cv_results_[name], column)


# -- values ------------------------------------------------------------------------------------------------------------

MOMENT = pd.Timestamp("2020-03-01 10:00", tz="Europe/Berlin")
VALUES = [
    *(None, True, 3, 10**30, -0.0, 1e-310, float("inf"), "ü\n\ud800", 2 + 3j, b"\x00x"),
    *((), (1, (2,)), {3, "a"}, frozenset({1}), {1: "a", (2, None): [None], None: {}}, slice(1, None), range(2, 9, 3)),
    *(np.float32(0.1), np.int8(-3), np.bool_(True), np.str_("x"), np.datetime64("2020-01-02"), np.timedelta64(3, "h")),
    *(pd.Timestamp("2020-01-01 00:00:00.123456789"), MOMENT, pd.Timedelta("3h"), pd.NA, pd.NaT),
    *(datetime.date(2020, 1, 2), datetime.datetime(2020, 1, 2, 3), datetime.timedelta(days=2, seconds=1), Path("a/b")),
    *(np.dtype("float32"), np.dtype([("event", "?"), ("time", "<f8")]), pd.CategoricalDtype, torch.float64, np.log1p),
]


@pytest.mark.parametrize("value", [v for v in VALUES if v is not pd.CategoricalDtype], ids=lambda v: type(v).__name__)
def test_a_value_comes_back_as_it_was(value, tmp_path):
    found = again(FunctionTransformer(kw_args={"value": [value, ClinicalCox()]}), tmp_path).kw_args["value"][0]
    assert type(found) is type(value)
    assert repr(found) == repr(value) or (isinstance(value, set) and found == value)


ARRAYS = [
    np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    np.arange(12, dtype=">i2").reshape(3, 4)[:, ::2],
    np.zeros((0, 3), np.float16),
    np.array(3.5),
    np.array([1 + 2j, np.nan]),
    np.array(["2020-01-01", "NaT"], "M8[s]"),
    np.array(["a", "äbc"]),
    np.array([(True, 2.5), (False, np.nan)], [("event", "?"), ("time", "<f8")]),
    np.array([None, "x", np.ones(2), [1], np.nan], dtype=object),
    np.array([[1, 2], [3, 4]], dtype=object),
    np.ma.MaskedArray([1.0, 2.0], [False, True], fill_value=9.0),
]


@pytest.mark.parametrize("array", ARRAYS, ids=lambda a: f"{a.dtype}-{a.shape}")
def test_an_array_comes_back_as_it_was(array, tmp_path):
    loaded = again(FunctionTransformer(kw_args={"a": array, "same": array, "model": ClinicalCox()}), tmp_path).kw_args
    found = loaded["a"]
    assert type(found) is type(array) and found.dtype == array.dtype and found.shape == array.shape
    assert repr(found) == repr(array) and found.flags.f_contiguous == array.flags.f_contiguous
    assert found.flags.writeable and (found is loaded["same"] or array.dtype.kind in "OUV" or hasattr(array, "mask"))


COLUMNS = {
    "number": [1.5, np.nan],
    "nullable": pd.array([1, None], dtype="Int64"),
    "flag": pd.array([True, None], dtype="boolean"),
    "text": ["a", None],
    "object": pd.Series(["a", None], dtype=object),
    "stage": pd.Categorical(["I", None], ["I", "II"], ordered=True),
    "date": pd.to_datetime(["2020-01-01", None]),
    "zoned": pd.to_datetime(["2020-01-01", None]).tz_localize("Europe/Berlin"),
    "span": pd.to_timedelta(["1h", None]),
    "period": pd.period_range("2020-01", periods=2, freq="M"),
    "arrow": pd.array(["a", None], dtype="string[pyarrow]"),
    "interval": pd.interval_range(0, 2),
}
INDICES = [
    pd.RangeIndex(3, 5, name="patient"),
    pd.Index(["p1", "p2"]),
    pd.MultiIndex.from_tuples([("a", 1), ("b", 2)], names=["centre", None]),
    pd.DatetimeIndex(["2020-01-01", "2021-01-01"]),
    pd.CategoricalIndex(["x", "y"]),
]


@pytest.mark.parametrize("index", INDICES, ids=lambda index: type(index).__name__)
def test_a_table_comes_back_as_it_was(index, tmp_path):
    table = pd.DataFrame(COLUMNS).set_axis(index, axis=0)
    table.attrs = {"unit": "months"}
    loaded = again(
        FunctionTransformer(kw_args={"t": table, "s": table["stage"], "model": ClinicalCox()}), tmp_path
    ).kw_args
    pd.testing.assert_frame_equal(loaded["t"], table, check_exact=True, check_freq=False)
    pd.testing.assert_series_equal(loaded["s"], table["stage"], check_freq=False)
    assert loaded["t"].attrs == table.attrs and loaded["t"].dtypes.equals(table.dtypes)


def test_tensors_keep_the_order_of_their_axes(tmp_path):
    image = torch.rand(2, 3, 4, 5).to(memory_format=torch.channels_last)
    values = [image, torch.rand(4, 1, 3, 3).to(memory_format=torch.channels_last), image[:, :1], torch.rand(3)[:0]]
    values += [
        torch.rand(3).expand(2, 3),
        torch.tensor(2.0),
        torch.rand(4).bfloat16(),
        nn.Parameter(torch.rand(2), False),
    ]
    loaded = again(FunctionTransformer(kw_args={"values": [*values, values[0]], "m": ClinicalCox()}), tmp_path)
    loaded = loaded.kw_args["values"]
    for found, value in zip(loaded, values, strict=False):
        assert type(found) is type(value) and torch.equal(found, value) and found.requires_grad == value.requires_grad
        assert found.stride() == value.stride() or value.shape == (2, 1, 4, 5) or value.stride() == (0, 1)
    assert loaded[-1] is loaded[0]


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (lambda x: x, r"model\.func is the function .*holds no code"),
        (os.system, r"model\.func is the function 'system'"),
        (np.linalg.norm, r"model\.func is the function 'norm'"),
        (ClinicalCox().fit, r"model\.func is of class builtins:method|holds no code"),
        (subprocess.Popen, r"model\.func is of class subprocess:Popen"),
        (object(), r"model\.func is of class builtins:object"),
        (open, r"model\.func is the function 'open'"),
        (iter([1]), r"model\.func is of class builtins:list_iterator"),
        (np.array([object()]), r"model\.func\[0\]|model\.func is of class builtins:object"),
        (torch.rand(2).to_sparse(), r"model\.func is a tensor"),
    ],
    ids=lambda value: "" if isinstance(value, str) else type(value).__name__,
)
def test_what_cannot_be_saved_is_refused_with_its_place(value, said, tmp_path):
    model = make_pipeline(FunctionTransformer(), FrozenEstimator(ClinicalCox()))
    model.steps[0][1].func = value
    with pytest.raises(TypeError, match=said.replace("model", r"model\.steps\[0\]\[1\]")):
        mmdls.save(model, tmp_path / "model")
    assert not list(tmp_path.iterdir())


def test_neighbours_say_which_algorithm_can_be_saved(tmp_path):
    X, y = np.random.default_rng(0).normal(size=(20, 2)), np.arange(20) % 2
    with pytest.raises(TypeError, match="algorithm='brute'"):
        mmdls.save(KNeighborsClassifier(algorithm="kd_tree").fit(X, y), tmp_path / "m")
    model = KNeighborsClassifier(algorithm="brute").fit(X, y)
    assert np.array_equal(again(model, tmp_path).predict(X), model.predict(X))


def test_only_estimators_are_saved(tmp_path):
    for value in (ClinicalCox, 3, {"model": ClinicalCox()}):
        with pytest.raises(TypeError, match="needs a fitted estimator"):
            mmdls.save(value, tmp_path / "model")


def test_hooks_are_refused(tmp_path):
    model, X, y = small_study(MMDLS, "boolean")
    model = clone(model).fit(X, y)
    model.net_.module_.register_forward_hook(lambda *args: None)
    with pytest.raises(TypeError, match="net_.module_ has .*_forward_hooks"):
        mmdls.save(model, tmp_path / "model")


# -- places of one machine ---------------------------------------------------------------------------------------------


def test_passwords_and_places_of_this_machine_are_not_saved(tmp_path):
    small, X, y = small_study(ClinicalCox, "endpoint")
    search = OptunaSearch(small, n_trials=1, cv=2).fit(X, y)
    search.storage = "postgresql://anna:s3cret@host/study"
    with pytest.warns(UserWarning, match=r"not saved: model.storage \(postgresql://anna:\*\*\*@host/study\)"):
        mmdls.save(search, tmp_path / "model")
    assert mmdls.load(tmp_path / "model").storage is None
    assert not [file for file in (tmp_path / "model").rglob("*") if file.is_file() and b"s3cret" in file.read_bytes()]


# -- patients ----------------------------------------------------------------------------------------------------------


def tensors_and_arrays(value, known):
    if id(value) in known:
        return
    known[id(value)] = value
    if isinstance(value, torch.Tensor | np.ndarray | pd.DataFrame):
        yield value
    inside = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    for each in [*inside, *getattr(value, "__dict__", {}).values()]:
        yield from tensors_and_arrays(each, known)


@pytest.mark.parametrize("n_members", [1, 3])
def test_a_fitted_model_holds_no_patient_beside_the_outcomes_that_it_says(n_members, tmp_path):
    model, X, y = small_study(MMDLS, "endpoints", n_patients=47)
    model = clone(model).set_params(n_members=n_members, table_encoder__linear=True).fit(X, y)
    lengths = [v for v in tensors_and_arrays(vars(model), {}) if 47 in v.shape]
    assert len(lengths) == 2 and all(any(v is each for v in lengths) for each in model.training_outcomes_.values())
    assert not model.net_.optimizer_.state_dict() and model.net_.callbacks_ == []
    mmdls.save(model, tmp_path / "model")
    card = (tmp_path / "model" / "README.md").read_text()
    assert "`model.training_outcomes_['os']`: time and event of 47 training patients" in card
    ids = [
        name for name in X.index if any(str(name).encode() in f.read_bytes() for f in (tmp_path / "model").glob("*"))
    ]
    assert not ids or X.index.dtype == int


def test_a_loaded_model_answers_without_the_compiler_of_torch(tmp_path):
    """Its import takes longer than everything else about a first answer."""
    study = {"n_slices": 1, "image_size": 16, "return_X_y": True, "random_state": 0}
    trainer = mmdls.Trainer(max_epochs=1, validation_fraction=0)
    mmdls.save(mmdls.MMDLS(n_members=1, trainer=trainer).fit(*make_nsclc_cohort(20, **study)), tmp_path / "model")
    code = f"""
import sys, mmdls
from mmdls.datasets import make_nsclc_cohort
X, _ = make_nsclc_cohort(2, **{study})
assert len(mmdls.load({str(tmp_path / "model")!r}).predict(X)) == 2
assert "torch" in sys.modules and "torch._dynamo" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_card_names_tables_of_patients_in_parameters(tmp_path):
    model, X, y = small_study(estimators["stability_filter"], "endpoint")
    mmdls.save(clone(model).fit(X, y), tmp_path / "model", data=(X, y))
    card = (tmp_path / "model" / "README.md").read_text()
    assert "`model.steps[0][1].repeats[0]`: a table of 48 rows, with its index" in card


# -- manifest, card, versions ------------------------------------------------------------------------------------------


def test_manifest_and_card_say_what_was_given(cox, tmp_path):
    model, X, y = cox
    table = evaluate(model, X, y, horizons=(12,), n_resamples=10)
    mmdls.save(model, tmp_path / "m", data=(X, y), metrics=table, intended_use="Research on lung cancer.")
    manifest = json.loads((tmp_path / "m" / "manifest.json").read_text())
    assert manifest["format"] == 1 and manifest["data"]["patients"] == 48 and len(manifest["data"]["X"]) == 64
    assert manifest["versions"]["torch"] == version("torch") and manifest["tasks"][0]["name"] == "os"
    card = (tmp_path / "m" / "README.md").read_text()
    _, head, body = card.split("---\n", 2)
    assert 'library_name: "mmdls"' in head and "model-index:" in head and '"concordance_index"' in head
    assert "Research on lung cancer." in body and "| concordance_index |" in body and manifest["data"]["X"] in body
    done = subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=tmp_path / "m", capture_output=True)
    assert done.returncode == 0


def rewritten(folder, name, change):
    """A folder whose member is changed, with checksums that fit."""
    file = folder / name
    file.write_bytes(change(file.read_bytes()))
    members = {f.relative_to(folder).as_posix(): f.read_bytes() for f in folder.rglob("*") if f.is_file()}
    (folder / "SHA256SUMS").write_bytes(checksums(members))


def test_other_versions_are_named_in_a_warning(cox, tmp_path):
    model, X, _ = cox
    mmdls.save(model, tmp_path / "m")
    with warnings.catch_warnings():
        warnings.simplefilter("error", InconsistentVersionWarning)
        mmdls.load(tmp_path / "m")
    rewritten(tmp_path / "m", "manifest.json", lambda text: text.replace(version("torch").encode(), b"1.0"))
    with pytest.warns(InconsistentVersionWarning, match=r"saved with torch 1.0 \(here 2"):
        loaded = mmdls.load(tmp_path / "m")
    assert np.array_equal(loaded.predict(X), model.predict(X))


@pytest.mark.parametrize(("number", "said"), [(b"2", "Update mmdls"), (b"0", "names no format"), (b'"x"', "no format")])
def test_another_format_says_what_to_do(cox, number, said, tmp_path):
    mmdls.save(cox[0], tmp_path / "m")
    rewritten(tmp_path / "m", "manifest.json", lambda text: text.replace(b'"format":1', b'"format":' + number))
    with pytest.raises(ValueError, match=said):
        mmdls.load(tmp_path / "m")


# -- writing -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["model", "model.mmdls"])
def test_a_failure_while_writing_leaves_the_old_model(cox, name, tmp_path, monkeypatch):
    model, X, _ = cox
    mmdls.save(model, tmp_path / name)
    other = clone(model).set_params(alpha=100.0).fit(*cox[1:])

    def full(self, content):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as context:
        context.setattr(Path, "write_bytes", full)
        with pytest.raises(OSError, match="No space left"):
            mmdls.save(other, tmp_path / name)
    assert [file.name for file in tmp_path.iterdir()] == [name]
    assert np.array_equal(mmdls.load(tmp_path / name).predict(X), model.predict(X))
    mmdls.save(other, tmp_path / name)
    assert [file.name for file in tmp_path.iterdir()] == [name]
    assert np.array_equal(mmdls.load(tmp_path / name).predict(X), other.predict(X))


@pytest.mark.parametrize("name", ["model", "model.mmdls"])
def test_a_full_disk_leaves_the_old_model(cox, name, tmp_path):
    model, X, _ = cox
    mmdls.save(model, tmp_path / name)
    assert "OSError(27" in with_a_full_disk(lambda: mmdls.save(model, tmp_path / name), n_bytes=2000)
    assert [file.name for file in tmp_path.iterdir()] == [name]
    assert np.array_equal(mmdls.load(tmp_path / name).predict(X), model.predict(X))


def test_nothing_but_a_model_is_replaced(cox, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "thesis.txt").write_text("years of work")
    (tmp_path / "file").write_text("x")
    (tmp_path / "f.mmdls").mkdir()
    for name in ("folder", "file", "f.mmdls"):
        with pytest.raises(FileExistsError):
            mmdls.save(cox[0], tmp_path / name)
    with pytest.raises(FileNotFoundError, match="no folder"):
        mmdls.save(cox[0], tmp_path / "none" / "m")
    with pytest.raises(FileNotFoundError, match="no saved model"):
        mmdls.load(tmp_path / "none")
    assert (tmp_path / "folder" / "thesis.txt").read_text() == "years of work"


# -- registered parts of other packages and of notebooks ---------------------------------------------------------------


class AgeNet(nn.Module):
    """A network that is registered nowhere, and comes with an encoder that is."""

    def __init__(self):
        super().__init__()
        self.layer, self.out_features = nn.Linear(1, 4), 4

    def forward(self, table):
        return self.layer(table)


class AgeEncoder(Encoder, BaseEstimator):
    """The first number of a table."""

    def prepare(self, X, *, n_jobs=None, verbose=0):
        ages = X.select_dtypes("number").iloc[:, :1]
        return TableData(ages.fillna(0).to_numpy() / 100, ages.notna().to_numpy()[:, 0])

    def build(self, data):
        return AgeNet()


class Doubling(TransformerMixin, BaseEstimator):
    """Registered nowhere, with nothing beside it that is."""

    def fit(self, X, y=None):
        return self


@pytest.mark.slow
def test_a_part_of_a_notebook_is_saved_by_its_name_and_asked_for_where_it_is_unknown(tmp_path, monkeypatch):
    small, X, y = small_study(MMDLS, "boolean")
    small.set_params(modalities=[("age", AgeEncoder(), ["clinical_age"])])
    with pytest.raises(TypeError, match=r"AgeEncoder, which a saved model may not hold; register it"):
        mmdls.save(clone(small).fit(X, y), tmp_path / "m")
    monkeypatch.setattr(encoders, "_parts", dict(encoders._parts))
    encoders.register("age")(AgeEncoder)
    model = clone(small).fit(X, y)
    assert np.array_equal(again(model, tmp_path).predict_proba(X, "squamous"), model.predict_proba(X, "squamous"))
    code = f"import mmdls; mmdls.load({str(tmp_path / 'model.mmdls')!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "ImportError" in done.stderr and "encoders['age']" in done.stderr
    assert "AgeEncoder" in done.stderr and repr(AgeEncoder.__module__) in done.stderr
    known = subprocess.run(
        [
            sys.executable,
            "-c",
            f"import mmdls, tests.test_persistence as t; mmdls.registry.encoders.register('age')(t.AgeEncoder)\n{code}",
        ],
        cwd=Path(__file__).parents[1],
    )
    assert known.returncode == 0


def test_an_unregistered_class_is_refused(tmp_path):
    with pytest.raises(TypeError, match=r"Doubling, which a saved model may not hold; register it under a name"):
        mmdls.save(make_pipeline(Doubling(), LogisticRegression()), tmp_path / "m")


SCALING = """
from sklearn.base import BaseEstimator, TransformerMixin

class Base(TransformerMixin, BaseEstimator):
    def fit(self, X, y=None):
        return self

class Scaling(Base):
    factor = 2

    @property
    def divisor(self):
        return 3

    def transform(self, X):
        return X * self.factor / self.divisor
"""


def scaling(file, old="", new=""):
    """The class of a module, which is read anew after its text was changed."""
    assert old in SCALING
    file.write_text(SCALING.replace(old, new) if old else SCALING)
    linecache.checkcache()
    spec = importlib.util.spec_from_file_location("of_mine", file)
    module = sys.modules["of_mine"] = importlib.util.module_from_spec(spec)
    exec(compile(file.read_text(), file, "exec"), vars(module))
    return estimators.register("scaling")(module.Scaling)


@pytest.mark.parametrize(
    ("old", "new", "warned"),
    [
        ("", "", False),
        ("return X * ", "# a comment\n        return  X * ", False),
        ("transform(self, X):", "transform(self, X):\n        'A docstring.'", False),
        ("factor = 2", "factor = 3", True),
        ("return 3", "return 4", True),
        ("return X * self", "return X + self", True),
        ("y=None", "y=0", True),
    ],
)
def test_other_code_of_a_registered_class_is_warned_about(old, new, warned, tmp_path, monkeypatch):
    monkeypatch.setattr(estimators, "_parts", dict(estimators._parts))
    monkeypatch.setitem(sys.modules, "of_mine", None)
    X = np.arange(12.0).reshape(6, 2)
    scale = scaling(tmp_path / "of_mine.py")
    mmdls.save(make_pipeline(scale(), LogisticRegression()).fit(X, [0, 1] * 3), tmp_path / "m")
    scaling(tmp_path / "of_mine.py", old, new)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        mmdls.load(tmp_path / "m")
    assert [w.category for w in caught] == [mmdls.persistence.InconsistentVersionWarning] * warned
    assert all("other code of of_mine:Scaling" in str(w.message) for w in caught)


@pytest.mark.parametrize("known_when", ["saving", "loading", "never"])
def test_code_that_python_cannot_show_is_warned_about(known_when, tmp_path, monkeypatch):
    monkeypatch.setattr(estimators, "_parts", dict(estimators._parts))
    monkeypatch.setitem(sys.modules, "of_mine", None)

    def registered(known):
        if known:
            return scaling(tmp_path / "of_mine.py")
        module = sys.modules["of_mine"] = types.ModuleType("of_mine")  # as of a script that is read from a pipe
        exec(SCALING, vars(module))
        return estimators.register("scaling")(module.Scaling)

    scale = registered(known_when == "saving")
    assert (source_hash(scale) is None) == (known_when != "saving")
    mmdls.save(make_pipeline(scale(), LogisticRegression()).fit(np.eye(4), [0, 1] * 2), tmp_path / "m")
    registered(known_when == "loading")
    said = "has no hash of the code of of_mine:Scaling, since Python could not show it"
    with pytest.warns(mmdls.persistence.InconsistentVersionWarning, match=said) as caught:
        mmdls.load(tmp_path / "m")
    assert len(caught) == 1


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("model.image_encoder.backbone.name", "backbones"),
        ("model.modalities[0][1].pooling", "poolings"),
        ("model.heads['os']", "survival_heads"),
        ("model.steps[0][1]", "estimators"),
    ],
)
def test_the_refusal_names_the_registry_of_the_class(path, kind):
    cls = {"survival_heads": CoxHead, "estimators": Doubling}.get(kind, AgeNet)
    own = type("Own", (cls,), {"__module__": "__main__"})
    with pytest.raises(TypeError, match=rf"mmdls.registry.{kind}.register\('own'\)\(Own\).*need not be fitted again"):
        class_reference(own, path)


@pytest.mark.parametrize("name", ["_slices:SliceEncoder", "_moved_long_ago:SliceEncoder", "inside._it:SliceEncoder"])
def test_a_class_is_found_wherever_it_stands_in_its_package(name):
    assert class_reference(SliceEncoder, "model") == {"name": "mmdls.estimators:SliceEncoder"}
    assert class_named({"name": f"mmdls.estimators.{name}"}) is SliceEncoder
    with pytest.raises(ValueError, match="may not hold"):
        class_named({"name": "mmdls.training:SliceEncoder"})


def test_no_two_classes_of_a_package_share_a_name():
    """A file names a class by its package, see mmdls.persistence._types."""
    root, places = Path(mmdls.__file__).parent, {}
    for file in sorted(root.rglob("*.py")):
        module = import_module(
            ".".join(("mmdls", *file.relative_to(root).with_suffix("").parts)).removesuffix(".__init__")
        )
        for cls in vars(module).values():
            if isinstance(cls, type) and cls.__module__ == module.__name__ and _is_listed(cls):
                places.setdefault(class_reference(cls, "model")["name"], set()).add(cls)
    assert len(places) > 100
    assert not [name for name, classes in places.items() if len(classes) > 1]
    assert all({class_named({"name": name})} == classes for name, classes in places.items())


def test_the_page_about_saving_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for block in blocks_of("docs/saving.md"):
        if "best_model.pt" in block or "mmdls.export" in block:  # tests/test_published.py and test_export.py
            continue
        exec(compile(block, "docs/saving.md", "exec"), {})


def test_every_form_of_outcome_is_tried():
    assert {form for name in estimators for form in outcome_forms(estimators[name])} >= {"text", "ordered", "endpoints"}
