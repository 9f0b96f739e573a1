"""Importances keep their laws, and the next examination is the one that tells most."""

import warnings
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.compose import ColumnTransformer
from sklearn.frozen import FrozenEstimator
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import LeaveOneOut
from sklearn.pipeline import make_pipeline

from mmdls import ClinicalCox
from mmdls.cohort import modalities
from mmdls.datasets import make_nsclc_cohort
from mmdls.explain import feature_importance, modality_importance, which_exam_next
from mmdls.explain._folds import masked, spread
from mmdls.explain._importance import _shapley
from tests.pages import code_of


def patients(n=240, seed=0, missing=0.0):
    """Three blocks: one tells much, one a little, one nothing; and a copy of the best column."""
    rng = np.random.default_rng(seed)
    strong, weak, noise = rng.normal(size=(3, n))
    X = pd.DataFrame(
        {
            "ct_a": strong,
            "ct_b": strong + 0.1 * rng.normal(size=n),
            "pet_a": weak,
            "noise_a": noise,
            "noise_b": rng.normal(size=n),
        },
        index=[f"P{i}" for i in range(n)],
    )
    latent = 2 * strong + 0.8 * weak + rng.logistic(size=n)
    y = pd.DataFrame({"stage": np.where(latent > 0, "late", "early")}, index=X.index)
    X.loc[rng.random(n) < missing, ["ct_a", "ct_b"]] = np.nan
    return X, y


def logistic():
    return make_pipeline(SimpleImputer(keep_empty_features=True), LogisticRegression())


@pytest.fixture(scope="module")
def found():
    X, y = patients(missing=0.2)
    return X, y, modality_importance(logistic(), X, y, n_resamples=200)


def test_shapley_values_are_those_of_a_game_that_was_solved_by_hand():
    """Two of three make 1; the first alone makes a half."""
    values = {(): 0.0, (0,): 0.5, (1,): 0.0, (2,): 0.0, (0, 1): 1.0, (0, 2): 1.0, (1, 2): 1.0, (0, 1, 2): 1.0}
    assert np.allclose(_shapley(values, 3), [0.5, 0.25, 0.25])


def test_values_sum_to_the_gain_of_the_full_model(found):
    _, _, importance = found
    cohort = importance.cohort.set_index("modality")["value"]
    assert cohort.drop("all").sum() == pytest.approx(cohort["all"], abs=1e-6)
    subsets = importance.subsets["stage"]
    assert cohort["all"] == pytest.approx(subsets["ct + pet + noise"] - subsets[""], abs=1e-9)
    assert subsets[""] == 0.5, "an answer without data tells nobody apart"


def test_the_order_is_that_of_the_truth_and_noise_is_worth_nothing(found):
    cohort = found[2].cohort.set_index("modality")
    assert cohort["value"]["ct"] > cohort["value"]["pet"] > cohort["value"]["noise"]
    assert cohort["low"]["noise"] <= 0 <= cohort["high"]["noise"]
    assert cohort["low"]["ct"] > 0 and cohort["low"]["pet"] > 0
    assert cohort["n"]["ct"] < cohort["n"]["pet"] == len(found[0])


def test_on_the_simulator_the_order_is_that_of_the_truth():
    """The oracle: how well the variables of each block alone follow the true risk, in many patients."""
    cohort = make_nsclc_cohort(2000, n_slices=1, image_size=8, n_radiomics=0, random_state=0)
    rng = np.random.default_rng(0)
    X = cohort.data.filter(regex="^clinical_|^pet_").assign(
        noise_a=rng.normal(size=2000), noise_b=rng.normal(size=2000)
    )
    numbers = X.select_dtypes("number")
    told = {}
    for block in ("clinical", "pet", "noise"):
        own = np.log1p(numbers.filter(regex=f"^{block}_").abs()).assign(one=1.0).to_numpy()
        weights, *_ = np.linalg.lstsq(own, cohort.truth["os_risk"].to_numpy())
        told[block] = np.corrcoef(own @ weights, cohort.truth["os_risk"])[0, 1]
    found = modality_importance(
        ClinicalCox(columns="all"), X[:300], cohort.target[["os_time", "os_event"]][:300], n_resamples=100
    ).cohort.set_index("modality")
    order = found["value"].drop("all").sort_values().index.tolist()
    assert order == sorted(told, key=told.get) == ["noise", "clinical", "pet"]
    assert found["low"]["noise"] <= 0 <= found["high"]["noise"] and found["low"]["pet"] > 0


