"""All members of an ensemble at once, where the networks are small."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.modules.batchnorm import _NormBase

from mmdls.modules import BagNet, LossName, MultimodalNet
from mmdls.modules.heads import is_of_many
from mmdls.training._targets import Targets

__all__ = ["SideBySide", "among_all", "are_alike", "is_known"]

_KNOWN = ("mmdls", "torch")  # packages of modules that compute the same in a batch of members


def are_alike(networks: Sequence[MultimodalNet]) -> bool:
    """Whether members can be computed at once: several, of parts of this package and of torch.

    Parts of other packages may do anything with the tensors that they are given, and normalisation over a batch counts
    the patients whom a member holds out. What encodes the items of bags is computed for each member on its own.
    """
    parts = [
        [part for name, part in network.named_modules() if not _encodes_items(network, name)] for network in networks
    ]
    return (
        len(networks) > 1
        and not networks[0].horizons
        and all(is_known(part) for own in parts for part in own)
        and not any(isinstance(part, _NormBase) for own in parts for part in own)
        and all(map(_has_own_weights, parts))
        and all(_same_buffers(networks[0], network) for network in networks[1:])
    )


def is_known(module: nn.Module) -> bool:
    """Whether the class of a module is of this package or of torch, and so does nothing but compute."""
    return type(module).__module__.partition(".")[0] in _KNOWN


def among_all(items: Tensor, learns: Tensor, counts: Tensor) -> Tensor:
    """Embeddings of the items of all patients (K, D), zeros for those whom a member holds out.

    Parameters
    ----------
    items : Tensor of shape (K_own, D)
        Of the patients whom it does not hold out.
    learns : Tensor of shape (B,), bool
    counts : Tensor of shape (B,)
        Of all patients.
    """
    places = learns.repeat_interleave(counts).nonzero()[:, 0].to(items.device)
    return items.new_zeros(int(counts.sum()), items.shape[1]).index_put((places,), items)


class SideBySide:
    """The members of an ensemble as one network with a member axis, see :func:`are_alike`.

    Parameters
    ----------
    networks : sequence of MultimodalNet
    """

    def __init__(self, networks: Sequence[MultimodalNet]):
        self.first = networks[0]
        self.bags = [name for name, encoder in self.first.encoders.items() if isinstance(encoder, BagNet)]
        weights: list[dict[str, Tensor]] = [dict(network.named_parameters()) for network in networks]
        self.weights = {
            name: [own[name] for own in weights] for name in weights[0] if not _encodes_items(self.first, name)
        }

    def losses(
        self, batch: Mapping[str, tuple[Tensor, ...]], present: Tensor, targets: Targets, learns: Tensor
    ) -> dict[LossName, Tensor]:
        """Losses (n_members,) of every task, as those of :meth:`mmdls.modules.MultimodalNet.losses`.

        Parameters
        ----------
        batch : mapping of str to tuple of Tensor
            What the networks read of some patients; of bags the embeddings of their items by each member
            (n_members, K, D), and counts (B,).
        present : Tensor of shape (B, M), bool
        targets : Targets
            Of these patients.
        learns : Tensor of shape (n_members, B), bool
            False for those whom a member holds out: they have no weight.
        """
        network, outputs = self.first, self._outputs(batch, present)
        weight = learns.to(present.device, torch.float32)
        if targets.sample_weight is not None:
            weight = weight * targets.sample_weight
        share = network.unimodal_loss_weight / max(len(network.unimodal_heads), 1)
        found: dict[LossName, Tensor] = {}
        for task, known in targets.known.items():
            rows, head = known.nonzero()[:, 0], network.head(task)
            own = {name: output for name, output in outputs.items() if name.task == task}
            if not len(rows):
                found |= {name: output.sum(dim=(1, 2)) * 0 for name, output in own.items()}
                continue
            here = [self._weight(name, weight, present) for name in own]
            other = getattr(head, "given", None)
            given = {} if other is None else {"given": tuple(field[rows] for field in targets.fields[other])}
            values = _losses(
                head,
                torch.cat(list(own.values()))[:, rows],
                [field[rows] for field in targets.fields[task]],
                torch.cat(here)[:, rows],
                given,
            )
            for name, value in zip(own, values.split(len(learns)), strict=True):
                found[name] = value if name.modality is None else share * value
        return found

    def _outputs(self, batch: Mapping[str, tuple[Tensor, ...]], present: Tensor) -> dict[LossName, Tensor]:
        """Parameters (n_members, B, P) of every task, and those by the heads of single modalities."""

        def parameters(weights: dict[str, Tensor], batch: dict[str, tuple[Tensor, ...]]) -> Any:
            # Heads may share a module, whose weights would be exchanged, and put back, twice.
            outputs = functional_call(self.first, weights, (batch, present), tie_weights=False)
            found = {LossName(task): output for task, output in outputs.tasks.items()}
            if self.first.unimodal_loss_weight:
                found |= {LossName(*name): output for name, output in outputs.unimodal.items()}
            return found

        stacked = {name: torch.stack(own) for name, own in self.weights.items()}
        dims = {name: (0, None) if name in self.bags else (None,) * len(own) for name, own in batch.items()}
        return vmap(parameters, in_dims=(0, dims), randomness="different")(stacked, dict(batch))

    def _weight(self, name: LossName, weight: Tensor, present: Tensor) -> Tensor:
        return weight if name.modality is None else weight * present[:, self.first.names.index(name.modality)]


def _losses(head: Any, parameters: Tensor, targets: Sequence[Tensor], weight: Tensor, given: Mapping) -> Tensor:
    """Losses (k,) of parameters (k, B, P) with weights (k, B) on the same patients."""

    if is_of_many(head):
        return head.loss(parameters, *targets, weight, **given)

    def loss(own: Tensor, own_weight: Tensor) -> Tensor:
        return head.loss(own, *targets, own_weight, **given)

    return vmap(loss)(parameters, weight)


def _encodes_items(network: MultimodalNet, name: str) -> bool:
    """Whether a part, or a weight, of a network stands in front of the pooling of a bag."""
    return any(
        name.startswith((f"encoders.{key}.backbone", f"encoders.{key}.projection", f"encoders.{key}.augmentation"))
        for key, encoder in network.encoders.named_children()
        if isinstance(encoder, BagNet)
    )


def _has_own_weights(parts: Sequence[nn.Module]) -> bool:
    """Whether no two modules share a weight."""
    weights = [weight for part in parts for weight in part.parameters(recurse=False)]
    return len(weights) == len({id(weight) for weight in weights})


def _same_buffers(one: MultimodalNet, other: MultimodalNet) -> bool:
    first, second = (
        {name: buffer for name, buffer in network.named_buffers() if not _encodes_items(network, name)}
        for network in (one, other)
    )
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
