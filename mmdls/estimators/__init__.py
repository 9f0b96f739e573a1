"""Estimators with scikit-learn's interface; the only place where tables become tensors.

Each loads on first use: what reads scans or fits Cox models to tables need not import torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmdls.estimators._combat import ComBat as ComBat
    from mmdls.estimators._comparators import ClinicalCox as ClinicalCox
    from mmdls.estimators._comparators import RadiomicsCox as RadiomicsCox
    from mmdls.estimators._coxnet import CoxNet as CoxNet
    from mmdls.estimators._frozen import FrozenFeatures as FrozenFeatures
    from mmdls.estimators._mmdls import MMDLS as MMDLS
    from mmdls.estimators._pet_features import PETFeatures as PETFeatures
    from mmdls.estimators._radiomics_extractor import RadiomicsExtractor as RadiomicsExtractor
    from mmdls.estimators._screening import CorrelationFilter as CorrelationFilter
    from mmdls.estimators._screening import VarianceFilter as VarianceFilter
    from mmdls.estimators._segmentor import LungLesionSegmentor as LungLesionSegmentor
    from mmdls.estimators._sign_weighted import SignWeightedBagging as SignWeightedBagging
    from mmdls.estimators._sign_weighted import SignWeightedClassifier as SignWeightedClassifier
    from mmdls.estimators._single_task import MultimodalClassifier as MultimodalClassifier
    from mmdls.estimators._single_task import MultimodalSurvival as MultimodalSurvival
    from mmdls.estimators._slices import SliceEncoder as SliceEncoder
    from mmdls.estimators._stability import StabilityFilter as StabilityFilter
    from mmdls.estimators._tabular import TabularEncoder as TabularEncoder
    from mmdls.estimators._trees import SurvivalBoosting as SurvivalBoosting
    from mmdls.estimators._trees import SurvivalForest as SurvivalForest
    from mmdls.estimators._vectors import VectorBagEncoder as VectorBagEncoder
    from mmdls.estimators._volumes import VolumeEncoder as VolumeEncoder

_HOME = {
    "ComBat": "_combat",
    "ClinicalCox": "_comparators",
    "RadiomicsCox": "_comparators",
    "CoxNet": "_coxnet",
    "FrozenFeatures": "_frozen",
    "MMDLS": "_mmdls",
    "PETFeatures": "_pet_features",
    "RadiomicsExtractor": "_radiomics_extractor",
    "CorrelationFilter": "_screening",
    "VarianceFilter": "_screening",
    "LungLesionSegmentor": "_segmentor",
    "SignWeightedBagging": "_sign_weighted",
    "SignWeightedClassifier": "_sign_weighted",
    "MultimodalClassifier": "_single_task",
    "MultimodalSurvival": "_single_task",
    "SliceEncoder": "_slices",
    "StabilityFilter": "_stability",
    "TabularEncoder": "_tabular",
    "SurvivalBoosting": "_trees",
    "SurvivalForest": "_trees",
    "VectorBagEncoder": "_vectors",
    "VolumeEncoder": "_volumes",
}

__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it offers {', '.join(__all__)}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
