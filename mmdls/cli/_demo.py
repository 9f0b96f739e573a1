"""``mmdls demo``: what the library does, on simulated patients, in a minute."""

from pathlib import Path
from typing import Any

import click

import mmdls
from mmdls.cli._output import claim, force_option, quiet_option, write_manifest

__all__ = ["demo"]


@click.command(
    epilog="""\b
    Examples:
      mmdls demo
      mmdls demo report.html --patients 200 --model clinical_cox --model tables_linear
    """
)
@click.argument("report", type=click.Path(dir_okay=False, path_type=Path), default="mmdls-demo.html")
@click.option("--patients", type=click.IntRange(40), default=120, show_default=True)
@click.option("-m", "--model", "models", multiple=True, default=("clinical_cox", "coxnet"), show_default=True,
              help="One that `mmdls zoo` lists; may be repeated; the first is the reference.")  # fmt: skip
@click.option("--seed", type=int, default=0, show_default=True)
@quiet_option
@force_option
def demo(report: Path, patients: int, models: tuple[str, ...], seed: int, quiet: bool, force: bool) -> None:
    """Compare models on simulated patients, out of fold, and write REPORT (HTML).

    No patient exists, and no number says anything about real ones.
    """
    claim(report, force)
    cohort: Any = mmdls.datasets.make_nsclc_cohort(patients, n_slices=1, image_size=16, random_state=seed)
    X, y, labels = cohort.data, cohort.target, cohort.labels
    found = mmdls.compare_models(list(models), X, y, cv=3, random_state=seed, verbose=0 if quiet else 1)
    click.echo(str(found))
    options = {"labels": labels, "n_resamples": 200, "random_state": seed}
    mmdls.report.report(found, X, y, report, title="Simulated patients", **options)
    write_manifest(report, {})
    click.echo(f"Open in a browser: {report.absolute()}")
