"""Training and inference of the whole network, beside a plain loop and the published code."""

import argparse
import importlib
import importlib.util
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from benchmarks.speed._measuring import Step, Variant, compared, difference, seconds_text
from benchmarks.speed._report import Report
from mmdls import MMDLS
from mmdls.encoders import ModalityData, TableData
from mmdls.estimators import SliceEncoder, TabularEncoder
from mmdls.estimators.encoders._slices import SliceData
from mmdls.estimators.multimodal._published import _KEYS, published_tasks
from mmdls.images import SliceStore
from mmdls.modules import Ensemble, MultimodalNet, Outputs, SliceNet
from mmdls.training._batches import _Batches
from mmdls.training._build import build_network
from mmdls.training._compute import Compute
from mmdls.training._inference import forward_cohort, ready_to_predict
from mmdls.training._inputs import Inputs
from mmdls.training._members import Member
from mmdls.training._net import CohortNet, _WeightedSum
from mmdls.training._targets import Targets

_IMAGES = ("lesion", "lung")
_TABLES = {"radiomics": 128, "pet": 5, "clinical": 6}


def _simulated(
    n_patients: int, n_slices: Sequence[int] | int, size: int, model: str = "published"
) -> tuple[MultimodalNet, Inputs, Targets]:
    """A network, published or default, and simulated patients for it: noise, since only time and memory count here."""
    rng = np.random.default_rng(0)
    counts = np.broadcast_to(n_slices, n_patients).astype(np.int64)
    if model == "published":
        estimator = MMDLS.published()
        encoders = {name: encoder for name, encoder, _ in estimator.modalities}
    else:
        estimator = MMDLS()
        encoders = {name: SliceEncoder() for name in _IMAGES} | {name: TabularEncoder() for name in _TABLES}
    data: dict[str, ModalityData] = {}
    for name in _IMAGES:
        pixels = rng.integers(0, 256, (counts.sum(), size, size), dtype=np.uint8)
        data[name] = SliceData(SliceStore(pixels, counts, 0.5, 0.3, ""))
    for name, width in _TABLES.items():
        data[name] = TableData(rng.normal(size=(n_patients, width)), np.ones(n_patients))
    inputs = Inputs.of(data)
    tasks, y = published_tasks(), pd.DataFrame(index=range(n_patients))
    for endpoint in ("dfs", "os"):
        y[f"{endpoint}_time"], y[f"{endpoint}_event"] = rng.integers(1, 60, n_patients), np.arange(n_patients) % 4 != 1
    for label in ("subtype", "stage"):
        y[label] = rng.choice(tasks[label].classes, n_patients)
    targets = Targets.from_table(y, tasks)
    torch.manual_seed(0)
    network = build_network(encoders, inputs, tasks, **estimator._architecture())
    return network, inputs, targets


def _plain_encoder(encoder: SliceNet) -> nn.Module:
    """What one writes in PyTorch for the published slice encoder, sharing our weights."""
    first, second = encoder.backbone.layers
    relu = nn.ReLU(inplace=True)
    return nn.Sequential(
        first, relu, second, relu, nn.AdaptiveAvgPool2d(1), nn.Flatten(), encoder.projection, nn.ReLU(inplace=True)
    )


def _padded(inputs: Inputs, device: str) -> dict[str, Tensor]:
    """Slices (B, S, 1, H, W) as floats, short patients filled up with blank slices."""
    padded = {}
    for name in _IMAGES:
        data: Any = inputs.data[name]
        dense = torch.zeros(len(data), int(data.counts.max()), *data.item_shape)
        for row, count in enumerate(data.counts):
            dense[row, :count] = data.read(data.index_of(np.array([row]))[0])
        padded[name] = dense.to(device)
    return padded


def _tables(inputs: Inputs, device: str) -> dict[str, tuple[Tensor, ...]]:
    """The tables of all patients."""
    everybody = np.arange(len(inputs))
    return {name: tuple(table.to(device) for table in inputs.data[name].take(everybody)) for name in _TABLES}