def test_intervals_hold_the_chance_of_training():
    """As wide as those of the resamples where nothing is learned from; 1.5 times with five folds."""
    draws = np.r_[0.3, np.linspace(0.1, 0.5, 401)]
    assert spread(draws, 0.95, 0.0) == pytest.approx((0.3, 0.11, 0.49))
    assert spread(draws, 0.95, 5 / 4) == pytest.approx((0.3, 0.3 - 1.5 * 0.19, 0.3 + 1.5 * 0.19))
    assert np.isnan(spread(draws[:1], 0.95, 1.0)[1:]).all()
    X, y = patients(100)
    found = {}
    for k in (2, 10):
        resampled = modality_importance(logistic(), X, y, cv=k, n_resamples=100, random_state=1).cohort
        found[k] = (resampled["high"] - resampled["low"]).mean()
    assert found[2] > found[10], "two folds learn from fewer patients, so that training adds more"


def test_what_a_patient_lacks_adds_nothing_to_the_answer(found):
    X, _, importance = found
    table = importance.patients["stage"]
    late = table["late"]
    lacks = X["ct_a"].isna()
    assert (late.loc[lacks[lacks].index, "ct"].abs() < 1e-12).all()
    assert (late.loc[lacks[~lacks].index, "ct"].abs() > 1e-6).all()
    assert np.allclose(table["late"], -table["early"]), "probabilities sum to one"


def test_a_loss_is_a_gain_where_it_falls_and_every_task_may_have_its_metric():
    X, y = patients(150)
    importance = modality_importance(logistic(), X, y, metric={"stage": "log_loss"}, n_resamples=0, cv=3)
    assert importance.cohort.set_index("modality")["value"]["ct"] > 0.05
    assert (importance.subsets["stage"] > 0).all()
    with pytest.raises(ValueError, match="metric of 'stage' must be one of"):
        modality_importance(logistic(), X, y, metric={"stage": "concordance_index"})
    with pytest.raises(ValueError, match="is none of those by task"):
        modality_importance(logistic(), X, y, metric="concordance_index")


def test_refitted_models_show_what_modalities_could_tell_alone():
    """The first column is a copy of the second: a fitted model needs one of them, refitted ones need either."""
    X, y = patients(200)
    blocks = {"one": ["ct_a"], "two": ["ct_b"]}
    shown = {
        refit: modality_importance(
            make_pipeline(SimpleImputer(keep_empty_features=True), _FirstColumn()),
            X[["ct_a", "ct_b"]],
            y,
            modalities=blocks,
            refit=refit,
            n_resamples=0,
            cv=2,
        ).subsets["stage"]
        for refit in (False, True)
    }
    assert shown[False]["two"] == 0.5 and shown[True]["two"] > 0.8


class _FirstColumn(LogisticRegression):
    def fit(self, X, y):
        return super().fit(X[:, :1], y)

    def predict_proba(self, X):
        return super().predict_proba(X[:, :1])


def test_a_column_that_no_subset_would_hide_is_refused():
    X, y = patients(30)
    first, *others = (list(columns) for columns in modalities(X).values())
    rest = sum(others, [])
    with pytest.raises(ValueError, match="they lack"):  # else all that the others tell would count for the first
        modality_importance(logistic(), X, y, modalities={"first": first})
    with pytest.raises(ValueError, match="must not share columns"):
        modality_importance(logistic(), X, y, modalities={"first": first, "every": first + rest})


