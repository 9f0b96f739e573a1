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
