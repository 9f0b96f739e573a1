"""``mmdls simulate``: patients who do not exist, to try everything on."""

import shutil
from pathlib import Path

import click

import mmdls
from mmdls.cli._commands import Failed
from mmdls.cli._output import claim, force_option, write_manifest, write_table

__all__ = ["simulate"]


@click.command(
    epilog="""\b
    Examples:
      mmdls simulate cohort --patients 100
      mmdls simulate scans --scans --patients 12
    """
)
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option("--patients", type=click.IntRange(1), default=60, show_default=True)
@click.option("--scans", is_flag=True, help="DICOM of CT, PET and contours, and table.csv for `mmdls prepare`.")
@click.option("--slices", type=click.IntRange(1), default=4, show_default=True, help="Slices a patient (PNG).")
@click.option("--image-size", type=click.IntRange(8), default=64, show_default=True, help="Their pixels a side.")
@click.option("--seed", type=int, default=0, show_default=True)
@force_option
def simulate(folder: Path, patients: int, scans: bool, slices: int, image_size: int, seed: int, force: bool) -> None:
    """Write a simulated cohort into FOLDER: a cohort folder for `fit`, or scans for `prepare`."""
    claim(folder, force)
    if folder.exists():
        if any(folder.iterdir()) and not folder.with_name(f"{folder.name}.run.json").exists():
            raise Failed(f"{str(folder)!r} was not written by this command; remove it yourself.")
        shutil.rmtree(folder)
    if scans:
        made = mmdls.datasets.make_scans(folder, patients, noise=20, random_state=seed)
        paths = made.scans.map(lambda path: Path(path).relative_to(folder).as_posix())
        table = paths.rename(columns={"structures": "lesion"}).assign(lung=paths["structures"])
        write_table(table.join(made.data).join(made.target), folder / "table.csv", index_label="patient_id")
        click.echo(f"{folder / 'table.csv'}: {patients} patients, for `mmdls prepare`")
    else:
        mmdls.datasets.make_nsclc_cohort(
            patients, n_slices=slices, image_size=image_size, folder=folder, random_state=seed
        )
        click.echo(f"{folder}: {patients} patients, for `mmdls fit`")
    write_manifest(folder, {})
