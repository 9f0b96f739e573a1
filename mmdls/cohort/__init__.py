"""Tables of patients: what their columns mean, how a hospital's own table is read, and how tables are checked."""

from mmdls.cohort._alignment import align_rows, id_places, refuse_other_tables, require_patients
from mmdls.cohort._cells import cell_columns, cell_kind, modality_name
from mmdls.cohort._checks import (
    check_cohort,
    check_features,
    check_target,
    endpoint_name,
    survival_target,
)
from mmdls.cohort._classes import class_codes, class_labels
from mmdls.cohort._cohort import Cohort
from mmdls.cohort._columns import is_date
from mmdls.cohort._identifiers import identifiers, is_free_text, is_identifier
from mmdls.cohort._mistaken import refuse_measurements
from mmdls.cohort._reading import read_cohort
from mmdls.cohort._reconciling import reconcile_endpoints
from mmdls.cohort._schema import find_tasks, modalities, warn_unused
from mmdls.cohort._task import Task

__all__ = [
    "Cohort",
    "Task",
    "align_rows",
    "cell_columns",
    "cell_kind",
    "check_cohort",
    "check_features",
    "check_target",
    "class_codes",
    "class_labels",
    "endpoint_name",
    "find_tasks",
    "id_places",
    "is_date",
    "is_free_text",
    "identifiers",
    "is_identifier",
    "modalities",
    "modality_name",
    "read_cohort",
    "reconcile_endpoints",
    "refuse_measurements",
    "refuse_other_tables",
    "require_patients",
    "survival_target",
    "warn_unused",
]
