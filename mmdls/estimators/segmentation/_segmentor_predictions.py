"""What a fitted segmentor answers: masks, probabilities, crops, and the Dice of masks that are known."""

from collections.abc import Iterator, Mapping
from typing import Any, Self

import numpy as np
import pandas as pd
import torch
from sklearn.utils.validation import check_is_fitted

from mmdls.cohort import check_features
from mmdls.estimators.encoders._scan_cells import read_ct
from mmdls.estimators.segmentation._found_masks import found_table, replace_columns, rows_with_image, warn_of_lost
from mmdls.images import box_around, is_missing
from mmdls.images._components import clip_to_body, largest_parts
from mmdls.images._cutting import pad_to_square
from mmdls.images._files import check_places
from mmdls.images._hounsfield import check_chest, to_hounsfield, to_window
from mmdls.images._settings import as_size
from mmdls.metrics import dice_score
from mmdls.modules.segmentation import STRUCTURES
from mmdls.training._compute import Compute
from mmdls.training._mask_answers import mask_probabilities
from mmdls.training._masks import resize

__all__ = ["SegmentorPredictions"]


class SegmentorPredictions:
    """The predictions of :class:`LungLesionSegmentor`, whose parameters and fitted network they read."""

    network_: torch.nn.Module
    structures_: list[str]
    image_column: str
    image_size: int | tuple[int, int]
    context_slices: int
    intensity_range: tuple[float, float]
    grey_range: tuple[float, float]
    lung_label: Any
    lesion_label: Any
    resample_mask: bool
    batch_size: int
    threshold: float
    test_time_augmentation: bool
    lung_components: int | str | None
    lesion_components: int | None
    lung_inside_body: bool
    lesion_inside_body: bool
    crop_size: int
    crop_margin: float
    keep_image: bool
    precision: str
    device: str
    verbose: int

    def predict(self, X: pd.DataFrame) -> pd.DataFrame:
        """Masks at the size of each image.

        Parameters
        ----------
        X : pandas.DataFrame
            With the column ``ct_image``.

        Returns
        -------
        pandas.DataFrame
            ``lung_mask`` and ``lesion_mask``, as far as they were learned: bool arrays (S, H, W), all False where
            nothing was found; None for a patient without image. :func:`mmdls.images.write_mask` writes one as NIfTI in
            the geometry of its image; of DICOM and other scans they are on the voxels of :func:`mmdls.scans.read_scan`.
        """
        return self._table(X, "mask", self._masks)

    def predict_proba(self, X: pd.DataFrame) -> pd.DataFrame:
        """Probabilities at the size of each image, before the rules that ``predict`` applies.

        Parameters
        ----------
        X : pandas.DataFrame
            With the column ``ct_image``.

        Returns
        -------
        pandas.DataFrame
            ``lung_probability`` and ``lesion_probability``, as far as they were learned: float32 arrays (S, H, W),
            None for a patient without image.
        """

        def whole(image: np.ndarray, patient: Any, contiguous: bool) -> dict[str, np.ndarray]:
            batches = list(self._probabilities(image, patient))
            return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}

        return self._table(X, "probability", whole)

    def transform(self, X: pd.DataFrame) -> pd.DataFrame:
        """Add masks, and crops around the structures found, to the table.

        Parameters
        ----------
        X : pandas.DataFrame
            With the column ``ct_image``; all other columns stay, except masks, which are replaced.

        Returns
        -------
        pandas.DataFrame
            With ``lung_image`` and ``lesion_image``, uint8 arrays ``(S, crop_size, crop_size)`` of the slices that show
            the structure, and ``lung_mask`` and ``lesion_mask`` on the grid of the CT, which itself is left out unless
            ``keep_image``. A structure that is not found is None in both columns, and a warning names the patients.
        """
        images = {f"{name}_image": np.empty(len(X), dtype=object) for name in getattr(self, "structures_", ())}
        taken = [name for name in images if name in getattr(X, "columns", ()) and name != self.image_column]
        if taken:
            raise ValueError(f"X has the columns {taken} already, which transform adds; drop or rename them.")
        place = {patient: row for row, patient in enumerate(X.index)}

        def cut(image: np.ndarray, patient: Any, contiguous: bool) -> dict[str, np.ndarray | None]:
            found: dict[str, np.ndarray | None] = {}
            for name, mask in self._masks(image, patient, contiguous).items():
                box = box_around(mask, self.crop_margin)
                found[name] = None if box is None else mask
                if box is not None:
                    crop = torch.as_tensor(pad_to_square(self._window(image[box]), 0))
                    images[f"{name}_image"][place[patient]] = resize(crop, (self.crop_size, self.crop_size)).numpy()
            return found

        masks = self._table(X, "mask", cut)
        has_image = X[self.image_column].map(lambda cell: not is_missing(cell))
        warn_of_lost(masks, has_image)
        dropped = {f"{name}_mask" for name in STRUCTURES} | (set() if self.keep_image else {self.image_column})
        return replace_columns(X, dropped, images | {name: masks[name].tolist() for name in masks.columns})

    def score(self, X: pd.DataFrame, y: Any = None) -> float:
        """Mean Dice over patients and structures whose masks are in X.

        Parameters
        ----------
        X : pandas.DataFrame
            ``ct_image``, ``lung_mask``, ``lesion_mask``. A structure that is absent in truth and prediction has no Dice
            and is left out.
        y : default=None
            Ignored.

        Returns
        -------
        float
        """
        check_is_fitted(self, "network_")
        self._check_table(X)
        known = [name for name in self.structures_ if f"{name}_mask" in X.columns]
        if not known:
            raise ValueError(
                f"score compares with the masks in X; none of {[f'{name}_mask' for name in self.structures_]} is among "
                f"its columns {list(X.columns)}."
            )
        scores = []
        for patient, row in rows_with_image(X, self.image_column, self.verbose):
            cells = {name: row[f"{name}_mask"] for name in known}
            image, true, contiguous = self._read(row[self.image_column], cells, patient)
            masks = self._masks(image, patient, contiguous)
            scores += [dice_score(mask, masks[name]) for name, mask in true.items() if mask.any() or masks[name].any()]
        if not scores:
            raise ValueError(
                "no patient has both an image and a mask with something inside; there is nothing to score."
            )
        return float(np.mean(scores))

    def set_output(self, *, transform: str | None = None) -> Self:
        """Set the container of the output; only pandas tables are possible.

        Parameters
        ----------
        transform : {"pandas", "default"} or None
        """
        if transform not in (None, "default", "pandas"):
            raise ValueError(f"masks and crops fit into pandas tables only; got transform={transform!r}.")
        return self

    def _check_table(self, X: pd.DataFrame) -> None:
        check_features(X)
        if self.image_column not in X.columns:
            raise ValueError(
                f"X lacks the column {self.image_column!r}, the CT; rename yours or pass image_column. Columns: "
                f"{list(X.columns)}."
            )
        check_places(X[self.image_column], X.index)

    def _table(self, X: pd.DataFrame, what: str, find: Any) -> pd.DataFrame:
        """Results of all patients, one column per structure."""
        check_is_fitted(self, "network_")
        self._check_table(X)
        return found_table(X, self.image_column, self.structures_, what, self._read, find, self.verbose)

    def _masks(self, image: np.ndarray, patient: Any, contiguous: bool = False) -> dict[str, np.ndarray]:
        """Masks of one patient, after thresholding and post-processing."""
        batches = [
            {name: found > self.threshold for name, found in batch.items()}
            for batch in self._probabilities(image, patient)
        ]
        masks = {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}
        rules = {"lung": self.lung_inside_body, "lesion": self.lesion_inside_body}
        if inside := [mask for name, mask in masks.items() if rules[name]]:
            clip_to_body(inside, (self._hounsfield(picture) for picture in image))
        automatic = 2 if contiguous else None
        n_lungs = automatic if isinstance(self.lung_components, str) else self.lung_components
        for name, n_components in (("lung", n_lungs), ("lesion", self.lesion_components)):
            if n_components is not None and name in masks:
                masks[name] = largest_parts(masks[name], n_components)
        return masks

    def _probabilities(self, image: np.ndarray, patient: Any) -> Iterator[dict[str, np.ndarray]]:
        """Probabilities (s, H, W) of one patient's slices, a batch at a time."""
        check_chest(image, patient)
        size = as_size(self.image_size)
        small = [
            resize(torch.as_tensor(self._window(image[start : start + self.batch_size])), size)
            for start in range(0, len(image), self.batch_size)
        ]
        batches = mask_probabilities(
            self.network_,
            torch.cat(small),
            image.shape[1:],
            context_slices=self.context_slices,
            batch_size=self.batch_size,
            test_time_augmentation=self.test_time_augmentation,
            compute=Compute(device=self.device, precision=self.precision),
            verbose=self.verbose,
        )
        for batch in batches:
            yield {name: batch[:, STRUCTURES.index(name)] for name in self.structures_}

    def _read(
        self, image: Any, masks: Mapping[str, Any], patient: Any
    ) -> tuple[np.ndarray, dict[str, np.ndarray], bool]:
        """A CT, the masks of structures that are known, on its voxels, and whether its slices form a volume."""
        labels = {"lung": self.lung_label, "lesion": self.lesion_label}
        return read_ct(image, masks, patient, labels, self.resample_mask)

    def _hounsfield(self, image: np.ndarray) -> np.ndarray:
        return to_hounsfield(image, self.grey_range)

    def _window(self, image: np.ndarray) -> np.ndarray:
        return to_window(image, self.intensity_range, self.grey_range)
