"""Several networks of one architecture that answer together, beside a linear part that reads tables directly."""

from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from mmdls.modules.containers import NamedModules
from mmdls.modules.multimodal import AttentionWeights, MultimodalNet, Outputs

__all__ = ["Combination", "Ensemble", "LinearPart", "LinearPredictor"]


class LinearPredictor(nn.Module):
    """The linear predictor of one task for each member.

    Parameters
    ----------
    coefficients : Tensor of shape (n_members, n_columns, P)
    intercept : Tensor of shape (n_members, P)

    Examples
    --------
    >>> import torch
    >>> predictor = LinearPredictor(torch.tensor([[[2.0], [-1.0]]]), torch.tensor([[0.5]]))
    >>> predictor(torch.tensor([[1.0, 3.0]], dtype=torch.float64)).tolist()
    [[[-0.5]]]
    """

    coefficients: Tensor
    intercept: Tensor

    def __init__(self, coefficients: Tensor, intercept: Tensor):
        super().__init__()
        self.register_buffer("coefficients", coefficients.double())
        self.register_buffer("intercept", intercept.double())

    def forward(self, columns: Tensor) -> Tensor:
        """Standardised columns (B, n_columns) -> parameters of the task (B, n_members, P)."""
        return torch.einsum("bc,mcp->bmp", columns, self.coefficients) + self.intercept


class Combination(nn.Module):
    """Weighted sum of what the networks and the linear part say of one task.

    Parameters
    ----------
    weights : sequence of float, default=(1.0,)
        Of the networks and, if there is one, of the linear part; not negative.
    shift : Tensor of shape (P,), default=None
        Added to the sum; zero by default.

    Examples
    --------
    >>> import torch
    >>> combination = Combination([0.25, 0.75])
    >>> combination(torch.tensor([[2.0]]), torch.tensor([[4.0]])).item()
    3.5
    """

    weights: Tensor
    shift: Tensor

    def __init__(self, weights: Sequence[float] = (1.0,), shift: Tensor | None = None):
        super().__init__()
        self.register_buffer("weights", torch.tensor(weights, dtype=torch.float64))
        self.register_buffer("shift", torch.zeros(1, dtype=torch.float64) if shift is None else shift.double())

    def forward(self, networks: Tensor, linear: Tensor | None = None) -> Tensor:
        """Parameters (..., P) by networks and by the linear part -> parameters (..., P)."""
        parts = [networks] if linear is None else [networks, linear]
        return sum((w * part for w, part in zip(self.weights, parts, strict=True)), self.shift)


class LinearPart(nn.Module):
    """Ridge regression of every task on the columns of all tables; a table that was not completed counts as its mean.

    Parameters
    ----------
    center, scale : mapping of str to Tensor of shape (n_columns of the table,)
        By modality.
    predictors : mapping of str to LinearPredictor
        By task.

    Examples
    --------
    >>> import torch
    >>> predictor = LinearPredictor(torch.tensor([[[2.0]]]), torch.tensor([[0.0]]))
    >>> linear = LinearPart({"clinical": torch.tensor([60.0])}, {"clinical": torch.tensor([10.0])}, {"os": predictor})
    >>> age, known = torch.tensor([[70.0], [50.0]]), torch.tensor([True, False])
    >>> columns = linear.columns({"clinical": age}, {"clinical": known})
    >>> columns.tolist(), linear(columns)["os"].flatten().tolist()
    ([[1.0], [0.0]], [2.0, 0.0])
    """

    def __init__(
        self,
        center: Mapping[str, Tensor],
        scale: Mapping[str, Tensor],
        predictors: Mapping[str, LinearPredictor],
    ):
        super().__init__()
        self.names = tuple(center)
        self.predictors = NamedModules(predictors)
        width = [torch.zeros(0, dtype=torch.float64)]
        self.center: Tensor
        self.scale: Tensor
        self.register_buffer("center", torch.cat([*width, *(values.double() for values in center.values())]))
        self.register_buffer("scale", torch.cat([*width, *(values.double() for values in scale.values())]))

    def columns(self, tables: Mapping[str, Tensor], present: Mapping[str, Tensor]) -> Tensor:
        """Tables {name: (B, P)} and who has them {name: (B,)} -> standardised columns (B, n_columns)."""
        if not self.names:
            n = len(next(iter(present.values())))
            return self.center.new_zeros(n, 0)
        values = torch.cat([tables[name].double() for name in self.names], dim=1)
        here = torch.cat([present[name][:, None].expand_as(tables[name]) for name in self.names], dim=1)
        return torch.where(here, (values - self.center) / self.scale, 0.0)

    def forward(self, columns: Tensor) -> dict[str, Tensor]:
        """Standardised columns (B, n_columns) -> parameters (B, n_members, P) of every task."""
        return {name: predictor(columns) for name, predictor in self.predictors.items()}


