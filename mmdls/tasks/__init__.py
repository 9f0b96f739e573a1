"""Kinds of tasks: what can be predicted, each one class; a new kind is one more class, registered by its name."""

from mmdls.cohort import Task
from mmdls.tasks._case import Case, Settings, Statistic
from mmdls.tasks._classes import NominalTask, OrdinalTask
from mmdls.tasks._survival import SurvivalTask

__all__ = ["Case", "NominalTask", "OrdinalTask", "Settings", "Statistic", "SurvivalTask", "Task"]
