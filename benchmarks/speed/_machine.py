"""The machine's own rate of arithmetic, and what half precision changes in answers."""

import argparse
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.speed._measuring import Step, Variant, seconds_text
from benchmarks.speed._network import ours_predicts, ours_trains, plain_trains
from benchmarks.speed._report import Report
from mmdls import Trainer
from mmdls.datasets import make_nsclc_cohort
from mmdls.estimators import MMDLS, SliceEncoder
from mmdls.kernels import using
from mmdls.metrics import auc_score, concordance_index


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


def _predicted_flops(n_patients: int, **size: Any) -> float:
    """Floating-point operations of a prediction; patients are alike."""
    step, counter = ours_predicts("cpu", n_patients=1, **size), FlopCounterMode(display=False)
    with using("plain"):  # kernels need fewer, which are not counted
        step()  # the first call also encodes a blank item, to know the sizes of its maps
        with counter:
            step()
    return n_patients * counter.get_total_flops()


def machine_share(options: argparse.Namespace, say: Report) -> None:
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
    networks = {"published": size, "default": {"n_patients": 64, "n_slices": 16, "size": 128, "model": "default"}}
    if options.quick:
        networks["default"] |= {"n_patients": 4}
    flops = _flops_a_pixel() * 2 * size["n_patients"] * size["n_slices"] * size["size"] ** 2
    for precision in ("float32", "bf16"):
        variants = {
            "training": Variant(ours_trains, {**size, "precision": precision}),
            "matrix product": Variant(multiplies, {"n": n, "precision": precision}),
            **{name: Variant(ours_predicts, {**each, "precision": precision}) for name, each in networks.items()},
        }
        found = say.measure(variants)
        ours = flops / found["training"].median
        machine = 2 * n**3 / found["matrix product"].median
        say.line(
            f"(h) {precision}: training does {ours / 1e9:.0f} GFLOP/s of useful arithmetic (forward and gradients "
            f"once; the second look at the slices is not counted), {ours / machine:.0%} of the {machine / 1e9:.0f} "
            f"GFLOP/s of a {n} x {n} matrix product."
        )
        for name, each in networks.items():
            ours = _predicted_flops(**each) / found[name].median
            say.line(
                f"(h) {precision}: prediction of the {name} network ({each['n_patients']} patients x 2 x "
                f"{each['n_slices']} slices x {each['size']}^2, {seconds_text(found[name].median)} s) does "
                f"{ours / 1e9:.0f} GFLOP/s, {ours / machine:.0%} of the same matrix product."
            )


def bf16_answers(options: argparse.Namespace, say: Report) -> None:
    """What bf16 changes in the answers: of a model as it is, and of one that is trained with it."""
    n, epochs, seeds = (60, 3, 1) if options.quick else (400, 20, 3)
    shifts = []
    for seed in range(seeds):
        X, y = make_nsclc_cohort(2 * n, n_slices=(2, 4), image_size=32, return_X_y=True, random_state=seed)
        X, y = X[["lesion_image", "clinical_age"]], y[["subtype", "os_time", "os_event"]]
        encoder = SliceEncoder(backbone="conv")
        trainer = Trainer(max_epochs=epochs, patience=None)
        model = MMDLS(image_encoder=encoder, trainer=trainer, random_state=seed).fit(X[:n], y[:n])
        single = _scores(model, X[n:], y[n:])
        as_it_is = _scores(model.set_params(trainer__precision="bf16"), X[n:], y[n:])
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
