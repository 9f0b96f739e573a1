"""Splits of a cohort, stratified by outcome and centre, grouped by patient."""

from mmdls.model_selection._folds import CohortKFold, check_patients_apart, patient_groups
from mmdls.model_selection._holdout import stratified_holdout
from mmdls.model_selection._strata import strata

__all__ = ["CohortKFold", "check_patients_apart", "patient_groups", "strata", "stratified_holdout"]