def ours_predicts(device: str, precision: str = "float32", compile: bool = False, **size: Any) -> Step:
    """Inference of the published or the default network by this library."""
    network, inputs, _ = _simulated(**size)
    compute = Compute(device, precision)
    network = ready_to_predict(network)
    if compile:
        for name in _IMAGES:
            network.encoders[name].backbone.compile()

    def step() -> dict[str, np.ndarray]:
        return _answers(forward_cohort(Ensemble([network]), inputs, compute))

    return step


def _answers(outputs: Outputs) -> dict[str, np.ndarray]:
    named = outputs.tasks | {f"{name} at horizons": logits for name, logits in outputs.horizons.items()}
    return {name: value.cpu().numpy() for name, value in named.items()}


def plain_predicts(device: str, **size: int) -> Step:
    """Inference of the same network by a plain loop."""
    network, inputs, _ = _simulated(**size)
    network.to(device).eval()
    volumes = _padded(inputs, device)
    encoders = {name: _plain_encoder(network.encoders[name]) for name in volumes}
    tables = _tables(inputs, device)

    def step() -> dict[str, np.ndarray]:
        with torch.no_grad():
            return _answers(network(_encode_volumes(encoders, volumes) | tables, inputs.present.to(device)))

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
        names = ("subtype", "stage", "dfs", "os", "dfs at horizons", "os at horizons")
        return {name: value.cpu().numpy().reshape(len(value), -1) for name, value in zip(names, outputs, strict=True)}

    return step


def _reference(path: str, device: str, **size: int) -> tuple[nn.Module, dict[str, Tensor], list[Tensor], Targets]:
    sys.path.insert(0, path)
    network, inputs, targets = _simulated(**size)
    model = importlib.import_module("mm_dls.HierMM_DLS").HierMM_DLS(num_subtypes=2, num_tnm=3)
    ours, theirs = network.state_dict(), {}
    for key in model.state_dict():
        prefix = next(p for p in _KEYS if key.startswith(p))
        theirs[key] = ours[_KEYS[prefix] + key.removeprefix(prefix)]
    model.load_state_dict(theirs)
    volumes = _padded(inputs, device)
    tables = [table for (table,) in _tables(inputs, device).values()]
    return model.to(device), volumes, tables, targets


def ours_trains(device: str, precision: str = "float32", compile: bool = False, **size: int) -> Step:
    """A training step of the published network by this library, with the cut at the slice embeddings."""
    network, inputs, targets = _simulated(**size)
    network.to(memory_format=torch.channels_last)
    if compile:
        for name in _IMAGES:
            network.encoders[name].backbone.compile()
    return _our_step(network, inputs, targets, Compute(device, precision))


def _our_step(network: MultimodalNet, inputs: Inputs, targets: Targets, compute: Compute) -> Step:
    member = Member(inputs, torch.zeros(len(inputs), dtype=torch.bool))
    net = CohortNet(
        Ensemble([network]),
        criterion=_WeightedSum,
        criterion__weights={},
        members=[member],
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
    network, inputs, targets = _simulated(**size)
    network.to(device).train()
    volumes = _padded(inputs, device)
    encoders = {name: _plain_encoder(network.encoders[name]) for name in volumes}
    tables = _tables(inputs, device)
    targets = targets.take(torch.arange(len(inputs)), torch.device(device))
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4)

    def step() -> dict[str, np.ndarray]:
        torch.manual_seed(1)
        optimizer.zero_grad()
        outputs = network(_encode_volumes(encoders, volumes) | tables, inputs.present.to(device))
        sum(network.losses(outputs, targets.fields, targets.known).values()).backward()
        optimizer.step()
        return _gradients(network)

    return step


