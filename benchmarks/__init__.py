"""Measurements on simulated and real cohorts; not part of the installed library."""
