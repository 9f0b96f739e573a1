"""The network behind the tables, for serving without this library."""

import json
from copy import deepcopy
from os import PathLike
from typing import Any

import torch
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn
from torch.export import Dim

from mmdls._files import whole_file
from mmdls.encoders import BagData
from mmdls.modules import BagNet, Ensemble

__all__ = ["export", "network_inputs"]

Batch = dict[str, tuple[Tensor, ...]]


class _ServedNetwork(nn.Module):
    """What the modalities of patients say, to the answers of all tasks."""

    def __init__(self, ensemble: Ensemble, tasks: dict[str, Any]):
        super().__init__()
        self.ensemble = ensemble
        self.tasks = tasks

    def forward(self, batch: Batch, present: Tensor) -> dict[str, Tensor]:
        """Modalities as :func:`network_inputs` gives them, and who has which (B, M) -> answers {task: (B, P)}."""
        outputs = []
        for network in self.ensemble.networks:
            embeddings, items = {}, {}
            for name, encoder in network.encoders.items():
                if isinstance(encoder, BagNet):
                    items[name] = _encode(encoder, *batch[name])
                    embeddings[name] = encoder.pooling(*items[name])
                else:
                    embeddings[name] = encoder(*(_double(each) for each in batch[name]))
            reads_items = getattr(network.fusion, "reads_tokens", False)
            shared = network.fusion(embeddings, present, *([items] if reads_items else []))
            outputs.append(network.predict(shared))
        linear = {}
        if self.ensemble.linear is not None:
            here = {name: present[:, i] for i, name in enumerate(self.ensemble.first.names)}
            tables = {name: batch[name][0] for name in self.ensemble.linear.names}
            linear = self.ensemble.linear(self.ensemble.linear.columns(tables, here))
        combined = outputs[0] if len(outputs) == 1 and not linear else self.ensemble.combine(outputs, linear)
        return {name: task.answer(self.ensemble.head(name), combined.tasks[name]) for name, task in self.tasks.items()}


