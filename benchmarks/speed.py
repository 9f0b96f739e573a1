"""Speed and memory of images, training and losses, each measured beside what it is compared with.

``python -m benchmarks.speed`` runs everything (``--quick``: small and in minutes), ``--device cuda`` on a GPU,
``--reference PATH`` also against a clone of the published repository. Every arm of a comparison is a process of its
own; the arms take turns, so that a machine that slows down slows all of them; a row gives the median of the ratios of
neighbouring turns and each process's peak memory. The table is written to ``benchmarks/results/speed.md``.
"""

import argparse
import importlib
import importlib.util
import multiprocessing
import os
import platform
import resource
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from tqdm.auto import tqdm

from mmdls.datasets import make_nsclc_cohort
from mmdls.estimators import MMDLS, MultimodalSurvival, SliceEncoder
from mmdls.estimators._published import _KEYS, published_parameters, published_tasks
from mmdls.images import SliceStore
from mmdls.metrics import auc_score, concordance_index
from mmdls.modules import MultimodalNet, SliceNet, cox_loss
from mmdls.modules.losses import CoxRiskSet
from mmdls.training._batches import _Batches
from mmdls.training._build import build_network
from mmdls.training._compute import Compute
from mmdls.training._inference import forward_cohort, ready_to_predict
from mmdls.training._inputs import Inputs, Targets
from mmdls.training._net import CohortNet, _WeightedSum

RESULTS = Path(__file__).parent / "results" / "speed.md"

Step = Callable[[], Any]


# -- measuring --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Arm:
    """One way to do a job: ``prepare(device=..., **settings)`` gives the step that is timed.

    Whatever the step returns on its first call is its answer, by which arms are compared.
    """

    prepare: Callable[..., Step]
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Measured:
    """What was seen of an arm: seconds of every repeat, peak memory (MB) of its process, the part of it that the steps
    added, and the first answer.
    """

    seconds: list[float]
    peak: float
    added: float
    answer: Any

    @property
    def median(self) -> float:
        """Median of the seconds."""
        return statistics.median(self.seconds)


def measure(arms: Mapping[str, Arm], repeats: int, device: str, threads: int) -> dict[str, Measured]:
    """Run arms side by side: each in a process, one step of each in turn, the first turn uncounted."""
    context = multiprocessing.get_context("spawn")
    workers = {}
    try:
        for name, arm in arms.items():
            here, there = context.Pipe()
            process = context.Process(target=_serve, args=(there, arm, device, threads), daemon=True)
            process.start()
            there.close()
            workers[name] = process, here
        for _, here in workers.values():
            here.recv()
        answers = {name: _ask(here, "answer") for name, (_, here) in workers.items()}
        seconds: dict[str, list[float]] = {name: [] for name in arms}
        for _ in range(repeats):
            for name, (_, here) in workers.items():
                seconds[name].append(_ask(here, "time"))
        memory = {name: _ask(here, "memory") for name, (_, here) in workers.items()}
    finally:
        for process, here in workers.values():
            here.close()
            process.join(timeout=10)
    return {name: Measured(seconds[name], *memory[name], answers[name]) for name in arms}


def _ask(connection: Any, question: str) -> Any:
    connection.send(question)
    return connection.recv()


def _serve(connection: Any, arm: Arm, device: str, threads: int) -> None:
    """The worker's side."""
    warnings.filterwarnings("ignore")
    torch.set_num_threads(threads)
    step = arm.prepare(device=device, **arm.settings)
    before = _resident(reset=True, device=device)
    connection.send("ready")
    while True:
        try:
            question = connection.recv()
        except EOFError:
            return
        if question == "memory":
            peak = _peak(device)
            connection.send((peak, peak - before))
            continue
        start = time.perf_counter()
        answer = step()
        if device == "cuda":
            torch.cuda.synchronize()
        connection.send(answer if question == "answer" else time.perf_counter() - start)


