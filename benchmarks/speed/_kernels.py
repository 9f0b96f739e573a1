"""Encoders of slices with and without kernels, beside what else computes the same convolutions."""

import argparse
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.speed._machine import multiplies
from benchmarks.speed._measuring import Measured, Step, Variant, compared, seconds_text
from benchmarks.speed._report import Report
from benchmarks.speed._runtimes import _lacking, _prepared
from mmdls.estimators.encoders._slices import SliceData
from mmdls.images import SliceStore
from mmdls.kernels import info, using
from mmdls.modules import SliceNet
from mmdls.registry import backbones, poolings
from mmdls.training._compute import Compute, channels_last

_NETWORKS = {"published": "conv", "default": "antialiased", "resnet18": "resnet18"}
_RUNTIMES = ("onnxruntime", "OpenVINO", "torch.compile")
# Prediction and training step, kernels against usual convolutions in plain PyTorch or in our own way.
_GOALS = {("published", "plain PyTorch"): (6, 5), ("resnet18", "usual"): (1.4, 1.4), ("default", "usual"): (0.95, 0.95)}


class _Plain(nn.Module):
    """What one writes in PyTorch: the backbone on all images at once, and the mean of its last map."""

    def __init__(self, backbone: Any):
        super().__init__()
        self.backbone = backbone

    def forward(self, images: Tensor) -> Tensor:
        return self.backbone(images)[-1].mean(dim=(2, 3))


def encodes(device: str, network: str, how: str, train: bool, n_slices: int, size: int) -> Step:
    """Features of slices, or their gradients, by a backbone of ``network``.

    ``how`` is ``"kernels"``, ``"usual"`` or ``"nnpack"``, which are this library's own way with each kind of
    convolution, ``"plain PyTorch"``, ``"float64"``, or the name of another runtime.
    """
    torch.manual_seed(0)
    backbone = backbones[_NETWORKS[network]]()
    pixels = np.random.default_rng(0).integers(0, 256, (n_slices, size, size), dtype=np.uint8)
    data = SliceData(SliceStore(pixels, np.array([n_slices]), 0.5, 0.3, ""))
    everything = np.arange(n_slices)
    if how in ("kernels", "usual", "nnpack"):
        encoder, compute = SliceNet(backbone, poolings["mean"](8), 8), Compute(device)
        channels_last(encoder)
        way = {"kernels": info().way, "usual": "plain", "nnpack": "nnpack"}[how]

        def features(part: slice) -> Tensor:
            return compute.features(encoder, data, everything[part])

        with using(way):
            parts = compute.micro_batches(encoder, data, n_slices)
    else:
        way, parts = "plain", [slice(None)]
        images, encoder = data.read(everything), _Plain(backbone)
        if how == "float64":
            images, encoder = images.double(), encoder.double()
        run = _prepared(how, encoder.eval(), images, "float32") if how in _RUNTIMES else encoder

        def features(part: slice) -> Tensor:
            return run(images[part])

    def step() -> dict[str, np.ndarray]:
        encoder.zero_grad()
        found = []
        with using(way), torch.set_grad_enabled(train):
            for part in parts:
                embedded = features(part)
                if train:
                    embedded.sum().backward()
                found.append(embedded.detach())
        answer = {"features": torch.cat(found).numpy()}
        if train:
            answer |= {name: weight.grad.numpy() for name, weight in backbone.named_parameters()}
        return answer

    return step


def _error(found: Measured, exact: Measured) -> str:
    """The largest relative error, norm by norm, of features and gradients."""
    errors = [
        np.linalg.norm(np.asarray(found.answer[name], dtype=float) - value) / max(np.linalg.norm(value), 1e-300)
        for name, value in exact.answer.items()
    ]
    return f"{max(errors):.0e}"


def kernels(options: argparse.Namespace, say: Report) -> None:
    """Row (k)."""
    if options.device != "cpu":
        say.line("(k) Kernels are compared on a CPU only.")
        return
    say.line(f"(k) Kernels: {info()}")
    if info().way == "plain":
        return
    for network in _NETWORKS:
        side = 128 if network == "default" else 224
        size = {"n_slices": 4, "size": 64} if options.quick else {"n_slices": 24, "size": side}
        for train in (False, True):
            _compare(network, train, size, options, say)


def _compare(network: str, train: bool, size: dict[str, int], options: argparse.Namespace, say: Report) -> None:
    """One network and job, with every number of threads."""
    job = f"{network} encoder, {size['n_slices']} slices x {size['size']}^2, {'training' if train else 'prediction'}"
    ways = ["kernels", "usual", "plain PyTorch"]
    if not train:
        ways += ["nnpack"] if torch.backends.nnpack.is_available() else []
        ways += [runtime for runtime in _RUNTIMES if not _lacking(runtime)]
    settings = {"network": network, "train": train, **size}
    exact = say.measure({"float64": Variant(encodes, {**settings, "how": "float64"})}, repeats=1)["float64"]
    side = 1024 if options.quick else 3072
    for n_threads in sorted({1, options.threads}):
        variants = {how: Variant(encodes, {**settings, "how": how}) for how in ways}
        variants["matrix product"] = Variant(multiplies, {"n": side})
        found = say.measure(variants, threads=n_threads)
        for how in ways[1:]:
            goal = None if options.quick else _GOALS.get((network, how), (None, None))[train]
            note = f"errors {_error(found['kernels'], exact)}, {_error(found[how], exact)}"
            say.row(compared("k", f"{job}, {n_threads} threads", "kernels", how, found, goal, note))
        rate = 2 * side**3 / found["matrix product"].median / 1e9
        say.line(
            f"(k) {job}, {n_threads} threads: {seconds_text(found['kernels'].median)} s with kernels; a matrix product "
            f"ran at {rate:.0f} GFLOP/s."
        )
