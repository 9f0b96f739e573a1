"""skorch's loop over the patients of a cohort: a step, its loss, its score."""

import warnings
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from sklearn.exceptions import UndefinedMetricWarning
from torch import Tensor, nn

from mmdls.modules import LossName, Outputs
from mmdls.training._compute import Compute
from mmdls.training._inputs import Inputs
from mmdls.training._loop import TrainingLoop
from mmdls.training._ranks import Ranks, random_state, set_random_state
from mmdls.training._targets import Targets
from mmdls.training._two_pass import _Replay, pack

__all__ = ["CohortNet"]


class CohortNet(TrainingLoop):
    """skorch's loop over patients' rows, with the cut at the embeddings of items. Owned by the estimators, private."""

    def __init__(
        self,
        *args: Any,
        inputs: Any = None,
        targets: Any = None,
        compute: Any = None,
        validation_losses: frozenset[LossName] | None = None,
        **kwargs: Any,
    ):
        super().__init__(*args, **kwargs)
        # The defaults are None because skorch builds nets without arguments; during training none of these is None.
        self.inputs: Inputs = inputs
        self.targets: Targets = targets
        self.compute: Compute = compute
        self.validation_losses = validation_losses

    def detach_data(self) -> None:
        """Remove the training data, so that a fitted estimator does not keep and pickle it."""
        self.set_params(inputs=None, targets=None)
        self.train_split = None
        self.compute = replace(self.compute, ranks=Ranks())
        self.iterator_train__events = self.iterator_valid__events = None
        self.iterator_train__times = self.iterator_valid__times = None

    def train_step_single(self, batch: Any, **fit_params: Any) -> dict[str, Any]:
        """Exact gradient of the whole batch, one micro-batch of items at a time; see :mod:`._two_pass`."""
        self._set_training(True)
        rows = batch[0]
        replays: list[_Replay] = []
        packed = pack(self.module_, self.inputs, rows, self.compute, replays)
        loss, losses = self._loss(rows, packed)
        loss.backward()
        ranks, after = self.compute.ranks, random_state(self.compute.torch_device)
        ranks.drop_shared_gradients(self.module_)
        for replay in replays:
            replay.backward(self.compute)
        ranks.sum_gradients(self.module_)
        set_random_state(after, self.compute.torch_device)
        return self._step(rows, loss, losses)

    def validation_step(self, batch: Any, **fit_params: Any) -> dict[str, Any]:
        """Loss of the validation rows as one batch."""
        self._set_training(False)
        with torch.no_grad():
            packed = pack(self.module_, self.inputs, batch[0], self.compute)
            loss, losses = self._loss(batch[0], packed)
        return self._step(batch[0], loss, losses)

    def _step(self, rows: Tensor, loss: Tensor, losses: dict[str, float]) -> dict[str, Any]:
        """The result of a step for skorch; all ranks take the first rank's losses, since these decide when to stop."""
        ranks = self.compute.ranks
        values = torch.tensor([loss.item(), *losses.values()], dtype=torch.float64, device=ranks.device)
        ranks.broadcast(values)
        return {"loss": values[0], "y_pred": rows, "losses": dict(zip(losses, values[1:].tolist(), strict=True))}

    def score(self, rows: Tensor) -> float:
        """Mean over tasks of their scores on some rows, such as ROC AUC; NaN if no task can be scored on them."""
        self._set_training(False)
        targets = self.targets.take(rows, torch.device("cpu"))
        scores: list[float] = []
        with torch.no_grad(), warnings.catch_warnings():
            outputs = self._outputs(rows, pack(self.module_, self.inputs, rows, self.compute))
            warnings.simplefilter("ignore", UndefinedMetricWarning)
            for name, task in targets.tasks.items():
                known = targets.known[name].numpy()
                if not known.any():
                    continue
                head = deepcopy(self.module_.head(name)).cpu()
                answers = task.answer(head, outputs.tasks[name].cpu()[targets.known[name]])
                predictions = task.predictions(head, answers, np.empty(0), np.inf)
                scores.append(task.score(targets.outcomes[name][known], predictions))
        return float(np.nanmean(scores)) if np.isfinite(scores).any() else float("nan")

    def _outputs(self, rows: Tensor, packed: dict[str, tuple[Tensor, ...]]) -> Outputs:
        return self.module_(packed, self.inputs.present[rows].to(self.device))

    def _loss(self, rows: Tensor, packed: dict[str, tuple[Tensor, ...]]) -> tuple[Tensor, dict[str, float]]:
        targets = self.targets.take(rows, self.device)
        outputs = self._outputs(rows, packed)
        present = self.inputs.present[rows].to(self.device)
        losses = self.module_.losses(outputs, targets.fields, targets.known, targets.sample_weight, present)
        if not self.module_.training and self.validation_losses is not None:
            losses = {name: value for name, value in losses.items() if name in self.validation_losses}
        loss = self.criterion_(losses)
        if not torch.isfinite(loss):
            bad = [name.label for name, value in losses.items() if not torch.isfinite(value)]
            raise FloatingPointError(
                f"training diverged in epoch {len(self.history)}: the loss of {bad} is not finite. "
                f"Lower learning_rate (now {self.lr}), set gradient_clip, or look for extreme values in X."
            )
        return loss, {name.label: value.item() for name, value in losses.items()}


class _WeightedSum(nn.Module):
    """Sum of the tasks' losses, each times its weight (1 unless given)."""

    def __init__(self, weights: Mapping[str, float]):
        super().__init__()
        self.weights = weights

    def forward(self, losses: Mapping[LossName, Tensor]) -> Tensor:
        return torch.stack([self.weights.get(name.task, 1.0) * loss for name, loss in losses.items()]).sum()
