"""Time and memory of ``mmdls prepare`` on synthetic CT of the size of real ones.

``python -m benchmarks.preparation`` writes 16 DICOM series of 120 slices of 512 x 512 pixels with masks (1.1 GB) into a
temporary folder and prepares them with one process and with two, in turns: by the command, which loads everything, and
by ``prepare_cohort`` in a session that has loaded everything, where only new processes must. It prints the medians,
their ratio, and the peak memory of one patient in volumes of 16 bits. ``--patients 4`` is quicker. Other work on the
machine counts, so its load is printed too, and the time on processors, which tells what two free cores would need.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
import tracemalloc
from pathlib import Path
from statistics import median

import numpy as np
import pandas as pd
from joblib.externals.loky import get_reusable_executor

from mmdls import prepare_cohort
from mmdls._files import whole_file
from mmdls.datasets._scans import _file
from mmdls.scans import Volume, read_scan, write_nifti

SIDE, STEP = 0.75, 2.5


def write_patients(folder: Path, n_patients: int, n_slices: int) -> pd.DataFrame:
    """A body with two lungs and a lesion of 40 mm, and noise, so that nothing compresses unusually well."""
    z, y, x = np.meshgrid(*[np.linspace(-1, 1, n) for n in (n_slices, 512, 512)], indexing="ij", sparse=True)
    body = (x / 0.9) ** 2 + (y / 0.7) ** 2 <= 1
    lung = ((abs(x) - 0.4) / 0.3) ** 2 + (y / 0.5) ** 2 + z**2 <= 1
    reach = np.array([n_slices * STEP, 512 * SIDE, 512 * SIDE]) / 2
    lesion = ((z * reach[0]) ** 2 + (y * reach[1]) ** 2 + ((x - 0.4) * reach[2]) ** 2) <= 20**2
    quiet = np.where(lesion, 40, np.where(lung, -800, np.where(body, 30, -1000)) + 0 * z).astype(np.int16)
    rows = []
    for number in range(1, n_patients + 1):
        rng = np.random.default_rng(number)
        place = folder / f"P{number:02d}"
        (place / "ct").mkdir(parents=True)
        for i, image in enumerate(quiet):
            file = _file("CT", number, i)
            file.RescaleSlope, file.RescaleIntercept, file.RescaleType = 1, -1024, "HU"
            file.Rows, file.Columns, file.SamplesPerPixel, file.PixelRepresentation = 512, 512, 1, 0
            file.PhotometricInterpretation, file.ImageType = "MONOCHROME2", ["ORIGINAL", "PRIMARY", "AXIAL"]
            file.BitsAllocated, file.BitsStored, file.HighBit = 16, 16, 15
            file.PixelSpacing, file.SliceThickness = [SIDE, SIDE], STEP
            file.ImagePositionPatient, file.ImageOrientationPatient = [0.0, 0.0, STEP * i], [1, 0, 0, 0, 1, 0]
            noisy = image + 1024 + rng.integers(-20, 21, image.shape)
            file.PixelData = noisy.clip(0, 4095).astype(np.uint16).tobytes()
            file.save_as(place / "ct" / f"{i:03d}.dcm", enforce_file_format=True)
        affine = read_scan(place / "ct", unit="HU").affine
        for name, mask in (("lesion", lesion), ("lung", lung)):
            write_nifti(Volume(np.broadcast_to(mask, quiet.shape), affine), place / f"{name}.nii.gz")
        paths = {name: place / f"{name}.nii.gz" for name in ("lesion", "lung")}
        rows.append({"patient_id": f"P{number:02d}", "ct": place / "ct", **paths})
    return pd.DataFrame(rows).astype(str)


def processor_time() -> float:
    """Seconds of this process and of those that have ended."""
    used = [resource.getrusage(whose) for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def by_command(table: Path, folder: Path, n_jobs: int) -> None:
    """As somebody types it."""
    command = [sys.executable, "-m", "mmdls", "prepare", str(table), str(folder), "--jobs", str(n_jobs), "--quiet"]
    subprocess.run(command, check=True, capture_output=True)


def in_session(table: Path, folder: Path, n_jobs: int) -> None:
    """As in a notebook that has prepared patients before."""
    prepare_cohort(table, folder, n_jobs=n_jobs)
    get_reusable_executor().shutdown()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patients", type=int, default=16)
    parser.add_argument("--slices", type=int, default=120)
    parser.add_argument("--turns", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        scans = write_patients(Path(place) / "scans", arguments.patients, arguments.slices)
        table = Path(place) / "table.csv"
        with whole_file(table) as path:
            scans.to_csv(path, index=False)
        # Files that the system has not read yet count for neither.
        prepare_cohort(table, Path(place) / "first")
        for prepare in (by_command, in_session):
            seconds: dict[int, list[float]] = {1: [], 2: []}
            processor: dict[int, list[float]] = {1: [], 2: []}
            for turn in range(arguments.turns):
                for n_jobs in (1, 2):
                    start, before = time.perf_counter(), processor_time()
                    prepare(table, Path(place) / f"{prepare.__name__}-{turn}-{n_jobs}", n_jobs)
                    seconds[n_jobs].append(time.perf_counter() - start)
                    # Of processes side by side each needs its share.
                    processor[n_jobs].append((processor_time() - before) / n_jobs)
                    print(
                        f"{prepare.__name__}, {n_jobs} processes: {seconds[n_jobs][-1]:.1f} s for {len(scans)} "
                        f"patients, {processor[n_jobs][-1]:.1f} s of each processor, load {os.getloadavg()[0]:.1f}",
                        flush=True,
                    )
            for what, spent in (("clock", seconds), ("time of processors", processor)):
                one, two = median(spent[1]), median(spent[2])
                print(f"{prepare.__name__}: {one:.1f} and {two:.1f} s, two are {one / two:.2f} times faster, by {what}")
        tracemalloc.start()
        prepare_cohort(scans[:1], Path(place) / "memory")
        peak = tracemalloc.get_traced_memory()[1]
        volume = arguments.slices * 512 * 512 * 2
        print(f"peak memory of a patient: {peak / 1e6:.0f} MB, {peak / volume:.2f} volumes of {volume / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
