"""The gate for arrays: outcomes and predictions that metrics can trust."""

from typing import Any

import numpy as np

from mmdls.metrics._times import tied_times

__all__ = ["check_labels", "check_outcome", "check_predictions"]


def check_outcome(event: Any, time: Any = None) -> tuple[np.ndarray, np.ndarray]:
    """Event (n,) bool and time (n,) float64, from two arrays or from one structured array.

    Times that differ by floating rounding only come out as one.
    """
    if time is None:
        fields = getattr(getattr(event, "dtype", None), "names", None)
        if fields is None or len(fields) != 2:
            raise ValueError(
                "outcomes must be a structured array with an event field and a time field (mmdls.cohort.survival_target"
                f" makes one); got {type(event).__name__} {getattr(event, 'dtype', '')}."
            )
        event, time = event[fields[0]], event[fields[1]]
    event, time = np.asarray(event), np.asarray(time, dtype=np.float64)
    if event.ndim != 1 or event.shape != time.shape:
        raise ValueError(f"event and time must have one shape (n,); got {event.shape} and {time.shape}.")
    if event.dtype != bool:
        if not np.isin(event, (0, 1)).all():
            raise ValueError(f"event must hold 0 and 1 or booleans only; got {np.unique(event)[:5]}.")
        event = event.astype(bool)
    if not np.isfinite(time).all() or (time < 0).any():
        raise ValueError(
            f"time must be finite and not negative, for all {len(time)} patients; leave out unknown outcomes."
        )
    return event, tied_times(time)


def check_predictions(values: Any, shape: tuple[int, ...], name: str) -> np.ndarray:
    """Finite float64 predictions of a given shape; survival must hold probabilities."""
    values = np.asarray(values, dtype=np.float64)
    if values.shape != shape:
        raise ValueError(f"{name} must have shape {shape}; got {values.shape}.")
    if not np.isfinite(values).all():
        raise ValueError(f"{name} has {(~np.isfinite(values)).sum()} values that are NaN or infinite.")
    if name.startswith("survival") and values.size and (values.min() < -1e-9 or values.max() > 1 + 1e-9):
        raise ValueError(
            f"{name} must hold probabilities of being event-free, between 0 and 1; got {values.min():g} to "
            f"{values.max():g}. A risk is none: take it from the survival function."
        )
    return values


def check_labels(labels: Any, probability: Any) -> tuple[np.ndarray, np.ndarray]:
    """Class codes (n,) and probabilities (n, K); scores (n,) become two columns."""
    labels, probability = np.asarray(labels), np.asarray(probability, dtype=np.float64)
    if probability.ndim == 1:
        probability = np.column_stack([1 - probability, probability])
    if labels.ndim != 1 or probability.ndim != 2 or len(labels) != len(probability):
        raise ValueError(
            f"labels (n,) and probability (n,) or (n, n_classes) needed; got {labels.shape} and {probability.shape}."
        )
    if not np.isfinite(probability).all():
        raise ValueError(f"probability has {(~np.isfinite(probability)).sum()} values that are NaN or infinite.")
    codes = labels.astype(np.int64)
    if not (codes == labels).all() or (codes < 0).any() or (codes >= probability.shape[1]).any():
        raise ValueError(
            f"labels must be class codes 0 to {probability.shape[1] - 1}, the column of probability each patient "
            f"belongs to; got {np.unique(labels)[:5]}."
        )
    return codes, probability
