"""Lung and lesion masks: the default network against the published one, a plain U-Net and MONAI's U-Net.

    python -m benchmarks.segmentation simulated   # lungs and lesions of simulated CTs, equal processor time for each
    python -m benchmarks.segmentation real        # lungs of real CTs, another scanner, and a whole volume; likewise
    python -m benchmarks.segmentation tumour      # a real tumour, after learning simulated lesions
    python -m benchmarks.segmentation pipeline    # what predicted masks cost the prognosis

Each prints Markdown; ``benchmarks/results/segmentation.md`` holds a run. ``real`` and ``tumour`` read the
folder that ``MMDLS_DATA`` names. One thread throughout, so that processor seconds compare.
"""

import argparse
import multiprocessing
import os
import resource
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.stats import wilcoxon
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import KFold, cross_validate
from sklearn.pipeline import make_pipeline

from mmdls import MMDLS, LungLesionSegmentor, Part, Trainer
from mmdls._files import whole_file
from mmdls.datasets import make_nsclc_cohort
from mmdls.estimators import SliceEncoder
from mmdls.images import read_image, read_mask, voxel_spacing
from mmdls.metrics import dice_score, hausdorff_distance_95, surface_dice

NETS = ("cross_attention_unet", "published", "unet", "monai:UNet")
# HU of the greys 0 and 255 of the real slices in PNG: HU = (grey - 128) / 0.0917225 + 128.
R01_GREYS = (-1267.5, 1512.6)
# What is kept of the lungs found in a volume.
RULES = {
    "everything": {"lung_components": None},
    "two largest parts (default)": {"lung_components": "auto"},
    "inside the body": {"lung_components": None, "lung_inside_body": True},
}
# A coronal series among axial ones, whose mask (made by a network for axial slices) misses most of the lungs.
R01_CORONAL = "R01-046"


def simulated_ct(n_patients: int, seed: int, image_size: int = 96) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Simulated CTs with the masks of lung and lesion."""
    X, y = make_nsclc_cohort(
        n_patients, n_slices=4, image_size=image_size, masks=True, return_X_y=True, random_state=seed
    )
    return X.drop(columns="lesion_image").rename(columns={"lung_image": "ct_image"}), y


def measure(true: np.ndarray, found: np.ndarray, spacing: tuple[float, float, float]) -> dict[str, float]:
    """Overlap and distances of one patient's masks."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {
            "dice": dice_score(true, found),
            "hd95": hausdorff_distance_95(true, found, spacing),
            "surface_dice": surface_dice(true, found, tolerance=2.0, spacing=spacing),
        }


def interval(values: np.ndarray, n_resamples: int = 5000) -> str:
    """Mean with its 95 % bootstrap interval over patients."""
    values = np.asarray(values, dtype=float)
    values = values[np.isfinite(values)]
    rng = np.random.default_rng(0)
    means = values[rng.integers(0, len(values), (n_resamples, len(values)))].mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return f"{values.mean():.3f} [{low:.3f}, {high:.3f}]"


def fit_for(budget: float, train: pd.DataFrame, **params) -> tuple[LungLesionSegmentor, float]:
    """As many epochs as fit into some processor seconds, by the times of two short trainings."""

    def fit(max_epochs: int) -> tuple[LungLesionSegmentor, float]:
        start = time.process_time()
        model = LungLesionSegmentor(max_epochs=max_epochs, patience=None, **params).fit(train)
        return model, time.process_time() - start

    LungLesionSegmentor(max_epochs=1, **params).fit(train[:8])
    one, three = fit(1)[1], fit(3)[1]
    each = (three - one) / 2
    return fit(max(round((budget - one) / each) + 1, 2))


def ms_per_slice(model: LungLesionSegmentor, size: int) -> float:
    """The network alone, in batches of 16."""
    image = torch.rand(16, 1, size, size).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        model.network_(image)
        start = time.process_time()
        for _ in range(5):
            model.network_(image)
    return 1000 * (time.process_time() - start) / 80