def _resident(*, reset: bool, device: str) -> float:
    """Memory in use now, MB; the peak is counted from here on where the system allows it."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated() / 1e6
    if not Path("/proc/self/status").exists():
        return _peak(device)
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    return _proc_status("VmRSS")


def _peak(device: str) -> float:
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 1e6
    if Path("/proc/self/status").exists():
        # Unlike getrusage, this does not count what the parent held when it started this process.
        return _proc_status("VmHWM")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)


def _proc_status(name: str) -> float:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024 / 1e6


@dataclass(frozen=True)
class Row:
    """A line of the table: one job, two arms, their ratio."""

    section: str
    job: str
    ours: str
    other: str
    found: Mapping[str, Measured]
    goal: str = ""
    reached: bool | None = None
    note: str = ""

    @property
    def ratios(self) -> list[float]:
        """How many times faster ours was, turn by turn."""
        pairs = zip(self.found[self.other].seconds, self.found[self.ours].seconds, strict=True)
        return [other / ours for other, ours in pairs]

    @property
    def ratio(self) -> float:
        """Their median."""
        return statistics.median(self.ratios)

    def cells(self) -> list[str]:
        """The line as text."""
        ours, other = self.found[self.ours], self.found[self.other]
        reached = "" if self.reached is None else " yes" if self.reached else " **no**"
        return [
            self.section,
            self.job,
            f"{self.ours} / {self.other}",
            f"{_seconds(ours.median)} / {_seconds(other.median)}",
            f"{self.ratio:.2f} ({min(self.ratios):.2f}-{max(self.ratios):.2f})",
            self.goal + reached,
            f"{ours.peak:,.0f} / {other.peak:,.0f}",
            self.note,
        ]


HEADER = [
    "",
    "job",
    "ours / compared with",
    "seconds",
    "times faster (range)",
    "wanted: reached",
    "peak MB",
    "answers",
]


def _seconds(value: float) -> str:
    return f"{value:.3g}" if value >= 1e-3 else f"{value * 1e6:.0f} us"


def _row(
    section: str, job: str, ours: str, other: str, found: Mapping[str, Measured], least: float | None = None, note=""
) -> Row:
    """A row whose goal is a least ratio."""
    row = Row(section, job, ours, other, found, note=note)
    if least is None:
        return row
    return Row(section, job, ours, other, found, f">= {least:g}", row.ratio >= least, note)


def _difference(a: Mapping[str, np.ndarray], b: Mapping[str, np.ndarray]) -> str:
    """By how much two answers differ: the length of the difference by the length of the answer, all parts together."""
    apart, size = (
        np.sqrt(sum(float(np.square(part, dtype=np.float64).sum()) for part in parts))
        for parts in ([a[name] - b[name] for name in b], b.values())
    )
    return f"equal to {apart / size:.0e}" if apart else "equal"


# -- (a), (b) the published network -----------------------------------------------------------------------------------


def _published(n_patients: int, n_slices: Sequence[int] | int, size: int) -> tuple[MultimodalNet, Inputs, Targets]:
    """The published network and simulated patients for it: noise, since only time and memory count here."""
    rng = np.random.default_rng(0)
    counts = np.broadcast_to(n_slices, n_patients).astype(np.int64)
    parameters = published_parameters()
    encoders = {name: encoder for name, encoder, _ in parameters["modalities"]}
    inputs = Inputs(list(encoders))
    for name in ("lesion", "lung"):
        data = rng.integers(0, 256, (counts.sum(), size, size), dtype=np.uint8)
        inputs.stores[name] = SliceStore(data, counts, 0.5, 0.3, "")
    for name, width in (("radiomics", 128), ("pet", 5), ("clinical", 6)):
        inputs.tables[name] = torch.as_tensor(rng.normal(size=(n_patients, width)), dtype=torch.float32)
    inputs.present = torch.ones(n_patients, len(encoders), dtype=torch.bool)
    times = {
        "dfs": torch.as_tensor(rng.integers(1, 60, n_patients) * 1.0),
        "os": torch.as_tensor(rng.integers(1, 60, n_patients) * 1.0),
    }
    targets = Targets(
        {
            "subtype": torch.as_tensor(rng.integers(0, 2, n_patients)),
            "stage": torch.as_tensor(rng.integers(0, 3, n_patients)),
        },
        {name: (torch.as_tensor(np.arange(n_patients) % 4 != 1), when) for name, when in times.items()},
    )
    architecture = {
        k: parameters[k]
        for k in (
            "fusion",
            "fusion_params",
            "survival",
            "survival_params",
            "ordinal",
            "hidden_features",
            "class_embedding",
            "dropout",
            "modality_dropout",
            "modality_supervision",
            "horizons",
        )
    }
    torch.manual_seed(0)
    network = build_network(encoders, inputs, published_tasks(), **architecture)
    return network, inputs, targets


def _plain_encoder(encoder: SliceNet) -> nn.Module:
    """What one writes in PyTorch for the published slice encoder, sharing our weights."""
    first, second = encoder.backbone.layers
    relu = nn.ReLU(inplace=True)
    return nn.Sequential(
        first, relu, second, relu, nn.AdaptiveAvgPool2d(1), nn.Flatten(), encoder.projection, nn.ReLU(inplace=True)
    )


def _padded(store: SliceStore, device: str) -> Tensor:
    """Slices (B, S, 1, H, W) as floats, short patients filled up with blank slices."""
    dense = torch.zeros(len(store), int(store.counts.max()), 1, *store.image_size)
    for row, count in enumerate(store.counts):
        dense[row, :count, 0] = torch.as_tensor(store.data[store.offsets[row] : store.offsets[row] + count]) / 255
    return dense.to(device)


def ours_predicts(device: str, precision: str = "float32", compile: bool = False, **size: int) -> Step:
    """Inference of the published network by this library."""
    network, inputs, _ = _published(**size)
    compute = Compute(device, precision)
    network = ready_to_predict(network)
    if compile:
        for name in inputs.stores:
            network.encoders[name].backbone.compile()

    def step() -> dict[str, np.ndarray]:
        outputs = forward_cohort(network, inputs, compute)
        return {name: value.numpy() for name, value in outputs.items() if not name.startswith("@")}

    return step


def plain_predicts(device: str, **size: int) -> Step:
    """Inference of the same network by a plain loop."""
    network, inputs, _ = _published(**size)
    network.to(device).eval()
    volumes = {name: _padded(store, device) for name, store in inputs.stores.items()}
    encoders = {name: _plain_encoder(network.encoders[name]) for name in volumes}
    tables = {name: table.to(device) for name, table in inputs.tables.items()}

    def step() -> dict[str, np.ndarray]:
        with torch.no_grad():
            outputs = network(_encode_volumes(encoders, volumes), tables, inputs.present.to(device))
        return {name: value.cpu().numpy() for name, value in outputs.items()}

    return step


def _encode_volumes(encoders: Mapping[str, nn.Module], volumes: Mapping[str, Tensor]) -> dict:
    packed = {}
    for name, volume in volumes.items():
        counts = torch.full((len(volume),), volume.shape[1], device=volume.device)
        packed[name] = encoders[name](volume.flatten(0, 1)), counts
    return packed


def reference_predicts(device: str, path: str, **size: int) -> Step:
    """Inference by the published repository's own network with the same weights."""
    model, volumes, tables, _ = _reference(path, device, **size)
    model.eval()

    def step() -> dict[str, np.ndarray]:
        with torch.no_grad():
            outputs = model(volumes["lesion"], volumes["lung"], *tables)
        names = ("subtype", "stage", "dfs", "os", "dfs@horizons", "os@horizons")
        return {name: value.cpu().numpy().reshape(len(value), -1) for name, value in zip(names, outputs, strict=True)}

    return step


