"""Where in a patient's slices a network looks: Grad-CAM and integrated gradients."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from mmdls.evaluation._adapters import inner_model
from mmdls.images import is_missing, read_image, read_mask
from mmdls.modules import BagNet
from mmdls.training._two_pass import pack

__all__ = ["ImageExplanation", "explain_image"]

_NAMES = {"grad_cam": "Grad-CAM", "hires_cam": "HiResCAM", "integrated_gradients": "integrated gradients"}
_METHODS = tuple(_NAMES)
_ROWS = 14  # of the map that Grad-CAM reads by default; the published one has as many on photographs
_FAINT = 0.15  # of the largest heat: below it the picture is left as it is
_SATURATED = 0.99  # of the pixels are below the end of a scale with two signs
_AT_A_TIME = 8  # copies of a patient's slices between baseline and image that are held in memory


@dataclass(frozen=True)
class ImageExplanation:
    """Heat of every pixel of a patient's slices.

    Parameters
    ----------
    heat : ndarray of shape (S, H, W)
        Of Grad-CAM 0 or above, in no unit; of integrated gradients the share of each pixel in the difference between
        the answer and that to a blank image, of either sign.
    slices : ndarray of shape (S, H, W)
        As the network reads them.
    task, target, image, method : str
        ``target`` is ``"risk"``, ``"value"``, the class whose log odds are explained, or the cause whose expected
        months lost are.
    patient : default=None
        The id, for the title of the figure.
    mask : ndarray of shape (S, H, W), bool, default=None
        The lesion in the slices, where it is known.

    Examples
    --------
    >>> heat = np.zeros((2, 4, 4))
    >>> heat[1, :2, :2] = [[3.0, 1.0], [0.0, 0.0]]
    >>> explanation = ImageExplanation(heat, np.zeros((2, 4, 4)), "os", "risk", "lesion", "grad_cam")
    >>> lesion = np.zeros((2, 4, 4), dtype=bool)
    >>> lesion[1, 0, 0] = True
    >>> explanation.share_inside(lesion)
    0.75
    """

    heat: np.ndarray
    slices: np.ndarray
    task: str
    target: Any
    image: str
    method: str
    patient: Any = None
    mask: np.ndarray | None = None

    def share_inside(self, mask: Any) -> float:
        """The share of the heat (of its absolute value) within a mask, such as the lesion's; NaN without any heat.

        Parameters
        ----------
        mask : array of shape (S, H, W), bool

        Returns
        -------
        float
        """
        mask, heat = np.asarray(mask, dtype=bool), np.abs(self.heat)
        if mask.shape != heat.shape:
            raise ValueError(
                f"mask must have the shape of the slices that the network reads, {heat.shape}; got {mask.shape}."
            )
        return float(heat[mask].sum() / heat.sum()) if heat.any() else float("nan")

    def plot(self, n_slices: int = 8, mask: Any = None) -> Any:
        """Draw the heat over the slices with most of it, in their order, as a share of the largest heat.

        Heat of either sign is a share of the 99th percentile of its absolute value.

        Parameters
        ----------
        n_slices : int, default=8
            At most so many.
        mask : array of shape (S, H, W), bool, default=None
            Its outline is drawn, such as the lesion's; None draws that of :attr:`mask`, if there is one.

        Returns
        -------
        matplotlib.figure.Figure

        Raises
        ------
        ValueError
            If the mask has another shape.
        """
        try:
            import matplotlib.pyplot as plt
        except ImportError as error:
            raise ImportError('figures need matplotlib: pip install "mmdls[plot]".') from error
        mask = self.mask if mask is None else np.asarray(mask, dtype=bool)
        if mask is not None and mask.shape != self.heat.shape:
            raise ValueError(
                f"mask must have the shape of the slices that the network reads, {self.heat.shape}; got {mask.shape}."
            )
        shown = np.sort(np.argsort(-np.abs(self.heat).sum(axis=(1, 2)), kind="stable")[:n_slices])
        signed = bool(self.heat.min() < 0)
        # Of heat of single pixels a few would hide all others.
        end = float(np.quantile(np.abs(self.heat), _SATURATED)) if signed else 0.0
        share = np.clip(self.heat / (end or np.abs(self.heat).max() or 1.0), -1, 1)
        figure = plt.figure(figsize=(2.2 * len(shown) + 0.8, 2.9), layout="compressed")
        panels = np.ravel(figure.subplots(1, len(shown), squeeze=False))
        for panel, k in zip(panels, shown, strict=True):
            panel.imshow(self.slices[k], cmap="gray", vmin=self.slices.min(), vmax=self.slices.max())
            drawn = panel.imshow(
                share[k],
                cmap="coolwarm" if signed else "inferno",
                vmin=-1.0 if signed else 0.0,
                vmax=1.0,
                alpha=0.75 * np.sqrt(np.clip((np.abs(share[k]) - _FAINT) / (1 - _FAINT), 0, 1)),
            )
            if mask is not None and mask[k].any():
                panel.contour(mask[k], levels=[0.5], colors="cyan", linewidths=1.0)
            panel.set_title(f"slice {k + 1} of {len(self.slices)}", fontsize=8)
            panel.set_axis_off()
        figure.colorbar(
            drawn,
            ax=list(panels),
            label=f"heat, share of {'its 99th percentile' if end else 'the largest'}",
            shrink=0.8,
        )
        figure.suptitle(self._title(len(shown), mask is not None), fontsize=9)
        return figure

    def _title(self, n_shown: int, outlined: bool) -> str:
        """Patient, answer and method, then which slices these are."""
        patient = "" if self.patient is None else f"patient {self.patient}, "
        which = "all slices" if n_shown == len(self.slices) else "the slices with most heat"
        outline = "; outline: mask of the lesion" if outlined else ""
        return (
            f"{patient}{self.task}: {self.target} ({self.image}, {_NAMES.get(self.method, self.method)})\n"
            f"{which}, counted from 1{outline}"
        )


def explain_image(
    model: Any,
    X_row: Any,
    task: str,
    *,
    method: str = "hires_cam",
    image: str | None = None,
    target: Any = None,
    level: int | None = None,
    n_steps: int = 32,
    mask: str | None = None,
) -> ImageExplanation:
    """Where in a patient's slices the answer to a task comes from.

    All methods explain the networks: the risk of an endpoint, the log odds of a class, the months lost to a cause, or a
    value. Of an ensemble the
    heat is the mean of the members'. A map that convinces the eye proves nothing: compare several patients, and a
    model that was trained on permuted outcomes [3]_.

    Parameters
    ----------
    model : MMDLS, MultimodalClassifier or MultimodalSurvival
        Fitted; may be the last step of a pipeline.
    X_row : pandas.DataFrame of shape (1, n_columns)
        One patient, as ``X.loc[["P1"]]``.
    task : str
    method : {"hires_cam", "grad_cam", "integrated_gradients"}, default="hires_cam"
        ``"hires_cam"``: a feature map, weighed by the gradient of each pixel of each channel, where positive [4]_.
        ``"grad_cam"``: weighed by the mean gradient of each channel [1]_, which is the same on the last map. On finer
        ones it may point beside what the network uses.
        ``"integrated_gradients"``: gradients along the way from a blank image, of the mean grey of the training slices;
        they sum to the difference of the two answers [2]_. Needs captum.
    image : str, default=None
        The modality; may be left out if the patient has one image.
    target : class label or int, default=None
        Of a task with classes the class; None means the likeliest one. Of competing risks the cause, which may be left
        out if there is one. Other tasks have none.
    level : int, default=None
        Which map of the backbone the first two methods read, from 0, the finest, to -1, the coarsest; None means the
        coarsest with at least 14 rows, or the finest. A map cannot show what is smaller than its pixels.
    n_steps : int, default=32
        Steps of integrated gradients.
    mask : str, default=None
        The column with the lesion in the pixels of the image, for its outline in the figure. None takes
        ``lesion_mask``, if it has the pixels of the image and the encoder does not crop.

    Returns
    -------
    ImageExplanation

    Raises
    ------
    TypeError
        If the model has no network.
    ValueError, KeyError
        If the patient has no such image, the model no such task, or the task no such target.

    References
    ----------
    .. [1] Selvaraju RR et al. Grad-CAM: visual explanations from deep networks via gradient-based localization. ICCV,
       2017.
    .. [2] Sundararajan M, Taly A, Yan Q. Axiomatic attribution for deep networks. ICML, 2017.
    .. [3] Adebayo J et al. Sanity checks for saliency maps. NeurIPS, 2018.
    .. [4] Draelos RL, Carin L. Use HiResCAM instead of Grad-CAM for faithful explanations of convolutional neural
       networks. arXiv:2011.08891, 2020.

    Examples
    --------
    >>> from mmdls import MMDLS, Trainer
    >>> from mmdls.datasets import make_nsclc_cohort
    >>> X, y = make_nsclc_cohort(40, n_slices=2, image_size=16, return_X_y=True, random_state=0)
    >>> model = MMDLS(trainer=Trainer(max_epochs=1), random_state=0).fit(X, y)
    >>> explain_image(model, X[:1], "os", image="lesion").heat.shape
    (2, 16, 16)
    """
    if method not in _METHODS:
        raise ValueError(f"method must be one of {_METHODS}; got {method!r}.")
    given, (model, X_row) = X_row, inner_model(model, X_row)
    if not hasattr(model, "net_"):
        raise TypeError(f"model must be a fitted multimodal model of mmdls; got {type(model).__name__}.")
    if len(X_row) != 1:
        raise ValueError(f"X_row must be a table of one patient, as X.loc[['P1']]; it has {len(X_row)} rows.")
    if task not in model.tasks_:
        raise KeyError(f"task must be one of {list(model.tasks_)}; got {task!r}.")
    inputs = model._inputs(model._table(X_row, reset=False))
    image = _image(model, inputs, image)
    compute, row = model._trainer.compute(), torch.tensor([0])
    kind = model.tasks_[task]
    target = _target(model, X_row, kind, target)
    data = inputs.data[image]
    index, _ = data.index_of(np.array([0]))
    slices = compute.read(data, index)
    heat = torch.zeros(slices.shape[0], *slices.shape[2:], dtype=torch.float64)
    members = model.net_.module_.networks
    for network in members:
        # A copy: hooks, gradients and devices of the fitted network stay as they are.
        network = copy.deepcopy(network).to(compute.torch_device).eval()
        with torch.no_grad():
            packed = {name: tuple(map(_double, batch)) for name, batch in pack(network, inputs, row, compute).items()}
        present = inputs.present[row].to(compute.torch_device)
        answer = _Answer(network, image, packed, present, task, _reader(kind, network.head(task), target))
        if method == "integrated_gradients":
            explained = _integrated(answer, slices, n_steps)
        else:
            explained = _class_activation(answer, slices, level, pixelwise=method == "hires_cam")
        heat += explained.double().cpu() / len(members)
    # The slices of a volume are an axis of their own.
    shown, seen = (each.reshape(-1, *slices.shape[-2:]).numpy() for each in (heat, slices[:, 0].cpu()))
    lesion = _mask_of(model, given, image, mask, seen.shape)
    return ImageExplanation(shown, seen, task, target, image, method, given.index[0], lesion)


def _image(model: Any, inputs: Any, image: str | None) -> str:
    """The modality to be explained: one of slices, or a volume, that the patient has."""
    network = model.net_.module_.first
    bags = [name for name in inputs.names if isinstance(network.encoders[name], BagNet)]
    images = [name for name in bags if len(inputs.data[name].item_shape) in (3, 4)]
    there = [name for name in images if inputs.present[0, inputs.names.index(name)]]
    if image is None and len(there) == 1:
        return there[0]
    if image is None or image not in there:
        raise ValueError(
            f"image must name a modality of slices that the patient has: {there} (of {images}); got {image!r}."
        )
    return image


def _mask_of(model: Any, X_row: Any, image: str, mask: str | None, shape: tuple[int, ...]) -> np.ndarray | None:
    """The lesion in the slices that the network reads; without being asked for, None where it is not known there."""
    try:
        return _lesion(model, X_row, image, mask or "lesion_mask", shape)
    except (TypeError, ValueError, OSError):
        if mask is not None:
            raise
        return None


def _lesion(model: Any, X_row: Any, image: str, column: str, shape: tuple[int, ...]) -> np.ndarray:
    if column not in X_row.columns or is_missing(X_row[column].iloc[0]):
        raise ValueError(f"mask={column!r} must name a column where the patient has a mask.")
    encoder, columns = next((each, columns) for name, each, columns in model.modalities_ if name == image)
    if getattr(encoder, "scan", None) is None and len(columns) == 1 and columns[0] in X_row.columns:
        cell = X_row[columns[0]].iloc[0]
        place = read_image(cell).shape[:3]
        try:
            found = read_mask(X_row[column].iloc[0], image=cell, allow_empty=True)
        except ValueError as error:
            raise ValueError(
                f"mask={column!r} cannot be outlined by itself. Read it with mmdls.images.read_mask, whose parameters "
                f"the following names, and give it to plot(mask=...). {error}"
            ) from error
        if found.shape == place and len(found) == shape[0] and place[1] * shape[2] == place[2] * shape[1]:
            rows, width = ((2 * np.arange(n) + 1) * of // (2 * n) for n, of in zip(shape[1:], place[1:], strict=True))
            return found[:, rows][:, :, width]
    raise ValueError(
        f"mask={column!r} must have the pixels of the {image!r} image, which must be read whole; give the mask in the "
        "slices that the network reads to plot(mask=...)."
    )


def _target(model: Any, X_row: Any, kind: Any, target: Any) -> Any:
    """The class whose log odds are explained, or what else is."""
    choices, what = list(kind.classes or ()), "classes" if kind.has_classes else "causes"
    if not choices:
        if target is not None:
            raise ValueError(f"{kind.name!r} has neither classes nor causes: leave target out; got {target!r}.")
        return "risk" if kind.is_censored else "value"
    if target is None and kind.has_classes:
        table = model.predict_tasks(X_row)[kind.name]
        return table.columns[int(table.to_numpy().argmax())]
    if target is None and len(choices) == 1:
        return choices[0]
    if target not in choices:
        raise ValueError(f"target must be one of the {what} {choices} of {kind.name!r}; got {target!r}.")
    return target


def _reader(kind: Any, head: Any, target: Any) -> Callable[[Tensor], Tensor]:
    """What is explained, (B,), from the parameters (B, P) of the head of a task."""
    if kind.classes:
        place = list(kind.classes).index(target)
        if kind.has_classes:
            return lambda parameters: torch.logit(kind.answer(head, parameters)[:, place], eps=1e-12)
        return lambda parameters: head.risk(parameters)[:, place]
    if kind.estimator_type == "survival":
        return head.risk
    return lambda parameters: parameters[:, 0]


class _Answer(nn.Module):
    """Copies of a patient's items, as (B, S, C, H, W), to what is explained (B,); all other modalities as they are."""

    def __init__(self, network: Any, image: str, packed: Any, present: Tensor, task: str, read: Any):
        super().__init__()
        self.network, self.image, self.task = network, image, task
        self.packed, self.present, self.read = packed, present, read

    @property
    def encoder(self) -> Any:
        """The encoder of the image."""
        return self.network.encoders[self.image]

    def forward(self, copies: Tensor) -> Tensor:
        n, n_slices = copies.shape[:2]
        packed = {
            name: tuple(tensor.repeat(n, *[1] * (tensor.ndim - 1)) for tensor in batch)
            for name, batch in self.packed.items()
        }
        items = self.encoder.encode(copies.flatten(0, 1)).double()
        packed[self.image] = items, torch.full((n,), n_slices, device=items.device)
        outputs = self.network(packed, self.present.expand(n, -1))
        return self.read(outputs.tasks[self.task])


