"""Every sampler of Optuna and every choice works in every storage; what cannot be searched is refused by name."""

import itertools
import logging
import warnings

import numpy as np
import optuna
import pandas as pd
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from mmdls._secrets import without_secrets
from mmdls.search import OptunaSearch
from mmdls.search._space import held

ROWS = np.zeros((20, 1)), np.arange(20) % 2
SIZES = [(64, 32), (32,), (16,)]
ODD = [None, True, 1, 1.0, "1", (64, 32), [1, [2, {"x": None}]], {"k": [1, 2]}, False, 0]
STORAGES = ["memory", "journal", "sqlite"]


class Rated(ClassifierMixin, BaseEstimator):
    def __init__(self, quality=0.5, sizes=(64, 32)):
        self.quality = quality
        self.sizes = sizes

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        return self

    def score(self, X, y):
        return float(self.quality)


@pytest.fixture
def storage(request, tmp_path):
    kinds = {"memory": None, "journal": tmp_path / "study.log", "sqlite": f"sqlite:///{tmp_path / 'study.db'}"}
    return kinds[request.param]


def search(space, n_trials, sampler=None, storage=None, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Optuna's, of experimental samplers and of unusual choices
        made = OptunaSearch(Rated(), space, n_trials=n_trials, sampler=sampler, storage=storage, cv=2, random_state=0)
        return made.set_params(**options).fit(*ROWS)


def distribution(choices):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return CategoricalDistribution(choices)


def grid(**values):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return optuna.samplers.GridSampler(values)


def points(fitted):
    return [repr(sorted(point.items())) for point in fitted.cv_results_["params"]]


@pytest.mark.parametrize("storage", STORAGES, indirect=True)
@pytest.mark.parametrize("n_trials", [6, 7, 20])
def test_a_grid_is_covered_once_and_no_more(storage, n_trials):
    """The estimator as it was given is one of its points, not one more."""
    space = {"quality": FloatDistribution(0, 1), "sizes": distribution(SIZES)}
    sampler = grid(quality=[0.1, 0.5, 0.9], sizes=[(64, 32), (32,)])
    expected = [
        repr([("quality", quality), ("sizes", sizes)])
        for quality, sizes in itertools.product([0.1, 0.5, 0.9], SIZES[:2])
    ]
    first = search(space, 4, sampler, storage)
    assert first.cv_results_["params"][0] == {"quality": 0.5, "sizes": (64, 32)}
    assert len(set(points(first))) == 4 and set(points(first)) <= set(expected)
    whole = search(space, n_trials, sampler, storage)
    assert sorted(points(whole)) == sorted(expected) and len(whole.study_.trials) == 6
    assert whole.best_params_["quality"] == 0.9 and isinstance(whole.best_estimator_.sizes, tuple)


def test_a_grid_with_trials_that_died_is_covered(tmp_path):
    moods = iter([False, False, True])

    def moody(estimator, X, y):
        if next(moods, False):
            raise KeyboardInterrupt
        return estimator.quality

    space, values = {"quality": FloatDistribution(0, 1)}, [0.2, 0.4, 0.6, 0.8]
    options = {"storage": tmp_path / "study.log", "scoring": moody}
    with pytest.raises(KeyboardInterrupt):
        search(space, 10, grid(quality=values), **options)
    found = search(space, 10, grid(quality=values), **options)
    assert sorted(found.cv_results_["param_quality"]) == values and set(found.cv_results_["state"]) == {"COMPLETE"}


@pytest.mark.parametrize("storage", STORAGES, indirect=True)
def test_brute_force_tries_every_odd_choice_once(storage):
    space = {"quality": FloatDistribution(0, 1, step=1.0), "sizes": distribution(ODD)}
    sampler = optuna.samplers.BruteForceSampler()
    search(space, 5, sampler, storage)
    whole = search(space, 1000, sampler, storage)
    assert len(points(whole)) == len(set(points(whole))) == 2 * len(ODD)
    assert {repr(value) for value in whole.cv_results_["param_sizes"]} == {repr(choice) for choice in ODD}
    assert len(search(space, 1000, sampler, storage).study_.trials) == 2 * len(ODD)


@pytest.mark.parametrize("storage", STORAGES, indirect=True)
def test_brute_force_goes_through_a_space_that_is_a_function(storage):
    def space(trial):
        sizes = trial.suggest_categorical("sizes", SIZES)
        return {"sizes": sizes, "quality": trial.suggest_int("tenths", 1, 2 if len(sizes) == 2 else 3) / 10}

    sampler = optuna.samplers.BruteForceSampler(seed=0)
    search(space, 3, sampler, storage)
    for _ in range(2):
        whole = search(space, 100, sampler, storage)
        assert len(whole.study_.trials) == len(set(points(whole))) == 2 + 3 + 3
    assert whole.best_params_["quality"] == 0.3 and whole.best_params_["sizes"] in SIZES


@pytest.mark.parametrize("storage", STORAGES, indirect=True)
def test_every_choice_comes_back_as_it_was_given(storage):
    found = search({"sizes": distribution(ODD)}, 10, grid(sizes=ODD), storage)
    assert {repr(value) for value in found.cv_results_["param_sizes"]} == {repr(choice) for choice in ODD}
    for n_trials in (4, 8):
        drawn = search({"sizes": distribution(ODD)}, n_trials, optuna.samplers.TPESampler(seed=0), storage)
        assert len(drawn.study_.trials) == n_trials
    assert (
        len(search({"sizes": distribution(SIZES)}, 5, None, storage).study_.trials) == 5
    )  # other choices, a new study
    objects = [make_pipeline(Rated()), Rated, len, np.float64(0.5), np.array([1, 2])]
    found = search({"sizes": distribution(objects)}, 5, None, storage)
    assert all(any(value is choice for choice in objects) for value in found.cv_results_["param_sizes"])


@pytest.mark.parametrize("name", ["QMC", "NSGAII", "NSGAIII", "GP", "TPE", "CmaEs"])
@pytest.mark.parametrize("storage", ["memory", "journal"], indirect=True)
def test_samplers_that_draw_begin_with_the_estimator_as_it_was_given(name, storage):
    if name == "CmaEs":
        pytest.importorskip("cmaes")
    space = {"quality": FloatDistribution(0, 1), "sizes": distribution(SIZES)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sampler = getattr(optuna.samplers, f"{name}Sampler")(seed=0)
    found = search(space, 8, sampler, storage)
    assert found.cv_results_["params"][0] == {"quality": 0.5, "sizes": (64, 32)}
    assert (
        len(found.cv_results_["state"]) == 8 and "FAIL" not in found.cv_results_["state"] and found.best_score_ >= 0.5
    )


@pytest.mark.parametrize("name", ["NSGAII", "NSGAIII", "GP", "TPE", "BruteForce"])
def test_several_objectives_with_every_sampler_that_takes_them(name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sampler = getattr(optuna.samplers, f"{name}Sampler")(seed=0)
    scoring = {"high": lambda e, X, y: e.quality, "near": lambda e, X, y: -abs(e.quality - 0.3)}
    space = {"quality": FloatDistribution(0, 1, step=0.1)}
    found = search(space, 11, sampler, scoring=scoring, refit="near")
    assert len(found.cv_results_["state"]) == 11 and len(found.best_trials_) >= 1
    if name == "BruteForce":
        assert found.best_params_["quality"] == pytest.approx(0.3)


def test_what_is_fixed_stays_fixed():
    space = {"quality": FloatDistribution(0, 1), "sizes": distribution(SIZES)}
    drawn = search(space, 6, optuna.samplers.PartialFixedSampler({"sizes": (32,)}, optuna.samplers.TPESampler(seed=0)))
    assert set(drawn.cv_results_["param_sizes"]) == {(32,)} and len(set(drawn.cv_results_["param_quality"])) == 6
    inner = grid(quality=[0.1, 0.9], sizes=[(64, 32), (32,)])
    cells = search(space, 6, optuna.samplers.PartialFixedSampler({"sizes": (32,)}, inner))
    assert sorted(cells.cv_results_["param_quality"]) == [0.1, 0.9]


def test_a_sampler_may_end_the_search_with_any_pruner():
    class Three(optuna.samplers.RandomSampler):
        def after_trial(self, study, trial, state, values):
            if trial.number == 2:
                study.stop()

    for pruner in (None, optuna.pruners.HyperbandPruner()):
        found = search({"quality": FloatDistribution(0, 1)}, 50, Three(seed=0), pruner=pruner)
        assert len(found.cv_results_["state"]) == 3
        with pytest.raises(RuntimeError):  # the study is Optuna's own again
            found.study_.stop()


def test_grids_that_do_not_fit_the_space_are_refused():
    space = {"quality": FloatDistribution(0, 1), "sizes": distribution(SIZES)}
    for sampler, message in (
        (grid(qualiti=[1]), r"the sampler names \['qualiti'\], which are not in search_space: \['quality', 'sizes'\]"),
        (grid(quality=[0.1]), r"the sampler lacks 'sizes'; it has \['quality'\]"),
        (grid(quality=[7], sizes=[(32,)]), "the sampler's value of 'quality' is not in search_space: 7"),
        (optuna.samplers.BruteForceSampler(), r"search_space\['quality'\] has no step"),
    ):
        with pytest.raises(ValueError, match=message):
            search(space, 3, sampler)


def test_a_space_holds_what_it_can_draw():
    for choices, inside, outside in (
        ([1, 2], [1, 1.0, np.int64(2)], [True, 3, "1", None]),
        ([True, None], [True, None], [1, False, 0]),
        (SIZES, [(64, 32), [32]], [(64,), 32]),
        ([float("nan"), 1.0], [float("nan"), 1], ["nan"]),
    ):
        assert all(held(distribution(choices), value) for value in inside), choices
        assert not any(held(distribution(choices), value) for value in outside), choices
    assert held(IntDistribution(1, 9), 9) and not held(IntDistribution(1, 9), 10)
    assert not held(FloatDistribution(0, 1), True) and not held(FloatDistribution(0, 1), np.nan)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("n_trials", value) for value in (0, -3, float("nan"), 2.5, "all", None, True)),
        *(("timeout", value) for value in (0, -1, float("nan"), "1h")),
        *(("cv", value) for value in (1, 0, -2, "five", 2.5)),
        *(("sampler", value) for value in ("tpe", optuna.samplers.TPESampler)),
        *(("pruner", value) for value in ("median", 3)),
        ("epoch_pruner", "median"),
        *(("scoring", value) for value in (3, ["roc_auc"])),
        *(("search_space", value) for value in ({}, [0, 1], "auto")),
        *(("storage", value) for value in (3, "", ["a"])),
        *(("catch", value) for value in (ValueError, (3,), "all")),
        ("refit", "accuracy"),
        ("n_jobs", "all"),
        ("n_jobs", 0),
        ("verbose", "yes"),
        ("random_state", "seed"),
        ("estimator", "cox"),
    ],
)
def test_wrong_parameters_are_refused_by_name(name, value):
    search = OptunaSearch(Rated(), {"quality": FloatDistribution(0, 1)}, n_trials=2, cv=2, random_state=0)
    with pytest.raises((ValueError, TypeError), match=name):
        search.set_params(**{name: value}).fit(*ROWS)


