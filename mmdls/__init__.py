"""Diagnosis and prognosis from CT, PET, radiomics and clinical data, in scikit-learn's style.

Public names and modules load on first use, so that ``import mmdls`` stays quick: neither torch nor any plug-in is
imported.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmdls import audit as audit
    from mmdls import cohort as cohort
    from mmdls import datasets as datasets
    from mmdls import encoders as encoders
    from mmdls import estimators as estimators
    from mmdls import evaluation as evaluation
    from mmdls import explain as explain
    from mmdls import images as images
    from mmdls import kernels as kernels
    from mmdls import metrics as metrics
    from mmdls import model_selection as model_selection
    from mmdls import modules as modules
    from mmdls import parts as parts
    from mmdls import persistence as persistence
    from mmdls import plotting as plotting
    from mmdls import preparation as preparation
    from mmdls import registry as registry
    from mmdls import report as report
    from mmdls import scans as scans
    from mmdls import search as search
    from mmdls import tables as tables
    from mmdls import tasks as tasks
    from mmdls import testing as testing
    from mmdls import uncertainty as uncertainty
    from mmdls import zoo as zoo
    from mmdls.estimators import MMDLS as MMDLS
    from mmdls.estimators import ClinicalCox as ClinicalCox
    from mmdls.estimators import ComBat as ComBat
    from mmdls.estimators import CorrelationFilter as CorrelationFilter
    from mmdls.estimators import CoxNet as CoxNet
    from mmdls.estimators import FrozenFeatures as FrozenFeatures
    from mmdls.estimators import LungLesionSegmentor as LungLesionSegmentor
    from mmdls.estimators import MultimodalClassifier as MultimodalClassifier
    from mmdls.estimators import MultimodalSurvival as MultimodalSurvival
    from mmdls.estimators import PETFeatures as PETFeatures
    from mmdls.estimators import RadiomicsCox as RadiomicsCox
    from mmdls.estimators import RadiomicsExtractor as RadiomicsExtractor
    from mmdls.estimators import SignWeightedBagging as SignWeightedBagging
    from mmdls.estimators import SignWeightedClassifier as SignWeightedClassifier
    from mmdls.estimators import SliceEncoder as SliceEncoder
    from mmdls.estimators import StabilityFilter as StabilityFilter
    from mmdls.estimators import SurvivalBoosting as SurvivalBoosting
    from mmdls.estimators import SurvivalForest as SurvivalForest
    from mmdls.estimators import TabularEncoder as TabularEncoder
    from mmdls.estimators import VarianceFilter as VarianceFilter
    from mmdls.estimators import VectorBagEncoder as VectorBagEncoder
    from mmdls.estimators import VolumeEncoder as VolumeEncoder
    from mmdls.evaluation import compare as compare
    from mmdls.evaluation import evaluate as evaluate
    from mmdls.parts import Part as Part
    from mmdls.persistence import export as export
    from mmdls.persistence import load as load
    from mmdls.persistence import save as save
    from mmdls.preparation import prepare_cohort as prepare_cohort
    from mmdls.search import OptunaSearch as OptunaSearch
    from mmdls.training._trainer import Trainer as Trainer
    from mmdls.zoo import compare_models as compare_models
    from mmdls.zoo import create as create
    from mmdls.zoo import cross_predict as cross_predict
    from mmdls.zoo import list_models as list_models

__version__ = "0.1.0"

_MODULES = (
    "audit",
    "cohort",
    "datasets",
    "encoders",
    "estimators",
    "evaluation",
    "explain",
    "images",
    "kernels",
    "metrics",
    "model_selection",
    "modules",
    "parts",
    "persistence",
    "plotting",
    "preparation",
    "registry",
    "report",
    "scans",
    "search",
    "tables",
    "tasks",
    "testing",
    "uncertainty",
    "zoo",
)
_HOME = {
    "MMDLS": "mmdls.estimators",
    "MultimodalClassifier": "mmdls.estimators",
    "MultimodalSurvival": "mmdls.estimators",
    "SignWeightedBagging": "mmdls.estimators",
    "SignWeightedClassifier": "mmdls.estimators",
    "SliceEncoder": "mmdls.estimators",
    "FrozenFeatures": "mmdls.estimators",
    "LungLesionSegmentor": "mmdls.estimators",
    "TabularEncoder": "mmdls.estimators",
    "ComBat": "mmdls.estimators",
    "StabilityFilter": "mmdls.estimators",
    "PETFeatures": "mmdls.estimators",
    "RadiomicsExtractor": "mmdls.estimators",
    "VarianceFilter": "mmdls.estimators",
    "VectorBagEncoder": "mmdls.estimators",
    "VolumeEncoder": "mmdls.estimators",
    "CorrelationFilter": "mmdls.estimators",
    "ClinicalCox": "mmdls.estimators",
    "RadiomicsCox": "mmdls.estimators",
    "CoxNet": "mmdls.estimators",
    "SurvivalForest": "mmdls.estimators",
    "SurvivalBoosting": "mmdls.estimators",
    "OptunaSearch": "mmdls.search",
    "Part": "mmdls.parts",
    "export": "mmdls.persistence",
    "load": "mmdls.persistence",
    "save": "mmdls.persistence",
    "Trainer": "mmdls.training._trainer",
    "compare": "mmdls.evaluation",
    "evaluate": "mmdls.evaluation",
    "compare_models": "mmdls.zoo",
    "create": "mmdls.zoo",
    "cross_predict": "mmdls.zoo",
    "prepare_cohort": "mmdls.preparation",
    "list_models": "mmdls.zoo",
}

__all__ = ["__version__", *_HOME]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"mmdls.{name}")
    if name not in _HOME:
        offered = ", ".join([*__all__, *_MODULES])
        raise AttributeError(f"module 'mmdls' has no attribute {name!r}; it offers {offered}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME, *_MODULES})
