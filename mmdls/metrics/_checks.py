"""The checks that outcomes, predictions and weights pass in every metric."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from mmdls.metrics._times import tied_times

__all__ = [
    "as_numbers",
    "check_event",
    "check_horizon",
    "check_classes",
    "check_order",
    "check_outcome",
    "check_predictions",
    "check_probabilities",
    "check_weights",
    "class_codes",
    "known_outcome",
]

_ROUNDING = 0.005  # a probability written with two decimals


def check_event(event: Any) -> np.ndarray:
    """Event (n,) as booleans, from booleans or 0 and 1; other codes are refused."""
    values = np.asarray(event)
    if values.ndim != 1:
        raise ValueError(f"event must have shape (n,); got {values.shape}.")
    if values.dtype == bool:
        return values
    known = _among(values, (0, 1))
    if not known.all():
        raise ValueError(
            f"event must hold 0 and 1 or booleans only; got {_shown(values[~known])} in the rows {_rows(~known)}. "
            "Code the event yourself, for example as status == 2, and leave out unknown outcomes."
        )
    return values.astype(bool)


def check_outcome(event: Any, time: Any = None) -> tuple[np.ndarray, np.ndarray]:
    """Event (n,) bool and time (n,) float64, from two arrays or from one structured array.

    Times that differ by floating-point rounding only become equal.
    """
    if time is None:
        fields = getattr(getattr(event, "dtype", None), "names", None)
        if fields is None or len(fields) != 2:
            raise ValueError(
                "outcomes must be a structured array with an event field and a time field (mmdls.cohort.survival_target"
                f" makes one); got {type(event).__name__} {getattr(event, 'dtype', '')}."
            )
        event, time = event[fields[0]], event[fields[1]]
    check_order(event=event, time=time)
    if np.ndim(event) != 1 or np.shape(event) != np.shape(time):
        raise ValueError(f"event and time must have one shape (n,); got {np.shape(event)} and {np.shape(time)}.")
    event, months = check_event(event), np.asarray(time)
    numbers = months.dtype.kind in "iuf" or (
        months.dtype.kind == "O" and all(isinstance(t, int | float | np.number) for t in months)
    )
    if not numbers:
        raise ValueError(f"time must be numbers (months); got {_shown(months)} of dtype {months.dtype}.")
    months = months.astype(np.float64)
    if not np.isfinite(months).all() or (months < 0).any():
        raise ValueError(
            f"time must be finite and not negative, for all {len(months)} patients; leave out unknown outcomes."
        )
    return event, tied_times(months)


def check_order(**values: Any) -> None:
    """Refuse Series and data frames whose indices differ, since metrics match by position, and masked numbers."""
    if masked := [name for name, value in values.items() if np.ma.is_masked(value)]:
        raise ValueError(f"{' and '.join(masked)} hold masked numbers; leave these patients out of all arguments.")
    tables: dict[str, Any] = {
        name: value.index for name, value in values.items() if hasattr(getattr(value, "index", None), "equals")
    }
    first = next(iter(tables), "")
    wrong = [name for name, index in tables.items() if not index.equals(tables[first])]
    if wrong:
        raise ValueError(
            f"{first} and {' and '.join(wrong)} have different patients, or another order: their indices differ. "
            f"Bring them into one order, for example {wrong[0]}.loc[{first}.index]; arrays are matched by position."
        )


def check_horizon(horizon: Any) -> float:
    """A horizon in months: finite and above 0."""
    if np.ndim(horizon) or not np.isfinite(horizon) or horizon <= 0:
        raise ValueError(f"horizon must be a finite number of months above 0; got {horizon!r}.")
    return float(horizon)


def known_outcome(survival: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Event and time, as in :func:`check_outcome`, of the rows of a structured array whose time is known."""
    fields = survival.dtype.names
    if fields is None or len(fields) != 2:
        return check_outcome(survival)
    return check_outcome(survival[~np.isnan(survival[fields[1]])])


def check_predictions(values: Any, shape: tuple[int, ...], name: str) -> np.ndarray:
    """Finite float64 predictions of a given shape; survival must hold probabilities."""
    values = _as_floats(values, name)
    if values.shape != shape:
        raise ValueError(f"{name} must have shape {shape}; got {values.shape}.")
    if not np.isfinite(values).all():
        raise ValueError(f"{name} has {(~np.isfinite(values)).sum()} values that are NaN or infinite.")
    if name.startswith("survival") and values.size and (values.min() < -1e-9 or values.max() > 1 + 1e-9):
        raise ValueError(
            f"{name} must hold probabilities of being event-free, between 0 and 1; got {values.min():g} to "
            f"{values.max():g}. A risk is no probability: take the values of the survival function."
        )
    return values


