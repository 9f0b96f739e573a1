"""Tables of a paper: who the patients are, hazard ratios, subgroups, added value, treatment interaction."""

from mmdls.tables._added_value import added_value
from mmdls.tables._cohort import describe_cohort, levels
from mmdls.tables._regression import hazard_table, interaction_table
from mmdls.tables._subgroups import random_effects_summary, subgroups

__all__ = [
    "added_value",
    "describe_cohort",
    "hazard_table",
    "interaction_table",
    "levels",
    "random_effects_summary",
    "subgroups",
]
