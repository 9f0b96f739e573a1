"""What transformers have in common that measure a lesion in a scan: cells to voxels, one patient after the other."""

import warnings
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted
from tqdm import tqdm

from mmdls._parallel import workers_may_die
from mmdls._parameters import count
from mmdls.cohort import check_features, modality_name
from mmdls.images import is_missing
from mmdls.scans import Volume
from mmdls.scans._cells import as_mask, as_volume

__all__ = ["ScanFeatures", "first_reasons"]

# What a damaged file, an odd cell or an engine may raise for one patient.
_OF_ONE_PATIENT = (ValueError, TypeError, OSError, ArithmeticError, LookupError, RuntimeError)


class ScanFeatures(TransformerMixin, BaseEstimator):
    """Numbers of one lesion or all lesions of a patient, from an image and a mask."""

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "image_column": [str],
        "mask_column": [str, None],
        "label": [count(1), "array-like", str, None],
        "resample_mask": ["boolean"],
        "n_jobs": [Integral, None],
        "verbose": ["verbose"],
    }
    image_column: str
    mask_column: str | None
    label: Any
    resample_mask: bool
    n_jobs: int | None
    verbose: int
    # Of the values of the image: what files are read as, and what volumes must be in.
    unit = ""

    @abstractmethod
    def _names(self) -> list[str]:
        """Names of the numbers."""

    @abstractmethod
    def _how(self) -> dict[str, Any]:
        """What decides about the numbers of a patient."""

    @abstractmethod
    def _measure(self, image: Volume, mask: np.ndarray) -> Sequence[float]:
        """The numbers of a patient; the mask has at least one voxel."""

    @property
    def _mask_column(self) -> str:
        return f"{modality_name(self.image_column)}_mask" if self.mask_column is None else self.mask_column

    def fit(self, X: pd.DataFrame, y: Any = None) -> "ScanFeatures":
        """Check parameters and columns; nothing is learned.

        Parameters
        ----------
        X : pandas.DataFrame
            With the columns of images and masks.
        y : default=None
            Never read.

        Returns
        -------
        ScanFeatures
        """
        self._validate_params()
        self._check_parameters()
        self.feature_names_in_ = np.asarray(self._table(X).columns, dtype=object)
        self.n_features_in_ = 2
        return self

    def transform(self, X: pd.DataFrame) -> np.ndarray:
        """Measure patients.

        Parameters
        ----------
        X : pandas.DataFrame
            A cell is a path, a :class:`mmdls.scans.Volume`, or ``(array, spacing)`` with millimetres between slices,
            rows and columns; a mask may also be an array of the shape of an image that is no file. Files of masks are
            those of :func:`mmdls.scans.read_mask`, contours too. None is missing.

        Returns
        -------
        ndarray of shape (n_patients, n_features_out)
            NaN for a patient without image or mask, and for one who cannot be measured: ``failures_`` has the reason,
            and a warning says so.
        """
        check_is_fitted(self, "n_features_in_")
        table = self._table(X)
        jobs = (delayed(_measured)(self, *row) for row in table.itertuples(name=None))
        answers = Parallel(n_jobs=self.n_jobs, return_as="generator")(jobs)
        with workers_may_die("The patients that were measured are not kept."):
            found = list(tqdm(answers, total=len(table), desc=type(self).__name__, disable=not self.verbose))
        failed = {patient: reason for patient, (_, reason) in zip(table.index, found, strict=True) if reason}
        self.failures_ = pd.DataFrame({"reason": pd.Series(failed, dtype=object)})
        if failed:
            warnings.warn(
                f"{len(failed)} of {len(table)} patients could not be measured and are NaN; failures_ has the reasons. "
                + first_reasons(failed),
                stacklevel=3,
            )
        return np.array([values for values, _ in found], dtype=float).reshape(len(table), len(self._names()))

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Names of the columns that come out.

        Parameters
        ----------
        input_features : default=None
            Ignored.
        """
        check_is_fitted(self, "n_features_in_")
        return np.asarray(self._names(), dtype=object)

    def _check_parameters(self) -> None:
        """Refuse parameters that do not fit together."""

    def _table(self, X: Any) -> pd.DataFrame:
        check_features(X)
        columns = [self.image_column, self._mask_column]
        if absent := [name for name in columns if name not in X.columns]:
            raise ValueError(
                f"X lacks the columns {absent}; {type(self).__name__} reads an image and its mask: rename yours, or "
                f"name them by image_column= and mask_column=. Columns: {list(X.columns)[:30]}."
            )
        return X[columns]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        return tags


def first_reasons(reasons: Mapping | pd.Series) -> str:
    """The first three patients of a warning, each with the reason why it is not complete."""
    told = "; ".join(f"{patient!r}: {reason.rstrip('.')}" for patient, reason in list(reasons.items())[:3])
    return f"{'The first ones, ' if len(reasons) > 3 else ''}{told}."


def _measured(features: ScanFeatures, patient: Any, image_cell: Any, mask_cell: Any) -> tuple[Sequence[float], str]:
    """The numbers of a patient, and why there are none."""
    nothing = [np.nan] * len(features._names())
    if is_missing(image_cell):
        return nothing, ""
    if is_missing(mask_cell):
        return nothing, "there is an image and no mask"
    try:
        image = as_volume(image_cell, unit=features.unit, patient=patient)
        how: Any = {"label": features.label, "resample_mask": features.resample_mask, "allow_empty": True}
        mask = as_mask(mask_cell, image, image_cell, patient=patient, **how).array
        return (features._measure(image, mask), "") if mask.any() else (nothing, "the mask is empty")
    except _OF_ONE_PATIENT as error:
        said = error.args[0] if isinstance(error, KeyError) and error.args else error  # which would be quoted
        return nothing, str(said) or type(error).__name__
