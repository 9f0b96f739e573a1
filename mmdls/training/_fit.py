"""Training a network on rows of a cohort."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from skorch.callbacks import Callback, LRScheduler
from skorch.helper import predefined_split

from mmdls.modules import BagNet, Ensemble
from mmdls.modules.containers import state_key
from mmdls.parts import build
from mmdls.registry import task_weights
from mmdls.training._batches import _Batches, _Rows
from mmdls.training._callbacks import _Gradients, _Progress, _ReportScore, _TaskLosses
from mmdls.training._checkpoint import Checkpoint
from mmdls.training._compute import Compute, channels_last
from mmdls.training._epoch_callback import current_epoch_callback
from mmdls.training._members import Member
from mmdls.training._net import CohortNet, _WeightedSum
from mmdls.training._ranks import is_first_rank
from mmdls.training._selection import Selection
from mmdls.training._targets import Targets
from mmdls.training._trainer import Trainer

__all__ = ["train"]

# Parameters in which processes that train together may differ.
_OWN = ("callbacks", "checkpoint", "compile", "device", "micro_batch_size", "n_jobs", "verbose")
_OPTIMIZERS = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}


def train(
    ensemble: Ensemble,
    members: Sequence[Member],
    targets: Targets,
    rows: np.ndarray,
    deciding: frozenset[str],
    *,
    linear: Mapping[str, torch.Tensor],
    trainer: Trainer,
    learning_rate_factors: Mapping[str, Mapping[str, float]],
    compute: Compute,
) -> "CohortNet":
    """Train the members of an ensemble on rows of a cohort; run it inside :func:`seeded`.

    Parameters
    ----------
    ensemble : Ensemble
    members : sequence of Member
        What each of its networks learns from.
    targets : Targets
    rows : ndarray of int
    deciding : frozenset of str
        The tasks whose losses on held-out rows select the best epoch.
    linear : mapping of str to Tensor of shape (n_patients, P)
        By task, what the linear part says of held-out rows; empty without one.
    trainer : Trainer
    learning_rate_factors : mapping of str to mapping of str to float
        By modality, factors of the learning rate by patterns of the names of its encoder's parameters.

    Returns
    -------
    CohortNet
        The skorch net, with the weights of its best epoch if there are held-out rows.
    """
    held = [np.flatnonzero(member.held.numpy()) for member in members]
    validation_rows = np.sort(np.concatenate(held))
    single = len(members) == 1
    events, times = targets.event_count(), targets.follow_up()
    settings = (
        {name: value for name, value in trainer.get_params().items() if name not in _OWN},
        learning_rate_factors,
    )
    compute.ranks.check(
        rows,
        *held,
        *(fact for data in members[0].inputs.data.values() for fact in data.facts()),
        *(field for fields in targets.fields.values() for field in fields),
        targets.sample_weight,
        settings,
        [(name, tuple(weight.shape)) for name, weight in ensemble.named_parameters()],
    )
    compute.ranks.broadcast_weights(ensemble)
    callbacks: list[Callback | tuple[str, Callback]] = [("task_losses", _TaskLosses())]
    if trainer.schedule == "cosine":
        policy = torch.optim.lr_scheduler.CosineAnnealingLR
        callbacks.append(
            ("schedule", LRScheduler(policy, T_max=trainer.max_epochs, eta_min=trainer.learning_rate * 0.01))
        )
    callbacks.append(("gradients", _Gradients(trainer.gradient_clip)))
    if trainer.verbose and is_first_rank():
        callbacks.append(("progress", _Progress()))
    if len(validation_rows) and current_epoch_callback() and compute.ranks.size == 1:
        callbacks.append(("epoch_callback", _ReportScore(validation_rows)))
    callbacks += trainer.callbacks or ()
    # Last, since it ends the training before the callbacks behind it hear of the epoch.
    if len(validation_rows):
        callbacks.append(("selection", Selection(validation_rows, deciding, trainer.patience)))
    if trainer.checkpoint is not None:
        if compute.ranks.size > 1:
            raise ValueError(
                f"checkpoint keeps the training of one process; {compute.ranks.size} processes train this model "
                "together. Leave it out."
            )
        callbacks.append(("checkpoint", Checkpoint(trainer.checkpoint, [*settings, rows.tolist(), sorted(deciding)])))
    channels_last(ensemble)
    if compute.compile:
        for network in ensemble.networks:
            for encoder in network.encoders.values():
                if isinstance(encoder, BagNet):
                    encoder.backbone.compile()
    choice = trainer.task_weights
    learned = [] if isinstance(choice, dict | None) else [build(task_weights, choice, len(targets.tasks)) for _ in held]
    net = CohortNet(
        ensemble,
        criterion=_WeightedSum,
        criterion__weights=trainer.fixed_weights,
        criterion__learned=learned,
        members=members,
        targets=targets,
        compute=compute,
        deciding=deciding,
        linear=linear,
        optimizer=_OPTIMIZERS[trainer.optimizer],
        optimizer__weight_decay=trainer.weight_decay,
        optimizer__fused=compute.torch_device.type in ("cpu", "cuda"),  # one call for all weights
        optimizer__param_groups=[
            (f"members.*.encoders.{state_key(name)}.{pattern}", {"lr": trainer.learning_rate * factor})
            for name, factors in learning_rate_factors.items()
            for pattern, factor in factors.items()
        ]
        + [(f"learned.{i}.*", {"lr": each.learning_rate, "weight_decay": 0.0}) for i, each in enumerate(learned)],
        lr=trainer.learning_rate,
        max_epochs=trainer.max_epochs,
        iterator_train=_Batches,
        iterator_train__events=events,
        iterator_train__times=times,
        iterator_train__batch_size=trainer.patients_a_step(len(rows)),
        iterator_valid=_Batches,
        iterator_valid__events=events,
        iterator_valid__times=times,
        iterator_valid__batch_size=-1,  # all of them
        train_split=predefined_split(_Rows(validation_rows)) if len(validation_rows) else None,
        callbacks=callbacks,
        callbacks__print_log=None,
        device=compute.torch_device,
        verbose=0,
    )
    # Rows that a single member holds out are in no batch; members divide the others among them.
    net.fit(_Rows(np.setdiff1d(rows, validation_rows) if single else rows), y=None)
    compute.ranks.broadcast_weights(net.module_)
    return net