def reference_trains(device: str, path: str, **size: int) -> Step:
    """A training step by the published repository's own network, loss and optimiser."""
    model, volumes, tables, targets = _reference(path, device, **size)
    cox = importlib.import_module("mm_dls.CoxphLoss").CoxPHLoss()
    targets = targets.take(torch.arange(len(targets.known["stage"])), torch.device(device))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, weight_decay=1e-5)
    years = torch.tensor([12.0, 36.0, 60.0], device=device)

    def step() -> None:
        optimizer.zero_grad()
        subtype, stage, dfs, os_risk, *horizons = model(volumes["lesion"], volumes["lung"], *tables)
        loss = nn.functional.cross_entropy(subtype, *targets.fields["subtype"])
        loss = loss + nn.functional.cross_entropy(stage, *targets.fields["stage"])
        for risk, logits, name in zip((dfs, os_risk), horizons, ("dfs", "os"), strict=True):
            event, when = targets.fields[name]
            loss = loss + cox(risk, when, event.float())
            by_then = (when[:, None] <= years).float()
            loss = loss + nn.functional.binary_cross_entropy_with_logits(logits, by_then)
        loss.backward()
        optimizer.step()

    return step


def encodes_stack(device: str, how: str, train: bool, **size: int) -> Step:
    """One patient's slices through one encoder: ``plain``, or by ``float32`` or ``bf16`` micro-batches."""
    network, inputs, _ = _simulated(**size)
    data: Any = inputs.data["lesion"]
    encoder, index = network.encoders["lesion"].to(device), np.arange(data.n_items)
    if how == "plain":
        volume, plain = _padded(inputs, device)["lesion"].flatten(0, 1), _plain_encoder(encoder)
        micro_batches, encode = [slice(None)], lambda part: plain(volume[part])
    else:
        compute = Compute(device, how)
        encoder.to(memory_format=torch.channels_last)
        micro_batches = compute.micro_batches(encoder, data, len(index))
        encode = lambda part: compute.encode(encoder, data, index[part])  # noqa: E731

    def step() -> dict[str, np.ndarray]:
        encoder.zero_grad()
        with torch.set_grad_enabled(train):
            found = []
            for part in micro_batches:
                embeddings = encode(part)
                if train:
                    embeddings.sum().backward()
                found.append(embeddings.detach())
        return {"embeddings": torch.cat(found).cpu().numpy(), **(_gradients(encoder) if train else {})}

    return step


def uncut_trains(device: str, **size: int) -> Step:
    """Micro-batches with a loss of their own: what training costs if no slice needs to know of another one."""
    network, inputs, _ = _simulated(**size)
    compute = Compute(device)
    network.to(device=device, memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4)

    def step() -> None:
        optimizer.zero_grad()
        for name in _IMAGES:
            data: Any = inputs.data[name]
            encoder, index = network.encoders[name], np.arange(data.n_items)
            for part in compute.micro_batches(encoder, data, len(index)):
                compute.encode(encoder, data, index[part]).sum().backward()
        optimizer.step()

    return step


