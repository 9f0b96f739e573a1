"""What a network reads: a cohort's modalities as tensors."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmdls.encoders import ModalityData

__all__ = ["Inputs"]


@dataclass
class Inputs:
    """What a network reads, for all patients of a table.

    Parameters
    ----------
    data : dict of str to ModalityData
        By modality, in order.
    present : Tensor of shape (n_patients, M), bool
        Who has which modality, measured or completed.
    measured : Tensor of shape (n_patients, M), bool
        Who has which modality in the table of the patients.
    frozen : dict of str to Tensor of shape (n_items, D)
        Embeddings of all items, for bags whose encoders do not train, so that no item is encoded twice.
    """

    data: dict[str, ModalityData]
    present: Tensor
    measured: Tensor
    frozen: dict[str, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.present)

    @property
    def names(self) -> list[str]:
        """The modalities in order."""
        return list(self.data)

    def linear_tables(self, rows: Any = slice(None)) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """What a linear part reads of some patients: tables {name: (B, P)}, and who has which modality {name: (B,)}."""
        tables = {name: data.linear[rows] for name, data in self.data.items() if data.linear is not None}
        return tables, {name: self.present[rows, i] for i, name in enumerate(self.names)}

    @classmethod
    def of(cls, data: Mapping[str, ModalityData]) -> "Inputs":
        """The data of some modalities of the same patients."""
        present = torch.as_tensor(np.stack([each.present for each in data.values()], axis=1))
        return cls(dict(data), present, present)
