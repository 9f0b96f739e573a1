"""Small studies for any estimator: the tables it reads, every form of outcome that it learns, a model of few epochs."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, is_classifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from mmdls.cohort import Task, find_tasks, modalities
from mmdls.datasets import make_nsclc_cohort
from mmdls.estimators import MMDLS, ClinicalCox

__all__ = [
    "equipped",
    "finds_masks",
    "is_array",
    "measures_scans",
    "outcome_forms",
    "readable",
    "reads_images",
    "shrunk",
    "small_study",
    "study_of_kind",
]

_LABELS: dict[str, Callable[[pd.DataFrame], pd.DataFrame]] = {
    "text": lambda y: y[["subtype"]].astype(str),
    "boolean": lambda y: (y[["subtype"]] == "LUSC").set_axis(["squamous"], axis=1),
    # A label that is taken for a position is out of range, or another class.
    "integer": lambda y: (y[["subtype"]] == "LUAD").set_axis(["code"], axis=1) * 5 + 2,
    "ordered": lambda y: y[["stage"]],
}
_ENDPOINTS: dict[str, tuple[str, ...]] = {"endpoint": ("os",), "endpoints": ("dfs", "os")}

_SHRUNK = {
    "max_epochs": 3,
    "n_estimators": 5,
    "endpoint": "os",
    "random_state": 0,
    "hidden_features": 16,
    "embedding_dim": 8,
    "batch_size": 32,
    "volume_size": (4, 16, 16),
}
_QUICK = {"max_epochs": 1, "image_size": 16, "crop_size": 16, "keep_image": True, "n_alphas": 5}


def outcome_forms(estimator: type[BaseEstimator]) -> tuple[str, ...]:
    """The forms of outcome that an estimator learns: of labels, endpoints, or both.

    A transformer learns none by itself and stands in front of a model for each of them in :func:`small_study`.

    Parameters
    ----------
    estimator : class

    Returns
    -------
    tuple of str
        Of ``"text"``, ``"boolean"``, ``"integer"`` and ``"ordered"`` (one label), ``"endpoint"`` and ``"endpoints"``
        (one and two of them).

    Examples
    --------
    >>> from mmdls import ClinicalCox
    >>> outcome_forms(ClinicalCox)
    ('endpoint', 'endpoints')
    """
    model = estimator()
    if is_classifier(model):
        return tuple(_LABELS)
    if "endpoint" in model.get_params(deep=False):
        return tuple(_ENDPOINTS)
    return (*_LABELS, *_ENDPOINTS)


def small_study(
    estimator: type[BaseEstimator], outcome: str, n_patients: int = 48
) -> tuple[BaseEstimator, pd.DataFrame, pd.DataFrame]:
    """A model that is quick to fit, and a cohort with one form of outcome.

    Parameters
    ----------
    estimator : class
        Built with its defaults; conventional parameters (``max_epochs``, ``n_estimators``, ``endpoint``,
        ``random_state`` ...) are set to keep it quick.
    outcome : str
        One of :func:`outcome_forms`.
    n_patients : int, default=48

    Returns
    -------
    model : estimator
        Not fitted. A transformer is the first step of a pipeline whose last step predicts.
    X, y : pandas.DataFrame
        Times in months.

    Examples
    --------
    >>> from mmdls import TabularEncoder
    >>> model, X, y = small_study(TabularEncoder, "boolean")
    >>> [name for name, _ in model.steps], y.dtypes.astype(str).to_dict()
    (['tabularencoder', 'logisticregression'], {'squamous': 'bool'})
    """
    model = shrunk(estimator, **_QUICK)
    X, truth = make_nsclc_cohort(
        n_patients, n_slices=(1, 2), image_size=16, n_radiomics=4, return_X_y=True, random_state=0
    )
    X = readable(X, model)
    model = equipped(model, X)
    if not reads_images(model):
        X = X[[c for c in X.columns if not c.endswith("_image")]]
    if outcome in _LABELS:
        y = _LABELS[outcome](truth)
    else:
        y = truth[[f"{name}_{part}" for name in _ENDPOINTS[outcome] for part in ("time", "event")]]
    if finds_masks(model):
        model = make_pipeline(model, shrunk(MMDLS, **_QUICK))
    elif not hasattr(model, "predict"):
        last = LogisticRegression() if outcome in _LABELS else ClinicalCox(endpoint="os")
        model = make_pipeline(model, last)
    return model, X, y


def study_of_kind(
    kind: type[Task], inputs: Sequence[str] = (), n_patients: int = 60
) -> tuple[pd.DataFrame, pd.DataFrame, Task]:
    """Patients with one task of some kind, whose outcomes follow what every modality shows.

    Parameters
    ----------
    kind : subclass of Task
        Its ``example`` gives the outcomes.
    inputs : sequence of str, default=()
        Blocks that a model reads; one that the simulated patients lack is added as numbers.
    n_patients : int, default=60

    Returns
    -------
    X, y : pandas.DataFrame
        Some patients lack PET, some their images.
    task : Task
    """
    rng = np.random.default_rng(0)
    X, _ = make_nsclc_cohort(n_patients, n_slices=(1, 2), image_size=16, n_radiomics=4, return_X_y=True, random_state=0)
    y = kind.example(rng, n_patients).set_axis(X.index)
    (task,) = find_tasks(y).values()
    signal = np.empty(n_patients)
    signal[np.lexsort(task.sort_keys(task.outcome(y)))] = np.linspace(-1, 1, n_patients)
    signal = pd.Series(signal + rng.normal(0, 0.2, n_patients), X.index)
    own = [f"{name}_shown" for name in inputs if name not in {*modalities(X), "tables", "images"}]
    shown = ["clinical_age", "pet_suvmax", "radiomics_000", *own]
    X = X.assign(**{column: 10 + signal for column in shown})
    for column in ("lesion_image", "lung_image"):
        bright = zip(X[column] // 4, 90 + 60 * signal, strict=True)
        images = [(image + light).clip(0, 255).astype(np.uint8) for image, light in bright]
        X[column] = pd.Series(images, X.index, dtype=object)
        X.loc[X.index[5::12], column] = None
    X.loc[X.index[3::10], [column for column in X if column.startswith("pet_")]] = np.nan
    return X, y, task


def shrunk(estimator: type[BaseEstimator], **values: Any) -> BaseEstimator:
    """An estimator with its defaults, few epochs and features, and these values where it or its trainer has them."""
    model = estimator()
    known = model.get_params(deep=True)
    for name, value in (_SHRUNK | values).items():
        model.set_params(**{path: value for path in (name, f"trainer__{name}") if path in known})
    return model


def reads_images(model: BaseEstimator) -> bool:
    """Whether a model has nothing to learn from without images."""
    return finds_masks(model) or measures_scans(model) or getattr(model, "reads", None) == "images"


def finds_masks(model: BaseEstimator) -> bool:
    """Whether a model learns the masks of images."""
    return hasattr(model, "image_column") and not measures_scans(model)


def measures_scans(model: BaseEstimator) -> bool:
    """Whether a model measures lesions, of which it has a mask."""
    return hasattr(model, "mask_column")


def readable(X: pd.DataFrame, model: BaseEstimator) -> pd.DataFrame:
    """The part of a simulated cohort that an estimator reads."""
    if finds_masks(model):
        return _masked(X)
    if measures_scans(model):
        images = X["lesion_image"].map(lambda image: (image, (3.0, 1.0, 1.0)) if is_array(image) else None)
        masks = X["lesion_image"].map(lambda image: image > np.median(image) if is_array(image) else None)
        return pd.DataFrame({model.image_column: images, model.image_column.replace("_image", "_mask"): masks})
    reads = getattr(model, "reads", None)
    if reads == "images":  # encodes one image column
        return X[["lesion_image"]]
    if reads == "vectors":  # encodes one column of vectors: here the rows of the slices
        return pd.DataFrame({"lesion_vectors": X["lesion_image"].map(_rows_of_slices)})
    if hasattr(model, "site_column") or _compares(model):  # passes on what it does not change, to models of numbers
        numbers = X.select_dtypes("number").filter(regex="^(clinical|pet)_")
        numbers = (numbers - numbers.mean()) / numbers.std()
        site = getattr(model, "site_column", None)
        return numbers if site is None else numbers.assign(**{site: np.where(np.arange(len(X)) % 3, "A", "B")})
    if not hasattr(model, "predict"):  # encodes a table
        return X[[c for c in X.columns if c.startswith(("clinical_", "pet_"))]]
    return X


def equipped(model: BaseEstimator, X: pd.DataFrame) -> BaseEstimator:
    """A model with what it needs to be fitted besides X: the measurements made again of one that compares them."""
    if not _compares(model):
        return model
    numbers = X.select_dtypes("number")
    again = numbers + np.random.default_rng(0).normal(0, 0.1, numbers.shape) * numbers.std().to_numpy()
    return model.set_params(repeats=[numbers, again])


def is_array(cell: Any) -> bool:
    """Whether a cell holds an image."""
    return isinstance(cell, np.ndarray)


def _compares(model: BaseEstimator) -> bool:
    """Whether a model compares repeated measurements."""
    return "repeats" in model.get_params(deep=False)


def _rows_of_slices(image: Any) -> Any:
    return image.reshape(-1, image.shape[-1]) / 255 if is_array(image) else None


def _masked(X: pd.DataFrame) -> pd.DataFrame:
    """A cohort's CTs with bright and dark masks of theirs, for an estimator that learns masks."""
    return pd.DataFrame(
        {
            "ct_image": X["lung_image"],
            "lung_mask": X["lung_image"].map(lambda image: image < 90 if is_array(image) else None),
            "lesion_mask": X["lung_image"].map(lambda image: image > 125 if is_array(image) else None),
        }
    )
