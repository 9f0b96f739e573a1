"""A network of image modalities and a clinical one, with every kind of dropout and loss, for tests of the training."""

import torch

from mmdls.cohort import check_cohort
from mmdls.training._build import build_network
from mmdls.training._inputs import Inputs
from mmdls.training._targets import Targets


def small_network(X, y, encoders):
    """Network, inputs and targets of a cohort, for encoders of image modalities by name."""
    stores = {name: encoder.open_slices(X[[f"{name}_image"]]) for name, encoder in encoders.items()}
    ages = torch.as_tensor(X[["clinical_age"]].fillna(60).to_numpy() / 60)
    present = [torch.as_tensor(stores[name].present.copy()) for name in encoders]
    present.append(torch.ones(len(X), dtype=torch.bool))
    inputs = Inputs([*encoders, "clinical"], stores, tables={"clinical": ages}, present=torch.stack(present, 1))
    tasks = check_cohort(X, y)
    network = build_network(
        {**encoders, "clinical": None},
        inputs,
        tasks,
        fusion="gated",
        fusion_params=None,
        heads={},
        head_params={},
        hidden_features=16,
        class_embedding=4,
        dropout=0.2,
        modality_dropout=0.2,
        modality_supervision=1.0,
        horizons=(12.0,),
    )
    return network, inputs, Targets.from_table(y, tasks)
