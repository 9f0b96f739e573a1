"""Estimators with scikit-learn's interface; the only place where tables become tensors.

Each loads on first use: what reads scans or fits Cox models to tables need not import torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmdls.estimators.columns._combat import ComBat as ComBat
    from mmdls.estimators.columns._screening import CorrelationFilter as CorrelationFilter
    from mmdls.estimators.columns._screening import VarianceFilter as VarianceFilter
    from mmdls.estimators.columns._stability import StabilityFilter as StabilityFilter
    from mmdls.estimators.columns._tabular import TabularEncoder as TabularEncoder
    from mmdls.estimators.encoders._frozen import FrozenFeatures as FrozenFeatures
    from mmdls.estimators.encoders._slices import SliceEncoder as SliceEncoder
    from mmdls.estimators.encoders._vectors import VectorBagEncoder as VectorBagEncoder
    from mmdls.estimators.encoders._volumes import VolumeEncoder as VolumeEncoder
    from mmdls.estimators.measurements._pet_features import PETFeatures as PETFeatures
    from mmdls.estimators.measurements._radiomics_extractor import RadiomicsExtractor as RadiomicsExtractor
    from mmdls.estimators.multimodal._mmdls import MMDLS as MMDLS
    from mmdls.estimators.multimodal._single_task import MultimodalClassifier as MultimodalClassifier
    from mmdls.estimators.multimodal._single_task import MultimodalSurvival as MultimodalSurvival
    from mmdls.estimators.segmentation._segmentor import LungLesionSegmentor as LungLesionSegmentor
    from mmdls.estimators.survival._comparators import ClinicalCox as ClinicalCox
    from mmdls.estimators.survival._comparators import RadiomicsCox as RadiomicsCox
    from mmdls.estimators.survival._coxnet import CoxNet as CoxNet
    from mmdls.estimators.survival._sign_weighted import SignWeightedBagging as SignWeightedBagging
    from mmdls.estimators.survival._sign_weighted import SignWeightedClassifier as SignWeightedClassifier
    from mmdls.estimators.survival._trees import SurvivalBoosting as SurvivalBoosting
    from mmdls.estimators.survival._trees import SurvivalForest as SurvivalForest

_HOME = {
    "ComBat": "columns._combat",
    "ClinicalCox": "survival._comparators",
    "RadiomicsCox": "survival._comparators",
    "CoxNet": "survival._coxnet",
    "FrozenFeatures": "encoders._frozen",
    "MMDLS": "multimodal._mmdls",
    "PETFeatures": "measurements._pet_features",
    "RadiomicsExtractor": "measurements._radiomics_extractor",
    "CorrelationFilter": "columns._screening",
    "VarianceFilter": "columns._screening",
    "LungLesionSegmentor": "segmentation._segmentor",
    "SignWeightedBagging": "survival._sign_weighted",
    "SignWeightedClassifier": "survival._sign_weighted",
    "MultimodalClassifier": "multimodal._single_task",
    "MultimodalSurvival": "multimodal._single_task",
    "SliceEncoder": "encoders._slices",
    "StabilityFilter": "columns._stability",
    "TabularEncoder": "columns._tabular",
    "SurvivalBoosting": "survival._trees",
    "SurvivalForest": "survival._trees",
    "VectorBagEncoder": "encoders._vectors",
    "VolumeEncoder": "encoders._volumes",
}

__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it offers {', '.join(__all__)}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
