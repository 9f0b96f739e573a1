"""The multimodal, multi-task network: encoders, fusion, one head a task."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from mmdls.modules.containers import NamedModules
from mmdls.modules.encoders import BagNet, pad_items
from mmdls.modules.heads import is_of_many

__all__ = ["AttentionWeights", "LossName", "MultimodalNet", "Outputs", "horizon_targets"]


class LossName(NamedTuple):
    """Which loss: that of a task's own head, of its head on one modality alone, or of its auxiliary horizons.

    Parameters
    ----------
    task : str
    modality : str, default=None
        Whose embedding alone the head reads.
    horizons : bool, default=False

    Examples
    --------
    >>> [LossName("os").label, LossName("os", "lesion").label, LossName("os", horizons=True).label]
    ['os_loss', 'os_loss (lesion alone)', 'os_loss (horizons)']
    """

    task: str
    modality: str | None = None
    horizons: bool = False

    @property
    def label(self) -> str:
        """Another text for every name: ``os_loss``, ``os_loss (lesion alone)``, ``os_loss (horizons)``.

        A bracket in the name of a task or modality is doubled where a source follows, so that no two texts are equal.
        """
        if self.modality is None and not self.horizons:
            return f"{self.task}_loss"
        source = "horizons" if self.modality is None else f"{_doubled(self.modality)} alone"
        return f"{_doubled(self.task)}_loss ({source})"


def _doubled(name: str) -> str:
    return name.replace("(", "((")


@dataclass
class AttentionWeights:
    """How much each modality, and each item of a bag, added to what a network says of some patients.

    Parameters
    ----------
    modalities : Tensor of shape (B, M), default=None
        If the fusion weighs modalities.
    items : dict of str to Tensor of shape (K,)
        Packed, of the modalities whose pooling weighs items, such as slices.

    Examples
    --------
    Of a patient with CT and clinical variables, and of the two slices of the CT:

    >>> import torch
    >>> weights = AttentionWeights(torch.tensor([[0.75, 0.25]]), {"ct": torch.tensor([0.5, 0.5])})
    >>> weights.modalities.argmax(dim=1).item(), weights.items["ct"].sum().item()
    (0, 1.0)
    """

    modalities: Tensor | None = None
    items: dict[str, Tensor] = field(default_factory=dict)


@dataclass
class Outputs:
    """What a network says of some patients.

    Parameters
    ----------
    shared : Tensor of shape (B, D)
        The shared representation.
    tasks : dict of str to Tensor of shape (B, P)
        Parameters of every task, such as logits.
    horizons : dict of str to Tensor of shape (B, H)
        Auxiliary logits of the event by each horizon, of tasks that have them.
    unimodal : dict of (task, modality) to Tensor of shape (B, P)
        What the heads of single modalities say; in training only.
    embeddings : dict of str to Tensor of shape (B, D)
        Of every modality.
    attention : AttentionWeights
        Empty where neither the fusion nor a pooling weighs what it reads.
    unknown : Tensor of shape (B,), bool
        Patients without any modality.
    members : dict of str to Tensor of shape (B, n_members, P)
        Parameters of every task, by each member of an ensemble.

    Examples
    --------
    >>> import torch
    >>> first, second = (Outputs(torch.zeros(n, 4), {"os": torch.zeros(n, 1)}) for n in (3, 2))
    >>> Outputs.join([first, second]).tasks["os"].shape
    torch.Size([5, 1])
    """

    shared: Tensor
    tasks: dict[str, Tensor] = field(default_factory=dict)
    horizons: dict[str, Tensor] = field(default_factory=dict)
    unimodal: dict[tuple[str, str], Tensor] = field(default_factory=dict)
    embeddings: dict[str, Tensor] = field(default_factory=dict)
    attention: AttentionWeights = field(default_factory=AttentionWeights)
    unknown: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.bool))
    members: dict[str, Tensor] = field(default_factory=dict)

    @staticmethod
    def join(pieces: Sequence["Outputs"]) -> "Outputs":
        """Those of pieces of a cohort, one after the other, on the CPU."""

        def together(values: Sequence[Any]) -> Any:
            if isinstance(values[0], dict):
                return {name: together([value[name] for value in values]) for name in values[0]}
            if is_dataclass(values[0]):
                cls: Any = type(values[0])
                return cls(*(together([getattr(value, part.name) for value in values]) for part in fields(cls)))
            return None if values[0] is None else torch.cat([value.cpu() for value in values])

        return together(pieces)


class MultimodalNet(nn.Module):
    """Embeddings of every modality, fused into one representation, read by one head a task.

    Some heads read the shared representation. Others read a layer behind it, the trunk, which also reads soft
    embeddings of the predicted classes: prognosis is conditioned on the predicted subtype and stage.

    Parameters
    ----------
    encoders : mapping of str to nn.Module
        Each gives embeddings (B, ``out_features``) of what it reads. A :class:`~mmdls.modules.BagNet` is given the
        embeddings of its items, which the caller has encoded in micro-batches.
    fusion : nn.Module
        See :mod:`mmdls.modules.fusions`; the order of modalities is that of ``encoders``.
    heads : mapping of str to nn.Module
        By task, the heads that read the shared representation; see :mod:`mmdls.modules.heads`.
    conditioned_heads : mapping of str to nn.Module
        By task, the heads that read the ``hidden_features`` features of the trunk.
    n_classes : mapping of str to int
        The tasks among ``heads`` whose classes condition the trunk, which have ``probabilities``.
    hidden_features : int, default=128
        Width of the trunk.
    class_embedding : int, default=32
        Width of the soft embedding of the classes of each task; 0 turns the conditioning off.
    dropout : float, default=0.3
        Behind the trunk.
    modality_dropout : float, default=0.0
        Chance that a present modality is hidden from a patient in training; one always stays.
    unimodal_heads : mapping of str to mapping of str to nn.Module, default=None
        For each modality, one head a task that reads its embedding alone, as the task's own head in all else. They are
        used in training only: without them the modality that is learned fastest, often the clinical table, leaves the
        images nothing to explain.
    unimodal_loss_weight : float, default=0.0
        Weight of the mean loss of these heads.
    horizons : mapping of str to sequence of float, default=None
        By task with event and time, the months at which auxiliary logits of the event by each horizon are trained
        beside its head (the published model has 12, 36, 60). They shape the representation only.

    References
    ----------
    .. [1] Wang H et al. Multimodal multitask deep learning for grading management system in non-small cell lung
       cancer. Nature Communications, 2026.

    Examples
    --------
    Subtype is read from the shared representation, overall survival from the trunk, which knows the subtype:

    >>> import torch
    >>> from mmdls.modules import ClassHead, ConcatFusion, CoxHead, TabularNet
    >>> encoders = {"clinical": TabularNet(5), "pet": TabularNet(3)}
    >>> fusion = ConcatFusion({"clinical": 5, "pet": 3}, out_features=16)
    >>> net = MultimodalNet(encoders, fusion, {"subtype": ClassHead(16, 2)}, {"os": CoxHead(128)}, {"subtype": 2})
    >>> batch = {"clinical": (torch.zeros(4, 5),), "pet": (torch.zeros(4, 3),)}
    >>> outputs = net(batch, torch.ones(4, 2, dtype=torch.bool))
    >>> {task: tuple(parameters.shape) for task, parameters in outputs.tasks.items()}
    {'subtype': (4, 2), 'os': (4, 1)}
    """

    def __init__(
        self,
        encoders: Mapping[str, nn.Module],
        fusion: Any,
        heads: Mapping[str, nn.Module],
        conditioned_heads: Mapping[str, nn.Module],
        n_classes: Mapping[str, int],
        *,
        hidden_features: int = 128,
        class_embedding: int = 32,
        dropout: float = 0.3,
        modality_dropout: float = 0.0,
        unimodal_heads: Mapping[str, Mapping[str, nn.Module]] | None = None,
        unimodal_loss_weight: float = 0.0,
        horizons: Mapping[str, Sequence[float]] | None = None,
    ):
        super().__init__()
        self.names = tuple(encoders)
        self.encoders = NamedModules(encoders)
        self.fusion: Any = fusion
        self.heads = NamedModules(heads)
        self.conditioned_heads = NamedModules(conditioned_heads)
        self.modality_dropout = modality_dropout
        self.unimodal_heads = NamedModules({n: NamedModules(own) for n, own in (unimodal_heads or {}).items()})
        self.unimodal_loss_weight = unimodal_loss_weight
        self.horizons = {name: tuple(months) for name, months in (horizons or {}).items()}
        width = int(fusion.out_features)
        self.class_embeddings = NamedModules()
        self.horizon_heads = NamedModules()
        if conditioned_heads:
            if class_embedding:
                for name, n in n_classes.items():
                    start = torch.randn(n, class_embedding) * 0.1
                    self.class_embeddings[name] = nn.Embedding.from_pretrained(start, freeze=False)
                width += class_embedding * len(n_classes)
            self.trunk = nn.Sequential(nn.Linear(width, hidden_features), nn.ReLU(), nn.Dropout(dropout))
        for name, months in self.horizons.items():
            in_features = hidden_features if name in conditioned_heads else int(fusion.out_features)
            self.horizon_heads[name] = nn.Linear(in_features, len(months))

    def head(self, task: str) -> Any:
        """The head of a task."""
        return self.heads[task] if task in self.heads else self.conditioned_heads[task]

    def width(self, task: str) -> int:
        """Width of the features that the head of a task reads."""
        features: Any = self.fusion if task in self.heads else self.trunk[0]
        return int(features.out_features)

    def embed(self, batch: Mapping[str, tuple[Tensor, ...]]) -> dict[str, Tensor]:
        """What each encoder reads -> embeddings {name: (B, D_name)}.

        Of a bag that is packed item embeddings (K, D) and counts (B,), otherwise the arguments of the encoder.
        """
        return {
            name: encoder.pool(*batch[name]) if isinstance(encoder, BagNet) else encoder(*batch[name])
            for name, encoder in self.encoders.items()
        }

    def represent(
        self,
        embeddings: Mapping[str, Tensor],
        present: Tensor,
        batch: Mapping[str, tuple[Tensor, ...]] | None = None,
    ) -> Tensor:
        """Embeddings {name: (B, D_name)}, present (B, M) -> shared representation (B, D).

        A fusion that reads the items of bags is given those of ``batch``, see :meth:`embed`.
        """
        if self.training and self.modality_dropout > 0:
            present = self._hide(present)
        if not getattr(self.fusion, "reads_tokens", False):
            return self.fusion(embeddings, present)
        bags = [name for name, encoder in self.encoders.items() if isinstance(encoder, BagNet)]
        return self.fusion(embeddings, present, {name: pad_items(*batch[name]) for name in bags if batch})

    def predict(self, shared: Tensor) -> Outputs:
        """Shared representation (B, D) -> parameters of every task, and its logits at horizons."""
        outputs = Outputs(shared, {name: head(shared) for name, head in self.heads.items()})
        features = dict.fromkeys(self.heads, shared)
        if self.conditioned_heads:
            conditions = [shared]
            for name, embedding in self.class_embeddings.items():
                conditions.append(self.heads[name].probabilities(outputs.tasks[name]) @ embedding.weight)
            features |= dict.fromkeys(self.conditioned_heads, self.trunk(torch.cat(conditions, dim=1)))
        outputs.tasks |= {name: head(features[name]) for name, head in self.conditioned_heads.items()}
        outputs.horizons = {name: head(features[name]) for name, head in self.horizon_heads.items()}
        return outputs

    def forward(self, batch: Mapping[str, tuple[Tensor, ...]], present: Tensor) -> Outputs:
        """What each encoder reads, see :meth:`embed`, and presence (B, M) -> outputs.

        In training the outputs hold those of the heads of single modalities too.
        """
        embeddings = self.embed(batch)
        outputs = self.predict(self.represent(embeddings, present, batch))
        outputs.embeddings, outputs.unknown = embeddings, ~present.any(dim=1)
        if self.training:
            outputs.unimodal = {
                (task, modality): head(embeddings[modality])
                for modality, heads in self.unimodal_heads.items()
                for task, head in heads.items()
            }
        return outputs

    def losses(
        self,
        outputs: Outputs,
        targets: Mapping[str, tuple[Tensor, ...]],
        known: Mapping[str, Tensor],
        sample_weight: Tensor | None = None,
        present: Tensor | None = None,
    ) -> dict[LossName, Tensor]:
        """Loss of every task on the patients whose outcome is known.

        Parameters
        ----------
        outputs : Outputs
            What :meth:`forward` gave.
        targets : mapping of str to tuple of Tensor, each (B,)
            What the loss of each head takes behind its parameters.
        known : mapping of str to Tensor of shape (B,), bool
            Whose outcome is known.
        sample_weight : Tensor of shape (B,), default=None
        present : Tensor of shape (B, M), default=None
            Which modalities each patient has; needed for the heads of single modalities.

        Returns
        -------
        dict of LossName to Tensor
            Scalars; a task of which the batch knows nothing gives a zero that is connected to the graph.
        """
        here: dict[str, Tensor] = {}
        if outputs.unimodal and self.unimodal_loss_weight:
            if present is None:
                raise ValueError(
                    "the heads of single modalities learn from patients who have them; give present (B, M)."
                )
            here = {modality: present[:, self.names.index(modality)] for modality in self.unimodal_heads}
        everywhere = {modality for modality, column in here.items() if column.all()}
        share = self.unimodal_loss_weight / max(len(self.unimodal_heads), 1)
        found: dict[LossName, Tensor] = {}
        unimodal: dict[LossName, Tensor] = {}
        for name, head in [*self.heads.items(), *self.conditioned_heads.items()]:
            given = _given(head, targets)
            everybody = _Known.of(known[name], targets[name], sample_weight, given)
            own = [modality for modality in here if (name, modality) in outputs.unimodal]
            first = [modality for modality in own if modality in everywhere]
            same = [(self.unimodal_heads[modality][name], outputs.unimodal[name, modality]) for modality in first]
            found[LossName(name)], *others = everybody.losses([(head, outputs.tasks[name]), *same])
            unimodal |= {LossName(name, modality): each for modality, each in zip(first, others, strict=True)}
            for modality in [each for each in own if each not in everywhere]:
                some = _Known.of(known[name] & here[modality], targets[name], sample_weight, given)
                alone = self.unimodal_heads[modality][name], outputs.unimodal[name, modality]
                (unimodal[LossName(name, modality)],) = some.losses([alone])
        for name, logits in outputs.horizons.items():
            event, time = targets[name]
            labels = horizon_targets(event, time, torch.as_tensor(self.horizons[name]).to(time))
            found[LossName(name, horizons=True)] = _horizon_loss(logits, labels, sample_weight)
        for name, modality in outputs.unimodal if here else ():
            found[LossName(name, modality)] = share * unimodal[LossName(name, modality)]
        return found

    def _hide(self, present: Tensor) -> Tensor:
        kept = present & (torch.rand(present.shape, device=present.device) >= self.modality_dropout)
        return torch.where(kept.any(dim=1, keepdim=True), kept, present)


def _settings(head: Any) -> tuple[type, dict[str, Any]]:
    """The class of a head, and what it was built with, apart from weights: heads that share them have one loss."""
    return type(head), {name: value for name, value in vars(head).items() if isinstance(value, str | int | float)}


def horizon_targets(event: Tensor, time: Tensor, horizons: Tensor) -> Tensor:
    """Event (B,), time (B,), horizons (H,) -> (B, H): 1 = event by the horizon, 0 = known event-free, NaN = unknown."""
    by_then = time[:, None] <= horizons
    target = torch.where(by_then, torch.where(event[:, None], 1.0, torch.nan), 0.0)
    return torch.where(time[:, None].isnan(), torch.nan, target)


def _horizon_loss(logits: Tensor, labels: Tensor, sample_weight: Tensor | None) -> Tensor:
    """Mean cross-entropy of logits (B, H) with labels (B, H), NaN = unknown."""
    weight = (~labels.isnan()).to(logits)
    if sample_weight is not None:
        weight = weight * sample_weight[:, None]
    nll = functional.binary_cross_entropy_with_logits(
        logits, labels.nan_to_num().to(logits), weight=weight, reduction="sum"
    )
    return nll / weight.sum().clamp(min=1e-12)


def _given(head: Any, targets: Mapping[str, tuple[Tensor, ...]]) -> tuple[Tensor, ...] | None:
    """The targets of the task that a head names by ``given``."""
    name = getattr(head, "given", None)
    return None if name is None else targets[name]


@dataclass(frozen=True)
class _Known:
    """The rows of a batch whose outcome is known, and what a loss takes of them.

    Parameters
    ----------
    rows : Tensor of shape (n,), int, default=None
        None for all.
    targets : tuple of Tensor, each (n,)
    sample_weight : Tensor of shape (n,), default=None
    given : dict of str to tuple of Tensor
        The targets of another task, by keyword; empty where the head reads none.
    """

    rows: Tensor | None
    targets: tuple[Tensor, ...]
    sample_weight: Tensor | None
    given: dict[str, tuple[Tensor, ...]]

    @classmethod
    def of(
        cls,
        known: Tensor,
        targets: tuple[Tensor, ...],
        sample_weight: Tensor | None,
        given: tuple[Tensor, ...] | None,
    ) -> "_Known":
        rows = known.nonzero()[:, 0]
        if len(rows) == len(known):
            return cls(None, targets, sample_weight, {} if given is None else {"given": given})
        return cls(
            rows,
            tuple(target[rows] for target in targets),
            None if sample_weight is None else sample_weight[rows],
            {} if given is None else {"given": tuple(field[rows] for field in given)},
        )

    def losses(self, outputs: Sequence[tuple[Any, Tensor]]) -> list[Tensor]:
        """The losses of heads of one task and their outputs on these rows; zeros without any row."""
        if self.rows is not None:
            if not len(self.rows):
                return [output.sum() * 0 for _, output in outputs]
            outputs = [(head, output[self.rows]) for head, output in outputs]
        first = outputs[0][0]
        if len(outputs) > 1 and is_of_many(first) and all(_settings(head) == _settings(first) for head, _ in outputs):
            together = torch.stack([output for _, output in outputs])
            weight = None if self.sample_weight is None else self.sample_weight.expand(together.shape[:2])
            return list(first.loss(together, *self.targets, weight, **self.given).unbind())
        return [head.loss(output, *self.targets, self.sample_weight, **self.given) for head, output in outputs]
