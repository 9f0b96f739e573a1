"""Loading of images, decoded once or every time."""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch

from benchmarks.speed._measuring import Step, Variant, compared, difference
from benchmarks.speed._report import Report
from mmdls.estimators.encoders._slices import SliceData
from mmdls.images import SliceStore


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
    total, data = 0.0, SliceData(store)
    for row in range(len(data)):
        index, _ = data.index_of(np.array([row]))
        total += float(data.read(index, device)[0, 0, 0, 0])
    return {"sum": np.asarray(total)}


def data_loading(options: argparse.Namespace, say: Report) -> None:
    """Row (e)."""
    n, slices, size = (6, 5, 64) if options.quick else (20, 30, 224)
    with tempfile.TemporaryDirectory() as root:
        root = Path(root)
        (root / "images").mkdir()
        (root / "memory").mkdir()
        folders = _write_folders(root / "images", n, slices, size)
        hows = ("later epochs", "second fit", "first", "decoding")
        variants = {
            how: Variant(loads, {"how": how, "folders": folders, "memory": str(root / "memory")}) for how in hows
        }
        found = say.measure(variants)
        job = f"loading {n} patients x {slices} PNG slices of {size}^2"
        for how, least in (("later epochs", 20), ("second fit", None), ("first", None)):
            note = difference(found[how].answer, found["decoding"].answer)
            say.row(compared("e", job, how, "decoding", found, None if options.quick else least, note))
