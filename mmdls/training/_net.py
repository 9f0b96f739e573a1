"""skorch's loop over the patients of a cohort: a step, its loss, its score."""

import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from sklearn.exceptions import UndefinedMetricWarning
from torch import Tensor, nn

from mmdls.metrics import auc_score, concordance_index
from mmdls.training._compute import Compute
from mmdls.training._inputs import Inputs, Targets
from mmdls.training._loop import TrainingLoop
from mmdls.training._ranks import Ranks, random_state, set_random_state
from mmdls.training._two_pass import pack

__all__ = ["CohortNet"]


class CohortNet(TrainingLoop):
    """skorch's loop over patients' rows, with the cut at the slice embeddings. Owned by the estimators, private."""

    def __init__(
        self,
        *args: Any,
        inputs: Inputs | None = None,
        targets: Targets | None = None,
        compute: Compute | None = None,
        **kwargs: Any,
    ):
        super().__init__(*args, **kwargs)
        self.inputs = inputs
        self.targets = targets
        self.compute = compute

    def forget_cohort(self) -> None:
        """Let go of the patients: a fitted estimator must not carry its training data around."""
        self.inputs = self.targets = None
        self.train_split = None
        self.compute = replace(self.compute, ranks=Ranks())
        self.iterator_train__events = self.iterator_valid__events = None
        self.iterator_train__times = self.iterator_valid__times = None

    def train_step_single(self, batch: Any, **fit_params: Any) -> dict[str, Any]:
        """Exact gradient of the whole batch, image by image (module docstring)."""
        self._set_training(True)
        rows, replays = batch[0], []
        packed = pack(self.module_, self.inputs, rows, self.compute, replays)
        loss, losses = self._loss(rows, packed)
        loss.backward()
        ranks, after = self.compute.ranks, random_state(self.compute.torch_device)
        ranks.keep_first(self.module_)
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
        """What a step leaves to skorch; when to stop is decided by the losses, which all ranks take from the first."""
        ranks = self.compute.ranks
        values = ranks.agree(torch.tensor([loss.item(), *losses.values()], dtype=torch.float64, device=ranks.device))
        return {"loss": values[0], "y_pred": rows, "losses": dict(zip(losses, values[1:].tolist(), strict=True))}

    def score(self, rows: Tensor) -> float:
        """Mean over tasks of ROC AUC and Harrell's C of some rows; NaN where these know too little."""
        self._set_training(False)
        with torch.no_grad():
            outputs = self._outputs(rows, pack(self.module_, self.inputs, rows, self.compute))
        targets, scores = self.targets.take(rows, torch.device("cpu")), []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UndefinedMetricWarning)
            for name, (event, time) in targets.survival.items():
                risk, known = self.module_.survival_heads[name].risk(outputs[name]).cpu(), ~time.isnan()
                scores.append(concordance_index(event[known].numpy(), time[known].numpy(), risk[known].numpy()))
            for name, codes in targets.classes.items():
                chances, known = self.module_.class_heads[name].probabilities(outputs[name]).cpu(), codes >= 0
                scores.append(auc_score(codes[known].numpy(), chances[known].numpy()))
        return float(np.nanmean(scores)) if np.isfinite(scores).any() else float("nan")

    def _outputs(self, rows: Tensor, packed: dict[str, tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
        tables = {name: table[rows].to(self.device) for name, table in self.inputs.tables.items()}
        return self.module_(packed, tables, self.inputs.present[rows].to(self.device))

    def _loss(self, rows: Tensor, packed: dict[str, tuple[Tensor, Tensor]]) -> tuple[Tensor, dict[str, float]]:
        targets = self.targets.take(rows, self.device)
        outputs = self._outputs(rows, packed)
        present = self.inputs.present[rows].to(self.device)
        losses = self.module_.losses(outputs, targets.classes, targets.survival, targets.sample_weight, present)
        loss = self.criterion_(losses)
        if not torch.isfinite(loss):
            bad = [name for name, value in losses.items() if not torch.isfinite(value)]
            raise FloatingPointError(
                f"training diverged in epoch {len(self.history)}: the loss of {bad} is not finite. "
                f"Lower learning_rate (now {self.lr}), set gradient_clip, or look for extreme values in X."
            )
        return loss, {name: value.item() for name, value in losses.items()}


class _WeightedSum(nn.Module):
    """Sum of the tasks' losses, each times its weight (1 unless given)."""

    def __init__(self, weights: Mapping[str, float]):
        super().__init__()
        self.weights = weights

    def forward(self, losses: Mapping[str, Tensor]) -> Tensor:
        return sum(self.weights.get(name.partition("@")[0], 1.0) * loss for name, loss in losses.items())
