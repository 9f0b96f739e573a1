"""Kinds of tasks: what can be predicted, each one class; a new kind is one more class, registered by its name."""

from mmdls.cohort import Task
from mmdls.tasks._case import Case, Settings, Statistic
from mmdls.tasks._classes import NominalTask, OrdinalTask
from mmdls.tasks._competing_risks import CompetingRisksTask
from mmdls.tasks._figures import Figure, FigureSettings
from mmdls.tasks._regression import RegressionTask
from mmdls.tasks._survival import SurvivalTask

__all__ = [
    "Case",
    "CompetingRisksTask",
    "Figure",
    "FigureSettings",
    "NominalTask",
    "OrdinalTask",
    "RegressionTask",
    "Settings",
    "Statistic",
    "SurvivalTask",
    "Task",
]
