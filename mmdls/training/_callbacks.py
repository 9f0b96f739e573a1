"""Callbacks of the training loop: losses of every task, a progress bar, the validation score of every epoch."""

from typing import Any

import numpy as np
import pandas as pd
import torch
from skorch.callbacks import Callback
from tqdm.auto import tqdm

from mmdls.training._epoch_callback import current_epoch_callback
from mmdls.training._net import CohortNet

__all__ = ["history_table"]


class _TaskLosses(Callback):
    """Record the loss of every task in the history."""

    def on_batch_end(self, net, batch=None, training=False, losses=None, **kwargs):
        prefix = "train" if training else "valid"
        for name, value in (losses or {}).items():
            net.history.record_batch(f"{prefix}_{name}", value)

    def on_epoch_end(self, net, **kwargs):
        names = {k for b in net.history[-1]["batches"] for k in b if _is_loss(k)}
        for name in sorted(names - {"train_loss", "valid_loss"}):
            values = [b[name] for b in net.history[-1]["batches"] if name in b]
            net.history.record(name, float(np.mean(values)))


def _is_loss(key: str) -> bool:
    """Whether a key of the history is a loss, whose names end as those of :attr:`mmdls.modules.LossName.label`."""
    return key.startswith(("train_", "valid_")) and key.endswith(("_loss", ")"))


class _ReportScore(Callback):
    """Pass the score of the validation rows to the current epoch callback."""

    def __init__(self, rows: np.ndarray):
        self.rows = rows

    def on_epoch_end(self, net, **kwargs):
        if callback := current_epoch_callback():
            callback(len(net.history), net.score(torch.as_tensor(self.rows)))


class _Progress(Callback):
    """A progress bar over epochs."""

    def on_train_begin(self, net, **kwargs):
        self.bar_ = tqdm(total=net.max_epochs, desc="training", unit="epoch", leave=False)

    def on_epoch_end(self, net, **kwargs):
        row = net.history[-1]
        self.bar_.set_postfix({k: f"{row[k]:.3f}" for k in ("train_loss", "valid_loss") if k in row}, refresh=False)
        self.bar_.update()

    def on_train_end(self, net, **kwargs):
        self.bar_.close()

    def __getstate__(self):
        return {k: v for k, v in self.__dict__.items() if k != "bar_"}


class _Gradients(Callback):
    """Gradients must be finite; limit their norm for each member of an ensemble on its own."""

    def __init__(self, limit: float | None):
        self.limit = limit

    def on_train_begin(self, net, **kwargs):
        self.weights_ = [(member, list(member.parameters())) for member in net.module_.members]

    def on_grad_computed(self, net, batch=None, **kwargs):
        for member, weights in self.weights_:
            found = [weight for weight in weights if weight.grad is not None]
            norm = torch.nn.utils.get_total_norm([weight.grad for weight in found])
            if not torch.isfinite(norm):
                net.refuse_gradients(member, batch[0])
            if self.limit is not None:
                torch.nn.utils.clip_grads_with_norm_(found, self.limit, norm)

    def on_train_end(self, net, **kwargs):
        del self.weights_

    def __getstate__(self):
        return {k: v for k, v in self.__dict__.items() if k != "weights_"}


def _silent(*_: Any) -> None:
    """Discard the messages of skorch's early stopping."""


def history_table(net: "CohortNet") -> pd.DataFrame:
    """Losses of every epoch, one row an epoch."""
    kept = [k for k in net.history[0] if _is_loss(k) or k in ("epoch", "dur", "event_lr", "event_best")]
    table = pd.DataFrame([{k: row.get(k) for k in kept} for row in net.history])
    return table.set_index("epoch")