def _encode(encoder: BagNet, items: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """Padded items (B, S, ...), counts (B,) -> their embeddings (B, S, D) and mask (B, S)."""
    embeddings = encoder.encode(items.flatten(0, 1)).double().unflatten(0, items.shape[:2])
    mask = torch.arange(items.shape[1], device=items.device) < counts[:, None]
    return torch.where(mask[:, :, None], embeddings, 0.0), mask


def _double(values: Tensor) -> Tensor:
    return values.double() if values.is_floating_point() else values


def network_inputs(model: Any, X: Any, like: Batch | None = None) -> tuple[Batch, Tensor]:
    """What the network of a model reads of patients: the arguments of an exported network.

    Parameters
    ----------
    model : MMDLS, MultimodalClassifier or MultimodalSurvival
        Fitted.
    X : pandas.DataFrame
        As in ``predict``.
    like : dict of str to tuple of Tensor, default=None
        A batch of other patients. Nobody of X may have a modality; its items then have the size of those.

    Returns
    -------
    batch : dict of str to tuple of Tensor
        By modality. A table: its numbers as the encoder scales them, (B, P), float32, or what is expected of a patient
        who lacks it, given his other tables. Images or vectors: items padded
        by zeros, (B, S, ...), float32, and how many of them each patient has, (B,), int64.
    present : Tensor of shape (B, M), bool
        Which modalities the network reads, in the order of ``batch``.

    Examples
    --------
    >>> from mmdls import MultimodalSurvival, Trainer
    >>> from mmdls.datasets import make_nsclc_cohort
    >>> X, y = make_nsclc_cohort(40, n_slices=2, image_size=8, return_X_y=True, random_state=0)
    >>> model = MultimodalSurvival({"ct": "lesion_image", "clinical": ["clinical_age"]}, endpoint="os", n_members=1,
    ...                            trainer=Trainer(max_epochs=1), random_state=0)
    >>> batch, present = network_inputs(model.fit(X, y), X[:3])
    >>> {name: [tuple(each.shape) for each in tensors] for name, tensors in batch.items()}, tuple(present.shape)
    ({'ct': [(3, 2, 1, 8, 8), (3,)], 'clinical': [(3, 1)]}, (3, 2))
    """
    check_is_fitted(model, "net_")
    inputs = model._inputs(model._table(X, reset=False))
    rows = torch.arange(len(inputs))
    batch: Batch = {}
    for name, data in inputs.data.items():
        taken = data.take(rows.numpy())
        if isinstance(data, BagData):
            items, counts = taken
            if like is not None and not counts.any():
                items = items.new_zeros(0, *like[name][0].shape[2:])
            padded = items.new_zeros(len(rows), max(int(counts.max()), 1), *items.shape[1:])
            padded[torch.arange(padded.shape[1]) < counts[:, None]] = items
            taken = padded, counts
        batch[name] = taken
    return batch, inputs.present


def export(model: Any, path: str | PathLike, X: Any) -> None:
    """Write the network of a model as a program of ``torch.export``, or of ONNX, which runs without this library.

    The program takes what :func:`network_inputs` gives for any number of patients and items, and returns, by task, what
    the model predicts: probabilities of classes in the order of ``classes_``, the log hazard of an endpoint with a Cox
    head, otherwise the parameters of its head. Outputs are those of the model up to 1e-5. Survival functions need the
    baseline hazard, which stays in the model, and a patient without any modality needs its average prediction.

    Parameters
    ----------
    model : MMDLS, MultimodalClassifier or MultimodalSurvival
        Fitted.
    path : str or Path
        A name that ends in ``.onnx`` makes an ONNX program, any other (``.pt2``) one for ``torch.export.load``.
    X : pandas.DataFrame
        A few patients, of whom each modality is known for some, with images of the size that the program is to read.

    Raises
    ------
    TypeError
        If the model has no network.
    ValueError
        If no patient of X has some modality.
    ImportError
        For ONNX without the extra ``speed``.

    Examples
    --------
    >>> import tempfile
    >>> import mmdls, torch
    >>> from mmdls.datasets import make_nsclc_cohort
    >>> X, y = make_nsclc_cohort(40, n_slices=2, image_size=8, return_X_y=True, random_state=0)
    >>> modalities = {"ct": "lesion_image", "clinical": ["clinical_age"]}
    >>> model = mmdls.MMDLS(modalities, n_members=1, trainer=mmdls.Trainer(max_epochs=1), random_state=0).fit(X, y)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     mmdls.export(model, f"{folder}/network.pt2", X[:4])
    ...     program = torch.export.load(f"{folder}/network.pt2").module()
    >>> sorted(program(*mmdls.persistence.network_inputs(model, X)))
    ['dfs', 'os', 'stage', 'subtype']
    """
    if not hasattr(model, "_inputs"):
        raise TypeError(
            f"{type(model).__name__} has no network of several modalities to export; give MMDLS, MultimodalClassifier "
            "or MultimodalSurvival (of a pipeline or search, its last step or best_estimator_), or use mmdls.save."
        )
    batch, present = network_inputs(model, X)
    if lacking := [name for name, here in zip(batch, present.any(dim=0).tolist(), strict=True) if not here]:
        raise ValueError(f"no patient of X has the modalities {lacking}; export needs one to know their shapes.")
    # Sizes 0 and 1 would be taken for constants of the program.
    copies = -(-2 // len(present)) if len(present) < 2 else 1
    batch = {
        name: tuple(_at_least_two(each.repeat(copies, *[1] * (each.ndim - 1))) for each in arguments)
        for name, arguments in batch.items()
    }
    present = present.repeat(copies, 1)
    patients = Dim("patients")
    shapes = {
        name: tuple({0: patients, 1: Dim(f"items_{k}")} if each.ndim > 2 else {0: patients} for each in arguments)
        for k, (name, arguments) in enumerate(batch.items())
    }
    network = _ServedNetwork(deepcopy(model.net_.module_), model.tasks_).cpu().eval().requires_grad_(False)
    with torch.no_grad():
        program = torch.export.export(network, (batch, present), dynamic_shapes=(shapes, {0: patients}), strict=False)
    about = {
        "modalities": {name: [list(each.shape[1:]) for each in arguments] for name, arguments in batch.items()},
        "tasks": {name: [str(label) for label in getattr(task, "classes", ())] for name, task in model.tasks_.items()},
    }
    with whole_file(path) as partial:
        if str(path).endswith(".onnx"):
            partial.write_bytes(_as_onnx(program))
        else:
            torch.export.save(program, partial, extra_files={"mmdls.json": json.dumps(about)})


def _at_least_two(each: Tensor) -> Tensor:
    """Items of one a patient, padded to two."""
    if each.ndim <= 2 or each.shape[1] > 1:
        return each
    return torch.cat([each, torch.zeros_like(each)], dim=1)


def _as_onnx(program: Any) -> bytes:
    try:
        import onnxscript  # noqa: F401  torch.onnx needs it
    except ImportError as error:
        raise ImportError('ONNX needs the extra "speed": pip install "mmdls[speed]".') from error
    written: Any = torch.onnx.export(program, dynamo=True, verbose=False)
    return written.model_proto.SerializeToString()
