"""What parameters may be: scikit-learn's constraints, with intervals that NaN, infinity and booleans are not in."""

from collections.abc import Mapping
from numbers import Integral, Real
from os import PathLike
from typing import Any

import numpy as np
from sklearn.utils._param_validation import HasMethods, StrOptions

from mmdls._parameters import Finite, count, share
from mmdls.parts import Part
from mmdls.training._trainer import Trainer

__all__ = ["NETWORK_CONSTRAINTS", "SEGMENTOR_CONSTRAINTS"]


# Of the estimators that train a network of several modalities.
NETWORK_CONSTRAINTS: dict[str, list[Any]] = {
    "modalities": [str, list, tuple, dict],
    "image_encoder": [str, HasMethods(["fit", "transform"])],
    "table_encoder": [str, HasMethods(["fit", "transform"])],
    "fusion": [str, callable, Part],
    "survival_head": [str, callable, Part],
    "ordinal_head": [str, callable, Part],
    "heads": [dict, None],
    "hidden_features": [count(1)],
    "class_embedding": [count(0)],
    "dropout": [share()],
    "modality_dropout": [share()],
    "unimodal_loss_weight": [Finite(Real, 0, None, closed="left")],
    "n_members": [count(1)],
    "auxiliary_horizons": [list, tuple, np.ndarray],
    "trainer": [Trainer, None],
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
    "lung_label": [count(1), str, "array-like", None],
    "lesion_label": [count(1), str, "array-like", None],
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
