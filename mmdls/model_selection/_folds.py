"""Folds of a cohort, stratified by outcome and centre, grouped by patient."""

import inspect
import re
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from numbers import Integral
from typing import Any

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold
from sklearn.model_selection._split import GroupsConsumerMixin
from sklearn.utils import check_consistent_length, check_random_state
from sklearn.utils._metadata_requests import _routing_enabled

from mmdls.cohort import align_rows
from mmdls.model_selection._strata import strata

__all__ = ["CohortKFold", "check_patients_apart", "patient_groups"]

_HOW = (
    "Keep the groups in a column of X and name it in every splitter, as in CohortKFold(groups='patient_id'), or enable "
    "scikit-learn's metadata routing."
)
_PATIENT = {"patient", "patientid", "patientnumber", "subject", "subjectid", "pid", "caseid", "personid", "mrn", "id"}


class CohortKFold(GroupsConsumerMixin):
    """K folds stratified by events, classes and centres; rows of one group stay together.

    scikit-learn's stratified splitters take one label a row; a cohort has several outcomes. Here the label is the
    combination of them, and combinations too rare for every fold are merged, the least important part first, so
    that rare strata cause no error.

    Parameters
    ----------
    n_splits : int, default=5
    on : sequence of str, default=None
        What to stratify on, most important first: endpoints (their events), class tasks and numbers (their quartiles)
        of ``y``, columns of ``X`` such as ``"centre"``. None means the last endpoint, then the other endpoints, then
        the other tasks. Do not stratify on outcomes together with a column of ``X`` that a model uses: every fold then
        repeats the chance association of the two, and the scores of the model are too good.
    groups : str or False, default=None
        The column or index level of ``X`` that identifies the rows of one patient. Groups in the table reach all folds,
        also those of a search inside a cross-validation. None uses the ``groups`` of :meth:`split`; scikit-learn passes
        them to the outermost split only, unless metadata routing is enabled, so a search inside is then refused. False
        means that rows are independent unless :meth:`split` gets groups.
    shuffle : bool, default=True
    random_state : int, RandomState instance or None, default=None

    Examples
    --------
    >>> from mmdls.datasets import make_nsclc_cohort
    >>> X, y = make_nsclc_cohort(60, n_slices=1, image_size=8, return_X_y=True, random_state=0)
    >>> folds = CohortKFold(3, on=("os", "stage"), random_state=0)
    >>> [len(test) for _, test in folds.split(X, y)]
    [20, 20, 20]
    """

    def __init__(
        self,
        n_splits: int = 5,
        *,
        on: Sequence[str] | None = None,
        groups: str | bool | None = None,
        shuffle: bool = True,
        random_state: Any = None,
    ):
        self.n_splits = n_splits
        self.on = on
        self.groups = groups
        self.shuffle = shuffle
        self.random_state = random_state

    def split(self, X: Any, y: Any, groups: Any = None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield training and test rows of each fold.

        Parameters
        ----------
        X : pandas.DataFrame or array of shape (n, ...)
        y : pandas.DataFrame, structured survival array, or labels of shape (n,)
        groups : Series or array of shape (n,), default=None
            Rows with one value are never divided, for example two scans of one patient. A Series is joined by id; see
            the parameter ``groups`` for nested folds.

        Raises
        ------
        ValueError
            If a parameter is wrong, a row has no group, groups contradict those of the table, patients have several
            rows in ``X`` and no groups were given, or groups do not reach nested folds.
        """
        self._check()
        if isinstance(X, pd.DataFrame) and isinstance(y, pd.DataFrame | pd.Series) and len(X) == len(y):
            y = align_rows(y, X.index, "y")
        label = strata(y, X, self.on, smallest=self.n_splits)
        check_consistent_length(X, label, groups)
        groups = self._groups(X, groups)
        seed = check_random_state(self.random_state).randint(2**31 - 1) if self.shuffle else None
        kind = StratifiedKFold if groups is None else StratifiedGroupKFold
        folds = kind(self.n_splits, shuffle=self.shuffle, random_state=seed)
        yield from folds.split(np.zeros(len(label)), label, groups)

    def get_n_splits(self, X: Any = None, y: Any = None, groups: Any = None) -> int:
        """Number of folds."""
        return self.n_splits

    def __repr__(self) -> str:
        groups = "" if self.groups is None else f"groups={self.groups!r}, "
        return (
            f"CohortKFold(n_splits={self.n_splits}, on={self.on}, {groups}shuffle={self.shuffle}, "
            f"random_state={self.random_state})"
        )

    def _check(self) -> None:
        if isinstance(self.n_splits, bool) or not isinstance(self.n_splits, Integral) or self.n_splits < 2:
            raise ValueError(f"n_splits must be an integer of at least 2; got {self.n_splits!r}.")
        if self.on is not None and (isinstance(self.on, str) or not isinstance(self.on, Collection) or not self.on):
            raise ValueError(f"on must hold names, for example on=('os', 'stage'), or be None; got {self.on!r}.")
        if not (self.groups is None or self.groups is False or isinstance(self.groups, str)):
            raise ValueError(f"groups must name a column or an index level of X, or be False; got {self.groups!r}.")
        if not isinstance(self.shuffle, bool | np.bool_):
            raise ValueError(f"shuffle must be True or False; got {self.shuffle!r}.")

    def _groups(self, X: Any, given: Any) -> np.ndarray | None:
        """The group of each row as a number, None if rows are independent."""
        if given is not None:
            given = patient_groups(X, given)
        if isinstance(self.groups, str):
            own = _numbered(_column(X, self.groups), X)
            if given is not None and not np.array_equal(own, given):
                raise ValueError(
                    f"groups contradict the column {self.groups!r} of X, which CohortKFold(groups=...) names."
                )
            return own
        if self.groups is None and given is None:
            check_patients_apart(X)
            if any(_groups_in(caller) for caller in _cross_validations()):
                raise ValueError(f"groups were given to the outer folds and do not reach the nested ones. {_HOW}")
        elif self.groups is None and given.max() + 1 < len(given) and not _routing_enabled():
            for caller in _cross_validations():
                _check_inner_folds(caller.get("estimator", getattr(caller.get("self"), "estimator", None)))
        return given


def _column(X: Any, name: str) -> Any:
    """A column or an index level of a table."""
    if not isinstance(X, pd.DataFrame):
        raise ValueError(f"groups={name!r} names a column of X, so X must be a table; got {type(X).__name__}.")
    if name in X.columns:
        return X[name]
    if name in X.index.names:
        return X.index.get_level_values(name)
    known = [*X.columns, *(level for level in X.index.names if level is not None)]
    raise KeyError(f"groups={name!r} is neither a column nor an index level of X; known: {known[:20]}.")


def _numbered(groups: Any, X: Any) -> np.ndarray:
    """Groups as numbers in order of appearance."""
    if np.ndim(groups) != 1:
        raise ValueError(
            f"groups must hold one group for each row, in one column; got {type(groups).__name__} of shape "
            f"{np.shape(groups)}. A column of X is named in CohortKFold(groups='<column>')."
        )
    numbers = pd.factorize(np.asarray(groups, dtype=object))[0]
    if (numbers < 0).any():
        rows = np.asarray(X.index if isinstance(X, pd.DataFrame) else np.arange(len(numbers)))[numbers < 0]
        raise ValueError(f"{len(rows)} rows have no group, such as {rows[:3].tolist()}; every row needs one.")
    return numbers


def _cross_validations() -> Iterator[Mapping[str, Any]]:
    """Arguments of the cross-validations and searches that called the splitter, innermost first.

    Without metadata routing scikit-learn passes groups to the outermost splitter only, without a warning. A nested
    splitter cannot see that from its own arguments, so the public parameters of its callers are read.
    """
    frame = inspect.currentframe()
    while frame is not None:
        if str(frame.f_globals.get("__name__")).startswith(("sklearn.model_selection.", "mmdls.search.")):
            yield frame.f_locals
        frame = frame.f_back


def _groups_in(arguments: Mapping[str, Any]) -> bool:
    params = arguments.get("params")
    return arguments.get("groups") is not None or (isinstance(params, dict) and params.get("groups") is not None)


def _check_inner_folds(estimator: Any) -> None:
    """Refuse a search whose folds would divide groups; warn for other models with folds of their own."""
    if not hasattr(estimator, "get_params"):
        return
    for part in (estimator, *estimator.get_params(deep=True).values()):
        own = part.get_params(deep=False) if hasattr(part, "get_params") and not isinstance(part, type) else {}
        if "cv" not in own or own["cv"] == "prefit" or getattr(own["cv"], "groups", None) is not None:
            continue
        message = f"groups do not reach the folds inside {type(part).__name__} (cv={own['cv']!r}), which divide them."
        if "estimator" in own or "estimators" in own:
            raise ValueError(f"{message} {_HOW}")
        warnings.warn(message, stacklevel=5)


def check_patients_apart(X: Any) -> None:
    """Refuse to divide rows if ``X`` has several rows of one patient.

    Parameters
    ----------
    X : pandas.DataFrame or array of shape (n, ...)
        Patients are identified by the index, or by a column or index level with a name such as ``"patient_id"``.

    Raises
    ------
    ValueError
        If an id is in several rows.

    Examples
    --------
    >>> X = pd.DataFrame({"patient_id": ["P1", "P1", "P2"], "clinical_age": [60, 61, 70]})
    >>> check_patients_apart(X)
    Traceback (most recent call last):
    ...
    ValueError: 1 patients are in several rows of X (in 'patient_id': P1), so folds would divide them. ...
    """
    for name, values in _repeated_ids(X):
        several = values[values.duplicated()].dropna().unique()
        where = "the index, to be named by X.rename_axis" if name is None else repr(name)
        raise ValueError(
            f"{len(several)} patients are in several rows of X (in {where}: {', '.join(map(str, several[:3]))}"
            f"{', ...' if len(several) > 3 else ''}), so folds would divide them. Use "
            f"CohortKFold(groups={name or 'patient_id'!r}) to keep them together, or groups=False if rows are "
            "independent."
        )


def patient_groups(X: Any, groups: Any = None) -> np.ndarray | None:
    """Which rows belong together: as given, else those of one patient.

    Parameters
    ----------
    X : pandas.DataFrame or array of shape (n, ...)
        Patients are identified as by :func:`check_patients_apart`.
    groups : Series or array of shape (n,), default=None
        Rows with one value belong together. A Series is joined by id.

    Returns
    -------
    ndarray of shape (n,), int, or None
        A number for each group; None if no two rows belong together.

    Examples
    --------
    >>> X = pd.DataFrame({"patient_id": ["P1", "P1", "P2"], "clinical_age": [60, 61, 70]})
    >>> patient_groups(X).tolist()
    [0, 0, 1]
    >>> patient_groups(X[1:]) is None  # one row a patient
    True
    """
    if groups is not None:
        return _numbered(align_rows(groups, X.index, "groups") if isinstance(X, pd.DataFrame) else groups, X)
    for _, values in _repeated_ids(X):
        numbers, known = pd.factorize(values)
        return np.where(numbers < 0, len(known) + np.arange(len(numbers)), numbers)
    return None


def _repeated_ids(X: Any) -> Iterator[tuple[Any, pd.Index]]:
    """Columns and index levels that identify patients and have one of them in several rows: name, values."""
    if not isinstance(X, pd.DataFrame):
        return
    levels = {name: X.index.get_level_values(level) for level, name in enumerate(X.index.names)}
    ids = {name: level for name, level in levels.items() if len(levels) == 1 or _names_patients(name)}
    ids |= {name: X[name] for name in X.columns if _names_patients(name)}
    for name, values in ids.items():
        if pd.Index(values).dropna().has_duplicates:
            yield name, pd.Index(values)


def _names_patients(name: Any) -> bool:
    return re.sub("[^a-z]", "", str(name).lower()) in _PATIENT
