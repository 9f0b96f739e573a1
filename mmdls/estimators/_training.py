"""The training loop (skorch's) and the way the pixels go through a network.

Training cuts at the slice embeddings. All slices of the batch are encoded without gradients, a piece at a time;
fusion, heads and loss see the whole batch and give the gradient of every slice embedding; then the slices are encoded
once more, a piece at a time, and these gradients are passed on. The result is the exact gradient of the whole batch in
the memory of one piece, so the risk set of a Cox loss may be the whole cohort. Pieces whose graphs fit into a fixed
budget are kept from the first pass, so that small images are encoded once only.
"""

import hashlib
import threading
import warnings
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.exceptions import UndefinedMetricWarning
from skorch.callbacks import Callback, EarlyStopping, GradientNormClipping, LRScheduler
from skorch.helper import predefined_split
from torch import Tensor, nn
from torch.utils.data import Dataset
from tqdm.auto import tqdm

from mmdls._watch import watcher
from mmdls.estimators._inputs import Inputs, Targets
from mmdls.estimators._loop import TrainingLoop
from mmdls.estimators._ranks import Ranks, is_first_rank, own_device, random_state, set_random_state
from mmdls.images import SliceStore
from mmdls.metrics import auc_score, concordance_index
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
    "slice_features",
    "train",
]

