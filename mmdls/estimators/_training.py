"""The training loop (skorch's) and the way the pixels go through a network.

Training cuts at the slice embeddings. All slices of the batch are encoded without gradients, a piece at a time;
fusion, heads and loss see the whole batch and give the gradient of every slice embedding; then the slices are encoded
once more, a piece at a time, and these gradients are passed on. The result is the exact gradient of the whole batch in
the memory of one piece, so the risk set of a Cox loss may be the whole cohort.
"""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from skorch import NeuralNet
from skorch.callbacks import Callback, EarlyStopping, GradientNormClipping, LRScheduler
from skorch.helper import predefined_split
from torch import Tensor, nn
from torch.utils.data import Dataset
from tqdm.auto import tqdm

from mmdls.estimators._inputs import Inputs, Targets
from mmdls.images import SliceStore
from mmdls.modules import MultimodalNet, SliceNet

__all__ = [
    "CohortNet",
    "Compute",
    "embed_patients",
    "forward_cohort",
    "freeze",
    "history_table",
    "ready_to_predict",
    "seeded",
    "train",
]

# torch.manual_seed is global: two fits in two threads would draw from one stream and neither could be repeated.
_RANDOM_STATE_LOCK = threading.RLock()
# Activations of the widest map of one micro-batch that still stay in a processor's cache.
_CACHE_BYTES = 4 * 2**20
_OPTIMIZERS = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Run under a seed and give the caller's random state back."""
    with _RANDOM_STATE_LOCK, torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


