"""Training of segmentation networks: labelled slices, batches with augmentation, and skorch's loop over them."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from skorch.callbacks import Callback, EarlyStopping, GradientNormClipping, LRScheduler
from skorch.helper import predefined_split
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import TensorDataset

from mmdls.modules import SegmentationLoss
from mmdls.training._callbacks import _Progress, _silent
from mmdls.training._compute import Compute, channels_last
from mmdls.training._loop import TrainingLoop

__all__ = ["Augmentation", "LabelledSlices", "resize", "train_masks", "with_context_slices"]


@dataclass
class LabelledSlices:
    """Slices of all patients with what is known of their masks; patients follow one another.

    Parameters
    ----------
    images : Tensor of shape (N, H, W), uint8
        The window of intensities, 0 to 255.
    masks : Tensor of shape (N, K, H, W), uint8
        Fraction of each pixel inside each of K structures, scaled to 0 to 255.
    known : Tensor of shape (N, K), bool
        Masks that are known.
    patients : Tensor of shape (N,), int64
        The patient's number of each slice, in ascending order.
    """

    images: Tensor
    masks: Tensor
    known: Tensor
    patients: Tensor

    def take(self, rows: Tensor, context_slices: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Some slices as images (n, 2 * context_slices + 1, H, W), masks (n, K, H, W), known (n, K), patients (n,)."""
        images = with_context_slices(self.images, self.patients, rows, context_slices)
        taken = (_as_floats(images.to(device)), _as_floats(self.masks[rows].to(device)), self.known[rows].to(device))
        return *taken, self.patients[rows].to(device)


def with_context_slices(images: Tensor, patients: Tensor, rows: Tensor, context_slices: int) -> Tensor:
    """Slices with the slices before and after them as channels; at both ends the last slice is repeated."""
    first = torch.searchsorted(patients, patients[rows])
    last = torch.searchsorted(patients, patients[rows], right=True) - 1
    steps = torch.arange(-context_slices, context_slices + 1)
    return images[(rows[:, None] + steps).clamp(first[:, None], last[:, None])]


def resize(slices: Tensor, size: tuple[int, int]) -> Tensor:
    """Slices (N, H, W), uint8, at another size, with antialiasing."""
    if slices.shape[-2:] == size:
        return slices
    floats = functional.interpolate(slices[:, None].float(), size, mode="bilinear", antialias=True)
    return floats[:, 0].round().clamp(0, 255).to(torch.uint8)


def _as_floats(greys: Tensor) -> Tensor:
    return greys.float().div_(255)


