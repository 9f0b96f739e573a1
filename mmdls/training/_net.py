"""skorch's loop over the patients of a cohort: a step, its loss, its score."""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from functools import cached_property
from typing import Any, NoReturn, TypeVar, cast

import numpy as np
import torch
from sklearn.exceptions import UndefinedMetricWarning
from skorch.history import History
from torch import Tensor, nn

from mmdls.encoders import BagData
from mmdls.modules import BagNet, LossName, MultimodalNet
from mmdls.training._compute import Compute, within_memory
from mmdls.training._loop import TrainingLoop
from mmdls.training._members import Member
from mmdls.training._ranks import random_state, set_random_state
from mmdls.training._side_by_side import SideBySide, among_all, are_alike, is_known
from mmdls.training._targets import Targets
from mmdls.training._threads import in_threads
from mmdls.training._two_pass import _Replay, pack

__all__ = ["CohortNet", "answering"]

Result = TypeVar("Result")


class CohortNet(TrainingLoop):
    """skorch's loop over patients' rows for the members of an ensemble, side by side. Owned by the estimators, private.

    Its module is an :class:`mmdls.modules.Ensemble`. Members share nothing but the pace: every step sums their losses,
    each over the rows of the batch that the member does not hold out.
    """

    def __init__(
        self,
        *args: Any,
        members: Any = None,
        targets: Any = None,
        compute: Any = None,
        deciding: frozenset[str] = frozenset(),
        linear: Any = None,
        **kwargs: Any,
    ):
        super().__init__(*args, **kwargs)
        # The defaults are None because skorch builds nets without arguments; during training none of these is None.
        self.members: Sequence[Member] = members
        self.targets: Targets = targets
        self.compute: Compute = compute
        self.deciding = deciding
        self.linear: Mapping[str, Tensor] = linear or {}
        self.held_out_: dict[str, Tensor] = {}

    def train_step_single(self, batch: Any, **fit_params: Any) -> dict[str, Any]:
        """Exact gradient of the whole batch, one micro-batch of items at a time; see :mod:`._two_pass`."""
        self._set_training(True)
        before = random_state(self.compute.torch_device)

        def again(smaller: Compute) -> None:
            self.compute = smaller
            self.module_.zero_grad()
            set_random_state(before, smaller.torch_device)

        return within_memory(self.compute, lambda _: self._gradient(batch[0]), again)

    def _gradient(self, rows: Tensor) -> dict[str, Any]:
        replays: list[_Replay] = []
        if self._side_by_side is not None:
            total, means = self._losses_at_once(self._side_by_side, rows, replays)
        else:
            total, means = self._losses_in_turn(rows, replays)
        if total.requires_grad:
            total.backward()
        ranks, after = self.compute.ranks, random_state(self.compute.torch_device)
        ranks.drop_shared_gradients(self.module_)
        self._each(_Replay.backward, [(replay, self._share) for replay in replays])
        ranks.sum_gradients(self.module_)
        set_random_state(after, self.compute.torch_device)
        return self._step(rows, total / len(self.members), means)

    @property
    def _share(self) -> Compute:
        """The computation of one bag of one member: of threads and of the memory for graphs it has its part."""
        return replace(
            self.compute,
            kept_bytes=self.compute.kept_bytes // max(len(self._trained_bags), 1),
            n_threads=max(self.compute.n_threads // self._n_workers, 1),
        )

    @cached_property
    def _trained_bags(self) -> list[tuple[BagNet, BagData]]:
        """The encoders, and their data, by which items are encoded anew in every step."""
        return [
            (encoder, data)
            for network, member in self._pairs()
            for name, data in member.inputs.data.items()
            if isinstance(encoder := network.encoders[name], BagNet)
            and isinstance(data, BagData)
            and name not in member.inputs.frozen
            and not encoder.has_fixed_features
        ]

    def _each(self, work: Callable[..., Result], arguments: Sequence[tuple[Any, ...]]) -> list[Result]:
        """Results of work for bags of members, side by side where that changes nothing."""
        if self._n_workers > 1 and len(arguments) > 1:
            return in_threads(work, arguments, self._n_workers)
        return [work(*each) for each in arguments]

    @cached_property
    def _n_workers(self) -> int:
        """How many bags are encoded side by side: on the processor, by known parts that draw no random numbers."""
        compute = self.compute
        if compute.torch_device.type != "cpu" or compute.ranks.size > 1 or compute.compile:
            return 1
        alike = all(
            all(map(is_known, encoder.modules())) and not compute.draws_random_numbers(encoder, data)
            for encoder, data in self._trained_bags
        )
        return max(min(compute.n_threads, len(self._trained_bags)), 1) if alike else 1

    def _encode(
        self, network: MultimodalNet, member: Member, rows: Tensor, name: str
    ) -> tuple[tuple[Tensor, ...], list[_Replay]]:
        """The embeddings of a bag's items, with what their gradient needs."""
        replays: list[_Replay] = []
        return pack(network, member.inputs, rows, self._share, replays, [name])[name], replays

    def _answer_items(self, network: MultimodalNet, member: Member, rows: Tensor, name: str) -> tuple[Tensor, ...]:
        """What a network that does not train reads of a modality."""
        with torch.no_grad():
            return pack(network, member.inputs, rows, self._share, names=[name])[name]

    @cached_property
    def _side_by_side(self) -> SideBySide | None:
        networks = self.module_.networks
        return SideBySide(networks) if are_alike(networks) else None

    def _losses_at_once(
        self, together: SideBySide, rows: Tensor, replays: list[_Replay]
    ) -> tuple[Tensor, dict[str, float]]:
        inputs, bags = self.members[0].inputs, together.bags
        learns = torch.stack([~member.held[rows] for member in self.members])
        batch = pack(together.first, inputs, rows, self.compute, names=inputs.data.keys() - bags)
        parts = [(*pair, rows[here], name) for name in bags for pair, here in zip(self._pairs(), learns, strict=True)]
        encoded = iter(self._each(self._encode, parts))
        for name in bags:
            bag = cast("BagData", inputs.data[name])
            counts = torch.as_tensor(bag.index_of(rows.numpy())[1])
            items = []
            for here, (own, replays_of_it) in zip(learns, encoded, strict=False):
                items.append(among_all(own[0], here, counts))
                replays += replays_of_it
            batch[name] = torch.stack(items), counts.to(self.device)
        present, targets = inputs.present[rows].to(self.device), self.targets.take(rows, self.device)
        return self._sum(together.losses(batch, present, targets, learns), range(len(self.members)))

    def _losses_in_turn(self, rows: Tensor, replays: list[_Replay]) -> tuple[Tensor, dict[str, float]]:
        total, found = torch.zeros((), device=self.compute.torch_device), []
        for network, member in self._pairs():
            own = rows[~member.held[rows]]
            if len(own):
                packed = pack(network, member.inputs, own, self._share, replays)
                loss, losses = self._loss(network, member, own, packed)
                total = total + loss
                found.append(losses)
        return total, {name: sum(each[name] for each in found) / len(found) for name in (found[0] if found else ())}

    def _set_training(self, training: bool = True) -> None:
        if self.module_.training != training:  # going through all modules takes as long as a small network
            super()._set_training(training)

    def refuse_gradients(self, network: MultimodalNet, rows: Tensor) -> NoReturn:
        """Say which losses of a member gave gradients that are not finite."""
        member = self.members[self._number(network)]
        own, replays = rows[~member.held[rows]], list[_Replay]()
        packed = pack(network, member.inputs, own, self._share, replays)
        weights = dict(network.named_parameters())
        bad = [name for name, weight in weights.items() if weight.grad is not None and not _is_finite(weight.grad)]
        leaves = [weight for weight in [*weights.values(), *(r.items for r in replays)] if weight.requires_grad]
        terms = [
            name.label
            for name, loss in self._losses(network, member, own, packed).items()
            if not _is_finite(*torch.autograd.grad(loss, leaves, retain_graph=True, allow_unused=True))
        ]
        # Where every loss is well, or dropout was drawn anew, the encoders are left.
        raise self._diverged(f"the gradient of {terms or 'the encoders'}, in {bad[:3]},")

    def _diverged(self, what: str) -> FloatingPointError:
        return FloatingPointError(
            f"training diverged in epoch {len(self.history)}: {what} is not finite. Lower learning_rate (now "
            f"{self.lr}), set gradient_clip, or look for extreme values in X."
        )

    def validation_step(self, batch: Any, **fit_params: Any) -> dict[str, Any]:
        """Losses, of the tasks that select the best epoch, of all held-out rows together."""
        rows = batch[0]
        self.held_out_ = self._held_out(rows)
        losses = {
            LossName(name): self.task_loss(name, self._beside_linear(name, parameters), rows)
            for name, parameters in self.held_out_.items()
            if name in self.deciding
        }
        return self._step(rows, *self._sum(losses))

    def _beside_linear(self, name: str, parameters: Tensor) -> Tensor:
        """The mean of what networks and linear part say, which is not led astray by one that learns too much."""
        return (parameters + self.linear[name]) / 2 if name in self.linear else parameters

    def task_loss(self, name: str, parameters: Tensor, rows: Tensor) -> Tensor:
        """Loss of a task's parameters (n_patients, P) on those of some rows whose outcome is known."""
        known = rows[self.targets.known[name][rows]]
        targets = (field.to(self.device) for field in self.targets.of(name, known.numpy()))
        return self.module_.head(name).loss(parameters[known].to(self.device), *targets)

    def _held_out(self, rows: Tensor) -> dict[str, Tensor]:
        """Parameters (n_patients, P) of every task, by the members that hold a row out; NaN for other rows."""
        self._set_training(False)
        held = [(*pair, own) for pair in self._pairs() if len(own := rows[pair[1].held[rows]])]
        names = list(self.members[0].inputs.data)
        encoded = iter(self._each(self._answer_items, [(*each, name) for each in held for name in names]))
        found: dict[str, Tensor] = {}
        for network, member, own in held:
            with torch.no_grad():
                packed = dict(zip(names, encoded, strict=False))
                tasks = network(packed, member.inputs.present[own].to(self.device)).tasks
            for name, parameters in tasks.items():
                if name not in found:
                    found[name] = torch.full((len(member.held), parameters.shape[1]), torch.nan, dtype=torch.float64)
                found[name][own] = parameters.cpu().double()
        return found

    def _pairs(self) -> Iterator[tuple[MultimodalNet, Member]]:
        return zip(self.module_.networks, self.members, strict=True)

    def _step(self, rows: Tensor, loss: Tensor, losses: dict[str, float]) -> dict[str, Any]:
        """The result of a step for skorch; all ranks take the first rank's losses, since these decide when to stop."""
        ranks = self.compute.ranks
        values = torch.tensor([loss.item(), *losses.values()], dtype=torch.float64, device=ranks.device)
        ranks.broadcast(values)
        return {"loss": values[0], "y_pred": rows, "losses": dict(zip(losses, values[1:].tolist(), strict=True))}

    def score(self, rows: Tensor) -> float:
        """Mean over tasks of their scores on held-out rows, such as ROC AUC; NaN if no task can be scored on them."""
        targets = self.targets.take(rows, torch.device("cpu"))
        scores: list[float] = []
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore", UndefinedMetricWarning)
            for name, task in targets.tasks.items():
                known = targets.known[name].numpy()
                if not known.any():
                    continue
                head = deepcopy(self.module_.head(name)).cpu()
                answers = task.answer(head, self.held_out_[name][rows][targets.known[name]])
                predictions = task.predictions(head, answers, np.empty(0), np.inf)
                scores.append(task.score(targets.outcomes[name][known], predictions))
        return float(np.nanmean(scores)) if np.isfinite(scores).any() else float("nan")

    def _loss(
        self, network: MultimodalNet, member: Member, rows: Tensor, packed: dict[str, tuple[Tensor, ...]]
    ) -> tuple[Tensor, dict[str, float]]:
        return self._sum(self._losses(network, member, rows, packed), [self._number(network)])

    def _losses(
        self, network: MultimodalNet, member: Member, rows: Tensor, packed: dict[str, tuple[Tensor, ...]]
    ) -> dict[LossName, Tensor]:
        targets = self.targets.take(rows, self.device)
        present = member.inputs.present[rows].to(self.device)
        outputs = network(packed, present)
        return network.losses(outputs, targets.fields, targets.known, targets.sample_weight, present)

    def _number(self, network: MultimodalNet) -> int:
        return self.module_.networks.index(network)

    def _sum(self, losses: dict[LossName, Tensor], members: Sequence[int] = ()) -> tuple[Tensor, dict[str, float]]:
        """The weighted sum of losses, which must be finite, and their means over members by their labels."""
        loss, values = self.criterion_(losses, members), torch.stack(list(losses.values())).detach()
        if not torch.isfinite(loss):
            bad = [name.label for name, value in zip(losses, values, strict=True) if not torch.isfinite(value).all()]
            raise self._diverged(f"the loss of {bad}")
        means = values.reshape(len(losses), -1).mean(dim=1).tolist()
        return loss, {name.label: value for name, value in zip(losses, means, strict=True)}


def _is_finite(*gradients: Tensor | None) -> bool:
    return all(gradient is None or bool(torch.isfinite(gradient).all()) for gradient in gradients)


def answering(ensemble: nn.Module, history: History) -> CohortNet:
    """A net that only answers: it keeps nothing of the patients, the optimiser and the callbacks of a training.

    Parameters
    ----------
    ensemble : Ensemble
    history : skorch.history.History
        Of the training.

    Returns
    -------
    CohortNet
    """
    device = next((weight.device for weight in ensemble.parameters()), "cpu")
    # The last digit of a product depends on where in a line of the cache its factors start: copies, such as a saved
    # model, start where torch allocates, and so shall these.
    for tensor in (*ensemble.parameters(), *ensemble.buffers()):
        tensor.data = tensor.data.clone()
    # An optimiser of torch would import torch's compiler, which takes longer than everything else about a loaded model.
    nothing: dict[str, Any] = {"criterion": nn.Identity, "optimizer": nn.Identity, "callbacks": "disable"}
    net = CohortNet(ensemble, train_split=None, device=device, **nothing)
    net.initialize().history_ = history
    return net


class _WeightedSum(nn.Module):
    """Sum of the tasks' losses, each times its weight (1 unless given).

    Where weights are learned, every member of an ensemble has its own; held-out losses are summed as they are.
    """

    def __init__(self, weights: Mapping[str, float], learned: Sequence[nn.Module] = ()):
        super().__init__()
        self.weights = weights
        self.learned = nn.ModuleList(learned)

    def forward(self, losses: Mapping[LossName, Tensor], members: Sequence[int] = ()) -> Tensor:
        """Losses () or (n_members,) of the members named -> their sum over tasks and members."""
        weighted = torch.stack([self.weights.get(name.task, 1.0) * loss for name, loss in losses.items()])
        if not members or not self.learned:
            return weighted.sum()
        tasks = [name.task for name in losses]
        same = [[i for i, other in enumerate(tasks) if other == task] for task in dict.fromkeys(tasks)]
        by_task = torch.stack([weighted[own].sum(dim=0) for own in same]).reshape(len(same), len(members))
        return torch.stack([self.learned[m](own) for m, own in zip(members, by_task.T, strict=True)]).sum()
