"""From hyperparameters to a network, and from a cohort to a trained one."""

from collections.abc import Collection, Iterable, Mapping
from copy import deepcopy
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import torch

from mmdls.cohort import Task
from mmdls.encoders import BagData, Encoder
from mmdls.modules import BagNet, Combination, Ensemble, MultimodalNet
from mmdls.parts import build, require
from mmdls.registry import fusions
from mmdls.training._combining import combination_of
from mmdls.training._compute import seeded
from mmdls.training._fit import train
from mmdls.training._holdout import hold_out
from mmdls.training._inference import forward_cohort, ready_to_predict
from mmdls.training._inputs import Inputs
from mmdls.training._members import Member, fit_linear_part
from mmdls.training._net import CohortNet, answering
from mmdls.training._ranks import Ranks
from mmdls.training._targets import Targets
from mmdls.training._threads import one_thread
from mmdls.training._trainer import Trainer

__all__ = ["build_network", "fit_network"]


def build_network(
    encoders: Mapping[str, Encoder],
    inputs: Inputs,
    tasks: Mapping[str, Task],
    *,
    fusion: Any,
    heads: Mapping[str, Any],
    hidden_features: int,
    class_embedding: int,
    dropout: float,
    modality_dropout: float,
    unimodal_loss_weight: float,
    auxiliary_horizons: tuple[float, ...],
) -> MultimodalNet:
    """Assemble the network for a cohort's modalities and tasks; weights are drawn from torch's current state.

    Parameters
    ----------
    encoders : mapping of str to estimator
    inputs : Inputs
    tasks : mapping of str to Task
    fusion : str, class or Part
    heads : mapping of str to str, class or Part
        By the name of a task or of its kind; the default of the kind where there is none.
    hidden_features, class_embedding, dropout, modality_dropout, unimodal_loss_weight, auxiliary_horizons
        As in :class:`mmdls.estimators.MMDLS`.

    Returns
    -------
    MultimodalNet
    """
    networks: dict[str, Any] = {name: encoder.build(inputs.data[name]) for name, encoder in encoders.items()}
    for name, network in networks.items():
        if isinstance(network, BagNet) and not isinstance(inputs.data[name], BagData):
            raise TypeError(
                f"the encoder of {name!r} builds a BagNet, which reads BagData; its prepare gave "
                f"{type(inputs.data[name]).__name__}."
            )
        require(network, f"the network that the encoder of {name!r} builds", ["out_features"])
    widths = {name: network.out_features for name, network in networks.items()}
    fused = build(fusions, fusion, widths, out_features=hidden_features)

    def chosen(task: Task) -> Any:
        return heads.get(task.name, heads.get(task.kind, task.default_head))

    def heads_of(those: Iterable[Task], width: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for task in those:
            if task.name in found:
                continue
            head = build(task.heads or {}, chosen(task), width, *task.head_arguments())
            if hasattr(head, "views"):
                same = [t.name for t in tasks.values() if t.kind == task.kind and chosen(t) == chosen(task)]
                found |= head.views(same)
            else:
                found[task.name] = head
        return found

    shared = [task for task in tasks.values() if not task.is_conditioned]
    conditioned = [task for task in tasks.values() if task.is_conditioned]
    supervised = list(networks) if unimodal_loss_weight > 0 and len(networks) > 1 else []
    return MultimodalNet(
        networks,
        fused,
        heads_of(shared, fused.out_features),
        heads_of(conditioned, hidden_features),
        {task.name: len(task.classes) for task in shared if task.has_classes},
        hidden_features=hidden_features,
        class_embedding=class_embedding,
        dropout=dropout,
        modality_dropout=modality_dropout,
        unimodal_heads={name: heads_of(tasks.values(), widths[name]) for name in supervised},
        unimodal_loss_weight=unimodal_loss_weight,
        horizons={
            task.name: auxiliary_horizons for task in tasks.values() if task.has_horizons and len(auxiliary_horizons)
        },
    )


def fit_network(
    encoders: Mapping[str, Encoder],
    inputs: Inputs,
    y: pd.DataFrame,
    tasks: Mapping[str, Task],
    *,
    architecture: Mapping[str, Any],
    trainer: Trainer,
    seed: int,
    n_members: int = 1,
    sample_weight: Any = None,
) -> tuple[CohortNet, dict[str, torch.Tensor]]:
    """Build and train an ensemble of networks on the patients who have a modality and an outcome.

    Returns
    -------
    net : CohortNet
        Its ``module_`` is the trained :class:`mmdls.modules.Ensemble`.
    parameters : dict of str to Tensor of shape (n_patients, P)
        By task. Of several members those that they predict for the patients they hold out, NaN for patients of whom
        nothing could be learned; otherwise those of the trained network.
    """
    targets = Targets.from_table(y, tasks, sample_weight)
    useful = inputs.present.any(dim=1).numpy() & targets.any_known()
    if targets.sample_weight is not None:
        useful &= targets.sample_weight.numpy() > 0
    rows = np.flatnonzero(useful)
    if len(rows) < 2:
        raise ValueError(
            f"only {len(rows)} of {len(y)} patients have a modality, a known outcome and a weight above 0; "
            f"n_samples = {len(rows)} is too few, at least 2 are needed."
        )
    compute = trainer.compute()  # with all threads
    with seeded(seed), one_thread():
        compute = replace(compute, ranks=Ranks.join(compute.torch_device, seed))
        seed = compute.ranks.seed
        held, deciding = hold_out(
            y,
            targets,
            rows,
            trainer.validation_fraction,
            n_members=n_members,
            task_weights=trainer.fixed_weights,
            seed=seed,
        )
        networks: list[MultimodalNet] = []
        members: list[Member] = []
        for own in held:
            network = build_network(encoders, inputs, tasks, **architecture)
            frozen = {}
            for name, encoder in encoders.items():
                if members and name in members[0].inputs.frozen:
                    # A backbone that does not train is the same in all members, so that no item is encoded twice.
                    network.encoders[name].backbone.load_state_dict(networks[0].encoders[name].backbone.state_dict())
                learned = np.setdiff1d(rows, own)
                items = encoder.initialize(network.encoders[name], inputs.data[name], learned, compute)
                if items is not None:
                    frozen[name] = items
            for name in tasks:
                outcome = targets.of(name, targets.learnable_rows(name, rows))
                for head in [network.head(name), *(own[name] for own in network.unimodal_heads.values())]:
                    head.prepare(*outcome)
            networks.append(network)
            held_by_it = torch.as_tensor(np.isin(np.arange(len(y)), own))
            members.append(Member(replace(inputs, frozen=frozen), held_by_it))
        linear = None
        by_linear: dict[str, torch.Tensor] = {}
        if any(data.linear is not None for data in inputs.data.values()):
            linear, by_linear = fit_linear_part(inputs, targets, networks[0], y, rows, held, seed)
        net = train(
            Ensemble(networks, linear),
            members,
            targets,
            rows,
            deciding,
            linear=by_linear,
            learning_rate_factors={name: encoder.learning_rate_factors() for name, encoder in encoders.items()},
            compute=compute,
            trainer=trainer,
        )
        if linear is not None or n_members > 1:
            asked = n_members > 1 and trainer.validation_fraction > 0
            _combine(net, rows, by_linear, tasks.keys() - deciding if asked else ())
        for network in networks:
            ready_to_predict(network)
        if n_members > 1 and any(map(len, held)):
            parameters = net.held_out_
        else:
            # A single member holds out too few patients to fit a baseline on them.
            parameters = forward_cohort(net.module_, [member.inputs for member in members], compute).tasks
        return answering(net.module_, net.history), parameters


def _combine(net: CohortNet, rows: np.ndarray, by_linear: Mapping[str, torch.Tensor], untold: Collection[str]) -> None:
    """Weigh networks and linear part of every task; held-out parameters become those of the weighted sum.

    Of the tasks ``untold`` too few events were held out to tell whether the networks learned anything.
    """
    for name in net.targets.tasks:
        networks, linear = net.held_out_.get(name), by_linear.get(name)
        if hasattr(net.module_.head(name), "views"):
            combination = Combination()  # weights of its own would part an endpoint from the other
        elif name in untold and linear is not None:
            combination = Combination([0.0, 1.0])
        elif networks is None:
            combination = Combination() if linear is None else Combination([0.5, 0.5])
        else:
            combination = _best_combination(net, name, rows, networks, linear)
        net.module_.combinations[name] = combination
        if networks is not None:
            net.held_out_[name] = combination(networks, linear)


def _best_combination(
    net: CohortNet, name: str, rows: np.ndarray, networks: torch.Tensor, linear: torch.Tensor | None
) -> Combination:
    task = net.targets.tasks[name]
    known = rows[net.targets.known[name].numpy()[rows] & networks[rows].isfinite().all(dim=1).numpy()]
    outcome, targets = net.targets.outcomes[name][known], net.targets.of(name, known)
    head = deepcopy(net.module_.head(name)).cpu()
    return combination_of(
        lambda parameters: head.loss(parameters, *targets),
        networks[torch.as_tensor(known)],
        None if linear is None else linear[torch.as_tensor(known)],
        max(task.is_event(outcome).sum() if task.is_censored else len(known), 1),
    )