def _reference(path: str, device: str, **size: int) -> tuple[nn.Module, dict[str, Tensor], list[Tensor], Targets]:
    sys.path.insert(0, path)
    network, inputs, targets = _published(**size)
    model = importlib.import_module("mm_dls.HierMM_DLS").HierMM_DLS(num_subtypes=2, num_tnm=3)
    ours, theirs = network.state_dict(), {}
    for key in model.state_dict():
        prefix = next(p for p in _KEYS if key.startswith(p))
        theirs[key] = ours[_KEYS[prefix] + key.removeprefix(prefix)]
    model.load_state_dict(theirs)
    volumes = {name: _padded(store, device) for name, store in inputs.stores.items()}
    tables = [inputs.tables[name].to(device) for name in ("radiomics", "pet", "clinical")]
    return model.to(device), volumes, tables, targets


def ours_trains(device: str, precision: str = "float32", compile: bool = False, **size: int) -> Step:
    """A training step of the published network by this library, with the cut at the slice embeddings."""
    network, inputs, targets = _published(**size)
    network.to(memory_format=torch.channels_last)
    if compile:
        for name in inputs.stores:
            network.encoders[name].backbone.compile()
    return _our_step(network, inputs, targets, Compute(device, precision))


def _our_step(network: MultimodalNet, inputs: Inputs, targets: Targets, compute: Compute) -> Step:
    net = CohortNet(
        network,
        criterion=_WeightedSum,
        criterion__weights={},
        inputs=inputs,
        targets=targets,
        compute=compute,
        optimizer=torch.optim.Adam,
        lr=1e-4,
        iterator_train=_Batches,
        device=compute.torch_device,
    ).initialize()
    rows = torch.arange(len(inputs))

    def step() -> dict[str, np.ndarray]:
        torch.manual_seed(1)
        net.train_step((rows, rows))
        return _gradients(network)

    return step


def _gradients(network: nn.Module) -> dict[str, np.ndarray]:
    return {name: p.grad.cpu().numpy() for name, p in network.named_parameters() if p.grad is not None}


def plain_trains(device: str, **size: int) -> Step:
    """The same step by a plain loop."""
    network, inputs, targets = _published(**size)
    network.to(device).train()
    volumes = {name: _padded(store, device) for name, store in inputs.stores.items()}
    encoders = {name: _plain_encoder(network.encoders[name]) for name in volumes}
    tables = {name: table.to(device) for name, table in inputs.tables.items()}
    targets = targets.take(torch.arange(len(inputs)), torch.device(device))
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4)

    def step() -> dict[str, np.ndarray]:
        torch.manual_seed(1)
        optimizer.zero_grad()
        outputs = network(_encode_volumes(encoders, volumes), tables, inputs.present.to(device))
        sum(network.losses(outputs, targets.classes, targets.survival).values()).backward()
        optimizer.step()
        return _gradients(network)

    return step


def reference_trains(device: str, path: str, **size: int) -> Step:
    """A training step by the published repository's own network, loss and optimiser."""
    model, volumes, tables, targets = _reference(path, device, **size)
    cox = importlib.import_module("mm_dls.CoxphLoss").CoxPHLoss()
    targets = targets.take(torch.arange(len(targets.classes["stage"])), torch.device(device))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, weight_decay=1e-5)
    years = torch.tensor([12.0, 36.0, 60.0], device=device)

    def step() -> None:
        optimizer.zero_grad()
        subtype, stage, dfs, os_risk, *horizons = model(volumes["lesion"], volumes["lung"], *tables)
        loss = nn.functional.cross_entropy(subtype, targets.classes["subtype"])
        loss = loss + nn.functional.cross_entropy(stage, targets.classes["stage"])
        for risk, logits, name in zip((dfs, os_risk), horizons, ("dfs", "os"), strict=True):
            event, when = targets.survival[name]
            loss = loss + cox(risk, when, event.float())
            by_then = (when[:, None] <= years).float()
            loss = loss + nn.functional.binary_cross_entropy_with_logits(logits, by_then)
        loss.backward()
        optimizer.step()

    return step


