"""Search over hyperparameters with Optuna, as a scikit-learn meta-estimator."""

from collections.abc import Callable, Mapping, Sequence
from numbers import Integral, Real
from os import PathLike
from time import perf_counter
from typing import Any, ClassVar

import joblib
import numpy as np
import optuna
import pandas as pd
from optuna.distributions import BaseDistribution
from optuna.trial import TrialState
from sklearn.base import BaseEstimator, MetaEstimatorMixin, clone, is_classifier
from sklearn.metrics import check_scoring
from sklearn.model_selection import check_cv
from sklearn.utils import Bunch, check_random_state
from sklearn.utils._metadata_requests import _routing_enabled
from sklearn.utils._param_validation import HasMethods, Interval
from sklearn.utils.metadata_routing import MetadataRouter, MethodMapping, process_routing
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted, indexable

from mmdls._secrets import without_ids
from mmdls.model_selection import CohortKFold, check_patients_apart
from mmdls.registry import CarriesParts
from mmdls.search._folds import SCORER, cloned, cross_validate
from mmdls.search._identity import described, fingerprint, fingerprint_cells
from mmdls.search._pruning import Epochs
from mmdls.search._results import results_table
from mmdls.search._sampling import Cells, SeededTPE, decides_alone, prepared
from mmdls.search._space import (
    Space,
    checked_space,
    choices_of,
    draw,
    given,
    parameters_of,
)
from mmdls.search._storage import Storage
from mmdls.search._studies import create_studies
from mmdls.search._workers import GIVEN, Trials, active_trials, died

__all__ = ["OptunaSearch"]


def _best_has(method: str) -> Callable[[Any], bool]:
    def check(self: "OptunaSearch") -> bool:
        return hasattr(getattr(self, "best_estimator_", self.estimator), method)

    return check


