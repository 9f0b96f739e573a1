"""``mmdls check``: what a table means, what is missing, what leaks."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import mmdls
from mmdls.cli._commands import FINDINGS
from mmdls.cli._output import claim, force_option, show_table, write_manifest, write_table
from mmdls.cli._patients import read_patients
from mmdls.cli._roles import role_options, roles_of

if TYPE_CHECKING:
    from mmdls.cohort import Cohort

__all__ = ["check"]


@click.command(
    epilog="""\b
    Examples:
      mmdls check cohort
      mmdls check patients.csv --id Patient --endpoints os=OS_days,OS_status --units os=days \\
        --codes OS_status=1:0,2:1 --ordinal 'stage=TNM:I-II<III<IV' --blocks clinical=Age,Sex
    """
)
@click.argument("data", type=click.Path(path_type=Path))
@role_options
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Also write the account of every column as CSV.")
@force_option
@click.pass_context
def check(ctx: click.Context, data: Path, output: Path | None, force: bool, **given: Any) -> None:
    """Say what a table means, and look for leaks.

    DATA is a cohort folder, or a table (CSV, Excel) of which the options say what its columns are. What can be read in
    two ways is refused, and the message names the option that helps. The exit code is 3 if a leak is found.
    """
    if output is not None:
        claim(output, force)
    roles = roles_of(given)
    cohort = read_patients(data, roles)
    click.echo(str(cohort))
    click.echo("\nOutcomes")
    tasks = mmdls.cohort.find_tasks(cohort.y)
    for name, task in tasks.items():
        click.echo(f"  {name} ({task.kind.replace('_', ' ')}): {task.count(task.outcome(cohort.y))}")
    if not tasks:
        click.echo("  none: models predict for these patients, and cannot be fitted on them")
    click.echo("\nInputs")
    _show_inputs(cohort)
    found = mmdls.audit.audit_tables(cohort.X, cohort.y)
    click.echo("\nLeaks")
    for row in found.to_dict("records"):
        click.echo(f"  {row['check']}: {'no' if row['passed'] else row['detail']}")
    if output is not None:
        from mmdls._provenance import data_hash

        write_table(cohort.report, output, index_label="column")
        write_manifest(output, {"X": data_hash(cohort.X), "y": data_hash(cohort.y)}, roles=roles)
    if not found["passed"].all():
        ctx.exit(FINDINGS)


def _show_inputs(cohort: "Cohort") -> None:
    """One line an input: its columns, and how many patients have all, some or nothing of it."""
    import pandas as pd

    rows = []
    for name, columns in mmdls.cohort.modalities(cohort.X).items():
        known = cohort.X[columns].notna()
        complete, some = known.all(axis=1).sum(), known.any(axis=1).sum()
        rows.append((f"  {name}", len(columns), complete, some - complete, len(known) - some))
    if rows:
        show_table(pd.DataFrame(rows, columns=["  input", "columns", "complete", "in part", "missing"]), index=False)
    else:
        click.echo("  none")