def encodes_stack(device: str, how: str, train: bool, **size: int) -> Step:
    """One patient's slices through one encoder: ``plain``, or by ``float32`` or ``bf16`` micro-batches."""
    network, inputs, _ = _published(**size)
    store, encoder = inputs.stores["lesion"], network.encoders["lesion"].to(device)
    index = np.arange(len(store.data))
    if how == "plain":
        volume, plain = _padded(store, device).flatten(0, 1), _plain_encoder(encoder)
        pieces, encode = [slice(None)], lambda piece: plain(volume[piece])
    else:
        compute = Compute(device, how)
        encoder.to(memory_format=torch.channels_last)
        pieces = compute.pieces(encoder, store, len(index))
        encode = lambda piece: compute.encode(encoder, store, index[piece])  # noqa: E731

    def step() -> dict[str, np.ndarray]:
        encoder.zero_grad()
        with torch.set_grad_enabled(train):
            found = []
            for piece in pieces:
                embeddings = encode(piece)
                if train:
                    embeddings.sum().backward()
                found.append(embeddings.detach())
        return {"embeddings": torch.cat(found).cpu().numpy(), **(_gradients(encoder) if train else {})}

    return step


def uncut_trains(device: str, **size: int) -> Step:
    """Micro-batches with a loss of their own: what training costs if no slice needs to know of another one."""
    network, inputs, _ = _published(**size)
    compute = Compute(device)
    network.to(device=device, memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4)

    def step() -> None:
        optimizer.zero_grad()
        for name, store in inputs.stores.items():
            encoder, index = network.encoders[name], np.arange(len(store.data))
            for piece in compute.pieces(encoder, store, len(index)):
                compute.encode(encoder, store, index[piece]).sum().backward()
        optimizer.step()

    return step


def published_network(options: argparse.Namespace, say: "Report") -> None:
    """Rows (a) and (b)."""
    size = (
        {"n_patients": 2, "n_slices": 8, "size": 112}
        if options.quick
        else {
            "n_patients": 4,
            "n_slices": 30,
            "size": 224,
        }
    )
    what = f"{size['n_patients']} patients x 2 x {size['n_slices']} slices x {size['size']}^2"
    for section, job, ours, plain, reference, least in (
        ("a", f"inference, {what}", ours_predicts, plain_predicts, reference_predicts, (3.5, 4.0)),
        ("b", f"training step, {what}", ours_trains, plain_trains, reference_trains, (3.5, 3.5)),
    ):
        arms = {"float32": Arm(ours, size), "bf16": Arm(ours, {**size, "precision": "bf16"})}
        if options.compile:
            arms["compile"] = Arm(ours, {**size, "compile": True})
        arms["plain loop"] = Arm(plain, size)
        if options.reference:
            arms["published code"] = Arm(reference, {**size, "path": str(options.reference)})
        found = say.measure(arms)
        base = found["plain loop"]
        for name, goal in (("float32", least[0]), ("bf16", least[1]), ("compile", None)):
            if name in arms:
                note = _difference(found[name].answer, base.answer)
                say.row(_row(section, job, name, "plain loop", found, None if options.quick else goal, note))
        if options.reference:
            answer = found["published code"].answer
            note = (
                ""
                if answer is None
                else _difference({k: v.reshape(len(v), -1) for k, v in found["float32"].answer.items()}, answer)
            )
            say.row(_row(section, job, "float32", "published code", found, None, note))
        if section == "b":
            share = base.peak / found["float32"].peak
            say.line(
                f"(b) Peak memory of the whole process: plain loop {base.peak:,.0f} MB, ours "
                f"{found['float32'].peak:,.0f} MB, {share:.1f} times less (wanted: 8); the step alone adds "
                f"{base.added:,.0f} and {found['float32'].added:,.0f} MB."
            )
    stack = {**size, "n_patients": 1}
    for train, goals in ((False, (2.7, 4.0)), (True, (2.1, 3.5))):
        arms = {how: Arm(encodes_stack, {**stack, "how": how, "train": train}) for how in ("float32", "bf16", "plain")}
        found = say.measure(arms)
        how_far = "with gradients" if train else "forward"
        job = f"one encoder, {size['n_slices']} slices x {size['size']}^2, {how_far}"
        for how, goal in zip(("float32", "bf16"), goals, strict=True):
            note = _difference(found[how].answer, found["plain"].answer)
            # The goals of bf16 are for the whole network; a stack alone is shown beside them.
            least = None if options.quick or how == "bf16" else goal
            say.row(_row("b" if train else "a", job, how, "plain", found, least, note))
    found = say.measure({"cut": Arm(ours_trains, size), "micro-batches": Arm(uncut_trains, size)})
    say.row(_row("b", "cut at the embeddings against micro-batches without it", "cut", "micro-batches", found, 1 / 1.5))


def flat_memory(options: argparse.Namespace, say: "Report") -> None:
    """Row (b): memory as the batch grows."""
    size = {"n_slices": 2, "size": 64 if options.quick else 112}
    sizes = (4, 32, 128) if options.quick else (4, 32, 128, 512)
    arms = {f"{n}": Arm(ours_trains, {**size, "n_patients": n}) for n in sizes}
    found = say.measure(arms, repeats=1)
    cells = ", ".join(f"{name}: {m.added:,.0f} MB" for name, m in found.items())
    say.line(
        f"(b) Memory that a training step adds, by batch_size ({size['n_slices']} slices of {size['size']}^2 in two "
        f"modalities): {cells}."
    )


