"""Cohorts of patients: simulated with known truth, or read from a folder."""

from mmdls.datasets._folders import load_cohort
from mmdls.datasets._scans import make_scans
from mmdls.datasets._simulation import make_nsclc_cohort

__all__ = ["load_cohort", "make_nsclc_cohort", "make_scans"]
