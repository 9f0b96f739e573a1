"""``mmdls prepare``: from a table of scans to the folder of a cohort."""

from pathlib import Path
from typing import Any

import click

import mmdls
from mmdls.cli._commands import FINDINGS
from mmdls.cli._output import hash_of, quiet_option, show_table, write_manifest
from mmdls.cli._settings import settings_of

__all__ = ["prepare"]


@click.command(
    epilog="""\b
    Examples:
      mmdls prepare patients.csv cohort --lesion-label GTV-1 --jobs 2
      mmdls prepare patients.xlsx cohort --id Case --ct CT_folder --ids number --radiomics bin_width=25
      mmdls prepare patients.csv cohort --segmentor segmentor.mmdls --no-radiomics
    """
)
@click.argument("table", type=click.Path(path_type=Path))
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option("--id", default="patient_id", show_default=True, help="Column of the ids.")
@click.option("--ct", default="ct", show_default=True, help="Column of the CTs; '' if there are none.")
@click.option("--pet", default="pet", show_default=True, help="Column of the PETs.")
@click.option("--lesion", default="lesion", show_default=True, help="Column of the masks of the lesion.")
@click.option("--lung", default="lung", show_default=True, help="Column of the masks of the lung.")
@click.option("--lesion-label", multiple=True, help="Structure in masks with several; may be repeated for its parts.")
@click.option("--lung-label", multiple=True, help="The same for the lung, such as both of its sides.")
@click.option("--label-name", multiple=True, metavar="NAME=NUMBER",
              help="The number of a structure in files without names, such as NIfTI.")  # fmt: skip
@click.option("--resample-masks", is_flag=True, help="Bring masks with other voxels than their CT to those of the CT.")
@click.option("--segmentor", type=click.Path(path_type=Path),
              help="Saved LungLesionSegmentor; makes the masks that the table lacks.")  # fmt: skip
@click.option("--n-slices", type=int, default=16, show_default=True, help="The most slices of a structure.")
@click.option("--slice-spacing", type=float, default=3.0, show_default=True, help="Millimetres between slices.")
@click.option("--lesion-size", type=float, default=128.0, show_default=True, help="Side of its slices in mm.")
@click.option("--lesion-spacing", type=float, default=1.0, show_default=True, help="Millimetres between pixels.")
@click.option("--lung-size", type=float, default=384.0, show_default=True, help="Side of its slices in mm.")
@click.option("--lung-spacing", type=float, default=1.5, show_default=True, help="Millimetres between pixels.")
@click.option("--no-radiomics", is_flag=True, help="Compute no radiomics.")
@click.option("--radiomics", multiple=True, metavar="NAME=VALUE", help="A parameter of RadiomicsExtractor.")
@click.option("--pet-features", multiple=True, metavar="NAME=VALUE", help="A parameter of PETFeatures.")
@click.option("--carry", multiple=True, help="A column to keep; if none is named, those that a cohort folder knows.")
@click.option("--header", type=int, help="Row of the table with the names of the columns, from 0; empty rows count.")
@click.option("--encoding", help="Encoding of a text file, where it is not clear.")
@click.option("--ids", type=click.Choice(["check", "keep", "number"]), default="check", show_default=True,
              help="Refuse ids that stand in the headers of scans, keep them, or write numbers.")  # fmt: skip
@click.option("--force", is_flag=True, help="Prepare all patients again; else finished ones stay.")
@click.option("-j", "--jobs", type=int, default=1, show_default=True, help="Processes over patients.")
@quiet_option
@click.pass_context
def prepare(
    ctx: click.Context,
    table: Path,
    folder: Path,
    no_radiomics: bool,
    radiomics: tuple[str, ...],
    pet_features: tuple[str, ...],
    lesion_label: tuple[str, ...],
    lung_label: tuple[str, ...],
    label_name: tuple[str, ...],
    carry: tuple[str, ...],
    segmentor: Path | None,
    force: bool,
    jobs: int,
    quiet: bool,
    **given: Any,
) -> None:
    """Prepare the scans of patients: slices, masks, PET features, radiomics, a picture of each patient.

    TABLE (CSV, Excel) has a row a patient with its id, paths of scans and masks, clinical variables and outcomes.
    FOLDER is new, or was prepared before with the same options: then finished patients stay, and a run that was stopped
    goes on. The exit code is 3 if a patient is not complete; patients.csv in FOLDER says why.
    """
    if no_radiomics and radiomics:
        raise click.UsageError("--no-radiomics and --radiomics contradict each other.")
    given["ct"] = given["ct"] or None
    log = mmdls.prepare_cohort(
        table,
        folder,
        lesion_label=_labels(lesion_label),
        lung_label=_labels(lung_label),
        label_names=settings_of(label_name) or None,
        radiomics=False if no_radiomics else settings_of(radiomics) or True,
        pet_features=settings_of(pet_features) or None,
        segmentor=None if segmentor is None else mmdls.load(segmentor),
        carry=list(carry) or None,
        existing="replace" if force else "continue",
        n_jobs=jobs,
        verbose=0 if quiet else 1,
        **given,
    )
    inputs = {"table": hash_of(table)} | ({} if segmentor is None else {"segmentor": hash_of(segmentor)})
    write_manifest(folder, inputs)
    counts = log["status"].value_counts()
    show_table(counts.rename("patients").to_frame())
    click.echo(f"Look at every patient: {folder / 'overview.html'}")
    ctx.exit(FINDINGS if {"failed", "partly"} & set(counts.index) else 0)


def _labels(names: tuple[str, ...]) -> Any:
    """Names or numbers of structures; one alone is no list."""
    labels = [int(name) if name.isdecimal() else name for name in names]
    return labels if len(labels) > 1 else next(iter(labels), None)