# -- (c) padding ------------------------------------------------------------------------------------------------------


def padding(options: argparse.Namespace, say: "Report") -> None:
    """Row (c)."""
    n, size = (8, 32) if options.quick else (24, 112)
    counts = np.linspace(5, 30, n).round().astype(int)
    even = np.full(n, counts.sum() // n)
    even[: counts.sum() - even.sum()] += 1
    arms = {
        "5 to 30 slices": Arm(ours_trains, {"n_patients": n, "n_slices": counts, "size": size}),
        "padded to 30": Arm(ours_trains, {"n_patients": n, "n_slices": 30, "size": size}),
        "same slices, equal counts": Arm(ours_trains, {"n_patients": n, "n_slices": even, "size": size}),
    }
    found = say.measure(arms)
    job = f"epoch of {n} patients, {size}^2"
    ideal = 30 * n / counts.sum()
    note = f"{ideal:.2f} times as many slices when padded"
    say.row(_row("c", job, "5 to 30 slices", "padded to 30", found, 0.9 * ideal, note))
    say.row(_row("c", job, "5 to 30 slices", "same slices, equal counts", found, 0.9))


# -- (d) the Cox loss -------------------------------------------------------------------------------------------------


def _survival_data(n: int) -> tuple[Tensor, Tensor, Tensor]:
    """Log hazards in double precision, events, and times in whole days of up to ten years: ties."""
    generator = torch.Generator().manual_seed(0)
    log_hazard = torch.randn(n, generator=generator, dtype=torch.float64)
    time = torch.empty(n, dtype=torch.float64).exponential_(1 / 900, generator=generator).clamp(1, 3650).ceil()
    return log_hazard, torch.rand(n, generator=generator) < 0.6, time


def pycox_formula(log_hazard: Tensor, event: Tensor, time: Tensor) -> Tensor:
    """The formula of pycox's CoxPH: sort, running sums of hazards; tied times are taken as they come."""
    order = torch.argsort(time, descending=True)
    log_hazard, event = log_hazard[order], event[order]
    shift = log_hazard.max()
    log_at_risk = (log_hazard - shift).exp().cumsum(0).add(1e-7).log() + shift
    return -((log_hazard - log_at_risk) * event).sum() / event.sum()


def quadratic_cox(log_hazard: Tensor, event: Tensor, time: Tensor) -> Tensor:
    """Efron's partial likelihood as it is defined, risk set by risk set."""
    total = log_hazard.new_zeros(())
    for t in torch.unique(time[event]):
        tied = log_hazard[event & (time == t)]
        at_risk = log_hazard[time >= t].exp().sum()
        share = torch.arange(len(tied), dtype=log_hazard.dtype) / len(tied)
        total = total + (at_risk - share * tied.exp().sum()).log().sum() - tied.sum()
    return total / event.sum()


def cox(device: str, how: str, n: int) -> Step:
    """Forward and backward of a Cox loss."""
    log_hazard, event, time = (x.to(device) for x in _survival_data(n))
    # torchsurv computes in single precision whatever it is given.
    log_hazard = log_hazard.float() if how != "quadratic" else log_hazard
    log_hazard.requires_grad_()
    if how == "sorted once":
        kept = CoxRiskSet.of(event, time)
        loss = lambda: cox_loss(log_hazard, event, time, risk_set=kept)  # noqa: E731
    elif how == "torchsurv":
        from torchsurv.loss.cox import neg_partial_log_likelihood

        when = time.float()
        loss = lambda: neg_partial_log_likelihood(log_hazard, event, when, reduction="sum") / event.sum()  # noqa: E731
    else:
        formula = {"ours": cox_loss, "pycox's formula": pycox_formula}[how]
        loss = lambda: formula(log_hazard, event, time)  # noqa: E731

    def step() -> dict[str, np.ndarray]:
        log_hazard.grad = None
        value = loss()
        value.backward()
        return {"loss": value.detach().cpu().numpy(), "gradient": log_hazard.grad.cpu().numpy()}

    return step


def cox_losses(options: argparse.Namespace, say: "Report") -> None:
    """Row (d)."""
    hows = ["ours", "sorted once", "pycox's formula"]
    if importlib.util.find_spec("torchsurv") is not None:
        hows.append("torchsurv")
    for exponent in (2, 3, 4) if options.quick else (2, 3, 4, 5, 6):
        n = 10**exponent
        found = say.measure({how: Arm(cox, {"how": how, "n": n}) for how in hows}, repeats=max(say.repeats, 7))
        job = f"Cox loss with ties (Efron) and gradient, n = {n:,}"
        if "torchsurv" in hows:
            note = _difference(found["ours"].answer, found["torchsurv"].answer)
            say.row(_row("d", job, "ours", "torchsurv", found, 2 if n >= 10**4 else None, note))
            say.row(_row("d", job, "sorted once", "torchsurv", found))
        say.row(_row("d", job, "ours", "pycox's formula", found, note="another likelihood: ties as they come"))
    log_hazard, event, time = _survival_data(2000)
    found = [formula(log_hazard, event, time).item() for formula in (cox_loss, quadratic_cox)]
    say.line(
        f"(d) In double precision at n = 2,000 with ties our loss is {found[0]:.12f}, the definition summed risk set "
        f"by risk set {found[1]:.12f}: they differ by {abs(found[0] / found[1] - 1):.0e} (wanted: 1e-10). torchsurv "
        "adds up in single precision whatever it is given, so no agreement with it can be closer than about 1e-6; "
        "values by R are compared in `tests/test_cox_loss.py`."
    )


# -- (e) data loading -------------------------------------------------------------------------------------------------


def _write_folders(root: Path, n_patients: int, n_slices: int, size: int) -> list[Path]:
    from PIL import Image

    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (n_patients, n_slices, size // 8, size // 8)).astype(np.uint8)
    folders = []
    for patient, stack in enumerate(np.kron(coarse, np.ones((1, 1, 8, 8), dtype=np.uint8))):
        folder = root / f"P{patient:03d}"
        folder.mkdir()
        # Smooth areas and noise, so that they compress about as CT slices do.
        for i, image in enumerate(stack):
            noisy = (image * 0.8 + rng.integers(0, 24, image.shape)).astype(np.uint8)
            Image.fromarray(noisy).save(folder / f"slice_{i:02d}.png")
        folders.append(folder)
    return folders


def loads(device: str, how: str, folders: list[Path], memory: str) -> Step:
    """All slices of a cohort as float tensors, patient by patient."""
    from PIL import Image

    if how == "decoding":

        def step() -> dict[str, np.ndarray]:
            total = 0.0
            for folder in folders:
                files = sorted(folder.iterdir())
                images = np.stack([np.asarray(Image.open(file)) for file in files])
                total += float((torch.as_tensor(images)[:, None].float() / 255).to(device)[0, 0, 0, 0])
            return {"sum": np.asarray(total)}

        return step
    if how == "first":

        def step() -> dict[str, np.ndarray]:
            with tempfile.TemporaryDirectory(dir=memory) as fresh:
                return _gather_all(SliceStore.build(folders, memory=fresh), device)

        return step
    if how == "second fit":
        SliceStore.build(folders, memory=memory)
        return lambda: _gather_all(SliceStore.build(folders, memory=memory), device)
    store = SliceStore.build(folders, memory=memory)
    return lambda: _gather_all(store, device)


def _gather_all(store: SliceStore, device: str) -> dict[str, np.ndarray]:
    total = 0.0
    for row in range(len(store)):
        index, _ = store.slice_index(np.array([row]))
        total += float(store.gather(index, device)[0, 0, 0, 0])
    return {"sum": np.asarray(total)}


def data_loading(options: argparse.Namespace, say: "Report") -> None:
    """Row (e)."""
    n, slices, size = (6, 5, 64) if options.quick else (20, 30, 224)
    with tempfile.TemporaryDirectory() as root:
        root = Path(root)
        (root / "images").mkdir()
        (root / "memory").mkdir()
        folders = _write_folders(root / "images", n, slices, size)
        hows = ("later epochs", "second fit", "first", "decoding")
        arms = {how: Arm(loads, {"how": how, "folders": folders, "memory": str(root / "memory")}) for how in hows}
        found = say.measure(arms)
        job = f"loading {n} patients x {slices} PNG slices of {size}^2"
        for how, least in (("later epochs", 20), ("second fit", None), ("first", None)):
            note = _difference(found[how].answer, found["decoding"].answer)
            say.row(_row("e", job, how, "decoding", found, None if options.quick else least, note))


# -- (f) a search with frozen encoders --------------------------------------------------------------------------------


def searches(device: str, memory: str | None, trainable: bool, n: int, size: int, trials: int, epochs: int) -> Step:
    """An Optuna search over fusion and heads; the patients are the same in every trial."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    X, y = make_nsclc_cohort(n, n_slices=(4, 8), image_size=size, return_X_y=True, random_state=0)
    X, y = X[["lesion_image", "clinical_age"]], y[["os_time", "os_event"]]
    train, held = np.arange(n) < 0.7 * n, np.arange(n) >= 0.7 * n

    def step() -> dict[str, np.ndarray]:
        with tempfile.TemporaryDirectory(dir=memory) as fresh:
            encoder = SliceEncoder(trainable=trainable, memory=None if memory is None else fresh)

            def objective(trial: optuna.Trial) -> float:
                model = MultimodalSurvival(
                    image_encoder=encoder,
                    fusion=trial.suggest_categorical("fusion", ["gated", "concat"]),
                    dropout=trial.suggest_float("dropout", 0.0, 0.5),
                    max_epochs=epochs,
                    device=device,
                    random_state=0,
                )
                return model.fit(X[train], y[train]).score(X[held], y[held])

            study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(0))
            study.optimize(objective, n_trials=trials)
        return {"scores": np.asarray([trial.value for trial in study.trials])}

    return step


def frozen_search(options: argparse.Namespace, say: "Report") -> None:
    """Row (f)."""
    size = {"n": 40, "size": 32, "trials": 3, "epochs": 3}
    if not options.quick:
        size = {"n": 60, "size": 64, "trials": 8, "epochs": 8}
    with tempfile.TemporaryDirectory() as root:
        arms = {
            "frozen, memory": Arm(searches, {**size, "memory": root, "trainable": False}),
            "frozen": Arm(searches, {**size, "memory": None, "trainable": False}),
            "end to end": Arm(searches, {**size, "memory": None, "trainable": True}),
        }
        found = say.measure(arms, repeats=1 if options.quick else 2)
    job = f"search of {size['trials']} trials x {size['epochs']} epochs, {size['n']} patients, {size['size']}^2"
    note = _difference(found["frozen, memory"].answer, found["frozen"].answer)
    say.row(_row("f", job, "frozen, memory", "frozen", found, note="scores " + note))
    say.row(_row("f", job, "frozen, memory", "end to end", found, note="another model"))


# -- (g) straight lines -----------------------------------------------------------------------------------------------


def straight_lines(options: argparse.Namespace, say: "Report") -> None:
    """Row (g)."""
    base = (
        {"n_patients": 2, "n_slices": 4, "size": 32}
        if options.quick
        else {
            "n_patients": 4,
            "n_slices": 8,
            "size": 112,
        }
    )
    for name, label, factors in (
        ("n_patients", "patients", (1, 2, 4, 8)),
        ("n_slices", "slices a patient", (1, 2, 4, 8)),
        ("size", "pixels a side", (1, 2, 3)),
    ):
        arms = {str(base[name] * k): Arm(ours_trains, {**base, name: base[name] * k}) for k in factors}
        found = say.measure(arms)
        amounts = np.array([float(k) for k in arms]) ** (2 if name == "size" else 1)
        seconds = np.array([m.median for m in found.values()])
        slope = np.polyfit(np.log(amounts), np.log(seconds), 1)[0]
        cells = ", ".join(f"{k}: {_seconds(m.median)} s" for k, m in found.items())
        of = "pixels" if name == "size" else label
        say.line(f"(g) A training step by {label}: {cells}. It grows as ({of})^{slope:.2f} (1 = a straight line).")


# -- (h) share of the machine's own rate ------------------------------------------------------------------------------


def multiplies(device: str, n: int, precision: str = "float32") -> Step:
    """A product of two square matrices."""
    kind = torch.bfloat16 if precision == "bf16" else torch.float32
    a, b = (torch.rand(n, n, device=device).to(kind) for _ in range(2))
    out = torch.empty_like(a)

    def step() -> None:
        torch.mm(a, b, out=out)

    return step


def _flops_a_pixel() -> float:
    """Floating-point operations of a plain training step for each pixel of each slice."""
    side, n_slices = 32, 8
    counter = FlopCounterMode(display=False)
    with counter:
        plain_trains("cpu", n_patients=1, n_slices=n_slices, size=side)()
    return counter.get_total_flops() / (2 * n_slices * side**2)


def machine_share(options: argparse.Namespace, say: "Report") -> None:
    """Row (h)."""
    size = (
        {"n_patients": 2, "n_slices": 4, "size": 64}
        if options.quick
        else {
            "n_patients": 2,
            "n_slices": 15,
            "size": 224,
        }
    )
    n = 1024 if options.quick else 3072
    flops = _flops_a_pixel() * 2 * size["n_patients"] * size["n_slices"] * size["size"] ** 2
    for precision in ("float32", "bf16"):
        arms = {
            "training": Arm(ours_trains, {**size, "precision": precision}),
            "matrix product": Arm(multiplies, {"n": n, "precision": precision}),
        }
        found = say.measure(arms)
        ours = flops / found["training"].median
        machine = 2 * n**3 / found["matrix product"].median
        say.line(
            f"(h) {precision}: training does {ours / 1e9:.0f} GFLOP/s of useful arithmetic (forward and gradients "
            f"once; the second look at the slices is not counted), {ours / machine:.0%} of the {machine / 1e9:.0f} "
            f"GFLOP/s of a {n} x {n} matrix product."
        )


# -- bf16 answers -----------------------------------------------------------------------------------------------------


def bf16_answers(options: argparse.Namespace, say: "Report") -> None:
    """What bf16 changes in the answers: of a model as it is, and of one that is trained with it."""
    n, epochs, seeds = (60, 3, 1) if options.quick else (400, 20, 3)
    shifts = []
    for seed in range(seeds):
        X, y = make_nsclc_cohort(2 * n, n_slices=(2, 4), image_size=32, return_X_y=True, random_state=seed)
        X, y = X[["lesion_image", "clinical_age"]], y[["subtype", "os_time", "os_event"]]
        model = MMDLS(max_epochs=epochs, patience=None, random_state=seed).fit(X[:n], y[:n])
        single = _scores(model, X[n:], y[n:])
        as_it_is = _scores(model.set_params(precision="bf16"), X[n:], y[n:])
        trained = _scores(model.fit(X[:n], y[:n]), X[n:], y[n:])
        shifts.append([as_it_is - single, trained - single])
    shifts = np.asarray(shifts)
    for i, what in enumerate(("predictions of a float32 model in bf16", "training and predicting in bf16")):
        mean, largest = shifts[:, i].mean(axis=0), np.abs(shifts[:, i]).max(axis=0)
        say.line(
            f"bf16, {what}: AUC (subtype) {mean[0]:+.4f}, C-index (OS) {mean[1]:+.4f} on {n} held-out patients, mean "
            f"of {seeds} cohorts; largest single change {largest[0]:.4f} and {largest[1]:.4f} (wanted: 0.002)."
        )


def _scores(model: MMDLS, X: pd.DataFrame, y: pd.DataFrame) -> np.ndarray:
    known = y["subtype"].notna().to_numpy()
    codes = pd.Categorical(y["subtype"], categories=list(model.classes_["subtype"])).codes
    auc = auc_score(codes[known], model.predict_proba(X, "subtype")[known, 1])
    known = y["os_time"].notna().to_numpy()
    risk = model.predict(X)["os"].to_numpy()
    event, time = y["os_event"].to_numpy(dtype=float) == 1, y["os_time"].to_numpy(dtype=float)
    return np.array([float(auc), float(concordance_index(event[known], time[known], risk[known]))])


# -- the report -------------------------------------------------------------------------------------------------------


class Report:
    """Collects rows and lines, shows them as they come, and writes them down after every section."""

    def __init__(self, options: argparse.Namespace):
        self.options, self.repeats = options, options.repeats
        self.rows: list[Row] = []
        self.lines: list[str] = []
        self.tables: list[tuple[str, pd.DataFrame]] = []

    def measure(self, arms: Mapping[str, Arm], repeats: int | None = None) -> dict[str, Measured]:
        """See :func:`measure`."""
        return measure(arms, repeats or self.repeats, self.options.device, self.options.threads)

    def row(self, row: Row) -> None:
        """Add a row."""
        self.rows.append(row)
        tqdm.write(" | ".join(row.cells()))

    def line(self, text: str) -> None:
        """Add a sentence."""
        self.lines.append(text)
        tqdm.write(text)

    def write(self, path: Path) -> None:
        """Write everything so far."""
        options = self.options
        machine = f"{_processor()}, {options.threads} threads"
        if options.device == "cuda":
            machine += f", {torch.cuda.get_device_name()}"
        versions = f"Python {platform.python_version()}, torch {torch.__version__}, numpy {np.__version__}"
        gpu = "" if options.device == "cuda" else " GPU: not run on a GPU; `--device cuda` measures the same there."
        parts = [
            "# Speed and memory",
            "",
            f"Machine: {machine}; {versions}; {platform.system()}. {self.repeats} repeats"
            f"{', quick sizes: not for comparison' if options.quick else ''}.{gpu}",
            f"Again: `python -m benchmarks.speed{' --quick' if options.quick else ''}"
            f"{' --reference PATH' if options.reference else ''}`.",
            "",
            "Arms of a row ran in processes of their own and took turns; the ratio is the median over turns, with the "
            "range in brackets. Peak memory is that of the whole process, Python and torch included. What each row "
            "measures is told in `docs/speed.md`.",
            "",
            *_markdown(HEADER, [row.cells() for row in self.rows]),
            "",
            *(f"- {line}" for line in self.lines),
        ]
        for title, table in self.tables:
            cells = [[f"{v:.4g}" if isinstance(v, float) else str(v) for v in row] for row in table.to_numpy().tolist()]
            parts += ["", f"## {title}", "", *_markdown([str(c) for c in table.columns], cells)]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(parts) + "\n")


def _markdown(header: list[str], rows: list[list[str]]) -> list[str]:
    lines = [header, ["---"] * len(header), *rows]
    return ["| " + " | ".join(line) + " |" for line in lines]


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        facts = dict(line.split(":", 1) for line in info.read_text().splitlines() if ":" in line)
        named = {key.strip(): value.strip() for key, value in facts.items()}
        return named.get("model name", platform.machine())
    return platform.processor() or platform.machine()


def statistics_rows(options: argparse.Namespace, say: Report) -> None:
    """Metrics and their intervals, where that benchmark is there."""
    if importlib.util.find_spec("benchmarks.speed_statistics") is None:
        return
    say.tables.append(
        ("Statistics", pd.DataFrame(importlib.import_module("benchmarks.speed_statistics").measure(say.repeats)))
    )


SECTIONS: dict[str, Callable[[argparse.Namespace, Report], None]] = {
    "network": published_network,
    "memory": flat_memory,
    "padding": padding,
    "cox": cox_losses,
    "loading": data_loading,
    "search": frozen_search,
    "lines": straight_lines,
    "share": machine_share,
    "bf16": bf16_answers,
    "statistics": statistics_rows,
}


def main(argv: list[str] | None = None) -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed", description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="small sizes: shows that it runs, not how fast it is")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--reference", type=Path, help="a clone of the published repository, to run beside")
    parser.add_argument("--repeats", type=int, help="turns of each arm (default: 5; quick: 2)")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="default: all cores")
    parser.add_argument("--compile", action="store_true", help="also with torch.compile")
    parser.add_argument("--only", nargs="+", choices=list(SECTIONS), help="some sections only")
    parser.add_argument("--out", type=Path, default=RESULTS, help="the file to write")
    options = parser.parse_args(argv)
    options.repeats = options.repeats or (2 if options.quick else 5)
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda, but torch sees no CUDA device")
    if options.reference and not (options.reference / "mm_dls" / "HierMM_DLS.py").is_file():
        parser.error(f"--reference {options.reference}: no mm_dls/HierMM_DLS.py there; give a clone of MM-DLS")
    torch.set_num_threads(options.threads)
    sys.stdout.reconfigure(line_buffering=True)
    report = Report(options)
    for name in tqdm(options.only or SECTIONS, desc="sections", unit="section", file=sys.stderr):
        SECTIONS[name](options, report)
        report.write(options.out)
    print(f"Written to {options.out}.")


if __name__ == "__main__":
    main()
