"""Diagnosis and prognosis from CT, PET, radiomics and clinical data, with scikit-learn's manners.

Public names load on first use, so that ``import mmdls`` stays quick: neither torch nor any plug-in is imported.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "MMDLS": "mmdls.estimators",
    "MultimodalClassifier": "mmdls.estimators",
    "MultimodalSurvival": "mmdls.estimators",
    "SliceEncoder": "mmdls.estimators",
    "LungLesionSegmentor": "mmdls.estimators",
    "TabularEncoder": "mmdls.estimators",
    "VarianceFilter": "mmdls.estimators",
    "CorrelationFilter": "mmdls.estimators",
    "ClinicalCox": "mmdls.estimators",
    "RadiomicsCox": "mmdls.estimators",
    "CoxNet": "mmdls.estimators",
    "SurvivalForest": "mmdls.estimators",
    "SurvivalBoosting": "mmdls.estimators",
    "OptunaSearch": "mmdls.search",
    "compare": "mmdls.evaluation",
    "evaluate": "mmdls.evaluation",
}

__all__ = ["__version__", *_HOME]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'mmdls' has no attribute {name!r}; it offers {', '.join(__all__)}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
