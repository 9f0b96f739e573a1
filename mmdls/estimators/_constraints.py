"""What parameters may be: scikit-learn's constraints, with intervals that NaN, infinity and booleans are not in."""

from collections.abc import Mapping
from numbers import Integral, Real
from os import PathLike
from typing import Any

import numpy as np
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions

__all__ = ["NETWORK_CONSTRAINTS", "SEGMENTOR_CONSTRAINTS", "Finite", "count", "share"]


class Finite(Interval):
    """An interval of ``sklearn.utils._param_validation`` that NaN, infinities and booleans do not lie in.

    scikit-learn's own lets NaN pass, since every comparison with it is false, and counts True as 1.

    Examples
    --------
    >>> [Finite(Real, 0, None, closed="left").is_satisfied_by(value) for value in (0.5, float("nan"), True)]
    [True, False, False]
    """

    def is_satisfied_by(self, val: Any) -> bool:
        """Whether a value lies inside."""
        return bool(super().is_satisfied_by(val) and not isinstance(val, bool) and np.isfinite(val))


def count(least: int) -> Finite:
    """A whole number from ``least`` on."""
    return Finite(Integral, least, None, closed="left")


def share() -> Finite:
    """A number from 0 to below 1."""
    return Finite(Real, 0, 1, closed="left")


# Of the estimators that train a network of several modalities.
NETWORK_CONSTRAINTS: dict[str, list[Any]] = {
    "modalities": [str, list, tuple, dict],
    "image_encoder": [HasMethods(["fit", "transform"]), None],
    "table_encoder": [HasMethods(["fit", "transform"]), None],
    "fusion": [str, callable],
    "fusion_params": [dict, None],
    "survival": [str, callable],
    "survival_params": [dict, None],
    "ordinal": [StrOptions({"continuation_ratio", "softmax"})],
    "hidden_features": [count(1)],
    "class_embedding": [count(0)],
    "dropout": [share()],
    "modality_dropout": [share()],
    "modality_supervision": [Finite(Real, 0, None, closed="left")],
    "horizons": [list, tuple, np.ndarray],
    "task_weights": [dict, None],
    "optimizer": [StrOptions({"adamw", "adam"})],
    "max_epochs": [count(1)],
    "learning_rate": [Finite(Real, 0, None, closed="neither")],
    "weight_decay": [Finite(Real, 0, None, closed="left")],
    "batch_size": [count(1)],
    "micro_batch_size": [count(1), StrOptions({"auto"})],
    "validation_fraction": [share()],
    "patience": [count(1), None],
    "schedule": [StrOptions({"cosine"}), None],
    "gradient_clip": [Finite(Real, 0, None, closed="neither"), None],
    "precision": [StrOptions({"float32", "bf16"})],
    "compile": ["boolean"],
    "n_jobs": [Integral, None],
    "device": [str],
    "verbose": ["verbose"],
    "random_state": ["random_state"],
}

# Of the estimator that finds masks.
SEGMENTOR_CONSTRAINTS: dict[str, list[Any]] = {
    "net": [str, callable],
    "net_params": [Mapping, None],
    "backbone_weights": [str, PathLike, None],
    "image_column": [str],
    "image_size": [count(1), tuple, list],
    "context_slices": [count(0)],
    "intensity_range": [tuple, list],
    "grey_range": [tuple, list],
    "lung_label": [count(1), "array-like", None],
    "lesion_label": [count(1), "array-like", None],
    "resample_mask": ["boolean"],
    "loss": [str],
    "foreground_fraction": [Finite(Real, 0, 1, closed="both")],
    "patch_size": [count(1), tuple, list, None],
    "augment": ["boolean"],
    "max_epochs": [count(1)],
    "learning_rate": [Finite(Real, 0, None, closed="neither")],
    "weight_decay": [Finite(Real, 0, None, closed="left")],
    "batch_size": [count(1)],
    "validation_fraction": [share()],
    "patience": [count(1), None],
    "threshold": [Finite(Real, 0, 1, closed="both")],
    "test_time_augmentation": ["boolean"],
    "lung_components": [count(1), StrOptions({"auto"}), None],
    "lesion_components": [count(1), None],
    "lung_inside_body": ["boolean"],
    "lesion_inside_body": ["boolean"],
    "crop_size": [count(1)],
    "crop_margin": [Finite(Real, 0, None, closed="left")],
    "keep_image": ["boolean"],
    "precision": [StrOptions({"float32", "bf16"})],
    "n_jobs": [Integral, None],
    "device": [str],
    "verbose": ["verbose"],
    "random_state": ["random_state"],
}
