"""From a table of patients with scans to the folder of a cohort, which :func:`mmdls.datasets.load_cohort` reads."""

from mmdls.preparation._prepare import prepare_cohort

__all__ = ["prepare_cohort"]
