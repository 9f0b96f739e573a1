"""Endpoints recorded after the end of overall follow-up, corrected by a rule."""

import warnings

import numpy as np
import pandas as pd

from mmdls.cohort._endpoints import shortened

__all__ = ["reconcile_endpoints", "truncate_late"]


def reconcile_endpoints(y: pd.DataFrame, rule: str, *, first: str = "dfs", last: str = "os") -> pd.DataFrame:
    """Correct endpoints that end after overall survival, such as a relapse recorded after death, by a chosen rule.

    A warning counts and names the patients whose outcomes change.

    Parameters
    ----------
    y : pandas.DataFrame
        Holds ``<first>_time``, ``<first>_event``, ``<last>_time`` and ``<last>_event``; of competing risks ``_cause``
        instead of ``_event``.
    rule : {"truncate", "unknown"}
        ``"truncate"`` ends the first endpoint where the last one ends, with the event of the last one: death counts as
        an event of disease-free survival at the time of death; a patient lost to follow-up is censored at that time.
        ``"unknown"`` sets time and event of the first endpoint to NaN. Where the first one has causes, only
        ``"unknown"`` mends a patient with an event of the last one, which tells no cause.
    first : str, default="dfs"
        The endpoint that cannot end later, such as disease-free or progression-free survival.
    last : str, default="os"
        The endpoint that death ends.

    Returns
    -------
    DataFrame
        A corrected copy of ``y``; ``y`` itself if no patient needs a correction.

    Raises
    ------
    ValueError
        If the rule is not known, or cannot mend a cause.
    KeyError
        If ``y`` lacks one of the endpoints.

    Examples
    --------
    >>> y = pd.DataFrame({"dfs_time": [9.0, 4.0], "dfs_event": [1, 1], "os_time": [8.0, 6.0], "os_event": [1, 0]})
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("ignore")
    ...     reconcile_endpoints(y, "truncate")["dfs_time"].tolist()
    [8.0, 4.0]
    """
    mended, late = truncate_late(y, rule, first, last)
    if late.any():
        done = f"ends with {last!r} now" if rule == "truncate" else "is unknown now"
        warnings.warn(
            f"{int(late.sum())} of {len(y)} patients ({late.mean():.1%}) have {first!r} later than {last!r}, which "
            "cannot be; "
            f"their {first!r} {done} (rule {rule!r}): {shortened(y.index[late])}.",
            stacklevel=2,
        )
    return mended


def truncate_late(y: pd.DataFrame, rule: str, first: str, last: str) -> tuple[pd.DataFrame, np.ndarray]:
    """Correct endpoints as :func:`reconcile_endpoints` does, without a warning.

    Parameters
    ----------
    y : pandas.DataFrame
    rule : {"truncate", "unknown"}
    first, last : str
        The endpoint that cannot end later, and the one that death ends.

    Returns
    -------
    y : pandas.DataFrame
    changed : ndarray of shape (n_patients,), bool
    """
    if rule not in ("truncate", "unknown"):
        raise ValueError(f"rule must be 'truncate' or 'unknown'; got {rule!r}.")
    status = {name: f"{name}_{'cause' if f'{name}_cause' in y else 'event'}" for name in (first, last)}
    ends = {name: (f"{name}_time", status[name]) for name in (first, last)}
    lacking = [column for columns in ends.values() for column in columns if column not in y]
    if lacking:
        raise KeyError(f"y lacks {lacking}, which rule={rule!r} needs. Columns: {list(y.columns)}.")
    values = {half: y[half].to_numpy(dtype=np.float64, na_value=np.nan) for half in (*ends[first], *ends[last])}
    # Two subtractions of dates may differ by rounding.
    tolerance = 1e-8 * np.maximum(values[f"{last}_time"], 1.0)
    late = values[f"{first}_time"] - values[f"{last}_time"] > tolerance
    if not late.any():
        return y, late
    if not status[first].endswith("_cause"):
        values[status[last]] = np.minimum(values[status[last]], 1)
    elif rule == "truncate" and (untold := late & (values[status[last]] > 0)).any():
        raise ValueError(
            f"{first!r} ends after an event of {last!r} in rows {shortened(y.index[untold])}, and which cause of "
            f"{status[first]!r} that event is, is not known. Correct these rows, or choose the rule 'unknown'."
        )
    y = y.copy()
    for half, end in zip(ends[first], ends[last], strict=True):
        mended = np.where(late, values[end] if rule == "truncate" else np.nan, values[half])
        whole = half == status[first] and y[half].dtype in (np.bool_, np.int64) and not np.isnan(mended).any()
        y[half] = mended.astype(y[half].dtype) if whole else mended
    return y, late
