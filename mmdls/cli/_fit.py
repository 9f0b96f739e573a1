"""``mmdls fit``: from a cohort folder or a table to a saved model."""

from pathlib import Path
from typing import Any

import click

import mmdls
from mmdls.cli._commands import Failed
from mmdls.cli._output import claim, force_option, quiet_option, write_manifest
from mmdls.cli._patients import read_patients
from mmdls.cli._roles import role_options, roles_of
from mmdls.cli._settings import set_option, settings_of

__all__ = ["fit"]


@click.command(
    epilog="""\b
    Examples:
      mmdls fit cohort model.mmdls
      mmdls fit cohort model.mmdls --set trainer__max_epochs=20 --set lesion__backbone=resnet10
      mmdls fit patients.csv cox.mmdls --model clinical_cox --id Patient --endpoints os=OS_days,OS_status \\
        --units os=days --codes OS_status=1:0,2:1 --blocks clinical=Age,Sex
    """
)
@click.argument("data", type=click.Path(path_type=Path))
@click.argument("model", type=click.Path(path_type=Path))
@click.option("-m", "--model", "name", default="mmdls", show_default=True, help="One that `mmdls zoo` lists.")
@set_option
@role_options
@click.option("--seed", type=int, default=0, show_default=True, help="Of all random numbers.")
@click.option("--intended-use", help="For whom and for what the model is, for its card.")
@quiet_option
@force_option
def fit(
    data: Path,
    model: Path,
    name: str,
    settings: tuple[str, ...],
    seed: int,
    intended_use: str | None,
    quiet: bool,
    force: bool,
    **given: Any,
) -> None:
    """Fit a model on all patients, and save it.

    DATA is a cohort folder, or a table (CSV, Excel) of which the options say what its columns are. MODEL is a new
    folder, or one file if its name ends in .mmdls; it holds the settings and hashes of the data, and a model card.
    """
    claim(model, force)
    roles = roles_of(given)
    X, y = read_patients(data, roles)
    if not len(y.columns):
        raise Failed("there are no outcomes to learn; `mmdls check` says what the columns mean.")
    chosen = settings_of(settings)
    estimator = mmdls.create(name, **chosen)
    parameters = estimator.get_params(deep=True)
    bars = [one for one in parameters if one.endswith("trainer__verbose") and one not in chosen]
    seeds = [one for one in parameters if one.split("__")[-1] == "random_state" and one not in chosen]
    estimator.set_params(**dict.fromkeys(seeds, seed), **dict.fromkeys(bars, 0 if quiet else 1)).fit(X, y)
    # A saved model is quiet wherever it predicts.
    estimator.set_params(**dict.fromkeys(bars, 0))
    mmdls.save(estimator, model, data=(X, y), intended_use=intended_use)
    from mmdls._provenance import data_hash

    write_manifest(model, {"X": data_hash(X), "y": data_hash(y)}, roles=roles)
    click.echo(f"{model}: {name}, fitted on {len(X)} patients, for `mmdls predict`")