@pytest.mark.parametrize("importance", [modality_importance, feature_importance])
def test_a_column_outside_of_blocks_that_the_model_reads_is_refused(importance):
    X, y = patients(60)
    wide = X.assign(height=np.linspace(0, 1, 60) ** 2, centre="A")
    first = make_pipeline(ColumnTransformer([("read", "passthrough", list(X))]), logistic())
    every = make_pipeline(ColumnTransformer([("read", "passthrough", [*X, "height"])]), logistic())
    importance(first, wide, y, cv=2, n_resamples=0)
    with pytest.raises(ValueError, match=r"the model reads \['height', 'centre'\], or some of them.*no block"):
        importance(every, wide, y, cv=2, n_resamples=0)
    with pytest.raises(ValueError, match="X has no columns of a block or image.*Rename them"):
        importance(logistic(), X.rename(columns=lambda name: name.replace("_", "")), y, cv=2, n_resamples=0)


class _Cut(ClassifierMixin, BaseEstimator):
    """Reads the image inside of its mask; every pair that it is asked about stands in ``asked``."""

    asked: ClassVar[set] = set()

    def __init__(self, modalities):
        self.modalities = modalities

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        return self

    def predict_proba(self, X):
        pairs = [(image.sum(), mask.sum()) for image, mask in zip(X["ct_image"], X["ct_mask"], strict=True)]
        _Cut.asked |= set(pairs)
        share = np.array([1 / (1 + image / mask) for image, mask in pairs])
        return np.column_stack([share, 1 - share])


def test_an_image_is_permuted_with_the_mask_that_the_model_reads_beside_it():
    n = 30
    X = pd.DataFrame({"ct_image": [np.full((1, 2, 2), k + 1.0) for k in range(n)], "noise_a": np.arange(n) % 7})
    X["ct_mask"] = [np.full((1, 2, 2), 100.0 + k) for k in range(n)]
    y = pd.DataFrame({"stage": np.where(np.arange(n) > 14, "late", "early")})
    _Cut.asked.clear()
    table = feature_importance(_Cut({"ct": ["ct_image", "ct_mask"]}), X, y, cv=2, n_resamples=0)
    assert table["columns"].tolist() == ["ct_image, ct_mask", "noise_a"] and table["value"][0] > 0.3
    assert _Cut.asked == {(4.0 * (k + 1), 4 * (100.0 + k)) for k in range(n)}
    with pytest.raises(ValueError, match=r"the model reads \['ct_mask'\]"):
        feature_importance(_Cut(None), X, y, cv=2, n_resamples=0)


def test_rows_of_one_patient_stay_on_one_side():
    X, y = patients(60)
    with pytest.raises(ValueError, match="leaks"):
        parts = [(np.arange(31), np.arange(31, 60))]
        modality_importance(logistic(), X, y, groups=np.repeat(np.arange(30), 2), cv=parts)


def test_cells_of_any_kind_can_be_hidden():
    X = pd.DataFrame(
        {
            "a_int": [1, 2],
            "a_bool": [True, False],
            "a_text": pd.Series(["x", "y"], dtype="str"),
            "a_class": pd.Categorical(["u", "v"]),
            "a_image": pd.Series([np.ones((1, 2, 2)), np.ones((1, 2, 2))], dtype=object),
        }
    )
    assert masked(X, list(X)).isna().all(axis=None) and X.notna().all(axis=None)


class _Memory(ClassifierMixin, BaseEstimator):
    """Right about every row that it was fitted on, and knows nothing of any other."""

    def fit(self, X, y):
        self.classes_, self.rows_ = np.unique(y), [tuple(row) for row in X]
        self.answers_ = dict(zip(self.rows_, np.asarray(y), strict=True))
        return self

    def predict_proba(self, X):
        even = dict.fromkeys(self.classes_, 0.5)
        known = [self.answers_.get(tuple(row)) for row in X]
        return np.array([[even[c] if k is None else float(c == k) for c in self.classes_] for k in known])


@pytest.mark.parametrize("fitted", [False, True])
def test_what_was_learned_by_heart_is_worth_nothing(fitted):
    """Importances ask of patients who were left out, also where the model comes fitted on all of them."""
    X, y = patients(120)
    X = X[["ct_a", "noise_a"]]
    model = make_pipeline(SimpleImputer(), _Memory())
    if fitted:
        model.fit(X, y["stage"])
        assert (model.predict_proba(X)[:, 1] == (y["stage"] == "late")).all()
    shapley = modality_importance(model, X, y, n_resamples=0, cv=4).cohort["value"]
    permuted = feature_importance(model, X, y, n_repeats=2, n_resamples=0, cv=4)["value"]
    assert shapley.abs().max() < 1e-12 and permuted.abs().max() < 1e-12