def _class_activation(answer: _Answer, slices: Tensor, level: int | None, *, pixelwise: bool) -> Tensor:
    """Heat of one network, (S, H, W), or (1, S, H, W) of a volume."""
    maps: list[Tensor] = []
    hook = answer.encoder.backbone.register_forward_hook(lambda module, given, found: maps.extend(found))
    with torch.enable_grad():
        found = answer(slices[None].clone().requires_grad_())
    hook.remove()
    if level is None:
        level = max((k for k, each in enumerate(maps) if min(each.shape[-2:]) >= _ROWS), default=0)
    if not -len(maps) <= level < len(maps):
        raise ValueError(
            f"level must be one of the {len(maps)} maps of the backbone, 0 to {len(maps) - 1}; got {level}."
        )
    (gradient,) = torch.autograd.grad(found.sum(), maps[level])
    weight = gradient if pixelwise else gradient.mean(dim=tuple(range(2, gradient.ndim)), keepdim=True)
    heat = torch.relu((weight * maps[level].detach()).sum(dim=1, keepdim=True))
    mode = "bilinear" if slices.ndim == 4 else "trilinear"
    return functional.interpolate(heat, slices.shape[2:], mode=mode, align_corners=False)[:, 0]


def _integrated(answer: _Answer, slices: Tensor, n_steps: int) -> Tensor:
    """Heat of one network, (S, H, W), or (1, S, H, W) of a volume."""
    try:
        from captum.attr import IntegratedGradients
    except ImportError as error:
        raise ImportError('integrated gradients need captum: pip install "mmdls[explain]".') from error
    blank = torch.full_like(slices[None], float(getattr(answer.encoder, "mean", 0.0)))
    found = IntegratedGradients(answer).attribute(
        slices[None].clone(), baselines=blank, n_steps=n_steps, internal_batch_size=_AT_A_TIME
    )
    return found[0].sum(dim=1).detach()


def _double(tensor: Tensor) -> Tensor:
    return tensor.double().clone() if tensor.is_floating_point() else tensor.clone()