class Ensemble(nn.Module):
    """Networks of one architecture and a linear part, whose parameters of every task are added up and averaged.

    The parameters of a task are log hazards, logits or standardised values.

    Parameters
    ----------
    members : sequence of MultimodalNet
    linear : LinearPart, default=None
        None for networks that stand alone.
    combinations : mapping of str to Combination, default=None
        By task; a task without one is answered by the networks alone.

    References
    ----------
    .. [1] Lakshminarayanan B, Pritzel A, Blundell C. Simple and scalable predictive uncertainty estimation using deep
       ensembles. NeurIPS, 2017.
    .. [2] Breiman L. Stacked regressions. Machine learning, 1996.

    Examples
    --------
    >>> import torch
    >>> from mmdls.modules import AdditiveFusion, CoxHead, TabularNet
    >>> def member():
    ...     fusion = AdditiveFusion({"clinical": 5}, out_features=8)
    ...     return MultimodalNet({"clinical": TabularNet(5)}, fusion, {}, {"os": CoxHead(128)}, {})
    >>> ensemble = Ensemble([member(), member()]).eval()
    >>> batch, present = {"clinical": (torch.zeros(3, 5),)}, torch.ones(3, 1, dtype=torch.bool)
    >>> said = ensemble.combine([each(batch, present) for each in ensemble.members], {})
    >>> said.tasks["os"].shape, said.members["os"].shape
    (torch.Size([3, 1]), torch.Size([3, 2, 1]))
    """

    def __init__(
        self,
        members: Sequence[MultimodalNet],
        linear: LinearPart | None = None,
        combinations: Mapping[str, Combination] | None = None,
    ):
        super().__init__()
        self.members = nn.ModuleList(members)
        self.linear = linear
        self.combinations = NamedModules(combinations or {})

    @property
    def networks(self) -> list[MultimodalNet]:
        """The members."""
        return cast("list[MultimodalNet]", list(self.members))

    @property
    def first(self) -> MultimodalNet:
        """The first member."""
        return self.networks[0]

    def head(self, task: str) -> nn.Module:
        """The head of a task of the first member; baselines and time grids are those of this one."""
        return self.first.head(task)

    def weights(self, task: str) -> list[float]:
        """The weights of networks and of the linear part in the answer to a task."""
        weights = self.combinations[task].weights.tolist() if task in self.combinations else [1.0]
        return [*weights, 0.0][:2]

    def combine(self, outputs: Sequence[Outputs], linear: Mapping[str, Tensor]) -> Outputs:
        """Outputs of every member, and of the linear part (B, n_members, P) -> outputs of the ensemble.

        Shared representations stand beside each other; weights of attention are averaged.
        """
        tasks, members = {}, {}
        for name in outputs[0].tasks:
            stacked = torch.stack([each.tasks[name] for each in outputs], dim=1)
            if name in self.combinations:
                stacked = self.combinations[name](stacked, linear.get(name))
            tasks[name], members[name] = stacked.mean(dim=1), stacked
        weights = [each.attention.modalities for each in outputs if each.attention.modalities is not None]
        attention = AttentionWeights(
            _mean(weights) if weights else None,
            {name: _mean([each.attention.items[name] for each in outputs]) for name in outputs[0].attention.items},
        )
        shared = torch.cat([each.shared for each in outputs], dim=1)
        return Outputs(shared, tasks, attention=attention, unknown=outputs[0].unknown, members=members)


def _mean(values: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(values)).mean(dim=0)
