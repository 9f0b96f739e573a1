"""Search spaces composed of what parts say: choices of parts from the registry, parameters only of the part chosen."""

import numpy as np
import optuna
import pandas as pd
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from sklearn.base import BaseEstimator, clone
from sklearn.pipeline import make_pipeline

from mmdls import MMDLS, MultimodalClassifier, MultimodalSurvival, OptunaSearch, Part, SliceEncoder, TabularEncoder
from mmdls.datasets import make_nsclc_cohort
from mmdls.modules.masked import masked_mean
from mmdls.modules.poolings import MeanPooling
from mmdls.parts import Composed, Slot
from mmdls.registry import fusions, poolings
from mmdls.search import search_space_of
from mmdls.search._composition import parameter_of
from mmdls.search._sampling import SeededTPE
from mmdls.search._space import checked_space, draw


class Narrow:
    """A part with one parameter."""

    def __init__(self, width=1, shared=0.5):
        self.width, self.shared = width, shared

    @staticmethod
    def search_space():
        return {"width": IntDistribution(1, 3), "shared": FloatDistribution(0.0, 0.4, step=0.1)}


class Deep:
    """Another part, with a parameter of the same name and one of its own."""

    def __init__(self, depth=2, shared=1.0):
        self.depth, self.shared = depth, shared

    @staticmethod
    def search_space():
        return {"depth": IntDistribution(1, 2), "shared": CategoricalDistribution(["low", "high"])}


class Plain:
    """A part without anything to search."""


class Heavy:
    """A part that is only searched where it stands already."""

    searched = False


class Toy(Composed, BaseEstimator):
    """Its score says which part it has, without any training."""

    def __init__(self, part="narrow", size=1):
        self.part, self.size = part, size

    def _slots(self):
        return {"part": Slot({"narrow": Narrow, "deep": Deep, "plain": Plain, "heavy": Heavy})}

    @staticmethod
    def search_space():
        return {"size": IntDistribution(1, 2)}

    def fit(self, X, y=None):
        return self

    def score(self, X, y=None):
        params = self.get_params()
        return params.get("part__width", 0) + 10 * params.get("part__depth", 0) + self.size


DATA = np.zeros((6, 1)), np.arange(6)
SPACE = {
    "size",
    "part",
    "part[narrow]__width",
    "part[narrow]__shared",
    "part[deep]__depth",
    "part[deep]__shared",
}


def searched(estimator=None, **options):
    return OptunaSearch(estimator or Toy(), **{"cv": 2, "random_state": 0} | options).fit(*DATA)


def test_a_space_is_composed_of_the_parts():
    space = search_space_of(Toy())
    assert set(space) == SPACE and space["part"].choices == ("deep", "narrow", "plain")
    assert search_space_of(Toy("heavy"))["part"].choices == ("deep", "heavy", "narrow", "plain")
    assert set(search_space_of(make_pipeline(Toy()))) == {f"toy__{name}" for name in SPACE}


def test_what_was_given_is_one_of_the_choices_as_it_is():
    given = Part("narrow", width=9)
    space = search_space_of(Toy(given))
    assert space["part"].choices == (given, "deep", "plain") and set(space) == SPACE
    search = searched(Toy(given), search_space={"part": space["part"]}, n_trials=1)
    assert search.best_params_ == {"part": given} and search.best_score_ == 10
    assert search.best_params_["part"] is not given


@pytest.mark.parametrize(
    "sampler",
    [None, optuna.samplers.RandomSampler(0), optuna.samplers.TPESampler(seed=0, multivariate=True, group=True)],
)
def test_only_parameters_of_the_part_chosen_are_drawn(sampler):
    search = searched(n_trials=25, sampler=sampler)
    seen = set()
    for trial, params in zip(search.study_.trials, search.cv_results_["params"], strict=True):
        part = trial.params["part"]
        seen.add(part)
        assert all(f"[{part}]" in name for name in trial.params if "[" in name)
        own = {"narrow": {"part__width", "part__shared"}, "deep": {"part__depth", "part__shared"}, "plain": set()}
        assert set(params) == {"size", "part"} | own[part]
        clone(Toy()).set_params(**params)
    assert seen == {"narrow", "deep", "plain"}
    assert search.study_.trials[0].params["part"] == "narrow", "the first trial is the estimator as it was given"
    assert search.best_params_["part"] == "deep" and search.best_params_["part__depth"] == 2
    assert clone(Toy()).set_params(**search.best_params_).score(*DATA) == search.best_score_ == 22
    assert {"param_part", "param_part__shared", "param_part__depth"} <= set(search.cv_results_)