# -- permutation -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("importance", [feature_importance, modality_importance])
def test_levels_resamples_and_metrics_that_mean_nothing_are_refused_before_anything_is_fitted(importance):
    X, y = patients(40)
    for wrong, message in (
        ({"confidence_level": 95}, "such as 0.95; got 95"),
        ({"n_resamples": -1}, "a whole number of 0 or more; got -1"),
        ({"metric": {"kinds": "auc"}}, r"metric names \['kinds'\], which are no tasks of y: \['stage'\]"),
    ):
        with pytest.raises(ValueError, match=message):
            importance(None, X, y, **wrong)


def test_folds_of_one_patient_are_refused_since_nothing_is_permuted_in_them():
    X = pd.DataFrame({"clinical_a": np.arange(12.0)})
    y = pd.DataFrame({"kind": list("ab") * 6})
    with pytest.raises(ValueError, match=r"fold 1 of cv=LeaveOneOut\(\) tests 1 patient: .* give fewer folds"):
        feature_importance(logistic(), X, y, cv=LeaveOneOut(), n_resamples=0)


def test_columns_that_say_the_same_are_permuted_together():
    X, y = patients(200)
    table = feature_importance(logistic(), X, y, n_repeats=2, n_resamples=100, cv=3)
    assert table["columns"].tolist()[:2] == ["ct_a, ct_b", "pet_a"]
    noise = table.set_index("columns").loc[["noise_a", "noise_b"]]
    assert ((noise["low"] <= 0) & (noise["high"] >= 0)).all() and table["low"].iloc[0] > 0
    alone = feature_importance(logistic(), X, y, correlation=1.0, n_repeats=2, n_resamples=0, cv=3)
    assert alone["n_columns"].eq(1).all() and alone["value"].max() < table["value"].max()
    with pytest.raises(ValueError, match="n_repeats must be 1 or more"):
        feature_importance(logistic(), X, y, n_repeats=0)


# -- the next examination ----------------------------------------------------------------------------------------------


class _Told:
    """A model of a class task and an endpoint whose answers are known."""

    def __init__(self, tasks):
        self.tasks_ = tasks

    def predict_tasks(self, X, times):
        sure = X["ct_a"].abs().fillna(0).to_numpy() + 0.1 * X["pet_a"].abs().fillna(0).to_numpy()
        late = 1 / (1 + np.exp(-sure))
        rate = 1 / (10 + 30 * X["ct_a"].isna().to_numpy())
        curve = np.exp(-np.outer(rate, times))
        return {
            "stage": pd.DataFrame({"early": 1 - late, "late": late}, X.index),
            "os": pd.DataFrame(curve, X.index, times).assign(risk=rate),
        }


@pytest.fixture
def told():
    from mmdls.cohort import find_tasks

    y = pd.DataFrame({"stage": ["early", "late"], "os_time": [1.0, 2.0], "os_event": [1, 0]})
    return _Told(find_tasks(y))


def test_the_examination_that_tells_more_comes_first(told):
    X, _ = patients(100)
    x = X[:1].assign(ct_a=np.nan, ct_b=np.nan, pet_a=np.nan)
    table = which_exam_next(told, x, X, n_draws=30)
    assert table["task"].tolist() == ["stage", "stage", "os", "os"]
    stage = table[:2]
    assert (
        stage["exam"].tolist() == ["ct", "pet"]
        and (stage["change"] < 0).all()
        and (stage["measure"] == "entropy").all()
    )
    assert stage["now"].tolist() == pytest.approx([np.log(2)] * 2)
    assert np.allclose(table["expected"] - table["now"], table["change"]) and (table["n_draws"] == 30).all()
    endpoint = table[2:].set_index("exam")
    assert endpoint["change"]["pet"] == pytest.approx(0) and endpoint["se"]["pet"] == pytest.approx(0)
    # Of an exponential time with mean 40, cut at 60 months.
    mean, t = 40.0, 60.0
    square = 2 * mean * (mean - (mean + t) * np.exp(-t / mean))
    sd = np.sqrt(square - (mean * (1 - np.exp(-t / mean))) ** 2)
    assert endpoint["now"]["pet"] == pytest.approx(sd, rel=0.01)