@dataclass(frozen=True)
class Compute:
    """Where and how the arithmetic runs.

    Parameters
    ----------
    device : str, default="cpu"
        ``"auto"`` takes a GPU if there is one.
    precision : {"float32", "bf16"}, default="float32"
        ``"bf16"`` encodes images under bfloat16 autocast.
    micro_batch_size : int or "auto", default="auto"
        Slices encoded at a time: a memory knob. ``"auto"`` keeps their activations in the processor's cache.
    """

    device: str = "cpu"
    precision: str = "float32"
    micro_batch_size: int | str = "auto"

    def __post_init__(self) -> None:
        if self.precision not in ("float32", "bf16"):
            raise ValueError(f"precision must be 'float32' or 'bf16'; got {self.precision!r}.")
        if self.micro_batch_size != "auto" and not (
            isinstance(self.micro_batch_size, (int, np.integer)) and self.micro_batch_size > 0
        ):
            raise ValueError(f"micro_batch_size must be a positive int or 'auto'; got {self.micro_batch_size!r}.")
        if str(self.device).startswith("cuda") and not torch.cuda.is_available():
            raise ValueError(f"device={self.device!r}, but torch sees no CUDA device; use device='cpu' or 'auto'.")

    @property
    def torch_device(self) -> torch.device:
        """The device itself."""
        if self.device == "auto":
            return torch.device("cuda" if torch.cuda.is_available() else "cpu")
        return torch.device(self.device)

    def encode(self, encoder: SliceNet, store: SliceStore, index: np.ndarray) -> Tensor:
        """Embed slices of a store, all at once, (K, D)."""
        image = self.read(store, index)
        with torch.autocast(self.torch_device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            return encoder.encode(image).float()

    def read(self, store: SliceStore, index: np.ndarray) -> Tensor:
        """Slices of a store on the device, (K, 1, H, W)."""
        return store.gather(index, device=self.torch_device).contiguous(memory_format=torch.channels_last)

    def pieces(self, encoder: SliceNet, store: SliceStore, n: int) -> list[slice]:
        """Cut n slices into micro-batches."""
        size = self.micro_batch_size
        if size == "auto":
            height, width = store.image_size
            widest = 4 * encoder.backbone.out_channels[0] * height * width
            size = int(np.clip(_CACHE_BYTES // widest, 1, 256))
        return [slice(start, min(start + size, n)) for start in range(0, n, size)]


@dataclass
class _Replay:
    """What the second pass over the images needs."""

    encoder: SliceNet
    store: SliceStore
    index: np.ndarray
    slices: Tensor
    states: list[tuple[Tensor, Tensor | None]]

    def backward(self, compute: Compute) -> None:
        """Encode again with gradients and pass the embeddings' gradients on."""
        if self.slices.grad is None:
            return
        pieces = compute.pieces(self.encoder, self.store, len(self.index))
        for piece, state in zip(pieces, self.states, strict=True):
            _set_random_state(state, compute.torch_device)
            compute.encode(self.encoder, self.store, self.index[piece]).backward(self.slices.grad[piece])


def encode_rows(
    encoder: SliceNet, store: SliceStore, rows: Tensor, compute: Compute, replays: list[_Replay] | None = None
) -> tuple[Tensor, Tensor]:
    """Slice embeddings (K, D) of some patients and their counts (B,); see :func:`pack`."""
    index, counts = store.slice_index(rows.numpy())
    slices = torch.empty(len(index), encoder.out_features, device=compute.torch_device)
    states = []
    with torch.no_grad():
        for piece in compute.pieces(encoder, store, len(index)):
            if replays is not None:
                states.append(_random_state(compute.torch_device))
            slices[piece] = compute.encode(encoder, store, index[piece])
    if replays is not None:
        replays.append(_Replay(encoder, store, index, slices.requires_grad_(), states))
    return slices, torch.as_tensor(counts, device=compute.torch_device)


def embed_patients(encoder: SliceNet, store: SliceStore, compute: Compute, n_patients: int = 256) -> Tensor:
    """Embeddings (n, D) of all patients of a store, on the CPU."""
    encoder.to(compute.torch_device).eval()
    with torch.inference_mode():
        rows = torch.arange(len(store)).split(n_patients)
        pieces = []
        for part in rows:
            slices, counts = encode_rows(encoder, store, part, compute)
            pieces.append(encoder.pool(slices.double(), counts).cpu())
        return torch.cat(pieces)


def pack(
    network: MultimodalNet, inputs: Inputs, rows: Tensor, compute: Compute, replays: list[_Replay] | None = None
) -> dict[str, tuple[Tensor, Tensor]]:
    """Slice embeddings of some patients without gradients, cache-sized pieces at a time: no padding is encoded.

    Parameters
    ----------
    rows : Tensor of shape (B,)
    replays : list, default=None
        If given, the embeddings become leaves that collect gradients, and what is needed to pass these on is appended.

    Returns
    -------
    dict of str to (Tensor of shape (K, D), counts of shape (B,))
    """
    packed = {
        name: encode_rows(network.encoders[name], store, rows, compute, replays)
        for name, store in inputs.stores.items()
    }
    for name, (slices, offsets) in inputs.frozen.items():
        first, counts = offsets[rows.numpy()], np.diff(offsets)[rows.numpy()]
        index = np.repeat(first - (np.cumsum(counts) - counts), counts) + np.arange(counts.sum())
        packed[name] = (
            slices[torch.as_tensor(index)].to(compute.torch_device),
            torch.as_tensor(counts, device=compute.torch_device),
        )
    return packed


def standardize_features(encoder: SliceNet, store: SliceStore, rows: np.ndarray, compute: Compute) -> None:
    """Let a new network start from standardised features, measured on up to 2,048 slices of the training rows."""
    index, _ = store.slice_index(rows)
    if not len(index):
        return
    index = index[np.unique(np.linspace(0, len(index) - 1, 2048).astype(int))]
    encoder.to(compute.torch_device)
    with torch.no_grad():
        pieces = [compute.read(store, index[piece]) for piece in compute.pieces(encoder, store, len(index))]
        encoder.standardize_features(torch.cat([encoder.features(image) for image in pieces]))


def freeze(network: MultimodalNet, inputs: Inputs, names: list[str], compute: Compute) -> Inputs:
    """Encode the images of modalities that do not train once and for all.

    Returns
    -------
    Inputs
        The same cohort, with embeddings in the place of these modalities' images.
    """
    chosen = Inputs(inputs.names, {name: inputs.stores[name] for name in names}, present=inputs.present)
    network.to(compute.torch_device).eval()
    packed = pack(network, chosen, torch.arange(len(inputs)), compute)
    frozen = {name: (slices.cpu(), inputs.stores[name].offsets) for name, (slices, _) in packed.items()}
    stores = {name: store for name, store in inputs.stores.items() if name not in frozen}
    return Inputs(inputs.names, stores, inputs.frozen | frozen, inputs.tables, inputs.present)


def train(
    network: MultimodalNet,
    inputs: Inputs,
    targets: Targets,
    rows: np.ndarray,
    validation_rows: np.ndarray,
    *,
    optimizer: str,
    max_epochs: int,
    learning_rate: float,
    weight_decay: float,
    batch_size: int,
    patience: int | None,
    schedule: str | None,
    gradient_clip: float | None,
    task_weights: Mapping[str, float] | None,
    backbone_learning_rates: Mapping[str, float],
    compute: Compute,
    verbose: int,
) -> "CohortNet":
    """Train a network on rows of a cohort; run it inside :func:`seeded`.

    Returns
    -------
    CohortNet
        The skorch net, with the weights of its best epoch if there are validation rows.
    """
    if optimizer not in _OPTIMIZERS:
        raise ValueError(f"optimizer must be one of {list(_OPTIMIZERS)}; got {optimizer!r}.")
    callbacks: list[tuple[str, Callback]] = [("task_losses", _TaskLosses())]
    if schedule == "cosine":
        policy = torch.optim.lr_scheduler.CosineAnnealingLR
        callbacks.append(("schedule", LRScheduler(policy, T_max=max_epochs, eta_min=learning_rate * 0.01)))
    elif schedule is not None:
        raise ValueError(f"schedule must be 'cosine' or None; got {schedule!r}.")
    if gradient_clip is not None:
        callbacks.append(("clip", GradientNormClipping(gradient_clip)))
    if verbose:
        callbacks.append(("progress", _Progress()))
    if len(validation_rows) and patience is not None:
        callbacks.append(("stop", EarlyStopping(patience=patience, load_best=True, sink=_silent)))
    net = CohortNet(
        network,
        criterion=_WeightedSum,
        criterion__weights=dict(task_weights or {}),
        inputs=inputs,
        targets=targets,
        compute=compute,
        optimizer=_OPTIMIZERS[optimizer],
        optimizer__weight_decay=weight_decay,
        optimizer__param_groups=[
            (f"encoders.{name}.backbone.*", {"lr": learning_rate * factor})
            for name, factor in backbone_learning_rates.items()
        ],
        lr=learning_rate,
        max_epochs=max_epochs,
        batch_size=-1,
        iterator_train=_Batches,
        iterator_train__events=_events(targets),
        iterator_train__size=batch_size,
        iterator_valid=_Batches,
        iterator_valid__events=_events(targets),
        iterator_valid__size=len(validation_rows),
        train_split=predefined_split(_Rows(validation_rows)) if len(validation_rows) else None,
        callbacks=callbacks,
        callbacks__print_log=None,
        device=compute.torch_device,
        verbose=0,
    )
    net.fit(_Rows(rows), y=None)
    net.forget_cohort()
    return net


def history_table(net: "CohortNet") -> pd.DataFrame:
    """Losses of every epoch, one row an epoch."""
    kept = [k for k in net.history[0] if k.endswith("_loss") or k in ("epoch", "dur", "event_lr")]
    table = pd.DataFrame([{k: row.get(k) for k in kept} for row in net.history])
    return table.set_index("epoch")


def ready_to_predict(network: MultimodalNet) -> MultimodalNet:
    """Everything behind the slices' encoders in double precision.

    Matrix products in single precision differ in the last digits with the number of rows; in double precision a patient
    alone gets the same answer as among others.
    """
    network.double().eval()
    for encoder in network.encoders.values():
        if isinstance(encoder, SliceNet):
            encoder.backbone.float()
            encoder.projection.float()
    return network


def forward_cohort(
    network: MultimodalNet, inputs: Inputs, compute: Compute, n_patients: int = 256
) -> dict[str, Tensor]:
    """Outputs of every task for every patient, by a network that is :func:`ready_to_predict`.

    Returns
    -------
    dict of str to Tensor
        On the CPU, float64: the tasks' outputs, ``@shared`` (n, D), ``@embedding:<modality>`` (n, D), and,
        where the parts weigh, ``@modalities`` (n, M) and packed ``@slices:<modality>`` (K,).
    """
    network.to(compute.torch_device).eval()
    found: dict[str, list[Tensor]] = {}
    with torch.inference_mode():
        for rows in torch.arange(len(inputs)).split(n_patients):
            packed = pack(network, inputs, rows, compute)
            packed = {name: (slices.double(), counts) for name, (slices, counts) in packed.items()}
            tables = {name: table[rows].double().to(compute.torch_device) for name, table in inputs.tables.items()}
            present = inputs.present[rows].to(compute.torch_device)
            embeddings = network.embed(packed, tables)
            shared = network.represent(embeddings, present)
            outputs = {"@shared": shared, **network.predict(shared)}
            outputs |= {f"@embedding:{name}": embedding for name, embedding in embeddings.items()}
            if hasattr(network.fusion, "attention"):
                outputs["@modalities"] = network.fusion.attention(embeddings, present)
            for name, slices in packed.items():
                if hasattr(network.encoders[name].pooling, "attention"):
                    outputs[f"@slices:{name}"] = network.encoders[name].attention(*slices)
            for name, output in outputs.items():
                found.setdefault(name, []).append(output.cpu())
    return {name: torch.cat(pieces) for name, pieces in found.items()}


class CohortNet(NeuralNet):
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
        self.iterator_train__events = self.iterator_valid__events = None

    def train_step_single(self, batch: Any, **fit_params: Any) -> dict[str, Any]:
        """Exact gradient of the whole batch, image by image (module docstring)."""
        self._set_training(True)
        rows, replays = batch[0], []
        packed = pack(self.module_, self.inputs, rows, self.compute, replays)
        loss, losses = self._loss(rows, packed)
        loss.backward()
        after = _random_state(self.compute.torch_device)
        for replay in replays:
            replay.backward(self.compute)
        _set_random_state(after, self.compute.torch_device)
        return {"loss": loss.detach(), "y_pred": rows, "losses": losses}

    def validation_step(self, batch: Any, **fit_params: Any) -> dict[str, Any]:
        """Loss of the validation rows as one batch."""
        self._set_training(False)
        with torch.no_grad():
            packed = pack(self.module_, self.inputs, batch[0], self.compute)
            loss, losses = self._loss(batch[0], packed)
        return {"loss": loss, "y_pred": batch[0], "losses": losses}

    def _loss(self, rows: Tensor, packed: dict[str, tuple[Tensor, Tensor]]) -> tuple[Tensor, dict[str, float]]:
        tables = {name: table[rows].to(self.device) for name, table in self.inputs.tables.items()}
        targets = self.targets.take(rows, self.device)
        present = self.inputs.present[rows].to(self.device)
        outputs = self.module_(packed, tables, present)
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


class _Rows(Dataset):
    """The rows of some patients; everything else is looked up by the net."""

    def __init__(self, rows: np.ndarray):
        self.rows = np.asarray(rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, item: int) -> int:
        return int(self.rows[item])


class _Batches:
    """Batches of rows: all at once if they fit, else drawn anew each epoch with the events spread evenly.

    Every patient is seen once an epoch, and each batch holds its share of events, so that each has comparable pairs.
    """

    def __init__(self, dataset: _Rows, events: np.ndarray, size: int, **_: Any):
        self.rows = torch.as_tensor(dataset.rows)
        self.events = events
        self.size = size

    def __len__(self) -> int:
        return -(-len(self.rows) // max(self.size, 1))

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        n_batches = len(self)
        if n_batches == 1:
            yield self.rows, self.rows
            return
        shuffled = self.rows[torch.randperm(len(self.rows))]
        # Dealing the rows like cards, those with most events first, gives every batch its share.
        order = np.argsort(-self.events[shuffled.numpy()], kind="stable")
        dealt = shuffled[torch.as_tensor(order)]
        for batch in range(n_batches):
            rows = dealt[batch::n_batches]
            yield rows, rows


class _TaskLosses(Callback):
    """Note the loss of every task in the history."""

    def on_batch_end(self, net, batch=None, training=False, losses=None, **kwargs):
        prefix = "train" if training else "valid"
        for name, value in (losses or {}).items():
            net.history.record_batch(f"{prefix}_{name}_loss", value)

    def on_epoch_end(self, net, **kwargs):
        names = {k for b in net.history[-1]["batches"] for k in b if k.endswith("_loss")}
        for name in names - {"train_loss", "valid_loss"}:
            values = [b[name] for b in net.history[-1]["batches"] if name in b]
            net.history.record(name, float(np.mean(values)))


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


def _random_state(device: torch.device) -> tuple[Tensor, Tensor | None]:
    cuda = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    return torch.get_rng_state(), cuda


def _set_random_state(state: tuple[Tensor, Tensor | None], device: torch.device) -> None:
    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state(state[1], device)


def _events(targets: Targets) -> np.ndarray:
    """Events seen for each patient, over all endpoints; zero without endpoints."""
    seen = [event.numpy().astype(int) for event, _ in targets.survival.values()]
    return np.sum(seen, axis=0) if seen else np.zeros(len(next(iter(targets.classes.values()))), dtype=int)


def _silent(*_: Any) -> None:
    """A sink for messages."""
