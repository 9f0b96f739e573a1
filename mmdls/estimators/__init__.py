"""Estimators with scikit-learn's interface; the only place where tables become tensors."""

from mmdls.estimators._combat import ComBat
from mmdls.estimators._comparators import ClinicalCox, RadiomicsCox
from mmdls.estimators._coxnet import CoxNet
from mmdls.estimators._mmdls import MMDLS
from mmdls.estimators._pet_features import PETFeatures
from mmdls.estimators._radiomics_extractor import RadiomicsExtractor
from mmdls.estimators._screening import CorrelationFilter, VarianceFilter
from mmdls.estimators._segmentor import LungLesionSegmentor
from mmdls.estimators._sign_weighted import SignWeightedBagging, SignWeightedClassifier
from mmdls.estimators._single_task import MultimodalClassifier, MultimodalSurvival
from mmdls.estimators._slices import SliceEncoder
from mmdls.estimators._stability import StabilityFilter
from mmdls.estimators._tabular import TabularEncoder
from mmdls.estimators._trees import SurvivalBoosting, SurvivalForest
from mmdls.estimators._vectors import VectorBagEncoder

__all__ = [
    "MMDLS",
    "ClinicalCox",
    "ComBat",
    "CorrelationFilter",
    "CoxNet",
    "LungLesionSegmentor",
    "MultimodalClassifier",
    "MultimodalSurvival",
    "PETFeatures",
    "RadiomicsCox",
    "RadiomicsExtractor",
    "SignWeightedBagging",
    "SignWeightedClassifier",
    "SliceEncoder",
    "StabilityFilter",
    "SurvivalBoosting",
    "SurvivalForest",
    "TabularEncoder",
    "VarianceFilter",
    "VectorBagEncoder",
]