def test_examinations_are_drawn_from_patients_like_this_one(told):
    """The spread of the drawn column falls with the number of draws, since neighbours have like values."""
    rng = np.random.default_rng(0)
    a = rng.normal(size=400)
    X = pd.DataFrame({"ct_a": a, "pet_a": a + 0.01 * rng.normal(size=400)})
    x = pd.DataFrame({"ct_a": [np.nan], "pet_a": [2.0]}, index=[900])
    near = which_exam_next(told, x, X, n_draws=5).set_index("task").loc["stage"]
    assert near["expected"] == pytest.approx(_entropy(2.0 + 0.2), abs=0.05)
    anybody = which_exam_next(told, x, X, n_draws=400).set_index("task").loc["stage"]
    assert near["se"] * np.sqrt(5) < 0.3 * anybody["se"] * np.sqrt(400)


def _entropy(sure):
    p = 1 / (1 + np.exp(-sure))
    return -(p * np.log(p) + (1 - p) * np.log(1 - p))


def test_columns_that_are_misspelt_are_not_taken_for_missing(told):
    X, _ = patients(30)
    x = X[:1].assign(ct_a=np.nan, ct_b=np.nan)
    pd.testing.assert_frame_equal(
        which_exam_next(told, x.drop(columns=["ct_a", "ct_b"]), X, n_draws=5), which_exam_next(told, x, X, n_draws=5)
    )
    with pytest.raises(ValueError, match=r"x lacks the columns \['ct_a'\] of 'ct', of which it has others"):
        which_exam_next(told, x.drop(columns="ct_a"), X, n_draws=5)
    with pytest.raises(ValueError, match=r"'pet_aa', which no modality of X_reference has. Did you mean 'pet_a'"):
        which_exam_next(told, x.rename(columns={"pet_a": "pet_aa"}), X, n_draws=5)


def test_a_patient_does_not_give_an_examination_to_himself(told):
    X, _ = patients(2)
    x = X[:1].assign(ct_a=np.nan, ct_b=np.nan)
    assert (which_exam_next(told, x, X)["n_draws"] == 1).all()


def test_a_modality_named_as_the_row_of_all_is_refused(told):
    X, _ = patients(20)
    with pytest.raises(ValueError, match="a modality is called 'all'"):
        which_exam_next(told, X[:1], X, modalities={"all": ["ct_a"]})


def test_a_patient_who_lacks_nothing_is_refused(told):
    X, _ = patients(20)
    with pytest.raises(ValueError, match="lacks none of the modalities"):
        which_exam_next(told, X[:1], X)
    with pytest.raises(ValueError, match="no patient of X_reference has the modality 'ct'"):
        gone = X.assign(ct_a=np.nan, ct_b=np.nan)
        which_exam_next(told, gone[:1], gone)
    with pytest.raises(ValueError, match="one patient"):
        which_exam_next(told, X, X)
    for wrong in ({"n_draws": 0}, {"n_draws": -1}, {"horizon": 0.0}, {"horizon": float("nan")}):
        with pytest.raises(ValueError, match="n_draws must be 1 or more"):
            which_exam_next(told, gone[:1], X, **wrong)
    with pytest.raises(TypeError, match="must have predict_tasks"):
        which_exam_next(FrozenEstimator(LogisticRegression()), X[:1], X)


def test_the_page_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = code_of("docs/explanation.md")
    less = {
        "make_nsclc_cohort(400, n_slices=2, image_size=32": "make_nsclc_cohort(60, n_slices=1, image_size=8",
        "max_epochs=40)": "max_epochs=1), n_members=1",
        "cv=3": "cv=2",
        "n_resamples=200": "n_resamples=20",
    }
    for shown, smaller in less.items():
        assert shown in code
        code = code.replace(shown, smaller)
    names: dict = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exec(compile(code, "docs/explanation.md", "exec"), names)
    assert names["found"].cohort["modality"].tolist()[-1] == "all"