def test_an_exhaustive_search_visits_every_point_once():
    search = searched(n_trials=1000, sampler=optuna.samplers.BruteForceSampler())
    # Two sizes of: narrow with 3 widths and 5 values, deep with 2 depths and 2 values, and plain.
    assert len(search.cv_results_["params"]) == 2 * (3 * 5 + 2 * 2 + 1)
    assert len({repr(sorted(params.items())) for params in search.cv_results_["params"]}) == 40


def test_a_grid_leaves_out_what_the_part_chosen_lacks():
    grid = {name: [1] for name in ("size", "part[narrow]__width", "part[deep]__depth")}
    grid |= {"part": ["narrow", "deep", "plain"], "part[narrow]__shared": [0.1, 0.2], "part[deep]__shared": ["low"]}
    search = searched(n_trials=100, sampler=optuna.samplers.GridSampler(grid))
    params = search.cv_results_["params"]
    assert len(params) == 2 + 1 + 1 and {one["part"] for one in params} == {"narrow", "deep", "plain"}


def test_a_search_goes_on_in_its_study(tmp_path):
    once = searched(n_trials=12)
    for n_trials in (5, 12):
        resumed = searched(n_trials=n_trials, storage=tmp_path / "study.log")
    assert [t.params for t in resumed.study_.trials] == [t.params for t in once.study_.trials]
    assert resumed.best_params_ == once.best_params_


def test_a_space_of_ones_own_may_have_conditions():
    space = {"part[deep]__depth": IntDistribution(3, 4), "part": CategoricalDistribution(["narrow", "deep"])}
    search = searched(search_space=space, n_trials=15)
    assert search.best_params_["part__depth"] == 4
    assert all("part__width" not in params for params in search.cv_results_["params"])
    for wrong, message in (
        ({"part[deep]__depth": IntDistribution(1, 2)}, r"names \['part\[deep\]__depth'\], which are no parameters"),
        (space | {"part[deep]__width": IntDistribution(1, 2)}, r"names \['part\[deep\]__width'\]"),
        (space | {"part[plain]__x": IntDistribution(1, 2)}, r"\[plain\], which is not among the choices"),
    ):
        with pytest.raises(ValueError, match=message):
            searched(search_space=wrong, n_trials=1)


def test_brackets_in_names_of_modalities_are_names():
    model = MMDLS([("T[1]", "table", "clinical")])
    space = checked_space({"T[1]__add_indicator": CategoricalDistribution([True, False])}, model)
    assert parameter_of(space, "T[1]__add_indicator") == "T[1]__add_indicator"


# -- the models of this library ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [MMDLS, MultimodalClassifier, MultimodalSurvival, SliceEncoder])
def test_every_point_of_a_models_space_can_be_set(kind):
    model = kind()
    space = checked_space(None, model)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(0))
    seen = set()
    for _ in range(60):
        params = draw(space, study.ask())
        clone(model).set_params(**params)
        seen |= set(params)
    assert seen == {parameter_of(space, name) for name in space}


def test_the_space_of_a_model_lists_every_place_of_a_part():
    space = search_space_of(MMDLS())
    assert {"fusion", "survival_head", "ordinal_head", "trainer__learning_rate", "hidden_features"} <= set(space)
    assert {"image_encoder__backbone", "image_encoder__pooling", "table_encoder__add_indicator"} <= set(space)
    assert space["fusion"].choices == tuple(fusions) and "resnet18" not in space["image_encoder__backbone"].choices
    assert not [name for name in space if "encoder__trainer" in name], "one trainer trains the whole model"
    listed = search_space_of(MMDLS([("lesion", "slices", "lesion_image"), ("pet", TabularEncoder(), "pet")]))
    assert not [name for name in listed if name.startswith(("image_encoder", "table_encoder"))]
    assert {"lesion__backbone[resnet10]__width", "pet__add_indicator"} <= set(listed)
    assert "trainer__learning_rate" in search_space_of(SliceEncoder())
    assert not {"survival_head", "ordinal_head"} & set(search_space_of(MultimodalClassifier()))