class OptunaSearch(CarriesParts, MetaEstimatorMixin, BaseEstimator):
    """Cross-validated search with Optuna, used as scikit-learn's searches are.

    The folds are drawn once per ``fit`` and are the same for all trials. Each ``fit`` has its own study, so that a
    search inside a cross-validation never learns from the rows left out. The first trial uses the estimator's own
    parameters, and draws those that lie outside the space. This does not hold if the space is a callable, or if the
    sampler fixes parameters or evaluates a list of points without these parameters.

    Parameters
    ----------
    estimator : estimator
    search_space : dict of str to optuna distribution, or callable, default=None
        A callable takes a ``Trial`` and returns parameters. None asks the estimator and its parts, without encoders
        that read nothing in X (:func:`search_space_of`). Choices may be any objects. ``study_`` stores choices that are
        not plain or not distinct (1 equals True) as numbered texts; all results hold the choices themselves.
    scoring : str, callable, or dict of str to these, default=None
        Higher is better. None is the estimator's own ``score``.
    objectives : str or sequence of str, default=None
        The scores that are maximised; with more than one the best trials form a Pareto front. None means all scores.
    cv : int, splitter or iterable, default=None
        None makes five folds: a :class:`~mmdls.model_selection.CohortKFold` if ``y`` is a table, else scikit-learn's.
    n_trials : int, default=20
        The number of trials of the study, over all processes that work on it; fewer if the sampler has fewer points.
        All these processes wait for the last trial and return the same table.
    timeout : float, default=None
        Seconds after which no new trial starts.
    refit : bool, str or callable, default=True
        Fit the best parameters on all rows. With several objectives say which score decides, or give a function of
        ``cv_results_`` that returns the index of the trial.
    sampler : optuna sampler, default=None
        None is a seeded TPE sampler. The sampler is copied for each ``fit``. Processes that share a study need a
        sampler without a seed, otherwise all of them draw the same. Every point of a grid (``GridSampler``,
        ``BruteForceSampler``) is evaluated once, by one of the processes.
    pruner : optuna pruner, default=None
        Stops a trial after a fold, by the mean over its folds so far; only with one objective and without ``n_jobs``.
        None stops a trial whose mean is below the median of at least five complete trials after the same fold.
        Optuna's own pruners compare the best mean that a trial has reported, so an easy first fold protects a bad
        trial.
    epoch_pruner : optuna pruner, default=None
        Stops a trial inside a fold, after an epoch of a network of this package, under the same conditions. It compares
        the score of the network's validation rows (the mean over tasks of AUC and Harrell's C, whatever loss is
        searched), averaged over the folds so far, with other trials in the same epoch of the same fold. None stops the
        worst tenth from the tenth epoch on; ``optuna.pruners.NopPruner()`` stops no trial.
    storage : str, path or optuna storage, default=None
        Where trials are stored: the path of a journal file, a database URL, ``"grpc://host:port"`` of an Optuna proxy,
        or a storage. None keeps them in memory.
        The study's name is derived from the data (images by their contents), the folds and the settings (not from the
        weights of parts fitted before). Processes with the same data and settings therefore share one study, a search
        that was stopped is resumed, and a search on other rows, with other categories or another grid starts a new
        study. A trial whose process died is run again with the same parameters: at once if the process ran on this
        machine, after five minutes without a heartbeat if it ran on another one. Passwords in a URL are never shown.
    catch : tuple of exception types, default=(FloatingPointError,)
        Errors of an estimator that make a trial fail; the trial keeps the message. Other errors stop the search.
    n_jobs : int, default=None
        Folds of a trial that run at the same time, through joblib.
    verbose : int, default=0
        1 shows a progress bar, 2 also Optuna's lines about studies.
    random_state : int, RandomState instance or None, default=None
        Seeds the sampler and the folds that ``fit`` makes itself.

    Attributes
    ----------
    study_ : optuna.Study
    best_params_ : dict
    best_index_ : int
        Row of ``cv_results_``.
    best_score_ : float
    best_estimator_ : estimator
        If ``refit``.
    best_trials_ : list of optuna trials
        The Pareto front; one trial if there is one objective.
    cv_results_ : dict of arrays
        One entry a trial: ``params``, ``param_<name>``, ``mean_test_<score>``, ``std_test_<score>``,
        ``split<k>_test_<score>``, ``state``, ``error`` of a failed trial, ``stopped`` (fold and epoch at which a trial
        was pruned), ``seconds``.
    n_splits_ : int
    scorer_ : dict of str to callable

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.linear_model import LogisticRegression
    >>> X, y = load_iris(return_X_y=True)
    >>> space = {"C": optuna.distributions.FloatDistribution(1e-3, 1e2, log=True)}
    >>> search = OptunaSearch(LogisticRegression(max_iter=1000), space, n_trials=5, random_state=0).fit(X, y)
    >>> search.best_score_ > 0.9
    True
    """

    storage = Storage()

    def __init__(
        self,
        estimator: Any,
        search_space: Mapping[str, BaseDistribution] | Callable[[optuna.Trial], dict[str, Any]] | None = None,
        *,
        scoring: Any = None,
        objectives: str | Sequence[str] | None = None,
        cv: Any = None,
        n_trials: int = 20,
        timeout: float | None = None,
        refit: bool | str | Callable[[dict[str, Any]], int] = True,
        sampler: Any = None,
        pruner: Any = None,
        epoch_pruner: Any = None,
        storage: Any = None,
        catch: tuple[type[Exception], ...] = (FloatingPointError,),
        n_jobs: int | None = None,
        verbose: int = 0,
        random_state: Any = None,
    ):
        self.estimator = estimator
        self.search_space = search_space
        self.scoring = scoring
        self.objectives = objectives
        self.cv = cv
        self.n_trials = n_trials
        self.timeout = timeout
        self.refit = refit
        self.sampler = sampler
        self.pruner = pruner
        self.epoch_pruner = epoch_pruner
        self.storage = storage
        self.catch = catch
        self.n_jobs = n_jobs
        self.verbose = verbose
        self.random_state = random_state

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "estimator": [HasMethods(["fit", "get_params", "set_params"])],
        "search_space": [Mapping, callable, None],
        "scoring": [str, callable, Mapping, None],
        "objectives": [str, list, tuple, None],
        "cv": ["cv_object"],
        "n_trials": [Interval(Integral, 1, None, closed="left")],
        "timeout": [Interval(Real, 0, None, closed="neither"), None],
        "refit": ["boolean", str, callable],
        "sampler": [optuna.samplers.BaseSampler, None],
        "pruner": [optuna.pruners.BasePruner, None],
        "epoch_pruner": [optuna.pruners.BasePruner, None],
        "storage": [str, PathLike, optuna.storages.BaseStorage, None],
        "catch": [tuple],
        "n_jobs": [Integral, None],
        "verbose": ["verbose"],
        "random_state": ["random_state"],
    }

    def fit(self, X: Any, y: Any = None, **params: Any) -> "OptunaSearch":
        """Search, then fit the best parameters on all rows.

        Parameters
        ----------
        X : pandas.DataFrame or array of shape (n, ...)
        y : pandas.DataFrame or array of shape (n,), default=None
        **params
            ``groups`` for the splitter and ``sample_weight`` for the estimator; with metadata routing, everything that
            is requested by the estimator, the splitter and the scores.

        Returns
        -------
        OptunaSearch
        """
        self._validate_params()
        if isinstance(self.n_trials, bool):
            raise TypeError(f"n_trials counts trials; got {self.n_trials}.")
        wrong = [one for one in self.catch if not (isinstance(one, type) and issubclass(one, Exception))]
        if wrong:
            raise TypeError(f"catch needs types of exceptions, such as (FloatingPointError,); got {wrong}.")
        self.scorer_ = self._scorers()
        objectives = self._objectives()
        if self.refit is not False and not callable(self.refit):
            self._deciding(objectives)
        X, y = indexable(X, y)
        space = self._space(X)
        routed = self._routed(params)
        seed = check_random_state(self.random_state).randint(2**31 - 1)
        if isinstance(self.cv, int | np.integer | None) and "groups" not in routed.splitter.split:
            check_patients_apart(X)
        splitter = self._splitter(y, seed)
        folds = list(splitter.split(X, y, **routed.splitter.split))
        self.n_splits_ = len(folds)
        start = given(space, self.estimator)
        sampler = SeededTPE(seed) if self.sampler is None else prepared(self.sampler, space, start, seed)
        # In memory, every fit has studies of its own; in a storage, fits of the same data and settings share them.
        label = seed
        if self.storage is not None:
            points = sampler.cells if isinstance(sampler, Cells) else choices_of(space)
            settings = (described(self.estimator), objectives, fingerprint(self.scoring), seed, points)
            data = (X, y, folds, routed.estimator.fit, fingerprint_cells(X))
            label = joblib.hash((*data, *settings))[:16]
        self.study_, epoch_study = create_studies(
            f"{type(self.estimator).__name__}-{label}",
            self.storage,
            sampler,
            self.pruner,
            self.epoch_pruner,
            len(objectives),
            seed,
            self.verbose,
        )
        if start and not self.study_.trials and not decides_alone(sampler):
            self.study_.enqueue_trial(start, user_attrs={"again": GIVEN})

        patients = X.index if isinstance(X, pd.DataFrame) else ()

        def objective(trial: optuna.Trial) -> Any:
            start = perf_counter()
            try:
                chosen = draw(space, trial)
                work = (
                    (clone(self.estimator).set_params(**cloned(chosen)), X, y, train, test, self.scorer_, routed)
                    for train, test in folds
                )
                scores = cross_validate(trial, work, len(folds), objectives, Epochs(epoch_study), self.n_jobs)
            except optuna.TrialPruned as stopped:
                trial.set_user_attr("stopped", str(stopped))
                raise
            except self.catch as error:
                # A storage may be shared with others, who must not learn who the patients are.
                trial.set_user_attr("error", without_ids(f"{type(error).__name__}: {error}", patients))
                raise
            finally:
                trial.set_user_attr("seconds", round(perf_counter() - start, 3))
            means = [float(np.mean([fold[name] for fold in scores])) for name in objectives]
            if np.isnan(means).any():
                undefined = [name for name, mean in zip(objectives, means, strict=True) if np.isnan(mean)]
                trial.set_user_attr("error", f"the scores {undefined} are undefined in at least one fold")
            return means if len(objectives) > 1 else means[0]

        n_trials = min(self.n_trials, len(sampler.cells)) if isinstance(sampler, Cells) else self.n_trials
        mark = str(joblib.hash((fingerprint(self.sampler), fingerprint(self.search_space))))
        Trials(self.study_, n_trials, self.timeout, self.catch, mark, self.verbose).run(objective)
        self._collect(objectives, space)
        if self.refit is not False:
            self.best_estimator_ = clone(self.estimator).set_params(**cloned(self.best_params_))
            self.best_estimator_.fit(X, y, **routed.estimator.fit)
            for name in ("feature_names_in_", "n_features_in_"):
                if hasattr(self.best_estimator_, name):
                    setattr(self, name, getattr(self.best_estimator_, name))
        return self

    # -- predictions of the best estimator ------------------------------------------------------------------------

    @available_if(_best_has("predict"))
    def predict(self, X: Any) -> Any:
        """Predictions of the best estimator."""
        return self._best().predict(X)

    @available_if(_best_has("predict_proba"))
    def predict_proba(self, X: Any, *task: str) -> Any:
        """Probabilities of the best estimator, of one task if it has several."""
        return self._best().predict_proba(X, *task)

    @available_if(_best_has("decision_function"))
    def decision_function(self, X: Any) -> Any:
        """Confidence scores of the best estimator."""
        return self._best().decision_function(X)

    @available_if(_best_has("predict_survival_function"))
    def predict_survival_function(self, X: Any, *task: str, **options: Any) -> Any:
        """Survival functions of the best estimator, of one endpoint if it has several."""
        return self._best().predict_survival_function(X, *task, **options)

    @available_if(_best_has("predict_cumulative_hazard_function"))
    def predict_cumulative_hazard_function(self, X: Any, *task: str, **options: Any) -> Any:
        """Cumulative hazard functions of the best estimator, of one endpoint if it has several."""
        return self._best().predict_cumulative_hazard_function(X, *task, **options)

    @available_if(_best_has("predict_cumulative_incidence"))
    def predict_cumulative_incidence(self, X: Any, task: str, **options: Any) -> Any:
        """Cumulative incidences of the best estimator, of one task with competing risks."""
        return self._best().predict_cumulative_incidence(X, task, **options)

    @available_if(_best_has("transform"))
    def transform(self, X: Any) -> Any:
        """Embeddings of the best estimator."""
        return self._best().transform(X)

    def score(self, X: Any, y: Any = None, **params: Any) -> float:
        """The score by which the best parameters were chosen, of the best estimator on other rows."""
        scorer = self.scorer_[self._deciding(self._objectives())]
        return scorer(self._best(), X, y, **params)

    @property
    def classes_(self) -> Any:
        """Classes of the best estimator."""
        return self._best().classes_

    def _best(self) -> Any:
        check_is_fitted(self, "study_")
        if not hasattr(self, "best_estimator_"):
            raise AttributeError("there is no best_estimator_, since refit=False; fit again with refit=True.")
        return self.best_estimator_

    # -- the results of a study -----------------------------------------------------------------------------------

    def _collect(self, objectives: list[str], space: Space) -> None:
        """Set ``cv_results_`` and the attributes of the best trial from the study."""
        trials = active_trials(self.study_.get_trials(deepcopy=False))
        trials = [trial for trial in trials if trial.state.is_finished() and not died(trial)]
        table = results_table(trials, space, list(self.scorer_), self.n_splits_)
        self.cv_results_ = table
        done = np.flatnonzero(table["state"] == TrialState.COMPLETE.name)
        if not len(done):
            errors = [error for error in table["error"] if error]
            raise ValueError(
                f"none of {len(trials)} trials finished; "
                + (f"the first error was: {errors[0]}" if errors else "raise n_trials or timeout, or prune later.")
            )
        self.best_trials_ = self.study_.best_trials if len(objectives) > 1 else [self.study_.best_trial]
        if callable(self.refit):
            self.best_index_ = int(self.refit(table))
        elif self.refit is not False or len(objectives) == 1:
            mean = table[f"mean_test_{self._deciding(objectives)}"][done]
            self.best_index_ = int(done[np.nanargmax(mean)])
        else:
            return
        trial = trials[self.best_index_]
        self.best_params_ = cloned(parameters_of(space, trial))
        if not callable(self.refit):
            self.best_score_ = float(table[f"mean_test_{self._deciding(objectives)}"][self.best_index_])

    # -- parameters -----------------------------------------------------------------------------------------------

    def _scorers(self) -> dict[str, Callable[..., float]]:
        if isinstance(self.scoring, Mapping):
            if not self.scoring:
                raise ValueError("scoring is an empty dict; give at least one score, or None for the estimator's own.")
            return {name: check_scoring(self.estimator, scoring=one) for name, one in self.scoring.items()}
        return {"score": check_scoring(self.estimator, scoring=self.scoring)}

    def _objectives(self) -> list[str]:
        if self.objectives is None:
            return list(self.scorer_)
        objectives = [self.objectives] if isinstance(self.objectives, str) else list(self.objectives)
        unknown = [name for name in objectives if name not in self.scorer_]
        if unknown or not objectives:
            raise ValueError(f"objectives {unknown or objectives} are not among the scores {list(self.scorer_)}.")
        return objectives

    def _deciding(self, objectives: list[str]) -> str:
        if isinstance(self.refit, str):
            if self.refit not in self.scorer_:
                raise ValueError(f"refit={self.refit!r} is not among the scores {list(self.scorer_)}.")
            return self.refit
        if len(objectives) > 1:
            raise ValueError(
                f"there are {len(objectives)} objectives, {objectives}; refit must name the score that decides, be a "
                "function of cv_results_, or be False."
            )
        return objectives[0]

    def _space(self, X: Any) -> Space:
        if callable(self.search_space):
            return self.search_space
        return checked_space(self.search_space, self.estimator, X)

    def _splitter(self, y: Any, seed: int) -> Any:
        if isinstance(y, pd.DataFrame) and (self.cv is None or isinstance(self.cv, int | np.integer)):
            return CohortKFold(5 if self.cv is None else int(self.cv), random_state=seed)
        return check_cv(self.cv, y, classifier=is_classifier(self.estimator))

    # -- metadata -------------------------------------------------------------------------------------------------

    def _routed(self, params: dict[str, Any]) -> Bunch:
        params = {name: value for name, value in params.items() if value is not None}
        if _routing_enabled():
            return process_routing(self, "fit", **params)
        return Bunch(
            estimator=Bunch(fit={name: value for name, value in params.items() if name != "groups"}),
            splitter=Bunch(split={name: value for name, value in params.items() if name == "groups"}),
        )

    def get_metadata_routing(self) -> MetadataRouter:
        """Where metadata goes: to the estimator's fit, to the splitter and to the scores that can ask for it."""
        router = MetadataRouter(owner=self)
        router.add(estimator=self.estimator, method_mapping=MethodMapping().add(caller="fit", callee="fit"))
        for name, scorer in self._scorers().items():
            if hasattr(scorer, "get_metadata_routing"):
                router.add(**{SCORER + name: scorer}, method_mapping=MethodMapping().add(caller="fit", callee="score"))
        if hasattr(self.cv, "get_metadata_routing"):
            router.add(splitter=self.cv, method_mapping=MethodMapping().add(caller="fit", callee="split"))
        else:
            splitter = CohortKFold().set_split_request(groups=True)
            router.add(splitter=splitter, method_mapping=MethodMapping().add(caller="fit", callee="split"))
        return router

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        inner = self.estimator.__sklearn_tags__()
        tags.estimator_type = inner.estimator_type
        tags.classifier_tags = inner.classifier_tags
        tags.regressor_tags = inner.regressor_tags
        tags.input_tags = inner.input_tags
        tags.target_tags = inner.target_tags
        return tags
