"""The multimodal, multi-task network: encoders, fusion, class heads, survival heads."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from mmdls.modules.containers import NamedModules
from mmdls.modules.encoders import SliceNet

__all__ = ["MultimodalNet", "horizon_targets"]


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
        fusion: nn.Module,
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
        self.fusion = fusion
        self.class_heads = NamedModules(class_heads)
        self.survival_heads = NamedModules(survival_heads)
        self.modality_dropout = modality_dropout
        self.modality_heads = NamedModules({n: NamedModules(heads) for n, heads in (modality_heads or {}).items()})
        self.modality_supervision = modality_supervision
        self.horizons = tuple(horizons)
        width = fusion.out_features
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

    def predict(self, shared: Tensor) -> dict[str, Tensor]:
        """Shared representation (B, D) -> logits or parameters of every task; horizon logits as ``<name>@horizons``."""
        outputs = {name: head(shared) for name, head in self.class_heads.items()}
        if not self.survival_heads:
            return outputs
        conditioned = [shared]
        for name, embedding in self.class_embeddings.items():
            conditioned.append(self.class_heads[name].probabilities(outputs[name]) @ embedding.weight)
        features = self.trunk(torch.cat(conditioned, dim=1))
        outputs |= {name: head(features) for name, head in self.survival_heads.items()}
        return outputs | {f"{name}@horizons": head(features) for name, head in self.horizon_heads.items()}

    def forward(
        self, packed: Mapping[str, tuple[Tensor, Tensor]], tables: Mapping[str, Tensor], present: Tensor
    ) -> dict[str, Tensor]:
        """Slice embeddings, features and presence (B, M) -> outputs by task; in training ``<task>@<modality>`` too."""
        embeddings = self.embed(packed, tables)
        outputs = self.predict(self.represent(embeddings, present))
        if self.training:
            for modality, heads in self.modality_heads.items():
                outputs |= {f"{task}@{modality}": head(embeddings[modality]) for task, head in heads.items()}
        return outputs

    def losses(
        self,
        outputs: Mapping[str, Tensor],
        classes: Mapping[str, Tensor],
        survival: Mapping[str, tuple[Tensor, Tensor]],
        sample_weight: Tensor | None = None,
        present: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Loss of every task on the patients whose outcome is known.

        Parameters
        ----------
        outputs : mapping of str to Tensor
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
        dict of str to Tensor
            Scalars; a task of which the batch knows nothing gives a zero that is connected to the graph.
        """
        known = {name: codes >= 0 for name, codes in classes.items()}
        known |= {name: ~time.isnan() for name, (_, time) in survival.items()}
        targets = {name: (codes,) for name, codes in classes.items()} | dict(survival)
        found = {}
        for name, head in [*self.class_heads.items(), *self.survival_heads.items()]:
            found[name] = _known_loss(head, outputs[name], targets[name], known[name], sample_weight)
        for name in self.horizon_heads:
            found[f"{name}@horizons"] = self._horizon_loss(outputs[f"{name}@horizons"], *survival[name], sample_weight)
        if self.training and self.modality_supervision:
            share = self.modality_supervision / max(len(self.modality_heads), 1)
            for modality, heads in self.modality_heads.items():
                here = present[:, self.names.index(modality)]
                for name, head in heads.items():
                    output = outputs[f"{name}@{modality}"]
                    alone = _known_loss(head, output, targets[name], known[name] & here, sample_weight)
                    found[f"{name}@{modality}"] = share * alone
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
    head: nn.Module, output: Tensor, targets: tuple[Tensor, ...], known: Tensor, sample_weight: Tensor | None
) -> Tensor:
    """The head's loss on the rows whose outcome is known; without any, a zero connected to the graph."""
    if not known.any():
        return output.sum() * 0
    weight = None if sample_weight is None else sample_weight[known]
    return head.loss(output[known], *(target[known] for target in targets), weight)