def encoders_in(space):
    return {name.partition("_encoder")[0] for name in space if "_encoder" in name}


def test_encoders_that_read_nothing_in_the_data_are_not_searched():
    X = pd.DataFrame({"lesion_image": [None], "clinical_age": [60.0], "ct": [np.zeros((2, 4, 4))], "age": [60.0]})
    for columns, expected in (
        (["lesion_image", "clinical_age"], {"image", "table"}),
        (["clinical_age"], {"table"}),
        (["lesion_image", "age"], {"image"}),
    ):
        for model in (MMDLS(), MultimodalClassifier()):
            assert encoders_in(search_space_of(model, X[columns])) == expected
    for chosen, expected in (({"a": ["age"]}, {"table"}), ({"a": ["ct"]}, {"image"}), ({"a": "clinical"}, {"table"})):
        assert encoders_in(search_space_of(MMDLS(chosen), X)) == expected
    for plain in (np.zeros((3, 2)), pd.DataFrame(np.zeros((3, 2)))):
        assert encoders_in(search_space_of(MultimodalClassifier(), plain)) == {"table"}
    listed = MMDLS([("lesion", "slices", "lesion_image")])
    assert search_space_of(listed, X) == search_space_of(listed)
    whole, part = search_space_of(MMDLS()), search_space_of(MMDLS(), X[["clinical_age"]])
    assert {*whole} - {*part} == {name for name in whole if name.startswith("image_encoder")}


def test_a_search_draws_only_for_encoders_that_read_its_data():
    X, y = make_nsclc_cohort(40, n_slices=2, image_size=16, return_X_y=True, random_state=0)
    X, y = X[[c for c in X.columns if c.startswith("clinical_")]], y[["os_time", "os_event"]]
    model = MMDLS(random_state=0).set_params(trainer__max_epochs=1, trainer__validation_fraction=0.0)
    search = OptunaSearch(model, cv=2, n_trials=2, random_state=0).fit(X, y)
    assert all(encoders_in(trial.params) == {"table"} for trial in search.study_.trials)


@pytest.fixture
def new_pooling():
    @poolings.register("shrunken_mean")
    class ShrunkenMean(MeanPooling):
        """The mean times a number."""

        def __init__(self, in_features, factor=0.5):
            super().__init__(in_features)
            self.factor = factor

        def forward(self, slices, mask):
            return self.factor * masked_mean(slices, mask)

        @staticmethod
        def search_space():
            return {"factor": FloatDistribution(0.1, 1.0)}

    yield "shrunken_mean"
    del poolings._parts["shrunken_mean"]


def test_a_new_part_is_found_by_a_search_that_does_not_name_it(new_pooling):
    X, y = make_nsclc_cohort(40, n_slices=2, image_size=16, return_X_y=True, random_state=0)
    X, y = X[["lesion_image", "clinical_age"]], y[["os_time", "os_event"]]
    encoder = SliceEncoder(backbone=Part("conv", width=4, strides=(4,)), embedding_dim=8)
    model = MMDLS(image_encoder=encoder, random_state=0)
    model.set_params(trainer__max_epochs=1, trainer__validation_fraction=0.0)
    path = f"image_encoder__pooling[{new_pooling}]__factor"
    assert path in search_space_of(model)
    search = OptunaSearch(model, cv=2, n_trials=12, sampler=optuna.samplers.RandomSampler(0)).fit(X, y)
    tried = [trial for trial in search.study_.trials if trial.params["image_encoder__pooling"] == new_pooling]
    assert tried and all(0.1 <= trial.params[path] <= 1.0 for trial in tried)
    assert set(search.best_params_) <= set(clone(model).set_params(**search.best_params_).get_params())


def test_trials_after_a_dead_process_draw_as_if_it_had_lived():
    """A trial that died before it had drawn anything is run again under a later number."""

    def drawn(dies):
        study = optuna.create_study(sampler=SeededTPE(0))
        values = []
        while len(values) < 3:
            trial = study.ask()
            if dies and trial.number == 0:
                study.tell(trial, state=optuna.trial.TrialState.FAIL)
                study.enqueue_trial({}, user_attrs={"again": 0})
                continue
            values.append(trial.suggest_float("x", 0, 1))
            study.tell(trial, values[-1])
        return values

    assert drawn(dies=True) == drawn(dies=False)