def check_probabilities(y_proba: Any, name: str = "y_proba", patients: Any = None) -> np.ndarray:
    """Class probabilities (n, K) as float64: finite, between 0 and 1, rows that sum to 1.

    The sum may differ from 1 by what rounding to two decimals explains. The message names the patients, or the rows if
    ``patients`` is None.
    """
    values = _as_floats(y_proba, name)
    if values.ndim != 2 or not values.shape[1]:
        raise ValueError(f"{name} must have shape (n, n_classes); got {values.shape}.")
    wrong = ~np.isfinite(values).all(axis=1)
    if wrong.any():
        raise ValueError(f"{name} must be finite; got NaN or infinite values in {_where(wrong, patients)}.")
    wrong = ((values < -1e-9) | (values > 1 + 1e-9)).any(axis=1)
    if wrong.any():
        raise ValueError(
            f"{name} must lie between 0 and 1; got {values[wrong].min():g} to {values[wrong].max():g} in "
            f"{_where(wrong, patients)}. Scores and log odds are no probabilities: give the result of predict_proba."
        )
    total = values.sum(axis=1)
    wrong = np.abs(total - 1) > _ROUNDING * values.shape[1] + 1e-9
    if wrong.any():
        raise ValueError(
            f"{name} must sum to 1 over the {values.shape[1]} classes; got the sums {_shown(total[wrong].round(4))} in "
            f"{_where(wrong, patients)}. Give one column a class, for all classes of the task."
        )
    return values


def check_classes(y_true: Any, y_proba: Any, *, scores: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Class codes (n,) and probabilities (n, K); probabilities (n,) of class 1 become two columns.

    With ``scores`` the (n,) may be any numbers that are higher for class 1, for metrics that use the ranks only.
    """
    check_order(y_true=y_true, y_proba=y_proba)
    codes, y_proba = np.asarray(y_true), _as_floats(y_proba, "y_proba")
    if codes.ndim != 1 or y_proba.ndim not in (1, 2) or len(codes) != len(y_proba):
        raise ValueError(
            f"y_true must have shape (n,) and y_proba (n,) or (n, n_classes); got {codes.shape} and {y_proba.shape}."
        )
    if not np.isfinite(y_proba).all():
        raise ValueError(f"y_proba has {(~np.isfinite(y_proba)).sum()} values that are NaN or infinite.")
    if y_proba.ndim == 1:
        y_proba = np.column_stack([1 - y_proba, y_proba])
        if not scores:
            check_probabilities(y_proba)
    else:
        check_probabilities(y_proba)
    return class_codes(y_true, y_proba.shape[1]), y_proba


def class_codes(y_true: Any, n_classes: int, name: str = "y_true") -> np.ndarray:
    """Class codes (n,) int64 from 0 to ``n_classes`` - 1."""
    values = np.asarray(y_true)
    known = _among(values, range(n_classes))
    if not known.all():
        raise ValueError(
            f"{name} must be class codes 0 to {n_classes - 1} (code k is column k of the probabilities); got "
            f"{_shown(values[~known])} in the rows {_rows(~known)}."
        )
    return values.astype(np.int64)


def check_weights(sample_weight: Any, n: int) -> np.ndarray:
    """Patient weights (n,) or (R, n), finite and not negative; None counts every patient once."""
    values = np.ones(n) if sample_weight is None else as_numbers(sample_weight)
    if values.ndim not in (1, 2) or values.shape[-1] != n:
        raise ValueError(
            f"sample_weight must have shape ({n},) or (n_resamples, {n}), one weight a patient; got {values.shape}."
        )
    if values.dtype.kind not in "biuf" or not ((values >= 0) & np.isfinite(values)).all():
        raise ValueError(f"sample_weight must be finite numbers, not negative; got {_shown(values.ravel())}.")
    return values


def as_numbers(values: Any) -> np.ndarray:
    """An array; one of objects that are all numbers becomes float64."""
    array = np.asarray(values)
    if array.dtype.kind == "O" and all(isinstance(each, int | float | np.number | np.bool_) for each in array.flat):
        return array.astype(np.float64)
    return array


def _as_floats(values: Any, name: str) -> np.ndarray:
    """Predictions as float64; dates, texts and complex numbers, of which numpy would make some number, are refused."""
    array = np.asarray(values)
    if array.dtype.kind in "cmMSU":
        raise TypeError(f"{name} must be numbers; got {_shown(array.ravel())} of dtype {array.dtype}.")
    return array.astype(np.float64)


def _among(values: np.ndarray, codes: Sequence[int]) -> np.ndarray:
    """Which values are one of some codes; text and missing values never are."""
    if values.dtype.kind in "biuf":
        return np.isin(values, codes)
    if values.dtype.kind != "O":
        return np.zeros(len(values), dtype=bool)
    return np.array([isinstance(v, int | float | np.number | np.bool_) and v in codes for v in values], dtype=bool)


def _rows(wrong: Any) -> str:
    rows = np.flatnonzero(wrong)
    return f"{rows[:5].tolist()}{f' and {len(rows) - 5} more' if len(rows) > 5 else ''}"


def _where(wrong: Any, patients: Any) -> str:
    if patients is None:
        return f"the rows {_rows(wrong)}"
    named = np.asarray(patients)[wrong].tolist()
    return f"{len(named)} patients, such as {named[:3]}"


def _shown(values: np.ndarray) -> str:
    return str(list(dict.fromkeys(map(str, values.tolist())))[:5])
