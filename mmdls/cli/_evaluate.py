"""``mmdls evaluate``, ``mmdls report`` and ``mmdls compare``: how good models are, by patients with known outcomes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import mmdls
from mmdls._secrets import without_ids
from mmdls.cli._commands import Failed
from mmdls.cli._output import (
    anonymous_option,
    claim,
    force_option,
    hash_of,
    numbered,
    quiet_option,
    show_table,
    write_manifest,
    write_table,
)
from mmdls.cli._patients import read_patients
from mmdls.cli._roles import role_options, roles_of
from mmdls.cli._settings import horizons_option

if TYPE_CHECKING:
    from mmdls.cohort import Cohort

__all__ = ["compare", "evaluate", "report"]

_OUT_OF_FOLD = "patients of the training; each was predicted by a model that was fitted without them, in {} folds"
_OTHERS = "not the cohort of the training: {}"


def _statistics(command: Callable) -> Callable:
    """Give a command the options of metrics and their intervals."""
    for option in (
        click.option("--seed", type=int, default=0, show_default=True, help="Of folds and resamples."),
        click.option("--resamples", type=click.IntRange(0), default=1000, show_default=True,
                     help="Bootstrap resamples for the intervals; 0 gives none."),
        horizons_option("Months at which predictions of survival are judged."),
    ):  # fmt: skip
        command = option(command)
    return command


@click.command(
    epilog="""\b
    Examples:
      mmdls evaluate model.mmdls new_patients -o metrics.csv
      mmdls evaluate model.mmdls new_patients.csv --roles model.mmdls.run.json
    """
)
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("data", type=click.Path(path_type=Path))
@role_options
@_statistics
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Also write the metrics as CSV.")
@force_option
def evaluate(
    model: Path, data: Path, horizons: tuple, resamples: int, seed: int, output: Path | None, force: bool, **given: Any
) -> None:
    """Judge the saved MODEL on patients whom it has not seen: metrics with 95 % intervals.

    DATA is a cohort folder, or a table of which the options say what its columns are. --groups names what belongs
    together, such as the patient of several scans; it is resampled whole. The cohort of the
    training is refused; a part of it, or the same with other rows or roles, is not recognised.
    """
    if output is not None:
        claim(output, force)
    roles = roles_of(given)
    loaded = mmdls.load(model)
    cohort = _labelled(data, roles)
    if _of_training(model, cohort):
        raise Failed("the model was fitted on these patients, so that metrics would flatter it; use `mmdls report`.")
    table = mmdls.evaluate(
        loaded,
        cohort.X,
        cohort.y,
        horizons=horizons,
        n_resamples=resamples,
        clusters=cohort.groups,
        random_state=seed,
    )
    show_table(table, index=False)
    if output is not None:
        write_table(table, output, index=False)
        write_manifest(output, {"model": hash_of(model), **_hashes(cohort)}, roles=roles)


@click.command(
    epilog="""\b
    Examples:
      mmdls report model.mmdls cohort report.html --cv 5
      mmdls report model.mmdls new_patients.csv report.html --roles model.mmdls.run.json --external
    """
)
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("data", type=click.Path(path_type=Path))
@click.argument("output", type=click.Path(dir_okay=False, path_type=Path))
@role_options
@_statistics
@click.option(
    "--cv", type=click.IntRange(2), help="Folds: the patients are those of the training. 5 if they are known."
)
@click.option("--external", is_flag=True, help="The patients are others than those of the training.")
@click.option("--title", help="Of the report; the name of the model if not given.")
@click.option("--tests", is_flag=True, help="Table 1 of several centres has p-values.")
@click.option(
    "--labels",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help='A JSON file with readable names of columns, outcomes and levels: {"clinical_sex": "Sex", "os": "Survival"}.',
)
@quiet_option
@force_option
def report(
    model: Path,
    data: Path,
    output: Path,
    horizons: tuple,
    resamples: int,
    seed: int,
    cv: int | None,
    external: bool,
    title: str | None,
    tests: bool,
    labels: Path | None,
    quiet: bool,
    force: bool,
    **given: Any,
) -> None:
    """Write the report of the saved MODEL on DATA as one HTML file OUTPUT.

    Patients of the training are judged out of fold: the model is fitted anew without each fold, so that nobody is
    predicted by a model that knows them. The cohort of the training is recognised by its outcomes, if the model was
    saved with its data; else, and for a part of that cohort, --cv or --external says whose patients they are. The
    report says which it was.
    """
    if cv is not None and external:
        raise click.UsageError("--cv is for patients of the training, --external for others; give one.")
    names = {} if labels is None else _names(labels)
    claim(output, force)
    roles = roles_of(given)
    loaded = mmdls.load(model)
    cohort = _labelled(data, roles)
    own = _of_training(model, cohort)
    if own and external:
        raise Failed("--external: the model was fitted on these patients; leave it out, or give others.")
    if own is None and cv is None and not external:
        raise Failed("the model does not say on whom it was fitted: give --cv 5 if on these patients, else --external.")
    judged, found = loaded, _OTHERS.format("as was said" if own is None else "its outcomes are others")
    if own or cv is not None:
        cv = cv or 5
        found = _OUT_OF_FOLD.format(cv)
        bar = 0 if quiet else 1
        judged = mmdls.cross_predict(
            loaded, cohort.X, cohort.y, cv, cohort.groups, horizons=horizons, verbose=bar, random_state=seed
        )
    name = model.stem
    mmdls.report.report(
        {name: judged},
        cohort.X,
        cohort.y,
        output,
        horizons=horizons,
        settings={"patients of this report": found},
        tests=tests,
        labels=names,
        title=title or name,
        n_resamples=resamples,
        random_state=seed,
    )
    write_manifest(output, {"model": hash_of(model), **_hashes(cohort)}, roles=roles, patients=found)
    click.echo(f"{output}: {found}")


@click.command(
    epilog="""\b
    Examples:
      mmdls compare cohort results --model clinical_linear --model tables_linear
      mmdls compare patients.csv results --roles roles.json --model clinical_cox --model mine.mmdls --cv 10
    """
)
@click.argument("data", type=click.Path(path_type=Path))
@click.argument("output", type=click.Path(file_okay=False, path_type=Path))
@role_options
@_statistics
@click.option(
    "-m",
    "--model",
    "models",
    multiple=True,
    required=True,
    metavar="MODEL",
    help="A name of `mmdls zoo`, or a saved model, to be fitted anew; the first is the reference.",
)
@click.option("--cv", type=click.IntRange(2), default=5, show_default=True, help="Folds.")
@click.option("--jobs", type=int, default=1, show_default=True, help="Fits at once.")  # fmt: skip
@anonymous_option
@quiet_option
@force_option
def compare(
    data: Path,
    output: Path,
    horizons: tuple,
    resamples: int,
    seed: int,
    models: tuple[str, ...],
    cv: int,
    jobs: int,
    anonymous: bool,
    quiet: bool,
    force: bool,
    **given: Any,
) -> None:
    """Compare models on the same folds of DATA: every patient is predicted by models that have not seen them.

    The folder OUTPUT gets scores.csv, differences.csv (to the first model), risk_groups.csv, warnings.csv and
    report.html.
    """
    claim(output, force)
    roles = roles_of(given)
    asked: dict[str, Any] = {}
    for name in models:
        registered = name in mmdls.registry.models
        asked[name if registered else Path(name).stem] = name if registered else _saved(name)
    if len(asked) < len(models):
        raise Failed(f"each model needs a name of its own; got {', '.join(models)}.")
    cohort = _labelled(data, roles)
    found = mmdls.compare_models(
        asked,
        cohort.X,
        cohort.y,
        cv=cv,
        groups=cohort.groups,
        horizons=horizons,
        n_resamples=resamples,
        n_jobs=jobs,
        verbose=0 if quiet else 1,
        random_state=seed,
    )
    output.mkdir(exist_ok=True)
    groups = found.risk_groups.set_axis([" ".join(map(str, column)) for column in found.risk_groups], axis=1)
    write_table(found.scores, output / "scores.csv", index=False)
    write_table(found.differences, output / "differences.csv", index=False)
    groups, messages = groups.assign(fold=found.folds), found.messages
    groups.index.name = "patient_id"
    if anonymous:
        ids = [*cohort.X.index, *([] if cohort.groups is None else cohort.groups)]
        groups = numbered(groups)
        messages = messages.assign(message=[without_ids(text, ids, small=True) for text in messages["message"]])
    write_table(groups, output / "risk_groups.csv")
    write_table(messages, output / "warnings.csv", index=False)
    mmdls.report.report(
        found, cohort.X, cohort.y, output / "report.html", horizons=horizons, n_resamples=resamples, random_state=seed
    )
    write_manifest(output, _hashes(cohort), roles=roles)
    click.echo(f"{found}\n{output / 'report.html'}")


def _labelled(data: Path, roles: dict[str, Any]) -> "Cohort":
    """Patients with outcomes."""
    cohort = read_patients(data, roles)
    if not mmdls.cohort.find_tasks(cohort.y):
        raise Failed(
            "the patients have no outcomes; --endpoints, --classes, --ordinal or --numbers name their columns."
        )
    return cohort


def _hashes(cohort: "Cohort") -> dict[str, str]:
    from mmdls._provenance import data_hash

    return {"X": data_hash(cohort.X), "y": data_hash(cohort.y)}


def _of_training(model: Path, cohort: "Cohort") -> bool | None:
    """Whether a saved model was fitted on these outcomes; None if it was saved without a word on its data."""
    from mmdls.persistence._archive import read_members

    known = json.loads(read_members(model)["manifest.json"])["data"]
    return None if known is None else known["y"] == _hashes(cohort)["y"]


def _saved(name: str) -> Any:
    if not Path(name).exists():
        raise Failed(f"--model {name}: neither a saved model nor registered; `mmdls zoo` lists the registered ones.")
    return mmdls.load(name)


def _names(path: Path) -> dict[str, str]:
    """Readable names of a JSON file."""
    try:
        names = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise Failed(f"--labels {path} is no JSON file: {error}") from error
    if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
        raise Failed(f'--labels {path} must hold texts by name, as {{"clinical_sex": "Sex"}}.')
    return names
