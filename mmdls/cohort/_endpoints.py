"""The two columns of a right-censored endpoint as numbers: time in months, and event as 0 or 1."""

import warnings
from decimal import Decimal
from numbers import Real
from typing import Any

import numpy as np
import pandas as pd

__all__ = ["DAYS_A_MONTH", "endpoint_numbers", "refuse_no_follow_up", "shortened", "warn_if_implausible"]

DAYS_A_MONTH = 30.4375
"""Days of a mean month."""

_LONGEST_MEDIAN = 360.0
_SHORTEST_MEDIAN = 1.0


def endpoint_numbers(y: pd.DataFrame, columns: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Read an endpoint; refuses impossible values and names the patients.

    Parameters
    ----------
    y : pandas.DataFrame
    columns : (time, event)
        Their names. Times are months, events 0 or 1 or booleans, in any numeric dtype; missing values are unknown.

    Returns
    -------
    time, event : ndarray of shape (n_patients,), float64
        NaN where unknown.

    Raises
    ------
    TypeError
        If a column holds no numbers: texts, dates, durations.
    ValueError
        If a time is negative or infinite, an event is neither 0 nor 1, or only one of the two is known.
    """
    time_name, event_name = columns
    time, event = _numbers(y[time_name], is_time=True), _numbers(y[event_name], is_time=False)
    for bad, what, hint in (
        (np.isinf(time), f"{time_name!r} is infinite", "Give months of follow-up, or NaN if unknown"),
        (time < 0, f"{time_name!r} is negative", "A patient cannot be followed before time zero; correct the dates"),
        (
            ~np.isnan(event) & (event != 0) & (event != 1),
            f"{event_name!r} is neither 0 nor 1",
            "Code 1 or True if the event was seen, 0 or False if censored, NaN if unknown",
        ),
        (
            np.isnan(time) != np.isnan(event),
            f"only one of {time_name!r} and {event_name!r} is known",
            "Give both, or set both to NaN (unknown)",
        ),
    ):
        if bad.any():
            values = y.loc[bad, list(columns)].head(3).to_dict("list")
            raise ValueError(f"{what} in rows {shortened(y.index[bad])}: {values}. {hint}.")
    return time, event


def refuse_no_follow_up(time: np.ndarray, name: str) -> None:
    """Refuse times that are all 0, of which no curve can be learned.

    Parameters
    ----------
    time : ndarray of shape (n_patients,)
        Months; NaN if unknown.
    name : str
        The column that holds them.

    Raises
    ------
    ValueError
        If no known time is above 0.
    """
    if not (time > 0).any():
        raise ValueError(f"every known time of {name!r} is 0, so nobody was followed. Give months from treatment on.")


def warn_if_implausible(time: np.ndarray, name: str, stacklevel: int = 3) -> None:
    """Warn if the median of the known times is longer than 30 years or shorter than a month.

    Parameters
    ----------
    time : ndarray of shape (n_patients,)
        Months; NaN if unknown.
    name : str
        The column that holds them.
    stacklevel : int, default=3
        As in :func:`warnings.warn`.
    """
    known = time[~np.isnan(time)]
    median = float(np.median(known)) if len(known) else np.nan
    if median > _LONGEST_MEDIAN:
        reading = f"{median / 12:.0f} years. If they are days, divide them by {DAYS_A_MONTH}"
    elif median < _SHORTEST_MEDIAN:
        reading = "less than a month. If they are years, multiply them by 12"
    else:
        return
    warnings.warn(
        f"the times of {name!r} are taken as months, and their median, {median:.4g}, would be {reading}.",
        stacklevel=stacklevel,
    )


def shortened(items: Any, most: int = 5) -> str:
    """The first items of a sequence, and how many more there are."""
    shown = ", ".join(repr(item.item() if isinstance(item, np.generic) else item) for item in items[:most])
    return f"[{shown}{f', ... {len(items) - most} more' if len(items) > most else ''}]"


def _numbers(column: pd.Series, *, is_time: bool) -> np.ndarray:
    if isinstance(column.dtype, pd.CategoricalDtype):
        column = column.astype(object)
    kind = pd.api.types.infer_dtype(column, skipna=True)
    expected = f"{column.name!r} must hold numbers ({'months' if is_time else '0, 1 or booleans'}, NaN if unknown)"
    if kind.startswith("timedelta"):
        raise TypeError(
            f"{expected}; got durations ({column.dtype}). Give them in months: y[{column.name!r}] / "
            f"pd.Timedelta(days={DAYS_A_MONTH})."
        )
    if kind.startswith(("date", "time", "period")):
        raise TypeError(
            f"{expected}; got dates ({column.dtype}). Subtract the date from which time is counted and give months: "
            f"(y[{column.name!r}] - y['date_of_diagnosis']) / pd.Timedelta(days={DAYS_A_MONTH})."
        )
    if is_time and kind == "boolean":
        raise TypeError(f"{expected}; got booleans. Are the columns of the time and of the event exchanged?")
    known = column.notna().to_numpy()
    if not pd.api.types.is_numeric_dtype(column.dtype) or pd.api.types.is_complex_dtype(column.dtype):
        values = column.to_numpy(dtype=object)
        wrong = np.array(
            [k and not isinstance(v, Real | Decimal | np.bool_) for k, v in zip(known, values, strict=True)]
        )
        if wrong.any():
            different = list({repr(value): value for value in values[wrong]}.values())
            if is_time:
                hint = "Convert them, and correct the rows that are no numbers"
            else:
                mapping = ", ".join(f"{value!r}: ..." for value in different[:4])
                hint = f"Say which of them is the event: y[{column.name!r}].map({{{mapping}}}) with 1 and 0"
            raise TypeError(
                f"{expected}; got {type(different[0]).__name__} such as {shortened(different, 3)} in rows "
                f"{shortened(column.index[wrong])}. {hint}, or let mmdls.cohort.read_cohort read the table."
            )
    return column.to_numpy(dtype=np.float64, na_value=np.nan)
