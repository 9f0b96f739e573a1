"""The arms (models) of the benchmark: each is tuned and fitted on training rows, then answers for rows it has not seen.

An arm has ``fit(X, y)`` and ``predict(X)``, which gives one table a task: class probabilities, or risk, risk group and
survival at the horizons. What an arm can be built from is said by the modalities of the cohort; :func:`offered` lists
those that a cohort allows.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sksurv.linear_model import CoxPHSurvivalAnalysis

from mmdls import Part, Trainer
from mmdls.cohort import find_tasks, modalities, survival_target
from mmdls.estimators import (
    MMDLS,
    ClinicalCox,
    CoxNet,
    RadiomicsCox,
    SliceEncoder,
    SurvivalBoosting,
    SurvivalForest,
    TabularEncoder,
)
from mmdls.model_selection import CohortKFold, stratified_holdout
from mmdls.search import OptunaSearch

__all__ = ["BASELINE", "HORIZONS", "Settings", "images_only", "offered"]

HORIZONS = (12, 36, 60)
BASELINE = "clinical-only"
Answers = dict[str, pd.DataFrame]


@dataclass(frozen=True)
class Settings:
    """How much an arm may spend.

    Parameters
    ----------
    trials : int
        Optuna trials of each arm and fold.
    epochs, seed : int
    strides : tuple of int
        Of the two convolutions of the image encoder.
    image_size, max_slices : int, default=None
        As in :class:`mmdls.SliceEncoder`.
    journal : path, default=None
        Where finished trials are kept, so that a run that was stopped repeats none.
    """

    trials: int = 6
    epochs: int = 40
    seed: int = 0
    strides: tuple[int, int] = (2, 2)
    image_size: int | None = None
    max_slices: int | None = None
    journal: Path | None = None


class Classical:
    """One classical model a task, on some blocks of numbers."""

    def __init__(self, blocks: Sequence[str], kind: str, settings: Settings):
        self.blocks, self.kind, self.settings = tuple(blocks), kind, settings

    def fit(self, X: pd.DataFrame, y: pd.DataFrame) -> "Classical":
        """Tune and fit each task on the patients whose outcome is known."""
        self.columns = [column for block in self.blocks for column in modalities(X)[block]]
        self.tasks, self.models, self.chosen = find_tasks(y), {}, {}
        for task in self.tasks.values():
            survival = task.kind == "survival"
            known = y[task.columns[0]].notna().to_numpy()
            model, space = self._survival_model(task.name) if survival else self._class_model()
            rows, target = X.loc[known, self.columns], y.loc[known, list(task.columns)]
            target = target if survival else target[task.name].astype(str)
            search = OptunaSearch(
                model,
                space,
                scoring=None if survival else mean_auc,
                cv=CohortKFold(3, random_state=self.settings.seed),
                n_trials=self.settings.trials,
                storage=self.settings.journal,
                catch=(FloatingPointError, ValueError, ArithmeticError, np.linalg.LinAlgError),
                random_state=self.settings.seed,
            ).fit(rows, target)
            self.models[task.name] = search.best_estimator_
            self.chosen |= {f"{task.name}: {name}": value for name, value in search.best_params_.items()}
        return self

    def predict(self, X: pd.DataFrame) -> Answers:
        """One table a task."""
        answers = {}
        for name, model in self.models.items():
            if self.tasks[name].kind == "survival":
                answers[name] = _survival_answers(model, X)
            else:
                answers[name] = pd.DataFrame(model.predict_proba(X[self.columns]), X.index, model.classes_)
        return answers

    def _survival_model(self, endpoint: str) -> tuple[Any, dict[str, BaseDistribution]]:
        model, space = {
            "cox": (ClinicalCox(), {"alpha": FloatDistribution(0.1, 1e3, log=True)}),
            "radiomics_cox": (RadiomicsCox(), {"alpha": FloatDistribution(1.0, 1e4, log=True)}),
            "coxnet": (CoxNet(random_state=self.settings.seed), CoxNet.search_space()),
            "forest": (
                SurvivalForest(n_estimators=100, random_state=self.settings.seed),
                SurvivalForest.search_space(),
            ),
            "boosting": (SurvivalBoosting(random_state=self.settings.seed), SurvivalBoosting.search_space()),
        }[self.kind]
        if self.kind == "cox":
            space["spline_knots"] = CategoricalDistribution([None, 3, 5])
        return model.set_params(endpoint=endpoint, blocks=self.blocks), space

    def _class_model(self) -> tuple[Any, dict[str, BaseDistribution]]:
        seed = self.settings.seed
        if self.kind == "forest":
            model = RandomForestClassifier(200, min_samples_leaf=5, random_state=seed)
            return make_pipeline(TabularEncoder(scale=None), model), {
                "randomforestclassifier__min_samples_leaf": IntDistribution(2, 30, log=True)
            }
        if self.kind == "boosting":
            model = HistGradientBoostingClassifier(max_iter=80, learning_rate=0.05, random_state=seed)
            return make_pipeline(TabularEncoder(scale=None), model), {
                "histgradientboostingclassifier__max_leaf_nodes": IntDistribution(3, 31, log=True)
            }
        ratio = 0.5 if self.kind == "coxnet" else 0.0
        solver = "saga" if ratio else "lbfgs"
        model = LogisticRegression(max_iter=3000, l1_ratio=ratio, solver=solver, C=0.1, random_state=seed)
        scale = "standard" if self.kind == "radiomics_cox" else "power"  # z-scores, as in RadiomicsCox
        encoder = TabularEncoder(scale=scale)
        return make_pipeline(encoder, model), {"logisticregression__C": FloatDistribution(1e-3, 10, log=True)}


class Deep:
    """MMDLS on some modalities.

    Fusion and heads are tuned on slice embeddings that were learned once, on part of the training rows, and scored on
    the rest of them; the best setting is then trained end to end on all training rows.
    """

    def __init__(self, settings: Settings, columns: Callable[[pd.DataFrame], list[str]] = lambda X: list(X.columns)):
        self.settings, self.columns = settings, columns

    def fit(self, X: pd.DataFrame, y: pd.DataFrame) -> "Deep":
        """Tune inside the training rows, then fit on all of them."""
        X = X[self.columns(X)]
        kept, held = stratified_holdout(y, 0.3, random_state=self.settings.seed)
        first = self._model().fit(X.iloc[kept], y.iloc[kept])
        search = OptunaSearch(
            self._model(),
            {
                "hidden_features": CategoricalDistribution([32, 64]),
                "dropout": FloatDistribution(0.1, 0.6),
                "trainer__weight_decay": FloatDistribution(1e-2, 1.0, log=True),
            },
            cv=[(kept, held)],
            n_trials=self.settings.trials,
            storage=self.settings.journal,
            refit=False,
            random_state=self.settings.seed,
        ).fit(_embedded(first, X), y)
        self.chosen = search.best_params_
        self.model = self._model(**self.chosen).fit(X, y)
        return self

    def predict(self, X: pd.DataFrame) -> Answers:
        """One table a task."""
        return _deep_answers(self.model, X[self.columns(X)])

    def _model(self, **parameters: Any) -> MMDLS:
        encoder = SliceEncoder(
            backbone=Part("conv", width=16, strides=self.settings.strides),
            max_slices=self.settings.max_slices,
            image_size=self.settings.image_size,
        )
        return MMDLS(
            image_encoder=encoder,
            random_state=self.settings.seed,
            dropout=0.2,
            # All training rows are learned from, as by the other arms.
            trainer=Trainer(batch_size=64, max_epochs=self.settings.epochs, validation_fraction=0.0, weight_decay=0.1),
        ).set_params(**parameters)


class Published:
    """The published network and recipe; only its learning rate is tuned, on a part held out.

    It is given two things that the recipe lacks: numbers are standardised, since on raw ones the network ended with one
    risk for everybody, and slices keep their size, since 224 x 224 only repeats the pixels of smaller ones.
    """

    def __init__(self, settings: Settings):
        self.settings = settings

    def fit(self, X: pd.DataFrame, y: pd.DataFrame) -> "Published":
        """Tune on training rows, then fit on all of them."""
        kept, held = stratified_holdout(y, 0.3, random_state=self.settings.seed)
        search = OptunaSearch(
            MMDLS.published(
                trainer__max_epochs=self.settings.epochs,
                random_state=self.settings.seed,
                lesion__image_size=self.settings.image_size,
                lung__image_size=self.settings.image_size,
                lesion__max_slices=self.settings.max_slices,
                lung__max_slices=self.settings.max_slices,
                **{f"{block}__scale": "standard" for block in ("radiomics", "pet", "clinical")},
            ),
            {"trainer__learning_rate": FloatDistribution(3e-5, 3e-3, log=True)},
            cv=[(kept, held)],
            n_trials=max(self.settings.trials // 3, 1),
            storage=self.settings.journal,
            random_state=self.settings.seed,
        ).fit(X, y)
        self.model, self.chosen = search.best_estimator_, search.best_params_
        return self

    def predict(self, X: pd.DataFrame) -> Answers:
        """One table a task."""
        return _deep_answers(self.model, X)


class LateFusion:
    """One model a modality, joined by a ridge regression of their answers.

    The weights are learned on training rows that the single models have not seen; then these are fitted on all of them.
    """

    def __init__(self, singles: Mapping[str, Callable[[], Any]], settings: Settings):
        self.singles, self.settings = singles, settings

    def fit(self, X: pd.DataFrame, y: pd.DataFrame) -> "LateFusion":
        """Fit the singles on a part, the weights on the rest, then the singles on all rows."""
        self.tasks, self.joined, self.chosen = find_tasks(y), {}, {}
        kept, held = stratified_holdout(y, 0.3, random_state=self.settings.seed)
        parts = [single().fit(X.iloc[kept], y.iloc[kept]) for single in self.singles.values()]
        seen = [part.predict(X.iloc[held]) for part in parts]
        self.models = [single().fit(X, y) for single in self.singles.values()]
        for task in self.tasks.values():
            features, outcome = self._features(seen, task.name), y.iloc[held]
            known = outcome[task.columns[0]].notna().to_numpy()
            if task.kind == "survival":
                target = survival_target(outcome, task.name)[known]
                target["time"] = np.maximum(target["time"], 1 / 60)
                model = make_pipeline(SimpleImputer(), CoxPHSurvivalAnalysis(alpha=1.0)).fit(features[known], target)
            else:
                labels = outcome[task.name].astype(str)[known]
                model = make_pipeline(SimpleImputer(), LogisticRegression(C=1.0, max_iter=3000))
                model.fit(features[known], labels)
            self.joined[task.name] = model
            if task.kind == "survival":
                everything = self._features([m.predict(X) for m in self.models], task.name)
                self.joined[f"{task.name} cut-points"] = np.quantile(model.predict(everything), [1 / 3, 2 / 3])
        return self

    def predict(self, X: pd.DataFrame) -> Answers:
        """One table a task."""
        seen, answers = [model.predict(X) for model in self.models], {}
        for task in self.tasks.values():
            features, model = self._features(seen, task.name), self.joined[task.name]
            if task.kind != "survival":
                answers[task.name] = pd.DataFrame(model.predict_proba(features), X.index, model[-1].classes_)
                continue
            table = pd.DataFrame({"risk": model.predict(features)}, index=X.index)
            table["group"] = np.searchsorted(self.joined[f"{task.name} cut-points"], table["risk"], side="right")
            curves = model[-1].predict_survival_function(model[:-1].transform(features))
            for horizon in HORIZONS:
                table[f"survival_{horizon}"] = [_at(curve, horizon) for curve in curves]
            answers[task.name] = table
        return answers

    def _features(self, seen: list[Answers], task: str) -> np.ndarray:
        columns = []
        for answers in seen:
            table = answers[task]
            if self.tasks[task].kind == "survival":
                columns.append(table["risk"].to_numpy()[:, None])
            else:
                # A part of the patients may lack a class: its models give no probability of it.
                classes = [str(c) for c in self.tasks[task].classes]
                chances = table.rename(columns=str).reindex(columns=classes, fill_value=0.0).to_numpy()
                columns.append(np.log(np.clip(chances, 1e-6, 1))[:, 1:])
        return np.column_stack(columns)


def mean_auc(model: Any, X: pd.DataFrame, y: pd.Series) -> float:
    """Mean over classes of the AUC, one against the rest; a class that these patients lack is left out."""
    found = [k for k, name in enumerate(model.classes_) if 0 < (y == name).sum() < len(y)]
    probability = model.predict_proba(X)
    return float(np.mean([roc_auc_score(y == model.classes_[k], probability[:, k]) for k in found]))


def images_only(X: pd.DataFrame) -> list[str]:
    """The image columns of a cohort."""
    return [c for c in X.columns if str(c).endswith("_image")]


def offered(X: pd.DataFrame, settings: Settings) -> dict[str, Callable[[], Any]]:
    """The arms that a cohort's modalities allow, by name, as functions that make them.

    The first is the baseline; the last is the multimodal model.
    """
    found = modalities(X)
    has_images = bool(images_only(X))

    def classical(blocks: Sequence[str], kind: str) -> Callable[[], Any]:
        return lambda: Classical(blocks, kind, settings)

    arms: dict[str, Callable[[], Any]] = {BASELINE: classical(("clinical",), "cox")}
    for kind in ("coxnet", "forest", "boosting"):
        arms[f"clinical {kind}"] = classical(("clinical",), kind)
    if "radiomics" in found:
        arms["radiomics Cox"] = classical(("radiomics",), "radiomics_cox")
    if "pet" in found:
        arms["PET Cox"] = classical(("pet",), "cox")
        arms["clinical + PET"] = classical(("clinical", "pet"), "cox")
    if has_images:
        arms["imaging-only"] = lambda: Deep(settings, images_only)
        singles = {BASELINE: classical(("clinical",), "cox"), "imaging-only": lambda: Deep(settings, images_only)}
        if "pet" in found:
            singles["PET Cox"] = classical(("pet",), "cox")
        if "radiomics" in found:
            singles["radiomics Cox"] = classical(("radiomics",), "radiomics_cox")
        arms["late fusion"] = lambda: LateFusion(singles, settings)
        if {"lesion", "lung", "radiomics", "pet", "clinical"} <= found.keys():
            arms["published"] = lambda: Published(settings)
    arms["multimodal"] = lambda: Deep(settings)
    return arms


def _survival_answers(model: Any, X: pd.DataFrame, *task: str) -> pd.DataFrame:
    """Risk on the scale of the training risks, its group, and survival at the horizons."""
    functions = model.predict_survival_function(X, *task)
    risk = model.predict(X)
    table = pd.DataFrame({"risk": risk[task[0]] if task else risk}, index=X.index)
    table["group"] = model.predict_risk_group(X, *task)
    for horizon in HORIZONS:
        table[f"survival_{horizon}"] = [_at(function, horizon) for function in functions]
    return table


def _at(function: Any, horizon: float) -> float:
    """A survival function at a horizon; NaN beyond the follow-up of the training rows."""
    return float(function(horizon)) if horizon <= function.x[-1] else float("nan")


def _deep_answers(model: MMDLS, X: pd.DataFrame) -> Answers:
    answers = {}
    for task in model.tasks_.values():
        if task.kind == "survival":
            answers[task.name] = _survival_answers(model, X, task.name)
        else:
            classes = [str(c) for c in task.classes]
            answers[task.name] = pd.DataFrame(model.predict_proba(X, task.name), X.index, classes)
    return answers


def _embedded(model: MMDLS, X: pd.DataFrame) -> pd.DataFrame:
    """The same patients with each image column replaced by what the fitted encoder sees in it."""
    parts = [X.drop(columns=[c for c in X.columns if str(c).endswith(("_image", "_mask"))])]
    for _, encoder, columns in model.modalities_:
        if isinstance(encoder, SliceEncoder):
            parts.append(pd.DataFrame(encoder.transform(X[columns]), X.index, encoder.get_feature_names_out()))
    return pd.concat(parts, axis=1)