# torch.manual_seed is global: two fits in two threads would draw from one stream and neither could be repeated.
_RANDOM_STATE_LOCK = threading.RLock()
# The widest feature map of one micro-batch. On a processor it stays in the cache, and below the 32 MiB from which the
# C library asks the system for fresh pages at every allocation; on a GPU it keeps all multiprocessors busy.
_WIDEST_MAP_BYTES = {"cpu": 16 * 2**20, "cuda": 2**30}
_OPTIMIZERS = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Run under a seed and give the caller's random state back."""
    with _RANDOM_STATE_LOCK, torch.random.fork_rng(range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        yield


@dataclass(frozen=True)
class Compute:
    """Where and how the arithmetic runs.

    Parameters
    ----------
    device : str, default="cpu"
        ``"auto"`` takes a GPU if there is one; of several processes that train together, each takes its own.
    precision : {"float32", "bf16"}, default="float32"
        ``"bf16"`` encodes images under bfloat16 autocast.
    micro_batch_size : int or "auto", default="auto"
        Slices encoded at a time: a memory knob. ``"auto"`` keeps their activations in the processor's cache.
    compile : bool, default=False
        Translate the backbones with ``torch.compile`` before training.
    kept_bytes : int, default=128 MiB
        Graphs of the first pass over the images that are kept instead of encoding their slices again.
    ranks : Ranks, default=Ranks()
        The processes that share the slices.
    """

    device: str = "cpu"
    precision: str = "float32"
    micro_batch_size: int | str = "auto"
    compile: bool = False
    kept_bytes: int = 128 * 2**20
    ranks: Ranks = field(default_factory=Ranks)

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
            return own_device(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
        return own_device(torch.device(self.device))

    def autocast(self) -> torch.autocast:
        """The context in which networks of images compute."""
        return torch.autocast(self.torch_device.type, torch.bfloat16, enabled=self.precision == "bf16")

    def features(self, encoder: SliceNet, store: SliceStore, index: np.ndarray) -> Tensor:
        """Features of slices of a store, all at once, (K, C)."""
        image = self.read(store, index)
        with self.autocast():
            return encoder.features(image)

    def encode(self, encoder: SliceNet, store: SliceStore, index: np.ndarray) -> Tensor:
        """Embed slices of a store, all at once, (K, D)."""
        return encoder.project(self.features(encoder, store, index))

    def read(self, store: SliceStore, index: np.ndarray) -> Tensor:
        """Slices of a store on the device, (K, 1, H, W)."""
        # Unlike contiguous(), to() also rewrites the strides of one channel, by which convolutions choose their way.
        return store.gather(index, device=self.torch_device).to(memory_format=torch.channels_last)

    def pieces(self, encoder: SliceNet, store: SliceStore, stop: int, start: int = 0) -> list[slice]:
        """Cut slices from start to stop into micro-batches."""
        size = self.micro_batch_size
        if size == "auto":
            widest, _ = self.slice_bytes(encoder, store)
            size = int(np.clip(_WIDEST_MAP_BYTES.get(self.torch_device.type, 2**30) // widest, 1, 1024))
        return [slice(first, min(first + size, stop)) for first in range(start, stop, size)]

    def slice_bytes(self, encoder: SliceNet, store: SliceStore) -> tuple[int, int]:
        """Bytes of the widest feature map of one slice, and of all maps that its gradient needs."""
        width = 2 if self.precision == "bf16" else encoder.projection.weight.element_size()
        known = _MAP_SIZES.setdefault(encoder, {})
        if store.image_size not in known:
            known[store.image_size] = _map_sizes(encoder, store.image_size)
        widest, total = known[store.image_size]
        return width * widest, width * total


# Of each encoder and image size; shapes do not change while weights are learned.
_MAP_SIZES: weakref.WeakKeyDictionary[SliceNet, dict[tuple[int, int], tuple[int, int]]] = weakref.WeakKeyDictionary()


def _map_sizes(encoder: SliceNet, image_size: tuple[int, int]) -> tuple[int, int]:
    """Numbers in the widest map of one slice, and in all maps kept for its gradient, found with one blank slice."""
    sizes = {}

    def note(tensor: Tensor) -> Tensor:
        if not tensor.is_leaf:
            sizes[tensor.data_ptr()] = tensor.numel()
        return tensor

    weight = encoder.projection.weight
    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        torch.random.fork_rng(range(torch.cuda.device_count())),
        torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor),
    ):
        image = torch.zeros(1, 1, *image_size, device=weight.device, dtype=weight.dtype, requires_grad=True)
        maps = encoder.backbone(image)
    numbers = [*sizes.values(), *(m.numel() for m in maps)]
    return max(numbers), max(sum(sizes.values()), max(numbers))


@dataclass
class _Replay:
    """What the second pass over the images needs: of each piece its first graph, or the random state to repeat it."""

    encoder: SliceNet
    store: SliceStore
    index: np.ndarray
    slices: Tensor
    pieces: list[slice]
    first_pass: list[Tensor | tuple[Tensor, Tensor | None]]
    kept_bytes: int

    def backward(self, compute: Compute) -> None:
        """Pass the embeddings' gradients on, encoding again what was not kept."""
        if self.slices.grad is None:
            return
        for piece, first in zip(self.pieces, self.first_pass, strict=True):
            embeddings = first
            if not isinstance(first, Tensor):
                set_random_state(first, compute.torch_device)
                embeddings = compute.encode(self.encoder, self.store, self.index[piece])
            embeddings.backward(self.slices.grad[piece])


def encode_rows(
    encoder: SliceNet, store: SliceStore, rows: Tensor, compute: Compute, replays: list[_Replay] | None = None
) -> tuple[Tensor, Tensor]:
    """Slice embeddings (K, D) of some patients and their counts (B,); see :func:`pack`."""
    index, counts = store.slice_index(rows.numpy())
    slices = torch.zeros(len(index), encoder.out_features, device=compute.torch_device)
    share = compute.ranks.share(len(index))
    pieces = compute.pieces(encoder, store, share.stop, share.start)
    budget, first_pass = 0, []
    if replays is not None:
        budget = compute.kept_bytes - sum(replay.kept_bytes for replay in replays)
        _, bytes_each = compute.slice_bytes(encoder, store)
    used = 0
    with compute.ranks.own_random_numbers():
        for piece in pieces:
            keep = replays is not None and used + (piece.stop - piece.start) * bytes_each <= budget
            state = random_state(compute.torch_device) if replays is not None and not keep else None
            with torch.set_grad_enabled(keep):
                embeddings = compute.encode(encoder, store, index[piece])
            slices[piece] = embeddings.detach()
            if keep:
                used += (piece.stop - piece.start) * bytes_each
            first_pass.append(embeddings if keep else state)
    compute.ranks.sum(slices)
    if replays is not None:
        replays.append(_Replay(encoder, store, index, slices.requires_grad_(), pieces, first_pass, used))
    return slices, torch.as_tensor(counts, device=compute.torch_device)


def slice_features(encoder: SliceNet, store: SliceStore, compute: Compute) -> Tensor:
    """Features (K, C) of all slices of a store, on the CPU, kept beside the slices for the next time.

    Only for a backbone that does not train any more.
    """

    def make() -> np.ndarray:
        index = np.arange(len(store.data))
        features = torch.empty(len(index), encoder.projection.in_features)
        with torch.inference_mode():
            for piece in compute.pieces(encoder, store, len(index)):
                features[piece] = compute.features(encoder, store, index[piece]).cpu()
        return features.numpy()

    digest = hashlib.blake2b(digest_size=16)
    kind = type(encoder.backbone)
    # bf16 rounds, so does every device in its own way.
    facts = (kind.__module__, kind.__qualname__, repr(encoder.backbone), encoder.mean, encoder.std)
    digest.update(repr((*facts, compute.precision, compute.torch_device.type)).encode())
    for name, tensor in encoder.backbone.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return torch.from_numpy(store.remember(f"features-{digest.hexdigest()}", make))


def embed_patients(encoder: SliceNet, store: SliceStore, compute: Compute, n_patients: int = 256) -> Tensor:
    """Embeddings (n, D) of all patients of a store, on the CPU."""
    encoder.to(compute.torch_device).eval()
    features = slice_features(encoder, store, compute)
    with torch.inference_mode():
        pieces = []
        for rows in torch.arange(len(store)).split(n_patients):
            slices, counts = _project_rows(encoder, store, rows, features, compute)
            pieces.append(encoder.pool(slices.double(), counts).cpu())
        return torch.cat(pieces)


def _project_rows(
    encoder: SliceNet, store: SliceStore, rows: Tensor, features: Tensor, compute: Compute
) -> tuple[Tensor, Tensor]:
    """Slice embeddings (K, D) of some patients from features of all slices, and their counts (B,)."""
    index, counts = store.slice_index(rows.numpy())
    slices = encoder.project(features[torch.as_tensor(index)].to(compute.torch_device))
    return slices, torch.as_tensor(counts, device=compute.torch_device)


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
    packed = {}
    for name, store in inputs.stores.items():
        encoder = network.encoders[name]
        if name in inputs.frozen:
            index, counts = store.slice_index(rows.numpy())
            slices = inputs.frozen[name][torch.as_tensor(index)].to(compute.torch_device)
            packed[name] = slices, torch.as_tensor(counts, device=compute.torch_device)
        elif _is_frozen(encoder):
            packed[name] = _project_rows(encoder, store, rows, slice_features(encoder, store, compute), compute)
        else:
            packed[name] = encode_rows(encoder, store, rows, compute, replays)
    return packed


def _is_frozen(encoder: SliceNet) -> bool:
    return not any(weight.requires_grad for weight in encoder.backbone.parameters())


def _evenly(index: np.ndarray, n: int = 2048) -> np.ndarray:
    """At most n of them, evenly spaced."""
    return index[np.unique(np.linspace(0, len(index) - 1, n).astype(int))]


def standardize_features(encoder: SliceNet, store: SliceStore, rows: np.ndarray, compute: Compute) -> None:
    """Let a new network start from standardised features, measured on up to 2,048 slices of the training rows."""
    index, _ = store.slice_index(rows)
    if not len(index):
        return
    index = _evenly(index)
    encoder.to(compute.torch_device)
    with torch.no_grad():
        pieces = compute.pieces(encoder, store, len(index))
        encoder.standardize_features(torch.cat([compute.features(encoder, store, index[piece]) for piece in pieces]))


def freeze(
    encoder: SliceNet, store: SliceStore, rows: np.ndarray, compute: Compute, *, standardize: bool = False
) -> Tensor:
    """Encode all slices of a store once and for all; the encoder's backbone and projection stop training.

    Parameters
    ----------
    rows : ndarray of int
        The training rows, for the standardisation of features.
    standardize : bool, default=False
        As in :func:`standardize_features`.

    Returns
    -------
    Tensor of shape (K, D)
        Slice embeddings, on the CPU.
    """
    encoder.to(compute.torch_device).eval()
    features = slice_features(encoder, store, compute)
    index, _ = store.slice_index(rows)
    if standardize and len(index):
        encoder.standardize_features(features[torch.as_tensor(_evenly(index))].to(compute.torch_device))
    encoder.backbone.requires_grad_(False)
    encoder.projection.requires_grad_(False)
    with torch.no_grad():
        return encoder.project(features.to(compute.torch_device)).cpu()


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
    given = (optimizer, max_epochs, learning_rate, weight_decay, batch_size, patience, schedule, gradient_clip)
    outcomes = [*targets.classes.values(), *(part for pair in targets.survival.values() for part in pair)]
    compute.ranks.check(
        rows,
        validation_rows,
        *inputs.tables.values(),
        *(store.counts for store in inputs.stores.values()),
        *outcomes,
        targets.sample_weight,
        (*given, task_weights, backbone_learning_rates, compute.precision),
        [(store.mean, store.std) for store in inputs.stores.values()],
        [(name, tuple(weight.shape)) for name, weight in network.named_parameters()],
    )
    compute.ranks.copy_first(network)
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
    if verbose and is_first_rank():
        callbacks.append(("progress", _Progress()))
    if len(validation_rows) and watcher() and compute.ranks.size == 1:
        callbacks.append(("watch", _Watched(validation_rows)))
    if len(validation_rows) and patience is not None:
        callbacks.append(("stop", EarlyStopping(patience=patience, load_best=True, sink=_silent)))
    network.to(memory_format=torch.channels_last)
    if compute.compile:
        for encoder in network.encoders.values():
            if isinstance(encoder, SliceNet):
                encoder.backbone.compile()
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
        iterator_train__times=_times(targets),
        iterator_train__size=batch_size,
        iterator_valid=_Batches,
        iterator_valid__events=_events(targets),
        iterator_valid__times=_times(targets),
        iterator_valid__size=len(validation_rows),
        train_split=predefined_split(_Rows(validation_rows)) if len(validation_rows) else None,
        callbacks=callbacks,
        callbacks__print_log=None,
        device=compute.torch_device,
        verbose=0,
    )
    net.fit(_Rows(rows), y=None)
    compute.ranks.copy_first(net.module_)
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
    network.double().eval().to(memory_format=torch.channels_last)
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


class CohortNet(TrainingLoop):
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
        self.compute = replace(self.compute, ranks=Ranks())
        self.iterator_train__events = self.iterator_valid__events = None
        self.iterator_train__times = self.iterator_valid__times = None

    def train_step_single(self, batch: Any, **fit_params: Any) -> dict[str, Any]:
        """Exact gradient of the whole batch, image by image (module docstring)."""
        self._set_training(True)
        rows, replays = batch[0], []
        packed = pack(self.module_, self.inputs, rows, self.compute, replays)
        loss, losses = self._loss(rows, packed)
        loss.backward()
        ranks, after = self.compute.ranks, random_state(self.compute.torch_device)
        ranks.keep_first(self.module_)
        for replay in replays:
            replay.backward(self.compute)
        ranks.sum_gradients(self.module_)
        set_random_state(after, self.compute.torch_device)
        return self._step(rows, loss, losses)

    def validation_step(self, batch: Any, **fit_params: Any) -> dict[str, Any]:
        """Loss of the validation rows as one batch."""
        self._set_training(False)
        with torch.no_grad():
            packed = pack(self.module_, self.inputs, batch[0], self.compute)
            loss, losses = self._loss(batch[0], packed)
        return self._step(batch[0], loss, losses)

    def _step(self, rows: Tensor, loss: Tensor, losses: dict[str, float]) -> dict[str, Any]:
        """What a step leaves to skorch; when to stop is decided by the losses, which all ranks take from the first."""
        ranks = self.compute.ranks
        values = ranks.agree(torch.tensor([loss.item(), *losses.values()], dtype=torch.float64, device=ranks.device))
        return {"loss": values[0], "y_pred": rows, "losses": dict(zip(losses, values[1:].tolist(), strict=True))}

    def score(self, rows: Tensor) -> float:
        """Mean over tasks of ROC AUC and Harrell's C of some rows; NaN where these know too little."""
        self._set_training(False)
        with torch.no_grad():
            outputs = self._outputs(rows, pack(self.module_, self.inputs, rows, self.compute))
        targets, scores = self.targets.take(rows, torch.device("cpu")), []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UndefinedMetricWarning)
            for name, (event, time) in targets.survival.items():
                risk, known = self.module_.survival_heads[name].risk(outputs[name]).cpu(), ~time.isnan()
                scores.append(concordance_index(event[known].numpy(), time[known].numpy(), risk[known].numpy()))
            for name, codes in targets.classes.items():
                chances, known = self.module_.class_heads[name].probabilities(outputs[name]).cpu(), codes >= 0
                scores.append(auc_score(codes[known].numpy(), chances[known].numpy()))
        return float(np.nanmean(scores)) if np.isfinite(scores).any() else float("nan")

    def _outputs(self, rows: Tensor, packed: dict[str, tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
        tables = {name: table[rows].to(self.device) for name, table in self.inputs.tables.items()}
        return self.module_(packed, tables, self.inputs.present[rows].to(self.device))

    def _loss(self, rows: Tensor, packed: dict[str, tuple[Tensor, Tensor]]) -> tuple[Tensor, dict[str, float]]:
        targets = self.targets.take(rows, self.device)
        outputs = self._outputs(rows, packed)
        present = self.inputs.present[rows].to(self.device)
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
    """Batches of rows: all at once if they fit, else drawn anew each epoch with events and follow-up spread evenly.

    Every patient is seen once an epoch, and each batch holds its share of events and of long and short times, so that
    each has comparable pairs.
    """

    def __init__(self, dataset: _Rows, events: np.ndarray, times: np.ndarray, size: int, **_: Any):
        self.rows = torch.as_tensor(dataset.rows)
        self.events = events
        self.times = times
        self.size = size

    def __len__(self) -> int:
        return -(-len(self.rows) // max(self.size, 1))

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        n_batches = len(self)
        if n_batches == 1:
            yield self.rows, self.rows
            return
        # Like cards, sorted by events and time and dealt in rounds, each round to the batches in a random order.
        order = np.lexsort((-self.times[self.rows.numpy()], -self.events[self.rows.numpy()]))
        rounds = [part[torch.randperm(len(part))] for part in self.rows[torch.as_tensor(order)].split(n_batches)]
        if len(rounds[-1]) < n_batches:
            spread = torch.full((n_batches,), -1)
            spread[torch.randperm(n_batches)[: len(rounds[-1])]] = rounds[-1]
            rounds[-1] = spread
        for rows in torch.stack(rounds, dim=1):
            rows = rows[rows >= 0]
            yield rows, rows


class _TaskLosses(Callback):
    """Note the loss of every task in the history."""

    def on_batch_end(self, net, batch=None, training=False, losses=None, **kwargs):
        prefix = "train" if training else "valid"
        for name, value in (losses or {}).items():
            net.history.record_batch(f"{prefix}_{name}_loss", value)

    def on_epoch_end(self, net, **kwargs):
        names = {k for b in net.history[-1]["batches"] for k in b if k.endswith("_loss")}
        for name in sorted(names - {"train_loss", "valid_loss"}):
            values = [b[name] for b in net.history[-1]["batches"] if name in b]
            net.history.record(name, float(np.mean(values)))


class _Watched(Callback):
    """Tell who watches from outside how the validation rows do."""

    def __init__(self, rows: np.ndarray):
        self.rows = rows

    def on_epoch_end(self, net, **kwargs):
        if tell := watcher():
            tell(len(net.history), net.score(torch.as_tensor(self.rows)))


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


def _events(targets: Targets) -> np.ndarray:
    """Events seen for each patient, over all endpoints; zero without endpoints."""
    seen = [event.numpy().astype(int) for event, _ in targets.survival.values()]
    return np.sum(seen, axis=0) if seen else np.zeros(len(next(iter(targets.classes.values()))), dtype=int)


def _times(targets: Targets) -> np.ndarray:
    """Time known for each patient, the sum over endpoints; zero where there is none."""
    known = [time.nan_to_num().numpy() for _, time in targets.survival.values()]
    return np.sum(known, axis=0) if known else np.zeros(len(next(iter(targets.classes.values()))))


def _silent(*_: Any) -> None:
    """A sink for messages."""
