"""``mmdls predict``: from a saved model and new patients to a table."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import mmdls
from mmdls.cli._commands import Failed
from mmdls.cli._output import (
    anonymous_option,
    claim,
    force_option,
    hash_of,
    numbered,
    write_manifest,
    write_table,
)
from mmdls.cli._patients import read_patients
from mmdls.cli._roles import role_options, roles_of
from mmdls.cli._settings import horizons_option

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["predict"]


@click.command(
    epilog="""\b
    Examples:
      mmdls predict model.mmdls new_cohort predictions.csv
      mmdls predict cox.mmdls new.csv predictions.csv --roles cox.mmdls.run.json --horizons 12,24
    """
)
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("data", type=click.Path(path_type=Path))
@click.argument("output", type=click.Path(dir_okay=False, path_type=Path))
@horizons_option("Months at which survival is given.")
@role_options
@anonymous_option
@force_option
def predict(model: Path, data: Path, output: Path, horizons: tuple, anonymous: bool, force: bool, **given: Any) -> None:
    """Predict for new patients, with or without outcomes.

    MODEL was saved by `mmdls fit` or mmdls.save. DATA is a cohort folder or a table, whose columns have the roles of
    those that the model was fitted on (--roles MODEL.run.json). OUTPUT is a CSV with a row a patient: the label of each
    task and the probability of every class, the risk (higher = earlier event) and the survival at each horizon, empty
    beyond the follow-up of the training patients; numbers; of competing risks the incidence of each cause.
    """
    claim(output, force)
    roles = roles_of(given)
    fitted = mmdls.load(model)
    X, _ = read_patients(data, roles, outcomes=False)
    table = _predictions(fitted, X, horizons)
    table = numbered(table) if anonymous else table
    write_table(table, output, index_label=table.index.name or "patient_id")
    from mmdls._provenance import data_hash

    write_manifest(output, {"model": hash_of(model), "X": data_hash(X)}, roles=roles)
    click.echo(f"{output}: {len(table)} patients, {len(table.columns)} columns")


def _predictions(model: Any, X: "pd.DataFrame", months: tuple[float, ...]) -> "pd.DataFrame":
    """One row a patient, columns ``<task>``, ``<task>_<class>``, ``<task>_risk``, ``<task>_survival_<months>`` ..."""
    import numpy as np
    import pandas as pd

    from mmdls.evaluation._adapters import inner_model
    from mmdls.evaluation._predict import answers

    tasks = getattr(inner_model(model)[0], "tasks_", None)
    if not tasks:
        raise Failed(
            f"the model, a {type(model).__name__}, does not know the names of its tasks; use its own methods in Python."
        )
    found = answers(model, X, tasks, np.unique(months))
    columns = {}
    for name, task in found.tasks.items():
        table = found.tables[name]
        labelled = task.estimator_type == "classifier"
        if labelled:
            columns[name] = np.asarray(task.summary(table))
        for column in table:
            what = f"survival_{column:.10g}" if not labelled and isinstance(column, float) else column
            columns[f"{name}_{what}"] = table[column].to_numpy()
    return pd.DataFrame(columns, index=X.index)
