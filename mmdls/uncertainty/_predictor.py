"""Conformal prediction around any model: label sets of class tasks, lower bounds of survival times."""

import warnings
from collections.abc import Sequence
from dataclasses import replace
from numbers import Real
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, MetaEstimatorMixin, clone
from sklearn.frozen import FrozenEstimator
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions
from sklearn.utils.validation import check_is_fitted

from mmdls.cohort import Task, find_tasks, refuse_measurements, require_patients
from mmdls.evaluation._predict import answers
from mmdls.tasks._reading import class_probabilities
from mmdls.training._tables import outcome_table
from mmdls.uncertainty._censoring import KaplanMeierCensoring, ModelledCensoring, just_before
from mmdls.uncertainty._scores import SCORES, class_scores, uniform_by_id
from mmdls.zoo._folds import aligned_groups, for_all_tasks, splits_of, splitter_of
from mmdls.zoo._per_task import answer_of, fit_with_groups

__all__ = ["ConformalPredictor"]

_MOST_TIMES = 500
_ROUNDING = 1e-9


class ConformalPredictor(MetaEstimatorMixin, BaseEstimator):
    """Label sets and lower bounds of survival times that are right for a stated fraction of new patients.

    A model says what is likely; how often that is right, patients who did not train it tell. From them come, for each
    class task, sets of labels that hold the true one with probability ``confidence_level``, and, for each endpoint,
    months that are outlived with that probability. It holds on average over patients who are drawn as these were,
    whatever the model is; a bad model has large sets and short bounds. It does not hold for each kind of patient by
    itself, and not for a centre whose patients differ: see ``by``, and :func:`coverage_table`.

    Parameters
    ----------
    estimator : estimator
        Any model that :func:`mmdls.evaluation.predict_tasks` reads; one of a single task is fitted for each task of its
        kind. A fitted one in scikit-learn's ``FrozenEstimator`` stays as it is: all patients given to :meth:`fit` then
        calibrate it, and must not be those who trained it.
    method : {"cross", "split"}, default="cross"
        ``"cross"`` fits one model a fold, every patient calibrates the model that left it out, and a new patient is
        compared with each of them under its own model (CV+) [1]_. ``"split"`` fits one model, and the first fold
        calibrates it: less data, one fit, and the guarantee is exact, where that of CV+ is
        ``2 * confidence_level - 1`` at the worst and ``confidence_level`` in practice.
    score : {"lac", "aps", "randomised_aps"}, default="lac"
        ``"lac"`` gives the smallest sets on average, some of them empty: no class is likely enough [2]_. ``"aps"``
        takes classes until their probabilities pass a threshold, so that difficult patients get larger sets, which are
        never empty; of a model that is right more often than asked for they hold as often as it is right.
        ``"randomised_aps"`` counts a random share of the last class too, and so holds exactly [1]_; the share depends
        on id and ``random_state`` only.
    contiguous : bool, default=True
        The set of an ordered task has no gaps, as in stages I-II and III, never I-II and IV [3]_.
    confidence_level : float, default=0.9
    by : str, default=None
        A column of X, such as the centre, within whose groups to calibrate, so that the level holds in each. The model
        gets it as every other column, and what reads all columns must leave out texts. It needs enough patients of
        each. A group that was not there in :meth:`fit` is compared with all, with a warning.
    censoring : estimator, default=None
        A survival model that is fitted to the end of the follow-up, if that depends on what X says. None means
        Kaplan-Meier, within the groups of ``by``.
    cv : int, splitter or iterable of (train, test), default=5
        Folds; a number means :class:`mmdls.model_selection.CohortKFold`.
    abstain : bool, default=False
        :meth:`predict` gives a label only where the set holds exactly one, NaN otherwise.
    random_state : int, RandomState instance or None, default=None

    Attributes
    ----------
    tasks_ : dict of str to Task
        What the model predicts.
    models_ : list of fitted estimator
        One a fold; one with ``"split"``.
    calibration_ : dict of str to pandas.DataFrame
        By class task and endpoint, the patients who calibrate, without their ids: columns ``fold``, ``group``,
        ``score`` (how unusual the true outcome is to the model) and ``weight``, by the row of X in :meth:`fit`.
    training_outcomes_ : dict of str to structured ndarray of shape (n_rows,)
        By endpoint.

    Notes
    -----
    **Lower bounds** assume that the end of the follow-up does not depend on the time of the event, given the groups of
    ``by`` or what ``censoring`` reads. In trials with censoring of type I (everybody's end of follow-up is known,
    also after the event) the methods of [4]_ and [5]_ need the follow-up of everybody; hospitals do not know it of the
    dead. So events are weighted by the inverse of the probability of being followed until then. For each level ``a``
    the share of patients who die before the ``a``-quantile of their predicted curve is thus estimated without bias;
    the bound is the largest quantile for which this estimate, plus the weight that the new patient could have itself,
    is at most ``1 - confidence_level``, as in conformal risk control [6]_. With known follow-up probabilities and
    ``"split"`` this holds in finite samples. A bound of 0 says nothing.

    References
    ----------
    .. [1] Romano Y, Sesia M, Candès EJ. Classification with valid and adaptive coverage. NeurIPS, 2020.
    .. [2] Sadinle M, Lei J, Wasserman L. Least ambiguous set-valued classifiers with bounded error levels. JASA, 2019.
    .. [3] Lu C, Angelopoulos AN, Pomerantz S. Improving trustworthiness of AI disease severity rating in medical
       imaging with ordinal conformal prediction sets. MICCAI, 2022.
    .. [4] Candès E, Lei L, Ren Z. Conformalized survival analysis. JRSS B, 2023.
    .. [5] Gui Y, Hore R, Ren Z, Barber RF. Conformalized survival analysis with adaptive cut-offs. Biometrika, 2024.
    .. [6] Angelopoulos AN, Bates S, Fisch A, Lei L, Schuster T. Conformal risk control. ICLR, 2024.

    Examples
    --------
    >>> from sklearn.linear_model import LogisticRegression
    >>> from mmdls.datasets import make_nsclc_cohort
    >>> X, y = make_nsclc_cohort(200, n_slices=1, image_size=8, return_X_y=True, random_state=0)
    >>> tables = X.filter(regex="^pet_|diameter")
    >>> model = ConformalPredictor(LogisticRegression(max_iter=1000), random_state=0).fit(tables, y[["stage"]])
    >>> model.predict_sets(tables[:2])["stage"]
                I-II    III     IV
    patient_id
    P00001      ...
    """

    _parameter_constraints = {
        "estimator": [HasMethods(["fit"])],
        "method": [StrOptions({"cross", "split"})],
        "score": [StrOptions(set(SCORES))],
        "contiguous": ["boolean"],
        "confidence_level": [Interval(Real, 0, 1, closed="neither")],
        "by": [str, None],
        "censoring": [HasMethods(["fit"]), None],
        "cv": ["cv_object"],
        "abstain": ["boolean"],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        estimator: Any,
        *,
        method: str = "cross",
        score: str = "lac",
        contiguous: bool = True,
        confidence_level: float = 0.9,
        by: str | None = None,
        censoring: Any = None,
        cv: Any = 5,
        abstain: bool = False,
        random_state: Any = None,
    ):
        self.estimator = estimator
        self.method = method
        self.score = score
        self.contiguous = contiguous
        self.confidence_level = confidence_level
        self.by = by
        self.censoring = censoring
        self.cv = cv
        self.abstain = abstain
        self.random_state = random_state

    # -- fitting ------------------------------------------------------------------------------------------------------

    def fit(self, X: pd.DataFrame, y: Any, groups: Any = None) -> "ConformalPredictor":
        """Fit the models, and compare each with the patients whom it has not seen.

        Parameters
        ----------
        X : pandas.DataFrame of shape (n_patients, n_columns)
        y : pandas.DataFrame, labels or structured array
            The same patients; a table is joined by id.
        groups : Series or array of shape (n_patients,), default=None
            Rows that belong together, such as two scans of a patient; folds do not divide them.

        Returns
        -------
        ConformalPredictor

        Raises
        ------
        ValueError
            If the model answers neither a class task nor an endpoint with a survival function, rows of ``by`` have no
            group, ``by`` is a measurement, or ``y`` has a class that a frozen model does not know.
        """
        self._validate_params()
        require_patients(X)
        y = outcome_table(y, X.index)
        groups = aligned_groups(groups, X.index)
        random = check_random_state(self.random_state)
        self._seed = random.randint(2**31 - 1)
        own, tasks = self._groups(X), find_tasks(y)
        if isinstance(self.estimator, FrozenEstimator):
            # Patients who calibrate may lack a class of the model, and must not have others.
            for name, table in answers(self.estimator, X.iloc[:1], tasks, np.empty(0)).tables.items():
                if tasks[name].has_classes:
                    classes, _ = class_probabilities(tasks[name], table, y[tasks[name].columns[0]])
                    tasks[name] = replace(tasks[name], classes=classes)
        refuse_measurements(X[self.by] if self.by else own, f"by={self.by!r}")
        outcomes = {name: task.outcome(y) for name, task in tasks.items()}
        self._times = {name: _event_times(outcomes[name]) for name, task in tasks.items() if _is_endpoint(task)}
        self.models_, self._censoring = [], []
        found: dict[str, list[pd.DataFrame]] = {}
        for fold, (train, test) in enumerate(self._splits(X, y, groups, random)):
            model = self.estimator
            if not isinstance(model, FrozenEstimator):
                own_groups = None if groups is None else groups.iloc[train]
                try:
                    model = fit_with_groups(clone(for_all_tasks(model)), X.iloc[train], y.iloc[train], own_groups)
                except ValueError as error:
                    raise self._explained(error, X) from error
            self.models_.append(model)
            self._censoring.append(self._follow_up(X.iloc[train], tasks, outcomes, train, own))
            self.tasks_ = {name: tasks[name] for name in answers(model, X.iloc[test[:1]], tasks, np.empty(0)).tables}
            tables = self._tables(model, X.iloc[test])
            for name, table in tables.items():
                part = self._calibrate(name, table, outcomes[name][test], X.iloc[test], own[test])
                found.setdefault(name, []).append(part.set_axis(test[part.index]).assign(fold=fold))
        if not found:
            raise ValueError(
                f"{type(self.estimator).__name__} answers {list(self.tasks_)}, of which none is a class task or an "
                "endpoint; only these get sets or bounds."
            )
        calibration = {name: pd.concat(parts) for name, parts in found.items()}
        self.calibration_ = {name: table.drop(columns=["first", "inverse"]) for name, table in calibration.items()}
        self.training_outcomes_ = {
            name: outcomes[name][task.known(outcomes[name])] for name, task in self.tasks_.items() if task.is_censored
        }
        self._warn_if_few(calibration)
        return self

    def _splits(self, X: pd.DataFrame, y: pd.DataFrame, groups: Any, random: Any) -> Sequence[tuple]:
        if isinstance(self.estimator, FrozenEstimator):
            return [(np.arange(len(X)), np.arange(len(X)))]
        splits = splits_of(splitter_of(self.cv, random.randint(2**31 - 1)), X, y, groups)
        return splits[:1] if self.method == "split" else splits

    def _groups(self, X: pd.DataFrame) -> np.ndarray:
        """The group of each patient within which to calibrate, (n_patients,)."""
        if self.by is None:
            return np.zeros(len(X), dtype=object)
        if self.by not in X.columns:
            raise KeyError(f"by={self.by!r} must name a column of X; columns: {list(X.columns)}.")
        values = X[self.by]
        if values.isna().any():
            raise ValueError(
                f"{int(values.isna().sum())} patients have no value in {self.by!r}, such as "
                f"{list(X.index[values.isna()][:3])}; every patient needs a group."
            )
        return values.to_numpy(dtype=object)

    def _explained(self, error: ValueError, X: pd.DataFrame) -> ValueError:
        """The error of a model that cannot read the texts of ``by``, with what to do; any other as it is."""
        reason = str(error)
        texts = [] if self.by is None else map(repr, X[self.by].unique())
        if "string to float" not in reason or not any(text in reason for text in texts):
            return error
        return ValueError(
            f"{type(self.estimator).__name__} reads every column of X, the texts of by={self.by!r} too: {reason}. "
            "Choose its columns: make_pipeline(ColumnTransformer([('read', 'passthrough', [...])]), model)."
        )

    def _follow_up(self, X: pd.DataFrame, tasks: Any, outcomes: Any, train: np.ndarray, groups: np.ndarray) -> dict:
        """Probabilities of being followed, by endpoint."""
        found: dict[str, Any] = {}
        for name in self._times:
            outcome, known = outcomes[name], tasks[name].known(outcomes[name])
            if self.censoring is None or outcome["event"][known].all():
                found[name] = KaplanMeierCensoring(outcome[known], groups[known])
            else:
                found[name] = ModelledCensoring(self.censoring, X, outcome[train], tasks[name])
        return found

    def _tables(self, model: Any, X: pd.DataFrame) -> dict[str, np.ndarray]:
        """How unusual each outcome is to a model: of each class, or of the event before each time, (n, K)."""
        contents = {}
        times = {name: just_before(own) for name, own in self._times.items()}
        grid = np.unique(np.concatenate([np.empty(0), *times.values()]))
        for name, table in answers(model, X, self.tasks_, grid).tables.items():
            task = self.tasks_[name]
            if task.has_classes:
                uniform = uniform_by_id(X.index, self._seed, name)
                probability = task.complete(table, table).reindex(columns=list(task.classes)).to_numpy(dtype=np.float64)
                contiguous = self.contiguous and task.is_ordered
                contents[name] = class_scores(probability, self.score, contiguous=contiguous, uniform=uniform)
            elif _is_endpoint(task):
                if not set(times[name]) <= set(table.columns):
                    raise ValueError(
                        f"{type(self.estimator).__name__} gives no survival function of {name!r}, from which bounds "
                        "are read. Leave the endpoint out of y, or choose a model that gives one."
                    )
                survival = table[list(times[name])].to_numpy(dtype=np.float64)
                contents[name] = np.maximum.accumulate(np.where(np.isnan(survival), np.inf, 1 - survival), axis=1)
        return contents

    def _calibrate(
        self, name: str, levels: np.ndarray, outcome: np.ndarray, X: pd.DataFrame, groups: np.ndarray
    ) -> pd.DataFrame:
        """How unusual the true outcome of each patient is, and its weight; patients of unknown outcome are left out.

        Of endpoints also how unusual an event before the first of the times would be, and the weight it would have. The
        index is the row of ``X``.
        """
        task = self.tasks_[name]
        known = task.known(outcome)
        rows = np.flatnonzero(known)
        score, weight, first, inverse = np.full(len(rows), np.inf), *np.zeros((3, len(rows)))
        if task.has_classes:
            score, weight = levels[rows, outcome[rows]], np.ones(len(rows))
        else:
            times, seen = self._times[name], outcome["event"][rows]
            after = np.searchsorted(times, outcome["time"][rows], side="right")
            # Later than all times: no bound can lie beyond such an event.
            counts = np.flatnonzero(seen & (after < len(times)))
            at, place = np.unique(outcome["time"][rows][counts], return_inverse=True)
            score[counts] = levels[rows[counts], after[counts]]
            censoring = self._censoring[-1][name]
            weight[counts] = censoring.inverse(X.iloc[rows[counts]], groups[rows[counts]], at)[
                np.arange(len(counts)), place
            ]
            if len(times):
                first = levels[rows, 0]
                inverse = censoring.inverse(X.iloc[rows], groups[rows], times[:1])[:, 0]
        columns = {"group": groups[rows], "score": score, "weight": weight, "first": first, "inverse": inverse}
        return pd.DataFrame(columns, rows)

    def _warn_if_few(self, calibration: dict[str, pd.DataFrame]) -> None:
        level = self.confidence_level
        needed = int(np.ceil(level / (1 - level) - _ROUNDING))
        for name, table in calibration.items():
            for group, own in table.groupby("group", sort=False):
                n, where = len(own), "" if self.by is None else f" of {self.by} {group!r}"
                if n < needed:
                    warnings.warn(
                        f"{n} patients{where} calibrate {name!r}, and a confidence level of {level:g} needs at least "
                        f"{needed}: their sets hold every class, and their bounds are 0.",
                        stacklevel=3,
                    )
                elif _is_endpoint(self.tasks_[name]):
                    least = _least_weight(own)
                    if least > (1 - level) * (n + 1) + _ROUNDING:
                        enough = int(np.ceil(least / (1 - level) - 1 - _ROUNDING)) if np.isfinite(least) else None
                        warnings.warn(
                            f"{n} patients{where} calibrate {name!r}, and all lower bounds are 0, which says nothing: "
                            + (
                                "their follow-up ends before the first event. "
                                if enough is None
                                else f"with so much censoring before the first event, a confidence level of "
                                f"{level:g} needs at least {enough}. "
                            )
                            + "Lower confidence_level, or calibrate more patients together by by=.",
                            stacklevel=3,
                        )

    # -- answers ------------------------------------------------------------------------------------------------------

    def predict_sets(self, X: pd.DataFrame) -> dict[str, pd.DataFrame]:
        """Sets of labels that hold the true one with probability ``confidence_level``.

        Parameters
        ----------
        X : pandas.DataFrame

        Returns
        -------
        dict of str to pandas.DataFrame of shape (n_patients, n_classes), bool
            By class task: whether each class is in the set.
        """
        sets = {}
        for name, (levels, groups) in self._levels(X).items():
            if self.tasks_[name].has_classes:
                below, n = self._weight_below(name, levels, groups, side="left")
                most = np.ceil(self.confidence_level * (n + 1) - _ROUNDING)
                task, held = self.tasks_[name], below < most[:, None]
                if self.contiguous and task.is_ordered:
                    held = _without_gaps(held)
                sets[name] = pd.DataFrame(held, X.index, pd.Index(list(task.classes), dtype=object))
        return sets

    def predict_lower_bounds(self, X: pd.DataFrame) -> pd.DataFrame:
        """Months that are outlived with probability ``confidence_level``; 0 says nothing.

        Parameters
        ----------
        X : pandas.DataFrame

        Returns
        -------
        pandas.DataFrame of shape (n_patients, n_endpoints)
        """
        bounds = pd.DataFrame(index=X.index)
        for name, (levels, groups) in self._levels(X).items():
            if _is_endpoint(self.tasks_[name]):
                times = self._times[name]
                below, n = self._weight_below(name, levels, groups, side="right")
                inverse = np.mean([each[name].inverse(X, groups, times) for each in self._censoring], axis=0)
                allowed = (1 - self.confidence_level) * (n + 1) + _ROUNDING
                holds = np.logical_and.accumulate(below + inverse <= allowed[:, None], axis=1)
                bounds[name] = np.r_[0.0, times][holds.sum(axis=1)]
        return bounds

    def predict(self, X: pd.DataFrame) -> pd.DataFrame:
        """One column a task: a label, a risk (higher = earlier event) or a value; see ``abstain``.

        Parameters
        ----------
        X : pandas.DataFrame

        Returns
        -------
        pandas.DataFrame of shape (n_patients, n_tasks)
        """
        tables = self.predict_tasks(X)
        found = pd.DataFrame({name: answer_of(self.tasks_[name], table) for name, table in tables.items()})
        if self.abstain:
            for name, table in self.predict_sets(X).items():
                found[name] = table.idxmax(axis=1).where(table.sum(axis=1) == 1)
        return found

    def predict_tasks(self, X: pd.DataFrame, times: Sequence[float] = ()) -> dict[str, pd.DataFrame]:
        """What the models predict, averaged over folds; :mod:`mmdls.evaluation` reads it.

        Parameters
        ----------
        X : pandas.DataFrame
        times : sequence of float, default=()
            Months at which survival is given.

        Returns
        -------
        dict of str to pandas.DataFrame
            As :func:`mmdls.evaluation.predict_tasks` gives it.
        """
        check_is_fitted(self, "models_")
        require_patients(X)
        grid = np.asarray(times, dtype=np.float64)
        each = [answers(model, X, self.tasks_, grid).tables for model in self.models_]
        mean = {}
        for name, task in self.tasks_.items():
            tables = [task.complete(tables[name], tables[name]) for tables in each]
            values = np.mean([table.to_numpy(dtype=np.float64) for table in tables], axis=0)
            mean[name] = pd.DataFrame(values, X.index, tables[0].columns)
        return mean

    def _levels(self, X: pd.DataFrame) -> dict[str, tuple[list[np.ndarray], np.ndarray]]:
        """By task: how unusual each outcome is to each model, and the groups of the patients."""
        check_is_fitted(self, "models_")
        require_patients(X)
        each, groups = [self._tables(model, X) for model in self.models_], self._groups(X)
        return {name: ([tables[name] for tables in each], groups) for name in self.calibration_}

    def _weight_below(
        self, name: str, levels: list[np.ndarray], groups: np.ndarray, *, side: Any
    ) -> tuple[np.ndarray, np.ndarray]:
        """The weight of the calibrating patients whose scores are below each level (n, K), and their number (n,)."""
        total, n = np.zeros(levels[0].shape), np.zeros(len(groups))
        calibration = self.calibration_[name]
        known = set(calibration["group"])
        if new := sorted({*groups} - known, key=str):
            warnings.warn(
                f"no patient of {self.by} {new} calibrated {name!r}; they are compared with all patients, and the "
                "confidence level holds only if they are like them.",
                stacklevel=4,
            )
        for group in pd.unique(groups):
            rows = groups == group
            own = calibration[calibration["group"] == group] if group in known else calibration
            n[rows] = len(own)
            for fold, level in enumerate(levels):
                part = own[own["fold"] == fold].sort_values("score")
                weight = np.r_[0.0, part["weight"].cumsum()]
                total[rows] += weight[np.searchsorted(part["score"], level[rows], side=side)]
        return total, n


def _least_weight(calibration: pd.DataFrame) -> float:
    """The least that any patient has against a bound at the first of the times, in weights of patients."""
    order = calibration.sort_values("score")
    weight = np.r_[0.0, order["weight"].cumsum()]
    below = weight[np.searchsorted(order["score"], calibration["first"], side="right")]
    return float((below + calibration["inverse"]).min())


def _without_gaps(held: np.ndarray) -> np.ndarray:
    """Sets (n, K) with the classes between any two of theirs; models of two folds may start at classes apart."""
    from_below = np.logical_or.accumulate(held, axis=1)
    from_above = np.logical_or.accumulate(held[:, ::-1], axis=1)[:, ::-1]
    return from_below & from_above


def _is_endpoint(task: Task) -> bool:
    return task.estimator_type == "survival"


def _event_times(outcome: np.ndarray) -> np.ndarray:
    """The times at which bounds may lie: those of the events, or as many quantiles of them."""
    times = np.unique(outcome["time"][outcome["event"]])
    if len(times) > _MOST_TIMES:
        times = np.unique(np.quantile(times, np.linspace(0, 1, _MOST_TIMES), method="nearest"))
    return times[times > 0]