@dataclass(frozen=True)
class Augmentation:
    """Random flips, rotations, zooms and shifts of image and mask; contrast, brightness and noise of the image.

    Parameters
    ----------
    flip : float, default=0.5
        Probability that left and right are exchanged.
    rotation : float, default=15.0
        Largest angle in degrees.
    zoom : float, default=0.15
        Largest change of size, as a fraction.
    shift : float, default=0.1
        Largest shift, as a fraction of the image.
    contrast, brightness, noise : float, default=0.15, 0.05 and 0.02
        Largest change of contrast and brightness, and standard deviation of the noise, as fractions of the window.
    """

    flip: float = 0.5
    rotation: float = 15.0
    zoom: float = 0.15
    shift: float = 0.1
    contrast: float = 0.15
    brightness: float = 0.05
    noise: float = 0.02

    def __call__(self, images: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        """Images (n, C, H, W) and masks (n, K, H, W), each slice with draws of its own."""
        n, device = len(images), images.device

        def uniform(width: float, *shape: int) -> Tensor:
            return ((torch.rand(n, *shape) * 2 - 1) * width).to(device)

        angle, scale = torch.deg2rad(uniform(self.rotation)), 1 + uniform(self.zoom)
        mirror = torch.where(torch.rand(n) < self.flip, -1.0, 1.0).to(device)
        height, width = images.shape[-2:]
        # The grid runs from -1 to 1 along both edges: without their ratio, rotation would shear an oblong image.
        rows = torch.stack([angle.cos() * mirror, -angle.sin() * height / width, uniform(2 * self.shift)], dim=1)
        columns = torch.stack([angle.sin() * mirror * width / height, angle.cos(), uniform(2 * self.shift)], dim=1)
        turn = torch.stack([rows, columns], dim=1) * scale[:, None, None]
        grid = functional.affine_grid(turn, [n, 1, height, width], align_corners=False)
        images = functional.grid_sample(images, grid, padding_mode="border", align_corners=False)
        masks = functional.grid_sample(masks, grid, padding_mode="border", align_corners=False)
        images = images * (1 + uniform(self.contrast, 1, 1, 1)) + uniform(self.brightness, 1, 1, 1)
        return images + self.noise * torch.randn(images.shape).to(device), masks


class _Batches:
    """Batches of slices: in their order, or drawn anew each epoch with more slices that show the rarest structure."""

    def __init__(
        self,
        dataset: TensorDataset,
        slices: LabelledSlices,
        batch_size: int,
        context_slices: int,
        device: torch.device,
        shuffle: bool = False,
        foreground_fraction: float = 0.0,
        patch_size: tuple[int, int] | None = None,
        augmentation: Augmentation | None = None,
    ):
        self.rows = dataset.tensors[0]
        self.slices = slices
        self.batch_size = batch_size
        self.context_slices = context_slices
        self.device = device
        self.shuffle = shuffle
        self.foreground_fraction = foreground_fraction
        self.patch_size = patch_size
        self.augmentation = augmentation
        # The rarest structure that is visible in any slice: the lesion if lesion masks are known, else the lung.
        shown = (slices.masks[self.rows] > 127).flatten(2).any(dim=2) & slices.known[self.rows]
        counts = shown.sum(dim=0)
        rare = int(torch.where(counts > 0, counts, len(self.rows) + 1).argmin())
        self.foreground = self.rows[shown[:, rare]]

    def __len__(self) -> int:
        return -(-len(self.rows) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[tuple[Tensor, Tensor, Tensor, Tensor], Tensor]]:
        rows = self.rows
        if self.shuffle:
            rows = rows[torch.randperm(len(rows))]
            if len(self.foreground):
                swapped = torch.rand(len(rows)) < self.foreground_fraction
                rows[swapped] = self.foreground[torch.randint(len(self.foreground), (int(swapped.sum()),))]
        for batch in rows.split(self.batch_size):
            images, masks, known, patients = self.slices.take(batch, self.context_slices, self.device)
            if self.augmentation is not None:
                images, masks = self.augmentation(images, masks)
            if self.patch_size is not None:
                images, masks = _patches(images, masks, self.patch_size)
            yield (images, masks, known, patients), patients


def _patches(images: Tensor, masks: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """One random window of each slice, half of them around a pixel of the rarest structure in it."""
    cut = []
    for image, mask in zip(images, masks, strict=True):
        inside = mask > 0.5
        areas = inside.flatten(1).sum(dim=1)
        corner = [int(torch.randint(full - part + 1, ())) for full, part in zip(image.shape[1:], size, strict=True)]
        if areas.any() and torch.rand(()) < 0.5:
            rare = int(torch.where(areas > 0, areas, mask[0].numel() + 1).argmin())
            pixels = inside[rare].nonzero()
            centre = pixels[int(torch.randint(len(pixels), ()))].tolist()
            corner = [
                min(max(at - part // 2, 0), full - part)
                for at, part, full in zip(centre, size, image.shape[1:], strict=True)
            ]
        window = (..., slice(corner[0], corner[0] + size[0]), slice(corner[1], corner[1] + size[1]))
        cut.append((image[window], mask[window]))
    return torch.stack([image for image, _ in cut]), torch.stack([mask for _, mask in cut])


class _MaskNet(TrainingLoop):
    """skorch's loop over batches of labelled slices. Owned, private."""

    def __init__(self, *args: Any, compute: Any = None, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.compute: Compute = compute

    def train_step_single(self, batch: Any, **fit_params: Any) -> dict[str, Any]:
        self._set_training(True)
        loss, _ = self._loss(batch[0])
        loss.backward()
        return {"loss": loss.detach(), "y_pred": batch[1]}

    def validation_step(self, batch: Any, **fit_params: Any) -> dict[str, Any]:
        self._set_training(False)
        with torch.no_grad():
            loss, logits = self._loss(batch[0])
        _, masks, known, patients = batch[0]
        found, true = logits > 0, masks > 0.5
        sums = torch.stack([(found & true).sum(dim=(2, 3)), found.sum(dim=(2, 3)) + true.sum(dim=(2, 3))], dim=-1)
        return {"loss": loss, "y_pred": patients, "sums": (patients.cpu(), sums.cpu(), known.cpu())}

    def _loss(self, batch: tuple[Tensor, Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        images, masks, known, _ = batch
        images = images.contiguous(memory_format=torch.channels_last)
        with self.compute.autocast():
            if hasattr(self.module_, "pyramid"):
                levels = self.module_.pyramid(images)
            else:
                levels = [torch.cat(list(self.module_(images).values()), dim=1)]
        height, width = masks.shape[-2:]
        down, right = levels[0].shape[-2] - height, levels[0].shape[-1] - width
        loss = self.criterion_(levels, functional.pad(masks, (0, right, 0, down), mode="replicate"), known)
        if not torch.isfinite(loss):
            raise FloatingPointError(
                f"training diverged in epoch {len(self.history)}: the loss is not finite. Lower learning_rate (now "
                f"{self.lr})."
            )
        return loss, levels[0][..., :height, :width]


class _ValidationDice(Callback):
    """Mean Dice over the validation patients' volumes and their known structures, in the history."""

    def on_epoch_begin(self, net, **kwargs):
        self.seen_ = []

    def on_batch_end(self, net, batch=None, training=False, sums=None, **kwargs):
        if sums is not None:
            self.seen_.append(sums)

    def on_epoch_end(self, net, **kwargs):
        patients, sums, known = (torch.cat(parts) for parts in zip(*self.seen_, strict=True))
        numbers, place = patients.unique(return_inverse=True)
        total = torch.zeros(len(numbers), *sums.shape[1:], dtype=torch.long).index_add_(0, place, sums)
        is_known = torch.zeros(len(numbers), known.shape[1], dtype=torch.bool)
        is_known[place] = known
        defined = is_known & (total[..., 1] > 0)
        dice = 2 * total[..., 0] / total[..., 1].clamp(min=1)
        net.history.record("valid_dice", float(dice[defined].mean()) if defined.any() else 0.0)


def _warm_cosine(steps: int) -> Callable[[int], float]:
    """Learning-rate factor by step: a linear rise over the first twentieth, then a cosine down to a hundredth."""
    warm = max(steps // 20, 1)

    def factor(step: int) -> float:
        cosine = 0.505 + 0.495 * math.cos(math.pi * min(step / steps, 1.0))
        return min((step + 1) / warm, 1.0) * cosine

    return factor


def train_masks(
    network: nn.Module,
    slices: LabelledSlices,
    rows: Tensor,
    validation_rows: Tensor,
    *,
    loss: str,
    max_epochs: int,
    learning_rate: float,
    weight_decay: float,
    batch_size: int,
    context_slices: int,
    patience: int | None,
    foreground_fraction: float,
    patch_size: tuple[int, int] | None,
    augmentation: Augmentation | None,
    compute: Compute,
    verbose: int,
) -> pd.DataFrame:
    """Train a segmentation network on some slices, in place.

    Parameters
    ----------
    rows, validation_rows : Tensor of int64
        Slices; those for validation may be none.

    Returns
    -------
    pandas.DataFrame
        The history, one row an epoch.
    """
    steps = max_epochs * -(-len(rows) // batch_size)
    callbacks: list[tuple[str, Callback]] = [
        ("clip", GradientNormClipping(5.0)),
        ("schedule", LRScheduler(torch.optim.lr_scheduler.LambdaLR, lr_lambda=_warm_cosine(steps), step_every="batch")),
    ]
    if verbose:
        callbacks.append(("progress", _Progress()))
    if len(validation_rows):
        callbacks.append(("dice", _ValidationDice()))
        if patience is not None:
            stop = EarlyStopping("valid_dice", patience=patience, lower_is_better=False, load_best=True, sink=_silent)
            callbacks.append(("stop", stop))
    shared = {"slices": slices, "context_slices": context_slices, "device": compute.torch_device}
    channels_last(network)
    net = _MaskNet(
        network,
        criterion=SegmentationLoss,
        criterion__names=loss,
        compute=compute,
        optimizer=torch.optim.AdamW,
        optimizer__weight_decay=weight_decay,
        lr=learning_rate,
        max_epochs=max_epochs,
        batch_size=batch_size,
        iterator_train=_Batches,
        **{f"iterator_train__{name}": value for name, value in shared.items()},
        iterator_train__shuffle=True,
        iterator_train__foreground_fraction=foreground_fraction,
        iterator_train__patch_size=patch_size,
        iterator_train__augmentation=augmentation,
        iterator_valid=_Batches,
        **{f"iterator_valid__{name}": value for name, value in shared.items()},
        train_split=predefined_split(TensorDataset(validation_rows, validation_rows)) if len(validation_rows) else None,
        callbacks=callbacks,
        callbacks__print_log=None,
        device=compute.torch_device,
        verbose=0,
    )
    net.fit(TensorDataset(rows, rows), y=None)
    kept = [k for k in net.history[0] if k in ("epoch", "dur", "train_loss", "valid_loss", "valid_dice")]
    return pd.DataFrame([{k: row[k] for k in kept} for row in net.history]).set_index("epoch")
