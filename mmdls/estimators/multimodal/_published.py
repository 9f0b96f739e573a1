"""The published MM-DLS: its hyperparameters, and its checkpoint under our names.

References
----------
.. [1] Wang H, Liu X, Li Q, Lu H, He Y, Xu K, Yao S, Dai F. Multimodal multitask deep learning for grading management
   system in non-small cell lung cancer. Nature Communications, 2026. doi:10.1038/s41467-026-74474-2.
"""

from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmdls.estimators.columns._tabular import TabularEncoder
from mmdls.estimators.encoders._slices import SliceEncoder
from mmdls.parts import Part
from mmdls.tasks import NominalTask, OrdinalTask, SurvivalTask, Task
from mmdls.training._trainer import Trainer

__all__ = ["CLINICAL", "PET", "RADIOMICS", "load_checkpoint", "published_parameters", "published_tasks"]

RADIOMICS = [f"radiomics_{i:03d}" for i in range(128)]
PET = ["pet_suvmax", "pet_suvmean", "pet_suvpeak", "pet_tlg", "pet_mtv"]
CLINICAL = [
    "clinical_age",
    "clinical_sex",
    "clinical_smoking_status",
    "clinical_smoking_duration",
    "clinical_smoking_cessation",
    "clinical_diameter",
]

# Prefixes of the checkpoint's keys and ours; the two image branches share one rule.
_KEYS = {
    "shared_up.": "fusion.layers.",
    "subtype_head.": "heads.subtype.linear.",
    "tnm_head.": "heads.stage.linear.",
    "subtype_emb.weight": "class_embeddings.subtype.weight",
    "tnm_emb.weight": "class_embeddings.stage.weight",
    "surv_mlp.0.": "trunk.0.",
    "dfs_head.": "conditioned_heads.dfs.linear.",
    "os_head.": "conditioned_heads.os.linear.",
    "dfs_cls.": "horizon_heads.dfs.",
    "os_cls.": "horizon_heads.os.",
}
for _theirs, _ours in (("lesion", "lesion"), ("space", "lung")):
    _KEYS |= {
        f"{_theirs}_encoder.encoder.0.": f"encoders.{_ours}.backbone.layers.0.",
        f"{_theirs}_encoder.encoder.2.": f"encoders.{_ours}.backbone.layers.1.",
        f"{_theirs}_encoder.encoder.6.": f"encoders.{_ours}.projection.",
        f"{_theirs}_fuser.": f"encoders.{_ours}.pooling.",
    }


def published_parameters() -> dict[str, Any]:
    """Architecture and training recipe of the publication as parameters of MMDLS.

    Two of its faults are not repeated: ties are handled (Efron), and the horizon losses leave out patients who were
    censored before the horizon.
    """

    def slices() -> SliceEncoder:
        return SliceEncoder(
            backbone="conv",
            pooling=Part("self_attention", n_heads=4, dropout=0.1),
            embedding_dim=128,
            image_size=224,
            max_image_size=None,
            max_slices=None,
            standardize=False,
            backbone_learning_rate=1.0,
        )

    def raw() -> TabularEncoder:
        return TabularEncoder(scale=None, add_indicator=False, linear=False)

    return {
        "modalities": [
            ("lesion", slices(), ["lesion_image"]),
            ("lung", slices(), ["lung_image"]),
            ("radiomics", raw(), "radiomics"),
            ("pet", raw(), "pet"),
            ("clinical", raw(), "clinical"),
        ],
        "fusion": Part("concat", hidden_features=256, dropout=0.3),
        "survival_head": Part("cox", bias=True),
        "ordinal_head": "softmax",
        "hidden_features": 128,
        "class_embedding": 32,
        "dropout": 0.3,
        "modality_dropout": 0.0,
        "unimodal_loss_weight": 0.0,
        "auxiliary_horizons": (12, 36, 60),
        "n_members": 1,
        "trainer": Trainer(
            optimizer="adam",
            learning_rate=1e-4,
            weight_decay=1e-5,
            batch_size=4,
            max_epochs=300,
            patience=8,
            validation_fraction=0.25,
            schedule=None,
            gradient_clip=None,
        ),
    }


def published_tasks() -> dict[str, Task]:
    """The four tasks of the publication."""
    return {
        "subtype": NominalTask("subtype", ("subtype",), ("LUAD", "LUSC")),
        "stage": OrdinalTask("stage", ("stage",), ("I-II", "III", "IV")),
        "dfs": SurvivalTask("dfs", ("dfs_time", "dfs_event")),
        "os": SurvivalTask("os", ("os_time", "os_event")),
    }


def load_checkpoint(path: str | PathLike) -> dict[str, Tensor]:
    """Read a checkpoint of the published code and rename its tensors to ours; nothing in the file is executed.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If a key is unknown.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"no checkpoint at {str(path)!r}; give the path of the published 'best_model.pt'.")
    state = torch.load(path, map_location="cpu", weights_only=True)
    renamed = {}
    for key, tensor in state.items():
        prefix = next((p for p in _KEYS if key.startswith(p)), None)
        if prefix is None:
            raise ValueError(
                f"{str(path)!r} holds {key!r}, which the published network does not have; is it another model's "
                "checkpoint?"
            )
        renamed[_KEYS[prefix] + key.removeprefix(prefix)] = tensor
    return renamed
