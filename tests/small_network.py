"""A network of image modalities and a clinical one, with every kind of dropout and loss, for tests of the training."""

import numpy as np
import torch

from mmdls.cohort import check_cohort
from mmdls.encoders import TableData
from mmdls.estimators.columns._transformer_encoder import TransformerEncoder
from mmdls.modules import Ensemble
from mmdls.training._batches import _Batches
from mmdls.training._build import build_network
from mmdls.training._inputs import Inputs
from mmdls.training._members import Member
from mmdls.training._net import CohortNet, _WeightedSum
from mmdls.training._targets import Targets


def small_network(X, y, encoders):
    """Network, inputs and targets of a cohort, for encoders of image modalities by name."""
    data = {name: encoder.prepare(X[[f"{name}_image"]]) for name, encoder in encoders.items()}
    data["clinical"] = TableData(X[["clinical_age"]].fillna(60).to_numpy() / 60, np.ones(len(X)))
    data["clinical"].table = data["clinical"].table.double()
    inputs = Inputs.of(data)
    tasks = check_cohort(X, y)
    network = build_network(
        {**encoders, "clinical": TransformerEncoder(None)},
        inputs,
        tasks,
        fusion="gated",
        heads={},
        hidden_features=16,
        class_embedding=4,
        dropout=0.2,
        modality_dropout=0.2,
        unimodal_loss_weight=1.0,
        auxiliary_horizons=(12.0,),
    )
    return network, inputs, Targets.from_table(y, tasks)


def training_net(network, inputs, targets, compute):
    """A net that trains this network alone, holding out nobody."""
    return CohortNet(
        Ensemble([network]),
        criterion=_WeightedSum,
        criterion__weights={},
        members=[Member(inputs, torch.zeros(len(inputs), dtype=torch.bool))],
        targets=targets,
        compute=compute,
        iterator_train=_Batches,
    ).initialize()