def published_network(options: argparse.Namespace, say: Report) -> None:
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
        ("a", f"inference, {what}", ours_predicts, plain_predicts, reference_predicts, (6, 4)),
        ("b", f"training step, {what}", ours_trains, plain_trains, reference_trains, (5, 3.5)),
    ):
        variants = {"float32": Variant(ours, size), "bf16": Variant(ours, {**size, "precision": "bf16"})}
        if options.compile:
            variants["compile"] = Variant(ours, {**size, "compile": True})
        variants["plain loop"] = Variant(plain, size)
        if options.reference:
            variants["published code"] = Variant(reference, {**size, "path": str(options.reference)})
        found = say.measure(variants)
        base = found["plain loop"]
        for name, goal in (("float32", least[0]), ("bf16", least[1]), ("compile", None)):
            if name in variants:
                note = difference(found[name].answer, base.answer)
                say.row(compared(section, job, name, "plain loop", found, None if options.quick else goal, note))
        if options.reference:
            answer = found["published code"].answer
            note = (
                ""
                if answer is None
                else difference({k: v.reshape(len(v), -1) for k, v in found["float32"].answer.items()}, answer)
            )
            say.row(compared(section, job, "float32", "published code", found, None, note))
        if section == "b":
            share = base.peak / found["float32"].peak
            say.line(
                f"(b) Peak memory of the whole process: plain loop {base.peak:,.0f} MB, ours "
                f"{found['float32'].peak:,.0f} MB, {share:.1f} times less (wanted: 8); the step alone adds "
                f"{base.added:,.0f} and {found['float32'].added:,.0f} MB."
            )
    stack = {**size, "n_patients": 1}
    for train, goals in ((False, (2.7, 4.0)), (True, (2.1, 3.5))):
        variants = {
            how: Variant(encodes_stack, {**stack, "how": how, "train": train}) for how in ("float32", "bf16", "plain")
        }
        found = say.measure(variants)
        how_far = "with gradients" if train else "forward"
        job = f"one encoder, {size['n_slices']} slices x {size['size']}^2, {how_far}"
        for how, goal in zip(("float32", "bf16"), goals, strict=True):
            note = difference(found[how].answer, found["plain"].answer)
            # The goals of bf16 are for the whole network; a stack alone is shown beside them.
            least = None if options.quick or how == "bf16" else goal
            say.row(compared("b" if train else "a", job, how, "plain", found, least, note))
    found = say.measure({"cut": Variant(ours_trains, size), "micro-batches": Variant(uncut_trains, size)})
    say.row(
        compared("b", "cut at the embeddings against micro-batches without it", "cut", "micro-batches", found, 1 / 1.5)
    )


def flat_memory(options: argparse.Namespace, say: Report) -> None:
    """Row (b): memory as the batch grows."""
    size = {"n_slices": 2, "size": 64 if options.quick else 112}
    sizes = (4, 32, 128) if options.quick else (4, 32, 128, 512)
    variants = {f"{n}": Variant(ours_trains, {**size, "n_patients": n}) for n in sizes}
    found = say.measure(variants, repeats=1)
    cells = ", ".join(f"{name}: {m.added:,.0f} MB" for name, m in found.items())
    say.line(
        f"(b) Memory that a training step adds, by batch_size ({size['n_slices']} slices of {size['size']}^2 in two "
        f"modalities): {cells}."
    )


def padding(options: argparse.Namespace, say: Report) -> None:
    """Row (c)."""
    n, size = (8, 32) if options.quick else (24, 112)
    counts = np.linspace(5, 30, n).round().astype(int)
    even = np.full(n, counts.sum() // n)
    even[: counts.sum() - even.sum()] += 1
    variants = {
        "5 to 30 slices": Variant(ours_trains, {"n_patients": n, "n_slices": counts, "size": size}),
        "padded to 30": Variant(ours_trains, {"n_patients": n, "n_slices": 30, "size": size}),
        "same slices, equal counts": Variant(ours_trains, {"n_patients": n, "n_slices": even, "size": size}),
    }
    found = say.measure(variants)
    job = f"epoch of {n} patients, {size}^2"
    ideal = 30 * n / counts.sum()
    note = f"{ideal:.2f} times as many slices when padded"
    say.row(compared("c", job, "5 to 30 slices", "padded to 30", found, 0.9 * ideal, note))
    say.row(compared("c", job, "5 to 30 slices", "same slices, equal counts", found, 0.9))


def straight_lines(options: argparse.Namespace, say: Report) -> None:
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
        variants = {str(base[name] * k): Variant(ours_trains, {**base, name: base[name] * k}) for k in factors}
        found = say.measure(variants)
        amounts = np.array([float(k) for k in variants]) ** (2 if name == "size" else 1)
        seconds = np.array([m.median for m in found.values()])
        slope = np.polyfit(np.log(amounts), np.log(seconds), 1)[0]
        cells = ", ".join(f"{k}: {seconds_text(m.median)} s" for k, m in found.items())
        of = "pixels" if name == "size" else label
        say.line(f"(g) A training step by {label}: {cells}. It grows as ({of})^{slope:.2f} (1 = a straight line).")