def test_nothing_is_printed_unless_asked_for(capfd):
    lines, verbosity = [], optuna.logging.get_verbosity()
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    optuna.logging.set_verbosity(optuna.logging.INFO)
    logging.getLogger("optuna").addHandler(handler)
    try:
        search({"quality": FloatDistribution(0, 1)}, 2)
        assert capfd.readouterr() == ("", "") and not lines
        assert optuna.logging.get_verbosity() == optuna.logging.INFO
        search({"quality": FloatDistribution(0, 1)}, 2, verbose=2)
        assert "study created" in lines[0]
    finally:
        logging.getLogger("optuna").removeHandler(handler)
        optuna.logging.set_verbosity(verbosity)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://anna:s3cretPW@host:5432/study",
        "postgresql+psycopg2://anna:s3cretPW/with:odd@signs@host/study?sslmode=require",
        "sqlite:////nowhere/study.db?password=s3cretPW",
        "mysql://host/study?user=anna&pwd=s3cretPW&timeout=3",
        "mssql+pyodbc:///?odbc_connect=DRIVER%3D%7BSQL%7D%3BUID%3Danna%3BPWD%3Ds3cretPW%3BTimeout%3D3",
        "https://host/study?access_token=s3cretPW",
        "grpc://anna:s3cretPW@host:port",
    ],
)
def test_a_password_is_never_shown(url):
    made = OptunaSearch(Rated(), {"quality": FloatDistribution(0, 1)}, storage=url)
    texts = [
        repr(made), str(made), made._repr_html_(), repr(make_pipeline(made)), make_pipeline(made)._repr_html_(),
        repr(GridSearchCV(made, {"n_trials": [1]})), repr(made.get_params()), f"{made.storage}", f"{made.storage!r}",
        f"{made.storage}", str(made.storage), repr(clone(made)), without_secrets(f"cannot open {url}, sorry"),
    ]  # fmt: skip
    assert not [text for text in texts if "s3cret" in text]
    assert "***" in repr(made) and "sorry" in texts[-1]
    assert made.storage == clone(made).storage == made.get_params()["storage"] == url
    with pytest.raises(Exception) as raised:  # noqa: B017 (each driver has its own)
        made.fit(*ROWS)
    assert "s3cret" not in str(raised.value)


def test_other_texts_are_left_alone():
    for text in ("sqlite:///study.db", "grpc://host:13000", "token=3", "at 12:30 a@b.c", "https://host/a?b=c#d"):
        assert without_secrets(text) == text


def test_images_that_changed_behind_their_paths_have_a_study_of_their_own(tmp_path):
    paths = [str(tmp_path / f"{i}.npy") for i in range(20)]
    X = pd.DataFrame({"ct_image": paths, "lung_mask": "nowhere.npy"})
    names = []
    for value in (0, 0, 1):
        for path in paths:
            np.save(path, np.full((1, 4, 4), value, dtype=np.uint8))
        made = OptunaSearch(Rated(), {"quality": FloatDistribution(0, 1)}, n_trials=1, cv=2, random_state=0)
        names.append(made.set_params(storage=tmp_path / "study.log").fit(X, ROWS[1]).study_.study_name)
    assert names[0] == names[1] != names[2]
