"""Prediction of the published network beside other runtimes that compute the same convolutions."""

import argparse
import importlib.util
import os
import shutil
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.speed._measuring import Step, Variant, compared, difference
from benchmarks.speed._network import _answers, _padded, _plain_encoder, _simulated, _tables, ours_predicts
from benchmarks.speed._report import Report

# What each needs, as Python packages.
_NEEDS = {"onnxruntime": ("onnxruntime", "onnxscript"), "OpenVINO": ("openvino",), "torch.compile": ()}
_WITHIN = 1.1


def _prepared(runtime: str, encoder: nn.Module, example: Tensor, precision: str) -> Callable[[Tensor], Tensor]:
    """An encoder as a function of images of the example's shape, for which the runtime may arrange everything."""
    if runtime == "torch.compile":
        return torch.compile(encoder)
    if runtime == "onnxruntime":
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = torch.get_num_threads(), 1
        program = torch.onnx.export(encoder, (example,), dynamo=True, verbose=False)
        session = onnxruntime.InferenceSession(
            program.model_proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        (images,) = session.get_inputs()
        return lambda part: torch.as_tensor(session.run(None, {images.name: part.numpy()})[0])
    import openvino

    model = openvino.convert_model(torch.export.export(encoder, (example,)))  # from a module it crashes for ResNets
    hints = {
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "INFERENCE_PRECISION_HINT": {"float32": "f32", "bf16": "bf16"}[precision],
        "PERFORMANCE_HINT": "LATENCY",
    }
    compiled = openvino.compile_model(model, "CPU", hints)
    return lambda part: torch.as_tensor(compiled(part.numpy())[0])


def runtime_predicts(device: str, runtime: str, at_once: int, precision: str = "float32", **size: int) -> Step:
    """Inference of the published network, its encoders run by another runtime on so many slices at once.

    Images are floats already, and the little that follows the encoders is torch's.
    """
    network, inputs, _ = _simulated(**size)
    network.to(device).eval()
    volumes, tables = _padded(inputs, device), _tables(inputs, device)
    images = {name: volume.flatten(0, 1) for name, volume in volumes.items()}
    if runtime == "torch.compile":
        network.to(memory_format=torch.channels_last)
        images = {name: image.to(memory_format=torch.channels_last) for name, image in images.items()}
    counts = torch.full((size["n_patients"],), size["n_slices"])
    encoders = {
        name: _prepared(runtime, _plain_encoder(network.encoders[name]), image[:at_once], precision)
        for name, image in images.items()
    }

    def step() -> dict[str, np.ndarray]:
        with torch.no_grad():
            packed = {
                name: (torch.cat([encoders[name](part) for part in image.split(at_once)]), counts)
                for name, image in images.items()
            }
            return _answers(network(packed | tables, inputs.present))

    return step


def _lacking(runtime: str) -> str:
    """Why a runtime cannot be measured here; empty if it can."""
    missing = [package for package in _NEEDS[runtime] if importlib.util.find_spec(package) is None]
    if missing:
        return f'{", ".join(missing)} not installed; pip install "mmdls[speed]"'
    compilers = (os.environ.get("CXX") or "g++", "clang++")
    if runtime == "torch.compile" and not any(map(shutil.which, compilers)):
        return "no C++ compiler"
    return ""


def other_runtimes(options: argparse.Namespace, say: Report) -> None:
    """Row (i)."""
    if options.device != "cpu":
        say.line("(i) Other runtimes are compared on a CPU only.")
        return
    size = {"n_patients": 2, "n_slices": 30, "size": 224}
    if options.quick:
        size = {"n_patients": 2, "n_slices": 4, "size": 64}
    variants = {"float32": Variant(ours_predicts, size), "bf16": Variant(ours_predicts, {**size, "precision": "bf16"})}
    pairs = {}
    for runtime in _NEEDS:
        lacking = _lacking(runtime)
        if lacking:
            say.line(f"(i) {runtime} is left out: {lacking}.")
            continue
        settings = {**size, "runtime": runtime}
        for at_once in (1,) if runtime == "torch.compile" else (1, size["n_slices"]):
            name = f"{runtime}, {at_once} at once"
            variants[name], pairs[name] = Variant(runtime_predicts, {**settings, "at_once": at_once}), "float32"
        if runtime == "OpenVINO":
            name = f"{runtime}, bf16"
            settings |= {"at_once": size["n_slices"], "precision": "bf16"}
            variants[name], pairs[name] = Variant(runtime_predicts, settings), "bf16"
    if not pairs:
        return
    found = say.measure(variants)
    job = f"inference, {size['n_patients']} patients x 2 x {size['n_slices']} slices x {size['size']}^2"
    for name, ours in pairs.items():
        note = difference(found[ours].answer, found[name].answer)
        say.row(compared("i", job, ours, name, found, None if options.quick else 1 / _WITHIN, note))
    seconds = {name: found[name].median for name, ours in pairs.items() if ours == "float32"}
    best, ours = min(seconds, key=seconds.__getitem__), found["float32"].median
    say.line(
        f"(i) The fastest of the others in float32 is {best}, {seconds[best]:.3g} s; ours takes {ours:.3g} s, "
        f"{ours / seconds[best]:.2f} times as long (wanted: at most {_WITHIN})."
    )