def run_simulated(job: tuple[str, int, float, int, int]) -> tuple[pd.DataFrame, dict, list]:
    """One network on one seed, in a process of its own."""
    net, seed, budget, n_train, n_test = job
    torch.set_num_threads(1)
    train, test = simulated_ct(n_train, 2 * seed)[0], simulated_ct(n_test, 2 * seed + 1)[0]
    model, seconds = fit_for(budget, train, net=net, image_size=96, random_state=seed)
    masks = model.predict(test[["ct_image"]])
    spacing = (5.0, 240 / 96, 240 / 96)
    rows = [
        {"net": net, "seed": seed, "patient": patient, "structure": name.removesuffix("_mask")}
        | measure(test.at[patient, name], masks.at[patient, name], spacing)
        for name in masks
        for patient in test.index
    ]
    facts = {
        "net": net,
        "seed": seed,
        "parameters": sum(p.numel() for p in model.network_.parameters()),
        "epochs": len(model.history_),
        "training s": seconds,
        "ms per slice": ms_per_slice(model, 96),
        "process GiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }
    sheet = [(test.at[p, "ct_image"], test.at[p, "lesion_mask"], masks.at[p, "lesion_mask"]) for p in test.index]
    return pd.DataFrame(rows), facts, sheet if net == NETS[0] and seed == 0 else []


def simulated(budget: float, n_train: int, n_test: int, n_seeds: int, n_jobs: int, sheet: Path | None) -> None:
    """Equal processor time, data and seed for every network."""
    jobs = [(net, seed, budget, n_train, n_test) for seed in range(n_seeds) for net in NETS]
    print(
        f"\n{n_train} patients to learn from, {n_test} to test, four slices of 96 x 96 each, {n_seeds} seed(s), "
        f"{budget:g} processor seconds of training; distances in mm (2.5 mm pixels).\n"
    )
    cases = compare(run_all(run_simulated, jobs, n_jobs))
    if sheet is not None:
        contact_sheet(cases, sheet, "simulated lesions")


def run_all(run: Callable, jobs: list, n_jobs: int) -> list:
    """Each job in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(n_jobs, maxtasksperchild=1) as pool:
        return pool.map(run, jobs, chunksize=1)


def compare(found: list[tuple[pd.DataFrame, dict, list]]) -> list:
    """Tables of all networks and of the default against each other one; the cases of the default's first seed."""
    scores, facts = pd.concat([rows for rows, _, _ in found]), pd.DataFrame([each for _, each, _ in found])
    metrics, structures, seeds = ["dice", "hd95", "surface_dice"], scores["structure"].unique(), scores["seed"].unique()
    print("| network | structure | Dice | HD95 | surface Dice | not found |\n|---|---|---|---|---|---|")
    for (net, structure), part in scores.groupby(["net", "structure"], sort=False):
        texts = [interval(part[metric]) for metric in metrics]
        print(f"| {net} | {structure} | {' | '.join(texts)} | {int((part['dice'] == 0).sum())} of {len(part)} |")
    print("\nThe default minus each of the others, patient by patient:\n")
    print("| against | structure | seed | Dice | HD95 | surface Dice | p (Wilcoxon, Dice) |")
    print("|" + "---|" * 7)
    wide = scores.pivot(index=["structure", "seed", "patient"], columns="net", values=metrics)
    for net in scores["net"].unique()[1:]:
        for structure in structures:
            for seed in [*seeds, "all"] if len(seeds) > 1 else seeds:
                part = wide.loc[structure] if seed == "all" else wide.loc[structure].loc[seed]
                gain = {metric: part[metric][NETS[0]] - part[metric][net] for metric in metrics}
                texts = " | ".join(interval(gain[metric]) for metric in metrics)
                p = wilcoxon(gain["dice"].dropna()).pvalue
                print(f"| {net} | {structure} | {seed} | {texts} | {p:.2g} |")
    print()
    means = facts.drop(columns="seed").groupby("net", sort=False).mean()
    print("| network | " + " | ".join(means.columns) + " |\n|" + "---|" * (len(means.columns) + 1))
    for net, row in means.iterrows():
        print(f"| {net} | " + " | ".join(f"{v:,.0f}" if v > 100 else f"{v:.2f}" for v in row) + " |")
    return found[0][2]


def real_lungs(data: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Patients of the real cohort to learn from, and 25 held out."""
    folders = sorted((data / "r01" / "images").iterdir())
    X = pd.DataFrame(
        {"ct_image": [str(f / "ct") for f in folders], "lung_mask": [str(f / "lung_mask") for f in folders]},
        index=[f.name for f in folders],
    )
    order = np.random.default_rng(0).permutation(len(X))
    return X.iloc[order[25:]], X.iloc[order[:25]]


def run_real(job: tuple[str, int, float, Path]) -> tuple[pd.DataFrame, dict, list, dict]:
    """One network on real lungs, in a process of its own: patients held out, and a scanner never seen."""
    net, seed, budget, data = job
    torch.set_num_threads(1)
    train, test = real_lungs(data)
    wall = time.perf_counter()
    model, seconds = fit_for(budget, train, net=net, grey_range=R01_GREYS, random_state=seed)
    wall = time.perf_counter() - wall
    masks = model.predict(test)["lung_mask"]
    rows, sheet = [], []
    for patient, row in test.iterrows():
        true = read_mask(row["lung_mask"], patient)
        score = measure(true, masks[patient], (20.0, 1.0, 1.0))
        rows.append({"net": net, "seed": seed, "patient": patient, "structure": "lung"} | score)
        sheet.append((read_image(row["ct_image"]), true, masks[patient]))
    facts = {
        "net": net,
        "seed": seed,
        "epochs": len(model.history_),
        "training s": seconds,
        "with trials, on the clock, s": wall,
        "ms per slice": ms_per_slice(model, 128),
    }
    return pd.DataFrame(rows), facts, sheet, another_scanner(model, data)


def another_scanner(model: LungLesionSegmentor, data: Path) -> dict[str, dict]:
    """Lungs of LUNG1-001: scores, seconds, memory and, slice by slice, the pixels found, true, and both."""
    ct = str(data / "lung1_001" / "LUNG1-001_ct_hu.nii.gz")
    lungs = read_image(data / "lung1_001" / "LUNG1-001_lungs_label.nii.gz") > 0
    found = {}
    for rule, params in RULES.items():
        model.set_params(**params)
        start = time.perf_counter()
        mask = model.predict(pd.DataFrame({"ct_image": [ct]}, index=["LUNG1-001"]))["lung_mask"].iloc[0]
        seconds = time.perf_counter() - start
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        score = measure(lungs, mask, voxel_spacing(ct)) | {"seconds": seconds, "process GiB": peak}
        pixels = np.stack([part.sum(axis=(1, 2)) for part in (mask & lungs, mask, lungs)])
        found[rule] = {"score": score, "pixels": pixels}
    return found


def slab_interval(ours: np.ndarray, theirs: np.ndarray, length: int = 10, n_resamples: int = 5000) -> str:
    """Difference of two Dice of one volume, with a 95 % bootstrap interval over slabs of adjacent slices.

    There is one patient: the interval tells how the difference varies along the body, not among patients.
    """
    rng = np.random.default_rng(0)
    starts = np.arange(0, ours.shape[1], length)
    slabs = [np.stack([np.add.reduceat(part, starts) for part in pixels]) for pixels in (ours, theirs)]
    drawn = rng.integers(0, len(starts), (n_resamples, len(starts)))

    def dice(pixels: np.ndarray, rows: np.ndarray) -> np.ndarray:
        both, found, true = pixels[:, rows].sum(axis=-1)
        return 2 * both / np.maximum(found + true, 1)

    whole = np.arange(len(starts))
    low, high = np.percentile(dice(slabs[0], drawn) - dice(slabs[1], drawn), [2.5, 97.5])
    return f"{dice(slabs[0], whole) - dice(slabs[1], whole):.3f} [{low:.3f}, {high:.3f}]"


def real(data: Path, budget: float, n_jobs: int, sheet: Path | None) -> None:
    """Lungs of patients held out, then a scanner and a kind of file never seen; equal processor time."""
    found = run_all(run_real, [(net, 0, budget, data) for net in NETS], n_jobs)
    print(
        f"\n{len(real_lungs(data)[0])} patients to learn from, 25 held out; {budget:g} processor seconds of training; "
        f"distances in pixels.\n\nWithout the coronal series {R01_CORONAL}:\n"
    )
    compare([(rows[rows["patient"] != R01_CORONAL], facts, cases) for rows, facts, cases, _ in found])
    print("\nWith it:\n")
    cases = compare([part[:3] for part in found])
    if sheet is not None:
        contact_sheet(cases, sheet, "lungs")
    print("\nThe volume of another scanner, 134 slices of 512 x 512; distances in mm:\n")
    volumes = {facts["net"]: volume for _, facts, _, volume in found}
    print("| network | kept | Dice | HD95 | surface Dice (2 mm) | seconds | process GiB | default minus it, Dice |")
    print("|" + "---|" * 8)
    for rule in RULES:
        for net, volume in volumes.items():
            texts = " | ".join(f"{v:.3f}" for v in volume[rule]["score"].values())
            gain = slab_interval(volumes[NETS[0]][rule]["pixels"], volume[rule]["pixels"]) if net != NETS[0] else ""
            print(f"| {net} | {rule} | {texts} | {gain} |")


def tumour(data: Path, budget: float, n_train: int) -> None:
    """What a segmentor that learned simulated lesions finds of a real tumour."""
    model, seconds = fit_for(budget, simulated_ct(n_train, 0)[0], image_size=96, random_state=0)
    ct = str(data / "lung1_001" / "LUNG1-001_ct_hu.nii.gz")
    gtv = read_mask(data / "lung1_001" / "LUNG1-001_gtv1_mask.nii.gz")
    found = model.predict(pd.DataFrame({"ct_image": [ct]}))["lesion_mask"].iloc[0]
    millilitres = np.prod(voxel_spacing(ct)) / 1000
    print("\n| Dice | tumour, mL | called lesion, mL | of the tumour found, mL |\n|---|---|---|---|")
    volumes = [f"{part.sum() * millilitres:.1f}" for part in (gtv, found, gtv & found)]
    print(f"| {dice_score(gtv, found):.3f} | {' | '.join(volumes)} |")


class TrueMasks(TransformerMixin, BaseEstimator):
    """What the segmentor's ``transform`` would give if its masks were the true ones."""

    def fit(self, X: pd.DataFrame, y: object = None) -> "TrueMasks":
        self.cutter_ = LungLesionSegmentor()
        return self

    def transform(self, X: pd.DataFrame) -> pd.DataFrame:
        cutter = self.cutter_
        cutter.structures_, cutter.network_ = ["lung", "lesion"], torch.nn.Identity()
        known = iter(X[["lung_mask", "lesion_mask"]].to_numpy())
        cutter._masks = lambda *_: dict(zip(cutter.structures_, next(known), strict=True))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return cutter.transform(X)


def pipeline(n_patients: int, max_epochs: int) -> None:
    """Prognosis from masks found by a segmentor that is fitted in every fold, or frozen, or from true masks."""
    X, y = simulated_ct(n_patients, 7)
    image = SliceEncoder(backbone=Part("conv", width=16, strides=(2, 2)))
    segmentor = LungLesionSegmentor(image_size=96, max_epochs=20, random_state=0)
    frozen = FrozenEstimator(
        LungLesionSegmentor(image_size=96, max_epochs=60, random_state=0).fit(simulated_ct(120, 8)[0])
    )
    imaging = X[["ct_image", "lung_mask", "lesion_mask"]]
    print(f"\n{n_patients} simulated patients, CT alone, three folds; the model's own score, mean over its tasks.\n")
    print("| masks | score of each fold | mean | seconds |\n|---|---|---|---|")
    for name, first in (("true", TrueMasks()), ("refitted in each fold", segmentor), ("frozen", frozen)):
        start = time.process_time()
        model = make_pipeline(first, MMDLS(image_encoder=image, trainer=Trainer(max_epochs=max_epochs), random_state=0))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            scores = cross_validate(model, imaging, y, cv=KFold(3, shuffle=True, random_state=0), error_score="raise")
        folds = scores["test_score"]
        seconds = time.process_time() - start
        print(f"| {name} | {', '.join(f'{s:.3f}' for s in folds)} | {folds.mean():.3f} | {seconds:.0f} |", flush=True)


def contact_sheet(cases: list, path: Path, what: str) -> None:
    """The best two, the middle two and the worst two cases, each at the slice with the largest structure."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    scores = np.array([dice_score(true, found) for _, true, found in cases])
    order = np.argsort(-scores)
    middle = len(order) // 2
    chosen = [*order[:2], *order[middle : middle + 2], *order[-2:]]
    figure, axes = plt.subplots(1, 6, figsize=(18, 3.4))
    for axis, case, label in zip(axes, chosen, ["best"] * 2 + ["median"] * 2 + ["worst"] * 2, strict=True):
        image, true, found = cases[case]
        shown = int(true.sum(axis=(1, 2)).argmax())
        axis.imshow(image[shown], cmap="gray")
        axis.contour(true[shown], [0.5], colors="lime", linewidths=1)
        if found[shown].any():
            axis.contour(found[shown], [0.5], colors="red", linewidths=1, linestyles="dashed")
        axis.set_title(f"{label}: Dice {scores[case]:.3f}")
        axis.axis("off")
    figure.suptitle(f"{what}: true (green), found (red, dashed)", y=1.04)
    with whole_file(path) as partial:
        figure.savefig(partial, dpi=60, bbox_inches="tight")
    plt.close(figure)


def main() -> None:
    """Run one part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["simulated", "real", "tumour", "pipeline"])
    parser.add_argument("--budget", type=float, default=150.0, help="processor seconds of training")
    parser.add_argument("--patients", type=int, default=120, help="patients to learn from")
    parser.add_argument("--test-patients", type=int, default=150)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--sheet", type=Path, default=None, help="where the contact sheet goes, a .png")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.part == "simulated":
        simulated(options.budget, options.patients, options.test_patients, options.seeds, options.jobs, options.sheet)
    elif options.part == "pipeline":
        pipeline(options.patients, options.epochs)
    elif "MMDLS_DATA" not in os.environ:
        raise SystemExit("set MMDLS_DATA to the folder of real data")
    elif options.part == "real":
        real(Path(os.environ["MMDLS_DATA"]), options.budget, options.jobs, options.sheet)
    else:
        tumour(Path(os.environ["MMDLS_DATA"]), options.budget, options.patients)


if __name__ == "__main__":
    main()
