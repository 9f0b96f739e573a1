"""The multimodal, multi-task network: encoders, fusion, class heads, survival heads."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from mmdls.modules.containers import NamedModules
from mmdls.modules.encoders import SliceNet

__all__ = ["LossName", "MultimodalNet", "Outputs", "horizon_targets"]


class LossName(NamedTuple):
    """Which loss: that of a task's own head, of its head on one modality alone, or of its auxiliary horizons.

    Parameters
    ----------
    task : str
    modality : str, default=None
        Whose embedding alone the head reads.
    horizons : bool, default=False
    """

    task: str
    modality: str | None = None
    horizons: bool = False

    @property
    def label(self) -> str:
        """One text for each: ``os``, ``os@lesion``, ``os@@horizons``; ``@`` in a name is ``%40``, ``%`` ``%25``."""
        task = _without_at(self.task)
        if self.horizons:
            return f"{task}@@horizons"
        return task if self.modality is None else f"{task}@{_without_at(self.modality)}"


def _without_at(name: str) -> str:
    return name.replace("%", "%25").replace("@", "%40")


@dataclass
class Outputs:
    """What a network says of some patients.

    Parameters
    ----------
    shared : Tensor of shape (B, D)
        The shared representation.
    tasks : dict of str to Tensor of shape (B, P)
        Logits or parameters of every task.
    horizons : dict of str to Tensor of shape (B, H)
        Auxiliary event-by-then logits of endpoints.
    alone : dict of (task, modality) to Tensor of shape (B, P)
        What the heads of single modalities say; in training only.
    embeddings : dict of str to Tensor of shape (B, D)
        Of every modality.
    modality_weights : Tensor of shape (B, M), default=None
        If the fusion weighs modalities.
    slice_weights : dict of str to Tensor of shape (K,)
        Packed, of the modalities whose pooling weighs slices.
    unknown : Tensor of shape (B,), bool
        Patients without any modality.
    """

    shared: Tensor
    tasks: dict[str, Tensor] = field(default_factory=dict)
    horizons: dict[str, Tensor] = field(default_factory=dict)
    alone: dict[tuple[str, str], Tensor] = field(default_factory=dict)
    embeddings: dict[str, Tensor] = field(default_factory=dict)
    modality_weights: Tensor | None = None
    slice_weights: dict[str, Tensor] = field(default_factory=dict)
    unknown: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.bool))

    @classmethod
    def join(cls, pieces: Sequence["Outputs"]) -> "Outputs":
        """Those of pieces of a cohort, one after the other, on the CPU."""

        def together(values: Sequence[Any]) -> Any:
            if isinstance(values[0], dict):
                return {name: together([value[name] for value in values]) for name in values[0]}
            return None if values[0] is None else torch.cat([value.cpu() for value in values])

        return cls(*(together([getattr(piece, part.name) for piece in pieces]) for part in fields(cls)))


class MultimodalNet(nn.Module):
    """Embeddings of every modality, fused into one representation, read by one head a task.

    The representation, joined by soft embeddings of the predicted classes, feeds the survival heads: prognosis is
    conditioned on the predicted subtype and stage.

    Parameters
    ----------
    encoders : mapping of str to nn.Module
        A :class:`~mmdls.modules.SliceNet` for images, a :class:`~mmdls.modules.TabularNet` for features.
    fusion : nn.Module
        See :mod:`mmdls.modules.fusions`; the order of modalities is that of ``encoders``.
    class_heads, survival_heads : mapping of str to nn.Module
        See :mod:`mmdls.modules.heads`. A survival head reads ``hidden_features`` features.
    n_classes : mapping of str to int
        Of each class head.
    hidden_features : int, default=128
        Width of the layer in front of the survival heads.
    class_embedding : int, default=32
        Width of the soft embedding of each class task; 0 turns the conditioning off.
    dropout : float, default=0.3
        In front of the survival heads.
    modality_dropout : float, default=0.0
        Chance that a present modality is hidden from a patient in training; one always stays.
    modality_heads : mapping of str to mapping of str to nn.Module, default=None
        For each modality, one head a task that reads its embedding alone. They are used in training only: without them
        the modality that is learned fastest, often the clinical table, leaves the images nothing to explain.
    modality_supervision : float, default=0.0
        Weight of the mean loss of these heads.
    horizons : sequence of float, default=()
        Months at which auxiliary event-by-then logits are trained beside each survival head (the published model has
        12, 36, 60). They shape the representation; probabilities come from the survival function.

    References
    ----------
    .. [1] Wang H et al. Multimodal multitask deep learning for grading management system in non-small cell lung
       cancer. Nature Communications, 2026.
    """

    def __init__(
        self,
        encoders: Mapping[str, nn.Module],
        fusion: Any,
        class_heads: Mapping[str, nn.Module],
        survival_heads: Mapping[str, nn.Module],
        n_classes: Mapping[str, int],
        *,
        hidden_features: int = 128,
        class_embedding: int = 32,
        dropout: float = 0.3,
        modality_dropout: float = 0.0,
        modality_heads: Mapping[str, Mapping[str, nn.Module]] | None = None,
        modality_supervision: float = 0.0,
        horizons: Sequence[float] = (),
    ):
        super().__init__()
        self.names = tuple(encoders)
        self.encoders = NamedModules(encoders)
        self.fusion: Any = fusion
        self.class_heads = NamedModules(class_heads)
        self.survival_heads = NamedModules(survival_heads)
        self.modality_dropout = modality_dropout
        self.modality_heads = NamedModules({n: NamedModules(heads) for n, heads in (modality_heads or {}).items()})
        self.modality_supervision = modality_supervision
        self.horizons = tuple(horizons)
        width = int(fusion.out_features)
        self.class_embeddings = NamedModules()
        self.horizon_heads = NamedModules()
        if survival_heads:
            if class_embedding:
                for name in class_heads:
                    start = torch.randn(n_classes[name], class_embedding) * 0.1
                    self.class_embeddings[name] = nn.Embedding.from_pretrained(start, freeze=False)
                width += class_embedding * len(class_heads)
            self.trunk = nn.Sequential(nn.Linear(width, hidden_features), nn.ReLU(), nn.Dropout(dropout))
            if self.horizons:
                for name in survival_heads:
                    self.horizon_heads[name] = nn.Linear(hidden_features, len(self.horizons))

    def embed(self, packed: Mapping[str, tuple[Tensor, Tensor]], tables: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Packed slice embeddings {name: ((K, D), counts (B,))} and features {name: (B, P)} -> {name: (B, D_name)}."""
        return {
            name: encoder.pool(*packed[name]) if isinstance(encoder, SliceNet) else encoder(tables[name])
            for name, encoder in self.encoders.items()
        }

    def represent(self, embeddings: Mapping[str, Tensor], present: Tensor) -> Tensor:
        """Embeddings {name: (B, D_name)}, present (B, M) -> shared representation (B, D)."""
        if self.training and self.modality_dropout > 0:
            present = self._hide(present)
        return self.fusion(embeddings, present)

    def predict(self, shared: Tensor) -> Outputs:
        """Shared representation (B, D) -> logits or parameters of every task, and horizon logits of endpoints."""
        outputs = Outputs(shared, {name: head(shared) for name, head in self.class_heads.items()})
        if not self.survival_heads:
            return outputs
        conditioned = [shared]
        for name, embedding in self.class_embeddings.items():
            conditioned.append(self.class_heads[name].probabilities(outputs.tasks[name]) @ embedding.weight)
        features = self.trunk(torch.cat(conditioned, dim=1))
        outputs.tasks |= {name: head(features) for name, head in self.survival_heads.items()}
        outputs.horizons = {name: head(features) for name, head in self.horizon_heads.items()}
        return outputs

    def forward(
        self, packed: Mapping[str, tuple[Tensor, Tensor]], tables: Mapping[str, Tensor], present: Tensor
    ) -> Outputs:
        """Slice embeddings, features and presence (B, M) -> outputs; in training of single modalities too."""
        embeddings = self.embed(packed, tables)
        outputs = self.predict(self.represent(embeddings, present))
        outputs.embeddings, outputs.unknown = embeddings, ~present.any(dim=1)
        if self.training:
            outputs.alone = {
                (task, modality): head(embeddings[modality])
                for modality, heads in self.modality_heads.items()
                for task, head in heads.items()
            }
        return outputs

    def losses(
        self,
        outputs: Outputs,
        classes: Mapping[str, Tensor],
        survival: Mapping[str, tuple[Tensor, Tensor]],
        sample_weight: Tensor | None = None,
        present: Tensor | None = None,
    ) -> dict[LossName, Tensor]:
        """Loss of every task on the patients whose outcome is known.

        Parameters
        ----------
        outputs : Outputs
            What :meth:`forward` gave.
        classes : mapping of str to Tensor of shape (B,)
            Class numbers; -1 = unknown.
        survival : mapping of str to (event (B,) bool, time (B,) months)
            Time NaN = unknown.
        sample_weight : Tensor of shape (B,), default=None
        present : Tensor of shape (B, M), default=None
            Which modalities each patient has; needed for the heads of single modalities.

        Returns
        -------
        dict of LossName to Tensor
            Scalars; a task of which the batch knows nothing gives a zero that is connected to the graph.
        """
        known = {name: codes >= 0 for name, codes in classes.items()}
        known |= {name: ~time.isnan() for name, (_, time) in survival.items()}
        targets = {name: (codes,) for name, codes in classes.items()} | dict(survival)
        found = {}
        for name, head in [*self.class_heads.items(), *self.survival_heads.items()]:
            found[LossName(name)] = _known_loss(head, outputs.tasks[name], targets[name], known[name], sample_weight)
        for name, logits in outputs.horizons.items():
            found[LossName(name, horizons=True)] = self._horizon_loss(logits, *survival[name], sample_weight)
        if outputs.alone and self.modality_supervision:
            if present is None:
                raise ValueError(
                    "the heads of single modalities learn from patients who have them; give present (B, M)."
                )
            share = self.modality_supervision / len(self.modality_heads)
            for (name, modality), output in outputs.alone.items():
                here = known[name] & present[:, self.names.index(modality)]
                loss = _known_loss(self.modality_heads[modality][name], output, targets[name], here, sample_weight)
                found[LossName(name, modality)] = share * loss
        return found

    def _horizon_loss(self, logits: Tensor, event: Tensor, time: Tensor, sample_weight: Tensor | None) -> Tensor:
        target = horizon_targets(event, time, torch.as_tensor(self.horizons).to(time))
        weight = (~target.isnan()).to(logits)
        if sample_weight is not None:
            weight = weight * sample_weight[:, None]
        nll = functional.binary_cross_entropy_with_logits(
            logits, target.nan_to_num().to(logits), weight=weight, reduction="sum"
        )
        return nll / weight.sum().clamp(min=1e-12)

    def _hide(self, present: Tensor) -> Tensor:
        kept = present & (torch.rand(present.shape, device=present.device) >= self.modality_dropout)
        return torch.where(kept.any(dim=1, keepdim=True), kept, present)


def horizon_targets(event: Tensor, time: Tensor, horizons: Tensor) -> Tensor:
    """Event (B,), time (B,), horizons (H,) -> (B, H): 1 = event by then, 0 = known event-free, NaN = unknown."""
    by_then = time[:, None] <= horizons
    target = torch.where(by_then, torch.where(event[:, None], 1.0, torch.nan), 0.0)
    return torch.where(time[:, None].isnan(), torch.nan, target)


def _known_loss(
    head: Any, output: Tensor, targets: tuple[Tensor, ...], known: Tensor, sample_weight: Tensor | None
) -> Tensor:
    """The head's loss on the rows whose outcome is known; without any, a zero connected to the graph."""
    if not known.any():
        return output.sum() * 0
    weight = None if sample_weight is None else sample_weight[known]
    return head.loss(output[known], *(target[known] for target in targets), weight)
