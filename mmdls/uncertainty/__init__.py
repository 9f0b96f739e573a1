"""Conformal prediction: label sets and lower bounds of survival times that hold at a stated rate, for any model."""

from mmdls.uncertainty._coverage import coverage_table
from mmdls.uncertainty._predictor import ConformalPredictor

__all__ = ["ConformalPredictor", "coverage_table"]
